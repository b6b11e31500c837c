//! A Kafka record as every room sees it, and the block of one partition's records that crosses the wall from the source.
//!
//! Owns: the borrowed view of a record, the encoding of headers inside a block.
//! Does not own: how a block was fetched, what becomes of its records.

use bytes::Bytes;

/// One record, borrowed from the [`Block`] that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the Unix epoch, as Kafka gives it (CreateTime or LogAppendTime); may be -1.
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// A record's headers in Kafka's own encoding (record format v2): per header a zigzag varint key length, the key, a zigzag
/// varint value length (-1 for null), the value. An ordered list: keys may repeat and need not be UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    pub fn new(count: u32, bytes: &'a [u8]) -> Self {
        Self { count, bytes }
    }

    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded bytes, for digests.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Key and value of each header in order. Ends early where the encoding is damaged; the source has checked it before.
    pub fn iter(&self) -> HeaderIter<'a> {
        HeaderIter { left: self.count, bytes: self.bytes }
    }
}

pub struct HeaderIter<'a> {
    left: u32,
    bytes: &'a [u8],
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let key = take(&mut self.bytes)??;
        let value = take(&mut self.bytes)?;
        Some((key, value))
    }
}

/// Takes one length-prefixed byte string; `Some(None)` is null, `None` is a damaged encoding.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = read_varint(bytes)?;
    if len < 0 {
        return Some(None);
    }
    let len = usize::try_from(len).ok()?;
    if bytes.len() < len {
        return None;
    }
    let (head, tail) = bytes.split_at(len);
    *bytes = tail;
    Some(Some(head))
}

/// Reads a zigzag varint (Kafka's `varlong`), at most 10 bytes.
pub fn read_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut raw: u64 = 0;
    for shift in (0..70).step_by(7) {
        let (&byte, tail) = bytes.split_first()?;
        *bytes = tail;
        raw |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(((raw >> 1) as i64) ^ -((raw & 1) as i64));
        }
    }
    None
}

/// Appends a zigzag varint (Kafka's `varlong`).
pub fn write_varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Appends one header in the encoding of [`Headers`].
pub fn write_header(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    write_varint(out, key.len() as i64);
    out.extend_from_slice(key);
    match value {
        None => write_varint(out, -1),
        Some(value) => {
            write_varint(out, value.len() as i64);
            out.extend_from_slice(value);
        }
    }
}

/// Where a record lies in its block's data: byte ranges, no copies.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<(u32, u32)>,
    pub value: Option<(u32, u32)>,
    /// Start and length of the encoded headers.
    pub headers: (u32, u32),
    pub header_count: u32,
}

/// Records of one partition in offset order, as one fetch brought them.
#[derive(Clone, Debug)]
pub struct Block {
    pub partition: i32,
    pub data: Bytes,
    pub spans: Vec<Span>,
    /// The position after this block: also past records that the reader left out by rule (control batches, aborted
    /// transactions, compaction gaps). A block without records may still move the position.
    pub next_offset: i64,
    /// End of what can be read now: high watermark, or last stable offset with read_committed.
    pub end_offset: i64,
    /// First offset the broker still has, where it told.
    pub log_start_offset: Option<i64>,
    /// Leader epoch of this block's batches, all of one; `None` without a batch or where the broker tells none. Kept with
    /// `next_offset`, or with the offset after one of the records, it shows a truncated log later (KIP-320).
    pub leader_epoch: Option<i32>,
}

impl Block {
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.spans.iter().map(|span| self.record(span))
    }

    fn record(&self, span: &Span) -> Record<'_> {
        Record {
            partition: self.partition,
            offset: span.offset,
            timestamp_ms: span.timestamp_ms,
            key: span.key.map(|range| self.slice(range)),
            value: span.value.map(|range| self.slice(range)),
            headers: Headers::new(span.header_count, self.slice(span.headers)),
        }
    }

    fn slice(&self, (start, len): (u32, u32)) -> &[u8] {
        &self.data[start as usize..start as usize + len as usize]
    }

    /// Bytes this block holds, for the memory budget.
    pub fn memory_bytes(&self) -> u64 {
        (self.data.len() + self.spans.capacity() * size_of::<Span>()) as u64
    }
}

/// Builds a block record by record, copying the bytes once.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    data: Vec<u8>,
    spans: Vec<Span>,
}

impl BlockBuilder {
    /// Adds a record; `headers` writes the encoded headers (see [`write_header`]) and returns how many.
    ///
    /// # Errors
    /// The block would exceed 4 GiB, the range of a span.
    pub fn push(
        &mut self,
        offset: i64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl FnOnce(&mut Vec<u8>) -> u32,
    ) -> Result<(), BlockFull> {
        let key = self.copy(key)?;
        let value = self.copy(value)?;
        let start = self.position()?;
        let header_count = headers(&mut self.data);
        let headers = (start, self.position()? - start);
        self.spans.push(Span { offset, timestamp_ms, key, value, headers, header_count });
        Ok(())
    }

    fn position(&self) -> Result<u32, BlockFull> {
        u32::try_from(self.data.len()).map_err(|_| BlockFull)
    }

    fn copy(&mut self, bytes: Option<&[u8]>) -> Result<Option<(u32, u32)>, BlockFull> {
        let Some(bytes) = bytes else { return Ok(None) };
        let start = self.position()?;
        self.data.extend_from_slice(bytes);
        Ok(Some((start, self.position()? - start)))
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub fn finish(self, partition: i32, next_offset: i64, end_offset: i64) -> Block {
        Block {
            partition,
            data: self.data.into(),
            spans: self.spans,
            next_offset,
            end_offset,
            log_start_offset: None,
            leader_epoch: None,
        }
    }
}

/// A block would exceed the 4 GiB that a span can address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block of records exceeds 4 GiB")]
pub struct BlockFull;
