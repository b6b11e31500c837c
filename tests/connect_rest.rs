//! Kafka Connect's REST API on a real worker, as its clients use it, and connectors' files that change while it runs.

#![allow(clippy::disallowed_methods, reason = "a test may wait for another process")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::http::{Answer, free_address, request};
use support::process::{Running, Setup, Sink, produce, service};

/// A worker with one connector of a file, on a topic of its own, and its address.
struct Worker {
    setup: Setup,
    topic: String,
    address: SocketAddr,
    running: Running,
}

fn fill(kafka: &str, topic: &str, dir: &Path) {
    let status = produce(kafka, topic, 2_000, None, &dir.join(format!("{topic}.manifest"))).wait().unwrap();
    assert!(status.success());
}

impl Worker {
    fn start(kafka: &str, name: &str) -> Self {
        let topic = format!("{name}-{:08x}", getrandom::u32().unwrap());
        let setup = Setup::new(kafka, &topic, &Sink::File, "rotate: { max_interval: 2s }");
        fill(kafka, &topic, &setup.path("."));
        let address = free_address();
        setup.write_worker(kafka, "worker-1", address.port());
        let mut running = setup.start(&[], "worker.log");
        running.wait_for("http listens");
        let worker = Self { setup, topic, address, running };
        worker.until("the connector is known", |worker| worker.ask("GET", "/connectors", None).status == 200);
        worker
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        request(self.address, method, path, &[], body.map(|body| body.to_string()).as_deref())
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !so(self) {
            assert!(std::time::Instant::now() < deadline, "not within a minute: {what}: {}", self.running.last_lines());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// State of the connector and of its tasks.
    fn states(&self, name: &str) -> (String, Vec<String>) {
        let status = self.json(&format!("/connectors/{name}/status"));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let tasks = status["tasks"].as_array().unwrap().iter().map(|task| text(&task["state"])).collect();
        (text(&status["connector"]["state"]), tasks)
    }

    fn until_states(&self, name: &str, connector: &str, tasks: &[&str]) {
        let want = (connector.to_owned(), tasks.iter().map(|task| (*task).to_owned()).collect::<Vec<_>>());
        self.until(&format!("{name} is {want:?}"), |worker| worker.states(name) == want);
    }

    fn config(&self, folder: &str) -> Value {
        json!({
            "connector.class": "SluiceSinkConnector",
            "topics": self.topic,
            "tasks.max": "1",
            "app_id.from": "json",
            "app_id.pointer": "/app_id",
            "rotate.max_interval": "1s",
            "sink.url": format!("file://{}", self.place(folder).display()),
        })
    }

    fn place(&self, folder: &str) -> PathBuf {
        self.setup.path(folder)
    }

    fn low_sum(&self, name: &str) -> i64 {
        let offsets = self.json(&format!("/connectors/{name}/offsets"));
        offsets["offsets"].as_array().unwrap().iter().map(|one| one["offset"]["kafka_offset"].as_i64().unwrap()).sum()
    }
}

#[test]
fn a_connector_lives_by_rest_alone() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let mut worker = Worker::start(&kafka, "rest");
    let root = worker.json("/");
    assert_eq!(root["version"], env!("CARGO_PKG_VERSION"));
    assert!(root["kafka_cluster_id"].is_string(), "{root}");
    assert_eq!(worker.json("/connectors"), json!(["app-logs"]));

    // Made, with a slash at the end and a parameter that is none.
    let config = worker.config("over-http");
    let body = json!({ "name": "mine", "config": config });
    let made = worker.ask("POST", "/connectors/?forward=true", Some(body.clone()));
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(made.head.to_ascii_lowercase().contains("location: /connectors/mine"), "{}", made.head);
    assert_eq!(worker.ask("POST", "/connectors", Some(body)).status, 409);
    worker.until_states("mine", "RUNNING", &["RUNNING"]);
    // Echoed as sent, with the name.
    let mut echoed = config.clone();
    echoed["name"] = json!("mine");
    assert_eq!(worker.json("/connectors/mine/config"), echoed);
    let all = worker.json("/connectors?expand=status&expand=info");
    assert_eq!(all["mine"]["info"]["type"], "sink");
    assert_eq!(all["app-logs"]["status"]["connector"]["state"], "RUNNING");
    assert_eq!(worker.json("/connectors/mine/topics"), json!({ "mine": { "topics": [worker.topic] } }));
    assert_eq!(worker.json("/connectors/mine/tasks")[0]["id"], json!({ "connector": "mine", "task": 0 }));
    assert_eq!(worker.json("/connectors/mine/tasks/0/status")["state"], "RUNNING");
    assert_eq!(worker.ask("GET", "/connectors/mine/tasks/7/status", None).status, 404);
    worker.until("all is archived", |worker| worker.low_sum("mine") == 2_000);
    // The other commands know it by its name too.
    let (code, out, err) = worker.setup.command(&["verify", "mine"]);
    assert!(code == 0 && out.contains("connector mine: proven"), "{code} {out}{err}");
    // Also beside a file that is wrong, which does not keep anybody from asking the worker either.
    fs::write(worker.place("connectors/wrong.yaml"), "topics: [x").unwrap();
    let (code, out, err) = worker.setup.command(&["verify", "app-logs"]);
    assert!(code == 0 && out.contains("connector app-logs: proven"), "{code} {out}{err}");
    let (code, out, err) = worker.setup.command(&["status"]);
    assert!(code == 0 && out.contains(&worker.topic), "{code} {out}{err}");
    let (code, _, err) = worker.setup.command(&["verify", "wrong"]);
    assert!(code == 2 && err.contains("wrong.yaml:2:1: is not YAML"), "{code} {err}");
    fs::remove_file(worker.place("connectors/wrong.yaml")).unwrap();
    // A connector that can't begin says why, and is there as soon as it can.
    let below_a_file = worker.place("taken");
    fs::write(&below_a_file, "").unwrap();
    let mut config = worker.config("taken/archive");
    config["rotate.max_interval"] = json!("2s");
    assert_eq!(worker.ask("PUT", "/connectors/early/config", Some(config)).status, 201);
    worker
        .until("it says why it waits", |worker| worker.ask("GET", "/status", None).body.contains("can't be used yet"));
    assert!(worker.ask("GET", "/metrics", None).body.contains("sluice_connector_failed{connector=\"early\"} 1"));
    let (_, out, _) = worker.setup.command(&["status"]);
    assert!(out.contains("early: has not begun yet:") && out.contains("Not a directory"), "{out}");
    fs::remove_file(below_a_file).unwrap();
    worker.until_states("early", "RUNNING", &["RUNNING"]);
    assert!(worker.ask("GET", "/metrics", None).body.contains("sluice_connector_failed{connector=\"early\"} 0"));
    assert_eq!(worker.ask("DELETE", "/connectors/early", None).status, 204);
    let (code, _, err) = worker.setup.command(&["ls", "mined"]);
    assert!(
        code == 2 && err.contains("there is no connector mined in the settings (there are: app-logs, mine)"),
        "{err}"
    );

    // Paused and resumed; what was answered survives a kill.
    assert_eq!(worker.ask("PUT", "/connectors/mine/pause", None).status, 202);
    worker.until_states("mine", "PAUSED", &["PAUSED"]);
    let log = fs::read_to_string(worker.place("spool.connectors.json")).unwrap();
    assert!(log.contains("\"mine\"") && log.contains("PAUSED"), "{log}");
    worker.running.child.kill().unwrap();
    worker.running.child.wait().unwrap();
    worker.running = worker.setup.start(&[], "worker.log");
    worker.running.wait_for("http listens");
    worker.until("it is back", |worker| worker.ask("GET", "/connectors", None).status == 200);
    worker.until_states("mine", "PAUSED", &[]);
    assert_eq!(worker.ask("PUT", "/connectors/mine/resume", None).status, 202);
    worker.until_states("mine", "RUNNING", &["RUNNING"]);

    // Restarts.
    assert_eq!(worker.ask("POST", "/connectors/mine/restart", None).status, 204);
    let answer = worker.ask("POST", "/connectors/mine/restart?includeTasks=True&onlyFailed=false", None);
    assert_eq!(answer.status, 202, "{}", answer.body);
    worker.until_states("mine", "RUNNING", &["RUNNING"]);
    assert_eq!(worker.ask("POST", "/connectors/mine/tasks/0/restart", None).status, 204);
    worker.running.wait_for("the task is started anew, as asked");
    worker.until_states("mine", "RUNNING", &["RUNNING"]);

    // Changed; wrong settings change nothing.
    let patched = worker.ask("PATCH", "/connectors/mine/config", Some(json!({ "rotate.max_interval": "3s" })));
    assert_eq!(patched.status, 200, "{}", patched.body);
    let wrong = worker.ask("PUT", "/connectors/mine/config", Some(json!({ "topics": "t", "rotate.max_byte": "1" })));
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("did you mean rotate.max_bytes?"), "{}", wrong.body);
    assert_eq!(worker.json("/connectors/mine/config")["rotate.max_interval"], "3s");
    let mut taken = worker.config("over-http/below");
    let answer = worker.ask("PUT", "/connectors/other/config", Some(taken.clone()));
    assert!(answer.status == 400 && answer.body.contains("each needs its own"), "{}", answer.body);
    taken["sink.url"] = json!(format!("file://{}", worker.place("other").display()));
    assert_eq!(worker.ask("PUT", "/connectors/other/config", Some(taken)).status, 201);

