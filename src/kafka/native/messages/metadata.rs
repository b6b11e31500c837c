//! Metadata: brokers, topics, who leads which partition.

use super::{Api, Request};
use crate::kafka::native::wire::{Reader, WireError, Writer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Names of topics; `None` asks for all.
    pub topics: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataAnswer {
    pub error: i16,
    pub cluster_id: Option<String>,
    pub brokers: Vec<Broker>,
    pub topics: Vec<TopicMetadata>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    pub error: i16,
    pub name: Option<String>,
    /// All zero before version 10 (Kafka 2.8).
    pub id: [u8; 16],
    pub internal: bool,
    pub partitions: Vec<PartitionMetadata>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    pub error: i16,
    pub partition: i32,
    /// -1: none at the moment.
    pub leader: i32,
    pub leader_epoch: i32,
}

impl Request for Metadata {
    type Answer = MetadataAnswer;
    const API: Api = Api { name: "Metadata", key: 3, versions: (7, 13), flexible: 9 };

    fn write(&self, out: &mut Writer, version: i16) {
        match &self.topics {
            None => out.null_array(),
            Some(topics) => out.array(topics, |out, name| {
                if version >= 10 {
                    out.uuid([0; 16]);
                }
                out.string(name);
                out.no_tags();
            }),
        }
        // allow_auto_topic_creation: asking must not make a deleted topic again.
        out.bool(false);
        if (8..=10).contains(&version) {
            out.bool(false);
        }
        if version >= 8 {
            out.bool(false);
        }
        out.no_tags();
    }

    fn read(wire: &mut Reader, version: i16) -> Result<MetadataAnswer, WireError> {
        wire.i32()?;
        let brokers = wire.array(11, |wire| {
            let broker =
                Broker { id: wire.i32()?, host: wire.string()?, port: wire.i32()?, rack: wire.nullable_string()? };
            wire.skip_tags()?;
            Ok(broker)
        })?;
        let cluster_id = wire.nullable_string()?;
        wire.i32()?;
        let topics = wire.array(8, |wire| read_topic(wire, version))?;
        if (8..=10).contains(&version) {
            wire.i32()?;
        }
        let error = if version >= 13 { wire.i16()? } else { 0 };
        wire.skip_tags()?;
        Ok(MetadataAnswer { error, cluster_id, brokers, topics })
    }
}

fn read_topic(wire: &mut Reader, version: i16) -> Result<TopicMetadata, WireError> {
    let error = wire.i16()?;
    let name = wire.nullable_string()?;
    let id = if version >= 10 { wire.uuid()? } else { [0; 16] };
    let internal = wire.bool()?;
    let partitions = wire.array(20, |wire| {
        let (error, partition, leader, leader_epoch) = (wire.i16()?, wire.i32()?, wire.i32()?, wire.i32()?);
        for _replicas_isr_offline in 0..3 {
            wire.array(4, Reader::i32)?;
        }
        wire.skip_tags()?;
        Ok(PartitionMetadata { error, partition, leader, leader_epoch })
    })?;
    if version >= 8 {
        wire.i32()?;
    }
    wire.skip_tags()?;
    Ok(TopicMetadata { error, name, id, internal, partitions })
}
