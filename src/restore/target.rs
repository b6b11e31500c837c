//! The topic that is written to.
//!
//! Owns: whether it may be written to, what this restore wrote at its end and could not write down.
//! Does not own: writing ([`super::write`]).

use std::collections::BTreeMap;
use std::time::Duration;

use super::RestoreError;
use super::position::{PartitionsBy, Position};
use super::records::origin_of;
use crate::kafka::stretch::{self, Stretch};
use crate::pipeline::source::{At, Isolation, Kafka, TopicInfo};

const POLL: Duration = Duration::from_millis(250);

/// Asks for the topic.
///
/// # Errors
/// There is none, or Kafka does not answer.
pub async fn find(kafka: &dyn Kafka, topic: &str) -> Result<TopicInfo, RestoreError> {
    kafka.topic(topic).await?.ok_or_else(|| {
        RestoreError::Usage(format!(
            "topic {topic} does not exist: make it first (kafka-topics.sh --create --topic {topic} --partitions ..). It is not made \
             here, since its partitions and retention are yours to choose"
        ))
    })
}

/// Whether each record can keep its partition.
///
/// # Errors
/// The topic has too few partitions.
pub fn check_partitions(target: &TopicInfo, by: PartitionsBy, needed: i32) -> Result<(), RestoreError> {
    let found = i32::try_from(target.partitions.len()).unwrap_or(i32::MAX);
    if by == PartitionsBy::Key || needed <= found {
        return Ok(());
    }
    Err(RestoreError::Usage(format!(
        "topic {} has {found} partitions, the records come from partitions up to {}: give it more, or let their keys choose \
         with --partitions key",
        target.name,
        needed - 1
    )))
}

/// The end of each partition.
///
/// # Errors
/// Kafka does not answer.
pub async fn ends(kafka: &dyn Kafka, target: &TopicInfo) -> Result<BTreeMap<i32, i64>, RestoreError> {
    let mut ends = BTreeMap::new();
    for &partition in &target.partitions {
        let end = kafka.offset(&target.name, partition, At::Latest, Isolation::ReadUncommitted).await?;
        ends.insert(partition, end);
    }
    Ok(ends)
}

/// The same, once they stand still for `settle`: what a killed process sent may still be on its way through the brokers.
///
/// # Errors
/// Kafka does not answer.
pub async fn settled_ends(
    kafka: &dyn Kafka,
    target: &TopicInfo,
    position: &Position,
    settle: Duration,
) -> Result<BTreeMap<i32, i64>, RestoreError> {
    let mut known = ends(kafka, target).await?;
    let mut since = tokio::time::Instant::now();
    // A topic that others write to never stands still; the wait is what counts then.
    let give_up = since + settle * 4;
    while since.elapsed() < settle && tokio::time::Instant::now() < give_up {
        tokio::time::sleep(POLL.min(settle)).await;
        let now = ends(kafka, target).await?;
        if now != known {
            (known, since) = (now, tokio::time::Instant::now());
        }
    }
    tracing::debug!(topic = target.name, since = ?position.ends, until = ?known, "reading the end of the target");
    Ok(known)
}

/// Takes into the position what this restore wrote after it was saved.
///
/// # Errors
/// Kafka can't be read.
pub async fn read_tail(
    kafka: &dyn Kafka,
    target: &TopicInfo,
    position: &mut Position,
    ends: BTreeMap<i32, i64>,
) -> Result<(), RestoreError> {
    for (&partition, &end) in &ends {
        let start = kafka.offset(&target.name, partition, At::Earliest, Isolation::ReadUncommitted).await?;
        // A partition that was added since has nothing from before.
        let first = position.ends.get(&partition).copied().unwrap_or(start).max(start);
        let stretch = Stretch {
            topic: &target.name,
            topic_id: target.id.as_ref(),
            isolation: Isolation::ReadUncommitted,
            partition,
            first,
            end,
        };
        let restore = position.restore.clone();
        stretch::read(kafka, stretch, |record| {
            if let Some((stream, offset)) = origin_of(record, &restore) {
                position.wrote(&stream, offset);
            }
        })
        .await?;
    }
    position.ends = ends;
    Ok(())
}
