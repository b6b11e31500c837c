//! What a new owner does with each record that it reads again.
//!
//! Owns: the fate of a record below the marks that were found at the takeover.
//! Does not own: the rebuilt objects, the positions.

use std::collections::{BTreeMap, HashMap};

use super::entry::{IntentId, Lane, Pending};
use super::state::State;

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate<'a> {
    /// It belongs to its lane's next object.
    Fresh,
    /// An object holds it already.
    Skip,
    /// It belongs to an object that was decided and is not in the store.
    Rebuild(&'a IntentId),
}

/// Marks and pending intents as a takeover found them. They don't change afterwards: what the new owner seals itself lies
/// above its own position.
#[derive(Debug, Default)]
pub struct Recovery {
    lanes: HashMap<String, BTreeMap<Option<i64>, Replay>>,
    /// Per partition the offset from which every record is fresh.
    fresh_from: BTreeMap<i32, i64>,
}

#[derive(Debug, Default)]
struct Replay {
    marks: BTreeMap<i32, i64>,
    pending: Vec<(IntentId, Held)>,
}

/// First and last offset by partition.
type Held = BTreeMap<i32, (i64, i64)>;

impl Recovery {
    /// `is_missing` tells which pending intents' objects the store does not have.
    pub fn new(state: &State, is_missing: impl Fn(&IntentId) -> bool) -> Self {
        let mut recovery = Self::default();
        for (lane, marks) in &state.marks {
            for (&partition, &mark) in marks {
                let fresh_from = recovery.fresh_from.entry(partition).or_insert(mark);
                *fresh_from = (*fresh_from).max(mark);
            }
            recovery.replay(lane).marks.clone_from(marks);
        }
        for Pending { intent, .. } in state.intents.values().filter(|pending| is_missing(&pending.intent.id)) {
            let ranges: Held =
                intent.ranges.keys().filter_map(|&p| state.span(intent, p).map(|span| (p, span))).collect();
            for (&partition, &(_, last)) in &ranges {
                let fresh_from = recovery.fresh_from.entry(partition).or_default();
                // Marks lie above it, except where a reset removed them.
                *fresh_from = (*fresh_from).max(last + 1);
            }
            recovery.replay(&intent.lane).pending.push((intent.id.clone(), ranges));
        }
        recovery
    }

    /// An open file of the lane has its records of this partition below `end` already.
    pub fn holds_below(&mut self, lane: &Lane, partition: i32, end: i64) {
        let mark = self.replay(lane).marks.entry(partition).or_insert(end);
        *mark = (*mark).max(end);
        let fresh_from = self.fresh_from.entry(partition).or_insert(end);
        *fresh_from = (*fresh_from).max(end);
    }

    fn replay(&mut self, lane: &Lane) -> &mut Replay {
        self.lanes.entry(lane.app.clone()).or_default().entry(lane.bucket_start_secs).or_default()
    }

    /// Whether a record at this offset can be anything but fresh; cheap, asked for every record.
    pub fn concerns(&self, partition: i32, offset: i64) -> bool {
        self.fresh_from.get(&partition).is_some_and(|&fresh_from| offset < fresh_from)
    }

    pub fn fate(&self, app: &str, bucket_start_secs: Option<i64>, partition: i32, offset: i64) -> Fate<'_> {
        let Some(replay) = self.lanes.get(app).and_then(|buckets| buckets.get(&bucket_start_secs)) else {
            return Fate::Fresh;
        };
        let holds =
            |ranges: &Held| ranges.get(&partition).is_some_and(|&(first, last)| (first..=last).contains(&offset));
        if let Some((id, _)) = replay.pending.iter().find(|(_, ranges)| holds(ranges)) {
            return Fate::Rebuild(id);
        }
        match replay.marks.get(&partition) {
            Some(&mark) if offset < mark => Fate::Skip,
            _ => Fate::Fresh,
        }
    }
}
