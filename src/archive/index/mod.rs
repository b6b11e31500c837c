//! The index of a file: which frames it has, what is in them, whose intent it is.
//!
//! ```text
//!  frames | record tables | frame table | locator
//!          \________ lz4, zstd: two skippable frames; gzip: extra fields of empty members;
//!                    plain: the sidecar `_<name>.idx` ________/
//! ```
//!
//! Owns: the layout after the last frame, byte by byte (docs/file-format.md), writing it in bounded memory, reading it from
//! bytes that are not trusted.
//! Does not own: I/O.

mod entries;
mod reader;
mod records;
mod skipped;
mod wrap;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::codec::{Codec, CodecError};
use super::digest::ContentDigest;
use super::format::Format;
use super::frame::FramePartition;

pub use entries::{Sorted, append_frame, sort_by_partition};
pub use reader::{Index, IndexRead, read_index};
pub use records::{RecordEntry, ValueLen, read_record_table};
pub use skipped::{OffsetSum, Scattered, SkipReason, Skipped};
pub use writer::write_tail;

/// Version of the layout. Readers know all earlier ones.
pub const FORMAT_VERSION: u16 = 1;

/// What the index says of the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    pub connector: String,
    pub cluster_id: Option<String>,
    pub topic: String,
    pub topic_id: Option<String>,
    pub incarnation: u32,
    /// First key segment: the app id, escaped, or a reserved name.
    pub app: String,
    pub bucket_start_secs: Option<i64>,
    pub intent_id: String,
    /// Per partition, over the raw fields of its records in offset order.
    pub digests: BTreeMap<i32, ContentDigest>,
    /// Number of the log entry that decided the file.
    pub log_number: u64,
    pub settings_hash: String,
    /// Low of the task's partitions when the file was finished, as far as files account for all that lies below it.
    pub lows: BTreeMap<i32, i64>,
    pub format: Format,
    pub codec: Codec,
    /// Offsets that no file holds, by rule or because Kafka has none there: of any partition of the task, not only of this
    /// file's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// A frame as the index describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// Where the stored frame begins in the file.
    pub offset: u64,
    pub stored_len: u64,
    pub raw_len: u64,
    /// CRC-32C of the stored bytes.
    pub crc: u32,
    pub min_time_ms: i64,
    pub max_time_ms: i64,
    pub partitions: Vec<FramePartition>,
    pub sum: u128,
    /// Where its record table begins among the record tables.
    pub table_offset: u64,
    pub table_len: u64,
    pub table_raw_len: u64,
    pub table_crc: u32,
}

/// Why an index can't be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Another tool's file, or the end of the file is missing.
    #[error("no index of ours at the end")]
    None,
    #[error(
        "written by a newer version (file format {found}, this binary knows {FORMAT_VERSION}): use the newer binary"
    )]
    Newer { found: u16 },
    #[error("the index is damaged: {0}")]
    Damaged(String),
    #[error("the index can't be written: {0}")]
    TooBig(String),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl From<super::varint::Cut> for IndexError {
    fn from(cut: super::varint::Cut) -> Self {
        Self::Damaged(cut.to_string())
    }
}

/// Key of the sidecar of a plain file: `_<name>.idx` in the same folder.
pub fn sidecar_key(key: &str) -> String {
    match key.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/_{name}.idx"),
        None => format!("_{key}.idx"),
    }
}

/// Whether a key is a sidecar's.
pub fn is_sidecar(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    name.starts_with('_') && name.ends_with(".idx")
}

/// The codec that a key's extension names.
pub fn codec_of_key(key: &str) -> Codec {
    match key.rsplit('.').next() {
        Some("lz4") => Codec::Lz4,
        Some("zst") => Codec::Zstd,
        Some("gz") => Codec::Gzip,
        _ => Codec::None,
    }
}
