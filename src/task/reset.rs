//! The explicit way out when Kafka's log is not what it was, or an operator wants other offsets.
//!
//! Owns: what a reset changes, partition by partition, and writing it into the log. Does not own: who asks for it
//! ([`crate::cli`]).
//!
//! What was archived is never touched; a sidecar whose data never came is removed. Where offsets will mean other records, or records are archived again, the incarnation
//! counts up: it stands in the keys of later objects, so that none meets an old one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::TaskError;
use super::opening::{self, apply};
use crate::archive::codec::Codec;
use crate::archive::index;
use crate::clock::Environment;
use crate::ledger::{Entry, Identity, Pending, Restart, State};
use crate::log::LogDoor;
use crate::log::journal::{Journal, read_state};
use crate::pipeline::source::{At, Isolation, Kafka, Position};
use crate::store::Store;
use crate::store::retrying::retrying;

/// The log to change, and what it is about.
#[derive(Clone, Debug)]
pub struct Subject {
    pub topic: String,
    pub isolation: Isolation,
    /// Named in the Takeover: whom a fenced owner blames.
    pub by: String,
    pub kafka: Arc<dyn Kafka>,
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn LogDoor>,
    pub environment: Environment,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Go on with what Kafka still has.
    AcceptLoss,
    /// All partitions begin at a place of their log.
    To(At),
    /// One partition goes on at an offset.
    Set { partition: i32, offset: i64 },
}

/// What becomes of one partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    pub partition: i32,
    pub low_before: i64,
    /// `None`: the partition is no more.
    pub low: Option<i64>,
    pub why: String,
    #[serde(skip)]
    restart: Option<Restart>,
}

/// What a reset would write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub identity: Identity,
}

/// What Kafka has of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    start: i64,
    /// High watermark.
    end: i64,
    /// Where the log went another way below what was read.
    diverged_at: Option<Position>,
}

/// Says what a reset would do, without touching the log. `None`: the task has never begun, or its log has ended.
///
/// # Errors
/// Kafka or the store can't be asked, or the offset does not exist.
pub async fn plan(subject: &Subject, wish: &Wish) -> Result<Option<Plan>, TaskError> {
    let state = read_state(subject.log.as_ref(), &subject.environment).await?;
    if !state.is_started() || state.closed.is_some() {
        return Ok(None);
    }
    plan_for(subject, &state, wish).await.map(Some)
}

/// Takes the task over and writes the reset. A running owner is fenced by it.
///
/// # Errors
/// As [`plan`]; the log may hold a Takeover more.
pub async fn execute(subject: &Subject, wish: &Wish) -> Result<Option<Plan>, TaskError> {
    let Some(expected) = plan(subject, wish).await? else { return Ok(None) };
    if expected.changes.is_empty() {
        return Ok(Some(expected));
    }
    let (mut journal, mut state) =
        Journal::take_over(subject.log.clone(), subject.environment.clone(), &subject.by).await?;
    // Its last owner may have gone on until now.
    let plan = plan_for(subject, &state, wish).await?;
    remove_sidecars_without_data(subject, &state).await?;
    let partitions = plan.changes.iter().map(|change| (change.partition, change.restart)).collect();
    let why: BTreeSet<&str> = plan.changes.iter().map(|change| change.why.as_str()).collect();
    let why = why.into_iter().collect::<Vec<_>>().join("; ");
    let time_ms = subject.environment.clock.now_ms();
    let entry = Entry::Reset { identity: plan.identity.clone(), partitions, why, time_ms };
    apply(&mut state, &journal.append(entry).await?)?;
    Ok(Some(plan))
}

/// A pending object of uncompressed records may be half there: its sidecar, not its data. What is left of its records is another
/// object under the same key, whose sidecar that one would keep out.
async fn remove_sidecars_without_data(subject: &Subject, state: &State) -> Result<(), TaskError> {
    let missing = opening::missing_objects(subject.store.as_ref(), &subject.environment, state).await?;
    for Pending { intent, .. } in state.intents.values().filter(|pending| missing.contains(&pending.intent.id)) {
        if index::codec_of_key(&intent.key) == Codec::None {
            let sidecar = index::sidecar_key(&intent.key);
            retrying(&subject.environment, || subject.store.delete(&sidecar)).await?;
        }
    }
    Ok(())
}

