//! The deciding half of a task: pure, driven by events, answers with actions.
//!
//! Owns: positions, open lanes, files from seal to done, what the next log entry says, low.
//! Does not own: any I/O, clock or randomness; the driver ([`super::driver`]) carries the actions out and reports back.
//!
//! A file's way: open lane -> sealed (its intent waits for the log) -> logged -> finished in the spool -> uploaded -> done in
//! the log. Only a logged file is uploaded. A crash anywhere leaves a log from which the next owner goes on.

mod entries;
mod epochs;
mod events;
mod finishing;
mod letters;
mod records;
mod skips;
mod spooled;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

pub use entries::SNAPSHOT_EVERY;
pub use events::{Action, CoreError, Counters, Progress, RebuildDiffers};

use epochs::Epochs;

use letters::Letters;

use entries::{DONE_WINDOW_MS, LOW_WINDOW_MS, SEAL_WINDOW_MS};
use skips::Noted;
use spooled::Spooled;

use super::adoption::{AdoptedFile, Adoption};
use super::files::{File, Files, Rebuild, Stage};
use super::settings::TaskSettings;
use crate::archive::frame::FrameBuffer;
use crate::archive::index::{SkipReason, Skipped};
use crate::config::OnError;
use crate::ledger::encoding::Stored;
use crate::ledger::{Commit, Entry, Fate, Holds, Intent, IntentId, Pending, Recovery, Replaced, State};
use crate::pipeline::event_time::EventTimes;
use crate::pipeline::lane::{AppKey, FileId, Lanes, OpenLane, Opener, Ranges};
use crate::pipeline::rotation::Rotation;
use crate::pipeline::source::Position;
use crate::pipeline::split::{App, Split, Splitter};
use crate::pipeline::spool::{FinishedFile, FrameStored};
use crate::record::{Block, Record};

/// How far a task is asked to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Everything read is sealed, uploaded and logged.
    Draining,
    /// No more can be read: what was read may be all that there is of it, so it is sealed and finished like the rest.
    Failing,
    /// Nothing new is decided; what is decided is finished.
    Stopping,
}

/// What a takeover found beside the log's state.
#[derive(Clone, Debug)]
pub struct Taken<'a> {
    /// Which are read.
    pub partitions: &'a [i32],
    /// Pending intents whose objects the store does not have; the others are done.
    pub missing: &'a HashSet<IntentId>,
    /// Where each partition ends now.
    pub live_ends: BTreeMap<i32, i64>,
    pub entries_since_snapshot: u64,
    /// What the last owner left in the spool and this task goes on with.
    pub adoption: Option<&'a Adoption>,
}

/// The deciding half of a task.
#[derive(Debug)]
pub struct Core {
    settings: TaskSettings,
    rotation: Rotation,
    splitter: Arc<Splitter>,
    times: EventTimes,
    state: State,
    recovery: Recovery,
    holds: Holds,
    lanes: Lanes,
    files: Files,
    /// Ordered, so that the same events give the same actions.
    rebuilds: BTreeMap<IntentId, Rebuild>,
    positions: BTreeMap<i32, i64>,
    epochs: Epochs,
    /// Offsets above low that are in no lane.
    noted: Noted,
    spooled: Spooled,
    /// Decided files that lie whole in the spool, until the task begins.
    adopted: Vec<FileId>,
    /// Files that are not done and tell of offsets that were left out, with the first of each partition.
    telling: BTreeMap<FileId, BTreeMap<i32, i64>>,
    letters: Letters,
    /// Records may vanish from the topic by its own rules.
    compacted: bool,
    /// `--until-caught-up`: nothing at or above is taken.
    ends: Option<BTreeMap<i32, i64>>,
    /// Where the live end was at the start: below it records are a replay or a backlog.
    replay_until: BTreeMap<i32, i64>,
    replay_deadline_ms: i64,
    phase: Phase,
    next_file: FileId,
    /// Sealed files that the log does not know, in order.
    unlogged: Vec<FileId>,
    unlogged_since_ms: i64,
    /// Files in the store that the log does not know to be done.
    undone: Vec<FileId>,
    undone_since_ms: i64,
    low_moved_since_ms: Option<i64>,
    /// Partitions that the log does not know.
    new_partitions: BTreeMap<i32, i64>,
    appending: bool,
    entries_since_snapshot: u64,
    snapshot_every: u64,
    actions: Vec<Action>,
    counters: Counters,
    /// Stored and raw bytes of all frames, for the ratio.
    stored_total: u64,
    raw_total: u64,
}

