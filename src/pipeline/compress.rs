//! Compression, and everything else that works on the spool, on a pool of threads that all tasks of a worker share: one hot
//! partition or one hot app uses every core.
//!
//! Owns: the threads, their reused codec contexts, the bounded queue in front of them.
//! Does not own: which frames to cut, the order of frames in a file ([`super::spool`]).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

use super::budget::Permit;
use super::lane::FileId;
use super::spool::journal::FileNote;
use super::spool::{FinishedFile, FrameStored, SpoolError, SpoolFile};
use crate::api::metrics::{Busy, compression_threads};
use crate::archive::codec::{Codec, CodecError, Encoder};
use crate::archive::frame::FrameBuffer;
use crate::archive::index::FileFacts;

/// Memory that may wait per thread, in KiB: two frames of the usual size with what is kept about them, so that a thread never runs
/// dry.
const QUEUED_KIB_PER_THREAD: usize = 2560;
/// Jobs that may wait per thread. Of small frames many may: a task that waited for each would wake once a frame.
const QUEUED_PER_THREAD: usize = 64;

/// One piece of work on a file of the spool.
#[derive(Debug)]
pub struct Job {
    pub file: FileId,
    pub codec: Codec,
    pub spool: Arc<SpoolFile>,
    pub work: Work,
    pub done: mpsc::UnboundedSender<Worked>,
    /// Its share of the queue, as long as it waits there.
    room: Option<OwnedSemaphorePermit>,
    /// Until it is done.
    held: Option<Held>,
}

/// Counts bytes that the pool will free without being asked.
#[derive(Debug)]
struct Held {
    bytes: u64,
    all: Arc<AtomicU64>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Work {
    /// Compress a frame and store it.
    Compress {
        sequence: u32,
        buffer: FrameBuffer,
        level: Option<i32>,
        /// For the spool's journal.
        note: Option<Box<FileNote>>,
        /// Counts the buffer's memory until the frame is stored.
        permit: Permit,
    },
    /// Write the tail; every frame was stored.
    Finish { facts: Box<FileFacts> },
}

impl Work {
    /// What it holds in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Compress { buffer, .. } => buffer.memory_bytes(),
            Self::Finish { .. } => 0,
        }
    }
}

/// Outcome of a job.
#[derive(Debug)]
pub struct Worked {
    pub file: FileId,
    pub outcome: Result<Outcome, CompressError>,
}

#[derive(Debug)]
pub enum Outcome {
    /// The frames that reached the spool by it.
    Stored(Vec<FrameStored>),
    Finished(FinishedFile),
}

#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    #[error("a frame can't be compressed: {0}")]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A bug: the frame is lost, and with it the file.
    #[error("compression panicked")]
    Panicked,
}

/// Hands jobs to the pool; clones share it.
#[derive(Clone, Debug)]
pub struct CompressPool {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    /// Of all of it.
    room_kib: usize,
    held_bytes: Arc<AtomicU64>,
}

impl CompressPool {
    /// Starts the threads; they end when the last clone is gone.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(threads: NonZeroUsize) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>(threads.get() * QUEUED_PER_THREAD);
        let queue = Arc::new(Mutex::new(queue));
        compression_threads(threads.get());
        for number in 0..threads.get() {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name(format!("compress-{number}")).spawn(move || {
                let mut encoders = Encoders::default();
                loop {
                    let Some(job) = queue.blocking_lock().blocking_recv() else { return };
                    let busy = Busy::begin();
                    job.run(&mut encoders);
                    drop(busy);
                }
            })?;
        }
        Ok(Self::with_room(jobs, threads))
    }

    /// A pool without threads of its own: whoever holds the other end runs the jobs ([`Job::run`]).
    pub fn over(jobs: mpsc::Sender<Job>) -> Self {
        Self::with_room(jobs, NonZeroUsize::MIN)
    }

    fn with_room(jobs: mpsc::Sender<Job>, threads: NonZeroUsize) -> Self {
        let room_kib = (threads.get() * QUEUED_KIB_PER_THREAD).min(Semaphore::MAX_PERMITS);
        Self { jobs, room: Arc::new(Semaphore::new(room_kib)), room_kib, held_bytes: Arc::default() }
    }

    /// Memory of all jobs that are not done: it is counted in the budget, and nothing has to be done to free it.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Waits for a place in the queue. `false`: the pool is gone.
    pub async fn submit(&self, mut job: Job) -> bool {
        // One that is larger than the queue waits until it is alone.
        let bytes = job.work.bytes();
        let kib = u32::try_from((bytes / 1024).min(self.room_kib)).unwrap_or(u32::MAX);
        self.held_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        job.held = Some(Held { bytes: bytes as u64, all: Arc::clone(&self.held_bytes) });
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(kib).await else { return false };
        job.room = Some(room);
        self.jobs.send(job).await.is_ok()
    }
}

