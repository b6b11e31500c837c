//! Fetching frames.
//!
//! Owns: which frames share a request, their record tables, the ranges. Does not own: how much is fetched ahead.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::ReadError;
use super::batch::Fetched;
use super::counted::Counters;
use super::file::OpenFile;
use super::place::Place;
use crate::archive::codec::Codec;
use crate::archive::index::{FrameEntry, sidecar_key};
use crate::store::{ByteRange, Got};

/// Frames next to each other are fetched together up to this, stored and raw: enough for a request to be worth its latency,
/// little enough for several in flight.
const RUN_STORED_BYTES: u64 = 2 << 20;
const RUN_RAW_BYTES: u64 = 16 << 20;

/// Cuts frames of a file (by number, ascending) into runs that are fetched by one request each.
pub fn runs(file: &OpenFile, frames: &[usize]) -> Vec<Vec<usize>> {
    let Some(index) = &file.index else { return Vec::new() };
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let (mut stored, mut raw) = (0u64, 0u64);
    for &number in frames {
        let Some(frame) = index.frames.get(number) else { continue };
        stored = stored.saturating_add(frame.stored_len);
        raw = raw.saturating_add(frame.raw_len);
        match runs.last_mut() {
            Some(run)
                if run.last().is_some_and(|last| last + 1 == number)
                    && stored <= RUN_STORED_BYTES
                    && raw <= RUN_RAW_BYTES =>
            {
                run.push(number);
            }
            _ => {
                (stored, raw) = (frame.stored_len, frame.raw_len);
                runs.push(vec![number]);
            }
        }
    }
    runs
}

/// Fetches a run of frames, and the record tables of those that need one.
///
/// # Errors
/// The store; the file changed or is gone, or its ranges are not there.
pub async fn fetch(
    place: &Place,
    file: &Arc<OpenFile>,
    run: &[usize],
    needs_table: impl Fn(&FrameEntry) -> bool,
) -> Result<Vec<Fetched>, ReadError> {
    let Some(index) = &file.index else { return Ok(Vec::new()) };
    let frames: Vec<&FrameEntry> = run.iter().filter_map(|&number| index.frames.get(number)).collect();
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return Ok(Vec::new()) };
    let data = first.offset..last.offset.saturating_add(last.stored_len);
    let ranges: Vec<Option<Vec<Range<u64>>>> =
        frames.iter().map(|frame| needs_table(frame).then(|| index.table_ranges(frame))).collect();
    let flat = || ranges.iter().flatten().flatten();
    let tables = flat().map(|range| range.start).min().zip(flat().map(|range| range.end).max());
    let tables = tables.map_or(0..0, |(start, end)| start..end);
    let (stored, tables_bytes) =
        futures::future::try_join(get(place, file, false, &data), get(place, file, true, &tables)).await?;
    Counters::add(&place.counters.frames, frames.len() as u64);
    let cut = |bytes: &Bytes, base: u64, range: &Range<u64>| {
        let at = |at: u64| usize::try_from(at.saturating_sub(base)).unwrap_or(usize::MAX);
        // Both were asked for in full, and `get` compared the lengths.
        bytes.slice(at(range.start).min(bytes.len())..at(range.end).min(bytes.len()))
    };
    let fetched = frames.iter().zip(&ranges).map(|(frame, ranges)| {
        let table = ranges.as_ref().map(|ranges| match ranges.as_slice() {
            [range] => cut(&tables_bytes, tables.start, range),
            ranges => {
                let pieces: Vec<Bytes> = ranges.iter().map(|range| cut(&tables_bytes, tables.start, range)).collect();
                Bytes::from(pieces.concat())
            }
        });
        let range = frame.offset..frame.offset.saturating_add(frame.stored_len);
        let stored = cut(&stored, data.start, &range);
        Fetched { file: Arc::clone(file), frame: (*frame).clone(), stored, table }
    });
    Ok(fetched.collect())
}

async fn get(place: &Place, file: &OpenFile, is_table: bool, range: &Range<u64>) -> Result<Bytes, ReadError> {
    let len = range.end.saturating_sub(range.start);
    if len == 0 {
        return Ok(Bytes::new());
    }
    let key = match (is_table, file.codec) {
        (true, Codec::None) => sidecar_key(&file.entry.key),
        _ => file.entry.key.clone(),
    };
    let wanted = ByteRange::From { start: range.start, len };
    let got: Option<Got> = place.store.get(&key, wanted, file.etag.as_deref()).await?;
    let url = place.store.url().to_owned();
    let Some(got) = got else { return Err(ReadError::Gone { url, key }) };
    if got.bytes.len() as u64 != len {
        let why = format!("bytes {} to {} are not there: it has {}", range.start, range.end, got.size);
        return Err(ReadError::Damaged { url, key: file.entry.key.clone(), why });
    }
    Ok(got.bytes)
}
