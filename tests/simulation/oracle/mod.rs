//! What must hold, judged from outside: by what landed in the store, never by what a worker says.
//!
//! Owns: which records are where, the rules between logs, mappings and objects, conservation at the end.
//! Does not own: how a history goes, the fold of one log ([`logs`]), the bytes of objects ([`objects`]), what is left out
//! ([`skips`]).

mod logs;
mod objects;
mod skips;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use sluice::archive::codec::Codec;
use sluice::archive::index;
use sluice::ledger::encoding::Stored;
use sluice::ledger::{Entry, Intent, State};
use sluice::worker::layout::Mapping;

use self::logs::{Landed, Log};
use crate::kafka::{Topic, Want};
use crate::workers::{LOG_PATH, TOPIC_FOLDER, worker_id};
use crate::world::World;

pub use self::objects::records_of;

/// Partition, offset, and the generation of Kafka's log: what is produced after a loss is another record at the same offset.
pub type Place = (i32, i64, u32);

/// A decision, as it landed.
#[derive(Debug)]
struct Decided {
    intent: Intent,
    by: u32,
    /// The log's folder.
    log: String,
}

#[derive(Debug, Default)]
pub struct Oracle {
    /// `on_error: skip`: bad records are in no object. `None`: it was changed on the way.
    pub skips_bad: Option<bool>,
    /// Every record is to be archived, not only those from where the first reader began.
    pub from_earliest: bool,
    /// Only conservation is judged: a mutated worker breaks other rules at once.
    pub only_conservation: bool,
    /// By their folders.
    logs: BTreeMap<String, Log>,
    mappings: BTreeMap<u32, Mapping>,
    /// By the mapping that follows: who ended logs for it.
    closers: BTreeMap<u32, BTreeSet<u32>>,
    decided: BTreeMap<String, Decided>,
    archived: BTreeMap<Place, String>,
    /// Per key: intent and records of the first attempt to upload it, in the order that all attempts have.
    attempts: BTreeMap<String, (Option<String>, Vec<Place>)>,
    /// Intents that another took the place of, under the same key: their records were gone before they were uploaded.
    replaced: BTreeSet<String>,
    /// From then on what is left out no longer follows from what was produced.
    loss_accepted: bool,
}

/// Everything that is no data: log entries, mappings, markers.
pub fn is_state(key: &str) -> bool {
    key.starts_with("_sluice/")
}

/// The folder of the log and the number of a log's entry.
pub fn entry_of(key: &str) -> Option<(&str, u64)> {
    let (folder, name) = key.rsplit_once('/').filter(|_| is_state(key))?;
    (name.len() == 20).then(|| Some((folder, name.parse().ok()?)))?
}

fn mapping_of(key: &str) -> Option<u32> {
    key.strip_prefix(TOPIC_FOLDER)?.strip_prefix("mapping-")?.parse().ok()
}

fn is_data(key: &str) -> bool {
    !is_state(key) && !index::is_sidecar(key)
}

impl Oracle {
    /// What a log says, if it has begun.
    pub fn log(&self, folder: &str) -> Option<&State> {
        self.logs.get(folder).map(|log| &log.state)
    }

    /// The log of a history that has one task and no mappings.
    pub fn state(&self) -> State {
        self.log(LOG_PATH).cloned().unwrap_or_default()
    }

