//! The rooms behind the door [`crate::pipeline::source`]: clients that read a Kafka cluster.
//!
//! Owns: which client reads ([`connect`]). Does not own: what becomes of the records.
//!
//! - [`native`]: the protocol itself; every kind of topic.
//! - [`memory`]: a cluster in memory, for tests of the pipeline.
//!
//! One contract suite holds them all to the same behaviour.

pub mod backoff;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod contract_services;
pub mod memory;
pub mod native;
pub mod partitioner;
pub mod stretch;

use std::sync::Arc;

use crate::config::KafkaConfig;
use crate::pipeline::source::{Kafka, SourceError};

/// Connects to the cluster of the worker's settings.
///
/// # Errors
/// [`SourceError::Unreachable`] when no bootstrap server answers, [`SourceError::Refused`] for settings that the cluster or
/// this client doesn't accept.
pub async fn connect(config: &KafkaConfig) -> Result<Arc<dyn Kafka>, SourceError> {
    native::connect(config).await
}
