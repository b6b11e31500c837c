//! Where a connector keeps its state beside the data: the marker of its prefix, the mapping of a topic, the logs.
//!
//! Owns: these names and the two small objects. Does not own: logs, data.
//!
//! ```text
//!  <prefix>/_sluice/<connector>/created                              who uses this prefix
//!  <prefix>/_sluice/<connector>/<topic>/mapping-<8 digits>           how partitions are shared out to tasks
//!  <prefix>/_sluice/<connector>/<topic>/<mapping>/<task>/<20 digits> a task's log
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Environment;
use crate::store::retrying::retrying;
use crate::store::{Body, ByteRange, Created, Depth, Store, StoreError};

/// Everything of ours below a sink's prefix that is not data.
pub const STATE_FOLDER: &str = "_sluice";

/// Says whose a prefix is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    pub connector: String,
    pub cluster_id: Option<String>,
}

/// How the partitions of a topic are shared out to tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    pub tasks_max: u32,
}

/// Why a prefix can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Conflict(String),
}

fn marker_key(connector: &str) -> String {
    format!("{STATE_FOLDER}/{connector}/created")
}

fn mapping_key(connector: &str, topic: &str, number: u32) -> String {
    format!("{STATE_FOLDER}/{connector}/{topic}/mapping-{number:08}")
}

/// The folder of a task's log.
pub fn log_path(connector: &str, topic: &str, mapping: u32, task: u32) -> String {
    format!("{STATE_FOLDER}/{connector}/{topic}/{mapping}/{task}")
}

/// Creates the marker of the prefix, or checks that it is this connector's and this cluster's.
///
/// # Errors
/// Another connector or another cluster uses the prefix.
pub async fn claim_prefix(store: &dyn Store, environment: &Environment, mine: &Marker) -> Result<(), LayoutError> {
    refuse_others(store, environment, &mine.connector).await?;
    let found: Marker = create_or_read(store, environment, &marker_key(&mine.connector), mine).await?;
    // Somebody may have begun here at the same moment; then neither stays.
    if let Err(error) = refuse_others(store, environment, &mine.connector).await {
        let key = marker_key(&mine.connector);
        retrying(environment, || store.delete(&key)).await?;
        return Err(error);
    }
    let differs = matches!((&found.cluster_id, &mine.cluster_id), (Some(found), Some(mine)) if found != mine);
    if found.connector != mine.connector || differs {
        return Err(LayoutError::Conflict(format!(
            "the prefix {} was begun by connector {} on cluster {}, this is connector {} on cluster {}. Archive under a prefix \
             of its own",
            store.url(),
            found.connector,
            found.cluster_id.as_deref().unwrap_or("unknown"),
            mine.connector,
            mine.cluster_id.as_deref().unwrap_or("unknown")
        )));
    }
    Ok(())
}

async fn refuse_others(store: &dyn Store, environment: &Environment, connector: &str) -> Result<(), LayoutError> {
    let folder = format!("{STATE_FOLDER}/");
    let page = retrying(environment, || store.list(&folder, Depth::Folder, None, 100)).await?;
    for folder in &page.folders {
        let name = folder.trim_start_matches(STATE_FOLDER).trim_matches('/');
        if name != connector && !name.starts_with("probe-") {
            return Err(LayoutError::Conflict(format!(
                "the prefix {} is connector {name}'s: two connectors can't share one. Give this connector a prefix of its own",
                store.url()
            )));
        }
    }
    Ok(())
}

/// The number of the topic's mapping; made at the first start.
///
/// # Errors
/// The topic was archived with another `tasks_max`.
pub async fn mapping(
    store: &dyn Store,
    environment: &Environment,
    connector: &str,
    topic: &str,
    tasks_max: u32,
) -> Result<u32, LayoutError> {
    let number = 1;
    let key = mapping_key(connector, topic, number);
    let found: Mapping = create_or_read(store, environment, &key, &Mapping { tasks_max }).await?;
    if found.tasks_max != tasks_max {
        return Err(LayoutError::Conflict(format!(
            "topic {topic} of connector {connector} was begun with tasks_max {}, now it is {tasks_max}: set it back, or archive \
             under a new connector name and prefix",
            found.tasks_max
        )));
    }
    Ok(number)
}

async fn create_or_read<T: Serialize + for<'de> Deserialize<'de>>(
    store: &dyn Store,
    environment: &Environment,
    key: &str,
    mine: &T,
) -> Result<T, LayoutError> {
    let damaged = |why: &dyn std::fmt::Display| {
        LayoutError::Conflict(format!("{}/{key} is damaged: {why}. Restore it from a backup", store.url()))
    };
    let text = serde_json::to_vec(mine).map_err(|error| damaged(&error))?;
    let body = Body::Bytes(Bytes::from(text));
    loop {
        // Read first: the object is there at every start but the first.
        if let Some(got) = retrying(environment, || store.get(key, ByteRange::All, None)).await? {
            return serde_json::from_slice(&got.bytes).map_err(|error| damaged(&error));
        }
        let created = retrying(environment, || store.create(key, &body, None)).await?;
        if created == Created::New {
            tracing::info!(url = store.url(), key, "first start: created");
        }
    }
}
