//! A task's log: numbered entries, each created once, by one writer.
//!
//! Owns: the door to where entries are kept ([`LogDoor`]), taking over and appending ([`journal`]).
//! Does not own: what entries mean ([`crate::ledger`]).
//!
//! Invariant: nothing but create-only decides who owns a task: no lease, no clock, no memory of an earlier answer. An
//! append whose outcome is unknown is repeated byte for byte and then asked about.

pub mod contract;
pub mod journal;
pub mod store_log;

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::{Created, StoreError};

/// Where a task's entries are kept.
#[async_trait]
pub trait LogDoor: Send + Sync + std::fmt::Debug {
    /// Creates entry `number` only if there is none. An error leaves the outcome unknown.
    async fn create(&self, number: u64, entry: Bytes) -> Result<Created, StoreError>;

    /// `None`: no such entry.
    async fn read(&self, number: u64) -> Result<Option<Bytes>, StoreError>;

    /// Numbers of all entries above `after`, ascending.
    async fn numbers(&self, after: u64) -> Result<Vec<u64>, StoreError>;

    /// Deleting what is not there succeeds.
    async fn delete(&self, number: u64) -> Result<(), StoreError>;

    /// Where the log is, for messages; never holds a secret.
    fn place(&self) -> String;
}
