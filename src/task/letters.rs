//! Writing dead letters into their topic.
//!
//! Owns: those that wait, one write at a time, going on until the topic has all of them. Does not own: which records these are
//! ([`super::core`]), a single try ([`Kafka::produce`]).

use std::time::Duration;

use crate::clock::Random;
use crate::kafka::backoff::Backoff;
use crate::pipeline::budget::{Budget, Permit};
use crate::pipeline::lane::FileId;
use crate::pipeline::produce::{Outgoing, ProduceError};
use crate::pipeline::source::Kafka;

/// Dead letters that wait or are written; with more, reading waits.
const MAX_BYTES: u64 = 8 << 20;

/// Those that their topic has not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Letters {
    waiting: Batch,
    writing: bool,
    bytes: u64,
}

/// Dead letters that go out together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    ids: Vec<FileId>,
    letters: Vec<Outgoing>,
    permits: Vec<Permit>,
}

/// What all in-sync replicas have.
#[derive(Debug)]
pub(super) struct Written {
    pub ids: Vec<FileId>,
    bytes: u64,
}

impl Letters {
    pub(super) fn have_room(&self) -> bool {
        self.bytes < MAX_BYTES
    }

    pub(super) fn push(&mut self, id: FileId, letters: Vec<Outgoing>, budget: &Budget) {
        let bytes = letters.iter().map(Outgoing::bytes).sum::<usize>() as u64;
        self.bytes += bytes;
        self.waiting.ids.push(id);
        self.waiting.letters.extend(letters);
        self.waiting.permits.push(budget.charge(bytes));
    }

    /// All that waits, unless a write is under way: one at a time, so that a burst is few requests.
    pub(super) fn next(&mut self) -> Option<Batch> {
        if self.writing || self.waiting.ids.is_empty() {
            return None;
        }
        self.writing = true;
        Some(std::mem::take(&mut self.waiting))
    }

    pub(super) fn written(&mut self, written: &Written) {
        self.writing = false;
        self.bytes = self.bytes.saturating_sub(written.bytes);
    }
}

impl Batch {
    /// Returns once all in-sync replicas have all of them.
    ///
    /// # Errors
    /// The topic is not there, or does not take one: nothing else may pass it by.
    pub(super) async fn write(
        self,
        kafka: &dyn Kafka,
        random: &dyn Random,
        topic: &str,
    ) -> Result<Written, ProduceError> {
        let Self { ids, mut letters, permits } = self;
        let bytes = permits.iter().map(Permit::bytes).sum();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            let outcomes = kafka.produce(topic, &letters).await;
            let mut trouble = None;
            let mut open = Vec::new();
            for (letter, outcome) in letters.into_iter().zip(outcomes) {
                match outcome {
                    Ok(_) => {}
                    Err(error @ ProduceError::Unreachable { .. }) => {
                        trouble = Some(error);
                        open.push(letter);
                    }
                    Err(error) => return Err(error),
                }
            }
            let Some(error) = trouble else { return Ok(Written { ids, bytes }) };
            tracing::warn!(topic, %error, "dead letters are not written yet, trying again");
            letters = open;
            tokio::time::sleep(backoff.next_wait(random.next_u128() as u32)).await;
        }
    }
}
