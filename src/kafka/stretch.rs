//! Reading a stretch of one partition, for commands that ask what Kafka has there.
//!
//! Owns: the loop around a reader, giving up when it is silent. Does not own: what becomes of the records.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::pipeline::budget::Budget;
use crate::pipeline::source::{Isolation, Kafka, ReadRequest, SourceError, SourceEvent, TopicId};
use crate::record::Record;

/// Fetched at a time.
const BUDGET_BYTES: u64 = 32 << 20;
/// Without a word of the reader for so long it is taken to be unreachable.
const SILENCE: Duration = Duration::from_secs(60);

/// Offsets of a partition.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    pub topic: &'a str,
    pub topic_id: Option<&'a TopicId>,
    pub isolation: Isolation,
    pub partition: i32,
    pub first: i64,
    /// The one after the last.
    pub end: i64,
}

/// Shows each record that Kafka has there, in order.
///
/// # Errors
/// Kafka can't be read.
pub async fn read(
    kafka: &dyn Kafka,
    stretch: Stretch<'_>,
    mut each: impl FnMut(&Record<'_>),
) -> Result<(), SourceError> {
    let Stretch { topic, topic_id, isolation, partition, first, end } = stretch;
    let mut position = first;
    if position >= end {
        return Ok(());
    }
    let (events, mut answers) = mpsc::channel(4);
    let request = ReadRequest {
        topic: topic.to_owned(),
        topic_id: topic_id.cloned(),
        isolation,
        starts: vec![(partition, first)],
        seen: Vec::new(),
        budget: Budget::new(BUDGET_BYTES),
    };
    let _reader = kafka.read(request, events);
    while position < end {
        match tokio::time::timeout(SILENCE, answers.recv()).await.unwrap_or_default() {
            Some(SourceEvent::Block(block, _permit)) => {
                let within = block.records().filter(|record| (position..end).contains(&record.offset));
                within.for_each(|record| each(&record));
                position = position.max(block.next_offset);
            }
            Some(SourceEvent::Waiting { .. }) => {}
            Some(SourceEvent::Failed { error, .. }) => return Err(error),
            None => {
                return Err(SourceError::Unreachable {
                    what: format!("topic {topic} partition {partition}"),
                    message: format!("no answer from offset {position} on"),
                });
            }
        }
    }
    Ok(())
}
