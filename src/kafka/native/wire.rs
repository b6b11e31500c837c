//! Kafka's primitive types on the wire (<https://kafka.apache.org/protocol#protocol_types>), in both encodings: the old
//! one, and the flexible one of KIP-482 with compact lengths and tagged fields.
//!
//! Owns: reading without trust (no length is believed before the bytes are there) and writing.
//! Does not own: which fields a message has.

use bytes::Bytes;

/// A message that doesn't hold what its schema says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("message ends early")]
    Short,
    #[error("impossible length")]
    Length,
    #[error("text is not UTF-8")]
    Utf8,
    #[error("a field is null that must not be")]
    Null,
    #[error("bytes are left after the message")]
    Rest,
}

type Result<T> = std::result::Result<T, WireError>;

/// Reads a message front to back; byte fields are slices of the message, not copies.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    at: usize,
    flexible: bool,
}

impl Reader {
    pub fn new(bytes: Bytes, flexible: bool) -> Self {
        Self { bytes, at: 0, flexible }
    }

    /// Changes the encoding: an answer's header may have another than its body.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    fn left(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub fn remaining(&self) -> usize {
        self.left().len()
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let fixed = *self.left().first_chunk::<N>().ok_or(WireError::Short)?;
        self.at += N;
        Ok(fixed)
    }

    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.fixed::<1>()? != [0])
    }

    pub fn i8(&mut self) -> Result<i8> {
        self.fixed().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64> {
        self.fixed().map(i64::from_be_bytes)
    }

    pub fn uuid(&mut self) -> Result<[u8; 16]> {
        self.fixed()
    }

    fn uvarint(&mut self) -> Result<u32> {
        let mut value: u64 = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.fixed()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| WireError::Length);
            }
        }
        Err(WireError::Length)
    }

    /// A length in the encoding at hand; `None` is null.
    fn length(&mut self, old: fn(&mut Self) -> Result<i64>) -> Result<Option<usize>> {
        let length = if self.flexible { i64::from(self.uvarint()?) - 1 } else { old(self)? };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| WireError::Length),
        }
    }

    fn slice(&mut self, length: usize) -> Result<Bytes> {
        if length > self.remaining() {
            return Err(WireError::Short);
        }
        let slice = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(slice)
    }

    pub fn nullable_bytes(&mut self) -> Result<Option<Bytes>> {
        let length = self.length(|wire| wire.i32().map(i64::from))?;
        length.map(|length| self.slice(length)).transpose()
    }

    pub fn nullable_string(&mut self) -> Result<Option<String>> {
        let Some(length) = self.length(|wire| wire.i16().map(i64::from))? else { return Ok(None) };
        let text = self.slice(length)?;
        std::str::from_utf8(&text).map(|text| Some(text.to_owned())).map_err(|_| WireError::Utf8)
    }

    pub fn string(&mut self) -> Result<String> {
        self.nullable_string()?.ok_or(WireError::Null)
    }

    /// An array of elements of at least `element_bytes` (1 or more) each; null reads as empty.
    pub fn array<T>(
        &mut self,
        element_bytes: usize,
        mut element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = self.length(|wire| wire.i32().map(i64::from))?.unwrap_or(0);
        // More elements than bytes can hold would allocate for a lie.
        if count > self.remaining() / element_bytes.max(1) {
            return Err(WireError::Length);
        }
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    /// The partitions, of at least `partition_bytes` each, of an answer's array of topics (name, partitions), tagged fields
    /// of both included; the names are left out, since one topic is asked for at a time.
    pub fn partitions_of_topics<T>(
        &mut self,
        partition_bytes: usize,
        mut partition: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let topics = self.array(3, |wire| {
            wire.string()?;
            let partitions = wire.array(partition_bytes, |wire| {
                let partition = partition(wire)?;
                wire.skip_tags()?;
                Ok(partition)
            })?;
            wire.skip_tags()?;
            Ok(partitions)
        })?;
        Ok(topics.into_iter().flatten().collect())
    }

    /// The tagged fields at the end of a structure; those that `known` doesn't take are skipped. Nothing in the old encoding.
    pub fn tags(&mut self, mut known: impl FnMut(u32, &mut Self) -> Result<()>) -> Result<()> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            let field = self.slice(length)?;
            known(tag, &mut Self::new(field, true))?;
        }
        Ok(())
    }

    pub fn skip_tags(&mut self) -> Result<()> {
        self.tags(|_, _| Ok(()))
    }

    /// Checks that the message was read to its end.
    pub fn finish(self) -> Result<()> {
        if self.remaining() == 0 { Ok(()) } else { Err(WireError::Rest) }
    }
}

