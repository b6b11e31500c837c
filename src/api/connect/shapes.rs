//! What answers look like.
//!
//! Owns: Kafka Connect's shapes of connectors and tasks. Does not own: what is in them.
//!
//! Connect counts a connector's tasks from 0. Ours are shares of topics; their number is the place in the order of topics and
//! shares, so that it changes when a topic comes or goes.

use serde_json::{Map, Value, json};

use crate::api::http::Board;
use crate::config::flat::{FlatConfig, without_password};
use crate::task::status::TaskReport;
use crate::worker::connectors::View;
use crate::worker::connectors::kept::Target;

/// As it was sent, with the name.
pub(super) fn config(view: &View) -> FlatConfig {
    let mut flat: FlatConfig = view.flat.iter().map(|(key, value)| (key.clone(), without_password(value))).collect();
    flat.insert("name".to_owned(), view.name.clone());
    flat
}

pub(super) fn info(board: &Board, view: &View) -> Value {
    let tasks = board.tasks_of(&view.name).len();
    let tasks: Vec<Value> = (0..tasks).map(|task| json!({ "connector": view.name, "task": task })).collect();
    json!({ "name": view.name, "config": config(view), "tasks": tasks, "type": "sink" })
}

pub(super) fn status(board: &Board, view: &View) -> Value {
    let failed = board.connector(&view.name).and_then(|report| report.failed);
    let state = match (view.target, &failed) {
        (Target::Running, Some(_)) => "FAILED",
        (Target::Running, None) => "RUNNING",
        (Target::Paused, _) => "PAUSED",
        (Target::Stopped, _) => "STOPPED",
    };
    let mut connector = Map::new();
    connector.insert("state".to_owned(), json!(state));
    connector.insert("worker_id".to_owned(), json!(board.worker()));
    if let Some(trace) = failed {
        connector.insert("trace".to_owned(), json!(trace));
    }
    let tasks = board.tasks_of(&view.name);
    let tasks: Vec<Value> =
        tasks.iter().enumerate().map(|(number, task)| of_task(board, number, &task.report())).collect();
    json!({ "name": view.name, "connector": connector, "tasks": tasks, "type": "sink" })
}

/// `None`: there is no such task.
pub(super) fn task(board: &Board, connector: &str, number: usize) -> Option<Value> {
    let report = board.tasks_of(connector).get(number)?.report();
    Some(of_task(board, number, &report))
}

fn of_task(board: &Board, number: usize, report: &TaskReport) -> Value {
    let mut task = json!({ "id": number, "state": report.state, "worker_id": board.worker() });
    if let (Some(message), Some(task)) = (&report.message, task.as_object_mut()) {
        let advice = report.advice.as_ref().map(|advice| format!("\nto do: {advice}")).unwrap_or_default();
        let whole = format!("topic {} task {}: {message}{advice}", report.topic, report.task);
        task.insert("trace".to_owned(), json!(whole));
    }
    task
}

pub(super) fn tasks(board: &Board, connector: &str) -> Value {
    let tasks = board.tasks_of(connector);
    let of = |(number, report): (usize, TaskReport)| {
        let config = json!({ "topic": report.topic, "task": report.task.to_string() });
        json!({ "id": { "connector": connector, "task": number }, "config": config })
    };
    tasks.iter().map(|task| task.report()).enumerate().map(of).collect()
}

pub(super) fn topics(board: &Board, connector: &str) -> Value {
    let mut topics: Vec<String> = board.tasks_of(connector).iter().map(|task| task.report().topic).collect();
    topics.dedup();
    json!({ connector: { "topics": topics } })
}

/// A name as a segment of a path; names hold little that needs it.
pub(super) fn in_path(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