impl Core {
    /// A task as its takeover found it.
    pub fn new(settings: TaskSettings, state: State, taken: Taken<'_>, now_ms: i64) -> Self {
        let Taken { partitions, missing, live_ends, entries_since_snapshot, adoption } = taken;
        let rotation = Rotation::new(&settings.connector.rotate);
        let in_spool = |id: &IntentId| adoption.is_some_and(|adoption| adoption.decided.contains_key(id));
        let lows = partitions.iter().filter_map(|&p| state.low(p).map(|low| (p, low)));
        let positions = lows.collect();
        let mut core = Self {
            splitter: Arc::new(Splitter::new(&settings.connector, &settings.topic)),
            times: EventTimes::new(&settings.connector.time),
            lanes: Lanes::new(settings.reserved_names()),
            rotation,
            recovery: Recovery::new(&state, |id| missing.contains(id) && !in_spool(id)),
            holds: Holds::default(),
            files: Files::default(),
            rebuilds: BTreeMap::new(),
            positions,
            epochs: Epochs::default(),
            noted: Noted::default(),
            spooled: Spooled::default(),
            adopted: Vec::new(),
            telling: BTreeMap::new(),
            letters: Letters::default(),
            compacted: false,
            ends: None,
            replay_until: live_ends,
            replay_deadline_ms: now_ms.saturating_add(rotation.interval_ms()),
            phase: Phase::Running,
            next_file: adoption.map_or(0, |adoption| adoption.last_file) + 1,
            unlogged: Vec::new(),
            unlogged_since_ms: 0,
            undone: Vec::new(),
            undone_since_ms: 0,
            low_moved_since_ms: None,
            new_partitions: BTreeMap::new(),
            appending: false,
            entries_since_snapshot,
            snapshot_every: SNAPSHOT_EVERY,
            actions: Vec::new(),
            counters: Counters::default(),
            stored_total: 0,
            raw_total: 0,
            settings,
            state,
        };
        core.take_over_intents(missing, adoption.map(|adoption| &adoption.decided), now_ms);
        if let Some(adoption) = adoption {
            core.adopt(adoption, now_ms);
        }
        core
    }

    /// Another distance of snapshots than [`SNAPSHOT_EVERY`].
    pub fn with_snapshot_every(mut self, entries: u64) -> Self {
        self.snapshot_every = entries;
        self
    }

    /// On a compacted topic an object may be rebuilt with fewer records than were decided; that is told.
    pub fn with_compacted(mut self, compacted: bool) -> Self {
        self.compacted = compacted;
        self
    }

    fn take_over_intents(
        &mut self,
        missing: &HashSet<IntentId>,
        in_spool: Option<&BTreeMap<IntentId, AdoptedFile>>,
        now_ms: i64,
    ) {
        let pending: Vec<Pending> = self.state.intents.values().cloned().collect();
        for Pending { log_number, intent } in pending {
            let adopted = in_spool.and_then(|files| files.get(&intent.id));
            let file = adopted.map_or_else(|| self.new_file(), |adopted| adopted.file);
            for &partition in intent.ranges.keys() {
                if let Some((first, _)) = self.state.span(&intent, partition) {
                    self.holds.hold(file, partition, first);
                }
            }
            self.tells(file, &intent.skipped);
            let is_missing = missing.contains(&intent.id);
            let id = intent.id.clone();
            let stage = if is_missing { Stage::Logged { number: log_number } } else { Stage::Uploaded };
            let mut closed = File::new(intent, stage);
            if let Some(adopted) = adopted {
                closed.complete = true;
                closed.frames = adopted.frames();
            }
            self.files.insert(file, closed);
            if adopted.is_some() {
                self.adopted.push(file);
            } else if is_missing {
                self.rebuilds.insert(id, Rebuild::new(file));
            } else {
                self.undone.push(file);
                self.undone_since_ms = now_ms;
            }
        }
    }

