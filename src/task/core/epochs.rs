//! Which leader wrote which offsets, as far as they were read.
//!
//! Owns: the leader epoch of a record that was read. Does not own: what follows from another one (Kafka's log went another way).

use std::collections::{BTreeMap, VecDeque};

use crate::pipeline::source::Position;
use crate::record::Block;

/// Leaders change rarely; offsets below the oldest that is kept have no known epoch.
const KEPT: usize = 64;

/// Per partition the first offsets that were read of each epoch, ascending.
#[derive(Debug, Default)]
pub(super) struct Epochs(BTreeMap<i32, VecDeque<(i64, Option<i32>)>>);

impl Epochs {
    /// `from`: the offset from which on the block's records were new.
    pub(super) fn read(&mut self, block: &Block, from: i64) {
        let known = self.0.entry(block.partition).or_default();
        if known.back().is_none_or(|&(_, epoch)| epoch != block.leader_epoch) {
            known.push_back((from, block.leader_epoch));
            if known.len() > KEPT {
                known.pop_front();
            }
        }
    }

    /// The epochs of offsets below `end`.
    pub(super) fn below(&self, partition: i32, end: i64) -> Vec<(i64, Option<i32>)> {
        let known = self.0.get(&partition).into_iter().flatten().copied();
        known.take_while(|(first, _)| *first < end).collect()
    }

    /// As they were before.
    pub(super) fn adopt(&mut self, epochs: &BTreeMap<i32, Vec<(i64, Option<i32>)>>) {
        self.0 = epochs.iter().map(|(&partition, known)| (partition, known.iter().copied().collect())).collect();
    }

    /// The position after the record at `offset`; `None` where its epoch is not known.
    pub(super) fn after(&self, partition: i32, offset: i64) -> Option<Position> {
        let known = self.0.get(&partition)?;
        let (_, epoch) = known.iter().rev().find(|(first, _)| *first <= offset)?;
        epoch.map(|epoch| Position { offset: offset + 1, leader_epoch: Some(epoch) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BlockBuilder;

    fn block(partition: i32, epoch: Option<i32>) -> Block {
        let mut block = BlockBuilder::default().finish(partition, 0, 0);
        block.leader_epoch = epoch;
        block
    }

    #[test]
    fn each_offset_has_the_epoch_it_was_read_with() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.after(0, 5), None);
        epochs.read(&block(0, Some(3)), 5);
        epochs.read(&block(0, Some(3)), 9);
        epochs.read(&block(0, Some(4)), 12);
        epochs.read(&block(0, None), 20);
        let after = |offset| epochs.after(0, offset).map(|position| (position.offset, position.leader_epoch));
        assert_eq!(after(4), None);
        assert_eq!((after(5), after(11)), (Some((6, Some(3))), Some((12, Some(3)))));
        assert_eq!((after(12), after(19), after(20)), (Some((13, Some(4))), Some((20, Some(4))), None));
        assert_eq!(epochs.after(1, 12), None);
    }

    #[test]
    fn only_the_newest_epochs_are_kept() {
        let mut epochs = Epochs::default();
        for epoch in 0..1000 {
            epochs.read(&block(0, Some(epoch)), i64::from(epoch) * 10);
        }
        assert_eq!(epochs.0[&0].len(), KEPT);
        assert_eq!(epochs.after(0, 9_999).unwrap().leader_epoch, Some(999));
        assert_eq!(epochs.after(0, 50), None);
    }
}
