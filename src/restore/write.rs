//! Writing records, some at a time, each once.
//!
//! Owns: how much is under way, the rate, what an answer means for the position, when that is saved.
//! Does not own: the position's file ([`super::position`]), the way to the brokers ([`Kafka::produce`]).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::position::{Position, PositionFile};
use super::records::Ready;
use super::{Limits, Progress, RestoreError};
use crate::pipeline::produce::ProduceError;
use crate::pipeline::source::Kafka;

/// With a rate, so much is written at a time.
const RATE_STEP: Duration = Duration::from_millis(200);

/// Writes records in the order in which they come.
pub struct Writer<'a> {
    kafka: &'a dyn Kafka,
    progress: &'a dyn Progress,
    file: &'a PositionFile,
    pub position: Position,
    limits: Limits,
    rate: Option<u32>,
    /// Waiting to be written, after what the position has.
    waiting: VecDeque<Ready>,
    waiting_bytes: usize,
    saved: Instant,
    /// When the next records are due.
    due: Instant,
    /// Written by this run.
    pub records: u64,
    pub bytes: u64,
}

impl<'a> Writer<'a> {
    pub fn new(
        kafka: &'a dyn Kafka,
        progress: &'a dyn Progress,
        file: &'a PositionFile,
        position: Position,
        (mut limits, rate): (Limits, Option<u32>),
    ) -> Self {
        let now = Instant::now();
        let of_rate = |rate: u32| (u64::from(rate) * RATE_STEP.as_millis() as u64 / 1000).max(1) as usize;
        limits.chunk_records = limits.chunk_records.min(rate.map_or(usize::MAX, of_rate)).max(1);
        Self {
            kafka,
            progress,
            file,
            position,
            limits,
            rate,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            saved: now,
            due: now,
            records: 0,
            bytes: 0,
        }
    }

    /// Takes a record that is next.
    pub fn take(&mut self, ready: Ready) {
        self.waiting_bytes += ready.outgoing.bytes();
        self.waiting.push_back(ready);
    }

    /// Whether enough waits to be written at once.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.limits.chunk_records || self.waiting_bytes >= self.limits.chunk_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next records may be written.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Writes the next records and returns once they are acknowledged. What was under way when it fails is in the position
    /// as far as it is known.
    ///
    /// # Errors
    /// A record is not known to be written, or the position can't be saved.
    pub async fn write(&mut self) -> Result<(), RestoreError> {
        let chunk = self.next_chunk();
        if self.position.settled {
            self.position.settled = false;
            self.save()?;
        }
        let (mut origins, mut records) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for ready in chunk {
            let is_new = !self.position.has(&ready.stream, ready.offset);
            bytes += if is_new { ready.outgoing.bytes() as u64 } else { 0 };
            origins.push((ready.stream, ready.offset, is_new.then_some(records.len())));
            records.extend(is_new.then_some(ready.outgoing));
        }
        let outcomes = match records.is_empty() {
            true => Vec::new(),
            false => self.kafka.produce(&self.position.asked.target, &records).await,
        };
        let mut failure = None;
        for (stream, offset, number) in &origins {
            let Some(number) = number else { continue };
            match outcomes.get(*number) {
                Some(Ok(written)) => {
                    self.position.wrote(stream, *offset);
                    if written.offset >= 0 {
                        let end = self.position.ends.entry(written.partition).or_default();
                        *end = written.offset.saturating_add(1).max(*end);
                    }
                }
                Some(Err(error)) => {
                    // What nobody answered for may be there all the same: the tail from before it has to be read.
                    failure.get_or_insert_with(|| (stream.clone(), *offset, error.clone()));
                }
                None => {
                    let topic = self.position.asked.target.clone();
                    let error = ProduceError::Unreachable { topic, message: "no answer for a record".to_owned() };
                    failure.get_or_insert((stream.clone(), *offset, error));
                }
            }
        }
        if let Some((stream, offset, error)) = failure {
            return Err(RestoreError::Record {
                topic: stream.topic.to_string(),
                partition: stream.partition,
                offset,
                error,
            });
        }
        for (stream, offset, _) in &origins {
            self.position.reached(stream, *offset);
        }
        self.records += records.len() as u64;
        self.bytes += bytes;
        self.progress.written(records.len() as u64);
        self.pace(records.len());
        if self.saved.elapsed() >= self.limits.save_every {
            self.save()?;
        }
        Ok(())
    }

    fn next_chunk(&mut self) -> Vec<Ready> {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            let more = next.outgoing.bytes();
            if chunk.len() >= self.limits.chunk_records || (!chunk.is_empty() && bytes + more > self.limits.chunk_bytes)
            {
                break;
            }
            bytes += more;
            chunk.extend(self.waiting.pop_front());
        }
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        chunk
    }

    fn pace(&mut self, records: usize) {
        let Some(rate) = self.rate else { return };
        let takes = Duration::from_secs_f64(records as f64 / f64::from(rate));
        // What was late is not made up for by a burst.
        self.due = self.due.max(Instant::now().checked_sub(RATE_STEP).unwrap_or(self.due)) + takes;
    }

    /// Nothing is under way: a later start need not read the target.
    ///
    /// # Errors
    /// The position can't be saved.
    pub fn settle(&mut self) -> Result<(), RestoreError> {
        self.position.settled = true;
        self.save()
    }

    /// # Errors
    /// The position can't be saved.
    pub fn save(&mut self) -> Result<(), RestoreError> {
        self.saved = Instant::now();
        self.file.save(&self.position)
    }
}
