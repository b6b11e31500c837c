//! `check --probe` and `state.url` on real services. `SLUICE_TEST_KAFKA`, `SLUICE_TEST_MINIO` (with `_KEY` and `_SECRET`) and
//! `SLUICE_TEST_REDIS` name them; `SLUICE_TEST_REQUIRE_SERVICES=1` makes their absence a failure.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::print_stderr, reason = "a test that did not run says so")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use rskafka::chrono::DateTime;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use sluice::clock::{Clock as _, SystemClock};

struct Services {
    kafka: String,
    minio: String,
    key: String,
    secret: String,
    redis: String,
}

fn services() -> Option<Services> {
    let get = |name: &str| std::env::var(format!("SLUICE_TEST_{name}")).ok();
    let found = || {
        Some(Services {
            kafka: get("KAFKA")?,
            minio: get("MINIO")?,
            key: get("MINIO_KEY")?,
            secret: get("MINIO_SECRET")?,
            redis: get("REDIS")?,
        })
    };
    let services = found();
    if services.is_none() {
        assert_ne!(get("REQUIRE_SERVICES").as_deref(), Some("1"), "services are required and not named");
        eprintln!("not run: SLUICE_TEST_KAFKA, _MINIO, _MINIO_KEY, _MINIO_SECRET, _REDIS do not all name a service");
    }
    services
}

fn unique(name: &str) -> String {
    format!("{name}-{:08x}", getrandom::u32().unwrap())
}

/// A topic of two partitions with `records` records.
async fn fill_topic(kafka: &str, topic: &str, records: usize) {
    let client = ClientBuilder::new(vec![kafka.to_owned()]).build().await.unwrap();
    client.controller_client().unwrap().create_topic(topic, 2, 1, 30_000).await.unwrap();
    for partition in 0..2 {
        let partition_client = client.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap();
        let record = |number: usize| Record {
            key: None,
            value: Some(format!("{{\"app_id\":\"a{}\",\"n\":{number}}}", number % 3).into_bytes()),
            headers: BTreeMap::new(),
            timestamp: DateTime::from_timestamp_millis(SystemClock.now_ms()).unwrap(),
        };
        let records = (0..records).filter(|n| n % 2 == partition as usize).map(record).collect();
        partition_client.produce(records, Compression::Lz4).await.unwrap();
    }
}

/// configs/, connectors/, spool/ and data/ of one worker.
struct Place(tempfile::TempDir);