    // Offsets only while it is stopped.
    let set = json!({ "offsets": [{
        "partition": { "kafka_topic": worker.topic, "kafka_partition": 0 }, "offset": { "kafka_offset": 10 }
    }] });
    assert_eq!(worker.ask("PATCH", "/connectors/mine/offsets", Some(set.clone())).status, 400);
    assert_eq!(worker.ask("PUT", "/connectors/mine/stop", None).status, 204);
    worker.until_states("mine", "STOPPED", &[]);
    worker.until("offsets are altered", |worker| {
        worker.ask("PATCH", "/connectors/mine/offsets", Some(set.clone())).status == 200
    });
    let offsets = worker.json("/connectors/mine/offsets");
    assert_eq!(offsets["offsets"][0]["offset"]["kafka_offset"], 10, "{offsets}");
    assert_eq!(worker.ask("DELETE", "/connectors/mine/offsets", None).status, 200);
    assert_eq!(worker.low_sum("mine"), 0);

    // Removed: what it archived stays.
    assert_eq!(worker.ask("DELETE", "/connectors/mine", None).status, 204);
    assert_eq!(worker.ask("GET", "/connectors/mine", None).status, 404);
    assert!(worker.place("over-http").exists());

    // A file's connector can be paused, and is otherwise its file's.
    for (method, path, body) in
        [("DELETE", "/connectors/app-logs", None), ("PUT", "/connectors/app-logs/config", Some(worker.config("x")))]
    {
        let answer = worker.ask(method, path, body);
        assert!(answer.status == 409 && answer.body.contains("app-logs.yaml"), "{}", answer.body);
    }
    assert_eq!(worker.ask("PUT", "/connectors/app-logs/pause", None).status, 202);
    worker.until_states("app-logs", "PAUSED", &["PAUSED"]);
    assert_eq!(worker.ask("PUT", "/connectors/app-logs/resume", None).status, 202);
    worker.until_states("app-logs", "RUNNING", &["RUNNING"]);
    worker.setup.verify_records(2_000, 4);
    assert!(worker.running.terminate().success());
}

