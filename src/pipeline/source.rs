//! The door to Kafka, seen from the pipeline.
//!
//! Owns: what a client of Kafka must do ([`Kafka`], [`Reader`]), what a reader sends ([`SourceEvent`]), what its failures mean.
//! Does not own: the wire protocol (the rooms in `kafka`), positions that are safe to keep (the task's).

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::pipeline::budget::{Budget, Permit};
use crate::pipeline::produce::{Outgoing, ProduceError, Written};
use crate::record::Block;

/// What Kafka says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    pub name: String,
    /// `None` where the client or the broker knows no topic ids.
    pub id: Option<TopicId>,
    /// In ascending order.
    pub partitions: Vec<i32>,
}

/// Kafka's id of one incarnation of a topic, as 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct TopicId(pub String);

/// A place in a partition to ask the offset of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// First offset the broker has.
    Earliest,
    /// End of what can be read: high watermark, or last stable offset with read_committed.
    Latest,
    /// First offset whose timestamp is this or later; the end where there is none.
    TimestampMs(i64),
}

/// Which records of transactions are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

/// A place in a partition: everything below `offset` was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    pub offset: i64,
    /// Of the last batch below `offset`; `None` where the brokers tell none. With an offset of another batch it would show
    /// truncations that never were.
    pub leader_epoch: Option<i32>,
}

impl Position {
    /// The position after a block of the same partition was read from here.
    pub fn after(self, block: &Block) -> Self {
        // A block without a batch says nothing of epochs.
        if block.next_offset <= self.offset {
            return self;
        }
        Self { offset: block.next_offset, leader_epoch: block.leader_epoch }
    }
}

/// What one reader reads.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    pub topic: String,
    pub topic_id: Option<TopicId>,
    pub isolation: Isolation,
    /// (partition, first offset wanted).
    pub starts: Vec<(i32, i64)>,
    /// (partition, highest position ever read there), where a former reader left one; it may lie above the start. The log
    /// has to be the same below it still: where the leader's epochs show another one, the partition fails as
    /// [`SourceError::Truncated`] before anything of it is read.
    pub seen: Vec<(i32, Position)>,
    /// Fetched bytes are counted here before they are asked for.
    pub budget: Budget,
}

/// A Kafka cluster to read from.
#[async_trait]
pub trait Kafka: Send + Sync + std::fmt::Debug {
    /// `None` where the client can't tell.
    async fn cluster_id(&self) -> Result<Option<String>, SourceError>;

    /// Names of all topics, internal ones left out. Never creates one.
    async fn topics(&self) -> Result<Vec<String>, SourceError>;

    /// `None`: no such topic. Never creates one.
    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>, SourceError>;

    /// How long the topic keeps its records; `None`: without end, or the client can't tell.
    async fn retention(&self, _topic: &str) -> Result<Option<Duration>, SourceError> {
        Ok(None)
    }

    /// Whether older records of a key may vanish from the topic; `false` also where the client can't tell.
    async fn is_compacted(&self, _topic: &str) -> Result<bool, SourceError> {
        Ok(false)
    }

    async fn offset(&self, topic: &str, partition: i32, at: At, isolation: Isolation) -> Result<i64, SourceError>;

    /// Where the log leaves the one that a position was read from: from there on its records are others, or gone. `None`:
    /// nowhere below that position, or brokers or client can't tell. A reader asks by itself; this is for what is not read. The
    /// answer is a position of the log as it is now, without a leader epoch where nothing below is known to be the same.
    async fn diverged(&self, _topic: &str, _partition: i32, _seen: Position) -> Result<Option<Position>, SourceError> {
        Ok(None)
    }

    /// Copies offsets (partition, next offset) to a group without members, for lag tools; nothing decides by them. Kafka
    /// forgets them per partition after `offsets.retention.minutes` (7 days), so all are to be committed again at least
    /// each day. Clients that can't do it do nothing.
    async fn commit(&self, _group: &str, _topic: &str, _offsets: &[(i32, i64)]) -> Result<(), SourceError> {
        Ok(())
    }

    /// Writes records into a topic and waits until all in-sync replicas have each (acks=all), in order within a partition; one
    /// answer for each record, in their order. Tried again inside for about two minutes; what was tried again may be there
    /// twice. Never makes a topic. Not more is under way than what was handed in.
    async fn produce(&self, topic: &str, records: &[Outgoing]) -> Vec<Result<Written, ProduceError>> {
        let message = "this client does not write".to_owned();
        vec![Err(ProduceError::Refused { topic: topic.to_owned(), message }); records.len()]
    }

    /// Starts to read in the background; blocks arrive in offset order per partition. Transient trouble is retried inside
    /// and reported as [`SourceEvent::Waiting`]. Dropping the reader or closing the receiver stops it.
    fn read(&self, request: ReadRequest, events: mpsc::Sender<SourceEvent>) -> Reader;
}

/// A running reader; dropping it stops the reading.
#[derive(Debug)]
pub struct Reader {
    _stop: tokio_util::sync::DropGuard,
}

impl Reader {
    pub fn new(stop: tokio_util::sync::CancellationToken) -> Self {
        Self { _stop: stop.drop_guard() }
    }
}

/// What a reader sends.
#[derive(Debug)]
pub enum SourceEvent {
    /// Records in offset order; the permit counts their memory.
    Block(Block, Permit),
    /// Reading of a partition is retried; for the status, not for decisions.
    Waiting { partition: i32, offset: i64, reason: String },
    /// Reading of a partition can't go on; the reader does nothing more for it.
    Failed { partition: i32, offset: i64, error: SourceError },
}

/// A failure of Kafka or of what it holds, by what the caller does about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// Brokers can't be reached or don't answer in time: try again.
    #[error("kafka {what}: {message}")]
    Unreachable { what: String, message: String },
    /// The topic does not exist.
    #[error("topic {topic} does not exist")]
    NoTopic { topic: String },
    /// The log begins above the wanted offset: records are gone.
    #[error(
        "topic {topic} partition {partition}: position {offset} is out of range, the log starts at {log_start} and ends at {log_end}"
    )]
    OutOfRange { topic: String, partition: i32, offset: i64, log_start: i64, log_end: i64 },
    /// The topic is not the one that the position belongs to.
    #[error("topic {topic} was recreated: its id is {found}, the position belongs to {expected}")]
    Recreated { topic: String, expected: String, found: String },
    /// The log was truncated below what was read: from `end_offset` on it is another one than the log that `offset` belongs
    /// to.
    #[error("topic {topic} partition {partition}: the log was truncated to {end_offset}, below position {offset}")]
    Truncated { topic: String, partition: i32, offset: i64, end_offset: i64 },
    /// A batch that can't be decoded, or that this client can't read.
    #[error("topic {topic} partition {partition} at offset {offset}: {message}")]
    Unreadable { topic: String, partition: i32, offset: i64, message: String },
    /// Authentication, authorization or a setting is wrong.
    #[error("kafka {what}: {message}")]
    Refused { what: String, message: String },
}
