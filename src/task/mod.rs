//! A sink task: one share of a topic's partitions, from Kafka to the store.
//!
//! ```text
//!  opening: take the log over, resolve offsets, look for pending objects
//!  driver:  blocks, timers, answers ──> core (pure) ──> actions: compress, append, finish, upload
//! ```
//!
//! The core decides, the driver does. Consistency is the log's alone: whatever the driver loses by a crash is read again from
//! low, unless the spool still has it. Leaks that are accepted: spool files and temporary names of a dead process, adopted or
//! deleted after the next start; parts of an unfinished multipart upload, deleted by the bucket's lifecycle rule.

mod adopt;
pub mod adoption;
pub mod context;
pub mod core;
pub mod cut;
pub mod driver;
pub mod error;
mod fenced;
pub mod files;
mod letters;
pub mod opening;
pub mod recent;
pub mod reset;
pub mod settings;
pub mod status;

pub use context::{Origin, TaskContext};
pub use driver::{End, close, run};
pub use error::TaskError;
