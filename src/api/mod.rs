//! What a running worker shows and takes over HTTP: metrics, health, status, Kafka Connect's REST.
//!
//! Owns: HTTP, the names of metrics. Does not own: what is shown (the tasks' reports).

pub mod activity;
pub(crate) mod auth;
pub mod client;
pub mod connect;
mod guard;
pub mod http;
mod listener;
pub mod metrics;
pub mod page;
