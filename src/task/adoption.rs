//! Which part of what the last owner left in this machine's spool a task may go on with.
//!
//! Owns: the rules for it, which files are still open, which were decided. Does not own: the files ([`super::adopt`]).
//!
//! The log decides, as always: a spool is used only if the log's last owner wrote it, and what the log has decided since it was
//! written is taken out. Whatever is not certain costs reading from low, nothing else.

use std::collections::{BTreeMap, HashSet};

use crate::archive::index::Skipped;
use crate::ledger::{Intent, IntentId, Pending, State};
use crate::pipeline::lane::{FileId, Frames};
use crate::pipeline::source::Position;
use crate::pipeline::spool::journal::{FileFound, Floor, Held, JournalFound};

/// A file of the spool that is used again.
#[derive(Clone, Debug)]
pub struct AdoptedFile {
    pub file: FileId,
    pub found: FileFound,
}

impl AdoptedFile {
    pub fn frames(&self) -> Frames {
        let frames = self.found.frames;
        Frames { cut: frames, stored: frames, stored_bytes: self.found.bytes, raw_in_flight: 0 }
    }
}

/// What is used again.
#[derive(Clone, Debug, Default)]
pub struct Adoption {
    /// Files of open lanes, each lane once.
    pub open: Vec<AdoptedFile>,
    /// Whole files of objects that were decided and are not in the store.
    pub decided: BTreeMap<IntentId, AdoptedFile>,
    /// Where reading goes on.
    pub floor: Floor,
    /// Files of this task get higher numbers.
    pub last_file: FileId,
    /// By partition: the log has to be the same below it.
    pub seen: BTreeMap<i32, Position>,
}

impl Adoption {
    pub fn all(&self) -> impl Iterator<Item = &AdoptedFile> {
        self.open.iter().chain(self.decided.values())
    }

    /// Of all files, as stored.
    pub fn bytes(&self) -> u64 {
        self.all().map(|file| file.found.bytes).sum()
    }
}

/// What a journal allows. `state`: after our Takeover. `partitions`: those that are read. `missing`: pending intents whose objects the
/// store does not have.
///
/// # Errors
/// Why the spool can't be used.
pub fn plan(
    found: &JournalFound,
    state: &State,
    partitions: &[i32],
    missing: &HashSet<IntentId>,
    live_ends: &BTreeMap<i32, i64>,
) -> Result<Adoption, String> {
    let no = |why: &str| Err(why.to_owned());
    let Some(floor) = &found.floor else { return no("its journal does not say from where on to read") };
    if state.settings.as_ref().is_none_or(|settings| settings.hash != found.begin.settings) {
        return no("settings that shape content have changed");
    }
    if found.begin.incarnation != state.identity.incarnation || state.cut.is_some() || !state.short.is_empty() {
        return no("the log was cut or reset");
    }
    let held = found.files.values().flat_map(|file| file.note.held.iter().map(|held| held.partition));
    if !floor.offsets.keys().copied().chain(held).all(|partition| partitions.contains(&partition)) {
        return no("it has records of partitions that are not read any more");
    }
    let mut adoption =
        Adoption { last_file: found.files.keys().next_back().copied().unwrap_or(0), ..Default::default() };
    adoption.floor.time_ms = floor.time_ms;
    let mut decided: Vec<AdoptedFile> = Vec::new();
    let mut lanes = HashSet::new();
    for (&file, found) in &found.files {
        let adopted = AdoptedFile { file, found: found.clone() };
        if is_decided(found, state)? {
            decided.push(adopted);
        } else if !follows_what_is_decided(found, state) {
            // The earlier file may have no frame here, while the floor does not reach to this one.
            return no("an earlier file of a lane was never decided");
        } else if lanes.insert(&found.note.lane) {
            adoption.open.push(adopted);
        } else {
            // The first was closed, the log does not say so, and the second may have begun before the first was written.
            return no("two files of one lane are open");
        }
    }
    for Pending { intent, .. } in state.intents.values().filter(|pending| missing.contains(&pending.intent.id)) {
        let Some(file) = decided.iter().find(|file| is_whole(&file.found, intent)) else {
            return Err(format!(
                "object {} was decided and is neither in the store nor whole in the spool",
                intent.key
            ));
        };
        adoption.decided.insert(intent.id.clone(), file.clone());
    }
    for &partition in partitions {
        let Some(low) = state.low(partition) else { continue };
        let offset = floor.offsets.get(&partition).map_or(low, |&offset| offset.max(low));
        adoption.floor.offsets.insert(partition, offset);
        let noted = floor.noted.iter().filter(|skipped| skipped.partition == partition && skipped.last >= low);
        for skipped in noted {
            let first = skipped.first.max(low);
            if first > skipped.first && skipped.scattered.is_some() {
                return no("low has passed a stretch half-way");
            }
            adoption.floor.noted.push(Skipped { first, ..*skipped });
        }
        let epochs = floor.epochs.get(&partition).cloned().unwrap_or_default();
        let mut seen = Position { offset, leader_epoch: epochs.last().and_then(|(_, epoch)| *epoch) };
        for held in adoption.open.iter().flat_map(|file| &file.found.note.held) {
            if held.partition == partition && held.range.last >= seen.offset {
                seen = Position { offset: held.range.last + 1, leader_epoch: held.leader_epoch };
            }
        }
        adoption.floor.epochs.insert(partition, epochs);
        if seen.offset > low {
            if live_ends.get(&partition).is_none_or(|&end| end < seen.offset) {
                return Err(format!(
                    "partition {partition} ends before offset {}, up to which it was read",
                    seen.offset
                ));
            }
            if seen.leader_epoch.is_none() {
                return no("the brokers tell no leader epochs, by which a log is known to be the same");
            }
            adoption.seen.insert(partition, seen);
        }
    }
    Ok(adoption)
}

