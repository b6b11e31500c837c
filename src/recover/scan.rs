//! What the objects of an archive tell of the log that decided them.
//!
//! Owns: which objects are taken for it, what is kept of them in memory. Does not own: what follows ([`super::plan`]).

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::StreamExt;
use serde::Serialize;

use crate::ledger::{Identity, Intent};
use crate::reading::ReadError;
use crate::reading::catalog::{self, Entry};
use crate::reading::file;
use crate::reading::place::Place;
use crate::reading::times::Times;
use crate::verify::Progress;
use crate::verify::object::intent_of;

/// Indexes that are read at the same time.
pub const PARALLEL: usize = 32;
/// Objects held before those that low has passed are let go of.
const PRUNE_AT: usize = 20_000;
/// Objects that are not taken and are named.
const MAX_NAMED: usize = 100;

/// An object that reaches above the lows known so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub intent: Intent,
    pub incarnation: u32,
    pub log_number: u64,
    pub size: u64,
}

/// An object that is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotTaken {
    pub key: String,
    pub why: String,
}

/// Least and greatest low that objects of an incarnation tell of a partition.
pub type Lows = BTreeMap<u32, BTreeMap<i32, (i64, i64)>>;

/// What was found of a topic.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub objects: u64,
    pub lows: Lows,
    /// The lowest offset that objects of an incarnation hold of a partition.
    pub firsts: BTreeMap<(u32, i32), i64>,
    /// Those that reach above the greatest lows.
    pub held: Vec<Held>,
    /// The highest entry that decided an object.
    pub log_number: u64,
    /// Of objects that are not taken: a later one must not meet them.
    pub other_incarnation: Option<u32>,
    prune_at: usize,
}

/// What was found of all topics.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    pub topics: BTreeMap<String, Found>,
    pub not_taken: Vec<NotTaken>,
    pub not_taken_left_out: u64,
}

impl Found {
    fn take(&mut self, held: Held, lows: &BTreeMap<i32, i64>) {
        self.objects += 1;
        self.log_number = self.log_number.max(held.log_number);
        let known = self.lows.entry(held.incarnation).or_default();
        for (&partition, &low) in lows {
            let (least, greatest) = known.entry(partition).or_insert((low, low));
            (*least, *greatest) = ((*least).min(low), (*greatest).max(low));
        }
        for (&partition, range) in &held.intent.ranges {
            let first = self.firsts.entry((held.incarnation, partition)).or_insert(range.first);
            *first = range.first.min(*first);
        }
        if self.reaches_above(&held) {
            self.held.push(held);
        }
        if self.held.len() >= self.prune_at.max(PRUNE_AT) {
            self.prune();
        }
    }

    /// Lets go of what low has passed. A later incarnation's low may be below an earlier one's, so that each has its own.
    pub fn prune(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.held = held.into_iter().filter(|held| self.reaches_above(held)).collect();
        self.prune_at = self.held.len() * 2;
    }

    fn reaches_above(&self, held: &Held) -> bool {
        let lows = self.lows.get(&held.incarnation);
        held.intent.ranges.iter().any(|(partition, range)| {
            lows.and_then(|lows| lows.get(partition)).is_none_or(|&(_, greatest)| range.last >= greatest)
        })
    }
}

impl Scan {
    fn leave(&mut self, key: String, why: String) {
        if self.not_taken.len() < MAX_NAMED {
            self.not_taken.push(NotTaken { key, why });
        } else {
            self.not_taken_left_out += 1;
        }
    }
}

/// One object, looked at.
enum Looked {
    Taken { topic: String, held: Box<Held>, lows: BTreeMap<i32, i64> },
    Left { key: String, why: String, of: Option<(String, u32)> },
    Gone,
}

/// Reads the index of every object. `identities`: the topics that are recovered, as Kafka has them.
///
/// # Errors
/// The store fails.
pub async fn scan(
    place: &Place,
    connector: &str,
    identities: &BTreeMap<String, Identity>,
    progress: &dyn Progress,
) -> Result<Scan, ReadError> {
    progress.step("objects", None);
    let mut scan = Scan::default();
    let looked = catalog::files(place, None, &Times::default())
        .map(|entry| async { look(place, connector, identities, &entry?).await })
        .buffered(PARALLEL);
    let mut looked = std::pin::pin!(looked);
    while let Some(object) = looked.next().await {
        progress.advance(1);
        match object? {
            Looked::Taken { topic, held, lows } => scan.topics.entry(topic).or_default().take(*held, &lows),
            Looked::Left { key, why, of } => {
                if let Some((topic, incarnation)) = of {
                    let found = scan.topics.entry(topic).or_default();
                    found.other_incarnation = found.other_incarnation.max(Some(incarnation));
                }
                scan.leave(key, why);
            }
            Looked::Gone => {}
        }
    }
    scan.topics.values_mut().for_each(Found::prune);
    Ok(scan)
}

