//! The requests that a reader sends and the answers that it gets, each in the versions that Kafka 2.1 to 4.x speak.
//!
//! Owns: which fields a message has in which version (Kafka's schemas, `clients/src/main/resources/common/message`; the
//! tests hold them against the crate kafka-protocol, which is generated from those).
//! Does not own: which version is spoken, sending, meaning.
//!
//! Written by hand instead of generated: the generated code allocates for every count that an answer claims.

pub mod api_versions;
pub mod describe_configs;
pub mod fetch;
pub mod group;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sasl;

use super::wire::{Reader, WireError, Writer};

/// A request type of Kafka's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    pub name: &'static str,
    pub key: i16,
    /// Lowest and highest version that this client speaks.
    pub versions: (i16, i16),
    /// First version in the flexible encoding.
    pub flexible: i16,
}

/// A request and what its answer looks like.
pub trait Request {
    type Answer;
    const API: Api;

    fn write(&self, out: &mut Writer, version: i16);

    /// # Errors
    /// The answer is not what the schema says.
    fn read(wire: &mut Reader, version: i16) -> Result<Self::Answer, WireError>;
}

#[cfg(test)]
mod tests;
