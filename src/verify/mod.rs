//! Proving an archive: each offset of each partition, from the first archived to low, is in exactly one object.
//!
//! ```text
//!  logs -> what is to be proven          objects' indexes -> count (sums)  -- equal --> proven
//!                                                              |  not equal
//!                                                              v
//!                     record tables -> each offset (windows of bits) -> Kafka: is there a record? -> gaps, overlaps
//! ```
//!
//! Owns: the order of these steps, the checkpoint of the first, the report. Does not own: reading the archive
//! ([`crate::reading`]), the logs.
//!
//! Memory: the sums of a partition; 32 indexes and record tables at a time; three bits for each offset of a window of 134 million
//! (48 MiB) where the sums do not fit. It does not grow with the number of objects.

pub mod coverage;
pub mod gaps;
pub mod object;
pub mod report;
pub mod scope;
pub mod tables;
pub mod tally;

mod against;
mod checkpoint;
mod count;
mod deep;
mod explain;
mod locate;
mod logs;
mod skips;
mod whole;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::{self, StreamExt};

pub use self::count::Counting;
use self::count::Subject;
use self::coverage::WINDOW_OFFSETS;
pub use self::explain::Witness;
use self::gaps::Gaps;
pub use self::logs::{Known, Logs, TopicLogs};
use self::report::{Cost, Finding, Findings, PartitionReport, Report, TopicReport};
use self::skips::Told;
use crate::clock::Environment;
use crate::reading::ReadError;
use crate::reading::counted::Counters;
use crate::reading::place::Place;
use crate::task::TaskError;

/// How often objects may tell of more that was accepted as lost: each time they are counted again without it.
const MAX_RECOUNTS: usize = 4;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub topic: Option<String>,
    /// Goes on from here, and keeps here how far it came; deleted when there is an answer.
    pub resume: Option<PathBuf>,
    /// Reads every byte.
    pub deep: bool,
    /// Compares with what Kafka still has.
    pub against_kafka: bool,
    /// Offsets that are looked at together; `None`: [`WINDOW_OFFSETS`].
    pub window_offsets: Option<u64>,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Log(#[from] TaskError),
    #[error("{0}")]
    Usage(String),
    #[error("comparing with Kafka: {0}")]
    Kafka(String),
    #[error("the sum over all offsets was not finished: {0}")]
    Sum(String),
}

/// How far a long step is; shown on a terminal.
pub trait Progress: Send + Sync {
    /// A step begins; `len`: how much there is to do, where that is known.
    fn step(&self, what: &str, len: Option<u64>);
    fn advance(&self, done: u64);
}

/// Says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
}

