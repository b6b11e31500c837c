//! The record tables of a file's frames, several with one request.
//!
//! Owns: which bytes are fetched for them. Does not own: what they say ([`crate::archive::index`]).

use crate::archive::codec::Codec;
use crate::archive::index::{FrameEntry, Index, RecordEntry, read_record_table, sidecar_key};
use crate::reading::ReadError;
use crate::reading::file::OpenFile;
use crate::reading::place::Place;
use crate::store::ByteRange;

/// Tables fetched together: at most this many bytes, or one.
const BATCH_BYTES: u64 = 2 << 20;

/// Calls `each` with the records of the wanted frames, in their order.
///
/// # Errors
/// The file is damaged or changed, or the store fails.
pub async fn for_each_table(
    place: &Place,
    file: &OpenFile,
    index: &Index,
    wanted: impl Fn(&FrameEntry) -> bool,
    mut each: impl FnMut(&FrameEntry, Vec<RecordEntry>),
) -> Result<(), ReadError> {
    let wanted: Vec<&FrameEntry> = index.frames.iter().filter(|frame| wanted(frame)).collect();
    for batch in batches(&wanted) {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { continue };
        let len = last.table_offset + last.table_len - first.table_offset;
        // Frames that are not wanted and lie between have short tables; asking around them would cost more.
        let bytes = stored(place, file, index, &FrameEntry { table_len: len, ..(*first).clone() }).await?;
        for &frame in &batch {
            let at = usize::try_from(frame.table_offset - first.table_offset).unwrap_or(usize::MAX);
            let end = at.saturating_add(usize::try_from(frame.table_len).unwrap_or(usize::MAX));
            let records =
                bytes.get(at..end).ok_or_else(|| damaged(place, file, "a record table is cut")).and_then(|stored| {
                    read_record_table(frame, stored).map_err(|error| damaged(place, file, &error.to_string()))
                })?;
            each(frame, records);
        }
    }
    Ok(())
}

/// Frames whose tables are fetched together.
fn batches<'f>(wanted: &[&'f FrameEntry]) -> Vec<Vec<&'f FrameEntry>> {
    let mut batches: Vec<Vec<&FrameEntry>> = Vec::new();
    for &frame in wanted {
        let fits = batches.last().and_then(|batch| batch.first()).is_some_and(|first| {
            (frame.table_offset + frame.table_len).saturating_sub(first.table_offset) <= BATCH_BYTES
        });
        match batches.last_mut() {
            Some(batch) if fits => batch.push(frame),
            _ => batches.push(vec![frame]),
        }
    }
    batches
}

/// The stored bytes of a stretch of record tables.
async fn stored(place: &Place, file: &OpenFile, index: &Index, stretch: &FrameEntry) -> Result<Vec<u8>, ReadError> {
    let ranges = index.table_ranges(stretch);
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(Vec::new()) };
    let plain = file.codec == Codec::None;
    let key = if plain { sidecar_key(&file.entry.key) } else { file.entry.key.clone() };
    let range = ByteRange::From { start: first.start, len: last.end - first.start };
    let got = place.store.get(&key, range, file.etag.as_deref()).await?;
    let Some(got) = got else { return Err(ReadError::Gone { url: place.store.url().to_owned(), key }) };
    let mut bytes = Vec::with_capacity(usize::try_from(stretch.table_len).unwrap_or_default().min(got.bytes.len()));
    for part in &ranges {
        let at = |place: u64| usize::try_from(place - first.start).unwrap_or(usize::MAX);
        let part = got.bytes.get(at(part.start)..at(part.end));
        bytes.extend_from_slice(part.ok_or_else(|| damaged(place, file, "its record tables are cut"))?);
    }
    Ok(bytes)
}

pub(super) fn damaged(place: &Place, file: &OpenFile, why: &str) -> ReadError {
    ReadError::Damaged { url: place.store.url().to_owned(), key: file.entry.key.clone(), why: why.to_owned() }
}
