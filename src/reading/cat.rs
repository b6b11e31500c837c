//! Records as they lie, or one JSON line each.
//!
//! Owns: what `cat` makes of a batch, a record as a line of the json format from any file.
//! Does not own: the format's bytes ([`crate::archive::format`]).

use super::batch::{Batch, Place};
use super::file::OpenFile;
use super::reader::Work;
use crate::archive::format::{Format, write_record};
use crate::record::{Headers, Record};

/// `cat`.
#[derive(Clone, Copy, Debug)]
pub struct Cat {
    /// One line of the json format for each record, also from raw files.
    pub json: bool,
}

impl Work for Cat {
    type Out = Vec<u8>;

    fn needs_records(&self, format: Format) -> bool {
        self.json && format == Format::Raw
    }

    fn work(&self, batch: Batch) -> Vec<u8> {
        if !self.json {
            return batch.into_text().0;
        }
        match batch.records() {
            Some(records) => {
                let mut out = Vec::with_capacity(batch.raw_len() + records.len() * 128);
                records.iter().for_each(|place| json_record(&batch, place, &mut out));
                out
            }
            None => {
                let is_json = batch.files.first().is_some_and(|file| is_json(file));
                let text = batch.into_text().0;
                if is_json { text } else { json_lines(&text) }
            }
        }
    }
}

/// Whether the lines of a file are JSON already.
pub(super) fn is_json(file: &OpenFile) -> bool {
    match &file.index {
        Some(index) => index.facts.format == Format::Json,
        None => file.entry.key.contains(".jsonl") || file.entry.key.contains(".ndjson"),
    }
}

/// Appends a record as one line of the json format.
pub(super) fn json_record(batch: &Batch, place: &Place, out: &mut Vec<u8>) {
    let bytes = batch.bytes(place);
    let Some(index) = batch.file(place).and_then(|file| file.index.as_ref()) else { return };
    match index.facts.format {
        Format::Json => {
            out.extend_from_slice(bytes);
            out.push(b'\n');
        }
        Format::Raw => {
            let record = Record {
                partition: place.partition,
                offset: place.offset,
                timestamp_ms: place.timestamp_ms,
                key: None,
                value: Some(bytes).filter(|_| !place.is_null),
                headers: Headers::default(),
            };
            write_record(Format::Json, &index.facts.topic, &record, out);
        }
    }
}

/// Lines of unknown origin: of all that a record has they are only a value.
pub(super) fn json_lines(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let value = String::from_utf8_lossy(line);
        out.extend_from_slice(b"{\"value\":");
        // Text serializes always.
        out.extend(serde_json::to_vec(&value).unwrap_or_default());
        out.extend_from_slice(b"}\n");
    }
    out
}