async fn plan_for(subject: &Subject, state: &State, wish: &Wish) -> Result<Plan, TaskError> {
    let topic = opening::topic_info(subject.kafka.as_ref(), &subject.topic, &state.lows).await?;
    let found = Identity {
        cluster_id: subject.kafka.cluster_id().await?,
        topic_id: topic.id.clone(),
        incarnation: state.identity.incarnation,
    };
    let mut extents = BTreeMap::new();
    for &partition in state.lows.keys().filter(|p| topic.partitions.contains(p)) {
        let at = |at| subject.kafka.offset(&subject.topic, partition, at, Isolation::ReadUncommitted);
        let (start, end) = (at(At::Earliest).await?, at(At::Latest).await?);
        let diverged_at = match (wish, state.seen.get(&partition)) {
            (Wish::AcceptLoss, Some(&seen)) if start < end => {
                subject.kafka.diverged(&subject.topic, partition, seen).await?
            }
            _ => None,
        };
        extents.insert(partition, Extent { start, end, diverged_at });
    }
    match wish {
        Wish::AcceptLoss => {
            let missing = opening::missing_objects(subject.store.as_ref(), &subject.environment, state).await?;
            let waiting: BTreeSet<i32> = state
                .intents
                .values()
                .filter(|pending| missing.contains(&pending.intent.id))
                .flat_map(|pending| pending.intent.ranges.keys().copied())
                .collect();
            Ok(accept_loss(state, found, &extents, &waiting))
        }
        Wish::To(at) => {
            let mut offsets = BTreeMap::new();
            for &partition in extents.keys() {
                let offset = subject.kafka.offset(&subject.topic, partition, *at, subject.isolation).await?;
                offsets.insert(partition, offset);
            }
            set(subject, state, found, &extents, &offsets)
        }
        Wish::Set { partition, offset } => set(subject, state, found, &extents, &[(*partition, *offset)].into()),
    }
}

/// Pure: what has to change for archiving to go on.
fn accept_loss(state: &State, found: Identity, extents: &BTreeMap<i32, Extent>, waiting: &BTreeSet<i32>) -> Plan {
    let known = &state.identity;
    let differs = |known: Option<&str>, found: Option<&str>| matches!((known, found), (Some(k), Some(f)) if k != f);
    let id = |identity: &Identity| identity.topic_id.as_ref().map(|id| id.0.clone());
    let other_cluster = differs(known.cluster_id.as_deref(), found.cluster_id.as_deref());
    let recreated = other_cluster || differs(id(known).as_deref(), id(&found).as_deref());
    let needed = state.least_cut();
    let mut changes = Vec::new();
    let mut other_records = recreated;
    for (&partition, low) in &state.lows {
        let change = |restart: Option<Restart>, why: String| Change {
            partition,
            low_before: low.offset,
            low: restart.map(|restart| restart.low),
            why,
            restart,
        };
        let Some(&Extent { start, end, diverged_at }) = extents.get(&partition) else {
            other_records = true;
            changes.push(change(None, "the partition is no more".to_owned()));
            continue;
        };
        if recreated {
            let why = if other_cluster { "another cluster" } else { "the topic was made again" };
            // No mark means anything any more.
            changes.push(change(Some(Restart { low: start, marks_to: 0, seen: None }), why.to_owned()));
            continue;
        }
        let needed = needed.get(&partition).copied().unwrap_or(low.offset);
        let marks_to = diverged_at.map(|at| at.offset).into_iter().chain((end < needed).then_some(end)).min();
        // It may be truncated again before anything of it is read.
        let seen = diverged_at.filter(|at| at.offset > 0 && at.leader_epoch.is_some());
        let seen = seen.filter(|at| marks_to.is_some_and(|to| at.offset <= to));
        let mut restart = Restart { low: low.offset, marks_to: marks_to.unwrap_or(i64::MAX), seen };
        let mut why = Vec::new();
        if let Some(to) = marks_to {
            other_records = true;
            restart.low = restart.low.min(to);
            why.push(format!("the log was truncated to {to}, records up to {needed} had been read"));
        }
        if start > restart.low {
            why.push(format!("Kafka has no records from {} to {} any more", restart.low, start - 1));
            restart.low = start;
        }
        if waiting.contains(&partition) {
            why.push("objects that were decided may hold fewer records".to_owned());
        }
        if !why.is_empty() {
            changes.push(change(Some(restart), why.join("; ")));
        }
    }
    let incarnation = known.incarnation + u32::from(other_records);
    Plan { changes, identity: Identity { incarnation, ..found } }
}

fn set(
    subject: &Subject,
    state: &State,
    found: Identity,
    extents: &BTreeMap<i32, Extent>,
    offsets: &BTreeMap<i32, i64>,
) -> Result<Plan, TaskError> {
    opening::check_identity(&subject.topic, &state.identity, &found)?;
    let mut changes = Vec::new();
    for (&partition, &offset) in offsets {
        let (Some(low), Some(extent)) = (state.lows.get(&partition), extents.get(&partition)) else { continue };
        if !(extent.start..=extent.end).contains(&offset) {
            return Err(TaskError::Conflict(format!(
                "topic {} partition {partition} has offsets {} to {}, so it can't go on at {offset}",
                subject.topic, extent.start, extent.end
            )));
        }
        changes.push(Change {
            partition,
            low_before: low.offset,
            low: Some(offset),
            why: format!("set to {offset}"),
            restart: Some(Restart { low: offset, marks_to: offset, seen: None }),
        });
    }
    let incarnation = state.identity.incarnation + u32::from(!changes.is_empty());
    Ok(Plan { changes, identity: Identity { incarnation, ..found } })
}
