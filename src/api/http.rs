//! The worker's HTTP server: /metrics, /health, /status.
//!
//! Owns: the board that tasks report to, routes, answers. Does not own: what is reported, who may ask ([`super::auth`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::auth::Gate;
use super::guard::{Guard, guard};
use super::listener::{self, Tls};
use super::metrics::{asked, publish_budgets};
use crate::cluster::group::{Group, GroupReport};
use crate::config::HttpConfig;
use crate::pipeline::budget::Budget;
use crate::pipeline::spool::Spool;
use crate::store::observed::Observed;
use crate::task::status::{TaskReport, TaskState, TaskStatus};

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
    /// `None`: this is the only worker.
    #[serde(default)]
    pub cluster: Option<GroupReport>,
}

/// A connector beyond its tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConnectorReport {
    /// Why it could not begin.
    pub failed: Option<String>,
    /// Why it has not begun yet; it is tried again.
    #[serde(default)]
    pub waiting: Option<String>,
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
    /// With their connectors' names.
    stores: Vec<(String, Arc<Observed>)>,
    connectors: BTreeMap<String, ConnectorReport>,
    group: Option<Arc<Group>>,
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

    pub fn set_group(&self, group: Arc<Group>) {
        self.lock().group = Some(group);
    }

    pub fn add_task(&self, status: Arc<TaskStatus>) {
        self.lock().tasks.push(status);
    }

    /// A connector starts anew, or stops: what its last run left is not shown any more.
    pub fn begin(&self, connector: &str) {
        self.forget(connector);
        self.lock().connectors.insert(connector.to_owned(), ConnectorReport::default());
    }

    /// The connector is no more.
    pub fn forget(&self, connector: &str) {
        let mut inner = self.lock();
        inner.tasks.retain(|task| !task.is_of(connector));
        inner.stores.retain(|(name, _)| name != connector);
        inner.connectors.remove(connector);
    }

    /// The connector's tasks have ended and are to go on later.
    pub fn paused(&self, connector: &str) {
        for task in self.tasks_of(connector) {
            task.set_state(TaskState::Paused, None, None);
        }
        let mut inner = self.lock();
        let report = inner.connectors.entry(connector.to_owned()).or_default();
        (report.failed, report.waiting) = (None, None);
    }

    pub fn tasks(&self) -> Vec<Arc<TaskStatus>> {
        self.lock().tasks.clone()
    }

    /// In order of topics and tasks.
    pub fn tasks_of(&self, connector: &str) -> Vec<Arc<TaskStatus>> {
        let mut tasks: Vec<_> = self.lock().tasks.iter().filter(|task| task.is_of(connector)).cloned().collect();
        tasks.sort_by_cached_key(|task| {
            let report = task.report();
            (report.topic, report.task)
        });
        tasks
    }

    pub fn connector(&self, connector: &str) -> Option<ConnectorReport> {
        self.lock().connectors.get(connector).cloned()
    }

    pub fn worker(&self) -> &str {
        &self.worker
    }

    pub fn add_store(&self, connector: &str, store: Arc<Observed>) {
        let mut inner = self.lock();
        inner.connectors.entry(connector.to_owned()).or_default();
        inner.stores.push((connector.to_owned(), store));
    }

    pub fn connector_failed(&self, connector: &str, message: &str) {
        self.lock().connectors.entry(connector.to_owned()).or_default().failed = Some(message.to_owned());
    }

    /// `None`: it has begun.
    pub fn connector_waits(&self, connector: &str, why: Option<&str>) {
        self.lock().connectors.entry(connector.to_owned()).or_default().waiting = why.map(str::to_owned);
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

    /// How often each event loop that runs has gone round, by connector, topic and task.
    pub fn turns(&self) -> Vec<((String, String, u32), u64)> {
        let tasks = self.lock().tasks.clone();
        tasks.iter().filter_map(|task| Some((task.name(), task.turns()?))).collect()
    }

    pub fn report(&self) -> WorkerReport {
        let (stores, mut connectors, group) = {
            let inner = self.lock();
            (inner.stores.clone(), inner.connectors.clone(), inner.group.clone())
        };
        for (connector, store) in stores {
            if let Some(error) = store.trouble() {
                connectors.entry(connector).or_default().store_trouble = Some(error.to_string());
            }
        }
        WorkerReport {
            version: crate::version::VERSION.to_owned(),
            worker: self.worker.clone(),
            memory_used_bytes: self.budget.used_bytes(),
            memory_max_bytes: self.budget.max_bytes(),
            spool_used_bytes: self.spool.used_bytes(),
            spool_max_bytes: self.spool.max_bytes(),
            connectors,
            tasks: self.reports(),
            cluster: group.map(|group| group.report()),
        }
    }
}

