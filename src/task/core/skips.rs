//! Offsets that were read and are in no lane: left out by rule, or holes of Kafka's log.
//!
//! Owns: what was noted above low, how much of that is kept apart, joining what is too much. Does not own: where it is written
//! ([`crate::ledger::skips`]).
//!
//! A topic with transactions has a hole after each of them, a compacted one may have as many holes as records. Kept apart are
//! the first few of each stretch of the log; then only their number and the sum of their hashes is kept, which proves as much.
//! Low does not pass such a stretch half-way.

use std::collections::{BTreeMap, VecDeque};

use crate::archive::index::{SkipReason, Skipped};

/// Offsets of a stretch: a power of two.
const STRETCH: i64 = 1 << 16;
/// Ranges of a stretch that are kept apart.
const KEPT_APART: usize = 16;
/// Ranges that an entry adds, and that wait in the state for a file: more of them are joined.
pub(super) const MAX_WAITING: usize = 256;
/// The sum of a range takes time for each offset of it: longer ones stay as they are.
const MAX_JOINED: u64 = 1 << 20;

/// What was noted and lies at or above low.
#[derive(Debug, Default)]
pub(super) struct Noted(BTreeMap<i32, VecDeque<Skipped>>);

impl Noted {
    /// In the order of offsets within each partition.
    pub(super) fn note(&mut self, skipped: Skipped, topic_seed: u64) {
        let noted = self.0.entry(skipped.partition).or_default();
        if noted.back_mut().is_some_and(|last| last.extend(&skipped)) {
            return;
        }
        let stretch = skipped.first.div_euclid(STRETCH);
        let of_stretch = |known: &Skipped| known.first.div_euclid(STRETCH) == stretch;
        let apart = noted.iter().rev().take_while(|known| of_stretch(known)).count();
        noted.push_back(skipped);
        let joined_already = noted.iter().rev().skip(1).take(apart).any(|known| known.scattered.is_some());
        if apart < KEPT_APART && !joined_already {
            return;
        }
        let mut joined: Vec<Skipped> = Vec::new();
        for range in noted.split_off(noted.len() - apart - 1) {
            match joined.iter_mut().find(|known| can_join(known, &range)) {
                Some(known) => known.join(&range, topic_seed),
                None => joined.push(range),
            }
        }
        noted.extend(joined);
    }

    /// The highest low up to `low` that passes nothing half-way that can't be cut.
    pub(super) fn floor(&self, partition: i32, low: i64) -> i64 {
        let noted = self.0.get(&partition).into_iter().flatten();
        let stretches = noted.filter(|known| known.scattered.is_some());
        // The first offsets ascend: what one gives way to can only lie in one before it.
        stretches.rev().fold(low, |low, known| if known.last >= low { low.min(known.first) } else { low })
    }

    /// What was noted before.
    pub(super) fn adopt(&mut self, noted: Vec<Skipped>) {
        for skipped in noted {
            self.0.entry(skipped.partition).or_default().push_back(skipped);
        }
    }

    /// What lies below offsets that [`Noted::floor`] gave.
    pub(super) fn below(&self, offsets: &BTreeMap<i32, i64>) -> Vec<Skipped> {
        let below = |(&partition, &offset): (&i32, &i64)| {
            let noted = self.0.get(&partition).into_iter().flatten().take_while(move |known| known.first < offset);
            noted.map(move |known| Skipped { last: known.last.min(offset - 1), ..*known })
        };
        offsets.iter().flat_map(below).collect()
    }

    /// Takes out what lies below a low that [`Noted::floor`] gave.
    pub(super) fn take_below(&mut self, partition: i32, low: i64) -> Vec<Skipped> {
        let Some(noted) = self.0.get_mut(&partition) else { return Vec::new() };
        let mut taken = Vec::new();
        while let Some(known) = noted.front_mut().filter(|known| known.first < low) {
            if known.last >= low {
                taken.push(Skipped { last: low - 1, ..*known });
                known.first = low;
                break;
            }
            taken.extend(noted.pop_front());
        }
        taken
    }
}

fn can_join(a: &Skipped, b: &Skipped) -> bool {
    let is_short = |skipped: &Skipped| skipped.scattered.is_some() || skipped.count() <= MAX_JOINED;
    a.is_like(b) && is_short(a) && is_short(b)
}

/// The same in about `most` ranges: neighbours are joined. Partitions and reasons stay apart, and very long ranges do.
pub(super) fn joined(mut all: Vec<Skipped>, most: usize, topic_seed: u64) -> Vec<Skipped> {
    if all.len() <= most {
        return all;
    }
    all.sort_by_key(|skipped| (skipped.partition, skipped.incarnation, skipped.reason, skipped.first));
    let at_once = all.len().div_ceil(most);
    let mut joined: Vec<Skipped> = Vec::new();
    let mut in_last = 0;
    for skipped in all {
        match joined.last_mut() {
            Some(last) if in_last < at_once && can_join(last, &skipped) => {
                last.join(&skipped, topic_seed);
                in_last += 1;
            }
            _ => {
                joined.push(skipped);
                in_last = 1;
            }
        }
    }
    joined
}

