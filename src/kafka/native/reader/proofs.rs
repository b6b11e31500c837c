//! Whether a new leader's log is still the one that was read (KIP-320).
//!
//! Owns: asking each leader before the first fetch from it, and what its answer means. Does not own: the question itself
//! ([`crate::kafka::native::offsets`]).
//!
//! A fetch from version 12 on carries the epoch of the last batch too, but not below a position that a former reader was
//! past already, and not on older brokers.

use std::sync::Arc;

use super::Reading;
use crate::kafka::native::offsets;
use crate::kafka::native::partition::Status;
use crate::pipeline::source::{Position, SourceError};

/// What a leader said of a partition's log.
pub(super) struct Proof {
    partition: i32,
    /// Leader and epoch that were asked.
    leader: (i32, i32),
    /// The offset up to which the log was asked of.
    offset: i64,
    /// Where the log leaves the one that was read.
    diverged: Result<Option<Position>, SourceError>,
}

impl Reading {
    pub(super) fn start_proofs(&mut self) {
        for partition in self.partitions.values_mut().filter(|partition| partition.status == Status::Unproven) {
            let Some(seen) = partition.known() else {
                partition.status = Status::Reading;
                continue;
            };
            partition.status = Status::Proving;
            let (id, leader) = (partition.partition, (partition.leader, partition.leader_epoch));
            let (cluster, topic) = (Arc::clone(&self.cluster), self.request.topic.clone());
            self.proofs.push(Box::pin(async move {
                let diverged = offsets::diverged(&cluster, leader.0, leader.1, &topic, id, seen).await;
                Proof { partition: id, leader, offset: seen.0, diverged }
            }));
        }
    }

    pub(super) fn on_proof(&mut self, proof: Proof) {
        let topic = self.request.topic.clone();
        let id = proof.partition;
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if partition.status != Status::Proving {
            return;
        }
        match proof.diverged {
            // Another leader in the meantime: it is asked as well.
            _ if proof.leader != (partition.leader, partition.leader_epoch) => partition.status = Status::Unproven,
            Ok(Some(Position { offset: end_offset, .. })) => {
                self.fail(id, SourceError::Truncated { topic, partition: id, offset: proof.offset, end_offset });
            }
            Ok(None) => {
                partition.proven = Some(proof.leader);
                partition.status = Status::Reading;
            }
            Err(error @ (SourceError::Unreachable { .. } | SourceError::NoTopic { .. })) => {
                partition.status = Status::Homeless;
                self.want_metadata();
                self.tell_waiting(&error.to_string(), |partition| partition.partition == id);
            }
            Err(error) => {
                if !self.told_no_epochs {
                    self.told_no_epochs = true;
                    tracing::warn!(topic, %error, "the brokers tell nothing of leader epochs: a truncated log may not be noticed");
                }
                partition.proven = Some(proof.leader);
                partition.status = Status::Reading;
            }
        }
    }
}
