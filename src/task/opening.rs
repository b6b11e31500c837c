//! What happens before a task reads its first record.
//!
//! Owns: takeover, first start, the checks that log, settings and Kafka go together, the look for pending objects.
//! Does not own: anything after the first fetch.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::driver::TaskContext;
use super::error::TaskError;
use super::settings::TaskSettings;
use crate::config::StartFrom;
use crate::ledger::{Entry, Identity, IntentId, Pending, State};
use crate::log::journal::Journal;
use crate::pipeline::source::{At, SourceError, TopicInfo};
use crate::pipeline::upload::{Found, find};

/// Objects looked for, and offsets asked for, at a time.
const PARALLEL: usize = 16;

/// A task that is ready to read.
#[derive(Debug)]
pub struct Opened {
    pub journal: Journal,
    pub state: State,
    /// Pending intents whose objects the store does not have.
    pub missing: Vec<IntentId>,
    /// Where each partition ends now.
    pub live_ends: BTreeMap<i32, i64>,
}

/// Takes the task over and makes it ready.
///
/// # Errors
/// [`TaskError`]: nothing was read; the log may hold a Takeover more.
pub async fn open(context: &TaskContext, settings: &TaskSettings) -> Result<Opened, TaskError> {
    // Asked before, so that a worker that can't reach Kafka does not take the task from one that can.
    let cluster_id = context.kafka.cluster_id().await?;
    let (mut journal, mut state) =
        Journal::take_over(context.log.clone(), context.environment.clone(), &context.worker_id).await?;
    // Asked after: the predecessor may have taken new partitions in until it was fenced.
    let topic = topic_info(context).await?;
    let partitions = context.own_partitions(&topic);
    let identity = Identity { cluster_id, topic_id: topic.id.clone(), incarnation: state.identity.incarnation };
    if state.is_started() {
        check_settings(settings, &state)?;
        check_identity(context, &state.identity, &identity)?;
    } else {
        let at = match context.connector.start_from {
            StartFrom::Earliest => At::Earliest,
            StartFrom::Latest => At::Latest,
            StartFrom::TimestampMs(ms) => At::TimestampMs(ms),
        };
        let lows = offsets(context, &partitions, at).await?;
        let time_ms = context.environment.clock.now_ms();
        let start = Entry::Start { settings: settings.record.clone(), identity, lows, time_ms };
        apply(&mut state, &journal.append(start).await?)?;
    }
    let new: Vec<i32> = partitions.iter().copied().filter(|p| !state.lows.contains_key(p)).collect();
    add_partitions(context, &mut journal, &mut state, &new).await?;
    check_partitions(context, &state, &partitions)?;
    // Asked last: ends only grow, so that whatever the predecessor read and the first start resolved lies below them.
    let live_ends = offsets(context, &partitions, At::Latest).await?;
    check_ends(context, &state, &live_ends)?;
    let missing = missing_objects(context, &state).await?;
    Ok(Opened { journal, state, missing, live_ends })
}

async fn topic_info(context: &TaskContext) -> Result<TopicInfo, TaskError> {
    let info = context.kafka.topic(&context.topic).await?;
    info.ok_or_else(|| SourceError::NoTopic { topic: context.topic.clone() }.into())
}

async fn offsets(context: &TaskContext, partitions: &[i32], at: At) -> Result<BTreeMap<i32, i64>, TaskError> {
    let isolation = context.connector.isolation;
    let requests: Vec<_> = partitions
        .iter()
        .map(|&partition| async move {
            let offset = context.kafka.offset(&context.topic, partition, at, isolation).await?;
            Ok::<_, SourceError>((partition, offset))
        })
        .collect();
    Ok(stream::iter(requests).buffered(PARALLEL).try_collect().await?)
}

fn apply(state: &mut State, stored: &crate::ledger::encoding::Stored) -> Result<(), TaskError> {
    state.apply(stored).map_err(|error| super::core::CoreError::Ledger(error.to_string()).into())
}

/// Partitions that were not there at the first start begin at the log start: nothing of them is missed.
async fn add_partitions(
    context: &TaskContext,
    journal: &mut Journal,
    state: &mut State,
    new: &[i32],
) -> Result<(), TaskError> {
    if new.is_empty() {
        return Ok(());
    }
    let lows = offsets(context, new, At::Earliest).await?;
    let time_ms = context.environment.clock.now_ms();
    apply(state, &journal.append(Entry::Partitions { lows, time_ms }).await?)
}