#[test]
fn plugins_and_loggers_are_described() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let mut worker = Worker::start(&kafka, "plugins");
    assert_eq!(worker.json("/connector-plugins")[0]["class"], "SluiceSinkConnector");
    let keys = worker.json("/connector-plugins/SluiceSinkConnector/config");
    let url = keys.as_array().unwrap().iter().find(|key| key["name"] == "sink.url").unwrap();
    assert!(url["required"] == json!(true) && url["documentation"].as_str().unwrap().contains("s3://"), "{url}");
    let validate = "/connector-plugins/SluiceSinkConnector/config/validate";
    let mut config = worker.config("v");
    config["name"] = json!("v");
    let fine = worker.ask("PUT", validate, Some(config));
    let fine: Value = serde_json::from_str(&fine.body).unwrap();
    assert_eq!(fine["error_count"], 0, "{fine}");
    let wrong = worker.ask("PUT", validate, Some(json!({ "name": "x", "topics": "t", "nonsense": "1" })));
    let wrong: Value = serde_json::from_str(&wrong.body).unwrap();
    let errors = |name: &str| {
        let configs = wrong["configs"].as_array().unwrap();
        configs.iter().find(|one| one["value"]["name"] == name).unwrap()["value"]["errors"].as_array().unwrap().len()
    };
    assert_eq!((errors("sink.url"), errors("nonsense"), errors("tasks_max")), (1, 1, 0), "{wrong}");

    assert_eq!(worker.json("/admin/loggers")["sluice"]["level"], "INFO");
    let log = || fs::read_to_string(worker.place("worker.log")).unwrap();
    assert!(!log().contains("DEBUG"));
    let set = worker.ask("PUT", "/admin/loggers/sluice::api", Some(json!({ "level": "DEBUG" })));
    assert_eq!((set.status, set.body.as_str()), (200, "[\"sluice::api\"]"));
    assert_eq!(worker.json("/admin/loggers/sluice::api::http")["level"], "DEBUG");
    assert_eq!(worker.ask("PUT", "/admin/loggers/sluice", Some(json!({ "level": "LOUD" }))).status, 400);
    assert!(worker.running.terminate().success());
}

