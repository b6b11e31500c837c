//! Where a connector keeps its state: the marker of its prefix, the mapping of a topic, the logs.
//!
//! Owns: these names and the small objects. Does not own: logs, data.
//!
//! ```text
//!  <prefix>/_sluice/<connector>/created                             who uses this prefix, and where its state is
//!  <state>/_sluice/<connector>/<topic>/mapping-<8 digits>           how partitions are shared out to tasks
//!  <state>/_sluice/<connector>/<topic>/<mapping>/<task>/<20 digits> a task's log
//! ```
//!
//! `<state>` is the prefix itself, or the place of `state.url`; there a second marker says which prefix the state is of. A
//! connector that lost sight of its log would archive everything again, and one that read another's would leave records out:
//! the two markers must name each other.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Environment;
use crate::store::retrying::retrying;
use crate::store::{Body, ByteRange, Created, Depth, Store, StoreError};
use crate::task::Origin;

/// Everything of ours below a sink's prefix that is not data.
pub const STATE_FOLDER: &str = "_sluice";

/// Says whose a prefix is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    pub connector: String,
    pub cluster_id: Option<String>,
    /// In the data's prefix: the URL of the state; `None`: it lies here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// In a place for state alone: the URL of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
}

/// How the partitions of a topic are shared out to tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    pub tasks_max: u32,
    /// Where the mapping before this one ended; `None` for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Why a prefix can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Conflict(String),
}

/// The name of a [`Marker`].
pub fn marker_key(connector: &str) -> String {
    format!("{STATE_FOLDER}/{connector}/created")
}

fn mapping_prefix(connector: &str, topic: &str) -> String {
    format!("{STATE_FOLDER}/{connector}/{topic}/mapping-")
}

fn mapping_key(connector: &str, topic: &str, number: u32) -> String {
    format!("{}{number:08}", mapping_prefix(connector, topic))
}

/// The folder of a task's log.
pub fn log_path(connector: &str, topic: &str, mapping: u32, task: u32) -> String {
    format!("{STATE_FOLDER}/{connector}/{topic}/{mapping}/{task}")
}

/// Where everything of a connector lies; ends in `/`.
pub fn connector_folder(connector: &str) -> String {
    format!("{STATE_FOLDER}/{connector}/")
}

fn cluster_key(connector: &str, cluster_id: &str) -> String {
    // An id is a short base64 text; anything else must not leave the folder.
    let safe: String =
        cluster_id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    format!("{}cluster-{safe}", connector_folder(connector))
}

/// Writes down that a connector goes on with another Kafka cluster than the one it began with.
///
/// # Errors
/// The store refuses for good.
pub async fn accept_cluster(
    store: &dyn Store,
    environment: &Environment,
    connector: &str,
    cluster_id: &str,
) -> Result<(), StoreError> {
    let (key, body) = (cluster_key(connector, cluster_id), Body::Bytes(Bytes::from(cluster_id.to_owned())));
    retrying(environment, || store.create(&key, &body, None)).await.map(|_| ())
}

/// Whether a connector has begun here before.
///
/// # Errors
/// The store refuses for good.
pub async fn is_begun(store: &dyn Store, environment: &Environment, connector: &str) -> Result<bool, StoreError> {
    let key = marker_key(connector);
    Ok(retrying(environment, || store.head(&key)).await?.is_some())
}

/// Creates the connector's markers, or checks that they are this connector's and this cluster's. `state`: the store of
/// `state.url`, where there is one.
///
/// # Errors
/// Another connector or another cluster uses the prefix, or its state lies elsewhere.
pub async fn claim(
    data: &dyn Store,
    state: Option<&dyn Store>,
    environment: &Environment,
    connector: &str,
    cluster_id: Option<&str>,
) -> Result<(), LayoutError> {
    alone(data, environment, connector).await?;
    let mine = Marker {
        connector: connector.to_owned(),
        cluster_id: cluster_id.map(str::to_owned),
        state: state.map(|state| state.url().to_owned()),
        sink: None,
    };
    let found: Marker = create_or_read(data, environment, &marker_key(connector), &mine).await?;
    // Somebody may have begun here at the same moment; then neither stays.
    if let Err(error) = alone(data, environment, connector).await {
        let key = marker_key(connector);
        retrying(environment, || data.delete(&key)).await?;
        return Err(error);
    }
    same_owner(data, environment, &found, &mine).await?;
    if found.state != mine.state {
        let beside = "beside the data";
        return Err(LayoutError::Conflict(format!(
            "connector {connector} was begun with its state {}, and is now told that it is {}: without its log it would archive \
             everything again. Set state.url as it was, or archive under a prefix of its own",
            found.state.as_deref().unwrap_or(beside),
            mine.state.as_deref().unwrap_or(beside)
        )));
    }
    let Some(state) = state else { return Ok(()) };
    let mine = Marker { state: None, sink: Some(data.url().to_owned()), ..mine };
    let found: Marker = create_or_read(state, environment, &marker_key(connector), &mine).await?;
    same_owner(state, environment, &found, &mine).await?;
    if found.sink != mine.sink {
        return Err(LayoutError::Conflict(format!(
            "the state of connector {connector} at {} belongs to data at {}, this connector writes to {}. Give it another name, \
             or another state.url",
            state.url(),
            found.sink.as_deref().unwrap_or("its own place"),
            data.url()
        )));
    }
    Ok(())
}

