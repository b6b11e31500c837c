//! One frame in the making: formatted records of a lane, and what the index will say of them.
//!
//! Owns: the bytes of records as they will lie in the file, the record table.
//! Does not own: compression contexts ([`super::codec`]), where the frame lies in its file ([`super::index`]).

use super::codec::{CodecError, Encoder};
use super::digest::offset_hash;
use super::format::{Format, write_record};
use super::varint::{write_signed, write_unsigned};
use crate::record::Record;

/// Largest piece of memory that records of usual size lie in. One buffer that doubles until it holds a frame copies each byte once
/// more and is half empty on average; the allocator gives back pieces of this size without asking the kernel for fresh pages.
const CHUNK_BYTES: usize = 64 * 1024;
/// The first piece of a frame grows from this by fours: most lanes of many are small.
const FIRST_CHUNK_BYTES: usize = 2 * 1024;
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
}

/// Consecutive records of one partition in one chunk.
#[derive(Clone, Copy, Debug)]
struct Run {
    partition: i32,
    chunk: usize,
    data_start: usize,
    data_end: usize,
    table_start: usize,
    count: u64,
    first_offset: i64,
    last_offset: i64,
    first_timestamp_ms: i64,
    last_timestamp_ms: i64,
    /// Earliest and latest event time.
    times: (i64, i64),
    /// Wrapping sum of the offset hashes.
    sum: u128,
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
    }

    /// Index of a chunk that takes `bytes` more, which becomes the last one.
    fn chunk_for(&mut self, bytes: usize) -> usize {
        let first = self.chunks.len() <= 1;
        if let Some(chunk) = self.chunks.last_mut() {
            if bytes <= chunk.capacity() - chunk.len() {
                return self.chunks.len() - 1;
            }
            // Only the first one begins small.
            if first && chunk.len() + bytes <= CHUNK_BYTES {
                let before = chunk.capacity();
                let wanted = (before * 4).max(chunk.len() + bytes).min(CHUNK_BYTES);
                chunk.reserve_exact(wanted - chunk.len());
                self.capacity += chunk.capacity() - before;
                return 0;
            }
        }
        let least = if self.chunks.is_empty() { FIRST_CHUNK_BYTES } else { CHUNK_BYTES };
        let chunk = Vec::with_capacity(bytes.max(least));
        self.capacity += chunk.capacity();
        self.chunks.push(chunk);
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
        let (gap, timestamp_delta) = match self.runs.last_mut() {
            Some(run) if run.partition == record.partition && run.chunk == at => {
                let gap = record.offset.wrapping_sub(run.last_offset).wrapping_sub(1).cast_unsigned();
                let delta = record.timestamp_ms.wrapping_sub(run.last_timestamp_ms);
                run.data_end = end;
                run.count += 1;
                run.last_offset = record.offset;
                run.last_timestamp_ms = record.timestamp_ms;
                run.times = (run.times.0.min(time_ms), run.times.1.max(time_ms));
                run.sum = run.sum.wrapping_add(hash);
                (gap, delta)
            }
            _ => {
                self.runs.push(Run {
                    partition: record.partition,
                    chunk: at,
                    data_start: start,
                    data_end: end,
                    table_start: self.table.len(),
                    count: 1,
                    first_offset: record.offset,
                    last_offset: record.offset,
                    first_timestamp_ms: record.timestamp_ms,
                    last_timestamp_ms: record.timestamp_ms,
                    times: (time_ms, time_ms),
                    sum: hash,
                });
                (0, 0)
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
        let order = self.order();
        let same_partition = |&a: &usize, &b: &usize| self.runs[a].partition == self.runs[b].partition;
        order.chunk_by(same_partition).map(|runs| self.encode_runs(runs, encoder, out)).collect()
    }

    /// The runs by partition, then offset.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.runs.len()).collect();
        order.sort_by_key(|&index| self.runs[index].partition);
        order
    }

    fn encode_runs(&self, order: &[usize], encoder: &mut Encoder, out: &mut Vec<u8>) -> Result<FrameMeta, CodecError> {
        let pieces: Vec<&[u8]> = order.iter().map(|&index| self.data_of(index)).collect();
        let start = out.len();
        encoder.encode(&pieces, out)?;
        let stored = &out[start..];
        let table = self.ordered_table(order);
        let compressed = lz4_flex::block::compress(&table);
        let runs = || order.iter().map(|&index| &self.runs[index]);
        Ok(FrameMeta {
            raw_len: pieces.iter().map(|piece| piece.len() as u64).sum(),
            stored_len: stored.len() as u64,
            crc: crc32c::crc32c(stored),
            min_time_ms: runs().map(|run| run.times.0).min().unwrap_or_default(),
            max_time_ms: runs().map(|run| run.times.1).max().unwrap_or_default(),
            partitions: self.partitions(order),
            sum: runs().fold(0, |sum, run| sum.wrapping_add(run.sum)),
            table_raw_len: table.len() as u64,
            table: if compressed.len() < table.len() { compressed } else { table },
        })
    }

    fn data_of(&self, index: usize) -> &[u8] {
        let run = &self.runs[index];
        &self.chunks[run.chunk][run.data_start..run.data_end]
    }

    fn ordered_table(&self, order: &[usize]) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.table.len() + order.len() * 16);
        write_unsigned(&mut table, order.len() as u64);
        for &index in order {
            let run = &self.runs[index];
            write_signed(&mut table, i64::from(run.partition));
            write_unsigned(&mut table, run.count);
            write_signed(&mut table, run.first_offset);
            write_signed(&mut table, run.first_timestamp_ms);
            let end = self.runs.get(index + 1).map_or(self.table.len(), |next| next.table_start);
            table.extend_from_slice(&self.table[run.table_start..end]);
        }
        table
    }

    fn partitions(&self, order: &[usize]) -> Vec<FramePartition> {
        let mut partitions: Vec<FramePartition> = Vec::new();
        for &index in order {
            let run = &self.runs[index];
            match partitions.last_mut() {
                Some(known) if known.partition == run.partition => {
                    known.last = run.last_offset;
                    known.count += run.count;
                }
                _ => partitions.push(FramePartition {
                    partition: run.partition,
                    first: run.first_offset,
                    last: run.last_offset,
                    count: run.count,
                }),
            }
        }
        partitions
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
