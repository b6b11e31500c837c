//! A sealed file's way to the store.
//!
//! Owns: its stages from stored frames to the store's acknowledgement. Does not own: the log.

use super::*;

impl Core {
    /// Frames of `file` reached the spool.
    pub fn on_stored(&mut self, file: FileId, stored: &[FrameStored], now_ms: i64) {
        let total = |frames: &mut crate::pipeline::lane::Frames| {
            for frame in stored {
                frames.stored += 1;
                frames.stored_bytes += frame.stored_bytes;
                frames.raw_in_flight = frames.raw_in_flight.saturating_sub(frame.raw_bytes);
            }
        };
        self.spooled.stored(file, stored);
        self.stored_total += stored.iter().map(|frame| frame.stored_bytes).sum::<u64>();
        self.counters.frames += stored.len() as u64;
        self.raw_total += stored.iter().map(|frame| frame.raw_bytes).sum::<u64>();
        if let Some(lane) = self.lanes.get_mut(file) {
            total(&mut lane.frames);
            self.seal_if_full(file, now_ms);
        } else if self.files.change(file, |closed| total(&mut closed.frames)).is_some() {
            self.finish_if_stored(file);
        }
        self.next_append(now_ms);
    }

    pub(super) fn finish_if_stored(&mut self, file: FileId) {
        let Some(closed) = self.files.get(file) else { return };
        let Stage::Logged { number } = closed.stage else { return };
        if !closed.complete || closed.frames.cut != closed.frames.stored {
            return;
        }
        let mut lows: BTreeMap<i32, i64> = self.state.lows.iter().map(|(&p, low)| (p, low.offset)).collect();
        // Whoever has the files alone must be able to account for all below them.
        let told = self.telling.iter().filter(|(teller, _)| **teller != file).flat_map(|(_, firsts)| firsts);
        let incarnation = self.state.identity.incarnation;
        let waiting = self.state.skips.as_slice().iter().filter(|skipped| skipped.incarnation == incarnation);
        let waiting = waiting.map(|skipped| (&skipped.partition, &skipped.first));
        for (partition, first) in told.chain(waiting) {
            if let Some(low) = lows.get_mut(partition) {
                *low = *first.min(low);
            }
        }
        let facts = self.settings.facts(&closed.intent, number, &self.state.identity, lows);
        self.files.change(file, |closed| closed.stage = Stage::Finishing);
        self.actions.push(Action::Finish { file, facts: Box::new(facts) });
    }

    /// The file is complete in the spool.
    pub fn on_finished(&mut self, file: FileId, finished: FinishedFile) {
        let decided = self.files.change(file, |closed| {
            closed.stage = Stage::Uploading { bytes: finished.data.bytes };
            (closed.intent.key.clone(), closed.intent.id.clone())
        });
        if let Some((key, intent)) = decided {
            self.actions.push(Action::Upload { file, key, intent, finished });
        }
    }

    /// The store acknowledged the object.
    pub fn on_uploaded(&mut self, file: FileId, now_ms: i64) {
        let archived = self.files.change(file, |closed| {
            let bytes = if let Stage::Uploading { bytes } = closed.stage { bytes } else { 0 };
            closed.stage = Stage::Uploaded;
            (bytes, closed.intent.records())
        });
        let Some((bytes, records)) = archived else { return };
        self.counters.objects += 1;
        self.counters.bytes_stored += bytes;
        self.counters.records_archived += records;
        if self.undone.is_empty() {
            self.undone_since_ms = now_ms;
        }
        self.undone.push(file);
        self.actions.push(Action::Discard { file });
        self.next_append(now_ms);
    }
}
