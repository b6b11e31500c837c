//! Which transactional batches of a fetched partition were aborted (KIP-98).
//!
//! Owns: the walk along the broker's list. Does not own: markers' bytes.

use std::collections::{HashSet, VecDeque};

/// The aborted transactions of one partition in one answer; a new answer starts a new one.
#[derive(Debug, Default)]
pub struct Aborted {
    /// (first offset, producer id), ascending.
    coming: VecDeque<(i64, i64)>,
    active: HashSet<i64>,
}

impl Aborted {
    /// From the broker's list of (producer id, first offset).
    pub fn new(list: &[(i64, i64)]) -> Self {
        let mut coming: Vec<(i64, i64)> = list.iter().map(|&(producer, first)| (first, producer)).collect();
        coming.sort_unstable();
        Self { coming: coming.into(), active: HashSet::new() }
    }

    /// Comes before a batch is looked at, with the offset of its last record.
    pub fn advance(&mut self, last_offset: i64) {
        while let Some(&(_, producer)) = self.coming.front().filter(|(first, _)| *first <= last_offset) {
            self.active.insert(producer);
            self.coming.pop_front();
        }
    }

    /// Whether a transactional batch of this producer is to be dropped.
    pub fn contains(&self, producer_id: i64) -> bool {
        self.active.contains(&producer_id)
    }

    /// An abort marker ends the producer's transaction.
    pub fn end(&mut self, producer_id: i64) {
        self.active.remove(&producer_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_aborted_from_the_first_offset_to_its_marker() {
        let mut aborted = Aborted::new(&[(7, 20), (5, 10), (7, 40)]);
        aborted.advance(9);
        assert!(!aborted.contains(5) && !aborted.contains(7));
        aborted.advance(20);
        assert!(aborted.contains(5) && aborted.contains(7));
        aborted.end(7);
        aborted.advance(39);
        assert!(aborted.contains(5) && !aborted.contains(7));
        aborted.advance(45);
        assert!(aborted.contains(7));
    }
}
