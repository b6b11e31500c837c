//! App ids as path segments.
//!
//! Owns: the mapping of any byte string to one segment of an object key, and back.
//! Does not own: where an id comes from, the names that begin with `_` (`_unknown`, `_dead_letter`, sidecars): no id is ever
//! mapped to one of them.
//!
//! Three forms, told apart by what follows a `%`:
//! - plain: `A-Z a-z 0-9 . _ -` stay, every other byte is `%XX` in upper case, and so is a first `_` or `.`;
//! - hashed, where the plain form is too long: its first bytes, `%~` and the xxh3-128 of the whole id in 32 hex digits;
//! - [`EMPTY`] for the empty id.
//!
//! Stores that do not tell `a` from `A` are out of scope: ids that differ only in case share a folder there.

use std::borrow::Cow;

use twox_hash::XxHash3_128;

/// Longest segment in bytes; leaves room within the 255 bytes that file systems allow.
pub const MAX_BYTES: usize = 200;
/// Segment of the empty id.
pub const EMPTY: &str = "%empty";

const HASH_MARK: &str = "%~";
const HASH_DIGITS: usize = 32;

/// Maps an id to one safe path segment of at most [`MAX_BYTES`] ASCII bytes that begins with neither `_` nor `.`.
///
/// Total and pure. Two ids get the same segment only if both are hashed and their xxh3-128 collides. That hash is not
/// cryptographic: who makes up ids can make two of them share a folder, but not one overwrite the other's objects, whose
/// keys also hold topic, partition and offset.
pub fn path_segment(app_id: &[u8]) -> String {
    if app_id.is_empty() {
        return EMPTY.to_owned();
    }
    let mut segment = String::with_capacity(app_id.len().min(MAX_BYTES));
    // Where the hashed form would cut: the last border between encoded bytes that leaves room for the hash.
    let mut cut = 0;
    for (index, &byte) in app_id.iter().enumerate() {
        if index == 0 && matches!(byte, b'_' | b'.') || !stays(byte) {
            push_escaped(&mut segment, byte);
        } else {
            segment.push(char::from(byte));
        }
        if segment.len() <= MAX_BYTES - HASH_MARK.len() - HASH_DIGITS {
            cut = segment.len();
        }
        if segment.len() > MAX_BYTES {
            segment.truncate(cut);
            segment.push_str(HASH_MARK);
            segment.push_str(&format!("{:0HASH_DIGITS$x}", XxHash3_128::oneshot(app_id)));
            break;
        }
    }
    segment
}

/// The id that [`path_segment`] maps to this segment; `None` for a hashed one, for reserved names, and for any text that
/// `path_segment` never gives.
pub fn app_id_of_segment(segment: &str) -> Option<Vec<u8>> {
    if segment.len() > MAX_BYTES {
        return None;
    }
    let id = if segment == EMPTY { Cow::Borrowed([].as_slice()) } else { Cow::Owned(decode(segment.as_bytes())?) };
    // An id has one segment: text that only decodes to the id (lower-case digits, escapes without need) is not it.
    (path_segment(&id) == segment).then(|| id.into_owned())
}

fn stays(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn push_escaped(segment: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    segment.push('%');
    segment.push(char::from(DIGITS[usize::from(byte >> 4)]));
    segment.push(char::from(DIGITS[usize::from(byte & 0xf)]));
}

fn decode(segment: &[u8]) -> Option<Vec<u8>> {
    let mut id = Vec::with_capacity(segment.len());
    let mut bytes = segment.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(*bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            id.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            id.push(byte);
        }
    }
    Some(id)
}
