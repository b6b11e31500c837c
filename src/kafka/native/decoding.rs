//! The task that decodes what was fetched and sends it on.
//!
//! Owns: the order of a partition's events, the budget of blocks. Does not own: what is fetched when.

use std::any::Any;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::mpsc;

use crate::kafka::native::codecs::Codecs;
use crate::kafka::native::decode::{DecodeError, Decoder, Fetched};
use crate::kafka::native::output::Pool;
use crate::pipeline::budget::{Budget, Permit};
use crate::pipeline::source::{SourceError, SourceEvent};
use crate::record::Block;

/// What is to be done for a partition, after all that came before.
#[derive(Debug)]
pub enum Job {
    /// The permit counts the fetched bytes.
    Decode(Fetched, Permit),
    Fail {
        partition: i32,
        offset: i64,
        error: SourceError,
    },
}

/// An answer was decoded, as far as it could be.
#[derive(Clone, Copy, Debug)]
pub struct Decoded {
    pub partition: i32,
    pub bytes: u64,
    pub failed: bool,
}

/// Decodes until the jobs end or nobody listens.
pub async fn run(
    topic: String,
    budget: Budget,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    events: mpsc::Sender<SourceEvent>,
    done: mpsc::UnboundedSender<Decoded>,
) {
    let (mut codecs, pool) = (Codecs::default(), Pool::default());
    // Answers that were fetched ahead of a failure are not shown: what comes after a hole is out of order.
    let mut ended: HashSet<i32> = HashSet::new();
    while let Some(job) = jobs.recv().await {
        let (fetched, permit) = match job {
            Job::Decode(fetched, permit) if ended.contains(&fetched.partition) => {
                let skipped = Decoded { partition: fetched.partition, bytes: permit.bytes(), failed: true };
                if done.send(skipped).is_err() {
                    return;
                }
                continue;
            }
            Job::Fail { partition, .. } if ended.contains(&partition) => continue,
            Job::Decode(fetched, permit) => (fetched, permit),
            Job::Fail { partition, offset, error } => {
                ended.insert(partition);
                if events.send(SourceEvent::Failed { partition, offset, error }).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let partition = fetched.partition;
        let mut failed = false;
        let mut offset = fetched.position;
        let mut decoder = Decoder::new(fetched, &mut codecs, &pool);
        while let Some(block) = next_block(&mut decoder, offset) {
            let event = match block {
                Ok(block) => {
                    // Waiting for room here could wait for the very bytes that are being decoded. What may be over the
                    // budget is one block per task, and what the channel holds.
                    let permit = budget.charge(block.memory_bytes());
                    offset = block.next_offset;
                    SourceEvent::Block(block, permit)
                }
                Err(error) => {
                    failed = true;
                    ended.insert(partition);
                    let Failure { offset, message } = error;
                    let error = SourceError::Unreadable { topic: topic.clone(), partition, offset, message };
                    SourceEvent::Failed { partition, offset, error }
                }
            };
            if events.send(event).await.is_err() {
                return;
            }
            if failed {
                break;
            }
        }
        let bytes = permit.bytes();
        drop(permit);
        if done.send(Decoded { partition, bytes, failed }).is_err() {
            return;
        }
    }
}

/// Why a partition can't be decoded further, and from where.
struct Failure {
    offset: i64,
    message: String,
}

/// The decoder's next block; a mistake of ours is told like any damage, with its place, instead of ending this task in
/// silence.
fn next_block(decoder: &mut Decoder<'_>, offset: i64) -> Option<Result<Block, Failure>> {
    let next = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        tests::fault();
        decoder.next()
    }));
    match next {
        Ok(block) => {
            let failure = |error: DecodeError| Failure { offset: error.position, message: error.error.to_string() };
            block.map(|block| block.map_err(failure))
        }
        Err(panic) => Some(Err(Failure { offset, message: format!("the decoder panicked: {}", panic_text(&*panic)) })),
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use bytes::Bytes;

    use super::*;

    thread_local! {
        /// Blocks until the decoder of this thread panics; below 0 never.
        pub(in crate::kafka::native) static PANIC_IN: Cell<i32> = const { Cell::new(-1) };
    }

    pub(super) fn fault() {
        let left = PANIC_IN.get();
        PANIC_IN.set((left - 1).max(-1));
        assert_ne!(left, 0, "as the test wants");
    }

    /// Garbage for a partition, then an answer without records.
    #[tokio::test]
    async fn nothing_of_a_partition_comes_after_its_failure() {
        let budget = Budget::new(1 << 20);
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (sender, mut events) = mpsc::channel(8);
        let (done, mut decoded) = mpsc::unbounded_channel();
        let job = |partition, records: &'static [u8]| {
            let records = Bytes::from_static(records);
            let aborted = Vec::new();
            let fetched = Fetched { partition, position: 0, aborted, end_offset: 9, log_start_offset: 0, records };
            Job::Decode(fetched, budget.charge(1))
        };
        jobs.send(job(1, &[0xff; 100])).unwrap();
        jobs.send(job(1, &[])).unwrap();
        let error = SourceError::NoTopic { topic: "t".into() };
        jobs.send(Job::Fail { partition: 1, offset: 0, error }).unwrap();
        jobs.send(job(2, &[])).unwrap();
        drop(jobs);
        run("t".into(), budget.clone(), receiver, sender, done).await;
        let mut seen = Vec::new();
        while let Some(event) = events.recv().await {
            seen.push(match event {
                SourceEvent::Block(block, _) => (block.partition, "block"),
                SourceEvent::Failed { partition, .. } => (partition, "failed"),
                SourceEvent::Waiting { partition, .. } => (partition, "waiting"),
            });
        }
        assert_eq!(seen, [(1, "failed"), (2, "block")]);
        assert_eq!(budget.used_bytes(), 0);
        let mut bytes = 0;
        while let Some(decoded) = decoded.recv().await {
            bytes += decoded.bytes;
        }
        assert_eq!(bytes, 3, "all that was handed over is given back");
    }
}
