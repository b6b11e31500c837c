//! Secrets are planted in every place that takes one, and looked for in everything that a worker says.

#![allow(clippy::disallowed_methods, reason = "a test may wait for another process")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::http::{free_address, request};
use support::process::{Setup, Sink, produce, service};

const TOKEN: &str = "planted-token-5d1f";
const WRONG_SECRET: &str = "planted-wrong-secret-77ab";
const PASSWORD: &str = "planted-password-0c9e";
const PATHS: [&str; 12] = [
    "/",
    "/health",
    "/status",
    "/metrics",
    "/connectors?expand=info&expand=status",
    "/connectors/wrong/config",
    "/connectors/wrong/status",
    "/connectors/wrong/tasks",
    "/connectors/wrong/offsets",
    "/connector-plugins",
    "/connector-plugins/SluiceSinkConnector/config",
    "/admin/loggers",
];

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn plant(file: &Path, text: &str) -> String {
    fs::write(file, text).unwrap();
    file.display().to_string()
}

#[test]
fn what_is_planted_is_nowhere_to_be_read() {
    let names = ["KAFKA", "MINIO", "MINIO_KEY", "MINIO_SECRET", "REDIS"];
    let found: Option<Vec<String>> = names.iter().map(|name| service(&format!("SLUICE_TEST_{name}"))).collect();
    let Some([kafka, minio, key, secret, redis]) = found.and_then(|found| <[String; 5]>::try_from(found).ok()) else {
        return;
    };
    let topic = format!("secrets-{:08x}", getrandom::u32().unwrap());
    let setup = Setup::new(&kafka, &topic, &Sink::File, "rotate: { max_interval: 1s }");
    assert!(produce(&kafka, &topic, 1_000, None, &setup.path("manifest")).wait().unwrap().success());
    let address = free_address();
    setup.write_worker(&kafka, "worker-1", address.port());
    let token = plant(&setup.path("token"), TOKEN);
    let settings = fs::read_to_string(setup.path("worker.yaml")).unwrap();
    let listen = format!("listen: \"{address}\"");
    // Redis refuses the password: its errors are told too.
    let redis = redis.replace("redis://", &format!("redis://user:{PASSWORD}@"));
    let settings = settings.replace(&listen, &format!("{listen}, auth: {{ bearer_token_file: {token} }}"));
    assert!(settings.contains("bearer_token_file"), "{settings}");
    let settings = format!("{settings}coordination: {{ url: '{redis}' }}\nlog: {{ level: trace }}\n");
    fs::write(setup.path("worker.yaml"), settings).unwrap();
    let mut worker = setup.start(&[], "worker.log");
    worker.wait_for("http listens");

    let bearer = format!("Bearer {TOKEN}");
    let ask = |method: &str, path: &str, body: Option<Value>| {
        let body = body.map(|body| body.to_string());
        request(address, method, path, &[("authorization", &bearer)], body.as_deref())
    };
    assert_eq!(request(address, "GET", "/connectors", &[], None).status, 401);
    until("the worker is ready", || ask("GET", "/connectors", None).status == 200);
    let config = json!({
        "topics": topic,
        "app_id.from": "key",
        "sink.url": format!("s3://no-such-bucket-{topic}/a"),
        "sink.endpoint": minio,
        "sink.region": "us-east-1",
        "sink.flavor": "minio",
        "sink.credentials.from": "static",
        "sink.credentials.key_file": plant(&setup.path("key"), &key),
        "sink.credentials.secret_file": plant(&setup.path("wrong"), WRONG_SECRET),
    });
    let made = ask("PUT", "/connectors/wrong/config", Some(config.clone()));
    // Without Redis nothing can be shared with the group, and that is said.
    assert_eq!(made.status, 503, "{}", made.body);
    let mut said = made.body;
    let settings = fs::read_to_string(setup.path("worker.yaml")).unwrap();
    worker.terminate();
    said += &worker.log();
    assert!(said.contains("user") || said.contains("redis://"), "the failure of Redis is told: {said}");

    // The same without a group: the store's refusal is told.
    let alone: Vec<&str> = settings.lines().filter(|line| !line.starts_with("coordination")).collect();
    fs::write(setup.path("worker.yaml"), alone.join("\n")).unwrap();
    let mut worker = setup.start(&[], "worker.log");
    worker.wait_for("http listens");
    until("the worker is ready", || ask("GET", "/connectors", None).status == 200);
    let made = ask("PUT", "/connectors/wrong/config", Some(config.clone()));
    assert_eq!(made.status, 201, "{}", made.body);
    worker.wait_for("SignatureDoesNotMatch");
    // The right secret, which is used and never told.
    plant(&setup.path("wrong"), &secret);
    let mut right = config;
    right["sink.credentials.secret_file"] = json!(plant(&setup.path("right"), &secret));
    said += &ask("PUT", "/connectors/wrong/config", Some(right)).body;
    for path in PATHS {
        said += &ask("GET", path, None).body;
    }
    let (code, out, err) = setup.command(&["check"]);
    assert_eq!(code, 0, "{err}");
    said += &out;
    said += &err;
    worker.terminate();
    said += &worker.log();
    said += &fs::read_to_string(setup.path("spool.connectors.json")).unwrap();
    assert!(said.contains("sink.credentials.secret_file"), "the configuration is echoed");
    for planted in [TOKEN, WRONG_SECRET, PASSWORD, secret.as_str()] {
        let at = said.find(planted);
        assert_eq!(at, None, "{}", &said[at.unwrap_or(0).saturating_sub(200)..][..400.min(said.len())]);
    }
}
