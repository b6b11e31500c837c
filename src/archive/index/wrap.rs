//! How the index hides from ordinary tools: skippable frames, extra fields of empty gzip members, a sidecar.
//!
//! Owns: the mapping between the index's own bytes (tables, frame table, locator) and bytes of the file.
//! Does not own: what the bytes say.

use std::io::{self, Write};
use std::ops::Range;

use super::IndexError;
use crate::archive::codec::Codec;

/// Skippable frames of lz4 and zstd: one of the sixteen magics that both formats reserve for users.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SKIPPABLE_HEADER: u64 = 8;

/// A gzip member without data, whose extra field has one subfield: 10 bytes header, 2 length of the field, 2 id, 2 length of
/// the subfield; after the subfield 2 bytes of empty deflate stream and 8 of checksum and length.
const MEMBER_BEFORE: u64 = 16;
const MEMBER_AFTER: u64 = 10;
/// Payload of a full member. The field's length has 16 bits, but DuckDB refuses headers of more than 32 KiB.
const MEMBER_PAYLOAD: u64 = 32_000;
/// That of files in format version 1.
const MEMBER_PAYLOAD_V1: u64 = 65_000;
const SUBFIELD_ID: [u8; 2] = *b"SL";

/// Sizes of the index's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub tables: u64,
    pub frame_table: u64,
    /// Format version of the file.
    pub version: u16,
}

impl Parts {
    fn member_payload(self) -> u64 {
        if self.version < 2 { MEMBER_PAYLOAD_V1 } else { MEMBER_PAYLOAD }
    }
}

/// Bytes of the locator, the last part.
pub(super) const LOCATOR_LEN: u64 = 56;

/// Bytes that the locator and what follows it take at the end of the file.
pub(super) fn locator_tail_len(codec: Codec) -> u64 {
    match codec {
        Codec::Gzip => MEMBER_BEFORE + LOCATOR_LEN + MEMBER_AFTER,
        _ => LOCATOR_LEN,
    }
}

/// Where the locator lies in the last [`locator_tail_len`] bytes.
pub(super) fn locator_in_tail(codec: Codec, tail: &[u8]) -> Option<&[u8]> {
    let len = usize::try_from(locator_tail_len(codec)).ok()?;
    let tail = tail.get(tail.len().checked_sub(len)?..)?;
    match codec {
        Codec::Gzip => {
            let before = usize::try_from(MEMBER_BEFORE).ok()?;
            let after = usize::try_from(MEMBER_AFTER).ok()?;
            tail.get(before..tail.len() - after)
        }
        _ => Some(tail),
    }
}

/// Bytes that the whole index takes behind the data.
pub(super) fn wrapped_len(codec: Codec, parts: Parts) -> u64 {
    let body = parts.tables + parts.frame_table;
    match codec {
        Codec::Lz4 | Codec::Zstd => 2 * SKIPPABLE_HEADER + body + LOCATOR_LEN,
        Codec::Gzip => {
            body + body.div_ceil(parts.member_payload()) * (MEMBER_BEFORE + MEMBER_AFTER) + locator_tail_len(codec)
        }
        Codec::None => body + LOCATOR_LEN,
    }
}

/// The file's byte ranges that hold a range of the body (tables, then frame table); `start` is where the index begins.
pub(super) fn ranges(codec: Codec, parts: Parts, start: u64, body: Range<u64>) -> Vec<Range<u64>> {
    match codec {
        Codec::None => {
            let shifted = start + body.start..start + body.end;
            vec![shifted]
        }
        Codec::Lz4 | Codec::Zstd => {
            // Nobody asks for a range across the border of the two.
            let header = if body.start < parts.tables { SKIPPABLE_HEADER } else { 2 * SKIPPABLE_HEADER };
            let shifted = start + header + body.start..start + header + body.end;
            vec![shifted]
        }
        Codec::Gzip => {
            let payload = parts.member_payload();
            let mut found = Vec::new();
            let mut at = body.start;
            while at < body.end {
                let member = at / payload;
                let end = body.end.min((member + 1) * payload);
                let shift = start + member * (MEMBER_BEFORE + MEMBER_AFTER) + MEMBER_BEFORE;
                found.push(shift + at..shift + end);
                at = end;
            }
            found
        }
    }
}

/// Writes the index behind the data.
pub(super) fn write(
    codec: Codec,
    parts: Parts,
    tables: &[u8],
    frame_table: &[u8],
    locator: &[u8],
    out: &mut impl Write,
) -> Result<(), IndexError> {
    let written = match codec {
        Codec::None => [tables, frame_table, locator].into_iter().try_for_each(|part| out.write_all(part)),
        Codec::Lz4 | Codec::Zstd => {
            skippable(&[tables], out)?;
            skippable(&[frame_table, locator], out)?;
            Ok(())
        }
        Codec::Gzip => {
            let body = [tables, frame_table].concat();
            let payload = usize::try_from(parts.member_payload()).unwrap_or(usize::MAX);
            body.chunks(payload).chain([locator]).try_for_each(|part| member(part, out))
        }
    };
    written.map_err(|error| IndexError::TooBig(error.to_string()))
}

fn skippable(parts: &[&[u8]], out: &mut impl Write) -> Result<(), IndexError> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len).map_err(|_| IndexError::TooBig(format!("{len} bytes in one skippable frame")))?;
    let header = [SKIPPABLE_MAGIC.to_le_bytes(), len.to_le_bytes()].concat();
    let all = [header.as_slice()].into_iter().chain(parts.iter().copied());
    all.into_iter().try_for_each(|part| out.write_all(part)).map_err(|error| IndexError::TooBig(error.to_string()))
}

fn member(payload: &[u8], out: &mut impl Write) -> io::Result<()> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let len = u16::try_from(payload.len()).map_err(too_long)?;
    let field = len.checked_add(4).ok_or(io::ErrorKind::InvalidInput)?;
    out.write_all(&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255])?;
    out.write_all(&field.to_le_bytes())?;
    out.write_all(&SUBFIELD_ID)?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(payload)?;
    // An empty deflate stream, then checksum and length of nothing.
    out.write_all(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}
