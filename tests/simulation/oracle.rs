//! What must hold, judged from outside: by what landed in the store, never by what a worker says.
//!
//! Owns: the fold of the log as it landed, the records of each object, conservation at the end.
//! Does not own: how a history goes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sluice::archive::codec::{Codec, decode_frame};
use sluice::archive::digest::{offset_hash, topic_seed};
use sluice::archive::index::{self, Index, IndexRead, SkipReason, Skipped, read_index, read_record_table};
use sluice::ledger::encoding::Stored;
use sluice::ledger::{Entry, Intent, State};

use crate::kafka::{Produced, TOPIC, Topic};
use crate::store::Object;
use crate::workers::worker_id;
use crate::world::World;

/// Partition and offset.
pub type Place = (i32, i64);

#[derive(Debug, Default)]
pub struct Oracle {
    /// `on_error: skip`: bad records are in no object.
    pub skips_bad: bool,
    /// Every record is to be archived, not only those from where the first reader began.
    pub from_earliest: bool,
    /// Only conservation is judged: a mutated worker breaks other rules at once.
    pub only_conservation: bool,
    state: State,
    /// Bytes of each entry as it first landed; index is number - 1.
    entries: Vec<Bytes>,
    /// The highest number that clean-up deleted.
    cleaned_to: u64,
    decided: BTreeMap<String, (Intent, u32)>,
    archived: BTreeMap<Place, String>,
    /// Per key: intent and records of the first attempt to upload it, in the order that all attempts have.
    attempts: BTreeMap<String, (Option<String>, Vec<Place>)>,
}

pub fn is_log(key: &str) -> bool {
    key.starts_with("_sluice/")
}

fn number_of(entry: &str) -> Option<u64> {
    entry.rsplit('/').next().and_then(|name| name.parse().ok())
}

fn is_data(key: &str) -> bool {
    !is_log(key) && !index::is_sidecar(key)
}

impl Oracle {
    pub fn state(&self) -> &State {
        &self.state
    }

    /// A rule that conservation follows from.
    pub fn rule(&self, world: &World, what: String) {
        if !self.only_conservation {
            world.violation(what);
        }
    }

    /// Somebody tries to upload an object. Returns what is in it.
    pub fn on_attempt(&mut self, world: &World, key: &str, bytes: &Bytes, intent_id: Option<&str>) -> Arc<Vec<Place>> {
        if !is_data(key) {
            return Arc::default();
        }
        let decompress = world.rng().chance(3);
        let records = match records_of(key, bytes, decompress) {
            Ok(records) => Arc::new(records),
            Err(why) => {
                world.violation(format!("upload of {key}: {why}"));
                return Arc::default();
            }
        };
        let mut sorted = Vec::clone(&records);
        // Of a plain file every attempt has the same bytes.
        if index::codec_of_key(key) != Codec::None {
            sorted.sort_unstable();
        }
        let attempt = (intent_id.map(ToOwned::to_owned), sorted);
        match self.attempts.get(key) {
            Some(known) if *known != attempt => {
                self.rule(world, format!("{key} is uploaded with other records: {known:?}, then {attempt:?}"));
            }
            Some(_) => world.count("object uploaded again"),
            None => {
                self.attempts.insert(key.to_owned(), attempt);
            }
        }
        if intent_id.is_none_or(|id| !self.decided.contains_key(id)) {
            self.rule(world, format!("{key} is uploaded before the log holds its intent"));
        }
        records
    }

    /// Somebody was told that there is such an object.
    pub fn on_found(&self, world: &World, process: u32, key: &str) {
        let pending = self.state.intents.values().find(|pending| pending.intent.key == key);
        if let Some((_, sealer)) = pending.and_then(|pending| self.decided.get(&pending.intent.id.0))
            && *sealer != process
        {
            world.count("object of a predecessor found");
        }
    }

    /// Records from `first` to `next` reach a worker.
    pub fn on_fetched(&self, world: &World, partition: i32, first: i64, next: i64) {
        if self.archived.range((partition, first)..(partition, next)).next().is_some() {
            world.count("archived records read again");
        }
    }

    pub fn on_created(&mut self, world: &World, process: u32, key: &str, bytes: &Bytes, records: &[Place]) {
        if is_log(key) {
            self.on_entry(world, process, key, bytes);
        } else if is_data(key) {
            self.on_object(world, process, key, records);
        }
    }