    /// Below it everything of the partition is archived, or was left out by rule.
    pub fn low(&self, partition: i32) -> Option<i64> {
        self.logs.values().filter_map(|log| log.state.low(partition)).max()
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
        // Only the records themselves tell of which generation they are.
        let decompress = world.rng().chance(3) || world.kafka().generation > 0;
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
        let replaced = |(intent, _): &&(Option<String>, Vec<Place>)| {
            intent.as_ref().is_none_or(|intent| !self.replaced.contains(intent))
        };
        match self.attempts.get(key).filter(replaced) {
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
        let mut pending = self.logs.values().flat_map(|log| log.state.intents.values());
        let pending = pending.find(|pending| pending.intent.key == key);
        if let Some(Decided { by, .. }) = pending.and_then(|pending| self.decided.get(&pending.intent.id.0))
            && *by != process
        {
            world.count("object of a predecessor found");
        }
    }

    /// Records from `first` to `next` reach a worker.
    pub fn on_fetched(&self, world: &World, partition: i32, first: i64, next: i64) {
        if self.archived.range((partition, first, 0)..(partition, next, 0)).next().is_some() {
            world.count("archived records read again");
        }
    }

    pub fn on_created(&mut self, world: &World, process: u32, key: &str, bytes: &Bytes, records: &[Place]) {
        if let Some((folder, number)) = entry_of(key) {
            self.on_entry(world, process, folder, number, bytes);
        } else if let Some(number) = mapping_of(key) {
            self.on_mapping(world, process, number, bytes);
        } else if is_data(key) {
            self.on_object(world, process, key, records);
        }
    }

    /// The key was taken.
    pub fn on_refused(&self, world: &World, key: &str, bytes: &Bytes, found: &Bytes) {
        if !is_state(key) {
            world.count(match (is_data(key), bytes == found) {
                (true, _) => "object met itself",
                (false, true) => "sidecar met itself",
                (false, false) => "sidecar met that of another attempt",
            });
            return;
        }
        if mapping_of(key).is_some() {
            world.count("mapping met one that was there");
        }
        let Some((folder, number)) = entry_of(key) else { return };
        let (Ok(mine), Ok(other)) = (Stored::decode(number, bytes), Stored::decode(number, found)) else { return };
        let log = self.logs.get(folder);
        world.count(match (mine.step == other.step, mine.entry.is_takeover()) {
            (true, _) => "entry met itself",
            (false, true) => "takeover met another's entry",
            (false, false) if log.is_some_and(|log| log.state.closed.is_some()) => "append to a log that has ended",
            (false, false) => "append met another's entry",
        });
        // What else was there is deleted.
        if mine.step != other.step && log.is_some_and(|log| number < log.cleaned_to) {
            world.count("late entry met a takeover below the cleaned ones");
        }
    }

    pub fn on_deleted(&mut self, world: &World, key: &str) {
        match entry_of(key) {
            Some((folder, number)) => {
                world.count("log entry cleaned");
                if let Some(log) = self.logs.get_mut(folder) {
                    log.cleaned_to = log.cleaned_to.max(number);
                }
            }
            None if self.is_sidecar_without_data(world, key) => world.count("sidecar without its data removed"),
            None => world.violation(format!("object {key} is deleted")),
        }
    }

    /// Once a loss is accepted nobody needs it any more.
    fn is_sidecar_without_data(&self, world: &World, key: &str) -> bool {
        index::is_sidecar(key) && !world.objects().by_key.keys().any(|data| index::sidecar_key(data) == *key)
    }

    fn on_object(&mut self, world: &World, process: u32, key: &str, records: &[Place]) {
        let intent = self.attempts.get(key).and_then(|(intent, _)| intent.clone());
        if let Some(Decided { by, log, .. }) = intent.and_then(|intent| self.decided.get(&intent)) {
            if *by != process {
                let read_from = world.read_from();
                let is_read = |&(partition, offset, _): &Place| {
                    read_from.get(&(process, partition)).is_some_and(|&first| first <= offset)
                };
                world.count(if records.iter().all(is_read) {
                    "object rebuilt by a successor"
                } else {
                    "object finished from the spool of a predecessor"
                });
            }
            let owner = self.log(log).and_then(|state| state.owner.as_ref());
            if owner.is_some_and(|owner| owner.worker != worker_id(process)) {
                world.count("object finished by a former owner");
            }
        }
        for &place in records {
            if let Some(other) = self.archived.insert(place, key.to_owned()) {
                world.violation(format!("record {place:?} is in {other} and in {key}"));
            }
        }
    }

    fn on_entry(&mut self, world: &World, process: u32, folder: &str, number: u64, bytes: &Bytes) {
        let log = self.logs.entry(folder.to_owned()).or_default();
        let (entry, before) = match log.land(world, process, folder, number, bytes) {
            Landed::Next(entry, before) => (entry, before),
            Landed::Again(what) => return world.count(what),
            Landed::Broken(what) => return self.rule(world, what),
        };
        match &entry {
            Entry::Commit(commit) => {
                for intent in commit.seal.iter().chain(commit.replaced.iter().filter_map(|by| by.by.as_ref())) {
                    let decided = Decided { intent: intent.clone(), by: process, log: folder.to_owned() };
                    self.decided.insert(intent.id.0.clone(), decided);
                }
                self.replaced.extend(commit.replaced.iter().map(|replaced| replaced.id.0.clone()));
                for id in &commit.done {
                    let key = self.decided.get(&id.0).map(|decided| decided.intent.key.clone());
                    if key.is_none_or(|key| !world.objects().by_key.contains_key(&key)) {
                        self.rule(world, format!("intent {id} is done, but its object is not in the store"));
                    }
                }
            }
            Entry::Closed { next, .. } => {
                self.closers.entry(*next).or_default().insert(process);
            }
            // Somebody accepted that records are gone.
            Entry::Reset { .. } => {
                self.loss_accepted = true;
                return;
            }
            _ => {}
        }
        let topic = world.kafka();
        let Some(log) = self.logs.get(folder) else { return };
        for (&partition, low) in &log.state.lows {
            let Some(old) = before.get(&partition) else { continue };
            if low.offset < old.offset {
                self.rule(world, format!("low of {partition} goes back from {} to {}", old.offset, low.offset));
            }
            let missing = (old.offset..low.offset).find(|&at| {
                // What is produced after a loss its owner may not know of yet; the end of the history judges it.
                self.wanted(&topic, partition, at) == Some((Want::Must, 0))
                    && !self.archived.contains_key(&(partition, at, 0))
            });
            if let Some(at) = missing {
                self.rule(world, format!("low of {partition} is {}, but {at} is in no object", low.offset));
            }
            if let Entry::Commit(commit) = &entry {
                let told = commit.skipped.iter().filter(|skipped| skipped.partition == partition);
                self.check_skipped(world, &topic, partition, old.offset..low.offset, told);
            }
        }
    }

    /// A mapping begins where all logs of the one before have ended.
    fn on_mapping(&mut self, world: &World, process: u32, number: u32, bytes: &Bytes) {
        let mapping: Mapping = match serde_json::from_slice(bytes) {
            Ok(mapping) => mapping,
            Err(error) => return self.rule(world, format!("mapping {number}: {error}")),
        };
        world.trace(format_args!("{process} made mapping {number}: {mapping:?}"));
        if let Some(before) = self.mappings.get(&number.wrapping_sub(1)) {
            world.count("mapping changed");
            let mut ended = before.origin.as_ref().map(|origin| origin.lows.clone()).unwrap_or_default();
            for share in 0..before.tasks_max {
                let folder = format!("{TOPIC_FOLDER}{}/{share}", number - 1);
                match self.log(&folder) {
                    Some(state) if state.closed == Some(number) => {
                        ended.extend(state.lows.iter().map(|(&partition, low)| (partition, low.offset)));
                    }
                    _ => self.rule(world, format!("mapping {number} begins, but {folder} has not ended")),
                }
            }
            let begins = mapping.origin.as_ref().map(|origin| origin.lows.clone()).unwrap_or_default();
            if begins != ended {
                self.rule(world, format!("mapping {number} begins at {begins:?}, the one before ended at {ended:?}"));
            }
            if self.closers.get(&number).is_some_and(|closers| closers.iter().any(|closer| *closer != process)) {
                world.count("mapping change finished by another");
            }
        }
        self.mappings.insert(number, mapping);
    }

    /// Whether the record at an offset is to be in an object, and of which generation it is; `None`: there is none.
    fn wanted(&self, topic: &Topic, partition: i32, offset: i64) -> Option<(Want, u32)> {
        let produced = (*topic.partitions.get(partition as usize)?.records.get(offset as usize)?)?;
        Some((produced.wanted(self.skips_bad), produced.generation))
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
            if index::codec_of_key(key) == Codec::None && !objects::sidecar_fits(key, &objects.by_key, &object.records)
            {
                self.rule(world, format!("the sidecar of {key} does not fit its data"));
            }
        }
        for (number, partition) in (0..).zip(&topic.partitions) {
            // From the latest on: nothing was promised before somebody read.
            let unread = self.low(number).unwrap_or(0);
            let from = if self.from_earliest { 0 } else { partition.baseline.unwrap_or(unread) };
            for at in 0..partition.records.len() as i64 {
                let Some((want, generation)) = self.wanted(&topic, number, at) else { continue };
                let is_there = found.remove(&(number, at, generation)).is_some();
                if at >= from && !is_there && want == Want::Must {
                    world.violation(format!("record ({number}, {at}, {generation}) is in no object"));
                } else if is_there && want == Want::Never {
                    world.violation(format!("record ({number}, {at}, {generation}) was to be left out"));
                }
            }
        }
        self.check_all_skipped(world, &topic, &objects.by_key);
        // What Kafka lost may have been archived before.
        found.retain(|place, _| !topic.lost.contains(place));
        if let Some((place, key)) = found.first_key_value() {
            world.violation(format!("record {place:?} of {key} was never produced"));
        }
        if !self.archived.is_empty() {
            world.count("history that archived records");
        }
    }
}
