//! Record batches, format v2 (<https://kafka.apache.org/documentation/#recordbatch>), found one after the other in the
//! bytes of a partition.
//!
//! Owns: the fixed header, where a batch begins and ends, its checksum. Does not own: the records inside ([`super::records`]).

use bytes::Bytes;

/// Bytes before the length counts.
const PREFIX_BYTES: usize = 12;
/// The fixed header, prefix included.
pub const HEADER_BYTES: usize = 61;
const MAGIC_AT: usize = 16;
const CRC_FROM: usize = 21;

/// What is wrong with the bytes of a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("a batch in the message format v{0} of Kafka before 0.11, which this client doesn't read")]
    OldFormat(i8),
    #[error("a batch in the unknown format v{0}")]
    UnknownFormat(i8),
    #[error("a damaged batch header: {0}")]
    Header(&'static str),
    #[error("a batch at offset {base_offset} with checksum {found:#010x} instead of {expected:#010x}")]
    Checksum { base_offset: i64, expected: u32, found: u32 },
    #[error("a batch at offset {base_offset} with the unknown codec {codec}")]
    UnknownCodec { base_offset: i64, codec: u8 },
    #[error("a batch at offset {base_offset} that can't be decompressed: {message}")]
    Codec { base_offset: i64, message: String },
    #[error("a damaged record in the batch at offset {base_offset}: {what}")]
    Record { base_offset: i64, what: &'static str },
}

/// A batch's header and its bytes.
#[derive(Clone, Debug)]
pub struct Batch {
    pub base_offset: i64,
    pub last_offset: i64,
    pub leader_epoch: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    /// May be 0 after compaction.
    pub count: i32,
    attributes: i16,
    crc: u32,
    /// The whole batch, prefix included.
    pub bytes: Bytes,
}

impl Batch {
    /// The position after this batch, whatever became of its records.
    pub fn next_offset(&self) -> i64 {
        self.last_offset + 1
    }

    /// 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd; others don't exist.
    pub fn codec(&self) -> u8 {
        (self.attributes & 7) as u8
    }

    /// The broker's time holds for every record instead of the producer's.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & 8 != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & 16 != 0
    }

    /// Markers of the broker instead of data.
    pub fn is_control(&self) -> bool {
        self.attributes & 32 != 0
    }

    /// The records' bytes, compressed as a whole.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// # Errors
    /// The bytes are not those that the producer or broker wrote.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let found = crc32c::crc32c(self.bytes.get(CRC_FROM..).unwrap_or_default());
        if found == self.crc {
            return Ok(());
        }
        Err(BatchError::Checksum { base_offset: self.base_offset, expected: self.crc, found })
    }
}

/// What comes next in the bytes of a partition.
#[derive(Clone, Debug)]
pub enum Next {
    Batch(Batch),
    /// A batch that the answer's size cut off; its whole size where the cut left enough to tell.
    CutOff(Option<usize>),
    End,
}

/// Takes the next batch off `bytes`; the bytes of a batch that is cut off stay.
///
/// # Errors
/// What lies there is no batch of format v2.
pub fn take(bytes: &mut Bytes) -> Result<Next, BatchError> {
    if bytes.is_empty() {
        return Ok(Next::End);
    }
    let Some(length) = be(bytes, 8).map(i32::from_be_bytes) else { return Ok(Next::CutOff(None)) };
    let length = usize::try_from(length).map_err(|_| BatchError::Header("negative length"))?;
    let size = PREFIX_BYTES.checked_add(length).ok_or(BatchError::Header("impossible length"))?;
    match bytes.get(MAGIC_AT).map(|&magic| magic as i8) {
        None | Some(2) => {}
        Some(magic @ (0 | 1)) => return Err(BatchError::OldFormat(magic)),
        Some(magic) => return Err(BatchError::UnknownFormat(magic)),
    }
    if size < HEADER_BYTES {
        return Err(BatchError::Header("length below that of a header"));
    }
    if size > bytes.len() {
        return Ok(Next::CutOff(Some(size)));
    }
    let batch = bytes.split_to(size);
    header(batch).map(Next::Batch).ok_or(BatchError::Header("impossible offsets or count"))
}

fn header(bytes: Bytes) -> Option<Batch> {
    let base_offset = i64::from_be_bytes(be(&bytes, 0)?);
    let last_offset_delta = i32::from_be_bytes(be(&bytes, 23)?);
    let count = i32::from_be_bytes(be(&bytes, 57)?);
    if base_offset < 0 || last_offset_delta < 0 || count < 0 {
        return None;
    }
    let last_offset = base_offset.checked_add(i64::from(last_offset_delta)).filter(|&last| last < i64::MAX)?;
    Some(Batch {
        base_offset,
        last_offset,
        leader_epoch: i32::from_be_bytes(be(&bytes, 12)?),
        crc: u32::from_be_bytes(be(&bytes, 17)?),
        attributes: i16::from_be_bytes(be(&bytes, 21)?),
        base_timestamp: i64::from_be_bytes(be(&bytes, 27)?),
        max_timestamp: i64::from_be_bytes(be(&bytes, 35)?),
        producer_id: i64::from_be_bytes(be(&bytes, 43)?),
        count,
        bytes,
    })
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}
