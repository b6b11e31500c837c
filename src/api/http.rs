//! The worker's HTTP server: /metrics, /health, /status.
//!
//! Owns: the board that tasks report to, routes, authentication. Does not own: what is reported.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::metrics::publish_budgets;
use crate::config::{HttpAuth, HttpConfig};
use crate::pipeline::budget::Budget;
use crate::pipeline::spool::Spool;
use crate::store::observed::Observed;
use crate::task::status::{TaskReport, TaskState, TaskStatus};

/// Requests that take longer are cut off at the stop of the worker.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What `/status` answers and `sluice status` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerReport {
    pub version: String,
    pub worker: String,
    pub memory_used_bytes: u64,
    pub memory_max_bytes: u64,
    pub spool_used_bytes: u64,
    pub spool_max_bytes: u64,
    pub connectors: BTreeMap<String, ConnectorReport>,
    pub tasks: Vec<TaskReport>,
}

/// A connector beyond its tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConnectorReport {
    /// Why it could not begin.
    pub failed: Option<String>,
    /// Named topics that do not exist.
    pub missing_topics: Vec<String>,
    /// The store's newest failure, while nothing has succeeded since.
    pub store_trouble: Option<String>,
}

/// Where connectors and tasks leave what status and metrics show.
#[derive(Debug)]
pub struct Board {
    worker: String,
    budget: Budget,
    spool: Arc<Spool>,
    metrics: PrometheusHandle,
    until_caught_up: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tasks: Vec<Arc<TaskStatus>>,
    stores: BTreeMap<String, Arc<Observed>>,
    connectors: BTreeMap<String, ConnectorReport>,
}

impl Board {
    pub fn new(
        worker: &str,
        budget: Budget,
        spool: Arc<Spool>,
        metrics: PrometheusHandle,
        until_caught_up: bool,
    ) -> Self {
        Self { worker: worker.to_owned(), budget, spool, metrics, until_caught_up, inner: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Plain values; a panic elsewhere leaves nothing half-done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn until_caught_up(&self) -> bool {
        self.until_caught_up
    }

    pub fn add_task(&self, status: Arc<TaskStatus>) {
        self.lock().tasks.push(status);
    }

    pub fn add_store(&self, connector: &str, store: Arc<Observed>) {
        let mut inner = self.lock();
        inner.connectors.entry(connector.to_owned()).or_default();
        inner.stores.insert(connector.to_owned(), store);
    }

    pub fn connector_failed(&self, connector: &str, message: &str) {
        self.lock().connectors.entry(connector.to_owned()).or_default().failed = Some(message.to_owned());
    }

    pub fn topic_missing(&self, connector: &str, topic: &str) {
        self.lock().connectors.entry(connector.to_owned()).or_default().missing_topics.push(topic.to_owned());
    }

    pub fn topic_found(&self, connector: &str, topic: &str) {
        self.lock().connectors.entry(connector.to_owned()).or_default().missing_topics.retain(|known| known != topic);
    }

    pub fn reports(&self) -> Vec<TaskReport> {
        let tasks = self.lock().tasks.clone();
        tasks.iter().map(|task| task.report()).collect()
    }

    pub fn report(&self) -> WorkerReport {
        let (stores, mut connectors) = {
            let inner = self.lock();
            (inner.stores.clone(), inner.connectors.clone())
        };
        for (connector, store) in stores {
            connectors.entry(connector).or_default().store_trouble = store.trouble().map(|error| error.to_string());
        }
        WorkerReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            worker: self.worker.clone(),
            memory_used_bytes: self.budget.used_bytes(),
            memory_max_bytes: self.budget.max_bytes(),
            spool_used_bytes: self.spool.used_bytes(),
            spool_max_bytes: self.spool.max_bytes(),
            connectors,
            tasks: self.reports(),
        }
    }
}

/// Who may ask.
#[derive(Clone)]
enum Gate {
    Open,
    /// The whole value that the Authorization header must have.
    Header(Arc<str>),
}

/// Listens, and answers in the background until `stop`.
///
/// # Errors
/// An address can't be listened on, or a secret can't be read; the message has no secret.
pub async fn serve(config: &HttpConfig, board: Arc<Board>, stop: CancellationToken) -> Result<JoinHandle<()>, String> {
    let gate = gate(&config.auth)?;
    let open =
        Router::new().route("/health", get(health)).route("/metrics", get(metrics)).with_state(Arc::clone(&board));
    let guarded = Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(&board))
        .layer(middleware::from_fn_with_state(gate, check));
    let main = Router::new().route("/health", get(health)).with_state(board).merge(guarded);
    let mut servers = vec![listen(&config.listen, main, stop.clone()).await?];
    if let Some(address) = &config.metrics_listen {
        servers.push(listen(address, open, stop).await?);
    }
    Ok(tokio::spawn(async move {
        for server in servers {
            // It ends by the stop; how changes nothing any more.
            let _ = server.await;
        }
    }))
}

