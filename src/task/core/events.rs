//! What the core asks for, and what it tells.
//!
//! Owns: actions, errors, counters, progress. Does not own: what leads to them.

use std::collections::BTreeMap;

use crate::archive::frame::FrameBuffer;
use crate::archive::index::FileFacts;
use crate::ledger::{Entry, IntentId};
use crate::pipeline::lane::FileId;
use crate::pipeline::produce::Outgoing;
use crate::pipeline::spool::FinishedFile;
use crate::pipeline::spool::journal::FileNote;

/// What the driver is to do.
#[derive(Debug)]
pub enum Action {
    /// Compress and store a frame; answer with [`Core::on_stored`].
    /// With a note, the spool's journal tells of it.
    Compress { file: FileId, sequence: u32, buffer: FrameBuffer, note: Option<Box<FileNote>> },
    /// Append to the log; answer with [`Core::on_appended`]. One at a time.
    Append(Entry),
    /// Write these into the topic of dead letters; answer with [`Core::on_dead_lettered`].
    DeadLetter { id: FileId, letters: Vec<Outgoing> },
    /// Start reading these partitions from their positions.
    Read { partitions: Vec<i32> },
    /// An object holds less than was decided, as somebody accepted: to be told.
    Accepted(Box<RebuildDiffers>),
    /// Delete what the snapshot at the tip covers.
    CleanUp,
    /// Write the tail; answer with [`Core::on_finished`].
    Finish { file: FileId, facts: Box<FileFacts> },
    /// Upload the finished file; answer with [`Core::on_uploaded`].
    Upload { file: FileId, key: String, intent: IntentId, finished: FinishedFile },
    /// The file is in the store: its spool may go.
    Discard { file: FileId },
}

/// A record or a replay that the task can't get past.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    #[error("topic {topic} partition {partition} offset {offset}: {why}, and on_error is fail")]
    BadRecord { topic: String, partition: i32, offset: i64, why: &'static str },
    #[error(transparent)]
    RebuildDiffers(Box<RebuildDiffers>),
    #[error("a broken rule of the ledger: {0}")]
    Ledger(String),
}

/// An object that was decided can't be rebuilt as it was decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "object {key} was decided before and can't be rebuilt: topic {topic} partition {partition} offsets {first} to {last} held \
     {expected} records (digest {expected_digest}), now {found} ({found_digest}). Kafka's log is not what it was"
)]
pub struct RebuildDiffers {
    pub key: String,
    pub topic: String,
    pub partition: i32,
    pub first: i64,
    pub last: i64,
    pub expected: u64,
    pub expected_digest: String,
    pub found: u64,
    pub found_digest: String,
}

impl RebuildDiffers {
    /// Records are gone; none has come or changed, as far as counts tell.
    pub fn is_less(&self) -> bool {
        self.found < self.expected
    }
}

/// Events counted since they were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By partition.
    pub records_read: BTreeMap<i32, u64>,
    pub bytes_raw: u64,
    /// Stored in the spool.
    pub frames: u64,
    pub records_archived: u64,
    /// In objects that the store has already.
    pub records_skipped_by_mark: u64,
    /// By rule: `on_error: skip`.
    pub records_skipped: u64,
    pub records_dead_lettered: u64,
    pub time_fallbacks: u64,
    pub objects: u64,
    pub bytes_stored: u64,
}

/// What a task is doing, for status and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub positions: BTreeMap<i32, i64>,
    pub lows: BTreeMap<i32, i64>,
    pub open_lanes: usize,
    pub files_in_upload: usize,
    pub intents_pending: usize,
    pub oldest_unsealed_ms: Option<i64>,
}
