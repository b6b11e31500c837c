//! Reading whole objects: every byte is compared with what the index says of it.
//!
//! Owns: the checks of one object from its first byte to its last. Does not own: which objects.
//!
//! What is checked: the frames' checksums and lengths, each record's place in the frame, the sums and counts of the frame table
//! against the record tables, the record tables' checksums, every byte around them, and where the format keeps keys and headers
//! (json) the digests of the intent.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::tables::damaged;
use crate::archive::codec::{Codec, decode_frame};
use crate::archive::digest::{ContentDigest, offset_hash, topic_seed};
use crate::archive::format::{Format, OwnedRecord, parse_json_line};
use crate::archive::frame::FramePartition;
use crate::archive::index::{FrameEntry, Index, RecordEntry, ValueLen, read_record_table, sidecar_key};
use crate::reading::ReadError;
use crate::reading::counted::Counters;
use crate::reading::file::OpenFile;
use crate::reading::place::Place;
use crate::record::{Headers, Record, write_header};
use crate::store::ByteRange;

/// Frames fetched and decompressed together: at most this many stored bytes, or one.
const BATCH_BYTES: u64 = 4 << 20;

/// Is shown each record.
pub type Sink = Box<dyn FnMut(&Record<'_>, Format) + Send>;

/// Reads an object whole.
///
/// # Errors
/// [`ReadError::Damaged`] says the first thing that is not as the index says; or the store fails.
pub async fn read_whole(place: &Place, file: &OpenFile, index: &Index, sink: Option<Sink>) -> Result<u64, ReadError> {
    let tables = tables(place, file, index).await?;
    let facts = &index.facts;
    let mut reading = Reading {
        codec: file.codec,
        format: facts.format,
        seed: topic_seed(&facts.topic),
        digests: BTreeMap::new(),
        records: 0,
        sink,
    };
    for (frames, tables) in batches(index, tables) {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { continue };
        let range = ByteRange::From { start: first.offset, len: last.offset + last.stored_len - first.offset };
        let stored = get(place, file, &file.entry.key, range).await?;
        let raw: u64 = frames.iter().map(|frame| frame.raw_len).sum();
        // Decompressing takes a core for milliseconds.
        let read = tokio::task::spawn_blocking(move || {
            let outcome = reading.frames(&frames, &tables, &stored);
            (reading, outcome)
        });
        let (next, outcome) =
            read.await.map_err(|error| damaged(place, file, &format!("its frames could not be read: {error}")))?;
        reading = next;
        outcome.map_err(|why| damaged(place, file, &why))?;
        Counters::add(&place.counters.decompressed_bytes, raw);
    }
    if facts.format == Format::Json && reading.digests != facts.digests {
        let differs = facts.digests.iter().find(|(partition, digest)| reading.digests.get(partition) != Some(digest));
        let partition = differs.map_or(0, |(&partition, _)| partition);
        let why = format!("its records of partition {partition} are not those that its intent was decided for");
        return Err(damaged(place, file, &why));
    }
    Ok(reading.records)
}

/// The record tables of all frames, and a look at every byte of the index.
async fn tables(place: &Place, file: &OpenFile, index: &Index) -> Result<Vec<Vec<RecordEntry>>, ReadError> {
    let plain = file.codec == Codec::None;
    let key = if plain { sidecar_key(&file.entry.key) } else { file.entry.key.clone() };
    let whole = index.range();
    let range = ByteRange::From { start: whole.start, len: whole.end - whole.start };
    let bytes = get(place, file, &key, range).await?;
    let body = index.check_whole(&bytes).map_err(|error| damaged(place, file, &error.to_string()))?;
    let mut tables = Vec::with_capacity(index.frames.len());
    for frame in &index.frames {
        let at = usize::try_from(frame.table_offset).unwrap_or(usize::MAX);
        let end = at.saturating_add(usize::try_from(frame.table_len).unwrap_or(usize::MAX));
        let stored = body.get(at..end).ok_or_else(|| damaged(place, file, "a record table is cut"))?;
        tables.push(read_record_table(frame, stored).map_err(|error| damaged(place, file, &error.to_string()))?);
    }
    Ok(tables)
}

async fn get(place: &Place, file: &OpenFile, key: &str, range: ByteRange) -> Result<Bytes, ReadError> {
    // The sidecar has an etag of its own.
    let etag = file.etag.as_deref().filter(|_| key == file.entry.key);
    let got = place.store.get(key, range, etag).await?;
    got.map(|got| got.bytes).ok_or_else(|| ReadError::Gone { url: place.store.url().to_owned(), key: key.to_owned() })
}

type Batch = (Vec<FrameEntry>, Vec<Vec<RecordEntry>>);

fn batches(index: &Index, tables: Vec<Vec<RecordEntry>>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (frame, table) in index.frames.iter().zip(tables) {
        let fits = batches
            .last()
            .and_then(|(frames, _)| frames.first())
            .is_some_and(|first: &FrameEntry| frame.offset + frame.stored_len - first.offset <= BATCH_BYTES);
        match batches.last_mut() {
            Some((frames, tables)) if fits => {
                frames.push(frame.clone());
                tables.push(table);
            }
            _ => batches.push((vec![frame.clone()], vec![table])),
        }
    }
    batches
}

/// A file that is read frame by frame.
struct Reading {
    codec: Codec,
    format: Format,
    seed: u64,
    digests: BTreeMap<i32, ContentDigest>,
    records: u64,
    sink: Option<Sink>,
}

impl Reading {
    fn frames(&mut self, frames: &[FrameEntry], tables: &[Vec<RecordEntry>], stored: &[u8]) -> Result<(), String> {
        let start = frames.first().map_or(0, |frame| frame.offset);
        for (frame, table) in frames.iter().zip(tables) {
            let at = usize::try_from(frame.offset - start).unwrap_or(usize::MAX);
            let end = at.saturating_add(usize::try_from(frame.stored_len).unwrap_or(usize::MAX));
            let stored = stored.get(at..end).ok_or_else(|| "its data is cut".to_owned())?;
            let place = |why: String| format!("the frame at byte {}: {why}", frame.offset);
            self.frame(frame, table, stored).map_err(place)?;
        }
        Ok(())
    }

    fn frame(&mut self, frame: &FrameEntry, table: &[RecordEntry], stored: &[u8]) -> Result<(), String> {
        if crc32c::crc32c(stored) != frame.crc {
            return Err("its bytes are not those that were written (CRC-32C)".to_owned());
        }
        check_table(self.seed, frame, table)?;
        let len = usize::try_from(frame.raw_len).map_err(|error| error.to_string())?;
        let raw = decode_frame(self.codec, stored, len).map_err(|error| error.to_string())?;
        let mut rest = raw.as_slice();
        for entry in table {
            let (line, after) = take(rest, entry.value).ok_or_else(|| {
                format!("no record of partition {} offset {} where it should be", entry.partition, entry.offset)
            })?;
            rest = after;
            self.record(entry, line)?;
        }
        if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes behind its last record", rest.len())) }
    }

    fn record(&mut self, entry: &RecordEntry, line: &[u8]) -> Result<(), String> {
        self.records += 1;
        let RecordEntry { partition, offset, timestamp_ms, value } = *entry;
        match self.format {
            Format::Raw => {
                let value = (value != ValueLen::Null).then_some(line);
                let record = Record { partition, offset, timestamp_ms, key: None, value, headers: Headers::default() };
                self.show(&record);
            }
            Format::Json => {
                let owned = parse_json_line(line).map_err(|error| format!("offset {offset}: {error}"))?;
                if (owned.partition, owned.offset, owned.timestamp_ms) != (partition, offset, timestamp_ms) {
                    return Err(format!(
                        "the line of partition {} offset {} stands in the place of partition {partition} offset {offset}",
                        owned.partition, owned.offset
                    ));
                }
                let headers = encoded_headers(&owned);
                let count = u32::try_from(owned.headers.len()).map_err(|error| error.to_string())?;
                let record = Record {
                    partition,
                    offset,
                    timestamp_ms,
                    key: owned.key.as_deref(),
                    value: owned.value.as_deref(),
                    headers: Headers::new(count, &headers),
                };
                self.digests.entry(partition).or_default().push(&record);
                self.show(&record);
            }
        }
        Ok(())
    }

    fn show(&mut self, record: &Record<'_>) {
        if let Some(sink) = &mut self.sink {
            sink(record, self.format);
        }
    }
}

fn encoded_headers(record: &OwnedRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in &record.headers {
        write_header(&mut bytes, name, value.as_deref());
    }
    bytes
}

/// The next record's bytes, and what follows its newline.
fn take(rest: &[u8], value: ValueLen) -> Option<(&[u8], &[u8])> {
    let len = match value {
        ValueLen::Line => memchr::memchr(b'\n', rest)?,
        ValueLen::Bytes(len) => usize::try_from(len).ok()?,
        ValueLen::Null => 0,
    };
    let (line, after) = rest.split_at_checked(len)?;
    after.strip_prefix(b"\n").map(|after| (line, after))
}

/// What the frame table says of the frame follows from its record table.
fn check_table(seed: u64, frame: &FrameEntry, table: &[RecordEntry]) -> Result<(), String> {
    let mut sum = 0u128;
    let mut runs: BTreeMap<i32, FramePartition> = BTreeMap::new();
    for &RecordEntry { partition, offset, .. } in table {
        sum = sum.wrapping_add(offset_hash(seed, partition, offset));
        let run = runs.entry(partition).or_insert(FramePartition { partition, first: offset, last: offset, count: 0 });
        if run.count > 0 && offset <= run.last {
            return Err(format!("partition {partition} goes back from offset {} to {offset}", run.last));
        }
        run.last = offset;
        run.count += 1;
    }
    if sum != frame.sum || !frame.partitions.iter().eq(runs.values()) {
        return Err("its record table holds other offsets than the frame table says".to_owned());
    }
    Ok(())
}
