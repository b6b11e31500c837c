//! Decompression of a batch's records, as Kafka's clients compress them.
//!
//! Owns: the four codecs, their framings, and a limit on what comes out. Does not own: the records.

use std::io::Read;

use lz4_flex::block::DecompressError;
use zstd::stream::raw::{Decoder as Zstd, InBuffer, Operation, OutBuffer};

use crate::kafka::native::output::Output;

/// Most bytes that one batch may decompress to: far above what producers send (`max.request.size` counts before
/// compression), far below what a damaged or hostile batch could claim.
pub const BATCH_MAX_BYTES: usize = 128 * 1024 * 1024;

const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// How far back a block may point into the blocks before it.
const LZ4_WINDOW_BYTES: usize = 64 * 1024;
/// Room for a block of lz4 at first, in its own size: a frame may announce blocks of 4 MiB and hold small ones, and room that was
/// never used is cleared before. Better ratios than this get the whole room.
const LZ4_USUAL_RATIO: usize = 6;
/// snappy-java's framing: magic, version, compatible version.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// Room to ask for at least when the size is not known.
const STEP_BYTES: usize = 64 * 1024;

/// Decompresses batches one after the other; the memory of a codec's state is used again.
#[derive(Default)]
pub struct Codecs {
    zstd: Option<Zstd<'static>>,
}

impl std::fmt::Debug for Codecs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Codecs")
    }
}

impl Codecs {
    /// Appends what `input` holds to `out`, at most `limit` bytes. `None`: Kafka has no such codec.
    ///
    /// # Errors
    /// The input is damaged, or larger than the limit; `out` then holds a part.
    pub fn decompress(
        &mut self,
        codec: u8,
        input: &[u8],
        out: &mut Output,
        limit: usize,
    ) -> Option<Result<(), String>> {
        let most = out.len().saturating_add(limit);
        Some(match codec {
            0 if input.len() > limit => too_large(most),
            0 => {
                out.extend(input);
                Ok(())
            }
            1 => gzip(input, out, most),
            2 => snappy(input, out, most),
            3 => lz4(input, out, most),
            4 => self.zstd(input, out, most),
            _ => return None,
        })
    }

    fn zstd(&mut self, input: &[u8], out: &mut Output, most: usize) -> Result<(), String> {
        let decoder = match &mut self.zstd {
            Some(decoder) => {
                decoder.reinit().map_err(|error| error.to_string())?;
                decoder
            }
            empty => empty.insert(Zstd::new().map_err(|error| error.to_string())?),
        };
        let told = zstd::zstd_safe::get_frame_content_size(input).ok().flatten().unwrap_or(0);
        // A claim is believed as far as a good ratio goes.
        let told = usize::try_from(told).unwrap_or(usize::MAX).min(input.len().saturating_mul(16));
        let mut room = told.max(STEP_BYTES);
        let mut source = InBuffer::around(input);
        loop {
            // A byte over the limit shows whether there is more.
            let (_, space) = out.split(room.min((most + 1).saturating_sub(out.len())));
            let mut sink = OutBuffer::around(space);
            let left = decoder.run(&mut source, &mut sink).map_err(|error| error.to_string())?;
            let (written, full) = (sink.pos(), sink.pos() == sink.capacity());
            out.advance(written);
            if out.len() > most {
                return too_large(most);
            }
            // With room left, the decoder stopped for want of input.
            if source.pos() == input.len() && !full {
                return if left == 0 || input.is_empty() { Ok(()) } else { Err("zstd frame ends early".into()) };
            }
            if source.pos() == input.len() && left == 0 {
                return Ok(());
            }
            room = STEP_BYTES;
        }
    }
}

fn too_large(most: usize) -> Result<(), String> {
    Err(format!("more than {most} bytes decompressed"))
}

fn gzip(input: &[u8], out: &mut Output, most: usize) -> Result<(), String> {
    let mut members = flate2::bufread::MultiGzDecoder::new(input);
    loop {
        // A byte over the limit shows whether there is more.
        let (_, space) = out.split(STEP_BYTES.min((most + 1).saturating_sub(out.len())));
        let read = members.read(space).map_err(|error| error.to_string())?;
        if read == 0 {
            return Ok(());
        }
        out.advance(read);
        if out.len() > most {
            return too_large(most);
        }
    }
}