#[test]
fn files_are_read_again() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let mut worker = Worker::start(&kafka, "reload");
    worker.until_states("app-logs", "RUNNING", &["RUNNING"]);
    let connectors = worker.place("connectors");
    let text = |folder: &str, interval: &str| {
        format!(
            "topics: [{}]\napp_id: {{ from: json, pointer: /app_id }}\nrotate: {{ max_interval: {interval} }}\n\
             sink: {{ url: 'file://{}' }}\n",
            worker.topic,
            worker.place(folder).display()
        )
    };
    let address = worker.address;
    let metric = |line: &str| request(address, "GET", "/metrics", &[], None).body.lines().any(|found| found == line);

    // As Kubernetes mounts a ConfigMap: files are links into a folder that a link names, which is swapped.
    let versions = worker.place("versions");
    fs::create_dir_all(versions.join("1")).unwrap();
    fs::create_dir_all(versions.join("2")).unwrap();
    fs::write(versions.join("1/new.yaml"), text("new", "2s")).unwrap();
    fs::write(versions.join("2/new.yaml"), text("new", "4s")).unwrap();
    symlink("1", versions.join("data")).unwrap();
    symlink(versions.join("data/new.yaml"), connectors.join("new.yaml")).unwrap();
    worker.until("the new file is read", |worker| worker.json("/connectors") == json!(["app-logs", "new"]));
    worker.until_states("new", "RUNNING", &["RUNNING"]);
    symlink("2", versions.join("data.new")).unwrap();
    fs::rename(versions.join("data.new"), versions.join("data")).unwrap();
    worker.until("the swapped file is read", |worker| {
        worker.json("/connectors/new/config")["rotate.max_interval"] == "4s"
    });
    assert!(metric("sluice_config_last_reload_successful 1"));

    // A wrong one is refused by itself: the old one goes on, another change is taken.
    fs::write(connectors.join("app-logs.yaml"), "topics: [x]\nnonsense: 1\n").unwrap();
    fs::write(connectors.join("third.yaml"), text("third", "2s")).unwrap();
    worker.until("the third is there", |worker| worker.json("/connectors") == json!(["app-logs", "new", "third"]));
    worker.running.wait_for("app-logs.yaml:2:1: nonsense");
    worker.until("the metric says so", |_| metric("sluice_config_last_reload_successful 0"));
    assert_eq!(worker.states("app-logs").0, "RUNNING");
    assert_eq!(worker.json("/connectors/app-logs/config")["topics"], worker.topic.as_str());

    // Removed, the last one too; SIGHUP reads at once.
    for file in ["app-logs.yaml", "new.yaml", "third.yaml"] {
        fs::remove_file(connectors.join(file)).unwrap();
    }
    worker.running.signal("HUP");
    worker.until("all are gone", |worker| worker.json("/connectors") == json!([]));
    worker.until("the metric is well again", |_| metric("sluice_config_last_reload_successful 1"));
    assert!(worker.running.terminate().success());
}

