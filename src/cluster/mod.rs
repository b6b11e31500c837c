//! Several workers share the tasks of their connectors.
//!
//! ```text
//!  Redis  <- sync, acquire, release -  group (a loop of 1 to 3 s)  -> permits -> one supervisor per task
//!                                          |
//!                              standing (pure): what this worker holds, wants, gives up
//!                                          |
//!                              sharing (pure): who should have which task
//! ```
//!
//! Owns: the door to what coordinates ([`Coordinator`]), leases, who should run which task.
//! Does not own: who may write. That is the task's log alone ([`crate::log`]): a lease only says who tries. Whatever is lost or
//! wrong here costs a takeover and never a record.
//!
//! A lease is a line in Redis that says which process runs a task, and until when by Redis' own clock. Its holder renews it; who
//! does not renew loses it, and others take the task over. While Redis is away nobody takes or gives anything: owners go on.

pub mod contract;
pub mod group;
pub mod memory;
pub mod redis;
pub mod sharing;
pub mod standing;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// How long a lease lasts that nobody renews. The same in all workers: whoever claims more is cut down to it.
pub const LEASE: Duration = Duration::from_secs(10);

/// A share of a topic, as all workers of a group call it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskName {
    pub connector: String,
    pub topic: String,
    pub task: u32,
}

impl TaskName {
    pub fn new(connector: &str, topic: &str, task: u32) -> Self {
        Self { connector: connector.to_owned(), topic: topic.to_owned(), task }
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, task) = text.rsplit_once('/')?;
        let (connector, topic) = rest.split_once('/')?;
        Some(Self::new(connector, topic, task.parse().ok()?))
    }

    /// `connector/topic`.
    pub fn topic_name(&self) -> String {
        format!("{}/{}", self.connector, self.topic)
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.connector, self.topic, self.task)
    }
}

/// One process: a random token, made at its start. Proof of a lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub String);

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Just came, or came back to Redis: it lets owners assert what they hold before it takes anything.
    Joining,
    Ready,
    /// It stops: gives back one task after the other.
    Leaving,
    /// `--until-caught-up`: takes what is free and no share.
    Job,
}

/// What a worker says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// `worker.id`.
    pub worker: String,
    pub max_tasks: Option<u32>,
    pub phase: Phase,
    /// `connector/topic` and how many tasks it has, of those that this worker can run.
    pub offers: BTreeMap<String, u32>,
}

impl Card {
    pub fn can_run(&self, task: &TaskName) -> bool {
        self.offers.get(&task.topic_name()).is_some_and(|&tasks| task.task < tasks)
    }
}

/// What there is, at one moment of Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Whether the asking worker was there before it asked: else it is new, was away too long, or everything was flushed.
    pub known: bool,
    pub members: BTreeMap<Instance, Card>,
    pub leases: BTreeMap<TaskName, Instance>,
}

/// What coordinates can't be asked. The outcome of the request is unknown.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct CoordinationAway(pub String);

/// The door to what several workers share. Every implementation passes [`contract`].
#[async_trait]
pub trait Coordinator: Send + Sync + fmt::Debug {
    /// Renews this worker and what it holds, then tells what there is. A lease in `held` that is free, because it ran out or was
    /// flushed, becomes the asker's again; one that is another's stays so.
    async fn sync(&self, me: &Instance, card: &Card, held: &[TaskName]) -> Result<View, CoordinationAway>;

    /// Takes those leases that are free; the answer says which are the asker's now.
    async fn acquire(&self, me: &Instance, tasks: &[TaskName]) -> Result<Vec<TaskName>, CoordinationAway>;

    /// Frees those of the leases that are the asker's.
    async fn release(&self, me: &Instance, tasks: &[TaskName]) -> Result<(), CoordinationAway>;

    /// Frees all leases of the asker and forgets it.
    async fn leave(&self, me: &Instance) -> Result<(), CoordinationAway>;

    /// Where it is, for messages; never holds a secret.
    fn place(&self) -> String;
}
