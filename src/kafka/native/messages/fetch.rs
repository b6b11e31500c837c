//! Fetch: records of many partitions of one topic in one answer.

use bytes::Bytes;

use super::{Api, Request};
use crate::kafka::native::wire::{Reader, WireError, Writer};

/// First version that names a topic by its id instead of its name.
pub const BY_TOPIC_ID: i16 = 13;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub max_wait_ms: i32,
    /// The whole answer; the first batch comes also when it is larger.
    pub max_bytes: i32,
    pub read_committed: bool,
    /// 0 with `session_epoch` -1: no session (KIP-227).
    pub session_id: i32,
    pub session_epoch: i32,
    pub topic: String,
    pub topic_id: [u8; 16],
    pub partitions: Vec<FetchPartition>,
    /// Partitions to take out of the session.
    pub forgotten: Vec<i32>,
    /// Empty: fetch from the leader.
    pub rack: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    pub partition: i32,
    /// What the client knows of the leader: a broker that knows better answers with an error instead of old data.
    pub leader_epoch: i32,
    pub offset: i64,
    /// Epoch of the last batch read, -1 unknown: the broker tells when its log went another way (KIP-595).
    pub last_fetched_epoch: i32,
    pub max_bytes: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchAnswer {
    pub throttle_ms: i32,
    pub error: i16,
    pub session_id: i32,
    pub topics: Vec<FetchedTopic>,
    pub nodes: Vec<NodeEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedTopic {
    /// Empty from version 13 on.
    pub topic: String,
    /// All zero before version 13.
    pub topic_id: [u8; 16],
    pub partitions: Vec<FetchedPartition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPartition {
    pub partition: i32,
    pub error: i16,
    /// This and the next two are -1 where `error` is not 0.
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// (producer id, first offset).
    pub aborted: Vec<(i64, i64)>,
    /// -1: none.
    pub preferred_read_replica: i32,
    /// (epoch, end offset) where the broker's log differs from what was read.
    pub diverging: Option<(i32, i64)>,
    /// (leader, epoch) where the broker knows better.
    pub current_leader: Option<(i32, i32)>,
    /// Record batches; the last one may be cut off.
    pub records: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    pub id: i32,
    pub host: String,
    pub port: i32,
}

impl Request for Fetch {
    type Answer = FetchAnswer;
    const API: Api = Api { name: "Fetch", key: 1, versions: (10, 17), flexible: 12 };

    fn write(&self, out: &mut Writer, version: i16) {
        if version <= 14 {
            out.i32(-1);
        }
        out.i32(self.max_wait_ms);
        out.i32(1);
        out.i32(self.max_bytes);
        out.i8(i8::from(self.read_committed));
        out.i32(self.session_id);
        out.i32(self.session_epoch);
        // A session's request without changes names no topic.
        let topics: &[&Self] = if self.partitions.is_empty() { &[] } else { &[self] };
        out.array(topics, |out, topic| {
            topic.write_topic(out, version);
            out.array(&topic.partitions, |out, each| {
                out.i32(each.partition);
                out.i32(each.leader_epoch);
                out.i64(each.offset);
                if version >= 12 {
                    out.i32(each.last_fetched_epoch);
                }
                // log_start_offset: followers only.
                out.i64(-1);
                out.i32(each.max_bytes);
                out.no_tags();
            });
            out.no_tags();
        });
        let forgotten: &[&Self] = if self.forgotten.is_empty() { &[] } else { &[self] };
        out.array(forgotten, |out, topic| {
            topic.write_topic(out, version);
            out.array(&topic.forgotten, |out, &partition| out.i32(partition));
            out.no_tags();
        });
        if version >= 11 {
            out.string(&self.rack);
        }
        out.no_tags();
    }

    fn read(wire: &mut Reader, version: i16) -> Result<FetchAnswer, WireError> {
        let mut answer = FetchAnswer {
            throttle_ms: wire.i32()?,
            error: wire.i16()?,
            session_id: wire.i32()?,
            ..FetchAnswer::default()
        };
        answer.topics = wire.array(3, |wire| {
            let topic = if version < BY_TOPIC_ID { wire.string()? } else { String::new() };
            let topic_id = if version >= BY_TOPIC_ID { wire.uuid()? } else { [0; 16] };
            let partitions = wire.array(32, |wire| read_partition(wire, version))?;
            wire.skip_tags()?;
            Ok(FetchedTopic { topic, topic_id, partitions })
        })?;
        wire.tags(|tag, wire| {
            if tag == 0 && version >= 16 {
                answer.nodes = wire.array(10, |wire| {
                    let node = NodeEndpoint { id: wire.i32()?, host: wire.string()?, port: wire.i32()? };
                    wire.nullable_string()?;
                    wire.skip_tags()?;
                    Ok(node)
                })?;
            }
            Ok(())
        })?;
        Ok(answer)
    }
}

impl Fetch {
    fn write_topic(&self, out: &mut Writer, version: i16) {
        if version >= BY_TOPIC_ID {
            out.uuid(self.topic_id);
        } else {
            out.string(&self.topic);
        }
    }
}

fn read_partition(wire: &mut Reader, version: i16) -> Result<FetchedPartition, WireError> {
    let (partition, error) = (wire.i32()?, wire.i16()?);
    let (high_watermark, last_stable_offset, log_start_offset) = (wire.i64()?, wire.i64()?, wire.i64()?);
    let aborted = wire.array(16, |wire| {
        let aborted = (wire.i64()?, wire.i64()?);
        wire.skip_tags()?;
        Ok(aborted)
    })?;
    let preferred_read_replica = if version >= 11 { wire.i32()? } else { -1 };
    let records = wire.nullable_bytes()?.unwrap_or_default();
    let (mut diverging, mut current_leader) = (None, None);
    wire.tags(|tag, wire| {
        match tag {
            0 => diverging = Some((wire.i32()?, wire.i64()?)),
            1 => current_leader = Some((wire.i32()?, wire.i32()?)),
            _ => {}
        }
        Ok(())
    })?;
    Ok(FetchedPartition {
        partition,
        error,
        high_watermark,
        last_stable_offset,
        log_start_offset,
        aborted,
        preferred_read_replica,
        diverging,
        current_leader,
        records,
    })
}
