//! Where the sums do not fit: which offsets are missing or there twice, and in which objects.
//!
//! Owns: looking at each offset of the suspect partitions, window by window, by the frames' record tables.
//! Does not own: why an offset is missing ([`super::explain`]).
//!
//! Every window takes a walk over all indexes and the record tables of the frames that touch it. Where there are many windows a
//! walk before tells by counts which of them are worth it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures::stream::TryStreamExt;

use super::count::{PARALLEL, Subject, of_one_file, open, partitions};
use super::coverage::{Coverage, Span, windows};
use super::logs::TopicLogs;
use super::object::{self, Kind};
use super::report::Finding;
use super::skips::{Told, told_by};
use super::tables::for_each_table;
use crate::archive::digest::offset_hash;
use crate::archive::index::{FrameEntry, Index};
use crate::reading::ReadError;
use crate::reading::catalog;
use crate::reading::file::OpenFile;
use crate::reading::times::Times;

/// Ranges of scattered offsets that are kept; those of more stay unexplained unless Kafka explains them.
const MAX_SCATTERED: usize = 200_000;
/// Offsets there twice whose objects are named.
const MAX_NAMED: usize = 65_536;

/// The windows of the suspect partitions.
pub fn windows_of(logs: &TopicLogs, suspects: &[i32], most: u64) -> Vec<Vec<Span>> {
    let spans = suspects.iter().filter_map(|partition| Some((*partition, logs.scope.partitions.get(partition)?)));
    let runs = spans.flat_map(|(partition, extent)| {
        extent.runs().into_iter().map(move |(first, end)| Span { partition, first, end })
    });
    windows(runs, most)
}

/// Those windows in which there are more or fewer offsets than there should be; all, where there are few.
///
/// # Errors
/// The store fails.
pub async fn narrow(
    subject: &Subject<'_>,
    logs: &TopicLogs,
    told: &[Told],
    all: Vec<Vec<Span>>,
) -> Result<Vec<Vec<Span>>, ReadError> {
    if all.len() <= 2 {
        return Ok(all);
    }
    let found = Mutex::new(Counts::new(&all));
    let count = |told: &Told| {
        let mut counts = found.lock().unwrap_or_else(PoisonError::into_inner);
        counts.tell(told);
    };
    told.iter().for_each(count);
    walk(subject, logs, |file, index| {
        let found = &found;
        async move {
            told_by(&index.facts).for_each(|told| count(&told));
            let incarnation = index.facts.incarnation;
            let whole = |frame: &FrameEntry| {
                let counts = found.lock().unwrap_or_else(PoisonError::into_inner);
                let scope = &logs.scope;
                frame.partitions.iter().all(|run| {
                    let place = scope.partitions.get(&run.partition).map(|e| e.place(incarnation, run.first, run.last));
                    matches!(place, None | Some(super::scope::Place::Outside))
                        || (place == Some(super::scope::Place::Within)
                            && !counts.crosses(run.partition, run.first, run.last))
                })
            };
            for frame in index.frames.iter().filter(|frame| whole(frame)) {
                let mut counts = found.lock().unwrap_or_else(PoisonError::into_inner);
                for run in
                    frame.partitions.iter().filter(|run| logs.scope.counts(incarnation, run.partition, run.first))
                {
                    counts.add(run.partition, run.first, run.count);
                }
            }
            for_each_table(
                subject.place,
                &file,
                &index,
                |frame| !whole(frame),
                |_, records| {
                    let mut counts = found.lock().unwrap_or_else(PoisonError::into_inner);
                    for record in records {
                        if logs.scope.counts(incarnation, record.partition, record.offset) {
                            counts.add(record.partition, record.offset, 1);
                        }
                    }
                },
            )
            .await
        }
    })
    .await?;
    let counts = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let bad = counts.bad();
    // Nothing wrong with any count: only looking at each offset tells.
    if bad.is_empty() {
        Ok(all)
    } else {
        Ok(all.into_iter().enumerate().filter(|(n, _)| bad.contains(n)).map(|(_, w)| w).collect())
    }
}

/// How many offsets of each window were found.
struct Counts {
    /// By partition, ascending: span, window, offsets found.
    spans: BTreeMap<i32, Vec<(Span, usize, u64)>>,
    suspicious: BTreeSet<usize>,
}

