//! Offsets of a log's start, of its end, and of a time.
//!
//! Owns: asking the leader, and asking again while leaders move. Does not own: what an offset is used for.

use std::time::Duration;

use tokio::time::Instant;

use crate::kafka::backoff::Backoff;
use crate::kafka::native::cluster::Cluster;
use crate::kafka::native::errors;
use crate::kafka::native::messages::list_offsets::{EARLIEST, LATEST, ListOffsets};
use crate::kafka::native::messages::offset_for_leader_epoch::OffsetForLeaderEpoch;
use crate::pipeline::source::{At, Isolation, Position, SourceError};

/// How long a question is asked again, while a leader is elected for example.
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// Asks for an offset until there is an answer, or too long.
///
/// # Errors
/// [`SourceError::NoTopic`], [`SourceError::Refused`], or [`SourceError::Unreachable`] with the last trouble.
pub async fn offset(
    cluster: &Cluster,
    topic: &str,
    partition: i32,
    at: At,
    isolation: Isolation,
) -> Result<i64, SourceError> {
    let timestamp = match at {
        At::Earliest => EARLIEST,
        At::Latest => LATEST,
        At::TimestampMs(ms) => ms.max(0),
    };
    let found = find(cluster, topic, partition, timestamp, isolation).await?;
    // No record is that young.
    if found < 0 { find(cluster, topic, partition, LATEST, isolation).await } else { Ok(found) }
}

async fn find(
    cluster: &Cluster,
    topic: &str,
    partition: i32,
    timestamp: i64,
    isolation: Isolation,
) -> Result<i64, SourceError> {
    let read_committed = isolation == Isolation::ReadCommitted;
    let mut retry = Retry::new();
    loop {
        let answer = match leader(cluster, topic, partition).await {
            Ok((leader, leader_epoch)) => {
                let topic = topic.to_owned();
                ask(cluster, leader, &ListOffsets { topic, partition, leader_epoch, timestamp, read_committed }).await
            }
            Err(error) => Err(error),
        };
        match answer {
            Err(SourceError::Unreachable { .. }) if retry.again().await => {}
            answer => return answer,
        }
    }
}

/// Where the leader's log leaves the one that a position was read from (KIP-320), with the epoch of what lies below; `None`:
/// nowhere below it.
///
/// # Errors
/// [`SourceError::Unreachable`], also of a broker that leads no longer; [`SourceError::Refused`] by brokers that don't
/// know the question.
pub async fn diverged(
    cluster: &Cluster,
    leader: i32,
    current_leader_epoch: i32,
    topic: &str,
    partition: i32,
    seen: (i64, i32),
) -> Result<Option<Position>, SourceError> {
    let (offset, leader_epoch) = seen;
    let topic = topic.to_owned();
    let request = OffsetForLeaderEpoch { topic, partition, current_leader_epoch, leader_epoch };
    let (found_epoch, end) = epoch_end(cluster, leader, &request).await?;
    if found_epoch < 0 || end < 0 {
        // No epoch as young as this was ever there: nothing of the log that the leader has is known to be the same.
        let (log_start, _) = ends(cluster, leader, current_leader_epoch, &request.topic, partition).await?;
        return Ok(Some(Position { offset: log_start.min(offset), leader_epoch: None }));
    }
    let same_to = Position { offset: end.min(offset), leader_epoch: Some(found_epoch) };
    Ok((found_epoch < leader_epoch || end < offset).then_some(same_to))
}

/// As [`diverged`], of whoever leads now, asked until there is an answer, or too long. Brokers that don't know the question can't
/// tell.
///
/// # Errors
/// [`SourceError::NoTopic`], or [`SourceError::Unreachable`] with the last trouble.
pub async fn diverged_now(
    cluster: &Cluster,
    topic: &str,
    partition: i32,
    seen: (i64, i32),
) -> Result<Option<Position>, SourceError> {
    let mut retry = Retry::new();
    loop {
        let answer = match leader(cluster, topic, partition).await {
            Ok((leader, leader_epoch)) => diverged(cluster, leader, leader_epoch, topic, partition, seen).await,
            Err(error) => Err(error),
        };
        match answer {
            Err(SourceError::Unreachable { .. }) if retry.again().await => {}
            Err(error) if !matches!(error, SourceError::Unreachable { .. } | SourceError::NoTopic { .. }) => {
                tracing::warn!(topic, partition, %error, "the brokers tell nothing of leader epochs: a truncated log may not be noticed");
                return Ok(None);
            }
            answer => return answer,
        }
    }
}

async fn epoch_end(cluster: &Cluster, leader: i32, request: &OffsetForLeaderEpoch) -> Result<(i32, i64), SourceError> {
    let (topic, partition) = (&request.topic, request.partition);
    let answer = cluster.ask(leader, request).await?;
    let found = answer.into_iter().find(|answer| answer.partition == partition);
    let found = found.ok_or_else(|| unreachable(topic, partition, "the answer leaves it out".into()))?;
    check(topic, partition, found.error)?;
    Ok((found.leader_epoch, found.end_offset))
}

/// A partition's leader and its epoch.
async fn leader(cluster: &Cluster, topic: &str, partition: i32) -> Result<(i32, i32), SourceError> {
    let no_topic = || SourceError::NoTopic { topic: topic.to_owned() };
    let metadata = cluster.topic(topic).await?.ok_or_else(no_topic)?;
    let found = metadata.partitions.iter().find(|found| found.partition == partition).ok_or_else(no_topic)?;
    if found.leader < 0 {
        return Err(unreachable(topic, partition, "it has no leader".into()));
    }
    Ok((found.leader, found.leader_epoch))
}

/// How often a question is asked again, while leaders move for example.
struct Retry {
    give_up: Instant,
    backoff: Backoff,
}

impl Retry {
    fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        Self { give_up: Instant::now() + ASK_LIMIT, backoff }
    }

    /// Waits; false when it took too long already.
    async fn again(&mut self) -> bool {
        let again = Instant::now() < self.give_up;
        if again {
            self.backoff.wait().await;
        }
        again
    }
}

/// First offset and end of a log, as its leader has them.
pub(super) async fn ends(
    cluster: &Cluster,
    leader: i32,
    leader_epoch: i32,
    topic: &str,
    partition: i32,
) -> Result<(i64, i64), SourceError> {
    let request =
        |timestamp| ListOffsets { topic: topic.to_owned(), partition, leader_epoch, timestamp, read_committed: false };
    Ok((ask(cluster, leader, &request(EARLIEST)).await?, ask(cluster, leader, &request(LATEST)).await?))
}

async fn ask(cluster: &Cluster, leader: i32, request: &ListOffsets) -> Result<i64, SourceError> {
    let answer = cluster.ask(leader, request).await?;
    let (topic, partition) = (&request.topic, request.partition);
    let answer = answer.into_iter().find(|answer| answer.partition == partition);
    let answer = answer.ok_or_else(|| unreachable(topic, partition, "the answer leaves it out".into()))?;
    check(topic, partition, answer.error)?;
    Ok(answer.offset)
}

fn check(topic: &str, partition: i32, code: i16) -> Result<(), SourceError> {
    match code {
        errors::NONE => Ok(()),
        code if errors::is_refusal(code) => {
            Err(SourceError::Refused { what: format!("topic {topic}"), message: errors::name(code) })
        }
        code => Err(unreachable(topic, partition, errors::name(code))),
    }
}

fn unreachable(topic: &str, partition: i32, message: String) -> SourceError {
    SourceError::Unreachable { what: format!("offsets of topic {topic} partition {partition}"), message }
}
