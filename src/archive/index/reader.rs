//! Reading the index from the end of a file. No byte of it is trusted.
//!
//! Owns: locator, frame table, the checks that they fit the file. Does not own: I/O; the caller fetches what is asked for.

use std::ops::Range;

use super::contexts;
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
        let parts = Parts { tables: 0, frame_table: 0, version: FORMAT_VERSION };
        Self { facts, frames: Vec::new(), data_len: 0, codec, parts, start: 0 }
    }

    /// Byte ranges of the file (or sidecar) whose concatenation is the stored record table of a frame.
    pub fn table_ranges(&self, frame: &FrameEntry) -> Vec<Range<u64>> {
        let body = frame.table_offset..frame.table_offset + frame.table_len;
        wrap::ranges(self.codec, self.parts, self.start, body)
    }

    /// Where the whole index lies in the file (or sidecar): to its end.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + wrap::wrapped_len(self.codec, self.parts)
    }

    /// Compares every byte of the index, those that hide it from tools too, with what was written; answers with the record
    /// tables as stored. `bytes` are those of [`Index::range`].
    ///
    /// # Errors
    /// A byte is not what it was.
    pub fn check_whole(&self, bytes: &[u8]) -> Result<Vec<u8>, IndexError> {
        let changed = || IndexError::Damaged("bytes around its parts are not those that were written".to_owned());
        let part = |body: Range<u64>| {
            let mut part = Vec::new();
            for range in wrap::ranges(self.codec, self.parts, 0, body) {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                part.extend_from_slice(bytes.get(place(range.start)..place(range.end)).ok_or_else(changed)?);
            }
            Ok::<_, IndexError>(part)
        };
        let Parts { tables, frame_table, .. } = self.parts;
        let (table_bytes, frame_bytes) = (part(0..tables)?, part(tables..tables + frame_table)?);
        let locator = wrap::locator_in_tail(self.codec, bytes).ok_or_else(changed)?;
        let mut written = Vec::with_capacity(bytes.len());
        wrap::write(self.codec, self.parts, &table_bytes, &frame_bytes, locator, &mut written)?;
        if written != bytes {
            return Err(changed());
        }
        Ok(table_bytes)
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
    let (tables, frame_table_len) = (u64::from_le_bytes(cursor.array()?), u64::from_le_bytes(cursor.array()?));
    let raw_len = u64::from_le_bytes(cursor.array()?);
    let crc = u32::from_le_bytes(cursor.array()?);
    let version = u16::from_le_bytes(cursor.array()?);
    if version > FORMAT_VERSION {
        return Err(IndexError::Newer { found: version });
    }
    let parts = Parts { tables, frame_table: frame_table_len, version };
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
    let raw = contexts::decompress(stored, capacity).map_err(|error| damaged(&error))?;
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