fn snappy(input: &[u8], out: &mut Output, most: usize) -> Result<(), String> {
    // librdkafka writes one raw block without the framing.
    if !input.starts_with(&XERIAL_MAGIC) {
        return snappy_block(input, out, most);
    }
    let mut rest = input.get(XERIAL_HEADER_BYTES..).ok_or("snappy header ends early")?;
    while !rest.is_empty() {
        let length = rest.first_chunk::<4>().map(|length| u32::from_be_bytes(*length));
        let length = length.ok_or("snappy block length ends early")? as usize;
        let block = rest.get(4..).and_then(|rest| rest.get(..length)).ok_or("snappy block ends early")?;
        snappy_block(block, out, most)?;
        rest = &rest[4 + length..];
    }
    Ok(())
}

fn snappy_block(block: &[u8], out: &mut Output, most: usize) -> Result<(), String> {
    let length = snap::raw::decompress_len(block).map_err(|error| error.to_string())?;
    let start = out.len();
    // An element of a block makes at most 64 bytes of 3, so a greater claim is a lie.
    if length > block.len().saturating_mul(32) || length > most.saturating_sub(start) {
        return too_large(most);
    }
    let (_, space) = out.split(length);
    let written =
        snap::raw::Decoder::new().decompress(block, &mut space[..length]).map_err(|error| error.to_string())?;
    out.advance(written);
    Ok(())
}

/// The frame format (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>), read here because the blocks can then
/// be written where they belong. Its own checksums are left out: the batch's checksum covers the same bytes.
fn lz4(mut input: &[u8], out: &mut Output, most: usize) -> Result<(), String> {
    while !input.is_empty() {
        input = lz4_frame(input, out, most)?;
    }
    Ok(())
}

fn lz4_frame<'a>(input: &'a [u8], out: &mut Output, most: usize) -> Result<&'a [u8], String> {
    let short = "lz4 frame ends early";
    let frame = input.strip_prefix(&LZ4_MAGIC).ok_or("no lz4 frame")?;
    let (&[flags, descriptor], mut rest) = frame.split_first_chunk::<2>().ok_or(short)?;
    if flags >> 6 != 1 {
        return Err(format!("lz4 frame of version {}", flags >> 6));
    }
    let linked = flags & 0x20 == 0;
    let (block_checksum, content_checksum) = (flags & 0x10 != 0, flags & 0x04 != 0);
    let optional = if flags & 0x08 != 0 { 8 } else { 0 } + if flags & 0x01 != 0 { 4 } else { 0 };
    rest = rest.get(optional + 1..).ok_or(short)?;
    let block_max = match descriptor >> 4 & 7 {
        size @ 4..=7 => 1_usize << (2 * size + 8),
        size => return Err(format!("lz4 frame with block size {size}")),
    };
    let frame_start = out.len();
    loop {
        let (size, after) = rest.split_first_chunk::<4>().ok_or(short)?;
        let size = u32::from_le_bytes(*size);
        rest = after;
        if size == 0 {
            return rest.get(if content_checksum { 4 } else { 0 }..).ok_or_else(|| short.into());
        }
        let (stored, size) = (size >> 31 == 1, (size & 0x7fff_ffff) as usize);
        let block = rest.get(..size).ok_or(short)?;
        rest = rest.get(size + if block_checksum { 4 } else { 0 }..).ok_or(short)?;
        let start = out.len();
        if stored {
            if size > most.saturating_sub(start) {
                return too_large(most).map(|()| rest);
            }
            out.extend(block);
            continue;
        }
        let window = if linked { frame_start.max(start.saturating_sub(LZ4_WINDOW_BYTES)) } else { start };
        // A byte of lz4 makes at most 255.
        let most_room = block_max.min(size.saturating_mul(255)).min(most.saturating_sub(start).saturating_add(1));
        let usual_room = most_room.min(size.saturating_mul(LZ4_USUAL_RATIO).max(STEP_BYTES));
        let written = match lz4_block(block, out, window, usual_room) {
            Err(DecompressError::OutputTooSmall { .. }) if usual_room < most_room => {
                lz4_block(block, out, window, most_room)
            }
            written => written,
        };
        out.advance(written.map_err(|error| error.to_string())?);
        if out.len() > most {
            return too_large(most).map(|()| rest);
        }
    }
}

/// Decompresses one block into at most `room` bytes; what lies from `window` on may be pointed into. Returns how many it were.
fn lz4_block(block: &[u8], out: &mut Output, window: usize, room: usize) -> Result<usize, DecompressError> {
    let (before, space) = out.split(room);
    let (dictionary, space) = (&before[window..], &mut space[..room]);
    if dictionary.is_empty() {
        lz4_flex::block::decompress_into(block, space)
    } else {
        lz4_flex::block::decompress_into_with_dict(block, space, dictionary)
    }
}

#[cfg(test)]
#[path = "codecs_tests.rs"]
mod tests;
