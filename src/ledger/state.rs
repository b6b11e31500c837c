//! The fold of a task's log.
//!
//! Owns: lows, marks and pending intents, and what follows from them. Does not own: how entries change them ([`super::apply`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pipeline::source::Position;

use super::entry::{Identity, Intent, IntentId, Lane, Pending, SettingsRecord, Token};
use super::skips::Skips;

/// The offset below which every record of a partition is in a finished object or was skipped by rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Low {
    pub offset: i64,
    /// Since when it stands still, milliseconds since the Unix epoch: the age of what is replayed.
    pub since_ms: i64,
}

/// Who may append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub token: Token,
    pub worker: String,
    pub since_ms: i64,
}

/// From where on a partition is archived, for whoever counts what the store has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    pub offset: i64,
    /// (incarnation, offset): what objects of earlier incarnations hold at or above the offset are other records, or are
    /// archived again. Ascending.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub limits: Vec<(u32, i64)>,
}

impl Begin {
    pub fn at(offset: i64) -> Self {
        Self { offset, limits: Vec::new() }
    }

    /// The end of what objects of an incarnation hold of what is archived now.
    pub fn limit(&self, incarnation: u32) -> i64 {
        let later = self.limits.iter().filter(|(limited, _)| *limited > incarnation);
        later.map(|(_, limit)| *limit).min().unwrap_or(i64::MAX)
    }

    /// The partition, archived up to `before`, goes on at `low` under `incarnation`; what was archived at or above `marks_to`
    /// counts no more.
    pub(super) fn restart(&mut self, before: i64, low: i64, marks_to: i64, incarnation: u32) {
        if marks_to == i64::MAX {
            // The same records; what is gone between is told as lost.
            self.offset = self.offset.min(low);
            return;
        }
        let goes_on = low <= before && marks_to >= self.offset;
        self.offset = if goes_on { self.offset.min(low) } else { low };
        self.limits.retain(|&(limited, _)| limited < incarnation);
        self.limits.push((incarnation, marks_to));
        // Limits that let nothing through are all alike: the newest of them says it.
        let shut = self.limits.iter().rposition(|&(_, limit)| limit <= self.offset);
        self.limits.drain(..shut.unwrap_or(0));
    }
}

/// What a task's log says, up to entry `tip`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Number of the last entry; 0 for an empty log.
    pub tip: u64,
    pub owner: Option<Owner>,
    /// `None`: never started.
    pub settings: Option<SettingsRecord>,
    pub identity: Identity,
    pub lows: BTreeMap<i32, Low>,
    /// Missing where the log began before they were kept.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub begins: BTreeMap<i32, Begin>,
    /// First offset of a partition that no object or intent of the lane covers. Marks at or below low say nothing more and are
    /// dropped by a snapshot.
    #[serde(with = "lane_pairs")]
    pub marks: BTreeMap<Lane, BTreeMap<i32, i64>>,
    /// Decided, not yet known to be in the store; in the order of their ids.
    pub intents: BTreeMap<IntentId, Pending>,
    /// The highest offset of a partition that was sealed or passed by low, by the one after it and its leader epoch: below it
    /// Kafka's log must stay
    /// what it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub seen: BTreeMap<i32, Position>,
    /// What was left out below low and no object's index tells of: the next intent takes it along.
    #[serde(skip_serializing_if = "Skips::is_empty", default)]
    pub skips: Skips,
    /// Offsets at which the present settings or mapping end, while what lies below is still being finished.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cut: Option<BTreeMap<i32, i64>>,
    /// The mapping that follows this log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closed: Option<u32>,
    /// What is awaited of pending intents that a reset touched: first offset and the one after the last, by partition. An
    /// empty span awaits nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub short: BTreeMap<IntentId, BTreeMap<i32, (i64, i64)>>,
    /// Numbers of all Takeovers: they are never deleted, so that a late append of any age collides.
    pub takeovers: Vec<u64>,
}

impl State {
    pub fn is_started(&self) -> bool {
        self.settings.is_some()
    }

    pub fn low(&self, partition: i32) -> Option<i64> {
        self.lows.get(&partition).map(|low| low.offset)
    }

    pub fn mark(&self, lane: &Lane, partition: i32) -> Option<i64> {
        self.marks.get(lane).and_then(|marks| marks.get(&partition)).copied()
    }

    /// Below it the log has decided what becomes of the lane's records; `None`: the partition is not in the log.
    pub fn decided_to(&self, lane: &Lane, partition: i32) -> Option<i64> {
        self.mark(lane, partition).max(self.low(partition))
    }

    /// Nothing that was decided has to be read again: no object is pending, and no mark lies above low.
    pub fn is_settled(&self) -> bool {
        let above_low = |(partition, mark): (&i32, &i64)| self.low(*partition).is_none_or(|low| *mark > low);
        self.intents.is_empty() && !self.marks.values().flatten().any(above_low)
    }

    /// First and last offset of the records of a partition that a pending intent still awaits; `None`: none.
    pub fn span(&self, intent: &Intent, partition: i32) -> Option<(i64, i64)> {
        let range = intent.ranges.get(&partition)?;
        match self.short.get(&intent.id).and_then(|spans| spans.get(&partition)) {
            Some(&(first, end)) => (first < end).then(|| (first, end - 1)),
            None => Some((range.first, range.last)),
        }
    }

    /// The least offsets at which a cut can be: per partition the first that nothing decided reaches.
    pub fn least_cut(&self) -> BTreeMap<i32, i64> {
        let mut offsets: BTreeMap<i32, i64> = self.lows.iter().map(|(&p, low)| (p, low.offset)).collect();
        for (partition, mark) in self.marks.values().flatten() {
            if let Some(offset) = offsets.get_mut(partition) {
                *offset = (*offset).max(*mark);
            }
        }
        offsets
    }

    /// What a snapshot holds: the state without marks that low has passed.
    pub fn pruned(&self) -> Self {
        let mut state = self.clone();
        for marks in state.marks.values_mut() {
            marks.retain(|partition, mark| self.low(*partition).is_none_or(|low| *mark > low));
        }
        state.marks.retain(|_, marks| !marks.is_empty());
        state
    }
}

/// Lanes as a list of pairs: JSON has no keys but strings.
mod lane_pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Lane;

    type Marks = BTreeMap<Lane, BTreeMap<i32, i64>>;

    pub(super) fn serialize<S: Serializer>(marks: &Marks, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(marks)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Marks, D::Error> {
        Ok(Vec::<(Lane, BTreeMap<i32, i64>)>::deserialize(deserializer)?.into_iter().collect())
    }
}
