//! The bytes of a log entry: one header line (magic, version, CRC-32C and length of the body), then the body as JSON. A person
//! can read it with any tool.
//!
//! Owns: encoding, decoding, detection of damage. Does not own: what entries mean.

use serde::{Deserialize, Serialize};

use super::entry::{Entry, StepId, Token};

const MAGIC: &str = "sluice-log";
/// Version of the entries' encoding. A reader stops at a version that it does not know.
const VERSION: u32 = 1;

/// An entry as it is stored: who wrote it, and what it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    pub number: u64,
    /// Owner of the task when this was written; with a Takeover, the new owner.
    pub token: Token,
    pub step: StepId,
    pub entry: Entry,
}

/// Why bytes are not a usable entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("not a log entry: {0}")]
    Damaged(String),
    #[error("written by a newer version (log version {found}, this binary knows {VERSION}): use the newer binary")]
    Newer { found: u32 },
}

impl Stored {
    /// # Errors
    /// A value that JSON can't hold; can't happen with the types above.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let body = serde_json::to_vec(self)?;
        let mut bytes = format!("{MAGIC} {VERSION} {:08x} {}\n", crc32c::crc32c(&body), body.len()).into_bytes();
        bytes.extend_from_slice(&body);
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// # Errors
    /// [`DecodeError`]: the bytes are cut, changed, of another number or of a newer version.
    pub fn decode(number: u64, bytes: &[u8]) -> Result<Self, DecodeError> {
        let damaged = |why: &str| DecodeError::Damaged(why.to_owned());
        let end = bytes.iter().take(64).position(|&byte| byte == b'\n').ok_or_else(|| damaged("no header line"))?;
        let header = std::str::from_utf8(&bytes[..end]).map_err(|_| damaged("the header is not text"))?;
        let mut words = header.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(damaged("wrong magic"));
        }
        let found: u32 =
            words.next().and_then(|word| word.parse().ok()).ok_or_else(|| damaged("no version in the header"))?;
        if found != VERSION {
            return Err(DecodeError::Newer { found });
        }
        let crc = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
        let len = words.next().and_then(|word| word.parse::<usize>().ok());
        let (Some(crc), Some(len)) = (crc, len) else { return Err(damaged("no checksum or length in the header")) };
        let body = bytes[end + 1..].strip_suffix(b"\n").ok_or_else(|| damaged("cut off"))?;
        if body.len() != len {
            return Err(DecodeError::Damaged(format!("{} bytes long instead of {len}", body.len())));
        }
        if crc32c::crc32c(body) != crc {
            return Err(damaged("checksum mismatch"));
        }
        let stored: Self = serde_json::from_slice(body).map_err(|error| DecodeError::Damaged(error.to_string()))?;
        if stored.number != number {
            return Err(DecodeError::Damaged(format!("it says that it is entry {}", stored.number)));
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Stored {
        Stored {
            number: 7,
            token: Token("t".into()),
            step: StepId("s".into()),
            entry: Entry::Takeover { worker: "w".into(), time_ms: 1 },
        }
    }

    #[test]
    fn an_entry_survives_its_bytes() {
        let bytes = entry().encode().unwrap();
        assert_eq!(Stored::decode(7, &bytes).unwrap(), entry());
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = entry().encode().unwrap();
        for end in 0..bytes.len() {
            assert!(Stored::decode(7, &bytes[..end]).is_err(), "cut at {end}");
        }
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[position] ^= 1 << bit;
                // The case of a hexadecimal digit carries no information.
                if let Ok(decoded) = Stored::decode(7, &changed) {
                    assert!(changed[position].eq_ignore_ascii_case(&bytes[position]), "byte {position} bit {bit}");
                    assert_eq!(decoded, entry());
                }
            }
        }
        assert!(matches!(Stored::decode(8, &bytes), Err(DecodeError::Damaged(_))));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let bytes = entry().encode().unwrap();
        let newer = String::from_utf8(bytes).unwrap().replacen("sluice-log 1", "sluice-log 2", 1);
        assert_eq!(Stored::decode(7, newer.as_bytes()), Err(DecodeError::Newer { found: 2 }));
    }
}
