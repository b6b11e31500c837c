//! Compression of single frames.
//!
//! Owns: the codecs, their reused contexts, limits when decompressing.
//! Does not own: what a frame holds ([`super::frame`]).
//!
//! A frame is a whole lz4 frame, zstd frame or gzip member, so that ordinary tools read the concatenation.

mod lz4;

use std::io::Read;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use lz4::Lz4Encoder;

/// How frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    Lz4,
    Zstd,
    Gzip,
    None,
}

/// zstd's own default is 3; 1 takes a third of the time for logs of nearly the same size.
const ZSTD_DEFAULT_LEVEL: i32 = 1;
const GZIP_DEFAULT_LEVEL: i32 = 6;

/// A frame can't be compressed or decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("{codec:?}: {message}")]
    Failed { codec: Codec, message: String },
    #[error("{codec:?}: the frame holds {found} bytes or more, its index says {expected}")]
    Length { codec: Codec, expected: usize, found: usize },
    #[error("{0}")]
    Level(String),
}

/// Checks a level before anything is compressed with it.
///
/// # Errors
/// The codec has no such level.
pub fn validate_level(codec: Codec, level: Option<i32>) -> Result<(), CodecError> {
    let Some(level) = level else { return Ok(()) };
    let (range, name) = match codec {
        Codec::Zstd => (1..=22, "zstd"),
        Codec::Gzip => (1..=9, "gzip"),
        Codec::Lz4 => return Err(CodecError::Level("lz4 has no levels; leave it out, or use zstd".to_owned())),
        Codec::None => {
            return Err(CodecError::Level("there are no levels without compression; leave it out".to_owned()));
        }
    };
    if range.contains(&level) {
        return Ok(());
    }
    Err(CodecError::Level(format!("{name} has levels {} to {}, not {level}", range.start(), range.end())))
}

fn failed(codec: Codec) -> impl Fn(std::io::Error) -> CodecError {
    move |error| CodecError::Failed { codec, message: error.to_string() }
}

/// A reused compression context.
pub struct Encoder {
    context: Context,
}

enum Context {
    Lz4(Box<Lz4Encoder>),
    Zstd { context: Box<zstd::bulk::Compressor<'static>>, gathered: Vec<u8> },
    Gzip(Box<Compress>),
    None,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("codec", &self.codec()).finish()
    }
}

impl Encoder {
    /// # Errors
    /// The codec has no such level.
    pub fn new(codec: Codec, level: Option<i32>) -> Result<Self, CodecError> {
        validate_level(codec, level)?;
        let context = match codec {
            Codec::Lz4 => Context::Lz4(Box::new(Lz4Encoder::new())),
            Codec::Zstd => {
                let mut context =
                    zstd::bulk::Compressor::new(level.unwrap_or(ZSTD_DEFAULT_LEVEL)).map_err(failed(codec))?;
                context.include_checksum(true).map_err(failed(codec))?;
                context.include_contentsize(true).map_err(failed(codec))?;
                Context::Zstd { context: Box::new(context), gathered: Vec::new() }
            }
            Codec::Gzip => {
                let level = level.unwrap_or(GZIP_DEFAULT_LEVEL).unsigned_abs();
                Context::Gzip(Box::new(Compress::new(Compression::new(level), false)))
            }
            Codec::None => Context::None,
        };
        Ok(Self { context })
    }

    fn codec(&self) -> Codec {
        match self.context {
            Context::Lz4(_) => Codec::Lz4,
            Context::Zstd { .. } => Codec::Zstd,
            Context::Gzip(_) => Codec::Gzip,
            Context::None => Codec::None,
        }
    }

    /// Appends the pieces as one frame; together they hold at least one byte.
    ///
    /// # Errors
    /// There is nothing in them, or the library fails; the context is not used again then.
    pub fn encode(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let codec = self.codec();
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Err(CodecError::Failed { codec, message: "a frame without content".to_owned() });
        }
        match &mut self.context {
            Context::Lz4(encoder) => encoder.encode(pieces, out),
            Context::Zstd { context, gathered } => {
                let raw = match pieces {
                    [piece] => piece,
                    pieces => {
                        gathered.clear();
                        pieces.iter().for_each(|piece| gathered.extend_from_slice(piece));
                        gathered.as_slice()
                    }
                };
                let start = out.len();
                out.resize(start + zstd::zstd_safe::compress_bound(raw.len()), 0);
                let len = context.compress_to_buffer(raw, &mut out[start..]).map_err(failed(codec))?;
                out.truncate(start + len);
                Ok(())
            }
            Context::Gzip(context) => gzip_member(context, pieces, out),
            Context::None => {
                pieces.iter().for_each(|piece| out.extend_from_slice(piece));
                Ok(())
            }
        }
    }
}

