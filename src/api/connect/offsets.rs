//! Offsets of a connector.
//!
//! Owns: Kafka Connect's shapes of them. Does not own: reading and changing them ([`crate::worker::offsets`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{Body, wrong};
use super::{Answer, Failure, Of};
use crate::cli::Exit;
use crate::config::ConnectorConfig;
use crate::pipeline::source::At;
use crate::task::reset::Wish;
use crate::worker::connectors::{Connectors, View};
use crate::worker::offsets::{self, Place};

/// A request that changes more is a mistake.
const MAX_CHANGES: usize = 10_000;

#[derive(Deserialize)]
struct Alter {
    offsets: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    partition: Partition,
    /// `None`: from the start.
    offset: Option<Offset>,
}

#[derive(Deserialize)]
struct Partition {
    kafka_topic: String,
    kafka_partition: Number,
}

#[derive(Deserialize)]
struct Offset {
    kafka_offset: Number,
}

/// Clients send numbers as such and as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(i64),
    Text(String),
}

impl Number {
    fn read(&self) -> Result<i64, Failure> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Text(text) => text.parse().map_err(|_| wrong(&format!("{text:?} is not a whole number"))),
        }
    }
}

impl From<offsets::Failure> for Failure {
    fn from(offsets::Failure(exit, message): offsets::Failure) -> Self {
        let status = match exit {
            Exit::Usage => StatusCode::BAD_REQUEST,
            Exit::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            Exit::Done | Exit::NotSo | Exit::Damaged | Exit::Interrupted => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, message)
    }
}

fn usable(view: &View) -> Result<&Arc<ConnectorConfig>, Failure> {
    view.config.as_ref().ok_or_else(|| wrong("the connector's configuration can't be used: see its status"))
}

async fn place(connectors: &Connectors, view: &View) -> Result<Place, Failure> {
    Ok(Place::open(&connectors.shared.worker, Arc::clone(usable(view)?)).await?)
}

/// What is safely archived of each partition: the next offset.
pub(super) async fn show(State(rest): Of, Path(name): Path<String>) -> Answer {
    let connectors = rest.connectors()?;
    let view = connectors.view(&name)?;
    let tasks = place(connectors, &view).await?.tasks().await?;
    let mut all: Vec<(String, i32, i64)> = tasks
        .iter()
        .flat_map(|task| task.partitions.iter().map(|one| (task.topic.clone(), one.partition, one.low)))
        .collect();
    all.sort();
    let of = |(topic, partition, low): &(String, i32, i64)| json!({ "partition": { "kafka_topic": topic, "kafka_partition": partition }, "offset": { "kafka_offset": low } });
    let offsets: Vec<Value> = all.iter().map(of).collect();
    Ok(Json(json!({ "offsets": offsets })).into_response())
}

pub(super) async fn alter(State(rest): Of, Path(name): Path<String>, body: Body) -> Answer {
    let connectors = rest.connectors()?;
    let Alter { offsets } = body.read()?;
    if offsets.is_empty() || offsets.len() > MAX_CHANGES {
        return Err(wrong(&format!("offsets holds {} partitions; 1 to {MAX_CHANGES} can be altered", offsets.len())));
    }
    let (view, _held) = connectors.hold_stopped(&name).await?;
    let place = place(connectors, &view).await?;
    let kafka = &connectors.shared.kafka;
    let isolation = usable(&view)?.isolation;
    let mut wishes = Vec::new();
    for change in &offsets {
        let topic = change.partition.kafka_topic.clone();
        let partition = i32::try_from(change.partition.kafka_partition.read()?)
            .map_err(|_| wrong("kafka_partition is out of range"))?;
        let offset = match &change.offset {
            Some(offset) => offset.kafka_offset.read()?,
            None => kafka
                .offset(&topic, partition, At::Earliest, isolation)
                .await
                .map_err(|error| Failure(StatusCode::BAD_REQUEST, error.to_string()))?,
        };
        wishes.push((topic, Wish::Set { partition, offset }));
    }
    // All are looked at before the first is changed.
    for execute in [false, true] {
        for (topic, wish) in &wishes {
            place.change(kafka, &by(connectors), std::slice::from_ref(topic), wish, execute).await?;
        }
    }
    let message = "The offsets for this connector have been altered successfully";
    Ok(Json(json!({ "message": message })).into_response())
}

pub(super) async fn reset(State(rest): Of, Path(name): Path<String>) -> Answer {
    let connectors = rest.connectors()?;
    let (view, _held) = connectors.hold_stopped(&name).await?;
    let place = place(connectors, &view).await?;
    let topics: BTreeSet<String> = place.topics().await?.into_iter().collect();
    let topics: Vec<String> = topics.into_iter().collect();
    if !topics.is_empty() {
        place.change(&connectors.shared.kafka, &by(connectors), &topics, &Wish::To(At::Earliest), true).await?;
    }
    let message = "The offsets for this connector have been reset successfully";
    Ok(Json(json!({ "message": message })).into_response())
}

/// Whom a fenced owner blames.
fn by(connectors: &Connectors) -> String {
    format!("{} (offsets over HTTP)", connectors.shared.worker.id)
}