/// What is verified, and who is asked.
pub struct Verifier {
    pub place: Place,
    pub logs: Logs,
    /// `None`: Kafka can't be reached, or is not to be asked.
    pub witness: Option<Witness>,
    pub environment: Environment,
    pub progress: Arc<dyn Progress>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("place", &self.place).field("logs", &self.logs).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Verifies the connector's topics.
    ///
    /// # Errors
    /// The store or a log can't be read: nothing is proven or disproven.
    pub async fn run(&self, options: &Options) -> Result<Report, VerifyError> {
        let started_ms = self.environment.clock.now_ms();
        let mut topics = self.topics(options.topic.as_deref()).await?;
        let mut counting = Counting::default();
        if let Some(path) = &options.resume
            && let Some(kept) = checkpoint::load(path, &self.logs.connector, options.topic.as_deref())?
        {
            // Low has moved since; what was counted was counted up to the old one.
            for (topic, logs) in &mut topics {
                if let Some(scope) = kept.scopes.get(topic) {
                    logs.scope = scope.clone();
                }
            }
            topics.retain(|topic, _| kept.scopes.contains_key(topic));
            counting = kept.counting;
        }
        self.count(options, &mut topics, &mut counting).await?;
        self.ask_again(options, &mut counting).await?;
        let mut report = Report {
            connector: self.logs.connector.clone(),
            deep: options.deep || options.against_kafka,
            against_kafka: options.against_kafka,
            ..Report::default()
        };
        let mut findings = std::mem::take(&mut counting.findings);
        for (topic, logs) in &mut topics {
            let found = self.prove(options, topic, logs, &counting, &mut findings, &mut report.notes).await?;
            report.topics.push(found);
        }
        if options.deep || options.against_kafka {
            let found = std::sync::Mutex::new(findings);
            if options.against_kafka {
                self.against_kafka(&topics, counting.objects, &found, &mut report).await?;
            } else {
                self.deep(&topics, counting.objects, &found).await?;
            }
            findings = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if topics.is_empty() {
            report.notes.push(match counting.objects {
                0 => "nothing was archived yet".to_owned(),
                _ => "no log says what was archived: if logs were lost, `sluice recover` rebuilds them".to_owned(),
            });
        }
        report.proven = report.topics.iter().all(|topic| topic.proven) && findings.is_empty();
        findings.listed.sort();
        (report.findings, report.findings_left_out) = (findings.listed, findings.left_out);
        if let Some(path) = &options.resume {
            checkpoint::done(path)?;
        }
        let counters = &self.place.counters;
        report.cost = Cost {
            objects: counting.objects,
            requests: Counters::get(&counters.gets),
            listings: Counters::get(&counters.lists),
            fetched_bytes: Counters::get(&counters.fetched_bytes),
            milliseconds: self.environment.clock.now_ms().abs_diff(started_ms),
        };
        Ok(report)
    }

    async fn topics(&self, only: Option<&str>) -> Result<BTreeMap<String, TopicLogs>, VerifyError> {
        let mut topics = BTreeMap::new();
        for topic in self.logs.topics().await? {
            if only.is_none_or(|only| only == topic)
                && let Some(logs) = self.logs.read(&topic).await?
            {
                topics.insert(topic, logs);
            }
        }
        match only {
            Some(only) if topics.is_empty() => {
                Err(VerifyError::Usage(format!("connector {} has no log of topic {only}", self.logs.connector)))
            }
            _ => Ok(topics),
        }
    }

    fn subject<'a>(&'a self, topics: &'a BTreeMap<String, TopicLogs>, only_topic: Option<&'a str>) -> Subject<'a> {
        Subject { place: &self.place, connector: &self.logs.connector, topics, only_topic }
    }

    /// The first pass; once more where objects tell of offsets that somebody accepted as lost, which are not counted.
    async fn count(
        &self,
        options: &Options,
        topics: &mut BTreeMap<String, TopicLogs>,
        counting: &mut Counting,
    ) -> Result<(), VerifyError> {
        for _ in 0..MAX_RECOUNTS {
            self.progress.step("objects", None);
            let mut seen = counting.objects;
            let subject = self.subject(topics, options.topic.as_deref());
            let mut trouble = None;
            count::count(&subject, counting, |counting| {
                self.progress.advance(counting.objects - seen);
                seen = counting.objects;
                if let Some(path) = &options.resume
                    && let Err(error) = checkpoint::keep(path, subject.connector, subject.only_topic, topics, counting)
                {
                    trouble = Some(error);
                }
            })
            .await?;
            if let Some(error) = trouble {
                return Err(error);
            }
            let mut news = false;
            for (topic, partition, first, end) in &counting.lost {
                let extent = topics.get_mut(topic).and_then(|logs| logs.scope.partitions.get_mut(partition));
                news |= extent.is_some_and(|extent| extent.lose(*first, *end));
            }
            if !news {
                break;
            }
            *counting = Counting::default();
        }
        Ok(())
    }

    /// Objects above low that the log did not know: it may have decided them since it was read.
    async fn ask_again(&self, options: &Options, counting: &mut Counting) -> Result<(), VerifyError> {
        if counting.undecided.is_empty() {
            return Ok(());
        }
        let topics = self.topics(options.topic.as_deref()).await?;
        let subject = self.subject(&topics, options.topic.as_deref());
        let suspects = std::mem::take(&mut counting.undecided);
        let asked = stream::iter(suspects)
            .map(|(key, topic, intent_id)| {
                let subject = &subject;
                async move {
                    let known = count::is_decided(subject, &topic, &key).await?;
                    Ok::<_, ReadError>((!known).then_some(Finding::Undecided { key, topic, intent_id }))
                }
            })
            .buffered(count::PARALLEL);
        let mut asked = std::pin::pin!(asked);
        while let Some(finding) = asked.next().await {
            finding?.into_iter().for_each(|finding| counting.findings.push(finding));
        }
        Ok(())
    }

    async fn prove(
        &self,
        options: &Options,
        topic: &str,
        logs: &mut TopicLogs,
        counting: &Counting,
        findings: &mut Findings,
        notes: &mut Vec<String>,
    ) -> Result<TopicReport, VerifyError> {
        let mut tally = counting.tallies.get(topic).cloned().unwrap_or_default();
        for (partition, extent) in &mut logs.scope.partitions {
            if extent.start.is_none() {
                let lowest = tally.partitions.get(partition).and_then(|count| count.lowest);
                extent.start = Some(lowest.unwrap_or(extent.low).min(extent.low));
            }
        }
        let told = told_by_log(logs, counting);
        for told in &told {
            told.add_to(&logs.scope, &mut tally, &mut Vec::new());
        }
        self.progress.step("offsets", Some(logs.scope.offsets()));
        let (scope, progress) = (logs.scope.clone(), Arc::clone(&self.progress));
        let expected = tokio::task::spawn_blocking(move || tally::expected_sum(&scope, &|done| progress.advance(done)));
        let expected = expected.await.map_err(|error| VerifyError::Sum(error.to_string()))?;
        let suspects = tally.suspects(&logs.scope, expected);
        let mut report = TopicReport {
            topic: topic.to_owned(),
            incarnation: logs.scope.newest_incarnation(),
            proven: suspects.is_empty(),
            objects_above_low: counting.above_low.get(topic).copied().unwrap_or_default(),
            ..TopicReport::default()
        };
        for (&partition, extent) in &logs.scope.partitions {
            let count = tally.partitions.get(&partition).copied().unwrap_or_default();
            let start = extent.start.unwrap_or(extent.low);
            report.partitions.insert(
                partition,
                PartitionReport {
                    start,
                    low: extent.low,
                    records: count.records,
                    skipped: count.skipped,
                    lost: extent.low.abs_diff(start) - extent.offsets(),
                    ..PartitionReport::default()
                },
            );
        }
        if !suspects.is_empty() {
            self.locate(options, (logs, &told), &suspects, &mut report, findings, notes).await?;
        }
        Ok(report)
    }

    /// Finds out what does not fit.
    async fn locate(
        &self,
        options: &Options,
        (logs, told): (&TopicLogs, &[Told]),
        suspects: &[i32],
        report: &mut TopicReport,
        findings: &mut Findings,
        notes: &mut Vec<String>,
    ) -> Result<(), VerifyError> {
        let topics = BTreeMap::new();
        let subject = self.subject(&topics, None);
        let topic = logs.scope.topic.as_str();
        let all = locate::windows_of(logs, suspects, options.window_offsets.unwrap_or(WINDOW_OFFSETS));
        let windows = locate::narrow(&subject, logs, told, all).await?;
        self.progress.step("windows", Some(windows.len() as u64));
        let mut gaps = Gaps::default();
        let (mut overlaps, mut holes) = (Vec::new(), 0);
        for window in windows {
            let mut coverage = locate::look(&subject, logs, told, &window).await?;
            if coverage.has_twice() {
                let (named, all) = locate::name_overlaps(&subject, logs, &coverage).await?;
                overlaps.extend(named);
                if !all {
                    notes.push(format!("topic {topic}: more offsets overlap than are told, in the same way or others"));
                }
            }
            for partition in coverage.missing_partitions() {
                let explained = self.explain(logs, partition, &mut coverage, notes).await;
                let (log_start, apps) = explained.as_ref().map_or((None, Default::default()), |explained| {
                    (Some(explained.log_start), explained.apps.clone())
                });
                gaps.add(&coverage, partition, log_start, &apps);
                let found = report.partitions.entry(partition).or_default();
                found.holes += explained.map_or(0, |explained| explained.holes);
                holes += found.holes;
                found.missing = gaps.offsets(partition);
            }
            self.progress.advance(1);
        }
        report.proven = gaps.is_empty() && overlaps.is_empty();
        if report.proven && holes == 0 {
            let why = "objects appeared or were deleted while it was looked at: verify again".to_owned();
            findings.push(Finding::Unsettled { topic: topic.to_owned(), why });
            report.proven = false;
        }
        if !gaps.is_empty() {
            for missing in self.missing_objects(logs, &gaps).await? {
                findings.push(missing);
            }
        }
        gaps.into_findings(topic).into_iter().chain(overlaps).for_each(|finding| findings.push(finding));
        Ok(())
    }

    async fn explain(
        &self,
        logs: &TopicLogs,
        partition: i32,
        coverage: &mut coverage::Coverage,
        notes: &mut Vec<String>,
    ) -> Option<explain::Explained> {
        let topic = &logs.scope.topic;
        let witness = self.witness.as_ref()?;
        match explain::explain(witness, topic, &logs.scope.identity, partition, coverage).await {
            Ok(explained) => Some(explained),
            Err(error) => {
                let note = format!("Kafka did not say why offsets are missing: {error}");
                if !notes.contains(&note) {
                    notes.push(note);
                }
                None
            }
        }
    }

    /// Objects that the log has decided lately, that were finished, and are not there, where offsets are missing.
    async fn missing_objects(&self, logs: &TopicLogs, gaps: &Gaps) -> Result<Vec<Finding>, VerifyError> {
        let topic = &logs.scope.topic;
        let decided = self.logs.decided(topic).await?;
        let suspects = decided.into_iter().filter(|intent| {
            let touches =
                |(&partition, range): (&i32, &crate::ledger::Range)| gaps.may_touch(partition, range.first, range.last);
            !logs.known.is_pending(&intent.id.0) && intent.ranges.iter().any(touches)
        });
        let asked = stream::iter(suspects)
            .map(|intent| async move {
                let head = self.place.store.head(&intent.key).await.map_err(ReadError::from)?;
                let (key, app) = (intent.key, intent.lane.app);
                Ok::<_, ReadError>(head.is_none().then(|| Finding::Missing { key, topic: topic.clone(), app }))
            })
            .buffered(count::PARALLEL);
        let mut asked = std::pin::pin!(asked);
        let mut missing: Vec<Finding> = Vec::new();
        while let Some(found) = asked.next().await {
            missing.extend(found?.filter(|found| !missing.contains(found)));
        }
        Ok(missing)
    }
}

/// What was left out and no object tells of.
fn told_by_log(logs: &TopicLogs, counting: &Counting) -> Vec<Told> {
    let untold = |(by, _): &&(Option<String>, Told)| by.as_ref().is_none_or(|by| !counting.pending.contains(by));
    logs.told.iter().filter(untold).map(|(_, told)| *told).collect()
}
