//! Compression on a pool of threads that all tasks of a worker share: one hot partition or one hot app uses every core.
//!
//! Owns: the threads, their reused codec contexts, the bounded queue in front of them.
//! Does not own: which frames to cut, the order of frames in a file ([`super::spool`]).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use tokio::sync::{Mutex, mpsc};

use super::budget::Permit;
use super::lane::FileId;
use super::spool::{FrameStored, SpoolError, SpoolFile};
use crate::archive::codec::{Codec, CodecError, Encoder};
use crate::archive::frame::FrameBuffer;

/// Frames that may wait per thread: enough that a thread never runs dry, few enough to bound memory.
const QUEUE_PER_THREAD: usize = 2;

/// One frame to compress and store.
#[derive(Debug)]
pub struct CompressJob {
    pub file: FileId,
    pub sequence: u32,
    pub buffer: FrameBuffer,
    pub codec: Codec,
    pub level: Option<i32>,
    pub spool: Arc<SpoolFile>,
    /// Counts the buffer's memory until the frame is stored.
    pub permit: Permit,
    pub done: mpsc::UnboundedSender<Compressed>,
}

/// Outcome of a job: the frames that reached the spool by it.
#[derive(Debug)]
pub struct Compressed {
    pub file: FileId,
    pub stored: Result<Vec<FrameStored>, CompressError>,
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
    jobs: mpsc::Sender<CompressJob>,
}

impl CompressPool {
    /// Starts the threads; they end when the last clone is gone.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(threads: NonZeroUsize) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(threads.get() * QUEUE_PER_THREAD);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads.get() {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name(format!("compress-{number}")).spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Waits for a place in the queue. `false`: the pool is gone.
    pub async fn submit(&self, job: CompressJob) -> bool {
        self.jobs.send(job).await.is_ok()
    }
}

fn work(queue: &Mutex<mpsc::Receiver<CompressJob>>) {
    let mut encoders: Vec<(Codec, Option<i32>, Encoder)> = Vec::new();
    loop {
        let Some(job) = queue.blocking_lock().blocking_recv() else { return };
        let CompressJob { file, sequence, buffer, codec, level, spool, permit, done } = job;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let encoder = encoder(&mut encoders, codec, level)?;
            let mut frame = Vec::new();
            let meta = buffer.encode(encoder, &mut frame)?;
            drop(buffer);
            Ok(spool.write_frame(sequence, frame, meta)?)
        }));
        let stored = outcome.unwrap_or_else(|_| {
            // A context that panicked half-way is not trusted again.
            encoders.clear();
            Err(CompressError::Panicked)
        });
        drop(permit);
        drop(spool);
        // A task that is gone does not wait for its frames.
        let _ = done.send(Compressed { file, stored });
    }
}

/// The thread's context for these settings; a worker has few different ones.
fn encoder(
    encoders: &mut Vec<(Codec, Option<i32>, Encoder)>,
    codec: Codec,
    level: Option<i32>,
) -> Result<&mut Encoder, CodecError> {
    let found = encoders.iter().position(|(known, known_level, _)| *known == codec && *known_level == level);
    let index = match found {
        Some(index) => index,
        None => {
            encoders.push((codec, level, Encoder::new(codec, level)?));
            encoders.len() - 1
        }
    };
    Ok(&mut encoders[index].2)
}