    /// The key was taken.
    pub fn on_refused(&self, world: &World, key: &str, bytes: &Bytes, found: &Bytes) {
        if !is_log(key) {
            world.count(match (is_data(key), bytes == found) {
                (true, _) => "object met itself",
                (false, true) => "sidecar met itself",
                (false, false) => "sidecar met that of another attempt",
            });
            return;
        }
        let Some(number) = number_of(key) else { return };
        let (Ok(mine), Ok(other)) = (Stored::decode(number, bytes), Stored::decode(number, found)) else { return };
        world.count(match (mine.step == other.step, mine.entry.is_takeover()) {
            (true, _) => "entry met itself",
            (false, true) => "takeover met another's entry",
            (false, false) => "append met another's entry",
        });
        // What else was there is deleted.
        if mine.step != other.step && number < self.cleaned_to {
            world.count("late entry met a takeover below the cleaned ones");
        }
    }

    pub fn on_deleted(&mut self, world: &World, key: &str) {
        if is_log(key) {
            world.count("log entry cleaned");
            self.cleaned_to = self.cleaned_to.max(number_of(key).unwrap_or(0));
        } else {
            world.violation(format!("object {key} is deleted"));
        }
    }

    fn on_object(&mut self, world: &World, process: u32, key: &str, records: &[Place]) {
        let intent = self.attempts.get(key).and_then(|(intent, _)| intent.clone());
        if let Some((_, sealer)) = intent.and_then(|intent| self.decided.get(&intent))
            && *sealer != process
        {
            world.count("object rebuilt by a successor");
        }
        if self.state.owner.as_ref().is_some_and(|owner| owner.worker != worker_id(process)) {
            world.count("object finished by a former owner");
        }
        for &place in records {
            if let Some(other) = self.archived.insert(place, key.to_owned()) {
                world.violation(format!("record {place:?} is in {other} and in {key}"));
            }
        }
    }

    fn on_entry(&mut self, world: &World, process: u32, key: &str, bytes: &Bytes) {
        let Some(number) = number_of(key) else { return };
        let stored = match Stored::decode(number, bytes) {
            Ok(stored) => stored,
            Err(error) => return self.rule(world, format!("log entry {number}: {error}")),
        };
        world.trace(format_args!("{process} wrote {number}: {:?}", Short(&stored.entry)));
        if number <= self.state.tip {
            if self.entries.get(number as usize - 1) == Some(bytes) {
                world.count("old entry landed again on its cleaned number");
            } else if stored.entry.is_takeover() {
                world.count("takeover landed late on a cleaned number");
            } else {
                self.rule(world, format!("log entry {number} exists twice, with different content"));
            }
            return;
        }
        let before = self.state.lows.clone();
        if let Err(error) = self.state.apply(&stored) {
            return self.rule(world, format!("the log breaks: {error}"));
        }
        self.entries.push(bytes.clone());
        match &stored.entry {
            Entry::Commit(commit) => {
                for intent in &commit.seal {
                    self.decided.insert(intent.id.0.clone(), (intent.clone(), process));
                }
                for id in &commit.done {
                    let key = self.decided.get(&id.0).map(|(intent, _)| intent.key.clone());
                    if key.is_none_or(|key| !world.objects().by_key.contains_key(&key)) {
                        self.rule(world, format!("intent {id} is done, but its object is not in the store"));
                    }
                }
            }
            Entry::Takeover { .. } => {
                world.count("takeover");
                if !self.state.intents.is_empty() {
                    world.count("takeover with pending intents");
                }
                if self.cleaned_to > 0 {
                    world.count("takeover of a log that was cleaned");
                }
            }
            Entry::Snapshot { state } => {
                world.count("snapshot");
                if !state.intents.is_empty() {
                    world.count("snapshot with pending intents");
                }
            }
            Entry::Start { .. } => world.count("first start"),
            Entry::Partitions { .. } => world.count("new partitions"),
            Entry::Adopt { .. } => world.count("identity adopted"),
            Entry::Cut { .. } => world.count("settings cut"),
            Entry::Settings { .. } => world.count("settings changed"),
            Entry::Reset { .. } => world.count("offsets reset"),
            Entry::Closed { .. } => world.count("log closed"),
        }
        let topic = world.kafka();
        for (&partition, low) in &self.state.lows {
            let Some(old) = before.get(&partition) else { continue };
            if low.offset < old.offset {
                self.rule(world, format!("low of {partition} goes back from {} to {}", old.offset, low.offset));
            }
            let missing = (old.offset..low.offset)
                .find(|&at| self.is_expected(&topic, partition, at) && !self.archived.contains_key(&(partition, at)));
            if let Some(at) = missing {
                self.rule(world, format!("low of {partition} is {}, but {at} is in no object", low.offset));
            }
            if let Entry::Commit(commit) = &stored.entry {
                let told = commit.skipped.iter().filter(|skipped| skipped.partition == partition);
                self.check_skipped(world, &topic, partition, old.offset..low.offset, told);
            }
        }
    }