impl super::Core {
    pub(super) fn note(&mut self, partition: i32, first: i64, last: i64, reason: SkipReason) {
        let incarnation = self.state.identity.incarnation;
        let skipped = Skipped { partition, first, last, reason, incarnation, scattered: None };
        self.noted.note(skipped, self.settings.topic_seed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: i64, last: i64, reason: SkipReason) -> Skipped {
        Skipped { partition: 0, first, last, reason, incarnation: 0, scattered: None }
    }

    fn totals(all: &[Skipped]) -> BTreeMap<SkipReason, (u64, u128)> {
        let mut totals = BTreeMap::new();
        for skipped in all {
            let (count, sum) = totals.entry(skipped.reason).or_insert((0_u64, 0_u128));
            *count += skipped.count();
            *sum = sum.wrapping_add(skipped.sum(1));
        }
        totals
    }

    /// Ranges with gaps between them: (gap before, length, by rule).
    fn ranges() -> impl Strategy<Value = Vec<(u8, u8, bool)>> {
        prop::collection::vec((0_u8..40, 1_u8..5, any::<bool>()), 0..400)
    }

    fn lay(steps: &[(u8, u8, bool)], spread: i64) -> Vec<Skipped> {
        let mut next = 0;
        let lay = |&(gap, len, by_rule): &(u8, u8, bool)| {
            let first = next + i64::from(gap) * spread;
            next = first + i64::from(len);
            range(first, next - 1, if by_rule { SkipReason::Rule } else { SkipReason::Hole })
        };
        steps.iter().map(lay).collect()
    }

    proptest! {
        /// Whatever is joined, whenever low moves: each offset is told once, below the low that passes it.
        #[test]
        fn what_was_noted_is_told_once(steps in ranges(), spread in 1_i64..3_000, lows in prop::collection::vec(0_i64..4_000_000, 0..8)) {
            let all = lay(&steps, spread);
            let end = all.last().map_or(0, |range| range.last + 1);
            let mut noted = Noted::default();
            let (mut told, mut low) = (Vec::new(), 0);
            let mut lows: Vec<i64> = lows.into_iter().map(|low| low.min(end)).collect();
            lows.sort_unstable();
            let mut lows = lows.into_iter().peekable();
            let mut move_to = |noted: &mut Noted, wanted: i64| {
                let next = noted.floor(0, wanted).max(low);
                assert_eq!(noted.floor(0, next), next, "low can stay where it is");
                for skipped in noted.take_below(0, next) {
                    assert!(low <= skipped.first && skipped.last < next, "{skipped:?} within {low} to {next}");
                    told.push(skipped);
                }
                low = next;
            };
            for skipped in &all {
                while lows.peek().is_some_and(|low| *low <= skipped.first) {
                    move_to(&mut noted, lows.next().unwrap());
                }
                noted.note(*skipped, 1);
            }
            for low in lows.chain([end]) {
                move_to(&mut noted, low);
            }
            prop_assert_eq!(low, end);
            prop_assert_eq!(totals(&told), totals(&all));
            for most in [1, 7, 100] {
                prop_assert_eq!(totals(&joined(told.clone(), most, 1)), totals(&all));
            }
        }
    }

    #[test]
    fn a_hole_after_each_record_takes_little_memory() {
        let mut noted = Noted::default();
        for offset in 0..1_000_000 {
            noted.note(range(offset * 2, offset * 2, SkipReason::Hole), 1);
        }
        assert!(noted.0[&0].len() <= 2_000_000 / STRETCH as usize + 1, "{}", noted.0[&0].len());
        let told = noted.take_below(0, noted.floor(0, 1_999_999));
        assert_eq!(told.iter().map(Skipped::count).sum::<u64>(), 1_000_000);
        assert!(joined(told, MAX_WAITING, 1).len() <= MAX_WAITING);
    }

    #[test]
    fn a_range_can_be_passed_half_way_and_a_stretch_that_was_joined_can_not() {
        let mut noted = Noted::default();
        noted.note(range(0, 9, SkipReason::Hole), 1);
        assert_eq!((noted.floor(0, 5), noted.floor(1, 5)), (5, 5));
        assert_eq!(noted.take_below(0, 5), [range(0, 4, SkipReason::Hole)]);
        for offset in 10..30 {
            noted.note(range(offset * 2, offset * 2, SkipReason::Rule), 1);
        }
        assert_eq!((noted.floor(0, 8), noted.floor(0, 15), noted.floor(0, 30), noted.floor(0, 59)), (8, 15, 20, 59));
    }

    #[test]
    fn very_long_ranges_are_not_added_up() {
        let endless = range(10, i64::MAX - 1, SkipReason::Hole);
        let all =
            vec![range(0, 0, SkipReason::Hole), endless, range(2, 3, SkipReason::Rule), range(7, 7, SkipReason::Rule)];
        let mut noted = Noted::default();
        (0..40).for_each(|offset| noted.note(range(offset * 2, offset * 2, SkipReason::Rule), 1));
        noted.note(range(100, i64::MAX - 1, SkipReason::Hole), 1);
        assert_eq!(noted.0[&0].len(), 2);
        assert_eq!(joined(all, 1, 1).len(), 3);
    }
}
