//! The record table of a frame: position, time and length of each record, in the frame's order.
//!
//! Owns: reading it, with limits. Does not own: the frame's bytes.

use super::{FrameEntry, IndexError};
use crate::archive::varint::Cursor;

/// A table expands to at most this much before compression; a frame of 16 MiB of empty lines has 50 MiB.
const MAX_TABLE_BYTES: u64 = 256 * 1024 * 1024;

/// One record of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordEntry {
    pub partition: i32,
    pub offset: i64,
    /// Kafka's timestamp.
    pub timestamp_ms: i64,
    pub value: ValueLen,
}

/// How long a record's value is in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueLen {
    /// Up to the next newline.
    Line,
    /// It holds newlines itself.
    Bytes(u64),
    /// A tombstone: an empty line that stands for null.
    Null,
}

/// Reads the record table of `frame` from its stored bytes.
///
/// # Errors
/// The bytes are not the table that the index describes.
pub fn read_record_table(frame: &FrameEntry, stored: &[u8]) -> Result<Vec<RecordEntry>, IndexError> {
    let damaged = |why: String| IndexError::Damaged(format!("a record table: {why}"));
    if crc32c::crc32c(stored) != frame.table_crc {
        return Err(damaged("checksum".to_owned()));
    }
    if frame.table_raw_len > MAX_TABLE_BYTES {
        return Err(damaged(format!("{} bytes", frame.table_raw_len)));
    }
    let raw_len = usize::try_from(frame.table_raw_len).map_err(|error| damaged(error.to_string()))?;
    let raw = if stored.len() == raw_len {
        stored.to_vec()
    } else {
        lz4_flex::block::decompress(stored, raw_len).map_err(|error| damaged(error.to_string()))?
    };
    let mut cursor = Cursor(&raw);
    let runs = cursor.len()?;
    let mut entries = Vec::new();
    for _ in 0..runs {
        read_run(&mut cursor, &mut entries)?;
    }
    let expected: u64 = frame.partitions.iter().map(|partition| partition.count).sum();
    if !cursor.is_empty() || entries.len() as u64 != expected {
        return Err(damaged(format!("{} records instead of {expected}", entries.len())));
    }
    Ok(entries)
}

fn read_run(cursor: &mut Cursor<'_>, entries: &mut Vec<RecordEntry>) -> Result<(), IndexError> {
    let partition = cursor.partition()?;
    // Each record takes at least two bytes: what is claimed must fit into what is there.
    let count = cursor.len()?;
    let mut offset = cursor.signed()?;
    let mut timestamp_ms = cursor.signed()?;
    for index in 0..count {
        let gap = cursor.unsigned()?;
        if index > 0 {
            offset = offset.wrapping_add((gap >> 1).cast_signed()).wrapping_add(1);
        }
        timestamp_ms = timestamp_ms.wrapping_add(cursor.signed()?);
        let value = match gap & 1 {
            0 => ValueLen::Line,
            _ => match cursor.unsigned()? {
                0 => ValueLen::Null,
                len => ValueLen::Bytes(len - 1),
            },
        };
        entries.push(RecordEntry { partition, offset, timestamp_ms, value });
    }
    Ok(())
}
