//! How entries change the state.
//!
//! Owns: the rules that every entry must keep. A broken rule is damage or a bug, never something to work around: the fold stops
//! and says which.
//! Does not own: what the next entry will be.

use std::collections::BTreeMap;

use super::encoding::Stored;
use super::entry::{Commit, Entry, Identity, Intent, Pending, Range, Replaced, Restart, Token};
use super::state::{Begin, Low, Owner, State};
use crate::archive::index::{SkipReason, Skipped};

/// A rule of the log that an entry breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log entry {number}: {rule}")]
pub struct LedgerError {
    pub number: u64,
    pub rule: String,
}

impl State {
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
            Entry::Start { settings, identity, lows, skipped, time_ms } => {
                if self.is_started() {
                    return Err("a second start".to_owned());
                }
                skipped.iter().for_each(|skipped| self.skips.add(*skipped));
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
            Entry::Reset { identity, partitions, time_ms, .. } => self.reset(identity, partitions, *time_ms),
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
            self.begins.insert(partition, Begin::at(offset));
        }
        Ok(())
    }

    fn apply_commit(&mut self, number: u64, commit: &Commit) -> Result<(), String> {
        if !commit.joined.is_empty() {
            self.skips.replace(&commit.joined)?;
        }
        for intent in &commit.seal {
            self.seal(number, intent)?;
        }
        for replaced in &commit.replaced {
            self.replace(number, replaced)?;
        }
        for id in &commit.done {
            if self.intents.remove(id).is_none() {
                return Err(format!("intent {id} is done but not pending"));
            }
            self.short.remove(id);
        }
        for (&partition, &position) in &commit.seen {
            let before = self.seen.insert(partition, position);
            if before.is_some_and(|before| before.offset > position.offset) {
                return Err(format!("what was seen of partition {partition} goes back to {}", position.offset));
            }
        }
        self.check_skipped(commit)?;
        for (&partition, &offset) in &commit.lows {
            self.move_low(partition, offset, commit.time_ms)?;
        }
        commit.skipped.iter().for_each(|skipped| self.skips.add(*skipped));
        Ok(())
    }

    /// What is left out lies where low passes just now, once: what is below was told, what is above will be read again.
    fn check_skipped(&self, commit: &Commit) -> Result<(), String> {
        let mut room: BTreeMap<i32, u64> = BTreeMap::new();
        let mut ends: BTreeMap<(i32, SkipReason), i64> = BTreeMap::new();
        for skipped in &commit.skipped {
            let Skipped { partition, first, last, reason, incarnation, .. } = *skipped;
            let what = format!("what is left out of partition {partition}, {first} to {last},");
            let low = self.low(partition).ok_or_else(|| format!("{what} is not the task's"))?;
            let next = commit.lows.get(&partition).copied().unwrap_or(low);
            if !skipped.is_sound() || incarnation != self.identity.incarnation || reason == SkipReason::Lost {
                return Err(format!("{what} can't be so"));
            }
            if first < low || last >= next {
                return Err(format!("{what} is not what low passes from {low} to {next}"));
            }
            let left = room.entry(partition).or_insert(next.abs_diff(low));
            let before = ends.insert((partition, reason), last);
            let Some(rest) = left.checked_sub(skipped.count()).filter(|_| before.is_none_or(|last| last < first))
            else {
                return Err(format!("{what} is left out twice"));
            };
            *left = rest;
        }
        Ok(())
    }

    /// What is left of an intent keeps its lane and lies within what was decided.
    fn replace(&mut self, number: u64, replaced: &Replaced) -> Result<(), String> {
        let Replaced { id, by } = replaced;
        let Some(Pending { intent: before, .. }) = self.intents.remove(id) else {
            return Err(format!("intent {id} is replaced but not pending"));
        };
        self.short.remove(id);
        let Some(by) = by else {
            // No object is made: the next one tells what this one would have.
            before.skipped.iter().for_each(|skipped| self.skips.add(*skipped));
            return Ok(());
        };
        Self::check_intent(by)?;
        if by.skipped != before.skipped {
            return Err(format!("intent {} takes the place of {id} and leaves out others", by.id));
        }
        let within = |(partition, range): (&i32, &Range)| {
            before.ranges.get(partition).is_some_and(|whole| range.first >= whole.first && range.last <= whole.last)
        };
        if by.lane != before.lane || !by.ranges.iter().all(within) {
            return Err(format!("intent {} takes the place of {id} and holds other records", by.id));
        }
        self.add_pending(number, by)
    }

    fn reset(
        &mut self,
        identity: &Identity,
        partitions: &BTreeMap<i32, Option<Restart>>,
        time_ms: i64,
    ) -> Result<(), String> {
        if !self.is_started() {
            return Err("a reset before the start".to_owned());
        }
        if identity.incarnation < self.identity.incarnation {
            return Err("a reset to an earlier incarnation".to_owned());
        }
        if let Some(unknown) = partitions.keys().find(|p| !self.lows.contains_key(p)) {
            return Err(format!("a reset of partition {unknown}, which the task does not own"));
        }
        let goes_on = identity.incarnation == self.identity.incarnation;
        self.identity = identity.clone();
        // Chosen for offsets that are not the same any more.
        self.cut = None;
        for (&partition, restart) in partitions {
            match (restart, self.begins.get_mut(&partition)) {
                (Some(to), Some(begin)) => {
                    let before = self.lows.get(&partition).map_or(to.low, |low| low.offset);
                    begin.restart(before, to.low, to.marks_to, identity.incarnation);
                }
                (None, Some(_)) => drop(self.begins.remove(&partition)),
                // An old log: where it began is not known, and from here on it is.
                (Some(to), None) if to.marks_to <= to.low => {
                    let limits = vec![(identity.incarnation, to.marks_to)];
                    self.begins.insert(partition, Begin { offset: to.low, limits });
                }
                (_, None) => {}
            }
            let Restart { low, marks_to, seen } = restart.unwrap_or(Restart { low: 0, marks_to: 0, seen: None });
            if seen.is_some_and(|seen| seen.offset > marks_to) {
                return Err(format!("what was seen of partition {partition} goes beyond what is still the same"));
            }
            for Pending { intent, .. } in self.intents.values() {
                let Some(range) = intent.ranges.get(&partition) else { continue };
                let span = self.short.entry(intent.id.clone()).or_default().entry(partition);
                let (first, end) = span.or_insert((range.first, range.last + 1));
                *first = low.max(*first);
                *end = marks_to.min(*end);
            }
            for marks in self.marks.values_mut() {
                if restart.is_none() || marks.get(&partition).is_some_and(|mark| (*mark).min(marks_to) <= low) {
                    marks.remove(&partition);
                } else if let Some(mark) = marks.get_mut(&partition) {
                    *mark = (*mark).min(marks_to);
                }
            }
            if let Some(seen) = seen {
                self.seen.insert(partition, seen);
            } else if restart.is_none() || self.seen.get(&partition).is_some_and(|seen| seen.offset > marks_to) {
                self.seen.remove(&partition);
            }
            // Under another incarnation the partition begins anew: there is nothing between.
            if goes_on && restart.is_some() {
                self.skip_to(partition, low);
            }
            match restart {
                Some(_) => self.lows.insert(partition, Low { offset: low, since_ms: time_ms }),
                None => self.lows.remove(&partition),
            };
        }
        self.marks.retain(|_, marks| !marks.is_empty());
        Ok(())
    }

    /// The partition goes on at `to`, as somebody accepted.
    fn skip_to(&mut self, partition: i32, to: i64) {
        let incarnation = self.identity.incarnation;
        let Some(low) = self.low(partition) else { return };
        if to > low {
            let (first, last, reason) = (low, to - 1, SkipReason::Lost);
            self.skips.add(Skipped { partition, first, last, reason, incarnation, scattered: None });
        } else {
            self.skips.go_back(partition, incarnation, to);
        }
    }

    fn seal(&mut self, log_number: u64, intent: &Intent) -> Result<(), String> {
        Self::check_intent(intent)?;
        let id = &intent.id;
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
        }
        self.skips.take(&intent.skipped).map_err(|why| format!("intent {id} {why}"))?;
        let marks = self.marks.entry(intent.lane.clone()).or_default();
        marks.extend(intent.ranges.iter().map(|(&partition, range)| (partition, range.last + 1)));
        self.add_pending(log_number, intent)
    }

    fn check_intent(intent: &Intent) -> Result<(), String> {
        let id = &intent.id;
        if *id != intent.compute_id() {
            return Err(format!("intent {id} does not match its content"));
        }
        if intent.ranges.is_empty() {
            return Err(format!("intent {id} holds no records"));
        }
        for (partition, range) in &intent.ranges {
            if range.last < range.first || range.count == 0 || range.count - 1 > range.last.abs_diff(range.first) {
                return Err(format!(
                    "intent {id} claims {} records of partition {partition} from {} to {}",
                    range.count, range.first, range.last
                ));
            }
        }
        Ok(())
    }

    fn add_pending(&mut self, log_number: u64, intent: &Intent) -> Result<(), String> {
        let pending = Pending { log_number, intent: intent.clone() };
        if self.intents.insert(intent.id.clone(), pending).is_some() {
            return Err(format!("intent {} is sealed a second time", intent.id));
        }
        Ok(())
    }

    fn move_low(&mut self, partition: i32, offset: i64, now_ms: i64) -> Result<(), String> {
        let pending = self.intents.values().filter_map(|Pending { intent, .. }| {
            let (first, _) = self.span(intent, partition)?;
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

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
