//! What happens before a task reads its first record.
//!
//! Owns: takeover, first start, the checks that log, settings and Kafka go together, the look for pending objects.
//! Does not own: anything after the first fetch.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::adopt::{Adopted, Known, adopt};
use super::context::TaskContext;
use super::cut::{self, Goal, Step};
use super::error::TaskError;
use super::settings::TaskSettings;
use crate::archive::index::Skipped;
use crate::clock::Environment;
use crate::config::{OnError, StartFrom};
use crate::ledger::{Entry, Identity, IntentId, Low, Pending, State, Token};
use crate::log::journal::{Journal, read_state};
use crate::pipeline::produce::ProduceError;
use crate::pipeline::source::{At, Isolation, Kafka, Position, SourceError, TopicInfo};
use crate::pipeline::spool::journal::Begin;
use crate::pipeline::upload::{Found, find};
use crate::store::Store;

/// Objects looked for, and offsets asked for, at a time.
const PARALLEL: usize = 16;

/// How often, and how far apart, what Kafka should have is asked for before it is taken to be gone.
const TOPIC_ATTEMPTS: usize = 4;
const TOPIC_WAIT: Duration = Duration::from_millis(500);

/// A task that is ready to read.
#[derive(Debug)]
pub struct Opened {
    pub journal: Journal,
    pub state: State,
    /// The present ones, or those of a cut that is being finished.
    pub settings: TaskSettings,
    /// Partitions to read.
    pub partitions: Vec<i32>,
    /// Pending intents whose objects the store does not have.
    pub missing: HashSet<IntentId>,
    /// Where each partition ends now.
    pub live_ends: BTreeMap<i32, i64>,
    /// Records may have vanished from the topic since an object was decided.
    pub compacted: bool,
    /// The cut to finish before anything else.
    pub cut: Option<BTreeMap<i32, i64>>,
    /// What the last owner left in this machine's spool.
    pub adopted: Option<Adopted>,
    /// Heads the journal of the spool.
    pub begin: Begin,
}

/// What a taken-over task is.
#[derive(Debug)]
pub enum Opening {
    Ready(Box<Opened>),
    /// Its log has ended; the state says where.
    Closed(Box<State>),
}

/// Takes the task over and makes it ready. `ours` becomes the token of the takeover, as soon as it is in the log.
///
/// # Errors
/// [`TaskError`]: nothing was read; the log may hold a Takeover more.
pub async fn open(
    context: &TaskContext,
    mut settings: TaskSettings,
    goal: Goal,
    ours: &mut Option<Token>,
) -> Result<Opening, TaskError> {
    if goal != Goal::Archive {
        // Whoever goes on with a change looks at each log; one that has ended needs no Takeover.
        let known = read_state(context.log.as_ref(), &context.environment).await?;
        if known.closed.is_some() {
            return Ok(Opening::Closed(Box::new(known)));
        }
    }
    let before = topic_info(context.kafka.as_ref(), &context.topic, &BTreeMap::new()).await?;
    let cluster_id = context.kafka.cluster_id().await?;
    check_dead_letters(context).await?;
    // A Kafka that can't answer must not cost a Takeover, which is kept for ever.
    offsets(context, &context.own_partitions(&before), At::Latest).await?;
    let (mut journal, mut state) =
        Journal::take_over(context.log.clone(), context.environment.clone(), &context.worker_id).await?;
    *ours = Some(journal.token().clone());
    // Also one that never began: whoever changes the mapping ended it since it was looked at.
    if state.closed.is_some() {
        return Ok(Opening::Closed(Box::new(state)));
    }
    // Asked again: the predecessor may have taken new partitions in until it was fenced.
    let topic = topic_info(context.kafka.as_ref(), &context.topic, &state.lows).await?;
    let own = context.own_partitions(&topic);
    let now_ms = || context.environment.clock.now_ms();
    let identity = Identity { cluster_id, topic_id: topic.id.clone(), incarnation: state.identity.incarnation };
    if state.is_started() {
        check_identity(&context.topic, &state.identity, &identity)?;
        adopt_identity(&mut journal, &mut state, identity).await?;
        check_partitions(context, &state, &topic)?;
        if let Step::Finish(earlier) = cut::approach(goal, &settings, &mut journal, &mut state, now_ms()).await? {
            settings = *earlier;
        }
    } else if let Goal::Close { next } = goal {
        apply(&mut state, &journal.append(Entry::Closed { next, time_ms: now_ms() }).await?)?;
    } else {
        let (identity, lows) = first_offsets(context, &own, identity).await?;
        let skipped = skipped_before(context);
        let start = Entry::Start { settings: settings.record.clone(), identity, lows, skipped, time_ms: now_ms() };
        apply(&mut state, &journal.append(start).await?)?;
    }
    if state.closed.is_some() {
        return Ok(Opening::Closed(Box::new(state)));
    }
    let cut = state.cut.clone();
    let (partitions, live_ends) = if let Some(cut) = &cut {
        (cut.keys().copied().collect(), cut.clone())
    } else {
        let new: Vec<i32> = own.iter().copied().filter(|p| !state.lows.contains_key(p)).collect();
        add_partitions(context, &mut journal, &mut state, &new).await?;
        // Asked last: ends only grow, so that whatever the predecessor read and the first start resolved lies below them.
        let live_ends = offsets(context, &own, At::Latest).await?;
        (own, live_ends)
    };
    check_ends(context, &state).await?;
    check_unread(context, &state, &live_ends).await?;
    let missing = missing_objects(context.store.as_ref(), &context.environment, &state).await?;
    let compacted = is_compacted(context, &missing).await?;
    let begin = Begin::new(&journal.token().0, &settings.record.hash, state.identity.incarnation);
    let known = Known { state: &state, partitions: &partitions, missing: &missing, live_ends: &live_ends };
    let predecessor = journal.predecessor().map(|token| token.0.clone());
    let adopted = adopt(context, &begin, predecessor.as_deref(), known).await?;
    let opened = Opened { journal, state, settings, partitions, missing, live_ends, compacted, cut, adopted, begin };
    Ok(Opening::Ready(Box::new(opened)))
}

