//! The fold of a task's log.
//!
//! Owns: lows, marks and pending intents, and the rules that every entry must keep. A broken rule is damage or a bug, never
//! something to work around: the fold stops and says which.
//! Does not own: what the next entry will be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::encoding::Stored;
use super::entry::{Commit, Entry, Identity, Intent, IntentId, Lane, Pending, SettingsRecord, Token};

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
    /// First offset of a partition that no object or intent of the lane covers. Marks at or below low say nothing more and are
    /// dropped by a snapshot.
    #[serde(with = "lane_pairs")]
    pub marks: BTreeMap<Lane, BTreeMap<i32, i64>>,
    /// Decided, not yet known to be in the store; in the order of their ids.
    pub intents: BTreeMap<IntentId, Pending>,
    /// Offsets at which the present settings or mapping end, while what lies below is still being finished.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cut: Option<BTreeMap<i32, i64>>,
    /// The mapping that follows this log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closed: Option<u32>,
    /// Numbers of all Takeovers: they are never deleted, so that a late append of any age collides.
    pub takeovers: Vec<u64>,
}

/// A rule of the log that an entry breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log entry {number}: {rule}")]
pub struct LedgerError {
    pub number: u64,
    pub rule: String,
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

    /// Nothing that was decided has to be read again: no object is pending, and no mark lies above low.
    pub fn is_settled(&self) -> bool {
        let above_low = |(partition, mark): (&i32, &i64)| self.low(*partition).is_none_or(|low| *mark > low);
        self.intents.is_empty() && !self.marks.values().flatten().any(above_low)
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

    /// Takes the next entry in.
    ///
    /// # Errors
    /// The entry breaks a rule; the state is not usable any more.
    pub fn apply(&mut self, stored: &Stored) -> Result<(), LedgerError> {
        let broken = |rule: String| LedgerError { number: stored.number, rule };
        let first = self.tip == 0 && stored.entry.is_snapshot();
        if stored.number != self.tip + 1 && !first {
            return Err(broken(format!("follows entry {}", self.tip)));
        }
        match &stored.entry {
            Entry::Takeover { worker, time_ms } => {
                self.takeovers.push(stored.number);
                self.owner = Some(Owner { token: stored.token.clone(), worker: worker.clone(), since_ms: *time_ms });
            }
            Entry::Snapshot { state } if first => {
                *self = State::clone(state);
                self.check_owner(&stored.token).map_err(broken)?;
            }
            entry => {
                self.check_owner(&stored.token).map_err(broken)?;
                self.apply_owned(stored.number, entry).map_err(broken)?;
            }
        }
        self.tip = stored.number;
        Ok(())
    }

    fn check_owner(&self, token: &Token) -> Result<(), String> {
        match &self.owner {
            Some(owner) if owner.token == *token => Ok(()),
            Some(owner) => Err(format!("written by somebody who is not the owner, worker {}", owner.worker)),
            None => Err("no takeover before it".to_owned()),
        }
    }

    fn apply_owned(&mut self, number: u64, entry: &Entry) -> Result<(), String> {
        if let Some(next) = self.closed {
            return Err(format!("follows the end of this log: mapping {next} took its place"));
        }
        match entry {
            Entry::Takeover { .. } => Ok(()),
            Entry::Start { settings, identity, lows, time_ms } => {
                if self.is_started() {
                    return Err("a second start".to_owned());
                }
                self.settings = Some(settings.clone());
                self.identity = identity.clone();
                self.add_partitions(lows, *time_ms)
            }
            Entry::Partitions { lows, time_ms } => {
                if !self.is_started() {
                    return Err("partitions before the start".to_owned());
                }
                if self.cut.is_some() {
                    return Err("partitions within a cut".to_owned());
                }
                self.add_partitions(lows, *time_ms)
            }
            Entry::Adopt { identity } => self.adopt(identity),
            Entry::Settings { settings, .. } => {
                if !self.is_started() {
                    return Err("settings before the start".to_owned());
                }
                self.check_settled("other settings")?;
                self.settings = Some(settings.clone());
                self.cut = None;
                Ok(())
            }
            Entry::Cut { offsets, .. } => self.begin_cut(offsets),
            Entry::Closed { next, .. } => {
                self.check_settled("the end of the log")?;
                self.closed = Some(*next);
                Ok(())
            }
            Entry::Commit(commit) => self.apply_commit(number, commit),
            Entry::Snapshot { state } => {
                let pruned = self.pruned();
                let expected = Self { tip: state.tip, ..pruned.clone() };
                if **state != expected {
                    return Err("a snapshot that is not the fold of the entries below it".to_owned());
                }
                *self = pruned;
                Ok(())
            }
        }
    }

    fn check_settled(&self, what: &str) -> Result<(), String> {
        if self.is_settled() {
            return Ok(());
        }
        Err(format!("{what} while records that were decided are not all in the store"))
    }

    fn begin_cut(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), String> {
        if self.cut.is_some() {
            return Err("a second cut".to_owned());
        }
        let least = self.least_cut();
        if !least.keys().eq(offsets.keys()) {
            return Err("a cut that does not name each partition".to_owned());
        }
        if let Some((partition, offset)) = offsets.iter().find(|(p, offset)| least.get(p).is_some_and(|l| l > offset)) {
            return Err(format!("a cut of partition {partition} at offset {offset}, below what was decided"));
        }
        self.cut = Some(offsets.clone());
        Ok(())
    }

    /// The end of what may be decided in a partition.
    fn cut_of(&self, partition: i32) -> i64 {
        self.cut.as_ref().and_then(|cut| cut.get(&partition)).copied().unwrap_or(i64::MAX)
    }

    fn adopt(&mut self, identity: &Identity) -> Result<(), String> {
        let known = &self.identity;
        let keeps = |known: &Option<String>, found: &Option<String>| known.is_none() || known == found;
        let topic = |identity: &Identity| identity.topic_id.as_ref().map(|id| id.0.clone());
        if !keeps(&known.cluster_id, &identity.cluster_id)
            || !keeps(&topic(known), &topic(identity))
            || known.incarnation != identity.incarnation
        {
            return Err("it replaces a known cluster or topic id".to_owned());
        }
        self.identity = identity.clone();
        Ok(())
    }

    fn add_partitions(&mut self, lows: &BTreeMap<i32, i64>, since_ms: i64) -> Result<(), String> {
        for (&partition, &offset) in lows {
            if self.lows.insert(partition, Low { offset, since_ms }).is_some() {
                return Err(format!("partition {partition} begins a second time"));
            }
        }
        Ok(())
    }

    fn apply_commit(&mut self, number: u64, commit: &Commit) -> Result<(), String> {
        for intent in &commit.seal {
            self.seal(number, intent)?;
        }
        for id in &commit.done {
            if self.intents.remove(id).is_none() {
                return Err(format!("intent {id} is done but not pending"));
            }
        }
        for (&partition, &offset) in &commit.lows {
            self.move_low(partition, offset, commit.time_ms)?;
        }
        Ok(())
    }

    fn seal(&mut self, log_number: u64, intent: &Intent) -> Result<(), String> {
        let id = &intent.id;
        if *id != intent.compute_id() {
            return Err(format!("intent {id} does not match its content"));
        }
        if intent.ranges.is_empty() {
            return Err(format!("intent {id} holds no records"));
        }
        for (&partition, range) in &intent.ranges {
            let Some(low) = self.low(partition) else {
                return Err(format!("intent {id} holds records of partition {partition}, which the task does not own"));
            };
            let floor = self.mark(&intent.lane, partition).unwrap_or(low).max(low);
            if range.first < floor {
                return Err(format!(
                    "intent {id} begins at partition {partition} offset {}, below {floor} that is sealed already",
                    range.first
                ));
            }
            if range.last >= self.cut_of(partition) {
                return Err(format!("intent {id} reaches partition {partition} offset {}, past the cut", range.last));
            }
            if range.last < range.first || range.count == 0 || range.count - 1 > range.last.abs_diff(range.first) {
                return Err(format!(
                    "intent {id} claims {} records of partition {partition} from {} to {}",
                    range.count, range.first, range.last
                ));
            }
        }
        let marks = self.marks.entry(intent.lane.clone()).or_default();
        marks.extend(intent.ranges.iter().map(|(&partition, range)| (partition, range.last + 1)));
        let pending = Pending { log_number, intent: intent.clone() };
        if self.intents.insert(id.clone(), pending).is_some() {
            return Err(format!("intent {id} is sealed a second time"));
        }
        Ok(())
    }

    fn move_low(&mut self, partition: i32, offset: i64, now_ms: i64) -> Result<(), String> {
        let pending = self.intents.values().filter_map(|Pending { intent, .. }| {
            let first = intent.ranges.get(&partition)?.first;
            Some((first, &intent.id))
        });
        if let Some((first, id)) = pending.min()
            && first < offset
        {
            return Err(format!("low of partition {partition} moves to {offset}, past {first} of pending intent {id}"));
        }
        if offset > self.cut_of(partition) {
            return Err(format!("low of partition {partition} moves to {offset}, past the cut"));
        }
        let Some(low) = self.lows.get_mut(&partition) else {
            return Err(format!("low of partition {partition}, which the task does not own"));
        };
        if offset < low.offset {
            return Err(format!("low of partition {partition} goes back from {} to {offset}", low.offset));
        }
        if offset > low.offset {
            *low = Low { offset, since_ms: now_ms };
        }
        Ok(())
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

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