#[test]
fn other_sites_big_bodies_and_slow_clients_get_nowhere() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let mut worker = Worker::start(&kafka, "guard");
    let ask = |method, headers: &[(&str, &str)], body| request(worker.address, method, "/connectors", headers, body);
    assert_eq!(ask("GET", &[("host", "evil.example")], None).status, 403);
    assert_eq!(ask("POST", &[("origin", "https://evil.example")], Some("{}")).status, 403);
    assert_eq!(ask("POST", &[("content-type", "text/plain")], Some("{}")).status, 415);
    let big = format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(ask("POST", &[], Some(&big)).status, 413);
    let answer = ask("POST", &[], Some("{"));
    assert!(answer.status == 400 && answer.body.contains("\"error_code\":400"), "{}", answer.body);
    assert!(worker.running.terminate().success());
}

/// Connectors made over one worker of a group run on all, survive a flush of Redis and a change by another worker.
#[test]
fn a_group_shares_what_is_made_over_http() {
    let (Some(kafka), Some(redis)) = (service("SLUICE_TEST_KAFKA"), service("SLUICE_TEST_REDIS")) else { return };
    let group = format!("rest-{:08x}", getrandom::u32().unwrap());
    let start = |name: &str| {
        let topic = format!("{group}-files");
        let setup = Setup::new(&kafka, &topic, &Sink::File, "");
        fs::remove_file(setup.path("connectors/app-logs.yaml")).unwrap();
        let address = free_address();
        setup.write_worker(&kafka, name, address.port());
        let settings = fs::read_to_string(setup.path("worker.yaml")).unwrap();
        let settings = settings.replace(&format!("id: {name}"), &format!("id: {name}, group: {group}"));
        fs::write(setup.path("worker.yaml"), format!("{settings}coordination: {{ url: '{redis}' }}\n")).unwrap();
        let mut running = setup.start(&[], "worker.log");
        running.wait_for("http listens");
        let worker = Worker { setup, topic, address, running };
        worker.until("it is there", |worker| worker.ask("GET", "/connectors", None).status == 200);
        worker
    };
    let (mut one, mut two) = (start("one"), start("two"));
    let topic = format!("{group}-topic");
    fill(&kafka, &topic, &one.place("."));
    let config = json!({
        "topics": topic, "app_id.from": "key", "sink.url": format!("file://{}", one.place("shared").display()),
    });
    assert_eq!(one.ask("PUT", "/connectors/shared/config", Some(config)).status, 201);
    two.until("two follows", |worker| worker.json("/connectors") == json!(["shared"]));
    let running = |worker: &Worker| worker.states("shared").1.iter().filter(|state| *state == "RUNNING").count();
    one.until("one of them runs it", |one| running(one) + running(&two) == 1);
    // The other one pauses it, and both stop.
    assert_eq!(two.ask("PUT", "/connectors/shared/pause", None).status, 202);
    for worker in [&one, &two] {
        worker.until("it is paused", |worker| worker.states("shared").0 == "PAUSED" && running(worker) == 0);
    }
    let client = redis::Client::open(redis.as_str()).unwrap();
    let key = format!("{{sluice:{group}}}:connectors");
    let mut connection = client.get_connection().unwrap();
    let gone: i64 = redis::cmd("DEL").arg(&key).query(&mut connection).unwrap();
    assert_eq!(gone, 1);
    one.until("it is put back", |_| {
        redis::cmd("EXISTS").arg(&key).query::<i64>(&mut connection_to(&client)).unwrap() == 1
    });
    assert_eq!(one.json("/connectors"), json!(["shared"]));
    assert_eq!(one.ask("DELETE", "/connectors/shared", None).status, 204);
    two.until("two follows", |worker| worker.json("/connectors") == json!([]));
    let _: i64 = redis::cmd("DEL").arg(&key).query(&mut connection).unwrap();
    assert!(one.running.terminate().success() && two.running.terminate().success());
}

