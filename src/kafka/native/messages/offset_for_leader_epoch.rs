//! OffsetForLeaderEpoch (KIP-320): where a leader's epoch ended, to notice that a log was truncated.

use super::{Api, Request};
use crate::kafka::native::wire::{Reader, WireError, Writer};

/// Asks for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetForLeaderEpoch {
    pub topic: String,
    pub partition: i32,
    pub current_leader_epoch: i32,
    /// The epoch to find the end of.
    pub leader_epoch: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetForLeaderEpochAnswer {
    pub error: i16,
    pub partition: i32,
    /// The greatest epoch the leader knows that is not above the one asked for; -1: none.
    pub leader_epoch: i32,
    /// Where that epoch ends; -1: unknown.
    pub end_offset: i64,
}

impl Request for OffsetForLeaderEpoch {
    type Answer = Vec<OffsetForLeaderEpochAnswer>;
    const API: Api = Api { name: "OffsetForLeaderEpoch", key: 23, versions: (2, 4), flexible: 4 };

    fn write(&self, out: &mut Writer, version: i16) {
        if version >= 3 {
            // A consumer.
            out.i32(-1);
        }
        out.array(&[self], |out, asked| {
            out.string(&asked.topic);
            out.array(&[asked], |out, asked| {
                out.i32(asked.partition);
                out.i32(asked.current_leader_epoch);
                out.i32(asked.leader_epoch);
                out.no_tags();
            });
            out.no_tags();
        });
        out.no_tags();
    }

    fn read(wire: &mut Reader, _version: i16) -> Result<Vec<OffsetForLeaderEpochAnswer>, WireError> {
        wire.i32()?;
        let partitions = wire.partitions_of_topics(18, |wire| {
            let (error, partition, leader_epoch, end_offset) = (wire.i16()?, wire.i32()?, wire.i32()?, wire.i64()?);
            Ok(OffsetForLeaderEpochAnswer { error, partition, leader_epoch, end_offset })
        })?;
        wire.skip_tags()?;
        Ok(partitions)
    }
}