impl Job {
    pub fn new(
        file: FileId,
        codec: Codec,
        spool: Arc<SpoolFile>,
        work: Work,
        done: mpsc::UnboundedSender<Worked>,
    ) -> Self {
        Self { file, codec, spool, work, done, room: None, held: None }
    }

    /// Does the work and reports it.
    pub fn run(self, encoders: &mut Encoders) {
        let Self { file, codec, spool, work, done, room, held } = self;
        drop(room);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match work {
            Work::Compress { sequence, buffer, level, note, permit } => {
                let encoder = encoders.get(codec, level)?;
                let mut frame = Vec::new();
                let meta = match codec {
                    Codec::None => buffer.encode_apart(encoder, &mut frame)?,
                    _ => vec![buffer.encode(encoder, &mut frame)?],
                };
                drop(buffer);
                let stored = spool.write_frame(sequence, frame, meta, note.map(|note| *note))?;
                drop(permit);
                Ok(Outcome::Stored(stored))
            }
            Work::Finish { facts } => Ok(Outcome::Finished(spool.finish(codec, &facts)?)),
        }));
        let outcome = outcome.unwrap_or_else(|_| {
            // A context that panicked half-way is not trusted again.
            encoders.0.clear();
            Err(CompressError::Panicked)
        });
        drop(spool);
        drop(held);
        // A task that is gone does not wait for its frames.
        let _ = done.send(Worked { file, outcome });
    }
}

/// Reused contexts of one thread; a worker has few different settings.
#[derive(Default)]
pub struct Encoders(Vec<(Codec, Option<i32>, Encoder)>);

impl Encoders {
    fn get(&mut self, codec: Codec, level: Option<i32>) -> Result<&mut Encoder, CodecError> {
        let found = self.0.iter().position(|(known, known_level, _)| *known == codec && *known_level == level);
        let index = match found {
            Some(index) => index,
            None => {
                self.0.push((codec, level, Encoder::new(codec, level)?));
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[index].2)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::archive::format::Format;
    use crate::pipeline::budget::Budget;
    use crate::pipeline::spool::Spool;
    use crate::pipeline::spool::journal::Begin;
    use crate::record::{Headers, Record};

    #[test]
    fn bytes_bound_what_waits_not_how_many_frames() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), 1 << 30).unwrap();
        let spool = spool.task("c", "t", 0, Begin::new("token", "settings", 0)).unwrap();
        let (done, _worked) = mpsc::unbounded_channel();
        let job = |kib: usize| {
            let (value, mut buffer) = (vec![b'x'; kib * 1024], FrameBuffer::default());
            let (key, headers) = (None, Headers::default());
            let record = Record { partition: 0, offset: 0, timestamp_ms: 0, key, value: Some(&value), headers };
            buffer.push(Format::Raw, "t", 0, &record, 0);
            let permit = Budget::new(1 << 30).charge(0);
            let work = Work::Compress { sequence: 0, buffer, level: None, note: None, permit };
            Job::new(1, Codec::Lz4, Arc::new(spool.file(1)), work, done.clone())
        };
        let (jobs, mut queue) = mpsc::channel(QUEUED_PER_THREAD);
        let pool = CompressPool::over(jobs);
        assert_eq!(pool.submit(job(1_000)).now_or_never(), Some(true));
        assert_eq!(pool.submit(job(1_000)).now_or_never(), Some(true));
        assert_eq!(pool.submit(job(1_000)).now_or_never(), None, "two wait");
        drop(queue.try_recv().unwrap());
        for _ in 0..QUEUED_PER_THREAD / 2 {
            assert_eq!(pool.submit(job(10)).now_or_never(), Some(true), "small ones");
        }
        while let Ok(job) = queue.try_recv() {
            drop(job);
        }
        assert_eq!(pool.submit(job(3 * 1024)).now_or_never(), Some(true), "larger than the queue");
        assert_eq!(pool.submit(job(10)).now_or_never(), None, "it waits alone");
        assert!(pool.held_bytes() >= 3 << 20);
        drop(queue.try_recv().unwrap());
        assert_eq!(pool.held_bytes(), 0);
    }
}
