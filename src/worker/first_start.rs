//! What must be so before a connector begins in a place for the first time.
//!
//! Owns: the checks of the store, and noticing that it is not the first time. Does not own: the markers ([`super::layout`]).

use super::layout;
use crate::cli::Exit;
use crate::clock::Environment;
use crate::config::ConnectorConfig;
use crate::store::retrying::retrying;
use crate::store::{ByteRange, Depth, Store, StoreError};

/// Objects that are looked at for files of a connector whose state is gone.
const LOOKED_AT: usize = 1_000;

/// `state`: the place of `state.url`, where there is one.
///
/// # Errors
/// With the exit status and what to do: the store can't hold a log, or the connector was here before and its state is gone.
pub async fn check(
    data: &dyn Store,
    state: Option<&dyn Store>,
    environment: &Environment,
    config: &ConnectorConfig,
) -> Result<(), (Exit, String)> {
    check_create_only(state.unwrap_or(data), environment, &config.name).await?;
    if let Some(state) = state {
        check_state_is_there(data, state, environment, &config.name).await?;
    }
    check_nothing_was_archived(data, state.unwrap_or(data), environment, config).await
}

fn unreachable(error: StoreError) -> (Exit, String) {
    (Exit::Unreachable, error.to_string())
}

/// At the first start: a store that lets objects be overwritten can't hold a log.
async fn check_create_only(
    store: &dyn Store,
    environment: &Environment,
    connector: &str,
) -> Result<(), (Exit, String)> {
    if layout::is_begun(store, environment, connector).await.map_err(unreachable)? {
        return Ok(());
    }
    let report = crate::store::probe(store).await;
    match report.create_only {
        Some(true) => Ok(()),
        Some(false) => Err((
            Exit::Usage,
            format!(
                "{} lets an object be overwritten that was to be created only once, so it can't hold the connector's log (OSS with \
                 versioning, or an old store): set state.url to a store that refuses, or archive to another bucket\n{report}",
                store.url()
            ),
        )),
        None => Err((Exit::Unreachable, format!("{} can't be used yet:\n{report}", store.url()))),
    }
}

/// A place of state that forgot everything (a Redis that was flushed, a disk that was lost) must not be taken for a new one: all
/// would be archived once more.
async fn check_state_is_there(
    data: &dyn Store,
    state: &dyn Store,
    environment: &Environment,
    connector: &str,
) -> Result<(), (Exit, String)> {
    let key = layout::marker_key(connector);
    let marker = retrying(environment, || data.get(&key, ByteRange::All, None)).await.map_err(unreachable)?;
    // A marker that can't be read, or names another place, is told by whoever claims the prefix.
    let marker = marker.and_then(|got| serde_json::from_slice::<layout::Marker>(&got.bytes).ok());
    let lies_there = marker.is_some_and(|marker| marker.state.as_deref() == Some(state.url()));
    if !lies_there || layout::is_begun(state, environment, connector).await.map_err(unreachable)? {
        return Ok(());
    }
    // Where the first start was cut short between the two markers there is no data yet.
    let page = retrying(environment, || data.list("", Depth::Folder, None, 10)).await.map_err(unreachable)?;
    let archived = page.folders.iter().any(|folder| folder.trim_end_matches('/') != layout::STATE_FOLDER);
    if !archived && page.objects.is_empty() {
        return Ok(());
    }
    Err((
        Exit::Damaged,
        format!(
            "{} has archived data, but its state at {} is gone: nothing says what was archived, and all would be archived once \
             more. Restore that place from a backup, or stop all workers and rebuild it with `sluice recover {connector}`",
            data.url(),
            state.url()
        ),
    ))
}

/// State that was deleted with its markers must not be taken for a first start: all would be archived once more.
async fn check_nothing_was_archived(
    data: &dyn Store,
    state: &dyn Store,
    environment: &Environment,
    config: &ConnectorConfig,
) -> Result<(), (Exit, String)> {
    let name = &config.name;
    let is_begun = async || {
        Ok::<_, (Exit, String)>(
            layout::is_begun(state, environment, name).await.map_err(unreachable)?
                // Its marker says where its state is; whoever claims the prefix compares.
                || layout::is_begun(data, environment, name).await.map_err(unreachable)?,
        )
    };
    if is_begun().await? {
        return Ok(());
    }
    let keys = config.sink.key.reader();
    let page = retrying(environment, || data.list("", Depth::All, None, LOOKED_AT)).await.map_err(unreachable)?;
    let is_own = |key: &str| keys.read(key).is_some_and(|parts| config.topics.includes(&parts.topic));
    let Some(own) = page.objects.iter().find(|object| is_own(&object.key)) else { return Ok(()) };
    // Another worker may have begun since.
    if is_begun().await? {
        return Ok(());
    }
    Err((
        Exit::Damaged,
        format!(
            "{url} holds archived files ({key}, maybe more), but no state of connector {name}: nothing says what was archived, and \
             all would be archived once more. Stop all workers and rebuild the state with `sluice recover {name}`, or take \
             another prefix",
            url = data.url(),
            key = own.key,
        ),
    ))
}
