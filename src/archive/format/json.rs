//! JSON text as the json format needs it: checking a document, escaping a string.
//!
//! Owns: which values may be embedded. Does not own: the shape of a line.
//!
//! Own code rather than serde_json's, which allocates for nested documents, has no limit of depth where it only checks, and
//! lets unpaired surrogates pass.

/// Deepest nesting of an embedded document; readers have limits too.
const MAX_DEPTH: u32 = 128;

/// Whether text can stand as a value in a line and be read back to the byte: one JSON object or array (RFC 8259) from the
/// first to the last byte, without CR and LF, nested at most [`MAX_DEPTH`] deep. Escaped surrogates must be pairs: many
/// readers give up on the whole file otherwise.
pub fn is_embeddable(text: &str) -> bool {
    matches!(text.as_bytes(), [b'{', .., b'}'] | [b'[', .., b']'])
        && Checker { bytes: text.as_bytes(), depth: 0, objects: 0 }.document().is_some()
}

/// Appends text as a JSON string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 2);
    out.push(b'"');
    loop {
        let (plain, special) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((&byte, tail)) = special.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
            }
        }
        rest = tail;
    }
    out.push(b'"');
}

/// Bytes before the first that can't stand in a JSON string as it is: a quote, a backslash, a control character.
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // Sets the high bit of each byte below the limit. A borrow can set more of them, but only above the first that counts.
        let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let special = (below(word, 0x20) | quote | backslash) & (ONES << 7);
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    words.len() * 8 + tail.iter().position(special).unwrap_or(tail.len())
}

/// Walks a document without recursion; `None` everywhere means that it may not be embedded.
struct Checker<'a> {
    /// What is left.
    bytes: &'a [u8],
    depth: u32,
    /// Per level, the innermost lowest: set for an object, clear for an array.
    objects: u128,
}

