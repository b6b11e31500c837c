//! What keeps low back: the first offset of every open lane and pending intent, per partition.
//!
//! Owns: the minimum, found without looking at every lane. Does not own: low itself (the log says it).

use std::collections::{BTreeMap, BTreeSet};

/// Names one open lane or pending intent within a task's ownership.
pub type HoldId = u64;

/// First offsets not yet known to be in the store.
#[derive(Debug, Default)]
pub struct Holds {
    by_partition: BTreeMap<i32, BTreeSet<(i64, HoldId)>>,
    by_id: BTreeMap<HoldId, BTreeMap<i32, i64>>,
}

impl Holds {
    /// The lane or intent `id` begins in `partition` at `offset`. A second offset of the same partition is higher and says
    /// nothing new.
    pub fn hold(&mut self, id: HoldId, partition: i32, offset: i64) {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.by_id.entry(id).or_default().entry(partition) {
            vacant.insert(offset);
            self.by_partition.entry(partition).or_default().insert((offset, id));
        }
    }

    /// The lane's records are in the store, and the log is about to say so.
    pub fn release(&mut self, id: HoldId) {
        for (partition, offset) in self.by_id.remove(&id).unwrap_or_default() {
            if let Some(held) = self.by_partition.get_mut(&partition) {
                held.remove(&(offset, id));
            }
        }
    }

    /// What `id` holds back, by partition.
    pub fn of(&self, id: HoldId) -> impl Iterator<Item = (i32, i64)> {
        self.by_id.get(&id).into_iter().flatten().map(|(&partition, &offset)| (partition, offset))
    }

    /// The low that follows: `position` (everything below it is in a lane, skipped or dead-lettered), or the first held offset.
    pub fn low(&self, partition: i32, position: i64) -> i64 {
        let first = self.by_partition.get(&partition).and_then(|held| held.first());
        first.map_or(position, |&(offset, _)| offset.min(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_is_the_least_of_position_and_held_offsets() {
        let mut holds = Holds::default();
        assert_eq!(holds.low(0, 10), 10);
        holds.hold(1, 0, 4);
        holds.hold(2, 0, 7);
        holds.hold(1, 0, 8);
        holds.hold(3, 1, 2);
        assert_eq!(holds.low(0, 10), 4);
        holds.release(1);
        assert_eq!(holds.low(0, 10), 7);
        holds.release(2);
        assert_eq!(holds.low(0, 10), 10);
        assert_eq!(holds.low(1, 10), 2);
    }
}
