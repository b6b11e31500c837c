//! Sluice archives application logs: records of many applications come mixed out of Kafka, are split by app id, compressed
//! into one stream of few, large files per application and uploaded to an object store, each record exactly once.
//!
//! ```text
//!  Kafka brokers                                                                             object store
//!    |  fetch                                                                                  ^         ^
//!    v                                                                                         | log     | data
//!  source -> split by app id -> lane buffers -> compress (pool of threads) -> spool -> seal ---+-> upload+
//! ```
//!
//! One direction, every wall a bounded queue. The truth about what is archived is the task's log in the object store
//! ([`log`]), folded by pure code ([`ledger`]); local disk and memory may vanish at any time. `ARCHITECTURE.md` is the map.

pub mod api;
pub mod archive;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod kafka;
pub mod ledger;
pub mod log;
pub mod logging;
pub mod pem;
pub mod pipeline;
pub mod reading;
pub mod record;
pub mod recover;
pub mod redis_link;
pub mod restore;
pub mod store;
pub mod task;
pub mod verify;
pub mod version;
pub mod worker;
