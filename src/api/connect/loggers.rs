//! Levels of the program's own log.
//!
//! Owns: Kafka Connect's shapes of them. Does not own: the levels ([`crate::logging`]).

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body::{Body, wrong};
use super::{Answer, Failure, Of};
use crate::clock::{Clock as _, SystemClock};
use crate::logging::ROOT;

#[derive(Deserialize)]
struct Level {
    level: String,
}

fn shown(level: &str, at_ms: Option<i64>) -> Value {
    json!({ "level": level.to_ascii_uppercase(), "last_modified": at_ms })
}

pub(super) async fn list(State(rest): Of) -> Json<Value> {
    let all = rest.levels.all().into_iter();
    Json(Value::Object(all.map(|(name, (level, at_ms))| (name, shown(&level, at_ms))).collect::<Map<_, _>>()))
}

/// A logger without a level of its own has that of the nearest module around it.
pub(super) async fn show(State(rest): Of, Path(logger): Path<String>) -> Answer {
    let all = rest.levels.all();
    let around = |name: &str| name == logger || logger.starts_with(&format!("{name}::"));
    let nearest = all.iter().filter(|(name, _)| around(name)).max_by_key(|(name, _)| name.len());
    let found = nearest.or_else(|| all.get_key_value(ROOT));
    let missing = || Failure(StatusCode::NOT_FOUND, format!("there is no logger {logger}"));
    let (_, (level, at_ms)) = found.ok_or_else(missing)?;
    Ok(Json(shown(level, *at_ms)).into_response())
}

pub(super) async fn set(State(rest): Of, Path(logger): Path<String>, body: Body) -> Answer {
    let Level { level } = body.read()?;
    // log4j's word for what has no other name here.
    let level = if level.eq_ignore_ascii_case("fatal") { "error".to_owned() } else { level };
    rest.levels.set(&logger, &level, SystemClock.now_ms()).map_err(|why| wrong(&why))?;
    tracing::info!(logger, level, "the level of the log changes, as asked over HTTP");
    Ok(Json(json!([logger])).into_response())
}
