//! Records merged by time.
//!
//! Owns: frames that overlap in time, held until nothing earlier can come; the limit of their memory.
//! Does not own: records' times ([`super::batch::event_times`]), the order in which frames come ([`super::units`]).
//!
//! Records of the same time come by topic, partition and offset.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::batch::{Batch, Picker, Place};
use super::report::Report;

/// Records that overlap in time are held up to this.
const MAX_HELD_BYTES: usize = 256 << 20;
/// Size of what is given out at a time.
const OUT_BYTES: usize = 1 << 20;

/// A batch whose records' times are known.
#[derive(Debug)]
pub struct Timed {
    batch: Batch,
    /// Of its file.
    topic: Arc<str>,
    /// By time.
    records: Vec<(i64, Place)>,
    next: usize,
}

impl Timed {
    /// `times`: of the batch's records, in their order.
    pub fn new(batch: Batch, times: Vec<i64>) -> Self {
        let places = batch.records().unwrap_or_default();
        let mut records: Vec<(i64, Place)> = times.into_iter().zip(places.iter().copied()).collect();
        records.sort_by_key(|(time, place)| (*time, place.partition, place.offset));
        Self { topic: batch.topic(), batch, records, next: 0 }
    }

    /// Leaves out records, and the memory of those that are left out where they are most.
    pub fn select(&mut self, select: impl FnOnce(&mut Batch)) {
        let before = self.records.len();
        select(&mut self.batch);
        let kept: std::collections::HashSet<(u32, u32)> =
            self.batch.records().unwrap_or_default().iter().map(|place| (place.start, place.source)).collect();
        self.records.retain(|(_, place)| kept.contains(&(place.start, place.source)));
        if self.records.len() < before / 2 {
            self.compact();
        }
    }

    /// Keeps the bytes of what is still to come only.
    fn compact(&mut self) {
        let mut picker = Picker::default();
        let rest: Vec<(i64, Place)> = self.records.drain(..).skip(self.next).collect();
        for (_, place) in &rest {
            picker.pick(&self.batch, place);
        }
        let batch = picker.finish();
        let places = batch.records().unwrap_or_default();
        self.records = rest.iter().map(|(time, _)| *time).zip(places.iter().copied()).collect();
        (self.batch, self.next) = (batch, 0);
    }

    fn memory_bytes(&self) -> usize {
        self.batch.raw_len() + self.records.len() * size_of::<(i64, Place)>()
    }
}

/// When the next record of a held batch is due.
type Due = (i64, Arc<str>, i32, i64, usize);

/// Merges batches that come by their earliest record.
#[derive(Debug)]
pub struct Sweep {
    held: Vec<Option<Timed>>,
    heap: BinaryHeap<Reverse<Due>>,
    held_bytes: usize,
    report: Arc<Report>,
}

impl Sweep {
    pub fn new(report: Arc<Report>) -> Self {
        Self { held: Vec::new(), heap: BinaryHeap::new(), held_bytes: 0, report }
    }

    pub fn push(&mut self, timed: Timed) {
        if timed.records.is_empty() {
            return;
        }
        self.held_bytes += timed.memory_bytes();
        let slot = self.held.iter().position(Option::is_none).unwrap_or(self.held.len());
        if slot == self.held.len() {
            self.held.push(None);
        }
        if let Some(place) = self.held.get_mut(slot) {
            *place = Some(timed);
        }
        self.due(slot);
        if self.held_bytes > MAX_HELD_BYTES {
            for timed in self.held.iter_mut().flatten().filter(|timed| timed.next > timed.records.len() / 2) {
                let before = timed.memory_bytes();
                timed.compact();
                self.held_bytes = self.held_bytes.saturating_sub(before.saturating_sub(timed.memory_bytes()));
            }
        }
    }

    fn due(&mut self, slot: usize) {
        let Some(timed) = self.held.get(slot).and_then(Option::as_ref) else { return };
        let Some((time, place)) = timed.records.get(timed.next) else { return };
        self.heap.push(Reverse((*time, Arc::clone(&timed.topic), place.partition, place.offset, slot)));
    }

    /// The next records earlier than `time_ms`, some at a time; beyond the limit of memory also later ones.
    pub fn before(&mut self, time_ms: i64) -> Option<Batch> {
        let mut picker = Picker::default();
        while picker.raw_len() < OUT_BYTES {
            let Some(Reverse(next)) = self.heap.peek() else { break };
            if next.0 >= time_ms {
                if self.held_bytes <= MAX_HELD_BYTES {
                    break;
                }
                self.report.inexact(&format!(
                    "records of more than {} MiB overlap in time: from here on some come out of order. Narrow --since and --until",
                    MAX_HELD_BYTES >> 20
                ));
            }
            self.pick(&mut picker);
        }
        (picker.raw_len() > 0).then(|| picker.finish())
    }

    /// What is left when nothing more comes.
    pub fn rest(&mut self) -> Option<Batch> {
        let mut picker = Picker::default();
        while picker.raw_len() < OUT_BYTES && !self.heap.is_empty() {
            self.pick(&mut picker);
        }
        (picker.raw_len() > 0).then(|| picker.finish())
    }

    fn pick(&mut self, picker: &mut Picker) {
        let Some(Reverse((.., slot))) = self.heap.pop() else { return };
        let Some(timed) = self.held.get_mut(slot).and_then(Option::as_mut) else { return };
        if let Some((_, place)) = timed.records.get(timed.next) {
            picker.pick(&timed.batch, place);
        }
        timed.next += 1;
        if timed.next < timed.records.len() {
            self.due(slot);
        } else if let Some(done) = self.held.get_mut(slot).and_then(Option::take) {
            self.held_bytes = self.held_bytes.saturating_sub(done.memory_bytes());
        }
    }
}
