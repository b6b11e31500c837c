//! The passes that read every byte: `--deep` and `--against-kafka`.
//!
//! Owns: which objects are read whole, and what becomes of what they show. Does not own: the checks of one object
//! ([`super::deep`]), the comparison ([`super::against`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::TryStreamExt;

use super::against::{self, Print, Side, Single};
use super::count::{of_one_file, open, partitions};
use super::deep::{self, Sink};
use super::object::{self, Kind};
use super::report::{Finding, Findings, Report};
use super::scope::Scope;
use super::{TopicLogs, Verifier, VerifyError};
use crate::archive::format::Format;
use crate::archive::index::Index;
use crate::reading::ReadError;
use crate::reading::catalog;
use crate::reading::times::Times;

/// Objects that are read at the same time; each holds some megabytes.
const PARALLEL: usize = 8;
/// Stretches that differ from Kafka and are looked at one by one.
const MAX_STRETCHES: usize = 16;

/// Where Kafka begins, by partition.
type Begins = BTreeMap<i32, i64>;

/// What is done with an object.
enum What {
    PassOver,
    Read(Option<Sink>),
}

/// Adds the records of one object to those of all, at once when it was read.
struct Adding {
    side: Side,
    into: Arc<Mutex<Side>>,
}

impl Drop for Adding {
    fn drop(&mut self) {
        self.into.lock().unwrap_or_else(PoisonError::into_inner).merge(&self.side);
    }
}

impl Verifier {
    /// Reads every object whole.
    pub(super) async fn deep(
        &self,
        topics: &BTreeMap<String, TopicLogs>,
        objects: u64,
        findings: &Mutex<Findings>,
    ) -> Result<(), VerifyError> {
        self.progress.step("objects, every byte", Some(objects));
        Ok(self.each_whole(topics, findings, |_, _| What::Read(None)).await?)
    }

    /// Compares with what Kafka has, and reads every object whole for that.
    pub(super) async fn against_kafka(
        &self,
        topics: &BTreeMap<String, TopicLogs>,
        objects: u64,
        findings: &Mutex<Findings>,
        report: &mut Report,
    ) -> Result<(), VerifyError> {
        let witness = self.witness.as_ref().ok_or_else(|| VerifyError::Kafka("it can't be reached".to_owned()))?;
        let failed = |error: crate::pipeline::source::SourceError| VerifyError::Kafka(error.to_string());
        let mut kafka: BTreeMap<String, (Side, Begins)> = BTreeMap::new();
        for (topic, logs) in topics {
            self.progress.step("records of Kafka", Some(logs.scope.offsets()));
            let read = against::read_kafka(witness, &logs.scope, &|done| self.progress.advance(done)).await;
            kafka.insert(topic.clone(), read.map_err(failed)?);
        }
        self.progress.step("objects, every byte", Some(objects));
        let archive: BTreeMap<String, Arc<Mutex<Side>>> =
            topics.keys().map(|topic| (topic.clone(), Arc::default())).collect();
        self.each_whole(topics, findings, |_, index| {
            let topic = &index.facts.topic;
            let (Some(logs), Some((_, begins)), Some(into)) = (topics.get(topic), kafka.get(topic), archive.get(topic))
            else {
                return What::PassOver;
            };
            let adding = Adding { side: Side::default(), into: Arc::clone(into) };
            What::Read(Some(adding_sink(adding, logs.scope.clone(), begins.clone(), index.facts.incarnation)))
        })
        .await?;
        for (topic, (kafka, begins)) in &kafka {
            let Some(logs) = topics.get(topic) else { continue };
            let archive = archive.get(topic).map(|side| side.lock().unwrap_or_else(PoisonError::into_inner).clone());
            let archive = archive.unwrap_or_default();
            report.notes.push(compared(topic, logs, &archive, begins));
            let differs = archive.differs(kafka);
            if differs.len() > MAX_STRETCHES {
                report.notes.push(format!(
                    "topic {topic}: {} stretches of a million offsets differ from Kafka, {MAX_STRETCHES} were looked at",
                    differs.len()
                ));
            }
            for stretch in differs.into_iter().take(MAX_STRETCHES) {
                let from = begins.get(&stretch.0).copied().unwrap_or(stretch.1);
                let single = against::read_single(witness, &logs.scope, stretch, from).await.map_err(failed)?;
                self.compare_singly(topics, logs, single, findings).await?;
            }
        }
        Ok(())
    }

