//! One frame in the making: formatted records of a lane, and what the index will say of them.
//!
//! Owns: the bytes of records as they will lie in the file, the record table.
//! Does not own: compression contexts ([`super::codec`]), where the frame lies in its file ([`super::index`]).

use super::codec::{CodecError, Encoder};
use super::digest::offset_hash;
use super::format::{Format, write_record};
use super::varint::{write_signed, write_unsigned};
use crate::record::Record;

/// Pieces of memory that records of usual size lie in: as large as half of what is there already, within these bounds. A buffer that
/// doubles until it holds a frame copies each byte once more and is half empty on average; most lanes of many are small; the
/// allocator gives back pieces of the largest size without asking the kernel for fresh pages.
const CHUNK_BYTES: std::ops::RangeInclusive<usize> = 2 * 1024..=64 * 1024;
/// Of a record in the json format, beside key, value and headers.
const JSON_FIELDS_BYTES: usize = 160;

/// Records of one lane that wait to be compressed together, in the order of their arrival.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    /// The last one is written to; no record lies in two.
    chunks: Vec<Vec<u8>>,
    /// Bytes in all chunks, and room for.
    len: usize,
    capacity: usize,
    table: Vec<u8>,
    runs: Vec<Run>,
    totals: Totals,
}

/// Consecutive records of one partition in one chunk. Where many lanes take turns it is one record, so it is kept small.
#[derive(Clone, Copy, Debug)]
struct Run {
    partition: i32,
    /// No more than a chunk has bytes, or one.
    count: u32,
    chunk: usize,
    data_start: usize,
    table_start: usize,
    first_offset: i64,
    last_offset: i64,
    first_timestamp_ms: i64,
    last_timestamp_ms: i64,
}

/// What the index says of all records of a partition in a frame.
#[derive(Clone, Copy, Debug)]
struct Total {
    partition: i32,
    /// Earliest and latest event time.
    times: (i64, i64),
    /// Wrapping sum of the offset hashes.
    sum: u128,
}

#[derive(Debug, Default)]
struct Totals {
    totals: Vec<Total>,
    /// Records come in runs of one partition: the last one found is nearly always right.
    last: usize,
}

impl Totals {
    fn add(&mut self, partition: i32, time_ms: i64, hash: u128) {
        let is_its = |total: &Total| total.partition == partition;
        if !self.totals.get(self.last).is_some_and(is_its) {
            self.last = self.totals.iter().position(is_its).unwrap_or_else(|| {
                self.totals.push(Total { partition, times: (time_ms, time_ms), sum: 0 });
                self.totals.len() - 1
            });
        }
        let total = &mut self.totals[self.last];
        total.times = (total.times.0.min(time_ms), total.times.1.max(time_ms));
        total.sum = total.sum.wrapping_add(hash);
    }

    fn of(&self, partitions: &[FramePartition]) -> impl Iterator<Item = &Total> {
        let is_in = |partition| partitions.binary_search_by_key(&partition, |known| known.partition).is_ok();
        self.totals.iter().filter(move |total| is_in(total.partition))
    }
}

/// What a frame holds of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePartition {
    pub partition: i32,
    pub first: i64,
    pub last: i64,
    pub count: u64,
}

/// A compressed frame, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    pub raw_len: u64,
    pub stored_len: u64,
    /// CRC-32C of the stored bytes.
    pub crc: u32,
    /// Event times of the records, milliseconds since the Unix epoch.
    pub min_time_ms: i64,
    pub max_time_ms: i64,
    /// Ascending, each partition once.
    pub partitions: Vec<FramePartition>,
    /// Wrapping sum of the records' offset hashes.
    pub sum: u128,
    /// Before compression.
    pub table_raw_len: u64,
    /// The record table as stored: an lz4 block, or as it is where that would not be shorter.
    pub table: Vec<u8>,
}

impl FrameBuffer {
    /// Bytes of the formatted records.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The first offset of each partition; one may come several times, its least first.
    pub fn firsts(&self) -> impl Iterator<Item = (i32, i64)> {
        self.runs.iter().map(|run| (run.partition, run.first_offset))
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.capacity
            + self.chunks.capacity() * size_of::<Vec<u8>>()
            + self.table.capacity()
            + self.runs.capacity() * size_of::<Run>()
            + self.totals.totals.capacity() * size_of::<Total>()
    }

