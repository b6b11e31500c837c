//! The state that objects imply.
//!
//! Owns: lows, marks and the objects that are missing between them, as pure functions of what was found.
//! Does not own: reading objects ([`super::scan`]) or Kafka, writing the log.
//!
//! The log said three things that no object says: how far low had come, which lanes' objects were decided and not uploaded yet, and
//! what was left out lately. Each object tells low as it was when it was finished; the objects above it let it go on from there.
//! A lane's objects hold its records in order, partition by partition: a record of the lane below its mark that none of them
//! reaches over belongs to an object that was decided and is not there. It gets a new intent.

use std::collections::BTreeMap;

use super::scan::{Found, Held};
use crate::ledger::{Begin, Intent, Lane};
use crate::pipeline::lane::{Opener, Ranges};
use crate::record::Record;

/// Where a partition goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub begin: Begin,
    /// As an object tells it: everything below was in objects, or told as left out.
    pub low: i64,
    /// The one after the highest offset that an object holds.
    pub end: i64,
}

/// Per partition, from where the objects that count reach to where.
pub fn starts(found: &Found) -> BTreeMap<i32, Start> {
    let partitions: std::collections::BTreeSet<i32> =
        found.lows.values().flat_map(|lows| lows.keys().copied()).collect();
    let start = |partition: i32| {
        let (counting, begin, low) = found.counting(partition)?;
        let oldest = counting.iter().min().copied().unwrap_or_default();
        // What still earlier incarnations hold does not count.
        let limits = if oldest > 0 { vec![(oldest, begin)] } else { Vec::new() };
        let ranges = counting_ranges(found, partition);
        let end = ranges.map(|(_, range)| range.last.saturating_add(1)).max().unwrap_or(low).max(low);
        Some((partition, Start { begin: Begin { offset: begin, limits }, low, end }))
    };
    partitions.into_iter().filter_map(start).collect()
}

fn counting_ranges(found: &Found, partition: i32) -> impl Iterator<Item = (&Held, &crate::ledger::Range)> {
    let counting = found.counting(partition).map(|(counting, ..)| counting).unwrap_or_default();
    found
        .held
        .iter()
        .filter(move |held| counting.contains(&held.incarnation))
        .filter_map(move |held| held.intent.ranges.get(&partition).map(|range| (held, range)))
}

/// What objects (and intents of a log that can be read) hold above low, by lane and partition: first and last offset, ascending.
pub type Lanes = BTreeMap<Lane, BTreeMap<i32, Vec<(i64, i64)>>>;

/// The lanes above the lows.
pub fn lanes<'a>(found: &Found, lows: &BTreeMap<i32, i64>, pending: impl Iterator<Item = &'a Intent>) -> Lanes {
    let mut lanes = Lanes::new();
    for (&partition, &low) in lows {
        for (held, range) in counting_ranges(found, partition).filter(|(_, range)| range.last >= low) {
            let lane = lanes.entry(held.intent.lane.clone()).or_default();
            lane.entry(partition).or_default().push((range.first, range.last));
        }
    }
    for intent in pending {
        let lane = lanes.entry(intent.lane.clone()).or_default();
        for (&partition, range) in &intent.ranges {
            lane.entry(partition).or_default().push((range.first, range.last));
        }
    }
    lanes.values_mut().flat_map(BTreeMap::values_mut).for_each(|ranges| ranges.sort_unstable());
    lanes
}

/// First offsets that no object of the lane reaches over.
pub fn marks(lanes: &Lanes) -> BTreeMap<Lane, BTreeMap<i32, i64>> {
    let mark = |ranges: &Vec<(i64, i64)>| ranges.iter().map(|(_, last)| last.saturating_add(1)).max();
    let of_lane = |partitions: &BTreeMap<i32, Vec<(i64, i64)>>| {
        partitions.iter().filter_map(|(&partition, ranges)| Some((partition, mark(ranges)?))).collect()
    };
    lanes.iter().map(|(lane, partitions)| (lane.clone(), of_lane(partitions))).collect()
}

/// Records of lanes, below their marks, that no object holds.
#[derive(Debug, Default)]
pub struct Slots {
    slots: BTreeMap<(Lane, i32, usize), (Opener, Ranges)>,
}

impl Slots {
    /// Looks at a record above low.
    pub fn record(&mut self, lanes: &Lanes, lane: &Lane, record: &Record<'_>, time_ms: i64) {
        let Some(ranges) = lanes.get(lane).and_then(|partitions| partitions.get(&record.partition)) else { return };
        let below = ranges.partition_point(|&(first, _)| first <= record.offset);
        let covered =
            below.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|&(_, last)| record.offset <= last);
        // Above all of them the lane goes on as usual.
        if covered || below == ranges.len() {
            return;
        }
        let opener = Opener { partition: record.partition, offset: record.offset, time_ms };
        let slot = self.slots.entry((lane.clone(), record.partition, below));
        slot.or_insert_with(|| (opener, Ranges::default())).1.push(record);
    }

    /// The intents that these records get; `key` names their objects.
    pub fn into_intents(self, settings: &str, key: impl Fn(&Lane, &Opener) -> String) -> Vec<Intent> {
        let intent = |((lane, ..), (opener, ranges)): ((Lane, i32, usize), (Opener, Ranges))| {
            Intent::new(key(&lane, &opener), lane, ranges.into_map(), settings.to_owned())
        };
        self.slots.into_iter().map(intent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Headers;

    fn lane(app: &str) -> Lane {
        Lane { app: app.to_owned(), bucket_start_secs: None }
    }

    #[test]
    fn a_record_between_the_objects_of_its_lane_gets_an_intent() {
        let ranges = BTreeMap::from([(0, vec![(10, 19), (30, 39)]), (1, vec![(5, 5)])]);
        let lanes = Lanes::from([(lane("a"), ranges)]);
        assert_eq!(marks(&lanes)[&lane("a")], [(0, 40), (1, 6)].into());
        let mut slots = Slots::default();
        let mut show = |app: &str, partition: i32, offset: i64| {
            let value = Some(b"v".as_slice());
            let headers = Headers::default();
            let record = Record { partition, offset, timestamp_ms: 1, key: None, value, headers };
            slots.record(&lanes, &lane(app), &record, 1);
        };
        for offset in [3, 4, 12, 22, 25, 33, 40, 50] {
            show("a", 0, offset);
            show("b", 0, offset);
        }
        [2, 5, 6].into_iter().for_each(|offset| show("a", 1, offset));
        let intents =
            slots.into_intents("s", |lane, opener| format!("{}/{}/{}", lane.app, opener.partition, opener.offset));
        let found: Vec<_> = intents
            .iter()
            .flat_map(|intent| intent.ranges.iter().map(|(p, r)| (intent.key.as_str(), *p, r.first, r.last, r.count)))
            .collect();
        assert_eq!(found, [("a/0/3", 0, 3, 4, 2), ("a/0/22", 0, 22, 25, 2), ("a/1/2", 1, 2, 2, 1)]);
    }
}
