//! The frame table's compression.
//!
//! Owns: one zstd context per thread and direction: a new one costs more than the few hundred bytes that most tables have.
//! Does not own: what is compressed, what is trusted of it.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

const LEVEL: i32 = 3;

/// Compresses a whole frame table.
pub(super) fn compress(raw: &[u8]) -> io::Result<Vec<u8>> {
    thread_local! {
        static CONTEXT: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|context| match context {
        Some(context) => context.compress(raw),
        None => context.insert(Compressor::new(LEVEL)?).compress(raw),
    })
}

/// Decompresses at most `most` bytes.
pub(super) fn decompress(stored: &[u8], most: usize) -> io::Result<Vec<u8>> {
    thread_local! {
        static CONTEXT: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|context| match context {
        Some(context) => context.decompress(stored, most),
        None => context.insert(Decompressor::new()?).decompress(stored, most),
    })
}
