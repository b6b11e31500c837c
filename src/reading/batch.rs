//! Decompressed records, in the order in which they are given out.
//!
//! Owns: a frame's bytes checked and cut into records, leaving out records, merging frames that overlap.
//! Does not own: fetching ([`super::fetch`]), what becomes of the records.

use std::sync::Arc;

use bytes::Bytes;
use jiff::tz::TimeZone;

use super::ReadError;
use super::file::OpenFile;
use super::survey::MAX_FRAME_BYTES;
use super::times::Times;
use crate::archive::codec::decode_frame;
use crate::archive::format::{Format, parse_json_line};
use crate::archive::index::{FrameEntry, IndexError, RecordEntry, ValueLen, read_record_table};
use crate::config::{Bucket, TimeFrom, TimeRule};
use crate::pipeline::event_time::EventTimes;
use crate::record::{Headers, Record};

/// A frame as it was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub file: Arc<OpenFile>,
    pub frame: FrameEntry,
    pub stored: Bytes,
    /// The stored record table, where it is needed.
    pub table: Option<Bytes>,
}

/// A record within a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the batch's files.
    pub source: u32,
    /// Where its bytes lie, without the newline that ends them.
    pub start: u32,
    pub end: u32,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    /// A raw record whose value is null.
    pub is_null: bool,
}

/// Records of one frame, or of several that were merged; or text of a file without an index.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub files: Vec<Arc<OpenFile>>,
    raw: Vec<u8>,
    /// `None`: not needed; all of `raw`.
    records: Option<Vec<Place>>,
    /// `raw` is not just the records in their order.
    picked: bool,
}

impl Fetched {
    fn damaged(&self, url: &str, why: impl std::fmt::Display) -> ReadError {
        let (url, key) = (url.to_owned(), self.file.entry.key.clone());
        let range = self.frame.offset..self.frame.offset.saturating_add(self.frame.stored_len);
        let why = format!("the frame in bytes {} to {}: {why}", range.start, range.end);
        ReadError::Damaged { url, key, why }
    }

    /// Checks and decompresses the frame.
    ///
    /// # Errors
    /// It is not what the index describes.
    pub fn decode(self, url: &str) -> Result<Batch, ReadError> {
        if crc32c::crc32c(&self.stored) != self.frame.crc {
            return Err(self.damaged(url, "its checksum differs"));
        }
        let len = usize::try_from(self.frame.raw_len).unwrap_or(usize::MAX);
        if self.frame.raw_len > MAX_FRAME_BYTES {
            return Err(self.damaged(url, format!("it claims {len} bytes")));
        }
        let raw = decode_frame(self.file.codec, &self.stored, len).map_err(|error| self.damaged(url, error))?;
        let records = match &self.table {
            None => None,
            Some(table) => {
                let entries = read_record_table(&self.frame, table).map_err(|error| self.damaged(url, error))?;
                Some(places(&raw, &entries).map_err(|error| self.damaged(url, error))?)
            }
        };
        Ok(Batch { files: vec![self.file], raw, records, picked: false })
    }
}

/// Where the records of a frame lie in its bytes.
fn places(raw: &[u8], entries: &[RecordEntry]) -> Result<Vec<Place>, IndexError> {
    let damaged = |entry: &RecordEntry| {
        IndexError::Damaged(format!(
            "partition {} offset {} does not lie where its record table says",
            entry.partition, entry.offset
        ))
    };
    let mut places = Vec::with_capacity(entries.len());
    let mut start = 0usize;
    for entry in entries {
        let rest = raw.get(start..).unwrap_or_default();
        let len = match entry.value {
            ValueLen::Line => memchr::memchr(b'\n', rest),
            ValueLen::Bytes(len) => usize::try_from(len).ok(),
            ValueLen::Null => Some(0),
        };
        let len = len.filter(|&len| rest.get(len) == Some(&b'\n')).ok_or_else(|| damaged(entry))?;
        let end = start + len;
        let as_u32 = |at: usize| u32::try_from(at).map_err(|_| damaged(entry));
        places.push(Place {
            source: 0,
            start: as_u32(start)?,
            end: as_u32(end)?,
            partition: entry.partition,
            offset: entry.offset,
            timestamp_ms: entry.timestamp_ms,
            is_null: entry.value == ValueLen::Null,
        });
        start = end + 1;
    }
    if start != raw.len() {
        return Err(IndexError::Damaged(format!("{} bytes behind its last record", raw.len().abs_diff(start))));
    }
    Ok(places)
}

impl Batch {
    /// Whole lines of a file without an index.
    pub fn text_of(file: Arc<OpenFile>, raw: Vec<u8>) -> Self {
        Self { files: vec![file], raw, records: None, picked: false }
    }

    /// `None` where nobody asked for them, and for files without an index.
    pub fn records(&self) -> Option<&[Place]> {
        self.records.as_deref()
    }

    pub fn file(&self, place: &Place) -> Option<&OpenFile> {
        self.files.get(place.source as usize).map(Arc::as_ref)
    }

    /// The record as stored, without the newline that ends it.
    pub fn bytes(&self, place: &Place) -> &[u8] {
        self.raw.get(place.start as usize..place.end as usize).unwrap_or_default()
    }

    pub fn raw_len(&self) -> usize {
        self.raw.len()
    }

    /// Keeps some of the records. The table must have been fetched; without one everything stays.
    pub fn retain(&mut self, keep: impl FnMut(&Place) -> bool) {
        let Some(records) = &mut self.records else { return };
        let before = records.len();
        records.retain(keep);
        self.picked |= records.len() != before;
    }

