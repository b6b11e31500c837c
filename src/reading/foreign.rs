//! Files without an index: other tools' files, read whole.
//!
//! Owns: streaming a file through its decompressor, line by line, in bounded memory.
//! Does not own: which files these are ([`super::file`]).

use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::ReadError;
use super::batch::Batch;
use super::counted::Counters;
use super::file::OpenFile;
use super::reader::{AnswerError, Reader, Work};
use super::times::Times;
use crate::archive::codec::Codec;
use crate::store::ByteRange;

/// Bytes of one request, and of one batch of lines.
const PIECE_BYTES: u64 = 1 << 20;
/// Pieces on their way to the decompressor, and batches from it.
const AHEAD: usize = 4;
/// A line beyond this is taken for damage.
const MAX_LINE_BYTES: usize = 256 << 20;

/// Reads all lines of the files, one file after the other.
///
/// # Errors
/// The store, or whoever takes. Damage is reported.
pub async fn read_all<W: Work>(
    reader: &Reader,
    files: &[Arc<OpenFile>],
    times: &Times,
    work: &Arc<W>,
    take: &mut impl FnMut(W::Out) -> io::Result<()>,
) -> Result<(), AnswerError> {
    let url = reader.place.store.url();
    for file in files {
        let key = &file.entry.key;
        let unfiltered = if times.is_all() { "" } else { ", whatever the time of its records" };
        reader.report.note(&format!("{url}/{key} has no index: it is read whole{unfiltered}"));
        match read(reader, file, work, take).await {
            Err(AnswerError::Read(error)) if error.is_of_one_file() => reader.report.problem(&error),
            outcome => outcome?,
        }
    }
    Ok(())
}

async fn read<W: Work>(
    reader: &Reader,
    file: &Arc<OpenFile>,
    work: &Arc<W>,
    take: &mut impl FnMut(W::Out) -> io::Result<()>,
) -> Result<(), AnswerError> {
    let (pieces, received) = mpsc::channel(AHEAD);
    let fetching = tokio::spawn(fetch(reader.clone(), Arc::clone(file), pieces));
    let (lines, mut batches) = mpsc::channel(AHEAD);
    let codec = file.codec;
    let decoding = tokio::task::spawn_blocking(move || decode(codec, Pieces { received, piece: Bytes::new() }, &lines));
    while let Some(lines) = batches.recv().await {
        Counters::add(&reader.place.counters.decompressed_bytes, lines.len() as u64);
        take(work.work(Batch::text_of(Arc::clone(file), lines)))?;
    }
    let damaged = |why: String| {
        let (url, key) = (reader.place.store.url().to_owned(), file.entry.key.clone());
        ReadError::Damaged { url, key, why }
    };
    // The store's failure is the cause of the decompressor's.
    let fetched = fetching.await.map_err(|stopped| damaged(stopped.to_string()))?;
    let decoded = decoding.await.map_err(|stopped| damaged(stopped.to_string()))?;
    fetched?;
    Ok(decoded.map_err(|error| damaged(error.to_string()))?)
}

async fn fetch(reader: Reader, file: Arc<OpenFile>, pieces: mpsc::Sender<Bytes>) -> Result<(), ReadError> {
    let mut etag = file.etag.clone();
    let mut start = 0;
    while start < file.size {
        let range = ByteRange::From { start, len: PIECE_BYTES };
        let got = reader.place.store.get(&file.entry.key, range, etag.as_deref()).await?;
        let Some(got) = got.filter(|got| !got.bytes.is_empty()) else {
            let (url, key) = (reader.place.store.url().to_owned(), file.entry.key.clone());
            return Err(ReadError::Gone { url, key });
        };
        start += got.bytes.len() as u64;
        etag = Some(got.etag);
        if pieces.send(got.bytes).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The fetched pieces as a reader.
struct Pieces {
    received: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.piece = self.received.blocking_recv().unwrap_or_default();
        }
        let len = buf.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buf[..len]);
        Ok(len)
    }
}

fn decode(codec: Codec, pieces: Pieces, lines: &mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    let pieces = BufReader::with_capacity(64 << 10, pieces);
    match codec {
        Codec::None => cut(pieces, lines),
        Codec::Zstd => cut(zstd::stream::read::Decoder::with_buffer(pieces)?, lines),
        Codec::Gzip => cut(flate2::bufread::MultiGzDecoder::new(pieces), lines),
        Codec::Lz4 => cut(Frames(lz4_flex::frame::FrameDecoder::new(pieces)), lines),
    }
}

/// Concatenated lz4 frames: the decoder says "end" after each.
struct Frames<R: Read>(lz4_flex::frame::FrameDecoder<R>);

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf) {
            Ok(0) => self.0.read(buf),
            read => read,
        }
    }
}

/// Cuts text into batches of whole lines. A last line without a newline gets one.
fn cut(mut text: impl Read, lines: &mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    let mut batch = Vec::new();
    loop {
        let read = text.by_ref().take(PIECE_BYTES).read_to_end(&mut batch)?;
        if read == 0 {
            break;
        }
        let Some(end) = memchr::memrchr(b'\n', &batch) else {
            if batch.len() > MAX_LINE_BYTES {
                return Err(io::Error::other(format!("a line of more than {MAX_LINE_BYTES} bytes")));
            }
            continue;
        };
        let rest = batch.split_off(end + 1);
        if send(lines, std::mem::replace(&mut batch, rest)).is_break() {
            return Ok(());
        }
    }
    if !batch.is_empty() {
        batch.push(b'\n');
        let _ = send(lines, batch);
    }
    Ok(())
}

fn send(lines: &mpsc::Sender<Vec<u8>>, batch: Vec<u8>) -> ControlFlow<()> {
    match lines.blocking_send(batch) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}