impl Place {
    fn new(worker: &str, connector: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for folder in ["configs", "connectors", "data"] {
            std::fs::create_dir(place.path(folder)).unwrap();
        }
        place.write("connectors/c.yaml", connector);
        place.write_worker(worker);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn write_worker(&self, more: &str) {
        let spool = self.path("spool");
        self.write(
            "configs/worker.yaml",
            &format!("spool: {{ dir: {} }}\nhttp: {{ listen: '127.0.0.1:0' }}\n{more}\n", spool.display()),
        );
    }

    /// Exit status, stdout and stderr.
    async fn sluice(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(args).arg("--config").arg(self.path("configs/worker.yaml")).env_clear();
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

fn connector(topic: &str, sink: &str) -> String {
    format!("topics: [{topic}]\napp_id: {{ from: json, pointer: /app_id }}\nsink: {{ {sink} }}\n")
}

/// A sink in MinIO; the keys are written beside.
fn s3_sink(services: &Services, bucket: &str, dir: &Path) -> String {
    let (key, secret) = (dir.join("key"), dir.join("secret"));
    std::fs::write(&key, &services.key).unwrap();
    std::fs::write(&secret, &services.secret).unwrap();
    format!(
        "url: 's3://{bucket}/data', endpoint: '{}', region: us-east-1, flavor: minio, credentials: {{ from: static, key_file: {}, \
         secret_file: {} }}",
        services.minio,
        key.display(),
        secret.display()
    )
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_probe_tells_what_is_there_and_what_is_not() {
    let Some(services) = services() else { return };
    let (topic, bucket) = (unique("probe"), unique("probe"));
    fill_topic(&services.kafka, &topic, 10).await;
    support::make_bucket(&services.minio, &bucket, &services.key, &services.secret).await;
    let kafka = format!("kafka: {{ bootstrap_servers: ['{}'] }}", services.kafka);
    let group = unique("probe");
    let with_redis = format!("{kafka}\ncoordination: {{ url: '{}' }}\nworker: {{ group: {group} }}", services.redis);
    let place = Place::new(&with_redis, "");
    let s3 = s3_sink(&services, &bucket, place.0.path());
    place.write("connectors/c.yaml", &connector(&topic, &s3));
    let (code, out, err) = place.sluice(&["check", "--probe"]).await;
    assert_eq!(code, 0, "{out}{err}");
    for line in [
        format!("ok      kafka {}: connected", services.kafka),
        format!("ok      connector c: topic {topic}: 2 of 2 partitions are read; partition 0 begins at offset 0"),
        format!(
            "ok      connector c: sink s3://{bucket}/data: write, read, read a range, head, list, create only, delete"
        ),
        format!("ok      redis {}: answers PING", services.redis.trim_start_matches("redis://")),
        format!(
            "ok      coordination {}: takes and releases a lease; of group {group} nobody is there",
            services.redis
        ),
    ] {
        assert!(out.lines().any(|found| found == line), "{line}\n{out}");
    }
    place.write("connectors/c.yaml", &connector("probe-nowhere", &s3.replace(&bucket, "probe-nowhere")));
    let (code, out, _) = place.sluice(&["check", "--probe", "--json"]).await;
    assert_eq!(code, 3, "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let failed = |what: &str| {
        let mut steps = report["probe"].as_array().unwrap().iter();
        steps.any(|step| step["outcome"] == "failed" && step["what"].as_str().unwrap().contains(what))
    };
    assert!(report["ok"] == false && failed("topic probe-nowhere") && failed("sink s3://probe-nowhere/data"), "{out}");
    assert!(!out.contains(&services.secret), "{out}");
}

/// The log lies elsewhere, and a connector that has begun is not let go of it.
#[tokio::test]
async fn the_log_lies_where_state_url_says() {
    let Some(services) = services() else { return };
    let topic = unique("state");
    fill_topic(&services.kafka, &topic, 100).await;
    let kafka = format!("kafka: {{ bootstrap_servers: ['{}'] }}", services.kafka);
    let place = Place::new(&kafka, "");
    let (state, data) = (place.path("state"), place.path("data"));
    let with_state = format!("{kafka}\nstate: {{ url: 'file://{}' }}", state.display());
    place.write_worker(&with_state);
    place.write("connectors/c.yaml", &connector(&topic, &format!("url: 'file://{}'", data.display())));
    let (code, _, err) = place.sluice(&["run", "--until-caught-up"]).await;
    assert_eq!(code, 0, "{err}");
    let of_data = files(&data);
    let beside: Vec<_> = of_data.iter().filter(|file| file.starts_with(data.join("_sluice"))).collect();
    assert_eq!(beside, [&data.join("_sluice/c/created")]);
    assert!(of_data.len() > 1);
    let log = files(&state);
    assert!(log.contains(&state.join("_sluice/c/created")), "{log:?}");
    assert!(log.contains(&state.join(format!("_sluice/c/{topic}/1/0/{:020}", 1))), "{log:?}");
    // A second run finds its log: nothing is archived twice.
    let (code, _, err) = place.sluice(&["run", "--until-caught-up"]).await;
    assert_eq!((code, files(&data)), (0, of_data.clone()), "{err}");
    // Without it everything would be archived again.
    place.write_worker(&kafka);
    let (code, _, err) = place.sluice(&["run", "--until-caught-up"]).await;
    assert!(code == 2 && err.contains("was begun with its state file://"), "{code} {err}");
    assert_eq!(files(&data), of_data);
}

#[tokio::test]
async fn the_log_lies_in_another_bucket() {
    let Some(services) = services() else { return };
    let (topic, bucket, state) = (unique("state"), unique("state-data"), unique("state-log"));
    fill_topic(&services.kafka, &topic, 100).await;
    for bucket in [&bucket, &state] {
        support::make_bucket(&services.minio, bucket, &services.key, &services.secret).await;
    }
    let kafka = format!("kafka: {{ bootstrap_servers: ['{}'] }}", services.kafka);
    let place = Place::new(&format!("{kafka}\nstate: {{ url: 's3://{state}/logs' }}"), "");
    place.write("connectors/c.yaml", &connector(&topic, &s3_sink(&services, &bucket, place.0.path())));
    let (code, out, err) = place.sluice(&["check", "--probe"]).await;
    assert!(code == 0 && out.contains(&format!("ok      connector c: state s3://{state}/logs: write,")), "{out}{err}");
    for _ in 0..2 {
        let (code, _, err) = place.sluice(&["run", "--until-caught-up"]).await;
        assert_eq!(code, 0, "{err}");
    }
    place.write_worker(&format!("{kafka}\nstate: {{ url: 's3://{state}/other' }}"));
    let (code, _, err) = place.sluice(&["run", "--until-caught-up"]).await;
    assert!(code == 2 && err.contains(&format!("begun with its state s3://{state}/logs")), "{code} {err}");
}

/// The weaker choice: as long as that Redis forgets nothing all is well, and when it forgot everything nothing is archived twice.
#[tokio::test]
async fn the_log_lies_on_redis_and_is_missed_when_it_is_gone() {
    let Some(services) = services() else { return };
    let topic = unique("state");
    fill_topic(&services.kafka, &topic, 100).await;
    let redis = support::group::OwnRedis::start();
    let kafka = format!("kafka: {{ bootstrap_servers: ['{}'] }}\nstate: {{ url: '{}' }}", services.kafka, redis.url());
    let place = Place::new(&kafka, "");
    let data = place.path("data");
    place.write("connectors/c.yaml", &connector(&topic, &format!("url: 'file://{}'", data.display())));
    let (code, out, err) = place.sluice(&["check", "--probe"]).await;
    let line = format!(
        "ok      connector c: state {}: write, read, read a range, head, list, create only, delete",
        redis.url()
    );
    assert!(code == 0 && out.lines().any(|found| found == line), "{out}{err}");
    let mut archived = Vec::new();
    for run in 0..2 {
        let (code, _, err) = place.sluice(&["run", "--until-caught-up"]).await;
        assert_eq!(code, 0, "{err}");
        assert!(run == 0 || files(&data) == archived, "a second run finds its log");
        archived = files(&data);
    }
    assert!(archived.len() > 1);
    redis.run("cli", &["flushall"]);
    let (code, _, err) = place.sluice(&["run", "--until-caught-up"]).await;
    assert!(code == 4 && err.contains(&format!("its state at {} is gone", redis.url())), "{code} {err}");
    assert_eq!(files(&data), archived);
}
