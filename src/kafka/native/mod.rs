//! A client that speaks Kafka's protocol itself, Kafka 2.1 to 4.x.
//!
//! ```text
//!  cluster ── metadata, offsets: one connection per broker
//!     |
//!  reader ── fetching ── one connection per broker of the topic, one fetch under way on each
//!     |         |
//!     |      partition: positions by batch headers
//!     v         v
//!  decoding ── decode ── batch, codecs, aborted, records ──> blocks
//!
//!  producer ── batch_writer: records into a topic, on the connections for questions
//! ```
//!
//! Owns: the door's questions ([`NativeKafka`]). Does not own: positions that are safe to keep.

mod aborted;
mod batch;
mod batch_writer;
mod cluster;
mod codecs;
mod connection;
mod decode;
mod decoding;
mod errors;
#[cfg(test)]
mod fake_broker;
mod fetching;
#[cfg(test)]
mod fuzz;
mod group_offsets;
mod messages;
mod oauth;
mod offsets;
mod output;
mod partition;
mod producer;
mod reader;
mod records;
mod retention;
mod sasl;
mod scram;
mod security;
mod session;
mod stream;
#[cfg(test)]
mod task_tests;
mod tls;
mod wire;

/// The steps of reading that need no connection, for benches (benches/limit, benches/instructions).
#[doc(hidden)]
pub mod offline {
    pub use super::batch_writer::encode;
    pub use super::codecs::Codecs;
    pub use super::decode::{Decoder, Fetched};
    pub use super::output::Pool;
}

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::KafkaConfig;
use crate::kafka::native::cluster::{Cluster, topic_id};
use crate::kafka::native::group_offsets::Coordinators;
use crate::kafka::partitioner::Partitioner;
use crate::pipeline::produce::{Outgoing, ProduceError, Written};
use crate::pipeline::source::{
    At, Isolation, Kafka, Position, ReadRequest, Reader, SourceError, SourceEvent, TopicInfo,
};

/// Connects to the cluster of the settings.
///
/// # Errors
/// [`SourceError::Unreachable`] when no bootstrap server answers, [`SourceError::Refused`] for credentials, certificates or
/// versions that don't fit.
pub async fn connect(config: &KafkaConfig) -> Result<Arc<dyn Kafka>, SourceError> {
    let cluster = Arc::new(Cluster::new(config)?);
    cluster.metadata(Some(Vec::new())).await?;
    Ok(Arc::new(NativeKafka { cluster, coordinators: Coordinators::default(), partitioner: Partitioner::default() }))
}

#[derive(Debug)]
struct NativeKafka {
    cluster: Arc<Cluster>,
    coordinators: Coordinators,
    partitioner: Partitioner,
}

#[async_trait]
impl Kafka for NativeKafka {
    async fn cluster_id(&self) -> Result<Option<String>, SourceError> {
        Ok(self.cluster.metadata(Some(Vec::new())).await?.cluster_id)
    }

    async fn topics(&self) -> Result<Vec<String>, SourceError> {
        let answer = self.cluster.metadata(None).await?;
        Ok(answer.topics.into_iter().filter(|topic| !topic.internal).filter_map(|topic| topic.name).collect())
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>, SourceError> {
        let Some(topic) = self.cluster.topic(name).await? else { return Ok(None) };
        let mut partitions: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition).collect();
        partitions.sort_unstable();
        Ok(Some(TopicInfo { name: name.to_owned(), id: topic_id(topic.id), partitions }))
    }

    async fn retention(&self, topic: &str) -> Result<Option<Duration>, SourceError> {
        retention::retention(&self.cluster, topic).await
    }

    async fn is_compacted(&self, topic: &str) -> Result<bool, SourceError> {
        retention::is_compacted(&self.cluster, topic).await
    }

    async fn offset(&self, topic: &str, partition: i32, at: At, isolation: Isolation) -> Result<i64, SourceError> {
        offsets::offset(&self.cluster, topic, partition, at, isolation).await
    }

    async fn diverged(&self, topic: &str, partition: i32, seen: Position) -> Result<Option<Position>, SourceError> {
        let Some(leader_epoch) = seen.leader_epoch else { return Ok(None) };
        offsets::diverged_now(&self.cluster, topic, partition, (seen.offset, leader_epoch)).await
    }

    async fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), SourceError> {
        self.coordinators.commit(&self.cluster, group, topic, offsets).await
    }

    async fn produce(&self, topic: &str, records: &[Outgoing]) -> Vec<Result<Written, ProduceError>> {
        producer::produce(&self.cluster, &self.partitioner, topic, records).await
    }

    fn read(&self, request: ReadRequest, events: mpsc::Sender<SourceEvent>) -> Reader {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let reading = reader::Reading::new(Arc::clone(&self.cluster), request, events, &stop);
        tokio::spawn(async move { stopped.run_until_cancelled(reading.run_to_the_end()).await });
        Reader::new(stop)
    }
}
