//! The stretch of a body that one request carries.
//!
//! Owns: reading it, its checksum.
//! Does not own: which stretches there are (`upload`).
//!
//! File content is streamed from the disk, never held. Its checksum is computed before it is sent, in a pass of its own over
//! the page cache, and travels as a signed header: no aws-chunked body, and the store refuses what arrives changed.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use aws_sdk_s3::primitives::{ByteStream, Length};
use bytes::Bytes;
use md5::{Digest, Md5};

use super::dialect::Checksum;
use crate::store::Body;

const READ_BYTES: usize = 256 << 10;

/// A stretch of a body.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Bytes(Bytes),
    File { path: PathBuf, offset: u64, len: u64 },
}

impl Piece {
    pub(super) fn of(body: &Body, offset: u64, len: u64) -> Self {
        match body {
            // Both lie within the body.
            Body::Bytes(bytes) => Self::Bytes(bytes.slice(offset as usize..(offset + len) as usize)),
            Body::File { path, .. } => Self::File { path: path.clone(), offset, len },
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// The checksum as its header wants it, and the CRC32C.
    pub(super) async fn checksum(&self, kind: Checksum) -> io::Result<(String, u32)> {
        match self.clone() {
            Self::Bytes(bytes) => digest(kind, &mut &bytes[..], bytes.len() as u64),
            Self::File { path, offset, len } => {
                let work = move || {
                    let mut file = std::fs::File::open(path)?;
                    file.seek(SeekFrom::Start(offset))?;
                    digest(kind, &mut file, len)
                };
                tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
            }
        }
    }

    pub(super) async fn stream(&self) -> Result<ByteStream, String> {
        match self {
            Self::Bytes(bytes) => Ok(ByteStream::from(bytes.clone())),
            Self::File { path, offset, len } => {
                let file = ByteStream::read_from().path(path).offset(*offset).length(Length::Exact(*len));
                file.buffer_size(READ_BYTES).build().await.map_err(|e| e.to_string())
            }
        }
    }
}

/// The checksum of the next `len` bytes in base64, as its header wants it, and their CRC32C.
fn digest(kind: Checksum, input: &mut impl Read, len: u64) -> io::Result<(String, u32)> {
    let mut input = input.take(len);
    let mut buffer = vec![0; READ_BYTES];
    let (mut crc, mut md5, mut seen) = (0, Md5::new(), 0);
    loop {
        let n = input.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        crc = crc32c::crc32c_append(crc, &buffer[..n]);
        if kind == Checksum::Md5 {
            md5.update(&buffer[..n]);
        }
        seen += n as u64;
    }
    if seen < len {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{seen} of {len} bytes are there")));
    }
    let sum = aws_smithy_types::base64::encode(match kind {
        Checksum::Crc32c => crc.to_be_bytes().to_vec(),
        Checksum::Md5 => md5.finalize().to_vec(),
    });
    Ok((sum, crc))
}

/// Whether the file is what it was announced to be; `Err` is what it is instead.
pub(super) async fn check_file(path: &Path, len: u64) -> Result<(), String> {
    match tokio::fs::metadata(path).await {
        Ok(meta) if meta.is_file() && meta.len() == len => Ok(()),
        Ok(meta) => Err(format!("{} has {} bytes, {len} were announced", path.display(), meta.len())),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_their_headers() {
        let sum = |kind, len| digest(kind, &mut &b"123456789"[..], len);
        assert_eq!(sum(Checksum::Crc32c, 9).unwrap(), ("4waSgw==".to_owned(), 0xe306_9283));
        assert_eq!(sum(Checksum::Md5, 9).unwrap(), ("JfnnlDI7RTiF9RgfG2JNCw==".to_owned(), 0xe306_9283));
        assert_eq!(sum(Checksum::Md5, 10).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