/// A topic for dead letters has to be there before the first of them, which may come in the middle of a night.
async fn check_dead_letters(context: &TaskContext) -> Result<(), TaskError> {
    let connector = &context.connector;
    match &connector.dead_letter.topic {
        Some(topic) if connector.on_error == OnError::DeadLetter && context.kafka.topic(topic).await?.is_none() => {
            Err(ProduceError::NoTopic { topic: topic.clone() }.into())
        }
        _ => Ok(()),
    }
}

/// Asked only where it matters: who may read records may still not be allowed to see settings.
async fn is_compacted(context: &TaskContext, missing: &HashSet<IntentId>) -> Result<bool, TaskError> {
    if missing.is_empty() {
        return Ok(false);
    }
    match context.kafka.is_compacted(&context.topic).await {
        Err(SourceError::Refused { what, message }) => {
            tracing::warn!(what, message, "can't see whether the topic is compacted; it is taken for one that is not");
            Ok(false)
        }
        answer => Ok(answer?),
    }
}

/// Where a log begins: where the mapping before ended, or where `start_from` says.
async fn first_offsets(
    context: &TaskContext,
    own: &[i32],
    found: Identity,
) -> Result<(Identity, BTreeMap<i32, i64>), TaskError> {
    if let Some(origin) = &context.origin {
        check_identity(&context.topic, &origin.identity, &found)?;
        let incarnation = origin.identity.incarnation;
        // Also those that `partitions` leaves out now: they keep their place, and are no new ones when it lists them again.
        let lows = origin.lows.iter().filter(|(p, _)| context.is_of_share(**p)).map(|(p, low)| (*p, *low)).collect();
        return Ok((Identity { incarnation, ..found }, lows));
    }
    let at = match context.connector.start_from {
        StartFrom::Earliest => At::Earliest,
        StartFrom::Latest => At::Latest,
        StartFrom::TimestampMs(ms) => At::TimestampMs(ms),
    };
    Ok((found, offsets(context, own, at).await?))
}

/// What the mapping before left out and no file tells of: each is one task's, also of partitions that are not read any more.
fn skipped_before(context: &TaskContext) -> Vec<Skipped> {
    let all = context.origin.as_ref().map_or(&[][..], |origin| &origin.skipped);
    all.iter().filter(|skipped| context.is_of_share(skipped.partition)).copied().collect()
}

/// What Kafka says of the topic. Any broker is asked, and one may not have heard yet of a topic or of partitions that were just
/// made: what is missing of `known` is asked for some times more.
pub(super) async fn topic_info(
    kafka: &dyn Kafka,
    topic: &str,
    known: &BTreeMap<i32, Low>,
) -> Result<TopicInfo, TaskError> {
    for _ in 0..TOPIC_ATTEMPTS {
        let info = kafka.topic(topic).await?;
        if let Some(info) = info.filter(|info| known.keys().all(|partition| info.partitions.contains(partition))) {
            return Ok(info);
        }
        tokio::time::sleep(TOPIC_WAIT).await;
    }
    kafka.topic(topic).await?.ok_or_else(|| SourceError::NoTopic { topic: topic.to_owned() }.into())
}

async fn offsets(context: &TaskContext, partitions: &[i32], at: At) -> Result<BTreeMap<i32, i64>, TaskError> {
    offsets_at(context, partitions, at, context.connector.isolation).await
}

