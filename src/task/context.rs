//! What a task is given to work with.
//!
//! Owns: the doors, the shared limits, which partitions are the task's, where a mapping before its own ended.
//! Does not own: what is done with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::status::TaskStatus;
use crate::api::metrics::TaskMetrics;
use crate::archive::index::Skipped;
use crate::clock::Environment;
use crate::config::ConnectorConfig;
use crate::ledger::Identity;
use crate::log::LogDoor;
use crate::pipeline::budget::Budget;
use crate::pipeline::compress::CompressPool;
use crate::pipeline::source::{Kafka, TopicInfo};
use crate::pipeline::spool::Spool;
use crate::store::Store;

/// What a task works with.
#[derive(Debug)]
pub struct TaskContext {
    pub connector: Arc<ConnectorConfig>,
    pub topic: String,
    /// Which share of the topic's partitions is this task's.
    pub task: u32,
    /// How many shares there are, as the topic's mapping says.
    pub tasks_max: u32,
    /// Where the mapping before this one ended.
    pub origin: Option<Arc<Origin>>,
    pub worker_id: String,
    pub kafka: Arc<dyn Kafka>,
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn LogDoor>,
    pub pool: CompressPool,
    pub spool: Arc<Spool>,
    pub budget: Budget,
    /// Uploads of this connector at a time.
    pub uploads: Arc<Semaphore>,
    pub environment: Environment,
    pub status: Arc<TaskStatus>,
    pub metrics: Arc<TaskMetrics>,
    pub shutdown_timeout: Duration,
    /// Kafka's group that lows are copied to, for lag tools.
    pub group: Option<String>,
    /// Partitions that the topic has, as the worker sees it; new ones appear here.
    pub topic_info: watch::Receiver<TopicInfo>,
    /// Log entries between snapshots: [`super::core::SNAPSHOT_EVERY`].
    pub snapshot_every: u64,
}

/// The end of a topic's mapping, where the next one begins.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    pub identity: Identity,
    /// Of all partitions of the topic that were read.
    pub lows: BTreeMap<i32, i64>,
    /// What was left out below them and no file tells of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

impl TaskContext {
    /// p % tasks_max == task.
    pub fn is_of_share(&self, partition: i32) -> bool {
        i64::from(partition) % i64::from(self.tasks_max) == i64::from(self.task)
    }

    /// The partitions of this task: those of its share, within the connector's `partitions`.
    pub fn own_partitions(&self, topic: &TopicInfo) -> Vec<i32> {
        let listed = |p: &i32| self.connector.partitions.as_ref().is_none_or(|list| list.contains(p));
        topic.partitions.iter().copied().filter(|p| listed(p) && self.is_of_share(*p)).collect()
    }
}