    /// Topic of the first file.
    pub fn topic(&self) -> Arc<str> {
        let index = self.files.first().and_then(|file| file.index.as_ref());
        index.map_or_else(|| Arc::from(""), |index| Arc::from(index.facts.topic.as_str()))
    }

    /// All records as one text, each with its newline; and where each record lies in it, where that is known.
    pub fn into_text(self) -> (Vec<u8>, Option<Vec<Place>>) {
        match (self.records, self.picked) {
            (records, false) => (self.raw, records),
            (None, true) => (self.raw, None),
            (Some(records), true) => {
                let mut text = Vec::new();
                let mut places = Vec::with_capacity(records.len());
                for place in records {
                    let start = text.len();
                    text.extend_from_slice(self.raw.get(place.start as usize..place.end as usize).unwrap_or_default());
                    let end = text.len();
                    text.push(b'\n');
                    let at = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
                    places.push(Place { start: at(start), end: at(end), ..place });
                }
                (text, Some(places))
            }
        }
    }
}

/// Copies records of several batches into one, in the order in which they are picked.
#[derive(Debug, Default)]
pub struct Picker {
    files: Vec<Arc<OpenFile>>,
    raw: Vec<u8>,
    records: Vec<Place>,
}

impl Picker {
    /// All records of the batches by topic, incarnation, partition and offset.
    pub fn merge(batches: Vec<Batch>) -> Batch {
        let stream = |batch: &Batch| {
            let index = batch.files.first().and_then(|file| file.index.as_ref());
            index.map(|index| (index.facts.topic.clone(), index.facts.incarnation))
        };
        let mut streams: Vec<_> = batches.iter().map(stream).collect();
        streams.sort();
        streams.dedup();
        let mut all: Vec<(usize, Place, &Batch)> = Vec::new();
        for batch in &batches {
            let number = streams.binary_search(&stream(batch)).unwrap_or_default();
            all.extend(batch.records().unwrap_or_default().iter().map(|place| (number, *place, batch)));
        }
        all.sort_by_key(|(stream, place, _)| (*stream, place.partition, place.offset));
        let mut picker = Self::default();
        all.iter().for_each(|(_, place, batch)| picker.pick(batch, place));
        picker.finish()
    }

    pub fn raw_len(&self) -> usize {
        self.raw.len()
    }

    pub fn pick(&mut self, batch: &Batch, place: &Place) {
        let Some(file) = batch.files.get(place.source as usize) else { return };
        let source = match self.files.iter().rposition(|known| Arc::ptr_eq(known, file)) {
            Some(known) => known,
            None => {
                self.files.push(Arc::clone(file));
                self.files.len() - 1
            }
        };
        let start = self.raw.len();
        self.raw.extend_from_slice(batch.bytes(place));
        let end = self.raw.len();
        self.raw.push(b'\n');
        let at = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.records.push(Place { source: at(source), start: at(start), end: at(end), ..*place });
    }

    pub fn finish(self) -> Batch {
        Batch { files: self.files, raw: self.raw, records: Some(self.records), picked: false }
    }
}

/// Event times of a frame's records, in their order; `None`: no known rule gives the times that the index names. The rule is
/// the connector's of today, or Kafka's timestamps: settings may have changed since the frame was written.
pub fn event_times(batch: &Batch, frame: &FrameEntry, rule: Option<&TimeRule>) -> Option<Vec<i64>> {
    let kafka = TimeRule { from: TimeFrom::Record, zone: TimeZone::UTC, bucket: Bucket::None };
    let of_value = rule.filter(|rule| rule.from != TimeFrom::Record);
    [of_value, Some(&kafka)].into_iter().flatten().find_map(|rule| {
        let mut times = EventTimes::new(rule);
        let found: Vec<i64> = batch.records()?.iter().map(|place| time_of(batch, place, rule, &mut times)).collect();
        let range = (found.iter().min().copied()?, found.iter().max().copied()?);
        (range == (frame.min_time_ms, frame.max_time_ms)).then_some(found)
    })
}

fn time_of(batch: &Batch, place: &Place, rule: &TimeRule, times: &mut EventTimes) -> i64 {
    let bytes = batch.bytes(place);
    let format = batch.file(place).and_then(|file| file.index.as_ref()).map(|index| index.facts.format);
    let parsed = match format {
        Some(Format::Json) if rule.from != TimeFrom::Record => parse_json_line(bytes).ok().and_then(|line| line.value),
        _ => None,
    };
    let value = match format {
        Some(Format::Json) => parsed.as_deref(),
        _ => Some(bytes).filter(|_| !place.is_null),
    };
    times.time_ms(&Record {
        partition: place.partition,
        offset: place.offset,
        timestamp_ms: place.timestamp_ms,
        key: None,
        value,
        headers: Headers::default(),
    })
}

/// Leaves out what lies outside of `times`. `false`: the records' times are not known, so all of them stay.
pub fn keep_within(batch: &mut Batch, frame: &FrameEntry, times: &Times, rule: Option<&TimeRule>) -> bool {
    if times.covers(frame.min_time_ms, frame.max_time_ms) {
        return true;
    }
    let Some(found) = event_times(batch, frame, rule) else { return false };
    let mut found = found.into_iter();
    batch.retain(|_| found.next().is_some_and(|time| times.contains(time)));
    true
}