    /// Each offset within `range` that is to be in no object is told, with the right reason, and no other.
    fn check_skipped<'a>(
        &self,
        world: &World,
        topic: &Topic,
        partition: i32,
        range: Range<i64>,
        told: impl Iterator<Item = &'a Skipped>,
    ) {
        let (seed, mut left) = (topic_seed(TOPIC), BTreeMap::<SkipReason, (u64, u128)>::new());
        let mut add = |reason, count: u64, sum: u128| {
            let total = left.entry(reason).or_default();
            *total = (total.0.wrapping_add(count), total.1.wrapping_add(sum));
        };
        for at in range.clone().filter(|at| !self.is_expected(topic, partition, *at)) {
            let reason = match topic.partitions[partition as usize].records[at as usize] {
                Some(_) => SkipReason::Rule,
                None => SkipReason::Hole,
            };
            add(reason, 1, offset_hash(seed, partition, at));
        }
        for skipped in told {
            world.count(match skipped.scattered {
                Some(_) => "skipped offsets as a number and a sum",
                None => "skipped offsets as a range",
            });
            add(skipped.reason, skipped.count().wrapping_neg(), skipped.sum(seed).wrapping_neg());
        }
        if left.values().any(|total| *total != (0, 0)) {
            self.rule(world, format!("of partition {partition} {range:?} not all that is skipped is told: {left:?}"));
        }
    }

    /// All that was skipped below low is told by an object, or by the log for the next one.
    fn check_all_skipped(&self, world: &World, topic: &Topic, objects: &BTreeMap<String, Object>) {
        let mut told: Vec<Skipped> = self.state.skips.as_slice().to_vec();
        told.extend(self.state.intents.values().flat_map(|pending| &pending.intent.skipped));
        let done = |key: &str| !self.state.intents.values().any(|pending| pending.intent.key == key);
        for (key, object) in objects.iter().filter(|(key, _)| is_data(key) && done(key)) {
            let codec = index::codec_of_key(key);
            let (sidecar, plain) = (index::sidecar_key(key), codec == Codec::None);
            let bytes = if plain { objects.get(&sidecar).map(|sidecar| &sidecar.bytes) } else { Some(&object.bytes) };
            match bytes.map(|bytes| index_of(codec, bytes)) {
                Some(Ok(index)) => {
                    if !index.facts.skipped.is_empty() {
                        world.count("object that tells of skipped offsets");
                    }
                    told.extend(index.facts.skipped);
                }
                other => self.rule(world, format!("no index of {key}: {other:?}")),
            }
        }
        for (number, partition) in (0..).zip(&topic.partitions) {
            let Some(low) = self.state.low(number) else { continue };
            let from = partition.baseline.unwrap_or(low);
            let told = told.iter().filter(|skipped| skipped.partition == number);
            self.check_skipped(world, topic, number, from..low, told);
        }
    }

    fn is_expected(&self, topic: &Topic, partition: i32, offset: i64) -> bool {
        let produced = topic.partitions[partition as usize].records.get(offset as usize).copied().flatten();
        produced.is_some_and(|Produced { bad, .. }| !(bad && self.skips_bad))
    }

    /// Every record from where reading began is in exactly one object, and nothing else is.
    pub fn check_conservation(&self, world: &World) {
        let topic = world.kafka();
        let objects = world.objects();
        let mut found: BTreeMap<Place, &str> = BTreeMap::new();
        for (key, object) in objects.by_key.iter().filter(|(key, _)| is_data(key)) {
            for place in object.records.iter() {
                if let Some(other) = found.insert(*place, key) {
                    world.violation(format!("record {place:?} is in {other} and in {key}"));
                }
            }
            if index::codec_of_key(key) == Codec::None && !sidecar_fits(key, &objects.by_key, &object.records) {
                self.rule(world, format!("the sidecar of {key} does not fit its data"));
            }
        }
        for (number, partition) in (0..).zip(&topic.partitions) {
            // From the latest on: nothing was promised before somebody read.
            let unread = self.state.low(number).unwrap_or(0);
            let from = if self.from_earliest { 0 } else { partition.baseline.unwrap_or(unread) };
            for at in 0..partition.records.len() as i64 {
                let is_there = found.remove(&(number, at)).is_some();
                if at >= from && !is_there && self.is_expected(&topic, number, at) {
                    world.violation(format!("record ({number}, {at}) is in no object"));
                } else if is_there && !self.is_expected(&topic, number, at) {
                    world.violation(format!("record ({number}, {at}) was to be left out"));
                }
            }
        }
        self.check_all_skipped(world, &topic, &objects.by_key);
        if let Some((place, key)) = found.first_key_value() {
            world.violation(format!("record {place:?} of {key} was never produced"));
        }
        if !self.archived.is_empty() {
            world.count("history that archived records");
        }
    }
}

