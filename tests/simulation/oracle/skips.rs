//! Whether each offset that is in no object is told of once, by an object or by a log, with the right reason.
//!
//! Owns: the sums of what is told. Does not own: which records are to be archived.

use std::collections::BTreeMap;
use std::ops::Range;

use sluice::archive::codec::Codec;
use sluice::archive::digest::{offset_hash, topic_seed};
use sluice::archive::index::{self, SkipReason, Skipped};
use sluice::ledger::{Intent, State};

use super::objects::index_of;
use super::{Oracle, is_data};
use crate::kafka::{TOPIC, Topic, Want};
use crate::store::Object;
use crate::workers::TOPIC_FOLDER;
use crate::world::World;

impl Oracle {
    /// Kafka lost nothing, and one rule held all along: which offsets are left out, and why, follows from what was produced.
    fn judges_skips(&self, topic: &Topic) -> bool {
        self.skips_bad.is_some() && topic.generation == 0 && topic.lost.is_empty() && !self.loss_accepted
    }

    /// Each offset within `range` that is to be in no object is told, with the right reason, and no other.
    pub(super) fn check_skipped<'a>(
        &self,
        world: &World,
        topic: &Topic,
        partition: i32,
        range: Range<i64>,
        told: impl Iterator<Item = &'a Skipped>,
    ) {
        if !self.judges_skips(topic) {
            return;
        }
        let (seed, mut left) = (topic_seed(TOPIC), BTreeMap::<SkipReason, (u64, u128)>::new());
        let mut add = |reason, count: u64, sum: u128| {
            let total = left.entry(reason).or_default();
            *total = (total.0.wrapping_add(count), total.1.wrapping_add(sum));
        };
        for at in range.clone() {
            let reason = match self.wanted(topic, partition, at) {
                Some((Want::Must | Want::Maybe, _)) => continue,
                Some((Want::Never, _)) => SkipReason::Rule,
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

    /// What the newest mapping holds for tasks that have not begun.
    fn handed_on(&self) -> Vec<Skipped> {
        let Some((number, mapping)) = self.mappings.last_key_value() else { return Vec::new() };
        let has_begun = |skipped: &Skipped| {
            let share = skipped.partition as u32 % mapping.tasks_max;
            self.log(&format!("{TOPIC_FOLDER}{number}/{share}")).is_some_and(State::is_started)
        };
        let all = mapping.origin.as_ref().map_or(&[][..], |origin| &origin.skipped);
        all.iter().filter(|skipped| !has_begun(skipped)).copied().collect()
    }

    /// All that was skipped below low is told by an object, or by the log for the next one. A log that has ended handed what it
    /// told on to the next mapping, once that is made.
    pub(super) fn check_all_skipped(&self, world: &World, topic: &Topic, objects: &BTreeMap<String, Object>) {
        let handed_on = |next: u32| self.mappings.contains_key(&next);
        let logs: Vec<_> = self.logs.values().filter(|log| !log.state.closed.is_some_and(handed_on)).collect();
        let pending: Vec<&Intent> = logs.iter().flat_map(|log| log.state.intents.values()).map(|p| &p.intent).collect();
        let mut told: Vec<Skipped> = logs.iter().flat_map(|log| log.state.skips.as_slice()).copied().collect();
        told.extend(pending.iter().flat_map(|intent| &intent.skipped));
        told.extend(self.handed_on());
        let done = |key: &str| !pending.iter().any(|intent| intent.key == key);
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
            let Some(low) = self.low(number) else { continue };
            let from = partition.baseline.unwrap_or(low);
            let told = told.iter().filter(|skipped| skipped.partition == number);
            self.check_skipped(world, topic, number, from..low, told);
        }
    }
}
