//! LZ4 frames (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>).
//!
//! Owns: the frame around lz4_flex's blocks. Writing it here saves a copy of every byte, and one table serves all frames.
//! Does not own: the block compression.
//!
//! Blocks are independent and as large as fits (1 MiB at most), so that a usual frame is one block. The frame ends with a checksum of
//! its content. Checksums of blocks would be cheaper, but where they stand alone `lz4 -dc` (1.9.4 at least) loses every frame after
//! one whose content is a multiple of 64 KiB.

use std::hash::Hasher;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use twox_hash::XxHash32;

use super::{Codec, CodecError};
use crate::archive::varint::Cursor;

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Version 1, independent blocks, no block checksums, content size, content checksum, no dictionary.
const FLAGS: u8 = 0b0110_1100;
/// Block sizes of the format with their codes in the descriptor.
const BLOCK_SIZES: [(usize, u8); 3] = [(64 << 10, 0x40), (256 << 10, 0x50), (1 << 20, 0x60)];
const LARGEST: (usize, u8) = BLOCK_SIZES[2];
/// In a block's length: its bytes are stored as they are.
const STORED: u32 = 1 << 31;

pub(super) struct Lz4Encoder {
    table: CompressTable,
    /// One compressed block, kept at its largest length so that it is cleared only once.
    block: Vec<u8>,
    /// One block of content where it does not lie in one chunk.
    gathered: Vec<u8>,
}

impl Lz4Encoder {
    pub(super) fn new() -> Self {
        Self { table: CompressTable::large(), block: Vec::new(), gathered: Vec::new() }
    }

    pub(super) fn encode(&mut self, chunks: &[&[u8]], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let len: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        let (block_size, code) = BLOCK_SIZES.into_iter().find(|(size, _)| len <= *size).unwrap_or(LARGEST);
        put_header(code, len as u64, out);
        let mut checksum = XxHash32::with_seed(0);
        chunks.iter().for_each(|chunk| checksum.write(chunk));
        let mut chunks = chunks.iter().copied();
        let mut chunk: &[u8] = chunks.next().unwrap_or_default();
        let mut left = len;
        while left > 0 {
            let wanted = left.min(block_size);
            if chunk.len() >= wanted {
                let (head, tail) = chunk.split_at(wanted);
                put_block(&mut self.table, &mut self.block, head, out)?;
                chunk = tail;
            } else {
                self.gathered.clear();
                self.gathered.reserve_exact(wanted);
                while self.gathered.len() < wanted {
                    let (head, tail) = chunk.split_at(chunk.len().min(wanted - self.gathered.len()));
                    self.gathered.extend_from_slice(head);
                    chunk = if tail.is_empty() { chunks.next().unwrap_or_default() } else { tail };
                }
                put_block(&mut self.table, &mut self.block, &self.gathered, out)?;
            }
            left -= wanted;
        }
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&checksum.finish_32().to_le_bytes());
        Ok(())
    }
}

fn put_header(block_size_code: u8, content_size: u64, out: &mut Vec<u8>) {
    let mut descriptor = [0; 10];
    descriptor[0] = FLAGS;
    descriptor[1] = block_size_code;
    descriptor[2..].copy_from_slice(&content_size.to_le_bytes());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&descriptor);
    out.push((xxh32(&descriptor) >> 8) as u8);
}

fn put_block(
    table: &mut CompressTable,
    block: &mut Vec<u8>,
    content: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let bound = get_maximum_output_size(content.len());
    if block.len() < bound {
        block.resize(bound, 0);
    }
    let failed = |message: String| CodecError::Failed { codec: Codec::Lz4, message };
    let len = compress_into_with_table(content, block, table).map_err(|cause| failed(cause.to_string()))?;
    let (header, bytes) = match block.get(..len) {
        Some(bytes) if len < content.len() => (len as u32, bytes),
        _ => (content.len() as u32 | STORED, content),
    };
    out.reserve(bytes.len() + 4);
    out.extend_from_slice(&header.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Decodes one frame of the form above, and no other, that holds exactly `raw_len` bytes.
pub(super) fn decode(bytes: &[u8], raw_len: usize) -> Result<Vec<u8>, CodecError> {
    let codec = Codec::Lz4;
    let damaged = |message: &str| CodecError::Failed { codec, message: message.to_owned() };
    let cut = |_| damaged("cut off");
    let mut rest = Cursor(bytes);
    if rest.array().map_err(cut)? != MAGIC {
        return Err(damaged("not an lz4 frame"));
    }
    let descriptor: [u8; 10] = rest.array().map_err(cut)?;
    let [flags, code, size @ ..] = descriptor;
    if rest.array().map_err(cut)? != [(xxh32(&descriptor) >> 8) as u8] {
        return Err(damaged("the header's checksum differs"));
    }
    let known = BLOCK_SIZES.into_iter().find(|(_, known)| *known == code).filter(|_| flags == FLAGS);
    let (block_size, _) = known.ok_or_else(|| damaged("a kind of frame that is not written here"))?;
    let content_size = u64::from_le_bytes(size);
    if content_size != raw_len as u64 {
        let found = usize::try_from(content_size).unwrap_or(usize::MAX);
        return Err(CodecError::Length { codec, expected: raw_len, found });
    }
    let mut raw = Vec::new();
    loop {
        let header = u32::from_le_bytes(rest.array().map_err(cut)?);
        if header == 0 {
            break;
        }
        let block = rest.bytes((header & !STORED) as usize).map_err(cut)?;
        let start = raw.len();
        let room = usize::try_from(content_size).unwrap_or(usize::MAX).saturating_sub(start).min(block_size);
        if header & STORED != 0 {
            raw.extend_from_slice(block);
        } else {
            raw.resize(start + room, 0);
            let content = raw.get_mut(start..).unwrap_or_default();
            let len = decompress_into(block, content).map_err(|cause| damaged(&cause.to_string()))?;
            raw.truncate(start + len);
        }
        if raw.len() - start > room {
            return Err(damaged("a block is larger than declared"));
        }
    }
    let checksum: [u8; 4] = rest.array().map_err(cut)?;
    if raw.len() as u64 != content_size || !rest.is_empty() {
        return Err(damaged("its length is not the declared one"));
    }
    if checksum != xxh32(&raw).to_le_bytes() {
        return Err(damaged("its checksum differs"));
    }
    Ok(raw)
}

fn xxh32(bytes: &[u8]) -> u32 {
    XxHash32::oneshot(0, bytes)
}
