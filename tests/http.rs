//! The worker's HTTP server as monitoring and an operator meet it, and `sluice status` that asks it.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use sluice::api::http::{Board, Server, WorkerReport, serve};
use sluice::api::metrics::{METRICS, TaskMetrics, install};
use sluice::config::{HttpAuth, HttpConfig, HttpTls};
use sluice::pipeline::budget::Budget;
use sluice::pipeline::spool::Spool;
use sluice::task::status::{TaskState, TaskStatus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

/// One recorder is all that a process can have.
fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| install().unwrap()).clone()
}

struct Worker {
    board: Arc<Board>,
    server: Server,
    dir: tempfile::TempDir,
    _stop: DropGuard,
}

async fn worker(auth: impl FnOnce(&Path) -> HttpAuth) -> Worker {
    worker_with(auth, None).await
}

async fn worker_with(auth: impl FnOnce(&Path) -> HttpAuth, tls: Option<HttpTls>) -> Worker {
    let dir = tempfile::tempdir().unwrap();
    let config = HttpConfig {
        listen: "127.0.0.1:0".to_owned(),
        metrics_listen: Some("127.0.0.1:0".to_owned()),
        auth: auth(dir.path()),
        tls,
        allow_sinks: Vec::new(),
    };
    let spool = Arc::new(Spool::open(&dir.path().join("spool"), 1 << 30).unwrap());
    let board = Arc::new(Board::new("host-7", Budget::new(64 << 20), spool, metrics(), false));
    let stop = CancellationToken::new();
    let server = serve(&config, Arc::clone(&board), Router::new(), stop.clone()).await.unwrap();
    Worker { board, server, dir, _stop: stop.drop_guard() }
}

impl Worker {
    fn add_task(&self, topic: &str, state: TaskState) -> Arc<TaskStatus> {
        let status = Arc::new(TaskStatus::new("app-logs", topic, 0));
        status.set_state(state, None, None);
        self.board.add_task(Arc::clone(&status));
        status
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.listen)
    }

    async fn get(&self, path: &str) -> Answer {
        ask(self.server.listen, "GET", path, "").await
    }
}

fn secret(dir: &Path, text: &str) -> PathBuf {
    let file = dir.join("secret");
    std::fs::write(&file, text).unwrap();
    file
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        assert!(self.head.contains("content-type: application/json\r\n"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// As any client would: bytes over a socket. `headers` end in CRLF each.
async fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: format!("{head}\r\n"), body: body.to_owned() }
}

#[tokio::test]
async fn health_follows_the_tasks() {
    let worker = worker(|_| HttpAuth::Unset).await;
    let answer = worker.get("/health").await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("starting")));
    let task = worker.add_task("applogs", TaskState::Running);
    let answer = worker.get("/health").await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("healthy")));
    task.set_state(TaskState::Failed, Some("records are gone".to_owned()), None);
    let answer = worker.get("/health").await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (500, Some("unhealthy")));
    assert_eq!(answer.json()["message"], "task app-logs/applogs/0 failed");
    task.set_state(TaskState::Running, None, None);
    worker.board.connector_failed("other", "its prefix is another's");
    assert_eq!(worker.get("/health").await.json()["message"], "connector other failed");
}

#[tokio::test]
async fn metrics_are_in_prometheus_format_with_every_help_text() {
    let worker = worker(|_| HttpAuth::Unset).await;
    TaskMetrics::new("app-logs", "applogs", 0).appended();
    let answer = worker.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{}", answer.head);
    for line in [
        "# TYPE sluice_log_appends_total counter",
        "sluice_log_appends_total{connector=\"app-logs\",topic=\"applogs\"} 1",
        "# TYPE sluice_memory_budget_used_bytes gauge",
        "sluice_memory_budget_used_bytes 0",
    ] {
        assert!(answer.body.lines().any(|found| found == line), "{line}\n{}", answer.body);
    }
    // A name outside the list has neither help nor place in the documentation.
    for line in answer.body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(METRICS.iter().any(|metric| metric.name == name), "{line}");
    }
}

#[tokio::test]
async fn status_is_what_the_tasks_report() {
    let worker = worker(|_| HttpAuth::Unset).await;
    worker.add_task("applogs", TaskState::Running).update(|task| task.lag_records = 12);
    worker.board.topic_missing("app-logs", "gone");
    let answer = worker.get("/status").await;
    assert_eq!(answer.json()["tasks"][0]["state"], "RUNNING");
    let report: WorkerReport = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (report.worker.as_str(), report.memory_max_bytes, report.spool_max_bytes),
        ("host-7", 64 << 20, 1 << 30)
    );
    assert_eq!(report.tasks[0].lag_records, 12);
    assert_eq!(report.connectors["app-logs"].missing_topics, ["gone"]);
}

