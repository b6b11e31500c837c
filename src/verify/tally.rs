//! The proof by adding up: what the objects say they hold, against all offsets that there are.
//!
//! Owns: sums and counts of a topic, and whether they are those of each offset once. Does not own: reading indexes.
//!
//! A sum of 128-bit hashes over a multiset of offsets identifies it, by all chance: equal sums over the objects and over all
//! offsets mean that each offset is there once. It takes the same memory however many objects there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::scope::Scope;
use crate::archive::digest::{offset_hash, offset_sum};
use crate::archive::frame::FramePartition;

/// Offsets summed at a time by one thread.
const CHUNK: i64 = 1 << 22;

/// What was found of a topic so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub sum: Sum,
    pub partitions: BTreeMap<i32, Count>,
}

/// A 128-bit sum that text can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sum(pub u128);

impl From<Sum> for String {
    fn from(sum: Sum) -> Self {
        format!("{:032x}", sum.0)
    }
}

impl TryFrom<String> for Sum {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

/// How many offsets of a partition were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// In objects.
    pub records: u64,
    /// Left out, as objects or the log tell.
    pub skipped: u64,
    /// The lowest offset that an object knows of.
    pub lowest: Option<i64>,
}

impl Count {
    pub fn know(&mut self, offset: i64) {
        self.lowest = Some(self.lowest.map_or(offset, |lowest| lowest.min(offset)));
    }
}

impl Tally {
    /// A frame all of whose records count.
    pub fn add_frame(&mut self, sum: u128, partitions: &[FramePartition]) {
        self.sum.0 = self.sum.0.wrapping_add(sum);
        for run in partitions {
            self.partitions.entry(run.partition).or_default().records += run.count;
        }
    }

    pub fn add_record(&mut self, seed: u64, partition: i32, offset: i64) {
        self.sum.0 = self.sum.0.wrapping_add(offset_hash(seed, partition, offset));
        self.partitions.entry(partition).or_default().records += 1;
    }

    /// What another part of the objects adds.
    pub fn merge(&mut self, other: &Self) {
        self.sum.0 = self.sum.0.wrapping_add(other.sum.0);
        for (&partition, count) in &other.partitions {
            let mine = self.partitions.entry(partition).or_default();
            mine.records += count.records;
            mine.skipped += count.skipped;
            if let Some(lowest) = count.lowest {
                mine.know(lowest);
            }
        }
    }

    /// Offsets that were left out.
    pub fn add_skipped(&mut self, partition: i32, count: u64, sum: u128) {
        self.sum.0 = self.sum.0.wrapping_add(sum);
        self.partitions.entry(partition).or_default().skipped += count;
    }

    /// Partitions of which more or fewer offsets were found than there are; all, where only the sum tells that something is
    /// wrong. Empty: proven.
    pub fn suspects(&self, scope: &Scope, expected: u128) -> Vec<i32> {
        let miscounted: Vec<i32> = scope
            .partitions
            .iter()
            .filter(|(partition, extent)| {
                let count = self.partitions.get(partition).copied().unwrap_or_default();
                count.records + count.skipped != extent.offsets()
            })
            .map(|(&partition, _)| partition)
            .collect();
        if miscounted.is_empty() && self.sum.0 != expected {
            return scope.partitions.keys().copied().collect();
        }
        miscounted
    }
}

/// The sum over all offsets that are to be proven, on all cores. `done` is told how many were added.
pub fn expected_sum(scope: &Scope, done: &(dyn Fn(u64) + Sync)) -> u128 {
    let runs: Vec<(i32, i64, i64)> = scope
        .partitions
        .iter()
        .flat_map(|(&partition, extent)| extent.runs().into_iter().map(move |(first, end)| (partition, first, end)))
        .collect();
    sum_of_runs(scope.seed(), &runs, done)
}

