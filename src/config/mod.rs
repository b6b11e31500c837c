//! Settings: what this machine is ([`WorkerConfig`], configs/worker.yaml) and what is archived ([`ConnectorConfig`],
//! one file in connectors/ each).
//!
//! ```text
//!  file -> yaml -> expand ${ENV} -> shape (known keys) -+
//!  environment ---------------------------------------- +-> merge -> check (values, rules between keys) -> cross (files)
//!  schema (defaults) -----------------------------------+
//! ```
//!
//! Owns: parsing, merging, checking, messages with file, line and key. Raw and checked settings are two types: a raw
//! [`tree`] in which everything knows where it was written, and the checked structs, in which everything is legal.
//! Does not own: what the settings do.

pub mod allow;
mod check;
mod connector;
mod content;
mod environment;
mod expand;
mod files;
pub mod flat;
mod load;
mod merge;
mod problem;
mod reader;
mod redis_url;
pub mod schema;
mod shape;
mod suggest;
pub mod tree;
pub mod units;
mod url;
mod worker;
mod yaml;

pub use check::sink::of_url as sink_of_url;
pub use connector::*;
pub use expand::Environment;
pub use load::{
    ConnectorFile, LoadOptions, Loaded, beside_others, connector_files, load, load_connector_flat, load_connector_str,
    load_worker_alone, settings_files,
};
pub use problem::{Place, Problem, Problems};
pub use redis_url::{RedisLogin, RedisUrl, Topology};
pub use suggest::nearest;
pub use url::{SecretUrl, SinkUrl, StateUrl};
pub use worker::*;