    /// Index of a chunk that takes `bytes` more, which becomes the last one.
    fn chunk_for(&mut self, bytes: usize) -> usize {
        if self.chunks.last().is_none_or(|chunk| bytes > chunk.capacity() - chunk.len()) {
            // The sizes are few, so that what one frame frees serves the next.
            let half = 1 << (self.len / 2).max(1).ilog2();
            let chunk = Vec::with_capacity(bytes.max(half.clamp(*CHUNK_BYTES.start(), *CHUNK_BYTES.end())));
            self.capacity += chunk.capacity();
            self.chunks.push(chunk);
        }
        self.chunks.len() - 1
    }

    /// Adds a record; `time_ms` is its event time. Offsets of a partition must ascend.
    pub fn push(&mut self, format: Format, topic: &str, topic_seed: u64, record: &Record<'_>, time_ms: i64) {
        let at = self.chunk_for(usual_bytes(format, topic, record));
        let chunk = &mut self.chunks[at];
        let (start, room) = (chunk.len(), chunk.capacity());
        write_record(format, topic, record, chunk);
        let end = chunk.len();
        self.len += end - start;
        self.capacity += chunk.capacity() - room;
        let hash = offset_hash(topic_seed, record.partition, record.offset);
        let extra = match (format, record.value) {
            (Format::Json, _) => None,
            (Format::Raw, None) => Some(0),
            (Format::Raw, Some(value)) => memchr::memchr(b'\n', value).map(|_| value.len() as u64 + 1),
        };
        self.totals.add(record.partition, time_ms, hash);
        let (gap, timestamp_delta) = match self.runs.last_mut() {
            Some(run) if run.partition == record.partition && run.chunk == at => {
                let follows = run.follows(record.offset, record.timestamp_ms);
                run.count += 1;
                run.last_offset = record.offset;
                run.last_timestamp_ms = record.timestamp_ms;
                follows
            }
            _ => {
                if self.runs.len() == self.runs.capacity() {
                    // By less than doubling: where many lanes take turns these are a good part of their memory.
                    self.runs.reserve_exact((self.runs.len() / 4).max(4));
                }
                self.runs.push(Run {
                    partition: record.partition,
                    count: 1,
                    chunk: at,
                    data_start: start,
                    table_start: self.table.len(),
                    first_offset: record.offset,
                    last_offset: record.offset,
                    first_timestamp_ms: record.timestamp_ms,
                    last_timestamp_ms: record.timestamp_ms,
                });
                FIRST
            }
        };
        write_unsigned(&mut self.table, gap << 1 | u64::from(extra.is_some()));
        write_signed(&mut self.table, timestamp_delta);
        if let Some(extra) = extra {
            write_unsigned(&mut self.table, extra);
        }
    }

