//! The memory that batches are decompressed into, used again when a block's reader is done with it.
//!
//! Owns: buffers whose bytes are initialised once, and their way back. Does not own: what is in them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers kept for the next block; more are freed.
const KEPT: usize = 8;
/// Larger ones are freed: a single huge batch must not hold its memory for good.
const KEPT_BYTES: usize = 1024 * 1024;

/// Where buffers wait for their next use.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Pool {
    /// An empty output, on memory used before where there is some.
    pub fn output(&self) -> Output {
        let bytes = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        Output { bytes, filled: 0, pool: self.clone() }
    }
}

/// Bytes that grow at the end. Memory is cleared when it is new, not when it is used again.
#[derive(Debug)]
pub struct Output {
    /// All of it is initialised; what counts is the first `filled` bytes.
    bytes: Vec<u8>,
    filled: usize,
    pool: Pool,
}

impl Output {
    pub fn len(&self) -> usize {
        self.filled
    }

    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// What is filled, and room for at least `room` bytes after it.
    pub fn split(&mut self, room: usize) -> (&[u8], &mut [u8]) {
        let needed = self.filled + room;
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
        let (filled, rest) = self.bytes.split_at_mut(self.filled);
        (filled, rest)
    }

    /// `bytes` of the room were filled.
    pub fn advance(&mut self, bytes: usize) {
        self.filled = (self.filled + bytes).min(self.bytes.len());
    }

    pub fn truncate(&mut self, len: usize) {
        self.filled = self.filled.min(len);
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        let (_, room) = self.split(bytes.len());
        room[..bytes.len()].copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// The bytes as they are; the memory comes back to the pool when the last user is done.
    pub fn finish(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.bytes.is_empty() || self.bytes.len() > KEPT_BYTES {
            return;
        }
        let mut buffers = self.pool.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < KEPT {
            buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_the_last_user_is_done() {
        let pool = Pool::default();
        let mut output = pool.output();
        output.extend(b"hello");
        let place = output.as_slice().as_ptr();
        let bytes = output.finish();
        let slice = bytes.slice(1..3);
        drop(bytes);
        assert!(pool.buffers.lock().unwrap().is_empty(), "{slice:?} is in use");
        drop(slice);
        let mut output = pool.output();
        assert_eq!(output.len(), 0);
        output.extend(b"x");
        assert_eq!((output.as_slice(), output.as_slice().as_ptr()), (&b"x"[..], place));
        output.split(2 * KEPT_BYTES);
        drop(output);
        assert!(pool.buffers.lock().unwrap().is_empty(), "too large to keep");
    }
}
