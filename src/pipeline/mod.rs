//! The flow from Kafka to the store, one room a file. Each room imports its upstream's message type and nothing further back.

pub mod budget;
pub mod source;
