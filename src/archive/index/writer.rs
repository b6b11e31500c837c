//! Writing the index behind the last frame.
//!
//! Owns: frame table and locator. Does not own: how they are wrapped ([`super::wrap`]).

use std::io::Write;

use super::contexts;
use super::entries::{read_entry, write_entry};
use super::wrap::{self, LOCATOR_LEN, Parts};
use super::{FORMAT_VERSION, FileFacts, IndexError};
use crate::archive::codec::Codec;
use crate::archive::varint::{Cursor, write_unsigned};

pub(super) const MAGIC: &[u8; 8] = b"SLUICEIX";

/// Writes what follows the last frame of a file, or for plain files the whole sidecar.
///
/// `entries` is what [`super::append_frame`] made, frame by frame; `data_len` the length of all frames.
///
/// # Errors
/// Entries that are not such, an index beyond 4 GiB, or `out` fails.
pub fn write_tail(
    codec: Codec,
    facts: &FileFacts,
    entries: &[u8],
    data_len: u64,
    out: &mut impl Write,
) -> Result<(), IndexError> {
    write_version(version_of(codec), codec, facts, entries, data_len, out)
}

/// The oldest version that tells how the file is made, so that older programs read what they can.
fn version_of(codec: Codec) -> u16 {
    if codec == Codec::Gzip { FORMAT_VERSION } else { 1 }
}

pub(super) fn write_version(
    version: u16,
    codec: Codec,
    facts: &FileFacts,
    entries: &[u8],
    data_len: u64,
    out: &mut impl Write,
) -> Result<(), IndexError> {
    let mut tables = Vec::new();
    let mut frames = Vec::new();
    let mut count = 0u64;
    let mut cursor = Cursor(entries);
    while !cursor.is_empty() {
        let entry = read_entry(&mut cursor, tables.len() as u64)?;
        let len = usize::try_from(entry.table_len).map_err(|error| IndexError::TooBig(error.to_string()))?;
        tables.extend_from_slice(cursor.bytes(len)?);
        write_entry(&mut frames, &entry);
        count += 1;
    }
    let facts = serde_json::to_vec(facts).map_err(|error| IndexError::TooBig(error.to_string()))?;
    let mut raw = Vec::with_capacity(facts.len() + frames.len() + 16);
    write_unsigned(&mut raw, facts.len() as u64);
    raw.extend_from_slice(&facts);
    write_unsigned(&mut raw, count);
    raw.extend_from_slice(&frames);
    let frame_table = contexts::compress(&raw)
        .map_err(|error| IndexError::TooBig(format!("the frame table can't be compressed: {error}")))?;
    let parts = Parts { tables: tables.len() as u64, frame_table: frame_table.len() as u64, version };
    let locator = locator(codec, parts, raw.len() as u64, data_len, crc32c::crc32c(&frame_table));
    wrap::write(codec, parts, &tables, &frame_table, &locator, out)
}

/// The last bytes: where everything is. Fixed in size and place for all versions to come.
fn locator(codec: Codec, parts: Parts, frame_table_raw_len: u64, data_len: u64, frame_table_crc: u32) -> Vec<u8> {
    let mut locator = Vec::with_capacity(usize::try_from(LOCATOR_LEN).unwrap_or_default());
    for number in [data_len, parts.tables, parts.frame_table, frame_table_raw_len] {
        locator.extend_from_slice(&number.to_le_bytes());
    }
    locator.extend_from_slice(&frame_table_crc.to_le_bytes());
    locator.extend_from_slice(&parts.version.to_le_bytes());
    locator.extend_from_slice(&[codec_code(codec), 0, 0, 0, 0, 0]);
    locator.extend_from_slice(&crc32c::crc32c(&locator).to_le_bytes());
    locator.extend_from_slice(MAGIC);
    locator
}

pub(super) fn codec_code(codec: Codec) -> u8 {
    match codec {
        Codec::None => 0,
        Codec::Lz4 => 1,
        Codec::Zstd => 2,
        Codec::Gzip => 3,
    }
}