/// No other connector may have begun below the prefix.
async fn alone(data: &dyn Store, environment: &Environment, connector: &str) -> Result<(), LayoutError> {
    let folder = format!("{STATE_FOLDER}/");
    let others = retrying(environment, || data.list(&folder, Depth::Folder, None, 100)).await?;
    for folder in &others.folders {
        let name = folder.trim_start_matches(STATE_FOLDER).trim_matches('/');
        if name != connector && !name.starts_with("probe-") {
            return Err(LayoutError::Conflict(format!(
                "the prefix {} is connector {name}'s: two connectors can't share one. Give this connector a prefix of its own",
                data.url()
            )));
        }
    }
    Ok(())
}

async fn same_owner(
    store: &dyn Store,
    environment: &Environment,
    found: &Marker,
    mine: &Marker,
) -> Result<(), LayoutError> {
    if found.connector == mine.connector {
        let cluster = match (&found.cluster_id, &mine.cluster_id) {
            (Some(found), Some(mine)) if found != mine => mine,
            _ => return Ok(()),
        };
        let accepted = cluster_key(&mine.connector, cluster);
        if retrying(environment, || store.head(&accepted)).await?.is_some() {
            return Ok(());
        }
    }
    Err(LayoutError::Conflict(format!(
        "the prefix {} was begun by connector {} on cluster {}, this is connector {} on cluster {}. Archive under a prefix of \
         its own; if the cluster took the other's place, `sluice offsets accept-loss` goes on with it",
        store.url(),
        found.connector,
        found.cluster_id.as_deref().unwrap_or("unknown"),
        mine.connector,
        mine.cluster_id.as_deref().unwrap_or("unknown")
    )))
}

/// The topic's newest mapping and its number; the first is made at the first start.
///
/// # Errors
/// The store refuses, or a mapping is damaged.
pub async fn mapping(
    store: &dyn Store,
    environment: &Environment,
    connector: &str,
    topic: &str,
    tasks_max: u32,
) -> Result<(u32, Mapping), LayoutError> {
    let number = newest_mapping(store, environment, connector, topic).await?.unwrap_or(1);
    let first = Mapping { tasks_max, origin: None };
    let found = create_mapping(store, environment, connector, topic, number, &first).await?;
    Ok((number, found))
}

/// The topics of which a connector has logs.
///
/// # Errors
/// The store refuses.
pub async fn topics(store: &dyn Store, environment: &Environment, connector: &str) -> Result<Vec<String>, LayoutError> {
    let folder = connector_folder(connector);
    let mut topics = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = retrying(environment, || store.list(&folder, Depth::Folder, after.as_deref(), 1000)).await?;
        let names = page.folders.iter().filter_map(|name| name.strip_prefix(&folder));
        topics.extend(names.map(|name| name.trim_end_matches('/').to_owned()));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(topics),
        }
    }
}

/// One mapping of a topic.
///
/// # Errors
/// The store refuses, or the mapping is damaged.
pub async fn read_mapping(
    store: &dyn Store,
    environment: &Environment,
    connector: &str,
    topic: &str,
    number: u32,
) -> Result<Option<Mapping>, LayoutError> {
    read(store, environment, &mapping_key(connector, topic, number)).await
}

/// The topic's newest mapping and its number, if it has one.
///
/// # Errors
/// The store refuses, or the mapping is damaged.
pub async fn find_mapping(
    store: &dyn Store,
    environment: &Environment,
    connector: &str,
    topic: &str,
) -> Result<Option<(u32, Mapping)>, LayoutError> {
    let Some(number) = newest_mapping(store, environment, connector, topic).await? else { return Ok(None) };
    let key = mapping_key(connector, topic, number);
    Ok(read(store, environment, &key).await?.map(|mapping| (number, mapping)))
}

/// The number of the topic's newest mapping.
///
/// # Errors
/// The store refuses.
async fn newest_mapping(
    store: &dyn Store,
    environment: &Environment,
    connector: &str,
    topic: &str,
) -> Result<Option<u32>, LayoutError> {
    let prefix = mapping_prefix(connector, topic);
    let mut newest = None;
    let mut after: Option<String> = None;
    loop {
        let page = retrying(environment, || store.list(&prefix, Depth::Folder, after.as_deref(), 1000)).await?;
        let numbers = page.objects.iter().filter_map(|object| object.key.strip_prefix(&prefix)?.parse::<u32>().ok());
        newest = newest.max(numbers.max());
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(newest),
        }
    }
}

