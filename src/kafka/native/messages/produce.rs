//! Produce: batches of several partitions of one topic.

use super::{Api, Request};
use crate::kafka::native::wire::{Reader, WireError, Writer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produce {
    /// How long the leader waits for the other in-sync replicas.
    pub timeout_ms: i32,
    pub topic: String,
    /// (partition, one encoded batch).
    pub batches: Vec<(i32, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    pub partition: i32,
    pub error: i16,
    /// -1 where `error` is not 0.
    pub base_offset: i64,
    /// The broker's words.
    pub message: Option<String>,
}

impl Request for Produce {
    type Answer = Vec<Produced>;
    const API: Api = Api { name: "Produce", key: 0, versions: (7, 11), flexible: 9 };

    fn write(&self, out: &mut Writer, _version: i16) {
        out.nullable_string(None);
        // acks: all in-sync replicas.
        out.i16(-1);
        out.i32(self.timeout_ms);
        out.array(&[self], |out, produce| {
            out.string(&produce.topic);
            out.array(&produce.batches, |out, (partition, batch)| {
                out.i32(*partition);
                out.bytes(batch);
                out.no_tags();
            });
            out.no_tags();
        });
        out.no_tags();
    }

    fn read(wire: &mut Reader, version: i16) -> Result<Vec<Produced>, WireError> {
        let partitions = wire.partitions_of_topics(30, |wire| {
            let (partition, error, base_offset) = (wire.i32()?, wire.i16()?, wire.i64()?);
            // The time of the broker's log, and where the log starts.
            wire.i64()?;
            wire.i64()?;
            let mut message = None;
            if version >= 8 {
                let errors = wire.array(5, |wire| {
                    wire.i32()?;
                    let message = wire.nullable_string()?;
                    wire.skip_tags()?;
                    Ok(message)
                })?;
                message = wire.nullable_string()?.or_else(|| errors.into_iter().flatten().next());
            }
            Ok(Produced { partition, error, base_offset, message })
        })?;
        wire.i32()?;
        wire.skip_tags()?;
        Ok(partitions)
    }
}
