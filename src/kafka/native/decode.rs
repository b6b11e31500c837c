//! Turns the bytes of a fetched partition into blocks of records.
//!
//! Owns: which batches are shown (position, control batches, transactions), where a block ends. Does not own: where the
//! bytes come from.
//!
//! A block's data are the answer's own bytes where they are not compressed, else the decompressed batches one after the
//! other; the records are ranges of it.

use bytes::Bytes;

use crate::kafka::native::aborted::Aborted;
use crate::kafka::native::batch::{self, Batch, BatchError, Next};
use crate::kafka::native::codecs::{BATCH_MAX_BYTES, Codecs};
use crate::kafka::native::output::{Output, Pool};
use crate::kafka::native::records;
use crate::record::{Block, Span};

/// A block is closed when its decompressed bytes reach this.
/// Small enough to be still in the processor's cache when it is read.
const BLOCK_BYTES: usize = 256 * 1024;

/// One partition of an answer.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub partition: i32,
    /// Records below are not wanted.
    pub position: i64,
    /// The broker's list; empty without read_committed.
    pub aborted: Vec<(i64, i64)>,
    pub end_offset: i64,
    pub log_start_offset: i64,
    pub records: Bytes,
}

/// A failure and where reading would go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    pub position: i64,
    pub error: BatchError,
}

/// Makes blocks of one partition of an answer, one at a time.
#[derive(Debug)]
pub struct Decoder<'a> {
    codecs: &'a mut Codecs,
    pool: Pool,
    rest: Bytes,
    position: i64,
    aborted: Aborted,
    template: Block,
    /// Nothing was said of this answer yet: also an answer without records tells the end of the log.
    silent: bool,
    failed: bool,
}

impl<'a> Decoder<'a> {
    pub fn new(fetched: Fetched, codecs: &'a mut Codecs, pool: &Pool) -> Self {
        Self {
            codecs,
            pool: pool.clone(),
            rest: fetched.records,
            position: fetched.position,
            aborted: Aborted::new(&fetched.aborted),
            template: Block {
                partition: fetched.partition,
                data: Bytes::new(),
                spans: Vec::new(),
                next_offset: fetched.position,
                end_offset: fetched.end_offset,
                log_start_offset: (fetched.log_start_offset >= 0).then_some(fetched.log_start_offset),
                leader_epoch: None,
            },
            silent: true,
            failed: false,
        }
    }

    fn next_block(&mut self) -> Result<Option<Block>, DecodeError> {
        let start_position = self.position;
        let uncompressed = self.rest.clone();
        let mut spans: Vec<Span> = Vec::new();
        let mut decompressed = self.pool.output();
        let mut is_compressed = None;
        loop {
            let mut rest = self.rest.clone();
            let batch = match batch::take(&mut rest) {
                Ok(Next::Batch(batch)) => batch,
                Ok(Next::CutOff(_) | Next::End) => break,
                Err(error) => {
                    return self.fail_or_stop(error, start_position, spans, decompressed, &uncompressed, is_compressed);
                }
            };
            let leader_epoch = (batch.leader_epoch >= 0).then_some(batch.leader_epoch);
            // A block's batches are of one epoch, so that every offset in it can be kept with it.
            if self.position > start_position && leader_epoch != self.template.leader_epoch {
                break;
            }
            let compressed = batch.codec() != 0;
            // A block's records lie in one buffer.
            if !spans.is_empty() && is_compressed.is_some_and(|is| is != compressed) {
                break;
            }
            let shown = spans.len();
            match self.batch(&batch, &uncompressed, &mut decompressed, &mut spans) {
                Ok(()) => {}
                Err(error) => {
                    spans.truncate(shown);
                    return self.fail_or_stop(error, start_position, spans, decompressed, &uncompressed, is_compressed);
                }
            }
            if spans.len() > shown {
                is_compressed = Some(compressed);
            }
            self.rest = rest;
            self.position = self.position.max(batch.next_offset());
            self.template.leader_epoch = leader_epoch;
            if decompressed.len() >= BLOCK_BYTES {
                break;
            }
        }
        Ok(self.block(start_position, spans, decompressed, &uncompressed, is_compressed))
    }

    /// Records before a damaged batch are still shown; the error comes with the next call.
    fn fail_or_stop(
        &mut self,
        error: BatchError,
        start_position: i64,
        spans: Vec<Span>,
        decompressed: Output,
        uncompressed: &Bytes,
        is_compressed: Option<bool>,
    ) -> Result<Option<Block>, DecodeError> {
        if spans.is_empty() && self.position == start_position {
            self.failed = true;
            return Err(DecodeError { position: self.position, error });
        }
        // A batch may have been decompressed and shown nothing: only the records that are shown say where they lie.
        let is_compressed = if spans.is_empty() { Some(false) } else { is_compressed };
        Ok(self.block(start_position, spans, decompressed, uncompressed, is_compressed))
    }

    fn block(
        &mut self,
        start_position: i64,
        spans: Vec<Span>,
        decompressed: Output,
        uncompressed: &Bytes,
        is_compressed: Option<bool>,
    ) -> Option<Block> {
        if spans.is_empty() && self.position == start_position && !self.silent {
            return None;
        }
        self.silent = false;
        let data = match is_compressed {
            Some(true) => decompressed.finish(),
            Some(false) if !spans.is_empty() => uncompressed.slice(..uncompressed.len() - self.rest.len()),
            _ => Bytes::new(),
        };
        Some(Block { data, spans, next_offset: self.position, ..self.template.clone() })
    }

    fn batch(
        &mut self,
        batch: &Batch,
        uncompressed: &Bytes,
        decompressed: &mut Output,
        spans: &mut Vec<Span>,
    ) -> Result<(), BatchError> {
        batch.check_crc()?;
        self.aborted.advance(batch.last_offset);
        if batch.is_control() {
            if batch.is_transactional() && records::control_type(batch)? == Some(0) {
                self.aborted.end(batch.producer_id);
            }
            return Ok(());
        }
        let is_aborted = batch.is_transactional() && self.aborted.contains(batch.producer_id);
        if is_aborted || batch.next_offset() <= self.position {
            return Ok(());
        }
        if batch.codec() == 0 {
            // Everything in front of this batch's end, so that places count from the block's start.
            let end = uncompressed.len() - self.rest.len() + batch.bytes.len();
            let data = &uncompressed[..end];
            return records::decode(batch, data, end - batch.bytes.len() + batch::HEADER_BYTES, self.position, spans);
        }
        if batch.count == 0 {
            return Ok(());
        }
        let start = decompressed.len();
        let base_offset = batch.base_offset;
        let payload = batch.payload();
        match self.codecs.decompress(batch.codec(), &payload, decompressed, BATCH_MAX_BYTES) {
            None => return Err(BatchError::UnknownCodec { base_offset, codec: batch.codec() }),
            Some(Err(message)) => {
                decompressed.truncate(start);
                return Err(BatchError::Codec { base_offset, message });
            }
            Some(Ok(())) => {}
        }
        if spans.capacity() == 0 {
            // As many as this batch has, for the bytes of a block; never more than a record each few bytes.
            let size = (decompressed.len() - start).max(1);
            let count = (batch.count as usize).min(size / records::LEAST_BYTES);
            spans.reserve(count.saturating_mul((BLOCK_BYTES / size + 1).min(BLOCK_BYTES / records::LEAST_BYTES)));
        }
        let data = decompressed.as_slice();
        records::decode(batch, data, start, self.position, spans).inspect_err(|_| decompressed.truncate(start))
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<Block, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed { None } else { self.next_block().transpose() }
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