impl Counts {
    fn new(all: &[Vec<Span>]) -> Self {
        let mut spans: BTreeMap<i32, Vec<(Span, usize, u64)>> = BTreeMap::new();
        for (number, window) in all.iter().enumerate() {
            for &span in window {
                spans.entry(span.partition).or_default().push((span, number, 0));
            }
        }
        Self { spans, suspicious: BTreeSet::new() }
    }

    fn find(&self, partition: i32, offset: i64) -> Option<usize> {
        let spans = self.spans.get(&partition)?;
        let at = spans.partition_point(|(span, ..)| span.end <= offset);
        spans.get(at).filter(|(span, ..)| span.first <= offset).map(|_| at)
    }

    fn crosses(&self, partition: i32, first: i64, last: i64) -> bool {
        self.find(partition, first) != self.find(partition, last)
    }

    fn add(&mut self, partition: i32, offset: i64, count: u64) {
        let Some(at) = self.find(partition, offset) else { return };
        if let Some((_, _, found)) = self.spans.get_mut(&partition).and_then(|spans| spans.get_mut(at)) {
            *found += count;
        }
    }

    fn tell(&mut self, told: &Told) {
        if told.lost {
            return;
        }
        for (span, window, found) in self.spans.entry(told.partition).or_default() {
            let (first, end) = (told.first.max(span.first), told.last.saturating_add(1).min(span.end));
            if first >= end {
                continue;
            }
            match told.scattered {
                None => *found += end.abs_diff(first),
                Some((count, _)) if (first, end) == (told.first, told.last.saturating_add(1)) => *found += count,
                Some(_) => drop(self.suspicious.insert(*window)),
            }
        }
    }

    fn bad(&self) -> BTreeSet<usize> {
        let mut expected: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for (span, window, found) in self.spans.values().flatten() {
            let sums = expected.entry(*window).or_default();
            *sums = (sums.0 + span.len(), sums.1 + found);
        }
        let differ = expected.into_iter().filter(|(_, (len, found))| len != found).map(|(window, _)| window);
        differ.chain(self.suspicious.iter().copied()).collect()
    }
}

/// Looks at each offset of a window.
///
/// # Errors
/// The store fails.
pub async fn look(
    subject: &Subject<'_>,
    logs: &TopicLogs,
    told: &[Told],
    window: &[Span],
) -> Result<Coverage, ReadError> {
    let coverage = Mutex::new((Coverage::new(window), Vec::<Told>::new()));
    let tell = |told: &Told| {
        let (coverage, scattered) = &mut *coverage.lock().unwrap_or_else(PoisonError::into_inner);
        if told.lost || !coverage.touches(told.partition, told.first, told.last) {
            return;
        }
        match told.scattered {
            None => coverage.tell(told.partition, told.first, told.last),
            Some(_) if scattered.len() < MAX_SCATTERED && !scattered.contains(told) => scattered.push(*told),
            Some(_) => {}
        }
    };
    told.iter().for_each(tell);
    walk(subject, logs, |file, index| {
        let coverage = &coverage;
        async move {
            told_by(&index.facts).for_each(|told| tell(&told));
            let incarnation = index.facts.incarnation;
            let touches = |frame: &FrameEntry| {
                let coverage = coverage.lock().unwrap_or_else(PoisonError::into_inner);
                frame.partitions.iter().any(|run| coverage.0.touches(run.partition, run.first, run.last))
            };
            for_each_table(subject.place, &file, &index, touches, |_, records| {
                let mut coverage = coverage.lock().unwrap_or_else(PoisonError::into_inner);
                for record in records {
                    if logs.scope.counts(incarnation, record.partition, record.offset) {
                        coverage.0.found(record.partition, record.offset);
                    }
                }
            })
            .await
        }
    })
    .await?;
    let (mut coverage, scattered) = coverage.into_inner().unwrap_or_else(PoisonError::into_inner);
    tell_scattered(&mut coverage, logs.scope.seed(), scattered);
    Ok(coverage)
}