/// Entries in a trace.
struct Short<'a>(&'a Entry);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Entry::Takeover { .. } => f.write_str("takeover"),
            Entry::Snapshot { .. } => f.write_str("snapshot"),
            Entry::Start { lows, .. } => write!(f, "start {lows:?}"),
            Entry::Partitions { lows, .. } => write!(f, "partitions {lows:?}"),
            Entry::Adopt { identity } => write!(f, "adopt {identity:?}"),
            Entry::Cut { offsets, .. } => write!(f, "cut {offsets:?}"),
            Entry::Settings { settings, .. } => write!(f, "settings {}", settings.hash),
            Entry::Reset { partitions, .. } => write!(f, "reset {partitions:?}"),
            Entry::Closed { next, .. } => write!(f, "closed for {next}"),
            Entry::Commit(commit) => {
                f.write_str("commit")?;
                for intent in &commit.seal {
                    let ranges: Vec<_> = intent.ranges.iter().map(|(p, r)| (*p, r.first, r.last, r.count)).collect();
                    write!(f, " seal {} {} {ranges:?}", &intent.id.0[..6], intent.key)?;
                }
                for id in &commit.done {
                    write!(f, " done {}", &id.0[..6])?;
                }
                let left_out: Vec<_> =
                    commit.skipped.iter().map(|s| (s.partition, s.first, s.last, s.reason, s.count())).collect();
                write!(f, " lows {:?} skipped {left_out:?}", commit.lows)
            }
        }
    }
}

fn index_of(codec: Codec, bytes: &[u8]) -> Result<Index, String> {
    match read_index(codec, bytes.len() as u64, bytes) {
        Ok(IndexRead::Index(index)) => Ok(*index),
        Ok(IndexRead::NeedMore { len }) => Err(format!("the index needs {len} bytes")),
        Err(error) => Err(error.to_string()),
    }
}

/// The records of an object, in file order: from its index, and now and then also from its lines, which must agree; plain
/// files have their index elsewhere.
pub fn records_of(key: &str, bytes: &[u8], decompress: bool) -> Result<Vec<Place>, String> {
    let codec = index::codec_of_key(key);
    let mut read = Vec::new();
    if codec == Codec::None {
        lines(bytes, &mut read)?;
        return Ok(read);
    }
    let index = index_of(codec, bytes)?;
    let told = told_by(&index, bytes)?;
    if decompress {
        for frame in &index.frames {
            let (start, end) = (frame.offset as usize, (frame.offset + frame.stored_len) as usize);
            let raw = decode_frame(codec, &bytes[start..end], frame.raw_len as usize).map_err(|e| e.to_string())?;
            lines(&raw, &mut read)?;
        }
        if told != read {
            return Err(format!("its index tells of {told:?}, it holds {read:?}"));
        }
    }
    Ok(told)
}

/// The records that the index of a file tells of.
fn told_by(index: &Index, bytes: &[u8]) -> Result<Vec<Place>, String> {
    let mut told = Vec::new();
    for frame in &index.frames {
        let ranges = index.table_ranges(frame);
        let stored: Vec<u8> =
            ranges.iter().flat_map(|range| bytes[range.start as usize..range.end as usize].iter().copied()).collect();
        let table = read_record_table(frame, &stored).map_err(|error| error.to_string())?;
        told.extend(table.iter().map(|entry| (entry.partition, entry.offset)));
    }
    Ok(told)
}

fn lines(raw: &[u8], places: &mut Vec<Place>) -> Result<(), String> {
    let text = std::str::from_utf8(raw).map_err(|error| error.to_string())?;
    for line in text.lines() {
        let place = line.split_once("at=").and_then(|(_, rest)| rest.split_once(';')).and_then(|(place, _)| {
            let (partition, offset) = place.split_once(':')?;
            Some((partition.parse().ok()?, offset.parse().ok()?))
        });
        places.push(place.ok_or_else(|| format!("a line that is no record: {line}"))?);
    }
    Ok(())
}

/// Whether the sidecar of a plain file tells of the records that are in it.
fn sidecar_fits(key: &str, all: &BTreeMap<String, Object>, records: &[Place]) -> bool {
    let sidecar = all.get(&index::sidecar_key(key));
    let told = sidecar.map(|sidecar| told_by(&index_of(Codec::None, &sidecar.bytes)?, &sidecar.bytes));
    told.is_some_and(|told| told.is_ok_and(|told| told == records))
}
