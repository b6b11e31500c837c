//! The records inside a batch, as ranges of the (decompressed) bytes: nothing is copied.
//!
//! Owns: the record framing of format v2, and which records of a batch are shown. Does not own: compression, transactions.

use crate::kafka::native::batch::{Batch, BatchError};
use crate::record::Span;

/// Length, attributes, two deltas, key length, value length, header count: a byte each.
pub const LEAST_BYTES: usize = 7;
/// Most records of one batch. Empty ones compress to almost nothing, and each takes a span here: without a limit a batch of
/// a producer's usual size could take gigabytes.
const RECORDS_MAX: usize = 2 * 1024 * 1024;

/// Appends the spans of the records at or above `from` to `spans`. The batch's records are `data[start..]`.
///
/// # Errors
/// A length or delta that doesn't fit; `spans` then holds a part.
pub fn decode(batch: &Batch, data: &[u8], start: usize, from: i64, spans: &mut Vec<Span>) -> Result<(), BatchError> {
    let damaged = |what| BatchError::Record { base_offset: batch.base_offset, what };
    // A span has 32 bits for a place.
    if u32::try_from(data.len()).is_err() {
        return Err(damaged("more than 4 GiB"));
    }
    let count = batch.count as usize;
    if count > RECORDS_MAX {
        return Err(damaged("more records than a batch may hold"));
    }
    if count > data.len().saturating_sub(start) / LEAST_BYTES {
        return Err(damaged("more records than bytes"));
    }
    spans.reserve(count);
    let mut cursor = Cursor { data, at: start };
    let mut next_delta = 0;
    for _ in 0..count {
        let (delta, span) = record(batch, &mut cursor).map_err(damaged)?;
        if delta < next_delta || span.offset > batch.last_offset {
            return Err(damaged("offsets out of order"));
        }
        next_delta = delta + 1;
        if span.offset >= from {
            spans.push(span);
        }
    }
    if cursor.at != data.len() {
        return Err(damaged("bytes left after the last record"));
    }
    Ok(())
}

#[inline(always)]
fn record(batch: &Batch, cursor: &mut Cursor<'_>) -> Result<(i64, Span), &'static str> {
    let length = cursor.length()?.ok_or("negative record length")?;
    let end = cursor.at.checked_add(length).filter(|&end| end <= cursor.data.len()).ok_or("record past the end")?;
    // Inside a record no length may reach into the next one.
    let mut inside = Cursor { data: &cursor.data[..end], at: cursor.at };
    inside.skip(1)?;
    let timestamp_delta = inside.varint()?;
    let delta = inside.varint()?;
    let key = inside.bytes()?;
    let value = inside.bytes()?;
    let header_count = inside.length()?.ok_or("negative header count")?;
    let headers_at = inside.at;
    // Two lengths each.
    if header_count > (end - headers_at) / 2 {
        return Err("more headers than bytes");
    }
    for _ in 0..header_count {
        inside.bytes()?.ok_or("null header name")?;
        inside.bytes()?;
    }
    if inside.at != end {
        return Err("bytes left after a record");
    }
    cursor.at = end;
    let offset = batch.base_offset.checked_add(delta).ok_or("impossible offset")?;
    let timestamp_ms = if batch.is_log_append_time() {
        batch.max_timestamp
    } else {
        batch.base_timestamp.checked_add(timestamp_delta).ok_or("impossible timestamp")?
    };
    let headers = (headers_at as u32, (end - headers_at) as u32);
    Ok((delta, Span { offset, timestamp_ms, key, value, headers, header_count: header_count as u32 }))
}

/// The type in a control batch's first record: 0 abort, 1 commit, others for brokers among themselves.
///
/// # Errors
/// The record is damaged.
pub fn control_type(batch: &Batch) -> Result<Option<i16>, BatchError> {
    // Compaction leaves markers without records.
    if batch.count == 0 {
        return Ok(None);
    }
    let damaged = |what| BatchError::Record { base_offset: batch.base_offset, what };
    let payload = batch.payload();
    let (_, span) = record(batch, &mut Cursor { data: &payload, at: 0 }).map_err(damaged)?;
    let (start, length) = span.key.ok_or(damaged("control record without a key"))?;
    let key = payload.get(start as usize..start as usize + length as usize).unwrap_or_default();
    match key {
        [_, _, high, low, ..] => Ok(Some(i16::from_be_bytes([*high, *low]))),
        _ => Err(damaged("control record with a short key")),
    }
}

struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn skip(&mut self, bytes: usize) -> Result<(), &'static str> {
        let at = self.at.checked_add(bytes).filter(|&at| at <= self.data.len()).ok_or("record ends early")?;
        self.at = at;
        Ok(())
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<i64, &'static str> {
        let &first = self.data.get(self.at).ok_or("record ends early")?;
        self.at += 1;
        if first < 0x80 {
            return Ok(unzigzag(u64::from(first)));
        }
        let mut raw = u64::from(first & 0x7f);
        for shift in (7..70).step_by(7) {
            let &byte = self.data.get(self.at).ok_or("record ends early")?;
            self.at += 1;
            raw |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(unzigzag(raw));
            }
        }
        Err("number of more than 10 bytes")
    }

    /// A length or count; -1 is `None`.
    #[inline(always)]
    fn length(&mut self) -> Result<Option<usize>, &'static str> {
        match self.varint()? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .ok()
                .filter(|&length| i32::try_from(length).is_ok())
                .map(Some)
                .ok_or("impossible length"),
        }
    }

    #[inline(always)]
    fn bytes(&mut self) -> Result<Option<(u32, u32)>, &'static str> {
        let Some(length) = self.length()? else { return Ok(None) };
        let start = self.at;
        self.skip(length)?;
        Ok(Some((start as u32, length as u32)))
    }
}

#[inline(always)]
fn unzigzag(raw: u64) -> i64 {
    ((raw >> 1) as i64) ^ -((raw & 1) as i64)
}
