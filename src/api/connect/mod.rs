//! Kafka Connect's REST API, so that its tools work unchanged.
//!
//! Owns: paths, what each answers. Does not own: what connectors are and do ([`crate::worker::connectors`]), who may ask
//! ([`super::auth`], [`super::guard`]).
//!
//! Where Connect leaves a choice, clients decide: unknown query parameters are ignored, booleans are read in any case, a
//! configuration is echoed as it was sent.

mod body;
mod loggers;
mod offsets;
mod plugins;
mod shapes;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use serde_json::json;

use self::body::Body;
use super::http::{Board, refusal};
use super::page;
use crate::logging::Levels;
use crate::version::VERSION;
use crate::worker::connectors::kept::{RestartOf, Target};
use crate::worker::connectors::{Connectors, Refusal};

/// A request with more is a mistake.
const MAX_BODY_BYTES: usize = 1 << 20;

/// What the paths work on.
#[derive(Debug)]
pub struct Rest {
    /// Not there before Kafka has answered.
    connectors: OnceLock<Arc<Connectors>>,
    levels: Levels,
}

impl Rest {
    pub fn new(levels: Levels) -> Self {
        Self { connectors: OnceLock::new(), levels }
    }

    /// From now on connectors can be asked for.
    pub fn begin(&self, connectors: Arc<Connectors>) {
        // Begun once, by the one worker of this process.
        let _ = self.connectors.set(connectors);
    }

    pub(crate) fn connectors(&self) -> Result<&Arc<Connectors>, Failure> {
        let starting = "the worker is starting: Kafka has not answered yet";
        self.connectors.get().ok_or_else(|| Failure(StatusCode::SERVICE_UNAVAILABLE, starting.to_owned()))
    }
}

/// What is answered instead of what was asked for.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        refusal(self.0, self.1)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Conflict(_) => StatusCode::CONFLICT,
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
            Refusal::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, refusal.to_string())
    }
}

pub(crate) type Answer = Result<Response, Failure>;
type Of = State<Arc<Rest>>;
type Asked = Query<Vec<(String, String)>>;

/// All paths.
pub fn routes(rest: Arc<Rest>) -> Router<Arc<Board>> {
    Router::new()
        .route("/", get(root))
        .route("/connectors", get(list).post(create))
        .route("/connectors/{name}", get(info).delete(remove))
        .route("/connectors/{name}/config", get(config).put(put_config).patch(patch_config))
        .route("/connectors/{name}/status", get(status))
        .route("/connectors/{name}/restart", post(restart))
        .route("/connectors/{name}/pause", put(pause))
        .route("/connectors/{name}/resume", put(resume))
        .route("/connectors/{name}/stop", put(stop))
        .route("/connectors/{name}/tasks", get(tasks))
        .route("/connectors/{name}/tasks/{task}/status", get(task_status))
        .route("/connectors/{name}/tasks/{task}/restart", post(restart_task))
        .route("/connectors/{name}/topics", get(topics))
        .route("/connectors/{name}/topics/reset", put(reset_topics))
        .route("/connectors/{name}/offsets", patch(offsets::alter).get(offsets::show).delete(offsets::reset))
        .route("/connector-plugins", get(plugins::list))
        .route("/connector-plugins/{plugin}/config", get(plugins::keys))
        .route("/connector-plugins/{plugin}/config/validate", put(plugins::validate))
        .route("/admin/loggers", get(loggers::list))
        .route("/admin/loggers/{logger}", get(loggers::show).put(loggers::set))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(rest)
}

/// A parameter of the query; the last one counts. Without a value it is true, as in `?includeTasks`.
fn asked(query: &[(String, String)], name: &str) -> bool {
    let last = query.iter().rev().find(|(key, _)| key == name);
    last.is_some_and(|(_, value)| value.is_empty() || value.eq_ignore_ascii_case("true"))
}

async fn root(State(rest): Of, headers: HeaderMap) -> Response {
    if page::is_wanted(&headers) {
        return page::page();
    }
    let cluster = match rest.connectors.get() {
        // Without Kafka the worker still says who it is.
        Some(connectors) => connectors.shared.kafka.cluster_id().await.ok().flatten(),
        None => None,
    };
    Json(json!({
        "version": VERSION,
        "commit": option_env!("SLUICE_COMMIT").unwrap_or("unknown"),
        "kafka_cluster_id": cluster,
    }))
    .into_response()
}

async fn list(State(rest): Of, Query(query): Asked) -> Answer {
    let connectors = rest.connectors()?;
    let names = connectors.names();
    let expand: Vec<&str> = query.iter().filter(|(key, _)| key == "expand").map(|(_, what)| what.as_str()).collect();
    if expand.is_empty() {
        return Ok(Json(names).into_response());
    }
    let mut all = BTreeMap::new();
    for name in names {
        // It may have been removed meanwhile.
        let Ok(view) = connectors.view(&name) else { continue };
        let mut one = serde_json::Map::new();
        for what in &expand {
            match *what {
                "status" => one.insert("status".to_owned(), shapes::status(&connectors.shared.board, &view)),
                "info" => one.insert("info".to_owned(), shapes::info(&connectors.shared.board, &view)),
                _ => None,
            };
        }
        all.insert(name, one);
    }
    Ok(Json(all).into_response())
}

