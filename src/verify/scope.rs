//! What is to be proven of a topic, and which records count for it.
//!
//! Owns: per partition where the proof begins and ends, what of an object's records lies between. Does not own: adding up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::archive::digest::topic_seed;
use crate::archive::frame::FramePartition;
use crate::ledger::Identity;

/// A topic of the connector, as its logs describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub topic: String,
    pub identity: Identity,
    pub partitions: BTreeMap<i32, Extent>,
}

/// What is to be proven of a partition: each offset from `start` to before `low` is in one object or was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// `None`: the logs do not tell it; then it is the lowest offset that any object knows of.
    pub start: Option<i64>,
    pub low: i64,
    /// Of what is archived now.
    pub incarnation: u32,
    /// As [`crate::ledger::Begin::limits`].
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub limits: Vec<(u32, i64)>,
    /// First offset and the one after the last of what somebody accepted as lost; there may be records of it. Ascending,
    /// disjoint.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lost: Vec<(i64, i64)>,
}

/// How a run of records of one partition lies to what is to be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// All of it counts.
    Within,
    /// None of it does.
    Outside,
    /// Only its offsets tell.
    Across,
}

impl Extent {
    pub fn new(start: Option<i64>, low: i64) -> Self {
        Self { start, low, incarnation: 0, limits: Vec::new(), lost: Vec::new() }
    }

    fn start(&self) -> i64 {
        self.start.unwrap_or(i64::MIN)
    }

    /// The end of what an object of this incarnation can hold of it.
    pub fn end(&self, incarnation: u32) -> i64 {
        if incarnation > self.incarnation {
            return i64::MIN;
        }
        let later = self.limits.iter().filter(|(limited, _)| *limited > incarnation);
        later.map(|(_, limit)| *limit).min().unwrap_or(i64::MAX).min(self.low)
    }

    /// Whether a record at this offset, in an object of this incarnation, counts.
    pub fn counts(&self, incarnation: u32, offset: i64) -> bool {
        offset >= self.start()
            && offset < self.end(incarnation)
            && !self.lost.iter().any(|&(first, end)| (first..end).contains(&offset))
    }

    /// Where a run from `first` to `last` lies.
    pub fn place(&self, incarnation: u32, first: i64, last: i64) -> Place {
        let (start, end) = (self.start(), self.end(incarnation));
        if last < start || first >= end || self.lost.iter().any(|&(from, to)| first >= from && last < to) {
            return Place::Outside;
        }
        let touches_lost = self.lost.iter().any(|&(from, to)| first < to && last >= from);
        if first >= start && last < end && !touches_lost { Place::Within } else { Place::Across }
    }

    /// The offsets to be proven, in ascending runs.
    pub fn runs(&self) -> Vec<(i64, i64)> {
        let mut runs = Vec::new();
        let mut from = self.start.unwrap_or(self.low);
        for &(first, end) in &self.lost {
            if first > from {
                runs.push((from, first.min(self.low)));
            }
            from = from.max(end);
        }
        runs.push((from, self.low));
        runs.retain(|(first, end)| first < end);
        runs
    }

    /// How many offsets are to be proven.
    pub fn offsets(&self) -> u64 {
        self.runs().iter().map(|(first, end)| end.abs_diff(*first)).sum()
    }

    /// Takes in offsets that somebody accepted as lost; `true`: they were not known before.
    pub fn lose(&mut self, first: i64, end: i64) -> bool {
        if first >= end || self.lost.iter().any(|&(from, to)| from <= first && end <= to) {
            return false;
        }
        self.lost.push((first, end));
        self.lost.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(self.lost.len());
        for &(first, end) in &self.lost {
            match joined.last_mut() {
                Some(last) if first <= last.1 => last.1 = last.1.max(end),
                _ => joined.push((first, end)),
            }
        }
        self.lost = joined;
        true
    }
}

impl Scope {
    pub fn newest_incarnation(&self) -> u32 {
        self.partitions.values().map(|extent| extent.incarnation).max().unwrap_or(self.identity.incarnation)
    }

    pub fn seed(&self) -> u64 {
        topic_seed(&self.topic)
    }

    pub fn offsets(&self) -> u64 {
        self.partitions.values().map(Extent::offsets).sum()
    }

    /// How a frame of an object of this incarnation lies: as its partitions do, if they all do alike.
    pub fn place(&self, incarnation: u32, partitions: &[FramePartition]) -> Place {
        let mut places = partitions.iter().map(|run| match self.partitions.get(&run.partition) {
            Some(extent) => extent.place(incarnation, run.first, run.last),
            None => Place::Outside,
        });
        let Some(first) = places.next() else { return Place::Outside };
        if places.all(|place| place == first) { first } else { Place::Across }
    }

    /// Whether a record counts.
    pub fn counts(&self, incarnation: u32, partition: i32, offset: i64) -> bool {
        self.partitions.get(&partition).is_some_and(|extent| extent.counts(incarnation, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_start_and_low_counts() {
        let extent = Extent::new(Some(10), 20);
        for (first, last, place) in [
            (0, 9, Place::Outside),
            (20, 30, Place::Outside),
            (10, 19, Place::Within),
            (12, 12, Place::Within),
            (9, 12, Place::Across),
            (19, 20, Place::Across),
            (0, 99, Place::Across),
        ] {
            assert_eq!(extent.place(0, first, last), place, "{first} to {last}");
        }
        assert_eq!((extent.counts(0, 9), extent.counts(0, 10), extent.counts(0, 20)), (false, true, false));
        assert_eq!(Extent::new(None, 20).place(0, -5, 3), Place::Within);
    }

    #[test]
    fn earlier_incarnations_count_below_their_limit() {
        let extent = Extent { incarnation: 3, limits: vec![(1, 15), (3, 12)], ..Extent::new(Some(10), 20) };
        assert_eq!([0, 1, 2, 3, 4].map(|incarnation| extent.end(incarnation)), [12, 12, 12, 20, i64::MIN]);
        assert_eq!(extent.place(0, 11, 12), Place::Across);
        assert_eq!(extent.place(3, 11, 12), Place::Within);
    }

    #[test]
    fn what_is_lost_is_left_out() {
        let mut extent = Extent::new(Some(0), 100);
        assert!(extent.lose(10, 20) && extent.lose(15, 30) && !extent.lose(12, 30) && !extent.lose(5, 5));
        assert!(extent.lose(90, 200));
        assert_eq!(extent.runs(), [(0, 10), (30, 90)]);
        assert_eq!(extent.offsets(), 70);
        assert_eq!(extent.place(0, 12, 29), Place::Outside);
        assert_eq!(extent.place(0, 5, 10), Place::Across);
        assert_eq!(extent.place(0, 30, 89), Place::Within);
    }

    #[test]
    fn a_frame_lies_as_all_its_partitions_do() {
        let run = |partition, first, last| FramePartition { partition, first, last, count: 1 };
        let scope = Scope {
            topic: "t".to_owned(),
            identity: Identity::default(),
            partitions: [(0, Extent::new(Some(0), 10)), (1, Extent::new(Some(0), 5))].into(),
        };
        assert_eq!(scope.place(0, &[run(0, 0, 9), run(1, 0, 4)]), Place::Within);
        assert_eq!(scope.place(0, &[run(0, 0, 9), run(1, 5, 9)]), Place::Across);
        assert_eq!(scope.place(0, &[run(1, 5, 9), run(2, 0, 0)]), Place::Outside);
    }
}