/// Creates a mapping, or reads the one that is there.
///
/// # Errors
/// The store refuses, or the mapping that is there is damaged.
pub async fn create_mapping(
    store: &dyn Store,
    environment: &Environment,
    connector: &str,
    topic: &str,
    number: u32,
    mapping: &Mapping,
) -> Result<Mapping, LayoutError> {
    create_or_read(store, environment, &mapping_key(connector, topic, number), mapping).await
}

async fn create_or_read<T: Serialize + for<'de> Deserialize<'de>>(
    store: &dyn Store,
    environment: &Environment,
    key: &str,
    mine: &T,
) -> Result<T, LayoutError> {
    let text = serde_json::to_vec(mine).map_err(|error| damaged(store, key, &error))?;
    let body = Body::Bytes(Bytes::from(text));
    loop {
        // Read first: the object is there at every start but the first.
        if let Some(found) = read(store, environment, key).await? {
            return Ok(found);
        }
        let created = retrying(environment, || store.create(key, &body, None)).await?;
        if created == Created::New {
            tracing::info!(url = store.url(), key, "first start: created");
        }
    }
}

async fn read<T: for<'de> Deserialize<'de>>(
    store: &dyn Store,
    environment: &Environment,
    key: &str,
) -> Result<Option<T>, LayoutError> {
    let Some(got) = retrying(environment, || store.get(key, ByteRange::All, None)).await? else { return Ok(None) };
    serde_json::from_slice(&got.bytes).map(Some).map_err(|error| damaged(store, key, &error))
}

fn damaged(store: &dyn Store, key: &str, why: &dyn std::fmt::Display) -> LayoutError {
    LayoutError::Conflict(format!("{}/{key} is damaged: {why}. Restore it from a backup", store.url()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::local::LocalStore;
    use crate::store::memory::MemoryStore;

    async fn refused(data: &dyn Store, state: Option<&dyn Store>, connector: &str, cluster: Option<&str>) -> String {
        claim(data, state, &Environment::system(), connector, cluster).await.unwrap_err().to_string()
    }

    async fn taken(data: &dyn Store, state: Option<&dyn Store>, connector: &str, cluster: Option<&str>) {
        claim(data, state, &Environment::system(), connector, cluster).await.unwrap();
    }

    #[tokio::test]
    async fn a_prefix_is_one_connectors_on_one_cluster() {
        let data = MemoryStore::new();
        taken(&data, None, "c", None).await;
        taken(&data, None, "c", Some("k1")).await;
        assert!(refused(&data, None, "d", None).await.contains("is connector c's"));
        let data = MemoryStore::new();
        taken(&data, None, "c", Some("k1")).await;
        assert!(refused(&data, None, "c", Some("k2")).await.contains("on cluster k1"));
        accept_cluster(&data, &Environment::system(), "c", "k2").await.unwrap();
        taken(&data, None, "c", Some("k2")).await;
        assert!(refused(&data, None, "c", Some("k3")).await.contains("on cluster k1"));
    }

    #[tokio::test]
    async fn state_is_never_moved_by_a_setting() {
        let (data, other, dir) = (MemoryStore::new(), MemoryStore::new(), tempfile::tempdir().unwrap());
        let state = LocalStore::open(dir.path()).unwrap();
        taken(&data, None, "c", None).await;
        assert!(refused(&data, Some(&state), "c", None).await.contains("begun with its state beside the data"));
        taken(&other, Some(&state), "d", None).await;
        taken(&other, Some(&state), "d", None).await;
        let message = refused(&other, None, "d", None).await;
        assert!(message.contains(&format!("begun with its state {}", state.url())), "{message}");
    }

    #[tokio::test]
    async fn connectors_share_a_place_of_state_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| LocalStore::open(dir.path().join(name)).unwrap();
        let (state, first, second) = (open("state"), open("first"), open("second"));
        taken(&first, Some(&state), "c", None).await;
        taken(&second, Some(&state), "d", None).await;
        // Another cluster's connector of the same name.
        let third = open("third");
        assert!(refused(&third, Some(&state), "c", None).await.contains("belongs to data at"));
    }

    #[test]
    fn a_marker_without_state_is_written_as_ever() {
        let marker = Marker { connector: "c".to_owned(), cluster_id: None, state: None, sink: None };
        let text = r#"{"connector":"c","cluster_id":null}"#;
        assert_eq!(serde_json::to_string(&marker).unwrap(), text);
        assert_eq!(serde_json::from_str::<Marker>(text).unwrap(), marker);
    }
}
