//! The flow from Kafka to the store, one room a file. Each room imports its upstream's message type and nothing further back.

pub mod budget;
pub mod compress;
pub mod event_time;
pub mod lane;
pub mod produce;
pub mod rotation;
pub mod source;
pub mod split;
pub mod spool;
pub mod upload;