    fn new_file(&mut self) -> FileId {
        self.next_file += 1;
        self.next_file - 1
    }

    /// To be called once before any event: finishes what needs no more records.
    ///
    /// # Errors
    /// As [`Core::on_block`].
    pub fn begin(&mut self, now_ms: i64) -> Result<(), CoreError> {
        self.complete_rebuilds(now_ms)?;
        for file in std::mem::take(&mut self.adopted) {
            self.finish_if_stored(file);
        }
        self.next_append(now_ms);
        Ok(())
    }

    /// Archive up to `ends` (per partition), seal everything, then be drained.
    pub fn until(&mut self, ends: BTreeMap<i32, i64>, now_ms: i64) {
        self.ends = Some(ends);
        self.check_caught_up(now_ms);
        self.next_append(now_ms);
    }

    /// Partitions that were not there before, with where they begin. They are read once the log holds them.
    pub fn add_partitions(&mut self, lows: BTreeMap<i32, i64>, now_ms: i64) {
        self.new_partitions.extend(lows.into_iter().filter(|(p, _)| !self.positions.contains_key(p)));
        self.next_append(now_ms);
    }

    /// Finish what is decided, decide nothing new.
    pub fn stop(&mut self, now_ms: i64) {
        self.phase = Phase::Stopping;
        if !self.appending && !self.spooled.parks {
            // Never logged, so never decided: the next owner reads these records again.
            for file in std::mem::take(&mut self.unlogged) {
                self.files.remove(file);
                self.actions.push(Action::Discard { file });
            }
        }
        self.next_append(now_ms);
    }

    /// Kafka has no more records for us, not even those that were read: save what is here.
    pub fn fail(&mut self, now_ms: i64) {
        if self.phase != Phase::Running {
            return;
        }
        for file in self.lanes.files() {
            self.seal(file, now_ms);
        }
        self.phase = Phase::Failing;
        self.next_append(now_ms);
    }

    /// Everything asked for is done: drained, or stopped with nothing in flight.
    pub fn is_finished(&self) -> bool {
        let log_is_still = !self.appending && self.undone.is_empty();
        match self.phase {
            Phase::Running => false,
            Phase::Draining => {
                log_is_still
                    && self.letters.is_empty()
                    && self.lanes.is_empty()
                    && self.files.is_empty()
                    && self.low_moved_since_ms.is_none()
            }
            Phase::Failing => {
                log_is_still && self.letters.is_empty() && self.unlogged.is_empty() && self.files.none_in_upload()
            }
            Phase::Stopping => log_is_still && self.files.none_in_upload() && !self.parks(),
        }
    }

    /// Only more records can free spool: objects of a predecessor wait for theirs, and nothing else could be uploaded.
    pub fn needs_records_to_free_spool(&self) -> bool {
        !self.rebuilds.is_empty() && self.lanes.is_empty() && self.files.none_in_upload() && self.unlogged.is_empty()
    }