#[tokio::test]
async fn what_is_not_there_is_told_in_connects_json() {
    let worker = worker(|_| HttpAuth::Unset).await;
    for address in [worker.server.listen, worker.server.metrics_listen.unwrap()] {
        let answer = ask(address, "GET", "/conectors?x=1", "").await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json(), serde_json::json!({ "error_code": 404, "message": "there is no /conectors" }));
        let answer = ask(address, "DELETE", "/health", "").await;
        assert_eq!((answer.status, answer.json()["error_code"].as_u64()), (405, Some(405)));
        assert!(answer.head.contains("allow: GET,HEAD\r\n"), "{}", answer.head);
    }
    for path in ["/health", "/metrics", "/status"] {
        let (head, get) = (ask(worker.server.listen, "HEAD", path, "").await, worker.get(path).await);
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{path}");
        let length = format!("content-length: {}\r\n", get.body.len());
        // Two tests at once count into the same metrics.
        assert!(path == "/metrics" || head.head.contains(&length), "{}", head.head);
    }
}

#[tokio::test]
async fn a_token_opens_status_and_metrics_and_health_needs_none() {
    let worker = worker(|dir| HttpAuth::BearerTokenFile(secret(dir, "planted\n"))).await;
    let (listen, open) = (worker.server.listen, worker.server.metrics_listen.unwrap());
    assert_eq!(ask(listen, "GET", "/health", "").await.status, 503);
    for path in ["/status", "/metrics"] {
        for wrong in
            ["", "authorization: Bearer plante\r\n", "authorization: planted\r\n", "authorization: Basic x\r\n"]
        {
            let answer = ask(listen, "GET", path, wrong).await;
            assert_eq!((answer.status, answer.json()["error_code"].as_u64()), (401, Some(401)), "{path} {wrong}");
            assert!(answer.head.contains("www-authenticate: Bearer\r\n"), "{}", answer.head);
        }
        assert_eq!(ask(listen, "GET", path, "authorization: Bearer planted\r\n").await.status, 200);
    }
    // The second address is for the monitoring alone: no auth, and no status.
    assert_eq!(ask(open, "GET", "/metrics", "").await.status, 200);
    assert_eq!(ask(open, "GET", "/status", "").await.status, 404);
}

#[tokio::test]
async fn every_user_of_the_file_is_let_in() {
    let worker = worker(|dir| HttpAuth::BasicFile(secret(dir, "user:pass\nf:\n"))).await;
    let with = async |key: &str| {
        let headers = if key.is_empty() { String::new() } else { format!("authorization: Basic {key}\r\n") };
        ask(worker.server.listen, "GET", "/status", &headers).await
    };
    assert_eq!((with("dXNlcjpwYXNz").await.status, with("Zjo=").await.status), (200, 200));
    assert!(with("").await.head.contains("www-authenticate: Basic realm=\"sluice\""));
    assert_eq!(with("dXNlcjpwYXNzCmY6").await.status, 401);
}

#[tokio::test]
async fn a_server_without_its_secret_or_address_does_not_start() {
    let worker = worker(|_| HttpAuth::Unset).await;
    let try_serve = async |auth: HttpAuth, listen: String| {
        let config = HttpConfig { listen, metrics_listen: None, auth, tls: None, allow_sinks: Vec::new() };
        serve(&config, Arc::clone(&worker.board), Router::new(), CancellationToken::new()).await.unwrap_err()
    };
    let empty = HttpAuth::BearerTokenFile(secret(worker.dir.path(), "\n"));
    assert!(try_serve(empty, "127.0.0.1:0".to_owned()).await.ends_with("secret is empty"));
    let taken = try_serve(HttpAuth::Unset, worker.server.listen.to_string()).await;
    assert!(taken.starts_with(&format!("http can't listen on {}", worker.server.listen)), "{taken}");
}

/// Runs `sluice status` with variables; the server answers meanwhile.
async fn status(args: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.arg("status").args(args).env_clear().envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_command_shows_a_table_or_json_and_fails_with_a_task() {
    let worker = worker(|_| HttpAuth::Unset).await;
    let task = worker.add_task("applogs", TaskState::Running);
    let url = worker.url();
    let (code, out, err) = status(&["--url", &url], &[]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with(&format!("worker host-7 (sluice {}) at {url}\n", env!("CARGO_PKG_VERSION"))), "{out}");
    assert!(out.contains("\napp-logs   applogs  0     RUNNING"), "{out}");
    task.set_state(TaskState::Failed, Some("records are gone".to_owned()), Some("look into it"));
    let (code, out, _) = status(&["--url", &format!("{url}/")], &[]).await;
    assert!(
        code == 1 && out.contains("app-logs/applogs/0: FAILED: records are gone\n  to do: look into it\n"),
        "{out}"
    );
    let (code, out, _) = status(&["--json", "--url", &url], &[]).await;
    let report: WorkerReport = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report.tasks[0].state), (1, TaskState::Failed));
}

