//! What the next entry of the log says, and when it is written.
//!
//! Owns: which seals, Dones and lows share an entry, snapshots. Does not own: how entries are appended.

use super::*;

/// Lanes that fall due within this time share one entry.
pub(super) const SEAL_WINDOW_MS: i64 = 1_000;
/// A Done waits this long for a Seal to go with.
pub(super) const DONE_WINDOW_MS: i64 = 3_000;
/// A low that moved while nothing else happened is written this often.
pub(super) const LOW_WINDOW_MS: i64 = 60_000;
/// Seals in one entry; more go into the next, so that an entry stays small.
pub(super) const MAX_SEALS_PER_ENTRY: usize = 2_000;
/// Log entries between snapshots: few enough that a takeover reads little.
pub const SNAPSHOT_EVERY: u64 = 128;

impl Core {
    /// The log holds the entry.
    ///
    /// # Errors
    /// The entry breaks a rule of the ledger: a bug, and better found before anything is uploaded by it.
    pub fn on_appended(&mut self, stored: &Stored, now_ms: i64) -> Result<(), CoreError> {
        self.appending = false;
        self.state.apply(stored).map_err(|error| CoreError::Ledger(error.to_string()))?;
        self.entries_since_snapshot += 1;
        self.spooled.told();
        match &stored.entry {
            Entry::Commit(commit) => {
                let decided =
                    commit.seal.iter().chain(commit.replaced.iter().filter_map(|replaced| replaced.by.as_ref()));
                for file in self.files.logged(decided, stored.number) {
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

    /// Starts the next append if there is reason for one.
    pub(super) fn next_append(&mut self, now_ms: i64) {
        if self.appending {
            return;
        }
        if let Some(entry) = self.next_entry(now_ms) {
            self.appending = true;
            self.actions.push(Action::Append(entry));
        }
    }

    pub(super) fn next_entry(&mut self, now_ms: i64) -> Option<Entry> {
        if self.entries_since_snapshot >= self.snapshot_every {
            return Some(Entry::Snapshot { state: Box::new(self.state.pruned()) });
        }
        let hurried = self.phase != Phase::Running;
        // Asked for a second time while the entry that takes them in was on its way.
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
            let empty = commit.seal.is_empty()
                && commit.replaced.is_empty()
                && commit.done.is_empty()
                && commit.lows.is_empty()
                && commit.joined.is_empty();
            return (!empty).then_some(Entry::Commit(commit));
        }
        None
    }

    pub(super) fn commit(&mut self, now_ms: i64) -> Commit {
        let sealed = self.unlogged.len().min(MAX_SEALS_PER_ENTRY);
        let files: Vec<FileId> = if self.phase == Phase::Stopping && !self.spooled.parks {
            Vec::new()
        } else {
            self.unlogged.drain(..sealed).collect()
        };
        let (mut seal, mut replaced) = (Vec::new(), Vec::new());
        for id in files {
            let Some(file) = self.files.get(id) else { continue };
            let intent = file.intent.clone();
            match file.replaces.clone() {
                None if seal.is_empty() => seal.push(self.take_along(id, intent)),
                None => seal.push(intent),
                Some(before) if !intent.ranges.is_empty() => {
                    replaced.push(Replaced { id: before, by: Some(intent) });
                }
                Some(before) => {
                    replaced.push(Replaced { id: before, by: None });
                    self.files.remove(id);
                    self.forget(id);
                }
            }
        }
        let mut done = Vec::new();
        for file in std::mem::take(&mut self.undone) {
            self.forget(file);
            done.extend(self.files.remove(file).map(|file| file.intent.id));
        }
        let (mut lows, mut skipped) = (BTreeMap::new(), Vec::new());
        for (&partition, low) in &self.state.lows {
            let position = self.positions.get(&partition).copied().unwrap_or(low.offset);
            let offset = self.noted.floor(partition, self.holds.low(partition, position));
            if offset > low.offset {
                lows.insert(partition, offset);
                skipped.extend(self.noted.take_below(partition, offset));
            }
        }
        self.low_moved_since_ms = None;
        let seed = self.settings.topic_seed;
        self.spooled.tells(&skipped);
        let skipped = skips::joined(skipped, skips::MAX_WAITING, seed);
        let waiting = self.state.skips.as_slice();
        // No file came along for long.
        let joined = if seal.is_empty() && waiting.len() > skips::MAX_WAITING {
            skips::joined(waiting.to_vec(), skips::MAX_WAITING / 2, seed)
        } else {
            Vec::new()
        };
        let joined = if joined.len() < waiting.len() { joined } else { Vec::new() };
        let seen = self.newly_seen(&seal, &lows);
        Commit { seal, replaced, done, lows, skipped, joined, seen, time_ms: now_ms }
    }

    /// What low passed and no file tells of rides in this one.
    fn take_along(&mut self, file: FileId, intent: Intent) -> Intent {
        let waiting = self.state.skips.as_slice();
        if waiting.is_empty() {
            return intent;
        }
        let waiting = waiting.to_vec();
        self.tells(file, &waiting);
        self.files.tell(file, waiting).unwrap_or(intent)
    }

    pub(super) fn tells(&mut self, file: FileId, skipped: &[Skipped]) {
        for skipped in skipped.iter().filter(|skipped| skipped.incarnation == self.state.identity.incarnation) {
            let first = self.telling.entry(file).or_default().entry(skipped.partition).or_insert(skipped.first);
            *first = skipped.first.min(*first);
        }
    }

    fn forget(&mut self, file: FileId) {
        self.holds.release(file);
        self.telling.remove(&file);
    }

    /// The highest offsets that this entry says something final about, with their leader epochs: the last records of its
    /// intents, and what low passes, which may be in no object at all.
    fn newly_seen(&self, seal: &[Intent], lows: &BTreeMap<i32, i64>) -> BTreeMap<i32, Position> {
        let sealed = seal.iter().flat_map(|intent| &intent.ranges).map(|(&partition, range)| (partition, range.last));
        let passed = lows.iter().map(|(&partition, low)| (partition, low - 1));
        let mut seen: BTreeMap<i32, Position> = BTreeMap::new();
        for (partition, last) in sealed.chain(passed) {
            let before = seen.get(&partition).or_else(|| self.state.seen.get(&partition));
            // What lies above the position was read by a predecessor: its epoch is not known to us.
            if before.is_some_and(|before| before.offset > last) || last >= self.position(partition) {
                continue;
            }
            if let Some(position) = self.epochs.after(partition, last) {
                seen.insert(partition, position);
            }
        }
        seen
    }
}
