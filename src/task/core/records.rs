//! Records into lanes, lanes into frames and seals.
//!
//! Owns: what becomes of a record, when a frame is cut, what a seal decides, rebuilds. Does not own: when a lane is due.

use super::*;

impl Core {
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
        if block.next_offset > position {
            // First: a frame that is cut in the middle of a block says with which epoch it was read.
            self.epochs.read(block, position);
        }
        let splitter = Arc::clone(&self.splitter);
        let mut records = 0;
        let mut reached = position;
        for record in block.records() {
            if record.offset >= end {
                break;
            }
            if record.offset >= reached {
                if record.offset > reached {
                    self.note(partition, reached, record.offset - 1, SkipReason::Hole);
                }
                reached = record.offset + 1;
                records += 1;
                self.on_record(&splitter, &record, now_ms)?;
            }
        }
        *self.counters.records_read.entry(partition).or_default() += records;
        self.send_letters(partition);
        let next = block.next_offset.min(end).max(reached);
        if next > reached {
            self.note(partition, reached, next - 1, SkipReason::Hole);
        }
        if next > position {
            self.positions.insert(partition, next);
            self.low_moved_since_ms.get_or_insert(now_ms);
        }
        self.complete_rebuilds(now_ms)?;
        self.check_caught_up(now_ms);
        self.next_append(now_ms);
        Ok(())
    }

    pub(super) fn on_record(&mut self, splitter: &Splitter, record: &Record<'_>, now_ms: i64) -> Result<(), CoreError> {
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
                    self.note(record.partition, record.offset, record.offset, SkipReason::Rule);
                    return Ok(());
                }
                OnError::DeadLetter if self.goes_to_topic(record) => {
                    self.dead_letter(record, why);
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
                        rebuild.opener.get_or_insert(Opener {
                            partition: record.partition,
                            offset: record.offset,
                            time_ms,
                        });
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
        let file = self.lanes.find(key, bucket).unwrap_or_else(|| {
            let opened_at_ms = self.opened_at_ms(record, now_ms);
            let bucket_end_ms = bucket.map(|start| self.settings.bucket_end_secs(start).saturating_mul(1000));
            let due_at_ms = self.rotation.due_at_ms(opened_at_ms, bucket_end_ms);
            let opener = Opener { partition: record.partition, offset: record.offset, time_ms };
            let file = self.next_file;
            self.next_file += 1;
            self.lanes.open(key, bucket, file, opener, opened_at_ms, due_at_ms);
            file
        });
        let Some(lane) = self.lanes.get_mut(file) else {
            return Err(CoreError::Ledger("a lane that was just opened is not there".to_owned()));
        };
        if key == AppKey::DeadLetter {
            self.counters.records_dead_lettered += 1;
        }
        if lane.ranges.is_new(record.partition) {
            self.holds.hold(lane.file, record.partition, record.offset);
        }
        lane.ranges.push(record);
        if lane.buffer.is_empty() {
            lane.buffered_since_ms = now_ms;
        }
        let before = lane.buffer.memory_bytes();
        lane.buffer.push(
            self.settings.connector.format,
            &self.settings.topic,
            self.settings.topic_seed,
            record,
            time_ms,
        );
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
    pub(super) fn opened_at_ms(&self, record: &Record<'_>, now_ms: i64) -> i64 {
        let replayed = self.replay_until.get(&record.partition).is_some_and(|&end| record.offset < end);
        match self.state.lows.get(&record.partition) {
            Some(low) if replayed => {
                self.spooled.read_before.get(&record.partition).map_or(low.since_ms, |at| *at).min(now_ms)
            }
            _ => now_ms,
        }
    }

    pub(super) fn cut_open(&mut self, file: FileId) {
        let Some(lane) = self.lanes.get_mut(file) else { return };
        if lane.buffer.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut lane.buffer);
        let sequence = lane.frames.cut;
        lane.frames.cut += 1;
        lane.frames.raw_in_flight += buffer.len() as u64;
        let partitions = self.spooled.cut(file, sequence, &buffer);
        let after = self.files.unlogged_ends(&lane.lane);
        let note = Some(Box::new(spooled::note(lane, &partitions, after, &self.epochs)));
        self.lanes.recount(file);
        self.counters.bytes_raw += buffer.len() as u64;
        self.actions.push(Action::Compress { file, sequence, buffer, note });
    }

    pub(super) fn cut_closed(&mut self, file: FileId, buffer: FrameBuffer) {
        if buffer.is_empty() {
            return;
        }
        let raw_len = buffer.len() as u64;
        let sequence = self.files.change(file, |closed| {
            closed.frames.cut += 1;
            closed.frames.raw_in_flight += raw_len;
            closed.frames.cut - 1
        });
        if let Some(sequence) = sequence {
            self.counters.bytes_raw += raw_len;
            self.actions.push(Action::Compress { file, sequence, buffer, note: None });
        }
    }

    pub(super) fn ratio(&self) -> f64 {
        // Nothing measured yet: logs rarely shrink to less than a twentieth.
        if self.raw_total == 0 { 0.05 } else { self.stored_total as f64 / self.raw_total as f64 }
    }

    pub(super) fn seal_if_full(&mut self, file: FileId, now_ms: i64) {
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
    pub(super) fn seal(&mut self, file: FileId, now_ms: i64) {
        self.cut_open(file);
        let Some(lane) = self.lanes.close(file) else { return };
        let OpenLane { lane, opener, ranges, frames, .. } = lane;
        let key = self.settings.key(&lane, &opener, self.state.identity.incarnation);
        let intent = Intent::new(key, lane, ranges.into_map(), self.settings.record.hash.clone());
        let mut closed = File::new(intent, Stage::Sealed);
        closed.frames = frames;
        self.files.insert(file, closed);
        self.will_log(file, now_ms);
    }

    /// Rebuilds whose last record was read.
    ///
    /// # Errors
    /// One differs from what was decided, and nobody accepted that.
    pub(super) fn complete_rebuilds(&mut self, now_ms: i64) -> Result<(), CoreError> {
        let complete: Vec<IntentId> = self
            .rebuilds
            .iter()
            .filter(|(_, rebuild)| self.files.get(rebuild.file).is_some_and(|file| self.is_past(&file.intent)))
            .map(|(id, _)| id.clone())
            .collect();
        for id in complete {
            let Some(rebuild) = self.rebuilds.remove(&id) else { continue };
            let Rebuild { file, buffer, ranges, opener } = rebuild;
            self.cut_closed(file, buffer);
            self.files.change(file, |closed| closed.complete = true);
            let Some(closed) = self.files.get(file) else { continue };
            match self.settings.check_rebuild(&closed.intent, &ranges) {
                Ok(()) => self.finish_if_stored(file),
                Err(differs) if self.state.short.contains_key(&id) || (self.compacted && differs.is_less()) => {
                    self.actions.push(Action::Accepted(differs));
                    self.replace(file, ranges, opener, now_ms);
                }
                Err(differs) => return Err(CoreError::RebuildDiffers(differs)),
            }
        }
        Ok(())
    }

    /// Decides anew what a file holds: what is left of its records.
    fn replace(&mut self, file: FileId, ranges: Ranges, opener: Option<Opener>, now_ms: i64) {
        let Some(mut closed) = self.files.remove(file) else { return };
        closed.replaces = Some(closed.intent.id.clone());
        let skipped = std::mem::take(&mut closed.intent.skipped);
        closed.stage = Stage::Sealed;
        let lane = closed.intent.lane.clone();
        let ranges = ranges.into_map();
        if let Some(opener) = opener {
            let key = self.settings.key(&lane, &opener, self.state.identity.incarnation);
            closed.intent = Intent::new(key, lane, ranges, self.settings.record.hash.clone()).with_skipped(skipped);
        } else {
            closed.intent.ranges.clear();
        }
        self.files.insert(file, closed);
        self.will_log(file, now_ms);
    }

    fn will_log(&mut self, file: FileId, now_ms: i64) {
        if self.unlogged.is_empty() {
            self.unlogged_since_ms = now_ms;
        }
        self.unlogged.push(file);
    }

    pub(super) fn is_past(&self, intent: &Intent) -> bool {
        let mut spans = intent.ranges.keys().filter_map(|&p| Some((p, self.state.span(intent, p)?.1)));
        spans.all(|(partition, last)| self.position(partition) > last)
    }
}
