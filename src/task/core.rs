//! The deciding half of a task: pure, driven by events, answers with actions.
//!
//! Owns: positions, open lanes, files from seal to done, what the next log entry says, low.
//! Does not own: any I/O, clock or randomness; the driver ([`super::driver`]) carries the actions out and reports back.
//!
//! A file's way: open lane -> sealed (its intent waits for the log) -> logged -> finished in the spool -> uploaded -> done in
//! the log. Only a logged file is uploaded. A crash anywhere leaves a log from which the next owner goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::files::{File, Files, Rebuild, Stage};
use super::settings::TaskSettings;
use crate::archive::frame::FrameBuffer;
use crate::archive::index::FileFacts;
use crate::config::OnError;
use crate::ledger::encoding::Stored;
use crate::ledger::{Commit, Entry, Fate, Holds, Intent, IntentId, Pending, Recovery, State};
use crate::pipeline::event_time::EventTimes;
use crate::pipeline::lane::{AppKey, FileId, Lanes, OpenLane, Opener};
use crate::pipeline::rotation::Rotation;
use crate::pipeline::split::{App, Split, Splitter};
use crate::pipeline::spool::{FinishedFile, FrameStored};
use crate::record::{Block, Record};

/// Lanes that fall due within this time share one entry.
const SEAL_WINDOW_MS: i64 = 1_000;
/// A Done waits this long for a Seal to go with.
const DONE_WINDOW_MS: i64 = 3_000;
/// A low that moved while nothing else happened is written this often.
const LOW_WINDOW_MS: i64 = 60_000;
/// Seals in one entry; more go into the next, so that an entry stays small.
const MAX_SEALS_PER_ENTRY: usize = 2_000;
/// Entries between snapshots: few enough that a takeover reads little.
pub const SNAPSHOT_EVERY: u64 = 128;

/// What the driver is to do.
#[derive(Debug)]
pub enum Action {
    /// Compress and store a frame; answer with [`Core::on_stored`].
    Compress { file: FileId, sequence: u32, buffer: FrameBuffer },
    /// Append to the log; answer with [`Core::on_appended`]. One at a time.
    Append(Entry),
    /// Start reading these partitions from their positions.
    Read { partitions: Vec<i32> },
    /// Delete what the snapshot at the tip covers.
    CleanUp,
    /// Write the tail; answer with [`Core::on_finished`].
    Finish { file: FileId, facts: Box<FileFacts> },
    /// Upload the finished file; answer with [`Core::on_uploaded`].
    Upload { file: FileId, key: String, intent: IntentId, finished: FinishedFile },
    /// The file is in the store: its spool may go.
    Discard { file: FileId },
}

/// A record or a replay that the task can't get past.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    #[error("topic {topic} partition {partition} offset {offset}: {why}, and on_error is fail")]
    BadRecord { topic: String, partition: i32, offset: i64, why: &'static str },
    #[error(transparent)]
    RebuildDiffers(Box<RebuildDiffers>),
    #[error("a broken rule of the ledger: {0}")]
    Ledger(String),
}

/// An object that was decided can't be rebuilt as it was decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "object {key} was decided before and can't be rebuilt: topic {topic} partition {partition} offsets {first} to {last} held \
     {expected} records (digest {expected_digest}), now {found} ({found_digest}). Kafka's log is not what it was"
)]
pub struct RebuildDiffers {
    pub key: String,
    pub topic: String,
    pub partition: i32,
    pub first: i64,
    pub last: i64,
    pub expected: u64,
    pub expected_digest: String,
    pub found: u64,
    pub found_digest: String,
}

/// Events counted since they were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By partition.
    pub records_read: BTreeMap<i32, u64>,
    pub bytes_raw: u64,
    pub records_archived: u64,
    /// In objects that the store has already.
    pub records_skipped_by_mark: u64,
    /// By rule: `on_error: skip`.
    pub records_skipped: u64,
    pub records_dead_lettered: u64,
    pub time_fallbacks: u64,
    pub objects: u64,
    pub bytes_stored: u64,
}

