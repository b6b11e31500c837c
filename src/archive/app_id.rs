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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ids around every border: plain ones, ones that need escapes, ones near and beyond the longest segment.
    fn id() -> impl Strategy<Value = Vec<u8>> {
        let plain = proptest::collection::vec(prop_oneof![Just(b'_'), Just(b'.'), Just(b'-'), b'a'..=b'c'], 0..6);
        let mixed = proptest::collection::vec(any::<u8>(), 0..80);
        let long = (60usize..210, any::<u8>(), any::<u8>()).prop_map(|(len, byte, last)| {
            let mut id = vec![byte; len];
            id.push(last);
            id
        });
        prop_oneof![plain, mixed, long]
    }

    fn hashed(segment: &str) -> bool {
        segment.contains(HASH_MARK)
    }

    proptest! {
        #[test]
        fn a_segment_is_safe_and_leads_back(id in id()) {
            let segment = path_segment(&id);
            prop_assert!(!segment.is_empty() && segment.len() <= MAX_BYTES);
            prop_assert!(!segment.starts_with(['_', '.']));
            prop_assert!(segment.bytes().all(|byte| stays(byte) || matches!(byte, b'%' | b'~')), "{}", segment);
            prop_assert_eq!(app_id_of_segment(&segment), (!hashed(&segment)).then_some(id));
        }

        #[test]
        fn ids_have_segments_of_their_own(one in id(), other in id()) {
            prop_assert_eq!(one == other, path_segment(&one) == path_segment(&other));
        }

        #[test]
        fn a_segment_that_leads_back_is_the_id_s_own(segment in "[%~A-Fa-f0-9_.xé/]{0,8}") {
            if let Some(id) = app_id_of_segment(&segment) {
                prop_assert_eq!(path_segment(&id), segment);
            }
        }
    }

    #[test]
    fn known_segments() {
        let cases: [(&[u8], &str); 12] = [
            (b"payments", "payments"),
            (b"Pay-Ments_2.0", "Pay-Ments_2.0"),
            (b"", "%empty"),
            (b"%empty", "%25empty"),
            (b".", "%2E"),
            (b"..", "%2E."),
            (b"_unknown", "%5Funknown"),
            (b"_sluice", "%5Fsluice"),
            (b"a/b\\c", "a%2Fb%5Cc"),
            (b"a\0b c~", "a%00b%20c%7E"),
            ("é".as_bytes(), "%C3%A9"),
            (b"\xff", "%FF"),
        ];
        for (id, segment) in cases {
            assert_eq!(path_segment(id), segment);
            assert_eq!(app_id_of_segment(segment).as_deref(), Some(id), "{segment}");
        }
    }

    #[test]
    fn text_that_is_no_segment_has_no_id() {
        for text in
            ["", "%", "%4", "%zz", "%2f", "%41", "%~", "_unknown", "_dead_letter", ".", "..", ".a", "a/b", "a b", "é"]
        {
            assert_eq!(app_id_of_segment(text), None, "{text}");
        }
        assert_eq!(app_id_of_segment(&"a".repeat(MAX_BYTES + 1)), None);
    }

    #[test]
    fn only_what_is_too_long_is_hashed() {
        let longest = vec![b'a'; MAX_BYTES];
        assert_eq!(path_segment(&longest), "a".repeat(MAX_BYTES));
        let longer = vec![b'a'; MAX_BYTES + 1];
        let segment = path_segment(&longer);
        // Part of the file format: 166 bytes, the mark, the hash.
        assert_eq!(segment, format!("{}%~{:032x}", "a".repeat(166), XxHash3_128::oneshot(&longer)));
        assert_eq!(segment.len(), MAX_BYTES);
        assert_eq!(app_id_of_segment(&segment), None);
    }

    #[test]
    fn the_cut_keeps_escapes_whole() {
        for plain in 0..4 {
            let mut id = vec![b'a'; plain];
            id.resize(100, 0xff);
            let segment = path_segment(&id);
            let (head, hash) = segment.split_once(HASH_MARK).unwrap();
            assert_eq!(head, format!("{}{}", "a".repeat(plain), "%FF".repeat((166 - plain) / 3)));
            assert_eq!(hash.len(), HASH_DIGITS);
        }
    }
}
