//! What a running worker shows: metrics, health, status.
//!
//! Owns: HTTP, the names of metrics. Does not own: what is shown (the tasks' reports).

pub(crate) mod auth;
pub mod client;
pub mod http;
pub mod metrics;
