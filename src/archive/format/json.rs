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
mod tests;
