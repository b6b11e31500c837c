//! The first pass: every object's index once, added up in memory that does not grow with their number.
//!
//! Owns: what one object adds, the order and the number of requests at a time, the checkpoint.
//! Does not own: what the sums mean ([`super::tally`]).

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::StreamExt;
use serde::{Deserialize, Serialize};

use super::logs::TopicLogs;
use super::object::{self, Kind};
use super::report::{Finding, Findings};
use super::scope::{Place as Lies, Scope};
use super::skips::told_by;
use super::tables::for_each_table;
use super::tally::Tally;
use crate::archive::index::Index;
use crate::reading::ReadError;
use crate::reading::catalog::{self, Entry};
use crate::reading::file::{self, OpenFile};
use crate::reading::place::Place;
use crate::reading::times::Times;

/// Objects that are looked at at the same time; each holds an index and the record table of one frame.
pub const PARALLEL: usize = 32;
/// Objects between two checkpoints.
const CHECKPOINT_EVERY: u64 = 1000;
/// Objects above low that wait for a second look at the log.
const MAX_UNDECIDED: usize = 10_000;

/// What is looked at.
#[derive(Debug)]
pub struct Subject<'a> {
    pub place: &'a Place,
    pub connector: &'a str,
    pub topics: &'a BTreeMap<String, TopicLogs>,
    /// Objects of other topics are passed over.
    pub only_topic: Option<&'a str>,
}

/// What was found up to a key; kept in the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counting {
    pub tallies: BTreeMap<String, Tally>,
    pub findings: Findings,
    /// Objects that reach low or lie above it, by topic.
    pub above_low: BTreeMap<String, u64>,
    /// Above low, and not decided by the log as it was read first: key, topic, intent.
    pub undecided: Vec<(String, String, String)>,
    /// Pending intents whose objects are there.
    pub pending: BTreeSet<String>,
    /// What objects tell as lost: topic, partition, first offset, the one after the last.
    pub lost: Vec<(String, i32, i64, i64)>,
    pub objects: u64,
    pub last_key: Option<String>,
}

/// What one object adds.
#[derive(Debug, Default)]
struct Added {
    topic: String,
    tally: Tally,
    finding: Option<Finding>,
    above_low: bool,
    undecided: Option<String>,
    pending: Option<String>,
    lost: Vec<(i32, i64, i64)>,
}

impl Counting {
    fn add(&mut self, key: String, added: Option<Added>) {
        self.objects += 1;
        if let Some(added) = added {
            let Added { topic, tally, finding, above_low, undecided, pending, lost } = added;
            self.pending.extend(pending);
            finding.into_iter().for_each(|finding| self.findings.push(finding));
            *self.above_low.entry(topic.clone()).or_default() += u64::from(above_low);
            if let Some(intent) = undecided
                && self.undecided.len() < MAX_UNDECIDED
            {
                self.undecided.push((key.clone(), topic.clone(), intent));
            }
            for (partition, first, end) in lost {
                if !self.lost.contains(&(topic.clone(), partition, first, end)) {
                    self.lost.push((topic.clone(), partition, first, end));
                }
            }
            if !topic.is_empty() {
                self.tallies.entry(topic).or_default().merge(&tally);
            }
        }
        self.last_key = Some(key);
    }
}

/// Looks at all objects behind `counting.last_key`. `checkpoint` is called now and then, in key order.
///
/// # Errors
/// The store fails.
pub async fn count(
    subject: &Subject<'_>,
    counting: &mut Counting,
    mut checkpoint: impl FnMut(&Counting),
) -> Result<(), ReadError> {
    let done = counting.last_key.clone();
    let entries = catalog::files(subject.place, None, &Times::default())
        .filter(|entry| {
            let new = entry.as_ref().map_or(true, |entry| done.as_ref().is_none_or(|done| entry.key > *done));
            std::future::ready(new)
        })
        .map(|entry| async move {
            let entry = entry?;
            let added = examine(subject, &entry).await?;
            Ok::<_, ReadError>((entry.key, added))
        })
        .buffered(PARALLEL);
    let mut entries = std::pin::pin!(entries);
    while let Some(found) = entries.next().await {
        let (key, added) = found?;
        counting.add(key, added);
        if counting.objects.is_multiple_of(CHECKPOINT_EVERY) {
            checkpoint(counting);
        }
    }
    checkpoint(counting);
    Ok(())
}

/// Opens an object; what is wrong with it alone is a finding.
///
/// # Errors
/// The store fails.
pub(super) async fn open(place: &Place, entry: &Entry) -> Result<Result<OpenFile, Option<Finding>>, ReadError> {
    match file::open(place, entry).await {
        Ok(file) => Ok(Ok(file)),
        Err(error) => of_one_file(entry, error).map(Err),
    }
}

/// What a failure says of one object; `None`: it is gone, so that what it held is missing.
///
/// # Errors
/// It is the store's.
pub(super) fn of_one_file(entry: &Entry, error: ReadError) -> Result<Option<Finding>, ReadError> {
    let key = entry.key.clone();
    match error {
        ReadError::Damaged { why, .. } | ReadError::Newer { why, .. } => Ok(Some(Finding::Damaged { key, why })),
        ReadError::Changed { .. } => {
            Ok(Some(Finding::Damaged { key, why: "it was written again while it was read".to_owned() }))
        }
        ReadError::Gone { .. } => Ok(None),
        error => Err(error),
    }
}