fn connection_to(client: &redis::Client) -> redis::Connection {
    client.get_connection().unwrap()
}

/// kafka-connect-py from PyPI, in an environment that `dev/readers kc` makes.
#[test]
fn a_client_from_pypi_works_unchanged() {
    let (Some(kafka), Some(kc)) = (service("SLUICE_TEST_KAFKA"), service("SLUICE_TEST_KC")) else { return };
    let mut worker = Worker::start(&kafka, "kc");
    let kc = |arguments: &[&str]| -> Output {
        let mut command = Command::new(&kc);
        command.args(["--url", &format!("http://{}", worker.address)]).args(arguments);
        command.output().unwrap()
    };
    // It ends with 0 also where it failed, and says so.
    let fine = |arguments: &[&str]| {
        let output = kc(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !text.contains("Error") && !text.contains("Oops"),
            "kc {arguments:?}: {text}"
        );
        text
    };
    let config = |changes: Value| {
        let mut config = worker.config("by-kc");
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        config
    };
    let created = json!({ "name": "by-kc", "config": config(json!({})) }).to_string();
    assert!(fine(&["info"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(fine(&["list"]).contains("app-logs"));
    fine(&["create", "--config-data", &created]);
    worker.until_states("by-kc", "RUNNING", &["RUNNING"]);
    assert!(fine(&["list", "--expand", "status", "--state", "RUNNING"]).contains("by-kc"));
    assert!(fine(&["get", "by-kc"]).contains("rotate.max_interval"));
    assert!(fine(&["status", "by-kc"]).contains("RUNNING"));
    assert!(fine(&["list-tasks", "by-kc"]).contains("by-kc"));
    assert!(fine(&["task-status", "by-kc", "0"]).contains("RUNNING"));
    assert!(fine(&["list-topics", "by-kc"]).contains(&worker.topic));
    fine(&["reset-topics", "by-kc"]);
    fine(&["pause", "by-kc"]);
    worker.until_states("by-kc", "PAUSED", &["PAUSED"]);
    fine(&["resume", "by-kc"]);
    worker.until_states("by-kc", "RUNNING", &["RUNNING"]);
    fine(&["restart", "by-kc", "--include-tasks"]);
    worker.until_states("by-kc", "RUNNING", &["RUNNING"]);
    fine(&["restart-task", "by-kc", "0"]);
    let changed = config(json!({ "rotate.max_interval": "5s" })).to_string();
    fine(&["update", "by-kc", "--config-data", &changed]);
    assert_eq!(worker.json("/connectors/by-kc/config")["rotate.max_interval"], "5s");
    assert!(fine(&["config", "by-kc"]).contains("5s"));
    assert!(fine(&["list-plugins"]).contains("SluiceSinkConnector"));
    let named = config(json!({ "name": "by-kc" })).to_string();
    let validated = fine(&["validate-config", "SluiceSinkConnector", "--config-data", &named]);
    assert!(validated.contains("\"error_count\": 0"), "{validated}");
    fine(&["delete", "by-kc"]);
    assert_eq!(worker.json("/connectors"), json!(["app-logs"]));
    assert!(worker.running.terminate().success());
}

/// What clients are known to send, beyond the documented shapes. Their code is not run here; these are their requests.
#[test]
fn requests_as_other_clients_send_them() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let mut worker = Worker::start(&kafka, "clients");
    let config = worker.config("clients");
    let made =
        |name: &str, config: &Value| worker.ask("PUT", &format!("/connectors/{name}/config"), Some(config.clone()));

    // Terraform's provider posts the name in both places, reads the map back and compares; values it has as text.
    let mut named = config.clone();
    named["name"] = json!("clients");
    assert_eq!(worker.ask("POST", "/connectors", Some(json!({ "name": "clients", "config": named }))).status, 201);
    assert_eq!(worker.json("/connectors/clients")["config"], named);
    let mut other = named.clone();
    other["name"] = json!("another");
    assert_eq!(worker.ask("POST", "/connectors", Some(json!({ "name": "x", "config": other }))).status, 400);

    // Redpanda Console and Kafbat UI read all in one request, and plugins with a parameter.
    let all = worker.json("/connectors?expand=info&expand=status");
    assert!(all["clients"]["info"]["config"]["connector.class"] == "SluiceSinkConnector", "{all}");
    assert!(all["clients"]["status"]["tasks"].is_array() && all["clients"]["status"]["type"] == "sink", "{all}");
    assert_eq!(worker.json("/connector-plugins?connectorsOnly=false").as_array().unwrap().len(), 1);
    // Kafbat UI validates by the class' simple name, and sends numbers as such.
    let mut numbers = named.clone();
    numbers["tasks.max"] = json!(2);
    let validated = worker.ask("PUT", "/connector-plugins/SluiceSinkConnector/config/validate", Some(numbers.clone()));
    let validated: Value = serde_json::from_str(&validated.body).unwrap();
    assert_eq!((validated["error_count"].as_i64(), validated["name"].as_str()), (Some(0), Some("SluiceSinkConnector")));
    let first = &validated["configs"][0];
    for key in [
        "name",
        "type",
        "required",
        "default_value",
        "importance",
        "documentation",
        "group",
        "width",
        "display_name",
        "dependents",
        "order",
    ] {
        assert!(first["definition"].get(key).is_some(), "definition has no {key}: {first}");
    }
    for key in ["name", "value", "recommended_values", "errors", "visible"] {
        assert!(first["value"].get(key).is_some(), "value has no {key}: {first}");
    }
    assert_eq!(made("clients", &numbers).status, 200);
    assert_eq!(worker.json("/connectors/clients/config")["tasks.max"], "2");

    // kcctl patches, stops, and takes offsets of one partition away with null; a worker forwards with a parameter.
    assert_eq!(worker.ask("PATCH", "/connectors/clients/config", Some(json!({ "tasks.max": null }))).status, 200);
    assert_eq!(worker.json("/connectors/clients/config").get("tasks.max"), None);
    worker.until("something is archived", |worker| worker.low_sum("clients") == 2_000);
    assert_eq!(worker.ask("PUT", "/connectors/clients/stop?forward=false", None).status, 204);
    let set = json!({ "offsets": [{
        "partition": { "kafka_topic": worker.topic, "kafka_partition": "1" }, "offset": null
    }] });
    worker.until("offsets are altered", |worker| {
        worker.ask("PATCH", "/connectors/clients/offsets/", Some(set.clone())).status == 200
    });
    assert!(worker.low_sum("clients") < 2_000);
    assert_eq!(worker.ask("POST", "/connectors/clients/restart", None).status, 409);
    assert_eq!(worker.ask("PUT", "/connectors/clients/resume", None).status, 202);
    worker.until("it is archived again", |worker| worker.low_sum("clients") == 2_000);
    assert_eq!(worker.ask("GET", "/connectors/none/status", None).status, 404);
    assert_eq!(worker.ask("PUT", "/connectors/none/pause", None).status, 404);
    assert!(worker.running.terminate().success());
}
