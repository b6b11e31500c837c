//! Offsets that were left out, as indexes and the log tell them.
//!
//! Owns: what they add to a proof. Does not own: their bytes.

use super::scope::{Extent, Place, Scope};
use super::tally::Tally;
use crate::archive::digest::offset_sum;
use crate::archive::index::{FileFacts, SkipReason, Skipped};

/// Offsets of a partition that no object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub partition: i32,
    pub first: i64,
    pub last: i64,
    pub incarnation: u32,
    /// How many of them, and the sum of their hashes; `None`: all.
    pub scattered: Option<(u64, u128)>,
    /// Somebody accepted that they are gone; objects may hold some.
    pub lost: bool,
}

/// What an index tells.
pub fn told_by(facts: &FileFacts) -> impl Iterator<Item = Told> {
    facts.skipped.iter().map(Told::from)
}

impl From<&Skipped> for Told {
    fn from(skipped: &Skipped) -> Self {
        let Skipped { partition, first, last, reason, incarnation, scattered } = *skipped;
        let scattered = scattered.map(|scattered| (scattered.count, scattered.sum.0));
        Self { partition, first, last, incarnation, scattered, lost: reason == SkipReason::Lost }
    }
}

impl Told {
    /// First offset and the one after the last, as far as they are of what is archived now.
    pub fn run(&self, extent: &Extent) -> (i64, i64) {
        (self.first, self.last.saturating_add(1).min(extent.end(self.incarnation)))
    }

    /// Adds what counts of it; what is lost goes to `lost`.
    pub fn add_to(&self, scope: &Scope, tally: &mut Tally, lost: &mut Vec<(i32, i64, i64)>) {
        let Self { partition, first, last, incarnation, .. } = *self;
        let Some(extent) = scope.partitions.get(&partition) else { return };
        tally.partitions.entry(partition).or_default().know(first);
        if self.lost {
            let (first, end) = self.run(extent);
            lost.push((partition, first, end));
            return;
        }
        match (extent.place(incarnation, first, last), self.scattered) {
            (Place::Outside, _) => {}
            (Place::Within, Some((count, sum))) => tally.add_skipped(partition, count, sum),
            // Which of them count is not told: the numbers will not fit, and each offset is looked at.
            (Place::Across, Some(_)) => {}
            (_, None) => {
                let mut from = first.max(extent.start.unwrap_or(first));
                let end = last.saturating_add(1).min(extent.end(incarnation));
                for &(lost_first, lost_end) in &extent.lost {
                    add_run(scope, tally, partition, from, end.min(lost_first));
                    from = from.max(lost_end);
                }
                add_run(scope, tally, partition, from, end);
            }
        }
    }
}

fn add_run(scope: &Scope, tally: &mut Tally, partition: i32, from: i64, end: i64) {
    if from < end {
        tally.add_skipped(partition, end.abs_diff(from), offset_sum(scope.seed(), partition, from, end));
    }
}