/// What a task is doing, for status and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub positions: BTreeMap<i32, i64>,
    pub lows: BTreeMap<i32, i64>,
    pub open_lanes: usize,
    pub files_in_upload: usize,
    pub intents_pending: usize,
    pub oldest_unsealed_ms: Option<i64>,
}

/// How far a task is asked to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Everything read is sealed, uploaded and logged.
    Draining,
    /// Nothing new is decided; what is decided is finished.
    Stopping,
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
    /// A task as its takeover found it. `missing`: pending intents whose objects the store does not have; the others are done.
    /// `live_ends`: where each partition ends now.
    pub fn new(
        settings: TaskSettings,
        state: State,
        missing: &[IntentId],
        live_ends: BTreeMap<i32, i64>,
        entries_since_snapshot: u64,
        now_ms: i64,
    ) -> Self {
        let rotation = Rotation::new(&settings.connector.rotate);
        let positions = state.lows.iter().map(|(&partition, low)| (partition, low.offset)).collect();
        let mut core = Self {
            splitter: Arc::new(Splitter::new(&settings.connector, &settings.topic)),
            times: EventTimes::new(&settings.connector.time),
            lanes: Lanes::new(settings.reserved_names()),
            rotation,
            recovery: Recovery::new(&state, |id| missing.contains(id)),
            holds: Holds::default(),
            files: Files::default(),
            rebuilds: BTreeMap::new(),
            positions,
            ends: None,
            replay_until: live_ends,
            replay_deadline_ms: now_ms.saturating_add(rotation.interval_ms()),
            phase: Phase::Running,
            next_file: 1,
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
        core.take_over_intents(missing, now_ms);
        core
    }

    /// Another distance of snapshots than [`SNAPSHOT_EVERY`].
    pub fn with_snapshot_every(mut self, entries: u64) -> Self {
        self.snapshot_every = entries;
        self
    }

    fn take_over_intents(&mut self, missing: &[IntentId], now_ms: i64) {
        let pending: Vec<Pending> = self.state.intents.values().cloned().collect();
        for Pending { log_number, intent } in pending {
            let file = self.new_file();
            for (&partition, range) in &intent.ranges {
                self.holds.hold(file, partition, range.first);
            }
            let is_missing = missing.contains(&intent.id);
            let id = intent.id.clone();
            let stage = if is_missing { Stage::Logged { number: log_number } } else { Stage::Uploaded };
            self.files.insert(file, File::new(intent, stage));
            if is_missing {
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
        if !self.appending {
            // Never logged, so never decided: the next owner reads these records again.
            for file in std::mem::take(&mut self.unlogged) {
                self.files.remove(file);
                self.actions.push(Action::Discard { file });
            }
        }
        self.next_append(now_ms);
    }

    /// Everything asked for is done: drained, or stopped with nothing in flight.
    pub fn is_finished(&self) -> bool {
        let log_is_still = !self.appending && self.undone.is_empty();
        match self.phase {
            Phase::Running => false,
            Phase::Draining => {
                log_is_still && self.lanes.is_empty() && self.files.is_empty() && self.low_moved_since_ms.is_none()
            }
            Phase::Stopping => log_is_still && self.files.none_in_upload(),
        }
    }

    /// Objects that a predecessor decided wait for records.
    pub fn rebuilds(&self) -> bool {
        !self.rebuilds.is_empty()
    }

    pub fn is_draining(&self) -> bool {
        self.phase == Phase::Draining
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

    /// Memory of the lane buffers, for the budget.
    pub fn buffered_bytes(&self) -> usize {
        self.lanes.buffered_bytes() + self.rebuilds.values().map(|rebuild| rebuild.buffer.memory_bytes()).sum::<usize>()
    }

    /// The next time that [`Core::on_tick`] has something to do, if nothing else happens.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        let due = if self.replays() { None } else { self.lanes.next_due_ms() };
        let due = due.filter(|_| self.phase == Phase::Running);
        // While an append is under way nothing is appended by time: its answer comes first.
        let still = !self.appending;
        let unlogged = (still && !self.unlogged.is_empty()).then(|| self.unlogged_since_ms + SEAL_WINDOW_MS);
        let undone = (still && !self.undone.is_empty()).then(|| self.undone_since_ms + DONE_WINDOW_MS);
        let low = self.low_moved_since_ms.filter(|_| still).map(|since| since + LOW_WINDOW_MS);
        [due, unlogged, undone, low].into_iter().flatten().min()
    }

    /// Splits the records of a block into their lanes.
    ///
    /// # Errors
    /// A record that stops the task by rule, or a rebuild that differs.
    pub fn on_block(&mut self, block: &Block, now_ms: i64) -> Result<(), CoreError> {
        if self.phase != Phase::Running {
            return Ok(());
        }
        let partition = block.partition;
        let position = self.position(partition);
        let end = self.ends.as_ref().map_or(i64::MAX, |ends| ends.get(&partition).copied().unwrap_or(0));
        let splitter = Arc::clone(&self.splitter);
        let mut records = 0;
        for record in block.records() {
            if record.offset >= end {
                break;
            }
            if record.offset >= position {
                records += 1;
                self.on_record(&splitter, &record, now_ms)?;
            }
        }
        *self.counters.records_read.entry(partition).or_default() += records;
        let next = block.next_offset.min(end).max(position);
        if next > position {
            self.positions.insert(partition, next);
            self.low_moved_since_ms.get_or_insert(now_ms);
        }
        self.complete_rebuilds()?;
        self.check_caught_up(now_ms);
        self.next_append(now_ms);
        Ok(())
    }

    fn on_record(&mut self, splitter: &Splitter, record: &Record<'_>, now_ms: i64) -> Result<(), CoreError> {
        let time_ms = self.times.time_ms(record);
        let bucket = self.times.bucket_start_secs(time_ms);
        let split = splitter.split(record);
        let key = match &split {
            Split::App(App::Id(id)) => AppKey::Id(id),
            Split::App(App::Missing) => AppKey::Missing,
            Split::Bad { why } => match self.settings.connector.on_error {
                OnError::Fail => {
                    return Err(CoreError::BadRecord {
                        topic: self.settings.topic.clone(),
                        partition: record.partition,
                        offset: record.offset,
                        why,
                    });
                }
                OnError::Skip => {
                    self.counters.records_skipped += 1;
                    return Ok(());
                }
                OnError::DeadLetter => AppKey::DeadLetter,
            },
        };
        if self.recovery.concerns(record.partition, record.offset) {
            let segment = self.lanes.segment(key);
            match self.recovery.fate(segment, bucket, record.partition, record.offset) {
                Fate::Fresh => {}
                Fate::Skip => {
                    self.counters.records_skipped_by_mark += 1;
                    return Ok(());
                }
                Fate::Rebuild(id) => {
                    if let Some(rebuild) = self.rebuilds.get_mut(id) {
                        rebuild.ranges.push(record);
                        rebuild.buffer.push(
                            self.settings.connector.format,
                            &self.settings.topic,
                            self.settings.topic_seed,
                            record,
                            time_ms,
                        );
                        if rebuild.buffer.len() >= self.settings.frame_bytes() {
                            let buffer = std::mem::take(&mut rebuild.buffer);
                            let file = rebuild.file;
                            self.cut_closed(file, buffer);
                        }
                    }
                    return Ok(());
                }
            }
        }
        if self.lanes.find(key, bucket).is_none() {
            let opened_at_ms = self.opened_at_ms(record, now_ms);
            let bucket_end_ms = bucket.map(|start| self.settings.bucket_end_secs(start).saturating_mul(1000));
            let due_at_ms = self.rotation.due_at_ms(opened_at_ms, bucket_end_ms);
            let opener = Opener { partition: record.partition, offset: record.offset, time_ms };
            let file = self.next_file;
            self.next_file += 1;
            self.lanes.open(key, bucket, file, opener, opened_at_ms, due_at_ms);
        }
        let Some(lane) = self.lanes.find(key, bucket) else {
            return Err(CoreError::Ledger("a lane that was just opened is not there".to_owned()));
        };
        if key == AppKey::DeadLetter {
            self.counters.records_dead_lettered += 1;
        }
        if lane.ranges.is_new(record.partition) {
            self.holds.hold(lane.file, record.partition, record.offset);
        }
        lane.ranges.push(record);
        let before = lane.buffer.memory_bytes();
        lane.buffer.push(
            self.settings.connector.format,
            &self.settings.topic,
            self.settings.topic_seed,
            record,
            time_ms,
        );
        let file = lane.file;
        let is_full = lane.buffer.len() >= self.settings.frame_bytes();
        if is_full {
            self.cut_open(file);
            self.seal_if_full(file, now_ms);
        } else if lane.buffer.memory_bytes() != before {
            self.lanes.recount(file);
        }
        Ok(())
    }

    /// Replayed records are as old as low stands still: a restart makes no file late.
    fn opened_at_ms(&self, record: &Record<'_>, now_ms: i64) -> i64 {
        let replayed = self.replay_until.get(&record.partition).is_some_and(|&end| record.offset < end);
        match self.state.lows.get(&record.partition) {
            Some(low) if replayed => low.since_ms.min(now_ms),
            _ => now_ms,
        }
    }

    /// While the backlog is read, age seals nothing: after a night's stop every lane would be due with its first record.
    fn replays(&self) -> bool {
        self.replay_until.iter().any(|(&partition, &end)| self.positions.get(&partition).is_some_and(|&p| p < end))
    }

    fn cut_open(&mut self, file: FileId) {
        let Some(lane) = self.lanes.get_mut(file) else { return };
        if lane.buffer.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut lane.buffer);
        let sequence = lane.frames.cut;
        lane.frames.cut += 1;
        lane.frames.raw_in_flight += buffer.len() as u64;
        self.lanes.recount(file);
        self.counters.bytes_raw += buffer.len() as u64;
        self.actions.push(Action::Compress { file, sequence, buffer });
    }

    fn cut_closed(&mut self, file: FileId, buffer: FrameBuffer) {
        if buffer.is_empty() {
            return;
        }
        if let Some(closed) = self.files.get_mut(file) {
            let sequence = closed.frames.cut;
            closed.frames.cut += 1;
            closed.frames.raw_in_flight += buffer.len() as u64;
            self.counters.bytes_raw += buffer.len() as u64;
            self.actions.push(Action::Compress { file, sequence, buffer });
        }
    }

    fn ratio(&self) -> f64 {
        // Nothing measured yet: logs rarely shrink to less than a twentieth.
        if self.raw_total == 0 { 0.05 } else { self.stored_total as f64 / self.raw_total as f64 }
    }

    fn seal_if_full(&mut self, file: FileId, now_ms: i64) {
        let ratio = self.ratio();
        let rotation = self.rotation;
        let full = self.lanes.get_mut(file).is_some_and(|lane| {
            let raw = lane.frames.raw_in_flight + lane.buffer.len() as u64;
            rotation.is_full(lane.frames.stored_bytes, raw, ratio)
        });
        if full && self.phase == Phase::Running {
            self.seal(file, now_ms);
        }
    }

    /// Decides that the lane's records so far are one object.
    fn seal(&mut self, file: FileId, now_ms: i64) {
        self.cut_open(file);
        let Some(lane) = self.lanes.close(file) else { return };
        let OpenLane { lane, opener, ranges, frames, .. } = lane;
        let key = self.settings.key(&lane, &opener, self.state.identity.incarnation);
        let intent = Intent::new(key, lane, ranges.into_map(), self.settings.record.hash.clone());
        let mut closed = File::new(intent, Stage::Sealed);
        closed.frames = frames;
        self.files.insert(file, closed);
        if self.unlogged.is_empty() {
            self.unlogged_since_ms = now_ms;
        }
        self.unlogged.push(file);
    }

    fn complete_rebuilds(&mut self) -> Result<(), CoreError> {
        let complete: Vec<IntentId> = self
            .rebuilds
            .iter()
            .filter(|(_, rebuild)| self.files.get(rebuild.file).is_some_and(|file| self.is_past(&file.intent)))
            .map(|(id, _)| id.clone())
            .collect();
        for id in complete {
            let Some(rebuild) = self.rebuilds.remove(&id) else { continue };
            let Rebuild { file, buffer, ranges } = rebuild;
            if let Some(closed) = self.files.get(file) {
                self.settings.check_rebuild(&closed.intent, &ranges)?;
            }
            self.cut_closed(file, buffer);
            if let Some(closed) = self.files.get_mut(file) {
                closed.complete = true;
            }
            self.finish_if_stored(file);
        }
        Ok(())
    }

    fn is_past(&self, intent: &Intent) -> bool {
        intent.ranges.iter().all(|(&partition, range)| self.position(partition) > range.last)
    }

    /// Frames of `file` reached the spool.
    pub fn on_stored(&mut self, file: FileId, stored: &[FrameStored], now_ms: i64) {
        let total = |frames: &mut crate::pipeline::lane::Frames| {
            for frame in stored {
                frames.stored += 1;
                frames.stored_bytes += frame.stored_bytes;
                frames.raw_in_flight = frames.raw_in_flight.saturating_sub(frame.raw_bytes);
            }
        };
        self.stored_total += stored.iter().map(|frame| frame.stored_bytes).sum::<u64>();
        self.raw_total += stored.iter().map(|frame| frame.raw_bytes).sum::<u64>();
        if let Some(lane) = self.lanes.get_mut(file) {
            total(&mut lane.frames);
            self.seal_if_full(file, now_ms);
        } else if let Some(closed) = self.files.get_mut(file) {
            total(&mut closed.frames);
            self.finish_if_stored(file);
        }
        self.next_append(now_ms);
    }

    fn finish_if_stored(&mut self, file: FileId) {
        let lows: BTreeMap<i32, i64> = self.state.lows.iter().map(|(&p, low)| (p, low.offset)).collect();
        let Some(closed) = self.files.get_mut(file) else { return };
        let Stage::Logged { number } = closed.stage else { return };
        if closed.complete && closed.frames.cut == closed.frames.stored {
            closed.stage = Stage::Finishing;
            let facts = self.settings.facts(&closed.intent, number, &self.state.identity, lows);
            self.actions.push(Action::Finish { file, facts: Box::new(facts) });
        }
    }

    /// The file is complete in the spool.
    pub fn on_finished(&mut self, file: FileId, finished: FinishedFile) {
        if let Some(closed) = self.files.get_mut(file) {
            closed.stage = Stage::Uploading { bytes: finished.bytes };
            let Intent { key, id, .. } = &closed.intent;
            self.actions.push(Action::Upload { file, key: key.clone(), intent: id.clone(), finished });
        }
    }

    /// The store acknowledged the object.
    pub fn on_uploaded(&mut self, file: FileId, now_ms: i64) {
        let Some(closed) = self.files.get_mut(file) else { return };
        let bytes = if let Stage::Uploading { bytes } = closed.stage { bytes } else { 0 };
        closed.stage = Stage::Uploaded;
        self.counters.objects += 1;
        self.counters.bytes_stored += bytes;
        self.counters.records_archived += closed.intent.records();
        if self.undone.is_empty() {
            self.undone_since_ms = now_ms;
        }
        self.undone.push(file);
        self.actions.push(Action::Discard { file });
        self.next_append(now_ms);
    }

    /// The log holds the entry.
    ///
    /// # Errors
    /// The entry breaks a rule of the ledger: a bug, and better found before anything is uploaded by it.
    pub fn on_appended(&mut self, stored: &Stored, now_ms: i64) -> Result<(), CoreError> {
        self.appending = false;
        self.state.apply(stored).map_err(|error| CoreError::Ledger(error.to_string()))?;
        self.entries_since_snapshot += 1;
        match &stored.entry {
            Entry::Commit(commit) => {
                for file in self.files.logged(&commit.seal, stored.number) {
                    self.finish_if_stored(file);
                }
            }
            Entry::Partitions { lows, .. } => {
                self.positions.extend(lows);
                self.actions.push(Action::Read { partitions: lows.keys().copied().collect() });
            }
            Entry::Snapshot { .. } => {
                self.entries_since_snapshot = 0;
                self.actions.push(Action::CleanUp);
            }
            _ => {}
        }
        if self.phase == Phase::Stopping {
            self.stop(now_ms);
        }
        self.next_append(now_ms);
        Ok(())
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
        let mut freed = 0;
        for file in self.lanes.due(i64::MAX) {
            if freed >= bytes {
                break;
            }
            freed += self.lanes.get_mut(file).map_or(0, |lane| lane.frames.stored_bytes);
            self.seal(file, now_ms);
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

    /// Starts the next append if there is reason for one.
    fn next_append(&mut self, now_ms: i64) {
        if self.appending {
            return;
        }
        if let Some(entry) = self.next_entry(now_ms) {
            self.appending = true;
            self.actions.push(Action::Append(entry));
        }
    }

    fn next_entry(&mut self, now_ms: i64) -> Option<Entry> {
        if self.entries_since_snapshot >= self.snapshot_every {
            return Some(Entry::Snapshot { state: Box::new(self.state.pruned()) });
        }
        let hurried = self.phase != Phase::Running;
        // Told again while the entry that takes them in was under way.
        self.new_partitions.retain(|partition, _| !self.positions.contains_key(partition));
        if !self.new_partitions.is_empty() && !hurried {
            let lows = std::mem::take(&mut self.new_partitions);
            return Some(Entry::Partitions { lows, time_ms: now_ms });
        }
        let seals = !self.unlogged.is_empty()
            && (hurried
                || self.unlogged.len() >= MAX_SEALS_PER_ENTRY
                || now_ms >= self.unlogged_since_ms + SEAL_WINDOW_MS);
        let dones = !self.undone.is_empty()
            && (now_ms >= self.undone_since_ms + DONE_WINDOW_MS || (hurried && self.files.none_in_upload()));
        let lows = self.low_moved_since_ms.is_some_and(|since| {
            now_ms >= since + LOW_WINDOW_MS
                || (self.phase == Phase::Draining && self.lanes.is_empty() && self.files.none_but_uploaded())
        });
        if seals || dones || lows {
            let commit = self.commit(now_ms);
            let empty = commit.seal.is_empty() && commit.done.is_empty() && commit.lows.is_empty();
            return (!empty).then_some(Entry::Commit(commit));
        }
        None
    }

    fn commit(&mut self, now_ms: i64) -> Commit {
        let sealed = self.unlogged.len().min(MAX_SEALS_PER_ENTRY);
        let seal = if self.phase == Phase::Stopping {
            Vec::new()
        } else {
            let files: Vec<FileId> = self.unlogged.drain(..sealed).collect();
            files.iter().filter_map(|&file| self.files.get(file)).map(|file| file.intent.clone()).collect()
        };
        let mut done = Vec::new();
        for file in std::mem::take(&mut self.undone) {
            self.holds.release(file);
            done.extend(self.files.remove(file).map(|file| file.intent.id));
        }
        let mut lows = BTreeMap::new();
        for (&partition, low) in &self.state.lows {
            let position = self.positions.get(&partition).copied().unwrap_or(low.offset);
            let offset = self.holds.low(partition, position);
            if offset > low.offset {
                lows.insert(partition, offset);
            }
        }
        self.low_moved_since_ms = None;
        Commit { seal, done, lows, time_ms: now_ms }
    }
}
