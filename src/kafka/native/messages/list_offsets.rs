//! ListOffsets: offset of the start, of the end, or of a time. Asked of the leader.

use super::{Api, Request};
use crate::kafka::native::wire::{Reader, WireError, Writer};

/// First offset of the log.
pub const EARLIEST: i64 = -2;
/// High watermark, or last stable offset with read_committed.
pub const LATEST: i64 = -1;

/// Asks for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOffsets {
    pub topic: String,
    pub partition: i32,
    pub leader_epoch: i32,
    /// Milliseconds, or [`EARLIEST`], or [`LATEST`].
    pub timestamp: i64,
    pub read_committed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListOffsetsAnswer {
    pub partition: i32,
    pub error: i16,
    /// -1: no record is that young.
    pub offset: i64,
}

impl Request for ListOffsets {
    type Answer = Vec<ListOffsetsAnswer>;
    const API: Api = Api { name: "ListOffsets", key: 2, versions: (4, 8), flexible: 6 };

    fn write(&self, out: &mut Writer, _version: i16) {
        out.i32(-1);
        out.i8(i8::from(self.read_committed));
        out.array(&[self], |out, asked| {
            out.string(&asked.topic);
            out.array(&[asked], |out, asked| {
                out.i32(asked.partition);
                out.i32(asked.leader_epoch);
                out.i64(asked.timestamp);
                out.no_tags();
            });
            out.no_tags();
        });
        out.no_tags();
    }

    fn read(wire: &mut Reader, _version: i16) -> Result<Vec<ListOffsetsAnswer>, WireError> {
        wire.i32()?;
        let partitions = wire.partitions_of_topics(26, |wire| {
            let (partition, error, _timestamp, offset, _epoch) =
                (wire.i32()?, wire.i16()?, wire.i64()?, wire.i64()?, wire.i32()?);
            Ok(ListOffsetsAnswer { partition, error, offset })
        })?;
        wire.skip_tags()?;
        Ok(partitions)
    }
}