#[tokio::test]
async fn the_command_takes_address_and_token_from_where_they_are() {
    let worker = worker(|dir| HttpAuth::BearerTokenFile(secret(dir, "planted\n"))).await;
    let url = worker.url();
    let file = worker.dir.path().join("secret");
    let token = [("SLUICE_HTTP_TOKEN_FILE", file.to_str().unwrap())];
    let (code, _, err) = status(&["--url", &url], &[]).await;
    assert!(code == 2 && err.contains("set SLUICE_HTTP_TOKEN_FILE"), "{err}");
    assert_eq!(status(&["--url", &url], &token).await.0, 0);
    let settings = |listen: &str| {
        let text = format!(
            "kafka: {{ bootstrap_servers: ['127.0.0.1:9092'] }}\nhttp: {{ listen: '{listen}', auth: {{ bearer_token_file: {} }} }}\n",
            file.display()
        );
        let path = worker.dir.path().join("worker.yaml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let config = settings(&format!("0.0.0.0:{}", worker.server.listen.port()));
    let args = ["--config", &config, "--connectors", "connectors"];
    let (code, out, err) = status(&args, &[]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let (code, _, err) = status(&args, &[("SLUICE_HTTP_TOKEN_FILE", "/nowhere")]).await;
    assert!(code == 2 && err.contains("SLUICE_HTTP_TOKEN_FILE: /nowhere"), "{err}");
}

#[tokio::test]
async fn a_worker_that_is_not_there_is_status_3() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (code, out, err) = status(&["--url", &url], &[]).await;
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.starts_with(&format!("sluice: {url} can't be reached: ")), "{err}");
    let (code, _, err) = status(&["--url", "ftp://127.0.0.1:1"], &[]).await;
    assert!(code == 2 && err.contains("does not begin with http:// or https://"), "{err}");
}

fn certificate(dir: &Path) -> HttpTls {
    let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args([
        "-subj",
        "/CN=sluice",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=CA:FALSE",
    ]);
    let output = openssl.arg("-out").arg(&cert_file).arg("-keyout").arg(&key_file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    HttpTls { cert_file, key_file }
}

#[tokio::test]
async fn https_shows_its_certificate_and_takes_a_renewed_one() {
    let first = certificate(tempfile::tempdir().unwrap().keep().as_path());
    let dir = first.cert_file.parent().unwrap().to_owned();
    let worker = worker_with(|_| HttpAuth::Unset, Some(first.clone())).await;
    worker.add_task("applogs", TaskState::Running);
    let settings = dir.join("worker.yaml");
    let text = format!(
        "kafka: {{ bootstrap_servers: ['127.0.0.1:9092'] }}\nhttp: {{ listen: '{}', tls: {{ cert_file: {}, key_file: {} }} }}\n",
        worker.server.listen,
        first.cert_file.display(),
        first.key_file.display()
    );
    std::fs::write(&settings, text).unwrap();
    let connectors = dir.join("connectors");
    std::fs::create_dir(&connectors).unwrap();
    let connector = "topics: [t]\napp_id: { from: key }\nsink: { url: 'file:///nowhere/at/all' }\n";
    std::fs::write(connectors.join("c.yaml"), connector).unwrap();
    let args = ["--config", settings.to_str().unwrap()];
    let (code, out, err) = status(&args, &[]).await;
    assert!(code == 0 && out.contains("https://127.0.0.1"), "{out}{err}");
    // Nobody signed it: others don't trust it, and plain HTTP gets no answer.
    let url = format!("https://{}", worker.server.listen);
    let (code, _, err) = status(&["--url", &url], &[]).await;
    assert!(code == 3 && err.contains("certificate"), "{err}");
    assert_eq!(status(&["--url", &worker.url()], &[]).await.0, 3);
    // The client trusts what the file holds now: the server must show the same.
    certificate(&dir);
    let (code, _, err) = status(&args, &[]).await;
    assert_eq!(code, 0, "{err}");
    // Half a renewal leaves the old one.
    std::fs::write(&first.key_file, "no key").unwrap();
    assert_eq!(status(&args, &[]).await.0, 0);
    std::fs::remove_dir_all(&dir).unwrap();
}