/// The sum over runs of offsets (partition, first, end), on all cores.
pub fn sum_of_runs(seed: u64, runs: &[(i32, i64, i64)], done: &(dyn Fn(u64) + Sync)) -> u128 {
    let mut chunks = Vec::new();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = std::sync::atomic::AtomicUsize::new(0);
    for &(partition, first, end) in runs {
        // Described, not listed: a million offsets are one number here.
        chunks.push((partition, first, end, end.abs_diff(first).div_ceil(CHUNK.unsigned_abs())));
    }
    let total: u64 = chunks.iter().map(|(.., count)| *count).sum();
    let chunk_at = |index: u64| {
        let mut rest = index;
        chunks.iter().find_map(|&(partition, first, end, count)| {
            if rest >= count {
                rest -= count;
                return None;
            }
            let from = first.saturating_add(rest.cast_signed().saturating_mul(CHUNK));
            Some((partition, from, from.saturating_add(CHUNK).min(end)))
        })
    };
    let work = || {
        let mut sum = 0u128;
        loop {
            let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as u64;
            let Some((partition, from, to)) = (index < total).then(|| chunk_at(index)).flatten() else { return sum };
            sum = sum.wrapping_add(offset_sum(seed, partition, from, to));
            done(to.abs_diff(from));
        }
    };
    if total <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // A thread that panicked would leave a sum that proves nothing.
        workers.into_iter().fold(0u128, |sum, worker| match worker.join() {
            Ok(part) => sum.wrapping_add(part),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Identity;
    use crate::verify::scope::Extent;

    fn scope() -> Scope {
        let mut other = Extent::new(Some(100), 160);
        other.lose(110, 120);
        Scope {
            topic: "applogs".to_owned(),
            identity: Identity::default(),
            partitions: [(0, Extent::new(Some(0), 50)), (1, other)].into(),
        }
    }

    fn whole(scope: &Scope) -> Tally {
        let mut tally = Tally::default();
        for (&partition, extent) in &scope.partitions {
            for (first, end) in extent.runs() {
                (first..end).for_each(|offset| tally.add_record(scope.seed(), partition, offset));
            }
        }
        tally
    }

    #[test]
    fn each_offset_once_is_proven() {
        let scope = scope();
        let expected = expected_sum(&scope, &|_| {});
        assert_eq!(whole(&scope).suspects(&scope, expected), [0; 0]);
        // In frames, and some of it left out.
        let mut tally = Tally::default();
        let seed = scope.seed();
        let run = |first: i64, last: i64| FramePartition { partition: 0, first, last, count: first.abs_diff(last) + 1 };
        tally.add_frame(offset_sum(seed, 0, 0, 20), &[run(0, 19)]);
        tally.add_frame(offset_sum(seed, 0, 25, 50), &[run(25, 49)]);
        tally.add_skipped(0, 5, offset_sum(seed, 0, 20, 25));
        tally.add_skipped(1, 50, sum_of_runs(seed, &[(1, 100, 110), (1, 120, 160)], &|_| {}));
        assert_eq!(tally.suspects(&scope, expected), [0; 0]);
    }

    #[test]
    fn one_too_few_too_many_or_another_is_not() {
        let scope = scope();
        let expected = expected_sum(&scope, &|_| {});
        let mut twice = whole(&scope);
        twice.add_record(scope.seed(), 1, 130);
        assert_eq!(twice.suspects(&scope, expected), [1]);
        let mut other = whole(&scope);
        other.sum.0 =
            other.sum.0.wrapping_sub(offset_hash(scope.seed(), 0, 7)).wrapping_add(offset_hash(scope.seed(), 0, 8));
        assert_eq!(other.suspects(&scope, expected), [0, 1], "only the sum tells");
        assert_eq!(Tally::default().suspects(&scope, expected), [0, 1]);
    }

    #[test]
    fn many_chunks_sum_like_one() {
        let runs = [(3, 5, 5 + CHUNK * 2 + 17), (4, 0, 1), (5, 9, 9)];
        let singly = runs.iter().fold(0u128, |sum, &(p, first, end)| sum.wrapping_add(offset_sum(7, p, first, end)));
        let done = std::sync::atomic::AtomicU64::new(0);
        let count = |offsets| {
            done.fetch_add(offsets, std::sync::atomic::Ordering::Relaxed);
        };
        assert_eq!(sum_of_runs(7, &runs, &count), singly);
        assert_eq!(done.into_inner(), (CHUNK * 2 + 18).unsigned_abs());
    }
}
