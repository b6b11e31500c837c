//! What is archived, decided by pure code: the fold of a task's log into lows, marks and intents, and what recovery does
//! with each record.
//!
//! Owns: the entries of the log and their bytes, the state they fold to, its invariants, the low of a partition, the fate of
//! a replayed record.
//! Does not own: where entries are kept ([`crate::log`]), when a lane is due ([`crate::pipeline`]), any I/O, clock or
//! randomness.
//!
//! Invariant: an object's record set is fixed by its intent before the first byte is uploaded.
//! Invariant: low never goes back; a mark never goes back; an intent leaves the state only by its Done. A reset, which only an
//! operator writes, is the exception to both.

pub mod apply;
pub mod encoding;
pub mod entry;
pub mod holds;
pub mod recovery;
pub mod skips;
pub mod state;

pub use apply::LedgerError;
pub use entry::{
    Commit, Entry, Identity, Intent, IntentId, Lane, Pending, Range, Replaced, Restart, SettingsRecord, StepId, Token,
};
pub use holds::Holds;
pub use recovery::{Fate, Recovery};
pub use skips::Skips;
pub use state::{Begin, Low, State};
