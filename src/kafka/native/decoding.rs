//! The task that decodes what was fetched and sends it on.
//!
//! Owns: the order of a partition's events, the budget of blocks. Does not own: what is fetched when.

use tokio::sync::mpsc;

use crate::kafka::native::codecs::Codecs;
use crate::kafka::native::decode::{Decoder, Fetched};
use crate::kafka::native::output::Pool;
use crate::pipeline::budget::{Budget, Permit};
use crate::pipeline::source::{SourceError, SourceEvent};

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
    while let Some(job) = jobs.recv().await {
        let (fetched, permit) = match job {
            Job::Decode(fetched, permit) => (fetched, permit),
            Job::Fail { partition, offset, error } => {
                if events.send(SourceEvent::Failed { partition, offset, error }).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let partition = fetched.partition;
        let mut failed = false;
        for block in Decoder::new(fetched, &mut codecs, &pool) {
            let event = match block {
                Ok(block) => {
                    // Waiting for room here could wait for the very bytes that are being decoded. What may be over the
                    // budget is one block per task, and what the channel holds.
                    let permit = budget.charge(block.memory_bytes());
                    SourceEvent::Block(block, permit)
                }
                Err(error) => {
                    failed = true;
                    let offset = error.position;
                    let message = error.error.to_string();
                    let error = SourceError::Unreadable { topic: topic.clone(), partition, offset, message };
                    SourceEvent::Failed { partition, offset, error }
                }
            };
            if events.send(event).await.is_err() {
                return;
            }
        }
        let bytes = permit.bytes();
        drop(permit);
        if done.send(Decoded { partition, bytes, failed }).is_err() {
            return;
        }
    }
}