    async fn compare_singly(
        &self,
        topics: &BTreeMap<String, TopicLogs>,
        logs: &TopicLogs,
        single: Single,
        findings: &Mutex<Findings>,
    ) -> Result<(), VerifyError> {
        let touches = single.range();
        let single = Arc::new(Mutex::new(single));
        let differing: Arc<Mutex<Vec<Finding>>> = Arc::default();
        // What is damaged was said before.
        let said = Mutex::new(Findings::default());
        self.each_whole(topics, &said, |key, index| {
            let mut runs = index.frames.iter().flat_map(|frame| &frame.partitions);
            let (partition, first, end) = touches;
            if index.facts.topic != logs.scope.topic
                || !runs.any(|run| run.partition == partition && run.first < end && run.last >= first)
            {
                return What::PassOver;
            }
            let (single, differing, key) = (Arc::clone(&single), Arc::clone(&differing), key.to_owned());
            let (scope, incarnation) = (logs.scope.clone(), index.facts.incarnation);
            What::Read(Some(Box::new(move |record, format| {
                if record.partition != partition || !scope.counts(incarnation, partition, record.offset) {
                    return;
                }
                let print = Print::of_archived(record, format);
                let mut single = single.lock().unwrap_or_else(PoisonError::into_inner);
                let differs = single.compare(&scope.topic, &key, partition, record.offset, print);
                differing.lock().unwrap_or_else(PoisonError::into_inner).extend(differs);
            })))
        })
        .await?;
        let differing = std::mem::take(&mut *differing.lock().unwrap_or_else(PoisonError::into_inner));
        let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
        differing.into_iter().for_each(|finding| findings.push(finding));
        Ok(())
    }

    async fn each_whole(
        &self,
        topics: &BTreeMap<String, TopicLogs>,
        findings: &Mutex<Findings>,
        what: impl Fn(&str, &Index) -> What,
    ) -> Result<(), ReadError> {
        let what = &what;
        catalog::files(&self.place, None, &Times::default())
            .try_for_each_concurrent(PARALLEL, |entry| async move {
                self.progress.advance(1);
                // What can't be opened was said in the first pass.
                let Ok(file) = open(&self.place, &entry).await? else { return Ok(()) };
                let Some(index) = &file.index else { return Ok(()) };
                let Some(logs) = topics.get(&index.facts.topic) else { return Ok(()) };
                let connector = &self.logs.connector;
                if object::kind(connector, &logs.scope, &index.facts, partitions(index)) != Kind::Present {
                    return Ok(());
                }
                let What::Read(sink) = what(&entry.key, index) else { return Ok(()) };
                if let Err(error) = deep::read_whole(&self.place, &file, index, sink).await
                    && let Some(finding) = of_one_file(&entry, error)?
                {
                    findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
                }
                Ok(())
            })
            .await
    }
}

fn adding_sink(mut adding: Adding, scope: Scope, begins: Begins, incarnation: u32) -> Sink {
    Box::new(move |record, format| {
        let within = begins.get(&record.partition).is_some_and(|&begin| record.offset >= begin);
        if within && scope.counts(incarnation, record.partition, record.offset) {
            let print = Print::of_archived(record, format);
            adding.side.add(record.partition, record.offset, print, format == Format::Raw);
        }
    })
}

fn compared(topic: &str, logs: &TopicLogs, archive: &Side, begins: &Begins) -> String {
    let before: u64 = logs
        .scope
        .partitions
        .iter()
        .filter_map(|(partition, extent)| {
            let (start, begin) = (extent.start?, *begins.get(partition)?);
            Some(begin.min(extent.low).saturating_sub(start).max(0).unsigned_abs())
        })
        .sum();
    let mut note = format!("topic {topic}: {} records were compared with Kafka", archive.records());
    if archive.has_raw() {
        note += ", raw ones by offset, timestamp and value";
    }
    if before > 0 {
        note += &format!("; {before} offsets lie below what Kafka still has");
    }
    note
}