    /// Compresses the records as one frame, ordered by partition, then offset, and appends it to `out`.
    ///
    /// # Errors
    /// [`CodecError`]: the codec failed; nothing usable was appended.
    pub fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u8>) -> Result<FrameMeta, CodecError> {
        self.encode_runs(&self.order(), encoder, out)
    }

    /// The same as one frame for each partition, ascending.
    ///
    /// # Errors
    /// [`CodecError`]: the codec failed; nothing usable was appended.
    pub fn encode_apart(&self, encoder: &mut Encoder, out: &mut Vec<u8>) -> Result<Vec<FrameMeta>, CodecError> {
        self.by_partition(&self.order()).map(|runs| self.encode_runs(runs, encoder, out)).collect()
    }

    /// The runs by partition, then offset.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.runs.len()).collect();
        order.sort_by_key(|&index| self.runs[index].partition);
        order
    }

    /// The runs of each partition.
    fn by_partition<'a>(&'a self, order: &'a [usize]) -> impl Iterator<Item = &'a [usize]> {
        order.chunk_by(|&one, &next| self.runs[one].partition == self.runs[next].partition)
    }

    fn encode_runs(&self, order: &[usize], encoder: &mut Encoder, out: &mut Vec<u8>) -> Result<FrameMeta, CodecError> {
        let pieces: Vec<&[u8]> = order.iter().map(|&index| self.data_of(index)).collect();
        let start = out.len();
        encoder.encode(&pieces, out)?;
        let stored = &out[start..];
        let (partitions, table) = self.ordered_table(order);
        let compressed = lz4_flex::block::compress(&table);
        let totals = || self.totals.of(&partitions);
        Ok(FrameMeta {
            raw_len: pieces.iter().map(|piece| piece.len() as u64).sum(),
            stored_len: stored.len() as u64,
            crc: crc32c::crc32c(stored),
            min_time_ms: totals().map(|total| total.times.0).min().unwrap_or_default(),
            max_time_ms: totals().map(|total| total.times.1).max().unwrap_or_default(),
            sum: totals().fold(0, |sum, total| sum.wrapping_add(total.sum)),
            partitions,
            table_raw_len: table.len() as u64,
            table: if compressed.len() < table.len() { compressed } else { table },
        })
    }

    fn data_of(&self, index: usize) -> &[u8] {
        let run = &self.runs[index];
        let chunk = &self.chunks[run.chunk];
        let next = self.runs.get(index + 1).filter(|next| next.chunk == run.chunk);
        &chunk[run.data_start..next.map_or(chunk.len(), |next| next.data_start)]
    }

    /// What the frame holds of each partition, and the record table: one run for each of them, however they took turns.
    fn ordered_table(&self, order: &[usize]) -> (Vec<FramePartition>, Vec<u8>) {
        let mut partitions = Vec::new();
        let mut table = Vec::with_capacity(self.table.len() + order.len() * 4);
        write_unsigned(&mut table, self.by_partition(order).count() as u64);
        for indices in self.by_partition(order) {
            // None is empty: a group is made of what is in it.
            let (first, last) = (&self.runs[indices[0]], &self.runs[indices[indices.len() - 1]]);
            let count = indices.iter().map(|&index| u64::from(self.runs[index].count)).sum();
            let (partition, first_offset) = (first.partition, first.first_offset);
            partitions.push(FramePartition { partition, first: first_offset, last: last.last_offset, count });
            write_signed(&mut table, i64::from(partition));
            write_unsigned(&mut table, count);
            write_signed(&mut table, first_offset);
            write_signed(&mut table, first.first_timestamp_ms);
            let mut before: Option<&Run> = None;
            for &index in indices {
                let run = &self.runs[index];
                let end = self.runs.get(index + 1).map_or(self.table.len(), |next| next.table_start);
                let entries = &self.table[run.table_start..end];
                // The first entry of a run: no gap and no difference, each in one byte, and whether there is an extra.
                let (gap, timestamp_delta) =
                    before.map_or(FIRST, |before| before.follows(run.first_offset, run.first_timestamp_ms));
                write_unsigned(&mut table, gap << 1 | u64::from(entries[0] & 1));
                write_signed(&mut table, timestamp_delta);
                table.extend_from_slice(&entries[2..]);
                before = Some(run);
            }
        }
        (partitions, table)
    }
}

/// Gap and difference of timestamps of a run's first record.
const FIRST: (u64, i64) = (0, 0);

impl Run {
    /// Gap and difference of timestamps of the record that comes after this run in its partition.
    fn follows(&self, offset: i64, timestamp_ms: i64) -> (u64, i64) {
        let gap = offset.wrapping_sub(self.last_offset).wrapping_sub(1).cast_unsigned();
        (gap, timestamp_ms.wrapping_sub(self.last_timestamp_ms))
    }
}

/// What a record takes in its file: exactly for the raw format, nearly always enough for json.
fn usual_bytes(format: Format, topic: &str, record: &Record<'_>) -> usize {
    let value = record.value.map_or(0, <[u8]>::len) + 1;
    match format {
        Format::Raw => value,
        Format::Json => {
            value
                + topic.len()
                + record.key.map_or(0, <[u8]>::len)
                + record.headers.as_bytes().len()
                + JSON_FIELDS_BYTES
        }
    }
}