    /// Whether [`Core::on_tick`] has something to do now.
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.next_deadline_ms().is_some_and(|at| at <= now_ms)
    }

    /// No more records are wanted.
    pub fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Failing)
    }

    /// Whether reading this partition further makes sense.
    pub fn wants(&self, partition: i32) -> bool {
        let end = self.ends.as_ref().map(|ends| ends.get(&partition).copied().unwrap_or(0));
        self.phase == Phase::Running && end.is_none_or(|end| self.position(partition) < end)
    }

    pub fn position(&self, partition: i32) -> i64 {
        self.positions.get(&partition).copied().unwrap_or(0)
    }

    pub fn positions(&self) -> &BTreeMap<i32, i64> {
        &self.positions
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub fn take_counters(&mut self) -> Counters {
        self.counters.time_fallbacks += self.times.take_fallbacks();
        std::mem::take(&mut self.counters)
    }

    pub fn progress(&self) -> Progress {
        Progress {
            positions: self.positions.clone(),
            lows: self.state.lows.iter().map(|(&partition, low)| (partition, low.offset)).collect(),
            open_lanes: self.lanes.len(),
            files_in_upload: self.files.in_upload(),
            intents_pending: self.state.intents.len(),
            oldest_unsealed_ms: self.lanes.oldest_opened_at_ms(),
        }
    }

    pub fn open_lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Memory of the lane buffers, for the budget.
    pub fn buffered_bytes(&self) -> usize {
        self.lanes.buffered_bytes() + self.rebuilds.values().map(|rebuild| rebuild.buffer.memory_bytes()).sum::<usize>()
    }

    /// The next time that [`Core::on_tick`] has something to do, if nothing else happens.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        let due = self.lanes.next_due_ms().filter(|_| self.phase == Phase::Running && !self.replays());
        // While an entry is being appended no other can be: its answer is waited for, not the clock.
        let entry = if self.appending {
            None
        } else {
            let unlogged = (!self.unlogged.is_empty()).then(|| self.unlogged_since_ms + SEAL_WINDOW_MS);
            let undone = (!self.undone.is_empty()).then(|| self.undone_since_ms + DONE_WINDOW_MS);
            let low = self.low_moved_since_ms.map(|since| since + LOW_WINDOW_MS);
            [unlogged, undone, low].into_iter().flatten().min()
        };
        due.into_iter().chain(entry).min()
    }

    /// While the backlog is read, age seals nothing: after a night's stop every lane would be due with its first record.
    fn replays(&self) -> bool {
        self.replay_until.iter().any(|(&partition, &end)| self.positions.get(&partition).is_some_and(|&p| p < end))
    }

    /// Time passed.
    pub fn on_tick(&mut self, now_ms: i64) {
        if self.phase == Phase::Running && (!self.replays() || now_ms >= self.replay_deadline_ms) {
            let due = self.lanes.due(now_ms);
            if !due.is_empty() {
                for file in self.lanes.due(self.rotation.companions_due_by_ms(now_ms)) {
                    self.seal(file, now_ms);
                }
            }
        }
        self.next_append(now_ms);
    }

    /// Compresses the fullest buffers early until `bytes` are freed.
    pub fn relieve_memory(&mut self, bytes: usize) {
        let before = self.buffered_bytes();
        for file in self.lanes.fullest(bytes) {
            self.cut_open(file);
        }
        if before - self.buffered_bytes() < bytes {
            let buffers: Vec<(FileId, FrameBuffer)> =
                self.rebuilds.values_mut().map(|rebuild| (rebuild.file, std::mem::take(&mut rebuild.buffer))).collect();
            for (file, buffer) in buffers {
                self.cut_closed(file, buffer);
            }
        }
    }

    /// Seals the oldest lanes early until about `bytes` of spool will be freed by their uploads.
    pub fn relieve_spool(&mut self, bytes: u64, now_ms: i64) {
        if self.phase != Phase::Running {
            return;
        }
        // What is on its way to the store frees its share without us.
        let mut freed = self.files.leaving_bytes();
        for file in self.lanes.due(i64::MAX) {
            if freed >= bytes {
                break;
            }
            let stored_bytes = self.lanes.get_mut(file).map_or(0, |lane| lane.frames.stored_bytes);
            if stored_bytes > 0 {
                freed += stored_bytes;
                self.seal(file, now_ms);
            }
        }
        self.next_append(now_ms);
    }

    fn check_caught_up(&mut self, now_ms: i64) {
        let Some(ends) = &self.ends else { return };
        let caught_up = ends.iter().all(|(&partition, &end)| self.position(partition) >= end);
        // What a predecessor decided lies below the ends: the opening made sure.
        if caught_up && self.rebuilds.is_empty() && self.phase == Phase::Running {
            for file in self.lanes.files() {
                self.seal(file, now_ms);
            }
            self.phase = Phase::Draining;
        }
    }
}