async fn offsets_at(
    context: &TaskContext,
    partitions: &[i32],
    at: At,
    isolation: Isolation,
) -> Result<BTreeMap<i32, i64>, TaskError> {
    let requests: Vec<_> = partitions
        .iter()
        .map(|&partition| async move {
            let offset = context.kafka.offset(&context.topic, partition, at, isolation).await?;
            Ok::<_, SourceError>((partition, offset))
        })
        .collect();
    Ok(stream::iter(requests).buffered(PARALLEL).try_collect().await?)
}

pub(super) fn apply(state: &mut State, stored: &crate::ledger::encoding::Stored) -> Result<(), TaskError> {
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

pub(super) fn check_identity(topic: &str, known: &Identity, found: &Identity) -> Result<(), TaskError> {
    if let (Some(known), Some(found)) = (&known.cluster_id, &found.cluster_id)
        && known != found
    {
        return Err(TaskError::KafkaLost(format!(
            "topic {topic} was archived from cluster {known}, this is cluster {found}: its offsets mean other records. If that is \
             meant, `sluice offsets accept-loss` goes on with it"
        )));
    }
    if let (Some(known), Some(found)) = (&known.topic_id, &found.topic_id)
        && known != found
    {
        return Err(SourceError::Recreated {
            topic: topic.to_owned(),
            expected: known.0.clone(),
            found: found.0.clone(),
        }
        .into());
    }
    Ok(())
}

/// A log from before the client could tell takes the ids in once.
async fn adopt_identity(journal: &mut Journal, state: &mut State, found: Identity) -> Result<(), TaskError> {
    let known = &state.identity;
    let identity = Identity {
        cluster_id: known.cluster_id.clone().or(found.cluster_id),
        topic_id: known.topic_id.clone().or(found.topic_id),
        incarnation: known.incarnation,
    };
    if identity == *known {
        return Ok(());
    }
    apply(state, &journal.append(Entry::Adopt { identity }).await?)
}

/// Partitions of a topic never go away; those that `partitions` leaves out now keep their place in the log.
fn check_partitions(context: &TaskContext, state: &State, topic: &TopicInfo) -> Result<(), TaskError> {
    let gone: Vec<String> =
        state.lows.keys().filter(|p| !topic.partitions.contains(p)).map(ToString::to_string).collect();
    if gone.is_empty() {
        return Ok(());
    }
    Err(TaskError::KafkaLost(format!(
        "the log of topic {} holds partitions {} that the topic does not have: it was recreated with fewer. Nothing is archived \
         from it until somebody decides",
        context.topic,
        gone.join(", ")
    )))
}

/// What was decided must still be there to be read.
async fn check_ends(context: &TaskContext, state: &State) -> Result<(), TaskError> {
    let partitions: Vec<i32> = state.lows.keys().copied().collect();
    // The high watermark: an open transaction is no truncation.
    let ends = offsets_at(context, &partitions, At::Latest, Isolation::ReadUncommitted).await?;
    for (&partition, low) in &state.lows {
        let marks = state.marks.values().filter_map(|marks| marks.get(&partition)).copied();
        let needed = marks.chain([low.offset]).max().unwrap_or(low.offset);
        let Some(&end) = ends.get(&partition) else { continue };
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

/// A reader asks whether a log is still the same before it reads it. Where nothing is to be read, nobody would: a job said that
/// it had caught up with a log that had been truncated and grew again to where it was.
async fn check_unread(context: &TaskContext, state: &State, live_ends: &BTreeMap<i32, i64>) -> Result<(), TaskError> {
    let unread = |partition: &i32, end: i64| state.low(*partition).is_some_and(|low| low >= end);
    let questions: Vec<_> = live_ends
        .iter()
        .filter(|(partition, end)| unread(partition, **end))
        .filter_map(|(&partition, _)| Some((partition, *state.seen.get(&partition)?)))
        .map(|(partition, seen)| async move {
            match context.kafka.diverged(&context.topic, partition, seen).await? {
                None => Ok(()),
                Some(Position { offset: end_offset, .. }) => {
                    let (topic, offset) = (context.topic.clone(), seen.offset);
                    Err(TaskError::from(SourceError::Truncated { topic, partition, offset, end_offset }))
                }
            }
        })
        .collect();
    stream::iter(questions).buffered(PARALLEL).try_collect().await
}

/// Pending intents whose objects the store does not have: they are rebuilt. The others only wait for their Done.
pub(super) async fn missing_objects(
    store: &dyn Store,
    environment: &Environment,
    state: &State,
) -> Result<HashSet<IntentId>, TaskError> {
    let requests: Vec<_> = state
        .intents
        .values()
        .map(|Pending { intent, .. }| async move {
            let found = find(store, environment, &intent.key, &intent.id.0).await?;
            Ok::<_, TaskError>((intent.id.clone(), found))
        })
        .collect();
    let found: Vec<(IntentId, Found)> = stream::iter(requests).buffered(PARALLEL).try_collect().await?;
    Ok(found.into_iter().filter(|(_, found)| *found == Found::Nothing).map(|(id, _)| id).collect())
}
