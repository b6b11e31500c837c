//! A reader that speaks Kafka's protocol itself.

pub mod aborted;
pub mod batch;
pub mod codecs;
pub mod decode;
pub mod messages;
pub mod records;
pub mod wire;