async fn create(State(rest): Of, body: Body) -> Answer {
    let connectors = rest.connectors()?;
    let body::Create { name, config, initial_state } = body.read()?;
    let target = match initial_state.as_deref().map(str::to_ascii_uppercase).as_deref() {
        None | Some("RUNNING") => Target::Running,
        Some("PAUSED") => Target::Paused,
        Some("STOPPED") => Target::Stopped,
        Some(_) => return Err(body::wrong("initial_state is RUNNING, PAUSED or STOPPED")),
    };
    let flat = body::flat(config)?;
    let name = name.or_else(|| flat.get("name").cloned()).ok_or_else(|| body::wrong("there is no name"))?;
    let view = connectors.create(&name, flat, target).await?;
    let location = format!("/connectors/{}", shapes::in_path(&name));
    let info = Json(shapes::info(&connectors.shared.board, &view));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], info).into_response())
}

async fn info(State(rest): Of, Path(name): Path<String>) -> Answer {
    let connectors = rest.connectors()?;
    let view = connectors.view(&name)?;
    Ok(Json(shapes::info(&connectors.shared.board, &view)).into_response())
}

async fn remove(State(rest): Of, Path(name): Path<String>) -> Answer {
    rest.connectors()?.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn config(State(rest): Of, Path(name): Path<String>) -> Answer {
    let view = rest.connectors()?.view(&name)?;
    Ok(Json(shapes::config(&view)).into_response())
}

async fn put_config(State(rest): Of, Path(name): Path<String>, body: Body) -> Answer {
    let connectors = rest.connectors()?;
    let (view, made) = connectors.put(&name, body::flat(body.read()?)?).await?;
    let info = Json(shapes::info(&connectors.shared.board, &view));
    if !made {
        return Ok(info.into_response());
    }
    let location = format!("/connectors/{}", shapes::in_path(&name));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], info).into_response())
}

async fn patch_config(State(rest): Of, Path(name): Path<String>, body: Body) -> Answer {
    let connectors = rest.connectors()?;
    let view = connectors.patch(&name, body::changes(body.read()?)?).await?;
    Ok(Json(shapes::info(&connectors.shared.board, &view)).into_response())
}

async fn status(State(rest): Of, Path(name): Path<String>) -> Answer {
    let connectors = rest.connectors()?;
    let view = connectors.view(&name)?;
    Ok(Json(shapes::status(&connectors.shared.board, &view)).into_response())
}

async fn restart(State(rest): Of, Path(name): Path<String>, Query(query): Asked) -> Answer {
    let connectors = rest.connectors()?;
    let (tasks, failed) = (asked(&query, "includeTasks"), asked(&query, "onlyFailed"));
    let what = match (tasks, failed) {
        (false, _) => RestartOf::Connector,
        (true, false) => RestartOf::All,
        (true, true) => RestartOf::Failed,
    };
    connectors.restart(&name, what).await?;
    if !tasks && !failed {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let view = connectors.view(&name)?;
    Ok((StatusCode::ACCEPTED, Json(shapes::status(&connectors.shared.board, &view))).into_response())
}

async fn pause(State(rest): Of, Path(name): Path<String>) -> Answer {
    rest.connectors()?.set_target(&name, Target::Paused).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn resume(State(rest): Of, Path(name): Path<String>) -> Answer {
    rest.connectors()?.set_target(&name, Target::Running).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn stop(State(rest): Of, Path(name): Path<String>) -> Answer {
    rest.connectors()?.set_target(&name, Target::Stopped).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn tasks(State(rest): Of, Path(name): Path<String>) -> Answer {
    let connectors = rest.connectors()?;
    connectors.view(&name)?;
    Ok(Json(shapes::tasks(&connectors.shared.board, &name)).into_response())
}

async fn task_status(State(rest): Of, Path((name, task)): Path<(String, String)>) -> Answer {
    let connectors = rest.connectors()?;
    connectors.view(&name)?;
    let board = &connectors.shared.board;
    let found = task.parse().ok().and_then(|task| shapes::task(board, &name, task));
    found.map(|found| Json(found).into_response()).ok_or_else(|| no_task(&name, &task))
}

async fn restart_task(State(rest): Of, Path((name, task)): Path<(String, String)>) -> Answer {
    let connectors = rest.connectors()?;
    connectors.view(&name)?;
    let tasks = connectors.shared.board.tasks_of(&name);
    let found = task.parse::<usize>().ok().and_then(|task| tasks.get(task));
    let report = found.ok_or_else(|| no_task(&name, &task))?.report();
    connectors.restart(&name, RestartOf::Task { topic: report.topic, task: report.task }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn no_task(name: &str, task: &str) -> Failure {
    Failure(StatusCode::NOT_FOUND, format!("connector {name} has no task {task}"))
}

async fn topics(State(rest): Of, Path(name): Path<String>) -> Answer {
    let connectors = rest.connectors()?;
    connectors.view(&name)?;
    Ok(Json(shapes::topics(&connectors.shared.board, &name)).into_response())
}

/// Connect counts topics that were ever used; ours are those of the tasks, so there is nothing to forget.
async fn reset_topics(State(rest): Of, Path(name): Path<String>) -> Answer {
    rest.connectors()?.view(&name)?;
    Ok(StatusCode::OK.into_response())
}

#[cfg(test)]
mod tests {
    use super::asked;

    #[test]
    fn booleans_as_clients_send_them() {
        let query = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect::<Vec<_>>()
        };
        for so in ["true", "True", "TRUE", ""] {
            assert!(asked(&query(&[("forward", "x"), ("includeTasks", so)]), "includeTasks"), "{so}");
        }
        assert!(!asked(&query(&[("includeTasks", "true"), ("includeTasks", "False")]), "includeTasks"));
        assert!(!asked(&query(&[]), "includeTasks"));
    }
}