async fn look(
    place: &Place,
    connector: &str,
    identities: &BTreeMap<String, Identity>,
    entry: &Entry,
) -> Result<Looked, ReadError> {
    let left = |why: String, of| Ok(Looked::Left { key: entry.key.clone(), why, of });
    let file = match file::open(place, entry).await {
        Ok(file) => file,
        Err(ReadError::Gone { .. }) => return Ok(Looked::Gone),
        Err(error @ ReadError::Store(_)) => return Err(error),
        Err(error) => return left(error.to_string(), None),
    };
    let Some(index) = file.index else { return left("it has no index of ours".to_owned(), None) };
    let facts = &index.facts;
    if facts.connector != connector {
        return left(format!("it is of connector {}", facts.connector), None);
    }
    let Some(identity) = identities.get(&facts.topic) else {
        return left(format!("it is of topic {}, which the connector or Kafka does not have", facts.topic), None);
    };
    let of = Some((facts.topic.clone(), facts.incarnation));
    let differs = |known: Option<&str>, found: Option<&str>| matches!((known, found), (Some(k), Some(f)) if k != f);
    if differs(identity.cluster_id.as_deref(), facts.cluster_id.as_deref()) {
        return left(format!("it is of cluster {}", facts.cluster_id.as_deref().unwrap_or_default()), of);
    }
    if differs(identity.topic_id.as_ref().map(|id| id.0.as_str()), facts.topic_id.as_deref()) {
        return left(format!("it is of topic id {}", facts.topic_id.as_deref().unwrap_or_default()), of);
    }
    match intent_of(&entry.key, &index) {
        Ok(intent) => {
            let (incarnation, log_number) = (facts.incarnation, facts.log_number);
            let held = Box::new(Held { intent, incarnation, log_number, size: entry.size });
            Ok(Looked::Taken { topic: facts.topic.clone(), held, lows: facts.lows.clone() })
        }
        Err(why) => left(why, None),
    }
}

impl Found {
    /// The incarnation under which archiving goes on.
    pub fn incarnation(&self) -> u32 {
        let newest = self.lows.keys().max().copied();
        match (newest, self.other_incarnation) {
            (Some(newest), Some(other)) if other > newest => other.saturating_add(1),
            (Some(newest), _) => newest,
            (None, other) => other.map_or(0, |other| other.saturating_add(1)),
        }
    }

    /// The incarnations whose objects count for a partition: the newest, and each before it that it went on from, and their
    /// lows. Where a partition was set back, or its log was truncated, what earlier incarnations hold is archived again.
    pub fn counting(&self, partition: i32) -> Option<(BTreeSet<u32>, i64, i64)> {
        let mut counting = BTreeSet::new();
        let mut bounds: Option<(i64, i64)> = None;
        for (&incarnation, lows) in self.lows.iter().rev() {
            let Some(&(least, greatest)) = lows.get(&partition) else { continue };
            match bounds {
                Some((floor, _)) if greatest > floor => break,
                Some((_, top)) => bounds = Some((least, top)),
                None => bounds = Some((least, greatest)),
            }
            counting.insert(incarnation);
        }
        let (least, greatest) = bounds?;
        let firsts = counting.iter().filter_map(|&incarnation| self.firsts.get(&(incarnation, partition)).copied());
        let begin = firsts.chain([least]).min().unwrap_or(least);
        Some((counting, begin, greatest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::digest::ContentDigest;
    use crate::ledger::{Lane, Range};

    fn held(incarnation: u32, first: i64, last: i64) -> Held {
        let range = Range { first, last, count: 1, digest: ContentDigest::default() };
        let lane = Lane { app: "a".to_owned(), bucket_start_secs: None };
        let intent = Intent::new(format!("{incarnation}/{first}"), lane, [(0, range)].into(), "s".to_owned());
        Held { intent, incarnation, log_number: last.unsigned_abs(), size: 1 }
    }

    #[test]
    fn only_what_reaches_above_low_is_held() {
        let mut found = Found::default();
        for n in 0..10 {
            found.take(held(0, n * 10, n * 10 + 9), &[(0, n * 10 - 5)].into());
        }
        found.prune();
        let firsts: Vec<i64> = found.held.iter().map(|held| held.intent.ranges[&0].first).collect();
        assert_eq!(firsts, [80, 90]);
        assert_eq!((found.objects, found.log_number, found.incarnation()), (10, 99, 0));
        assert_eq!(found.counting(0), Some(([0].into(), -5, 85)));
        assert_eq!(found.counting(1), None);
    }

    #[test]
    fn what_was_set_back_counts_no_more() {
        let mut found = Found::default();
        found.take(held(0, 0, 99), &[(0, 90), (1, 40)].into());
        found.take(held(1, 50, 59), &[(0, 50), (1, 40)].into());
        assert_eq!(found.counting(0), Some(([1].into(), 50, 50)));
        assert_eq!(found.counting(1), Some(([0, 1].into(), 40, 40)));
        found.other_incarnation = Some(1);
        assert_eq!(found.incarnation(), 1);
        found.other_incarnation = Some(2);
        assert_eq!(found.incarnation(), 3);
    }
}