impl Checker<'_> {
    fn document(mut self) -> Option<()> {
        loop {
            // A value begins here.
            let mut closed = match self.next()? {
                b'{' => {
                    self.open(true)?;
                    self.skip_blanks();
                    let empty = self.skip(b'}');
                    if !empty {
                        self.name()?;
                    }
                    empty
                }
                b'[' => {
                    self.open(false)?;
                    self.skip_blanks();
                    self.skip(b']')
                }
                first => {
                    self.scalar(first)?;
                    self.separator()?
                }
            };
            while closed {
                self.depth -= 1;
                self.objects >>= 1;
                if self.depth == 0 {
                    return self.bytes.is_empty().then_some(());
                }
                closed = self.separator()?;
            }
        }
    }

    fn open(&mut self, object: bool) -> Option<()> {
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        (self.depth <= MAX_DEPTH).then_some(())
    }

    /// After a value: whether the level is closed; otherwise the next value begins.
    fn separator(&mut self) -> Option<bool> {
        self.skip_blanks();
        let object = self.objects & 1 == 1;
        match self.next()? {
            b',' if object => {
                self.skip_blanks();
                self.name()?;
                Some(false)
            }
            b',' => {
                self.skip_blanks();
                Some(false)
            }
            b'}' if object => Some(true),
            b']' if !object => Some(true),
            _ => None,
        }
    }

    /// A member's name and what stands before its value.
    fn name(&mut self) -> Option<()> {
        if self.next()? != b'"' {
            return None;
        }
        self.string()?;
        self.skip_blanks();
        if self.next()? != b':' {
            return None;
        }
        self.skip_blanks();
        Some(())
    }

    fn scalar(&mut self, first: u8) -> Option<()> {
        match first {
            b'"' => self.string(),
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            b'-' => {
                let first = self.next()?;
                self.number(first)
            }
            first => self.number(first),
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        self.bytes = self.bytes.strip_prefix(rest)?;
        Some(())
    }

    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => _ = self.digits(),
            _ => return None,
        }
        if self.skip(b'.') && self.digits() == 0 {
            return None;
        }
        if self.skip(b'e') || self.skip(b'E') {
            let _ = self.skip(b'+') || self.skip(b'-');
            if self.digits() == 0 {
                return None;
            }
        }
        Some(())
    }

    fn digits(&mut self) -> usize {
        let count = self.bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.bytes = &self.bytes[count..];
        count
    }

    /// After the opening quote.
    fn string(&mut self) -> Option<()> {
        loop {
            self.bytes = &self.bytes[plain_len(self.bytes)..];
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.hex()? {
                0xd800..=0xdbff => {
                    self.word(b"\\u")?;
                    matches!(self.hex()?, 0xdc00..=0xdfff).then_some(())
                }
                0xdc00..=0xdfff => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn hex(&mut self) -> Option<u32> {
        let (digits, rest) = self.bytes.split_first_chunk::<4>()?;
        self.bytes = rest;
        digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
    }

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.bytes.first() == Some(&byte);
        if found {
            self.bytes = &self.bytes[1..];
        }
        found
    }

    /// CR and LF are blanks of JSON too, but a line can't hold them.
    fn skip_blanks(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.bytes {
            self.bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn documents() {
        for text in [
            "{}",
            "[]",
            "{ }",
            "[\t]",
            r#"{"a":1,"a":{"b":[true,false,null,"x"]}, "c" : [ [ ] , { } ] }"#,
            "[0,-0,1.5,-10.25e+3,2E-2,1e5,1e999]",
            r#"["\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é"]"#,
            "[\"\u{7f}\u{2028}\"]",
            "[1 , 2\t]",
        ] {
            assert!(is_embeddable(text), "{text}");
        }
    }

    #[test]
    fn anything_else() {
        for text in [
            "",
            "{",
            "}",
            "[",
            "[}",
            "{]",
            "1",
            "null",
            "\"a\"",
            " {}",
            "{} ",
            "{}{}",
            "[]]",
            "[1]2]",
            "[\n]",
            "[\r]",
            "[1,\n2]",
            "[\u{c}]",
            "\u{feff}[]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[,]",
            "{,}",
            "{1:2}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":1]",
            "[\"a\":1]",
            "[01]",
            "[1.]",
            "[.5]",
            "[+1]",
            "[-]",
            "[1e]",
            "[1e+]",
            "[0x1]",
            "[--1]",
            "[NaN]",
            "[Infinity]",
            "[True]",
            "[nul]",
            "[nulll]",
            "[truefalse]",
            "[\"]",
            "[\"a]",
            "[\"\t\"]",
            "[\"\u{1f}\"]",
            r#"["\x"]"#,
            r#"["\u12"]"#,
            r#"["\u12g4"]"#,
            r#"["\u+123"]"#,
            r#"["\ud800"]"#,
            r#"["\udc00"]"#,
            r#"["\ud800\u0041"]"#,
            r#"["\ud800\n"]"#,
            r#"["\"]"#,
            "[1]//]",
            "[/**/]",
        ] {
            assert!(!is_embeddable(text), "{text}");
        }
    }

    #[test]
    fn depth() {
        let nested = |depth: usize| {
            r#"[{"a":"#.repeat(depth / 2) + &"[".repeat(depth % 2) + &"]".repeat(depth % 2) + &"}]".repeat(depth / 2)
        };
        // An even depth ends in `{"a":}`, which needs a value.
        let nested = |depth: usize| nested(depth).replace(":}", ":0}");
        assert!(is_embeddable(&nested(127)) && is_embeddable(&nested(128)));
        assert!(!is_embeddable(&nested(129)) && !is_embeddable(&nested(130)));
        assert!(!is_embeddable(&nested(1_000_001)));
    }

    #[test]
    fn specials_are_found_at_every_place() {
        for len in 0..40 {
            for place in 0..=len {
                for special in (0..=0xff).filter(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')) {
                    for filler in [b'!', b' ', b'~', 0x7f, 0x80, 0xa2, 0xdc, 0xff, b'#', b']', b'['] {
                        let mut bytes = vec![filler; len];
                        assert_eq!(plain_len(&bytes), len);
                        bytes.insert(place, special);
                        bytes.push(special);
                        assert_eq!(plain_len(&bytes), place);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn strings_read_back(text: String) {
            let mut out = Vec::new();
            write_string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn agrees_with_serde_json(
            text in "[\\[{](\"a\": ?)?([\\[{\\]},:0] ?|\"(a|\\\\n|\\\\u[d0][89cf]0[0a])*\"|-?[0-9]{1,2}(\\.[0-9])?(e-?[0-9])?|null|true|,\"b\":){0,6}[\\]}]",
        ) {
            prop_assert_eq!(is_embeddable(&text), serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn one_wrong_byte_is_judged_as_serde_json_does(place in 0..60usize, byte in 0x20..0x7fu8) {
            let mut bytes = br#"{"a":[1,-2.5e3,"x\"\u00e9\ud83d\ude00"],"b":{"c":null},"d":[{},[]]}"#.to_vec();
            bytes[place] = byte;
            let text = String::from_utf8(bytes).unwrap();
            let whole = text.starts_with('{') && text.ends_with('}');
            prop_assert_eq!(is_embeddable(&text), whole && serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        }
    }
}