/// RFC 1952, without name and time: the same records give the same bytes.
fn gzip_member(context: &mut Compress, pieces: &[&[u8]], out: &mut Vec<u8>) -> Result<(), CodecError> {
    context.reset();
    out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let mut crc = Crc::new();
    let fail = |message: String| CodecError::Failed { codec: Codec::Gzip, message };
    for (index, piece) in pieces.iter().chain([&[].as_slice()]).enumerate() {
        crc.update(piece);
        let flush = if index == pieces.len() { FlushCompress::Finish } else { FlushCompress::None };
        let mut rest = *piece;
        loop {
            out.reserve(rest.len() / 2 + 1024);
            let before = context.total_in();
            let status = context.compress_vec(rest, out, flush).map_err(|error| fail(error.to_string()))?;
            let consumed = usize::try_from(context.total_in() - before).map_err(|error| fail(error.to_string()))?;
            rest = &rest[consumed..];
            match status {
                Status::StreamEnd => break,
                _ if rest.is_empty() && flush == FlushCompress::None => break,
                _ => {}
            }
        }
    }
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    Ok(())
}

/// Decompresses one frame that must hold exactly `raw_len` bytes; never allocates for more.
///
/// # Errors
/// Damaged data, or another length.
pub fn decode_frame(codec: Codec, frame: &[u8], raw_len: usize) -> Result<Vec<u8>, CodecError> {
    if codec == Codec::Lz4 {
        return lz4::decode(frame, raw_len);
    }
    let mut raw = Vec::new();
    // One byte more than expected tells a frame that is too long.
    let limit = raw_len as u64 + 1;
    let read = match codec {
        Codec::Zstd => zstd::stream::read::Decoder::with_buffer(frame)
            .and_then(|decoder| decoder.single_frame().take(limit).read_to_end(&mut raw)),
        Codec::Gzip => flate2::bufread::GzDecoder::new(frame).take(limit).read_to_end(&mut raw),
        Codec::Lz4 | Codec::None => frame.take(limit).read_to_end(&mut raw),
    };
    read.map_err(failed(codec))?;
    if raw.len() == raw_len { Ok(raw) } else { Err(CodecError::Length { codec, expected: raw_len, found: raw.len() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Codec; 4] = [Codec::Lz4, Codec::Zstd, Codec::Gzip, Codec::None];

    #[test]
    fn frames_of_a_reused_context_are_independent() {
        for codec in CODECS {
            let mut encoder = Encoder::new(codec, None).unwrap();
            let long = b"a line of a log that repeats\n".repeat(100_000);
            let mut file = Vec::new();
            let mut frames = Vec::new();
            for pieces in [vec![b"one ".as_slice(), b"two"], vec![long.as_slice()], vec![b"", b"x"]] {
                let start = file.len();
                encoder.encode(&pieces, &mut file).unwrap();
                frames.push((start..file.len(), pieces.concat()));
            }
            for (range, raw) in frames {
                assert!(decode_frame(codec, &file[range.clone()], raw.len()).unwrap() == raw, "{codec:?}");
                let error = decode_frame(codec, &file[range], raw.len() - 1).unwrap_err();
                assert!(matches!(error, CodecError::Length { .. }), "{codec:?}: {error}");
            }
            assert!(encoder.encode(&[b""], &mut file).is_err());
        }
    }

    #[test]
    fn levels() {
        assert!(validate_level(Codec::Lz4, Some(1)).is_err() && validate_level(Codec::None, Some(1)).is_err());
        assert!(validate_level(Codec::Zstd, Some(22)).is_ok() && validate_level(Codec::Zstd, Some(23)).is_err());
        assert!(validate_level(Codec::Gzip, Some(9)).is_ok() && validate_level(Codec::Gzip, Some(0)).is_err());
        for codec in CODECS {
            assert!(validate_level(codec, None).is_ok());
        }
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let raw = b"some text that is compressed ".repeat(50);
        for codec in [Codec::Lz4, Codec::Zstd, Codec::Gzip] {
            let mut frame = Vec::new();
            Encoder::new(codec, None).unwrap().encode(&[&raw], &mut frame).unwrap();
            for end in 0..frame.len() {
                assert!(decode_frame(codec, &frame[..end], raw.len()).is_err(), "{codec:?} cut at {end}");
            }
        }
    }
}