/// Whether the log has decided what becomes of a file's records.
fn is_decided(file: &FileFound, state: &State) -> Result<bool, String> {
    let lane = &file.note.lane;
    let is_below = |held: &&Held| state.decided_to(lane, held.partition).is_some_and(|end| held.range.first < end);
    let decided = file.note.held.iter().filter(is_below).count();
    if decided > 0 && decided < file.note.held.len() {
        return Err(format!("the log has decided about a part of the file of {}", lane.app));
    }
    Ok(decided > 0)
}

/// Whether the log knows all earlier files of the lane.
fn follows_what_is_decided(file: &FileFound, state: &State) -> bool {
    let decided_to = |partition: i32| state.decided_to(&file.note.lane, partition);
    file.note.after.iter().all(|(&partition, &end)| decided_to(partition).is_some_and(|decided| decided >= end))
}

/// Whether a file holds just what was decided.
fn is_whole(file: &FileFound, intent: &Intent) -> bool {
    let held: BTreeMap<i32, _> = file.note.held.iter().map(|held| (held.partition, &held.range)).collect();
    file.note.lane == intent.lane
        && held.into_iter().eq(intent.ranges.iter().map(|(partition, range)| (*partition, range)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::index::SkipReason;
    use crate::ledger::encoding::Stored;
    use crate::ledger::{Commit, Entry, Identity, Lane, Range, SettingsRecord, StepId, Token};
    use crate::pipeline::lane::{Opener, OwnedAppKey};
    use crate::pipeline::spool::journal::{Begin, FileNote};

    fn settings() -> SettingsRecord {
        SettingsRecord { hash: "settings".to_owned(), content: serde_json::Value::Null }
    }

    fn range(first: i64, last: i64) -> Range {
        Range { first, last, count: 1 + (last - first).cast_unsigned(), digest: Default::default() }
    }

    fn lane(app: &str) -> Lane {
        Lane { app: app.to_owned(), bucket_start_secs: None }
    }

    /// A log that began at 10 in both partitions.
    struct Log(State);

    impl Log {
        fn new() -> Self {
            let mut log = Self(State::default());
            log.push(Entry::Takeover { worker: "w".to_owned(), time_ms: 0 });
            let lows = BTreeMap::from([(0, 10), (1, 10)]);
            let (settings, identity) = (settings(), Identity::default());
            log.push(Entry::Start { settings, identity, lows, skipped: Vec::new(), time_ms: 0 });
            log
        }

        fn push(&mut self, entry: Entry) {
            let number = self.0.tip + 1;
            let (token, step) = (Token("t".to_owned()), StepId(number.to_string()));
            self.0.apply(&Stored { number, token, step, entry }).unwrap();
        }

        fn seal(&mut self, app: &str, ranges: &[(i32, i64, i64)]) -> IntentId {
            let ranges = ranges.iter().map(|&(partition, first, last)| (partition, range(first, last))).collect();
            let intent = Intent::new(format!("{app}.zst"), lane(app), ranges, settings().hash);
            let id = intent.id.clone();
            self.push(Entry::Commit(Commit { seal: vec![intent], ..Commit::default() }));
            id
        }

        fn move_low(&mut self, partition: i32, offset: i64) {
            self.push(Entry::Commit(Commit { lows: BTreeMap::from([(partition, offset)]), ..Commit::default() }));
        }
    }

    fn file(app: &str, ranges: &[(i32, i64, i64)]) -> FileFound {
        let held = |&(partition, first, last): &(i32, i64, i64)| Held {
            partition,
            range: range(first, last),
            leader_epoch: Some(5),
        };
        let note = FileNote {
            lane: lane(app),
            app: OwnedAppKey::Id(app.as_bytes().into()),
            opener: Opener { partition: 0, offset: 0, time_ms: 0 },
            opened_at_ms: 0,
            held: ranges.iter().map(held).collect(),
            after: BTreeMap::new(),
        };
        FileFound { note, frames: 1, bytes: 1, crc: 0, raw_bytes: 1 }
    }

    fn journal(floor: (i64, i64), files: Vec<FileFound>) -> JournalFound {
        let floor = Floor {
            offsets: BTreeMap::from([(0, floor.0), (1, floor.1)]),
            noted: Vec::new(),
            epochs: BTreeMap::from([(0, vec![(0, Some(4))]), (1, vec![(0, Some(4))])]),
            time_ms: 0,
        };
        JournalFound {
            begin: Begin::new("t", &settings().hash, 0),
            floor: Some(floor),
            files: (1..).zip(files).collect(),
        }
    }

    fn planned(journal: &JournalFound, log: &Log, missing: &[&IntentId]) -> Result<Adoption, String> {
        let missing = missing.iter().map(|id| (*id).clone()).collect();
        plan(journal, &log.0, &[0, 1], &missing, &BTreeMap::from([(0, 100), (1, 100)]))
    }

    fn refused(journal: &JournalFound, log: &Log, why: &str) {
        let refused = planned(journal, log, &[]).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }

    #[test]
    fn open_files_go_on_and_reading_begins_behind_them() {
        let log = Log::new();
        let journal = journal((30, 40), vec![file("a", &[(0, 10, 35)]), file("b", &[(0, 12, 29), (1, 10, 20)])]);
        let adoption = planned(&journal, &log, &[]).unwrap();
        assert_eq!(adoption.open.iter().map(|file| file.file).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((adoption.floor.offsets, adoption.last_file), (BTreeMap::from([(0, 30), (1, 40)]), 2));
        // The highest that was read, with the epoch of just that.
        let seen = |offset, epoch| Position { offset, leader_epoch: Some(epoch) };
        assert_eq!(adoption.seen, BTreeMap::from([(0, seen(36, 5)), (1, seen(40, 4))]));
    }

    #[test]
    fn what_the_log_has_decided_since_is_taken_out() {
        let mut log = Log::new();
        let files = || vec![file("a", &[(0, 10, 19)]), file("b", &[(1, 10, 20)]), file("a", &[(0, 20, 25)])];
        let a = log.seal("a", &[(0, 10, 19)]);
        let adoption = planned(&journal((26, 21), files()), &log, &[]).unwrap();
        assert_eq!(adoption.open.iter().map(|file| file.file).collect::<Vec<_>>(), [2, 3]);
        assert!(adoption.decided.is_empty(), "the store has it");
        let adoption = planned(&journal((26, 21), files()), &log, &[&a]).unwrap();
        assert_eq!(adoption.decided[&a].file, 1);
        // Its last frames did not reach the spool.
        let short = journal((26, 21), vec![file("a", &[(0, 10, 18)]), file("b", &[(1, 10, 20)])]);
        assert!(planned(&short, &log, &[&a]).unwrap_err().contains("a.zst"));
        log.push(Entry::Commit(Commit { done: vec![a], lows: BTreeMap::from([(0, 20)]), ..Commit::default() }));
        log.push(Entry::Snapshot { state: Box::new(log.0.pruned()) });
        let adoption = planned(&journal((26, 21), files()), &log, &[]).unwrap();
        assert_eq!(
            adoption.open.iter().map(|file| file.file).collect::<Vec<_>>(),
            [2, 3],
            "also where low alone tells"
        );
    }

    /// A seal that the log never got: the file's last frames may be missing while the next file of the lane has begun.
    #[test]
    fn two_open_files_of_a_lane_are_too_many() {
        let log = Log::new();
        refused(&journal((30, 40), vec![file("a", &[(0, 10, 19)]), file("a", &[(0, 25, 30)])]), &log, "two files");
    }

    /// The same, and the earlier file had no frame in the spool yet.
    #[test]
    fn a_file_behind_one_that_was_never_decided_is_refused() {
        let mut behind = file("a", &[(0, 20, 30)]);
        behind.note.after = BTreeMap::from([(0, 20)]);
        let found = journal((10, 40), vec![behind]);
        let mut log = Log::new();
        refused(&found, &log, "an earlier file");
        log.seal("a", &[(0, 10, 19)]);
        assert_eq!(planned(&found, &log, &[]).unwrap().open.len(), 1);
    }

    #[test]
    fn what_low_has_passed_is_told_already() {
        let mut log = Log::new();
        log.move_low(0, 15);
        let mut journal = journal((20, 10), Vec::new());
        let skipped = |first, last| Skipped {
            partition: 0,
            first,
            last,
            reason: SkipReason::Hole,
            incarnation: 0,
            scattered: None,
        };
        journal.floor.as_mut().unwrap().noted = vec![skipped(10, 12), skipped(13, 16), skipped(18, 19)];
        assert_eq!(planned(&journal, &log, &[]).unwrap().floor.noted, [skipped(15, 16), skipped(18, 19)]);
        log.move_low(0, 60);
        let adoption = planned(&journal, &log, &[]).unwrap();
        assert_eq!((adoption.floor.offsets[&0], adoption.floor.noted), (60, Vec::new()));
    }

    #[test]
    fn whatever_is_not_certain_is_refused() {
        let log = Log::new();
        let good = || journal((30, 40), vec![file("a", &[(0, 10, 35)])]);
        planned(&good(), &log, &[]).unwrap();
        let mut found = good();
        found.floor = None;
        refused(&found, &log, "from where on");
        found = good();
        found.begin.settings = "others".to_owned();
        refused(&found, &log, "settings");
        found = good();
        found.begin.incarnation = 1;
        refused(&found, &log, "reset");
        found = good();
        found.files.insert(9, file("b", &[(2, 0, 1)]));
        refused(&found, &log, "partitions that are not read");
        refused(&journal((30, 101), Vec::new()), &log, "ends before offset 101");
        refused(&journal((30, 40), vec![file("a", &[(0, 10, 100)])]), &log, "ends before offset 101");
        found = good();
        found.files.get_mut(&1).unwrap().note.held[0].leader_epoch = None;
        refused(&found, &log, "leader epochs");
        found = good();
        found.floor.as_mut().unwrap().epochs.remove(&1);
        refused(&found, &log, "leader epochs");
        let mut half = Log::new();
        half.seal("a", &[(0, 10, 19)]);
        refused(&journal((30, 40), vec![file("a", &[(0, 10, 35), (1, 10, 12)])]), &half, "a part of the file");
    }
}