async fn listen(address: &str, router: Router, stop: CancellationToken) -> Result<JoinHandle<()>, String> {
    let listener =
        TcpListener::bind(address).await.map_err(|error| format!("http can't listen on {address}: {error}"))?;
    let bound = listener.local_addr().map_or_else(|_| address.to_owned(), |bound: SocketAddr| bound.to_string());
    tracing::info!(address = bound, "http listens");
    Ok(tokio::spawn(async move {
        let stopped = stop.clone();
        let server = axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await });
        let cut = async {
            stop.cancelled().await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        tokio::select! {
            served = server => {
                if let Err(error) = served {
                    tracing::error!(%error, "http stopped");
                }
            }
            () = cut => {}
        }
    }))
}

fn gate(auth: &HttpAuth) -> Result<Gate, String> {
    let header = match auth {
        HttpAuth::Unset | HttpAuth::None => return Ok(Gate::Open),
        HttpAuth::BearerTokenFile(file) => format!("Bearer {}", secret(file)?),
        HttpAuth::BasicFile(file) => format!("Basic {}", base64(secret(file)?.as_bytes())),
    };
    Ok(Gate::Header(header.into()))
}

fn secret(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let text = text.trim();
    if text.is_empty() { Err(format!("{} is empty", file.display())) } else { Ok(text.to_owned()) }
}

/// RFC 4648, for the one header that needs it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

async fn check(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if let Gate::Header(expected) = &gate {
        let given = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        if !same(given, expected.as_bytes()) {
            return (StatusCode::UNAUTHORIZED, "a token is needed\n").into_response();
        }
    }
    next.run(request).await
}

/// Compares in a time that tells nothing but the length.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

async fn metrics(State(board): State<Arc<Board>>) -> impl IntoResponse {
    publish_budgets(board.budget.used_bytes(), board.spool.used_bytes());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], board.metrics.render())
}

async fn status(State(board): State<Arc<Board>>) -> impl IntoResponse {
    Json(board.report())
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    message: String,
}

/// Kafka Connect's answer: 200 healthy, 503 starting, 500 unhealthy.
async fn health(State(board): State<Arc<Board>>) -> Response {
    let report = board.report();
    let failed: Vec<String> = report
        .tasks
        .iter()
        .filter(|task| task.state == TaskState::Failed)
        .map(|task| format!("task {}/{}/{} failed", task.connector, task.topic, task.task))
        .chain(
            report
                .connectors
                .iter()
                .filter(|(_, c)| c.failed.is_some())
                .map(|(name, _)| format!("connector {name} failed")),
        )
        .collect();
    let (code, status, message) = if !failed.is_empty() {
        (StatusCode::INTERNAL_SERVER_ERROR, "unhealthy", failed.join("; "))
    } else if report.tasks.is_empty() {
        (StatusCode::SERVICE_UNAVAILABLE, "starting", "no task has begun".to_owned())
    } else {
        (StatusCode::OK, "healthy", format!("{} tasks", report.tasks.len()))
    };
    (code, Json(Health { status, message })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_all_lengths() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("user:pass", "dXNlcjpwYXNz")];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
