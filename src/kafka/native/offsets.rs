//! Offsets of a log's start, of its end, and of a time.
//!
//! Owns: asking the leader, and asking again while leaders move. Does not own: what an offset is used for.

use std::time::Duration;

use tokio::time::Instant;

use crate::kafka::backoff::Backoff;
use crate::kafka::native::cluster::Cluster;
use crate::kafka::native::errors;
use crate::kafka::native::messages::list_offsets::{EARLIEST, LATEST, ListOffsets};
use crate::pipeline::source::{At, Isolation, SourceError};

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
    let give_up = Instant::now() + ASK_LIMIT;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        let no_topic = || SourceError::NoTopic { topic: topic.to_owned() };
        let metadata = cluster.topic(topic).await?.ok_or_else(no_topic)?;
        let found = metadata.partitions.iter().find(|found| found.partition == partition).ok_or_else(no_topic)?;
        let answer = if found.leader < 0 {
            Err(unreachable(topic, partition, "it has no leader".into()))
        } else {
            let request = ListOffsets {
                topic: topic.to_owned(),
                partition,
                leader_epoch: found.leader_epoch,
                timestamp,
                read_committed: isolation == Isolation::ReadCommitted,
            };
            ask(cluster, found.leader, &request).await
        };
        match answer {
            Err(SourceError::Unreachable { .. }) if Instant::now() < give_up => backoff.wait().await,
            answer => return answer,
        }
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
    match answer.error {
        errors::NONE => Ok(answer.offset),
        code if errors::is_refusal(code) => {
            Err(SourceError::Refused { what: format!("topic {topic}"), message: errors::name(code) })
        }
        code => Err(unreachable(topic, partition, errors::name(code))),
    }
}

fn unreachable(topic: &str, partition: i32, message: String) -> SourceError {
    SourceError::Unreachable { what: format!("offsets of topic {topic} partition {partition}"), message }
}