/// Scattered offsets are told by their number and sum: what is missing there is just them, or it is not.
fn tell_scattered(coverage: &mut Coverage, seed: u64, mut scattered: Vec<Told>) {
    scattered.sort_by_key(|told| (told.partition, told.first));
    let mut clusters: Vec<(i32, i64, i64, u64, u128)> = Vec::new();
    for told in scattered {
        let (count, sum) = told.scattered.unwrap_or_default();
        match clusters.last_mut() {
            Some((partition, _, last, counts, sums)) if *partition == told.partition && told.first <= *last => {
                *last = told.last.max(*last);
                *counts += count;
                *sums = sums.wrapping_add(sum);
            }
            _ => clusters.push((told.partition, told.first, told.last, count, sum)),
        }
    }
    for (partition, first, last, count, sum) in clusters {
        let within: Vec<Span> = coverage
            .missing()
            .filter(|run| run.partition == partition && run.first <= last && run.end > first)
            .map(|run| Span { first: run.first.max(first), end: run.end.min(last.saturating_add(1)), ..run })
            .collect();
        let found: u64 = within.iter().map(Span::len).sum();
        let offsets = within.iter().flat_map(|run| run.first..run.end);
        let found_sum = offsets.fold(0u128, |sum, offset| sum.wrapping_add(offset_hash(seed, partition, offset)));
        if (found, found_sum) == (count, sum) {
            within.iter().for_each(|run| coverage.tell(partition, run.first, run.end - 1));
        }
    }
}

/// Names the objects that hold the offsets which are there twice; `false`: not those of all of them.
///
/// # Errors
/// The store fails.
pub async fn name_overlaps(
    subject: &Subject<'_>,
    logs: &TopicLogs,
    coverage: &Coverage,
) -> Result<(Vec<Finding>, bool), ReadError> {
    let named: Mutex<BTreeMap<(i32, i64), BTreeSet<String>>> = Mutex::default();
    walk(subject, logs, |file, index| {
        let named = &named;
        async move {
            let incarnation = index.facts.incarnation;
            let touches = |frame: &FrameEntry| {
                frame.partitions.iter().any(|run| coverage.touches(run.partition, run.first, run.last))
            };
            for_each_table(subject.place, &file, &index, touches, |_, records| {
                let mut named = named.lock().unwrap_or_else(PoisonError::into_inner);
                for record in records {
                    let place = (record.partition, record.offset);
                    if !logs.scope.counts(incarnation, place.0, place.1) || !coverage.is_twice(place.0, place.1) {
                        continue;
                    }
                    if named.len() < MAX_NAMED || named.contains_key(&place) {
                        named.entry(place).or_default().insert(file.entry.key.clone());
                    }
                }
            })
            .await
        }
    })
    .await?;
    let named = named.into_inner().unwrap_or_else(PoisonError::into_inner);
    let all = named.len() < MAX_NAMED;
    let mut groups: BTreeMap<(i32, BTreeSet<String>), (u64, i64, i64)> = BTreeMap::new();
    for ((partition, offset), keys) in named {
        let group = groups.entry((partition, keys)).or_insert((0, offset, offset));
        *group = (group.0 + 1, group.1.min(offset), group.2.max(offset));
    }
    let topic = &logs.scope.topic;
    let finding = |((partition, keys), (offsets, first, last))| Finding::Overlap {
        topic: topic.clone(),
        partition,
        offsets,
        first,
        last,
        keys: BTreeSet::into_iter(keys).collect(),
    };
    Ok((groups.into_iter().map(finding).collect(), all))
}

/// Calls `each` for every object of the topic, several at the same time. What is wrong with one object was said before.
async fn walk<F>(
    subject: &Subject<'_>,
    logs: &TopicLogs,
    each: impl Fn(OpenFile, Box<Index>) -> F + Copy,
) -> Result<(), ReadError>
where
    F: Future<Output = Result<(), ReadError>>,
{
    let entries = catalog::files(subject.place, None, &Times::default());
    entries
        .try_for_each_concurrent(PARALLEL, |entry| async move {
            let Ok(file) = open(subject.place, &entry).await? else { return Ok(()) };
            let Some(index) = file.index.clone() else { return Ok(()) };
            if index.facts.topic != logs.scope.topic
                || object::kind(subject.connector, &logs.scope, &index.facts, partitions(&index)) != Kind::Present
            {
                return Ok(());
            }
            match each(file, index).await {
                Ok(()) => Ok(()),
                Err(error) => of_one_file(&entry, error).map(drop),
            }
        })
        .await
}
