//! Reading the index from the end of a file. No byte of it is trusted.
//!
//! Owns: locator, frame table, the checks that they fit the file. Does not own: I/O; the caller fetches what is asked for.

use std::ops::Range;

use super::entries::read_entry;
use super::wrap::{self, LOCATOR_LEN, Parts};
use super::writer::{MAGIC, codec_code};
use super::{FORMAT_VERSION, FileFacts, FrameEntry, IndexError};
use crate::archive::codec::Codec;
use crate::archive::varint::Cursor;

/// Frame tables beyond this (raw) are refused: a 5 GiB file of small frames has a few megabytes.
const MAX_FRAME_TABLE_BYTES: u64 = 256 * 1024 * 1024;

/// A file's index without its record tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub facts: FileFacts,
    /// In file order.
    pub frames: Vec<FrameEntry>,
    /// Bytes of all frames.
    pub data_len: u64,
    codec: Codec,
    parts: Parts,
    /// Where the index begins in its file.
    start: u64,
}

impl Index {
    /// The index of records that are in no file yet: it has no frames.
    pub fn of_no_file(facts: FileFacts) -> Self {
        let codec = facts.codec;
        Self { facts, frames: Vec::new(), data_len: 0, codec, parts: Parts { tables: 0, frame_table: 0 }, start: 0 }
    }

    /// Byte ranges of the file (or sidecar) whose concatenation is the stored record table of a frame.
    pub fn table_ranges(&self, frame: &FrameEntry) -> Vec<Range<u64>> {
        let body = frame.table_offset..frame.table_offset + frame.table_len;
        wrap::ranges(self.codec, self.parts, self.start, body)
    }
}

/// What the end of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexRead {
    Index(Box<Index>),
    /// The last `len` bytes of the file are needed.
    NeedMore {
        len: u64,
    },
}

/// Reads the index from the last bytes of a file of `size` bytes (for plain files: of its sidecar).
///
/// # Errors
/// [`IndexError`]: not a file of ours, a newer one, or damage.
pub fn read_index(codec: Codec, size: u64, tail: &[u8]) -> Result<IndexRead, IndexError> {
    if size < wrap::locator_tail_len(codec) {
        return Err(IndexError::None);
    }
    if (tail.len() as u64) < wrap::locator_tail_len(codec) {
        return Ok(IndexRead::NeedMore { len: wrap::locator_tail_len(codec) });
    }
    let locator = wrap::locator_in_tail(codec, tail).ok_or(IndexError::None)?;
    let (locator, magic) = locator.split_at(locator.len() - MAGIC.len());
    if magic != MAGIC {
        return Err(IndexError::None);
    }
    let (fields, crc) = locator.split_at(locator.len() - 4);
    if crc32c::crc32c(fields).to_le_bytes() != crc {
        return Err(IndexError::Damaged("checksum of the locator".to_owned()));
    }
    let mut cursor = Cursor(fields);
    let data_len = u64::from_le_bytes(cursor.array()?);
    let parts = Parts { tables: u64::from_le_bytes(cursor.array()?), frame_table: u64::from_le_bytes(cursor.array()?) };
    let raw_len = u64::from_le_bytes(cursor.array()?);
    let crc = u32::from_le_bytes(cursor.array()?);
    let version = u16::from_le_bytes(cursor.array()?);
    if version > FORMAT_VERSION {
        return Err(IndexError::Newer { found: version });
    }
    if cursor.array::<1>()? != [codec_code(codec)] {
        return Err(IndexError::Damaged("the file was renamed: it has another codec".to_owned()));
    }
    let fits = |data: u64| {
        parts.tables.checked_add(parts.frame_table).is_some_and(|body| body <= size)
            && data.checked_add(wrap::wrapped_len(codec, parts)) == Some(size)
    };
    let data_before = if codec == Codec::None { 0 } else { data_len };
    if !fits(data_before) {
        return Err(IndexError::Damaged(format!("the file has {size} bytes, its index says otherwise")));
    }
    let body = parts.tables..parts.tables + parts.frame_table;
    let ranges = wrap::ranges(codec, parts, data_before, body);
    let begin = ranges.first().map_or(size - LOCATOR_LEN, |range| range.start);
    let tail_start = size - tail.len() as u64;
    if begin < tail_start {
        return Ok(IndexRead::NeedMore { len: size - begin });
    }
    let mut stored = Vec::new();
    for range in ranges {
        let place = |at: u64| usize::try_from(at - tail_start).ok();
        let bytes = place(range.start).zip(place(range.end)).and_then(|(start, end)| tail.get(start..end));
        stored.extend_from_slice(bytes.ok_or_else(|| IndexError::Damaged("the frame table is cut".to_owned()))?);
    }
    if crc32c::crc32c(&stored) != crc {
        return Err(IndexError::Damaged("checksum of the frame table".to_owned()));
    }
    let (facts, frames) = frame_table(&stored, raw_len)?;
    check_frames(&frames, data_len, parts)?;
    Ok(IndexRead::Index(Box::new(Index { facts, frames, data_len, codec, parts, start: data_before })))
}

fn frame_table(stored: &[u8], raw_len: u64) -> Result<(FileFacts, Vec<FrameEntry>), IndexError> {
    let damaged = |why: &dyn std::fmt::Display| IndexError::Damaged(format!("the frame table: {why}"));
    if raw_len > MAX_FRAME_TABLE_BYTES {
        return Err(damaged(&format!("{raw_len} bytes")));
    }
    let capacity = usize::try_from(raw_len).map_err(|error| damaged(&error))?;
    let raw = zstd::bulk::decompress(stored, capacity).map_err(|error| damaged(&error))?;
    let mut cursor = Cursor(&raw);
    let len = cursor.len()?;
    let facts: FileFacts = serde_json::from_slice(cursor.bytes(len)?).map_err(|error| damaged(&error))?;
    let count = cursor.len()?;
    let mut frames = Vec::new();
    let mut table_offset = 0u64;
    for _ in 0..count {
        let entry = read_entry(&mut cursor, table_offset)?;
        table_offset = table_offset.checked_add(entry.table_len).ok_or_else(|| damaged(&"lengths overflow"))?;
        frames.push(entry);
    }
    Ok((facts, frames))
}

/// Frames lie one after the other and fill the data; tables fill their part.
fn check_frames(frames: &[FrameEntry], data_len: u64, parts: Parts) -> Result<(), IndexError> {
    let mut end = 0u64;
    let mut tables = 0u64;
    for frame in frames {
        let next = end.checked_add(frame.stored_len).filter(|_| frame.offset == end);
        end = next.ok_or_else(|| IndexError::Damaged(format!("a frame at {} instead of {end}", frame.offset)))?;
        tables = tables.saturating_add(frame.table_len);
    }
    if end != data_len || tables != parts.tables {
        return Err(IndexError::Damaged(format!("frames of {end} bytes in {data_len} bytes of data")));
    }
    Ok(())
}
