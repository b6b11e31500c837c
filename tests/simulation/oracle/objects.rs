//! What is in an object, read as a reader would.
//!
//! Owns: the records of an object and of its sidecar. Does not own: which ones it should hold.

use std::collections::BTreeMap;

use sluice::archive::codec::{Codec, decode_frame};
use sluice::archive::index::{self, Index, IndexRead, read_index, read_record_table};

use super::Place;
use crate::store::Object;

pub(super) fn index_of(codec: Codec, bytes: &[u8]) -> Result<Index, String> {
    match read_index(codec, bytes.len() as u64, bytes) {
        Ok(IndexRead::Index(index)) => Ok(*index),
        Ok(IndexRead::NeedMore { len }) => Err(format!("the index needs {len} bytes")),
        Err(error) => Err(error.to_string()),
    }
}

/// The records of an object, in file order: from its index, which takes all to be of the first generation, or from its lines,
/// and then the index must agree; plain files have their index elsewhere.
pub fn records_of(key: &str, bytes: &[u8], decompress: bool) -> Result<Vec<Place>, String> {
    let codec = index::codec_of_key(key);
    let mut read = Vec::new();
    if codec == Codec::None {
        lines(bytes, &mut read)?;
        return Ok(read);
    }
    let index = index_of(codec, bytes)?;
    let told = told_by(&index, bytes)?;
    if decompress {
        for frame in &index.frames {
            let (start, end) = (frame.offset as usize, (frame.offset + frame.stored_len) as usize);
            let raw = decode_frame(codec, &bytes[start..end], frame.raw_len as usize).map_err(|e| e.to_string())?;
            lines(&raw, &mut read)?;
        }
        if !agree(&told, &read) {
            return Err(format!("its index tells of {told:?}, it holds {read:?}"));
        }
        return Ok(read);
    }
    Ok(told.into_iter().map(|(partition, offset)| (partition, offset, 0)).collect())
}

/// The records that the index of a file tells of.
fn told_by(index: &Index, bytes: &[u8]) -> Result<Vec<(i32, i64)>, String> {
    let mut told = Vec::new();
    for frame in &index.frames {
        let ranges = index.table_ranges(frame);
        let stored: Vec<u8> =
            ranges.iter().flat_map(|range| bytes[range.start as usize..range.end as usize].iter().copied()).collect();
        let table = read_record_table(frame, &stored).map_err(|error| error.to_string())?;
        told.extend(table.iter().map(|entry| (entry.partition, entry.offset)));
    }
    Ok(told)
}

fn agree(told: &[(i32, i64)], records: &[Place]) -> bool {
    told.iter().copied().eq(records.iter().map(|&(partition, offset, _)| (partition, offset)))
}

fn lines(raw: &[u8], places: &mut Vec<Place>) -> Result<(), String> {
    let text = std::str::from_utf8(raw).map_err(|error| error.to_string())?;
    for line in text.lines() {
        let place = line.split_once("at=").and_then(|(_, rest)| rest.split_once(';')).and_then(|(place, _)| {
            let (partition, rest) = place.split_once(':')?;
            let (offset, generation) = rest.split_once(':')?;
            Some((partition.parse().ok()?, offset.parse().ok()?, generation.parse().ok()?))
        });
        places.push(place.ok_or_else(|| format!("a line that is no record: {line}"))?);
    }
    Ok(())
}

/// Whether the sidecar of a plain file tells of the records that are in it.
pub(super) fn sidecar_fits(key: &str, all: &BTreeMap<String, Object>, records: &[Place]) -> bool {
    let sidecar = all.get(&index::sidecar_key(key));
    let told = sidecar.map(|sidecar| told_by(&index_of(Codec::None, &sidecar.bytes)?, &sidecar.bytes));
    told.is_some_and(|told| told.is_ok_and(|told| agree(&told, records)))
}