/// Whether the log has decided an object, or the object is gone by now.
///
/// # Errors
/// The store fails.
pub(super) async fn is_decided(subject: &Subject<'_>, topic: &str, key: &str) -> Result<bool, ReadError> {
    let entry = Entry { key: key.to_owned(), size: 0, parts: None };
    let Some(logs) = subject.topics.get(topic) else { return Ok(false) };
    let size = subject.place.store.head(key).await?.map(|head| head.size);
    let Some(size) = size else { return Ok(true) };
    let Ok(file) = open(subject.place, &Entry { size, ..entry }).await? else { return Ok(true) };
    let intent = file.index.as_ref().and_then(|index| object::intent_of(key, index).ok());
    Ok(intent.is_none_or(|intent| logs.known.has(&intent)))
}

async fn examine(subject: &Subject<'_>, entry: &Entry) -> Result<Option<Added>, ReadError> {
    let key = || entry.key.clone();
    let finding = |finding| Ok(Some(Added { finding: Some(finding), ..Added::default() }));
    let file = match open(subject.place, entry).await? {
        Ok(file) => file,
        Err(None) => return Ok(None),
        Err(Some(damage)) => return finding(damage),
    };
    let Some(index) = &file.index else {
        let why = "it has no index: another tool's, or its end is missing".to_owned();
        return finding(Finding::Foreign { key: key(), why });
    };
    let facts = &index.facts;
    if subject.only_topic.is_some_and(|only| only != facts.topic) {
        return Ok(None);
    }
    let Some(logs) = subject.topics.get(&facts.topic) else {
        let why = format!("it is of topic {}, of which this connector has no log", facts.topic);
        return finding(Finding::Foreign { key: key(), why });
    };
    match object::kind(subject.connector, &logs.scope, facts, partitions(index)) {
        Kind::Present => {}
        Kind::Earlier => return Ok(None),
        Kind::Foreign(why) => return finding(Finding::Foreign { key: key(), why }),
    }
    let intent = object::intent_of(&entry.key, index);
    let mut added = Added { topic: facts.topic.clone(), ..Added::default() };
    added.above_low = reaches_low(&logs.scope, index);
    match &intent {
        Ok(intent) if !logs.known.has(intent) && is_present(&logs.scope, index) => {
            added.undecided = Some(intent.id.0.clone());
        }
        Ok(_) => {}
        Err(why) => added.finding = Some(Finding::Misnamed { key: key(), why: why.clone() }),
    }
    // What an object tells that was decided since the log was read, the log tells as well.
    for told in told_by(facts).filter(|_| added.undecided.is_none()) {
        told.add_to(&logs.scope, &mut added.tally, &mut added.lost);
    }
    if logs.known.is_pending(&facts.intent_id) {
        added.pending = Some(facts.intent_id.clone());
    }
    let damage = add_records(subject.place, &file, index, &logs.scope, &mut added.tally).await;
    if let Err(error) = damage
        && let Some(damage) = of_one_file(entry, error)?
    {
        added.finding = Some(damage);
    }
    Ok(Some(added))
}

async fn add_records(
    place: &Place,
    file: &OpenFile,
    index: &Index,
    scope: &Scope,
    tally: &mut Tally,
) -> Result<(), ReadError> {
    let (incarnation, seed) = (index.facts.incarnation, scope.seed());
    for frame in &index.frames {
        for run in &frame.partitions {
            tally.partitions.entry(run.partition).or_default().know(run.first);
        }
        if scope.place(incarnation, &frame.partitions) == Lies::Within {
            tally.add_frame(frame.sum, &frame.partitions);
        }
    }
    if incarnation == scope.newest_incarnation() {
        for (&partition, &low) in &index.facts.lows {
            tally.partitions.entry(partition).or_default().know(low);
        }
    }
    let across =
        |frame: &crate::archive::index::FrameEntry| scope.place(incarnation, &frame.partitions) == Lies::Across;
    for_each_table(place, file, index, across, |_, records| {
        for record in records.iter().filter(|record| scope.counts(incarnation, record.partition, record.offset)) {
            tally.add_record(seed, record.partition, record.offset);
        }
    })
    .await
}

pub(super) fn partitions(index: &Index) -> impl Iterator<Item = i32> {
    index.facts.digests.keys().copied()
}

fn runs<'a>(
    scope: &'a Scope,
    index: &'a Index,
) -> impl Iterator<Item = (&'a crate::archive::frame::FramePartition, Option<&'a super::scope::Extent>)> {
    let runs = index.frames.iter().flat_map(|frame| &frame.partitions);
    runs.map(|run| (run, scope.partitions.get(&run.partition)))
}

fn reaches_low(scope: &Scope, index: &Index) -> bool {
    let incarnation = index.facts.incarnation;
    runs(scope, index)
        .any(|(run, extent)| extent.is_none_or(|extent| extent.incarnation == incarnation && run.last >= extent.low))
}

/// Whether the log must know the object where it lies above low.
fn is_present(scope: &Scope, index: &Index) -> bool {
    let incarnation = index.facts.incarnation;
    runs(scope, index).all(|(_, extent)| extent.is_none_or(|extent| extent.incarnation == incarnation))
}
