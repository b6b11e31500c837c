//! The memory that answers are read and batches are decompressed into, used again when the last reader is done with it: fresh
//! memory costs a page fault for each 4 KiB.
//!
//! Owns: buffers whose bytes are initialised once, and their way back. Does not own: what is in them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Buffers of decompressed batches that are kept, and the largest of them.
const BATCHES_KEPT: usize = 8;
const BATCH_KEPT_BYTES: usize = 1024 * 1024;

/// Where buffers wait for their next use.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    buffers: Mutex<Vec<Vec<u8>>>,
    kept: usize,
    kept_bytes: usize,
}

/// For decompressed batches.
impl Default for Pool {
    fn default() -> Self {
        Self::new(BATCHES_KEPT, BATCH_KEPT_BYTES)
    }
}

impl Pool {
    /// A pool in which at most `kept` buffers wait; more are freed. Those above `kept_bytes` are freed as well: a single huge
    /// batch must not hold its memory for good.
    pub fn new(kept: usize, kept_bytes: usize) -> Self {
        Self { shared: Arc::new(Shared { buffers: Mutex::default(), kept, kept_bytes }) }
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.shared.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty output, on memory used before where there is some.
    pub fn output(&self) -> Output {
        let bytes = self.buffers().pop().unwrap_or_default();
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

    /// Room after what is filled that costs nothing.
    pub fn spare(&self) -> usize {
        self.bytes.len() - self.filled
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
        if self.bytes.is_empty() || self.bytes.len() > self.pool.shared.kept_bytes {
            return;
        }
        let mut buffers = self.pool.buffers();
        if buffers.len() < self.pool.shared.kept {
            buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_the_last_user_is_done() {
        let pool = Pool::new(2, 1 << 20);
        let mut output = pool.output();
        output.extend(b"hello");
        let place = output.as_slice().as_ptr();
        let bytes = output.finish();
        let slice = bytes.slice(1..3);
        drop(bytes);
        assert!(pool.buffers().is_empty(), "{slice:?} is in use");
        drop(slice);
        let mut output = pool.output();
        assert_eq!(output.len(), 0);
        output.extend(b"x");
        assert_eq!((output.as_slice(), output.as_slice().as_ptr()), (&b"x"[..], place));
        output.split(2 << 20);
        drop(output);
        assert!(pool.buffers().is_empty(), "too large to keep");
        let mut many: Vec<Output> = (0..3).map(|_| pool.output()).collect();
        many.iter_mut().for_each(|output| output.extend(b"x"));
        drop(many);
        assert_eq!(pool.buffers().len(), 2);
    }
}
