//! Compression, and everything else that works on the spool, on a pool of threads that all tasks of a worker share: one hot
//! partition or one hot app uses every core.
//!
//! Owns: the threads, their reused codec contexts, the bounded queue in front of them.
//! Does not own: which frames to cut, the order of frames in a file ([`super::spool`]).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use tokio::sync::{Mutex, mpsc};

use super::budget::Permit;
use super::lane::FileId;
use super::spool::journal::FileNote;
use super::spool::{FinishedFile, FrameStored, SpoolError, SpoolFile};
use crate::api::metrics::{Busy, compression_threads};
use crate::archive::codec::{Codec, CodecError, Encoder};
use crate::archive::frame::FrameBuffer;
use crate::archive::index::FileFacts;

/// Frames that may wait per thread: enough that a thread never runs dry, few enough to bound memory.
const QUEUE_PER_THREAD: usize = 2;

/// One piece of work on a file of the spool.
#[derive(Debug)]
pub struct Job {
    pub file: FileId,
    pub codec: Codec,
    pub spool: Arc<SpoolFile>,
    pub work: Work,
    pub done: mpsc::UnboundedSender<Worked>,
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
}

impl CompressPool {
    /// Starts the threads; they end when the last clone is gone.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(threads: NonZeroUsize) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>(threads.get() * QUEUE_PER_THREAD);
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
        Ok(Self { jobs })
    }

    /// A pool without threads of its own: whoever holds the other end runs the jobs ([`Job::run`]).
    pub fn over(jobs: mpsc::Sender<Job>) -> Self {
        Self { jobs }
    }

    /// Waits for a place in the queue. `false`: the pool is gone.
    pub async fn submit(&self, job: Job) -> bool {
        self.jobs.send(job).await.is_ok()
    }
}

impl Job {
    /// Does the work and reports it.
    pub fn run(self, encoders: &mut Encoders) {
        let Self { file, codec, spool, work, done } = self;
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
