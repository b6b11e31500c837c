//! The entry of one frame, as it waits in the spool and as it lies in the frame table.
//!
//! Owns: its bytes. Does not own: where they are kept.

use std::ops::Range;

use super::{FrameEntry, IndexError};
use crate::archive::frame::{FrameMeta, FramePartition};
use crate::archive::varint::{Cursor, write_signed, write_unsigned};

/// Appends a frame to the entries of a file in the making: its description, then its record table. Concatenations of such
/// entries are what [`super::write_tail`] takes.
pub fn append_frame(entries: &mut Vec<u8>, offset: u64, frame: &FrameMeta) {
    write_entry(
        entries,
        &FrameEntry {
            offset,
            stored_len: frame.stored_len,
            raw_len: frame.raw_len,
            crc: frame.crc,
            min_time_ms: frame.min_time_ms,
            max_time_ms: frame.max_time_ms,
            partitions: frame.partitions.clone(),
            sum: frame.sum,
            table_offset: 0,
            table_len: frame.table.len() as u64,
            table_raw_len: frame.table_raw_len,
            table_crc: crc32c::crc32c(&frame.table),
        },
    );
    entries.extend_from_slice(&frame.table);
}

/// The frames of a file in another order.
#[derive(Debug)]
pub struct Sorted {
    /// The entries, for the frames as they will lie.
    pub entries: Vec<u8>,
    /// Where each frame lies now, in the new order.
    pub places: Vec<Range<u64>>,
}

/// Brings the entries of a file into the order of their partitions; `None` where that is their order already. Each frame holds
/// one partition.
///
/// # Errors
/// Entries that are not such.
pub fn sort_by_partition(entries: &[u8]) -> Result<Option<Sorted>, IndexError> {
    let mut cursor = Cursor(entries);
    let mut frames = Vec::new();
    while !cursor.is_empty() {
        let entry = read_entry(&mut cursor, 0)?;
        let len = usize::try_from(entry.table_len).map_err(|error| IndexError::TooBig(error.to_string()))?;
        frames.push((entry, cursor.bytes(len)?));
    }
    let partition = |(entry, _): &(FrameEntry, &[u8])| entry.partitions.first().map(|partition| partition.partition);
    if frames.is_sorted_by_key(partition) {
        return Ok(None);
    }
    // Stable: within a partition the frames are in the order of their offsets.
    frames.sort_by_key(partition);
    let mut sorted = Sorted { entries: Vec::with_capacity(entries.len()), places: Vec::with_capacity(frames.len()) };
    let mut offset = 0;
    for (entry, table) in frames {
        sorted.places.push(entry.offset..entry.offset + entry.stored_len);
        let moved = FrameEntry { offset, ..entry };
        offset += moved.stored_len;
        write_entry(&mut sorted.entries, &moved);
        sorted.entries.extend_from_slice(table);
    }
    Ok(Some(sorted))
}

pub(super) fn write_entry(out: &mut Vec<u8>, entry: &FrameEntry) {
    write_unsigned(out, entry.offset);
    write_unsigned(out, entry.stored_len);
    write_unsigned(out, entry.raw_len);
    out.extend_from_slice(&entry.crc.to_le_bytes());
    write_signed(out, entry.min_time_ms);
    write_unsigned(out, entry.max_time_ms.wrapping_sub(entry.min_time_ms).cast_unsigned());
    out.extend_from_slice(&entry.sum.to_le_bytes());
    write_unsigned(out, entry.table_len);
    write_unsigned(out, entry.table_raw_len);
    out.extend_from_slice(&entry.table_crc.to_le_bytes());
    write_unsigned(out, entry.partitions.len() as u64);
    for partition in &entry.partitions {
        write_signed(out, i64::from(partition.partition));
        write_signed(out, partition.first);
        write_unsigned(out, partition.last.wrapping_sub(partition.first).cast_unsigned());
        write_unsigned(out, partition.count);
    }
}

/// Reads an entry; its table begins at `table_offset` among the record tables.
pub(super) fn read_entry(cursor: &mut Cursor<'_>, table_offset: u64) -> Result<FrameEntry, IndexError> {
    let offset = cursor.unsigned()?;
    let stored_len = cursor.unsigned()?;
    let raw_len = cursor.unsigned()?;
    let crc = u32::from_le_bytes(cursor.array()?);
    let min_time_ms = cursor.signed()?;
    let max_time_ms = min_time_ms.wrapping_add(cursor.unsigned()?.cast_signed());
    let sum = u128::from_le_bytes(cursor.array()?);
    let table_len = cursor.unsigned()?;
    let table_raw_len = cursor.unsigned()?;
    let table_crc = u32::from_le_bytes(cursor.array()?);
    // A partition takes at least four bytes: what is claimed must fit into what is there.
    let count = cursor.len()?;
    let mut partitions = Vec::new();
    for _ in 0..count {
        let partition = cursor.partition()?;
        let first = cursor.signed()?;
        let last = first.wrapping_add(cursor.unsigned()?.cast_signed());
        let count = cursor.unsigned()?;
        if last < first || count == 0 || count - 1 > last.abs_diff(first) {
            return Err(IndexError::Damaged(format!(
                "{count} records of partition {partition} from {first} to {last}"
            )));
        }
        partitions.push(FramePartition { partition, first, last, count });
    }
    Ok(FrameEntry {
        offset,
        stored_len,
        raw_len,
        crc,
        min_time_ms,
        max_time_ms,
        partitions,
        sum,
        table_offset,
        table_len,
        table_raw_len,
        table_crc,
    })
}