fn check_settings(settings: &TaskSettings, state: &State) -> Result<(), TaskError> {
    match &state.settings {
        Some(known) if known.hash != settings.record.hash => {
            let changed = changed_keys(&known.content, &settings.record.content);
            Err(TaskError::Conflict(format!(
                "connector {} was started with other settings that shape its content ({}): go back to them, or archive \
                 under a new connector name and prefix",
                settings.connector.name,
                changed.join(", ")
            )))
        }
        _ => Ok(()),
    }
}

fn changed_keys(before: &serde_json::Value, after: &serde_json::Value) -> Vec<String> {
    let keys = |value: &serde_json::Value| value.as_object().cloned().unwrap_or_default();
    let (before, after) = (keys(before), keys(after));
    let mut changed: Vec<String> = before
        .keys()
        .chain(after.keys())
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| {
            let show =
                |value: Option<&serde_json::Value>| value.map_or_else(|| "unset".to_owned(), ToString::to_string);
            format!("{key}: {} before, {} now", show(before.get(key)), show(after.get(key)))
        })
        .collect();
    changed.sort();
    changed.dedup();
    changed
}

fn check_identity(context: &TaskContext, known: &Identity, found: &Identity) -> Result<(), TaskError> {
    if let (Some(known), Some(found)) = (&known.cluster_id, &found.cluster_id)
        && known != found
    {
        return Err(TaskError::KafkaLost(format!(
            "topic {} was archived from cluster {known}, this is cluster {found}: its offsets mean other records. \
             Archive it under a new connector name and prefix",
            context.topic
        )));
    }
    if let (Some(known), Some(found)) = (&known.topic_id, &found.topic_id)
        && known != found
    {
        return Err(SourceError::Recreated {
            topic: context.topic.clone(),
            expected: known.0.clone(),
            found: found.0.clone(),
        }
        .into());
    }
    Ok(())
}

fn check_partitions(context: &TaskContext, state: &State, partitions: &[i32]) -> Result<(), TaskError> {
    let gone: Vec<String> = state.lows.keys().filter(|p| !partitions.contains(p)).map(ToString::to_string).collect();
    if gone.is_empty() {
        return Ok(());
    }
    Err(TaskError::Conflict(format!(
        "the log of topic {} holds partitions {} that are not this task's: `partitions` or `tasks_max` was changed, or the \
         topic was recreated with fewer partitions. Set them back, or archive under a new connector name and prefix",
        context.topic,
        gone.join(", ")
    )))
}

/// What was decided must still be there to be read.
fn check_ends(context: &TaskContext, state: &State, live_ends: &BTreeMap<i32, i64>) -> Result<(), TaskError> {
    for (&partition, low) in &state.lows {
        let marks = state.marks.values().filter_map(|marks| marks.get(&partition)).copied();
        let needed = marks.chain([low.offset]).max().unwrap_or(low.offset);
        let Some(&end) = live_ends.get(&partition) else { continue };
        if end < needed {
            return Err(TaskError::KafkaLost(format!(
                "topic {} partition {partition} ends at offset {end}, but records up to {needed} were archived from it: \
                 it was truncated or recreated. Nothing is archived from it until somebody decides",
                context.topic
            )));
        }
    }
    Ok(())
}

/// Pending intents whose objects the store does not have: they are rebuilt. The others only wait for their Done.
async fn missing_objects(context: &TaskContext, state: &State) -> Result<Vec<IntentId>, TaskError> {
    let requests: Vec<_> = state
        .intents
        .values()
        .map(|Pending { intent, .. }| async move {
            let found = find(context.store.as_ref(), &context.environment, &intent.key, &intent.id.0).await?;
            Ok::<_, TaskError>((intent.id.clone(), found))
        })
        .collect();
    let found: Vec<(IntentId, Found)> = stream::iter(requests).buffered(PARALLEL).try_collect().await?;
    Ok(found.into_iter().filter(|(_, found)| *found == Found::Nothing).map(|(id, _)| id).collect())
}
