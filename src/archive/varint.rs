//! Variable-length integers of the file format: LEB128, signed ones zigzag-encoded.
//!
//! Owns: writing and checked reading. Does not own: what the numbers mean.

/// A cursor over bytes that are not trusted.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a>(pub &'a [u8]);

/// The bytes end early, or a number is longer than 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes end early or hold a number beyond 64 bits")]
pub struct Cut;

impl<'a> Cursor<'a> {
    pub fn unsigned(&mut self) -> Result<u64, Cut> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Cut)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Cut);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Cut)
    }

    pub fn signed(&mut self) -> Result<i64, Cut> {
        let raw = self.unsigned()?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    pub fn partition(&mut self) -> Result<i32, Cut> {
        i32::try_from(self.signed()?).map_err(|_| Cut)
    }

    /// A length that the remaining bytes can hold.
    pub fn len(&mut self) -> Result<usize, Cut> {
        let len = usize::try_from(self.unsigned()?).map_err(|_| Cut)?;
        if len <= self.0.len() { Ok(len) } else { Err(Cut) }
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Cut> {
        if self.0.len() < len {
            return Err(Cut);
        }
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Cut> {
        self.bytes(N)?.try_into().map_err(|_| Cut)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub fn write_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn write_signed(out: &mut Vec<u8>, value: i64) {
    write_unsigned(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_survive(unsigned: u64, signed: i64) {
            let mut out = Vec::new();
            write_unsigned(&mut out, unsigned);
            write_signed(&mut out, signed);
            let mut cursor = Cursor(&out);
            prop_assert_eq!(cursor.unsigned(), Ok(unsigned));
            prop_assert_eq!(cursor.signed(), Ok(signed));
            prop_assert!(cursor.is_empty());
        }

        #[test]
        fn any_bytes_are_a_number_or_cut(bytes: Vec<u8>) {
            let mut cursor = Cursor(&bytes);
            while cursor.unsigned().is_ok() {}
            prop_assert!(cursor.0.len() <= bytes.len());
        }
    }
}