/// A server that answers in the background.
#[derive(Debug)]
pub struct Server {
    /// Where it listens: the port is chosen by the system where the settings say 0.
    pub listen: SocketAddr,
    pub metrics_listen: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Waits for its end, which the stop brings.
    pub async fn ended(self) {
        for task in self.tasks {
            // How it ended changes nothing any more.
            let _ = task.await;
        }
    }
}

/// Listens, and answers in the background until `stop`. `more`: paths that need the same right as these.
///
/// # Errors
/// An address can't be listened on, or a secret can't be read; the message has no secret.
pub async fn serve(
    config: &HttpConfig,
    board: Arc<Board>,
    more: Router<Arc<Board>>,
    stop: CancellationToken,
) -> Result<Server, String> {
    let gate = Gate::open(&config.auth)?;
    let tls = config.tls.as_ref().map(Tls::open).transpose()?.map(Arc::new);
    let guarded = Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .merge(more)
        .layer(middleware::from_fn_with_state(gate, check));
    let main = Router::new()
        .route("/health", get(health))
        .merge(guarded)
        .layer(middleware::from_fn_with_state(Guard { local: config.is_local() }, guard));
    let (listen, task) = start(&config.listen, main, tls, &board, &stop).await?;
    let mut server = Server { listen, metrics_listen: None, tasks: vec![task] };
    if let Some(address) = &config.metrics_listen {
        let open = Router::new().route("/health", get(health)).route("/metrics", get(metrics));
        let (listen, task) = start(address, open, None, &board, &stop).await?;
        server.metrics_listen = Some(listen);
        server.tasks.push(task);
    }
    Ok(server)
}

async fn start(
    address: &str,
    routes: Router<Arc<Board>>,
    tls: Option<Arc<Tls>>,
    board: &Arc<Board>,
    stop: &CancellationToken,
) -> Result<(SocketAddr, JoinHandle<()>), String> {
    let router = routes.fallback(no_path).method_not_allowed_fallback(no_method).with_state(Arc::clone(board));
    let failed = |error: std::io::Error| format!("http can't listen on {address}: {error}");
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::info!(address = %bound, tls = tls.is_some(), "http listens");
    Ok((bound, tokio::spawn(listener::serve(listener, router, tls, stop.clone()))))
}

async fn check(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    match gate.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(challenge) => {
            let message = "set the Authorization header: http.auth names the file that holds what to send";
            ([(header::WWW_AUTHENTICATE, challenge)], refusal(StatusCode::UNAUTHORIZED, message)).into_response()
        }
    }
}

/// Kafka Connect's shape of an error.
#[derive(Serialize)]
struct Refusal {
    error_code: u16,
    message: String,
}

pub(crate) fn refusal(code: StatusCode, message: impl Into<String>) -> Response {
    (code, Json(Refusal { error_code: code.as_u16(), message: message.into() })).into_response()
}

async fn no_path(uri: Uri) -> Response {
    refusal(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> Response {
    refusal(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

async fn metrics(State(board): State<Arc<Board>>) -> impl IntoResponse {
    publish_budgets(&board.budget, &board.spool);
    let report = board.report();
    let text = board.metrics.render() + &asked::render(&report.tasks, &report.connectors);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
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