/// Writes a message.
#[derive(Debug, Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
    flexible: bool,
}

impl Writer {
    pub fn new(flexible: bool) -> Self {
        Self { bytes: Vec::new(), flexible }
    }

    pub fn bool(&mut self, value: bool) {
        self.bytes.push(u8::from(value));
    }

    pub fn i8(&mut self, value: i8) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn i16(&mut self, value: i16) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.bytes.extend(value.to_be_bytes());
    }

    pub fn uuid(&mut self, value: [u8; 16]) {
        self.bytes.extend(value);
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub fn string(&mut self, value: &str) {
        self.nullable_string(Some(value));
    }

    pub fn nullable_string(&mut self, value: Option<&str>) {
        match (value, self.flexible) {
            (None, true) => self.uvarint(0),
            (None, false) => self.i16(-1),
            (Some(value), true) => self.uvarint(value.len() as u32 + 1),
            (Some(value), false) => self.i16(value.len() as i16),
        }
        self.bytes.extend(value.unwrap_or_default().as_bytes());
    }

    /// A string in the old encoding, whatever the message's.
    pub fn old_string(&mut self, value: &str) {
        self.i16(value.len() as i16);
        self.bytes.extend(value.as_bytes());
    }

    pub fn bytes(&mut self, value: &[u8]) {
        if self.flexible {
            self.uvarint(value.len() as u32 + 1);
        } else {
            self.i32(value.len() as i32);
        }
        self.bytes.extend(value);
    }

    pub fn array<T>(&mut self, elements: &[T], mut element: impl FnMut(&mut Self, &T)) {
        if self.flexible {
            self.uvarint(elements.len() as u32 + 1);
        } else {
            self.i32(elements.len() as i32);
        }
        for each in elements {
            element(self, each);
        }
    }

    pub fn null_array(&mut self) {
        if self.flexible { self.uvarint(0) } else { self.i32(-1) }
    }

    /// No tagged fields: the end of every structure of a flexible message.
    pub fn no_tags(&mut self) {
        if self.flexible {
            self.uvarint(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_count_without_bytes_behind_it_allocates_nothing() {
        for (bytes, flexible) in [(&[0x7f, 0xff, 0xff, 0xff][..], false), (&[0xff, 0xff, 0xff, 0xff, 0x0f], true)] {
            let mut wire = Reader::new(Bytes::copy_from_slice(bytes), flexible);
            assert_eq!(wire.array(1, |wire| wire.i64()).unwrap_err(), WireError::Length);
        }
        let mut wire = Reader::new(Bytes::from_static(&[0x80, 0, 0, 0]), false);
        assert_eq!(wire.nullable_bytes().unwrap_err(), WireError::Length);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(flexible: bool, text in ".{0,40}", numbers: Vec<i32>, bytes: Vec<u8>, id: [u8; 16]) {
            let mut out = Writer::new(flexible);
            out.string(&text);
            out.nullable_string(None);
            out.array(&numbers, |out, &number| out.i32(number));
            out.null_array();
            out.bytes(&bytes);
            out.uuid(id);
            out.no_tags();
            let mut wire = Reader::new(out.bytes.into(), flexible);
            prop_assert_eq!(wire.string().unwrap(), text);
            prop_assert_eq!(wire.nullable_string().unwrap(), None);
            prop_assert_eq!(wire.array(4, |wire| wire.i32()).unwrap(), numbers);
            prop_assert_eq!(wire.array(4, |wire| wire.i32()).unwrap(), Vec::<i32>::new());
            prop_assert_eq!(wire.nullable_bytes().unwrap().unwrap(), bytes);
            prop_assert_eq!(wire.uuid().unwrap(), id);
            wire.skip_tags().unwrap();
            wire.finish().unwrap();
        }
    }
}
