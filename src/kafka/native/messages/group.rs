//! FindCoordinator and OffsetCommit: the offsets of a group without members.

use super::{Api, Request};
use crate::kafka::native::wire::{Reader, WireError, Writer};

/// Asks which broker keeps the offsets of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindCoordinator {
    pub group: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindCoordinatorAnswer {
    pub error: i16,
    pub message: Option<String>,
    pub node: i32,
    pub host: String,
    pub port: i32,
}

impl Request for FindCoordinator {
    type Answer = FindCoordinatorAnswer;
    const API: Api = Api { name: "FindCoordinator", key: 10, versions: (2, 3), flexible: 3 };

    fn write(&self, out: &mut Writer, _version: i16) {
        out.string(&self.group);
        // A group, not a transaction.
        out.i8(0);
        out.no_tags();
    }

    fn read(wire: &mut Reader, _version: i16) -> Result<FindCoordinatorAnswer, WireError> {
        wire.i32()?;
        let answer = FindCoordinatorAnswer {
            error: wire.i16()?,
            message: wire.nullable_string()?,
            node: wire.i32()?,
            host: wire.string()?,
            port: wire.i32()?,
        };
        wire.skip_tags()?;
        Ok(answer)
    }
}

/// Commits offsets of one topic for a group that has no members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    pub group: String,
    pub topic: String,
    /// (partition, next offset).
    pub offsets: Vec<(i32, i64)>,
}

impl Request for OffsetCommit {
    /// (partition, error).
    type Answer = Vec<(i32, i16)>;
    const API: Api = Api { name: "OffsetCommit", key: 8, versions: (6, 8), flexible: 8 };

    fn write(&self, out: &mut Writer, version: i16) {
        out.string(&self.group);
        // Generation -1 and an empty member id: a group without members.
        out.i32(-1);
        out.string("");
        if version >= 7 {
            out.nullable_string(None);
        }
        out.array(&[self], |out, commit| {
            out.string(&commit.topic);
            out.array(&commit.offsets, |out, &(partition, offset)| {
                out.i32(partition);
                out.i64(offset);
                out.i32(-1);
                out.nullable_string(None);
                out.no_tags();
            });
            out.no_tags();
        });
        out.no_tags();
    }

    fn read(wire: &mut Reader, _version: i16) -> Result<Vec<(i32, i16)>, WireError> {
        wire.i32()?;
        let partitions = wire.partitions_of_topics(6, |wire| Ok((wire.i32()?, wire.i16()?)))?;
        wire.skip_tags()?;
        Ok(partitions)
    }
}
