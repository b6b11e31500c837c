//! What the spool would tell the next process of this task, and what it told this one.
//!
//! Owns: from where on records would have to be read again, buffers that hold that back for long, adopting what was left.
//! Does not own: the journal ([`crate::pipeline::spool::journal`]), whether what was left may be adopted ([`crate::task::adoption`]).

use super::*;
use crate::pipeline::spool::journal::{FileNote, Floor, Held};

/// A buffer that has waited for this long, or for a tenth of `rotate.max_interval`, is compressed: what lies in memory alone has to be
/// read again after a crash. Lanes of little traffic get up to ten frames in a file where one would do.
const LONGEST_BUFFERED_MS: i64 = 120_000;

/// Frames that are not in the spool yet.
#[derive(Debug, Default)]
pub(super) struct Spooled {
    /// With the first offsets in each.
    under_way: BTreeMap<(FileId, u32), Vec<(i32, i64)>>,
    /// What the entry that is being appended tells of offsets that were left out: the log may never get it.
    telling: Vec<Skipped>,
    /// Partitions that are read from an adopted floor: when it was written.
    pub(super) read_before: BTreeMap<i32, i64>,
    /// The process ends, and the next one finds what is in the spool.
    pub(super) parks: bool,
}

impl Spooled {
    /// Returns the partitions that the frame has records of.
    pub(super) fn cut(&mut self, file: FileId, sequence: u32, buffer: &FrameBuffer) -> Vec<i32> {
        let mut firsts: Vec<(i32, i64)> = Vec::new();
        for (partition, offset) in buffer.firsts() {
            if firsts.iter().all(|(known, _)| *known != partition) {
                firsts.push((partition, offset));
            }
        }
        let partitions = firsts.iter().map(|(partition, _)| *partition).collect();
        self.under_way.insert((file, sequence), firsts);
        partitions
    }

    pub(super) fn tells(&mut self, skipped: &[Skipped]) {
        self.telling = skipped.to_vec();
    }

    pub(super) fn told(&mut self) {
        self.telling.clear();
    }

    pub(super) fn stored(&mut self, file: FileId, stored: &[FrameStored]) {
        for frame in stored {
            self.under_way.remove(&(file, frame.sequence));
        }
    }
}

/// What the journal says of a lane's file once all that was cut of it is stored; the last frame has records of `partitions`.
pub(super) fn note(lane: &OpenLane, partitions: &[i32], after: BTreeMap<i32, i64>, epochs: &Epochs) -> FileNote {
    let held = |(partition, range): (i32, &crate::ledger::Range)| Held {
        partition,
        range: range.clone(),
        leader_epoch: epochs.after(partition, range.last).and_then(|position| position.leader_epoch),
    };
    FileNote {
        lane: lane.lane.clone(),
        app: lane.app().clone(),
        opener: lane.opener,
        opened_at_ms: lane.opened_at_ms,
        held: lane.ranges.iter().filter(|(partition, _)| partitions.contains(partition)).map(held).collect(),
        after,
    }
}

impl Core {
    /// Goes on with what the last owner had in its spool.
    pub(super) fn adopt(&mut self, adoption: &Adoption, now_ms: i64) {
        for open in &adoption.open {
            let note = &open.found.note;
            let bucket_end_ms =
                note.lane.bucket_start_secs.map(|start| self.settings.bucket_end_secs(start).saturating_mul(1000));
            // Never from a clock that was ahead.
            let opened_at_ms = note.opened_at_ms.min(now_ms);
            let due_at_ms = self.rotation.due_at_ms(opened_at_ms, bucket_end_ms);
            let (key, bucket) = (note.app.as_key(), note.lane.bucket_start_secs);
            let lane = self.lanes.open(key, bucket, open.file, note.opener, opened_at_ms, due_at_ms);
            lane.ranges = note.held.iter().map(|held| (held.partition, held.range.clone())).collect();
            lane.frames = open.frames();
            for held in &note.held {
                self.holds.hold(open.file, held.partition, held.range.first);
                self.recovery.holds_below(&note.lane, held.partition, held.range.last + 1);
            }
        }
        for file in adoption.all() {
            self.stored_total += file.found.bytes;
            self.raw_total += file.found.raw_bytes;
        }
        for (&partition, &offset) in &adoption.floor.offsets {
            self.positions.insert(partition, offset);
            if self.state.low(partition).is_some_and(|low| low < offset) {
                self.spooled.read_before.insert(partition, adoption.floor.time_ms.min(now_ms));
                self.low_moved_since_ms = Some(now_ms);
            }
        }
        self.noted.adopt(adoption.floor.noted.clone());
        self.epochs.adopt(&adoption.floor.epochs);
    }

    /// The process ends: what is in memory goes to the spool, where the next one finds it. What is sealed is still logged; a file that
    /// the log does not know beside the next one of its lane could not be told from one that lost its end.
    pub fn park(&mut self, now_ms: i64) {
        self.spooled.parks = true;
        self.stop(now_ms);
        for file in self.lanes.files() {
            self.cut_open(file);
        }
    }

    /// Frames are still on their way to a spool that is left to the next process.
    pub(super) fn parks(&self) -> bool {
        self.spooled.parks && !(self.spooled.under_way.is_empty() && self.unlogged.is_empty())
    }

    /// Where the next process would have to read on if it found the spool as it is. `None`: the task is not yet through with what
    /// a former owner decided, and whatever comes of that has to be read from low.
    pub fn floor(&mut self, now_ms: i64) -> Option<Floor> {
        if !self.rebuilds.is_empty() || self.state.cut.is_some() {
            return None;
        }
        let mut offsets = self.positions.clone();
        {
            let mut lower = |(partition, offset): (i32, i64)| {
                if let Some(least) = offsets.get_mut(&partition) {
                    *least = offset.min(*least);
                }
            };
            self.lanes.iter().flat_map(|lane| lane.buffer.firsts()).for_each(&mut lower);
            self.spooled.under_way.values().flatten().copied().for_each(&mut lower);
            self.letters.ids().flat_map(|id| self.holds.of(id)).for_each(&mut lower);
        }
        for (&partition, offset) in &mut offsets {
            *offset = self.noted.floor(partition, *offset);
        }
        let noted = self.spooled.telling.iter().copied().chain(self.noted.below(&offsets)).collect();
        let epochs = offsets.iter().map(|(&partition, &end)| (partition, self.epochs.below(partition, end))).collect();
        // What the journal says now; next time it may say more.
        if self.phase == Phase::Running {
            self.cut_what_waits(now_ms);
        }
        Some(Floor { offsets, noted, epochs, time_ms: now_ms })
    }

    fn cut_what_waits(&mut self, now_ms: i64) {
        let longest_ms = LONGEST_BUFFERED_MS.max(self.rotation.interval_ms() / 10);
        let waits =
            |lane: &&OpenLane| !lane.buffer.is_empty() && now_ms.saturating_sub(lane.buffered_since_ms) >= longest_ms;
        let mut files: Vec<FileId> = self.lanes.iter().filter(waits).map(|lane| lane.file).collect();
        files.sort_unstable();
        for file in files {
            self.cut_open(file);
        }
    }
}
