//! Rebuilding a task's log from the objects that it decided.
//!
//! ```text
//!  objects' indexes -> scan -> lows, objects above them -> record tables: how far low may go on
//!                                                       -> Kafka from low on: which decided objects are missing
//!                                                       -> state -> Takeover and Snapshot, behind what is left of the log
//! ```
//!
//! Owns: the order of these steps, which logs are written anew. Does not own: reading the archive ([`crate::reading`]), how a log
//! begins anew ([`crate::log::journal`]).
//!
//! What it can't know is in docs/verify.md: an upload that is still on its way was decided by a log that is lost. Workers are stopped
//! first.

pub mod plan;
pub mod report;
pub mod scan;

mod extend;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::plan::{Lanes, Slots, Start};
use self::report::{Action, PartitionReport, Report, TaskReport, TopicReport};
use self::scan::{Found, Scan};
use crate::clock::Environment;
use crate::config::{ConnectorConfig, OnError, TopicSelection};
use crate::kafka::stretch::{self, Stretch};
use crate::ledger::state::Owner;
use crate::ledger::{Entry, Identity, Intent, Lane, Low, Pending, State};
use crate::log::journal::{Journal, read_state};
use crate::log::store_log::StoreLog;
use crate::pipeline::event_time::EventTimes;
use crate::pipeline::lane::ReservedNames;
use crate::pipeline::source::{At, Kafka, SourceError};
use crate::pipeline::split::{App, Split, Splitter};
use crate::reading::ReadError;
use crate::reading::place::Place;
use crate::store::Store;
use crate::task::TaskError;
use crate::task::settings::TaskSettings;
use crate::verify::{Known, Progress};
use crate::worker::layout::{self, LayoutError, Mapping};

/// Where nothing of a log is left, so many of its next numbers are taken: a worker that still runs finds one of them taken at its
/// next entry, and stops.
const FENCE: u64 = 64;

/// Why nothing was recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error("{0}")]
    Refused(String),
}

impl From<SourceError> for RecoverError {
    fn from(error: SourceError) -> Self {
        Self::Task(error.into())
    }
}

impl From<LayoutError> for RecoverError {
    fn from(error: LayoutError) -> Self {
        Self::Task(error.into())
    }
}

/// What is recovered.
pub struct Recoverer {
    pub connector: Arc<ConnectorConfig>,
    pub place: Place,
    /// Where the data is, without the counting and the patience of a reader.
    pub store: Arc<dyn Store>,
    /// Where the logs are, if apart from the data.
    pub state: Option<Arc<dyn Store>>,
    pub kafka: Arc<dyn Kafka>,
    pub environment: Environment,
    /// Named in the Takeover.
    pub by: String,
    pub progress: Arc<dyn Progress>,
}

impl std::fmt::Debug for Recoverer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recoverer").field("connector", &self.connector.name).finish_non_exhaustive()
    }
}

/// A topic, and what its logs will say.
struct Topic<'a> {
    name: &'a str,
    found: &'a Found,
    identity: Identity,
    settings: TaskSettings,
    mapping: (u32, Mapping),
}

/// One task's log as it is.
enum Log {
    /// Nothing that can be gone on with.
    Lost(String),
    Whole(Box<State>),
}

impl Recoverer {
    fn logs(&self) -> &Arc<dyn Store> {
        self.state.as_ref().unwrap_or(&self.store)
    }

    /// Says what is lost and what would be written; with `execute` takes the tasks over and writes it.
    ///
    /// # Errors
    /// A service fails, or what is there must not be gone on with.
    pub async fn run(&self, execute: bool) -> Result<Report, RecoverError> {
        let cluster_id = self.kafka.cluster_id().await?;
        let identities = self.identities(cluster_id.as_ref()).await?;
        let Scan { topics, not_taken, not_taken_left_out } =
            scan::scan(&self.place, &self.connector.name, &identities, self.progress.as_ref()).await?;
        let mut report = Report {
            connector: self.connector.name.clone(),
            executed: execute,
            topics: Vec::new(),
            not_taken,
            not_taken_left_out,
        };
        if execute {
            let (data, environment) = (self.store.as_ref(), &self.environment);
            layout::claim(data, self.state.as_deref(), environment, &self.connector.name, cluster_id.as_deref())
                .await?;
        }
        for (name, found) in &topics {
            let Some(identity) = identities.get(name).filter(|_| found.objects > 0) else { continue };
            let topic = Topic {
                name,
                found,
                identity: Identity { incarnation: found.incarnation(), ..identity.clone() },
                // The same for every task: only what shapes content is taken of it.
                settings: TaskSettings::new(Arc::clone(&self.connector), name, 0),
                mapping: self.mapping(name).await?,
            };
            report.topics.push(self.topic(&topic, execute).await?);
        }
        Ok(report)
    }

    /// The connector's topics as Kafka has them.
    async fn identities(&self, cluster_id: Option<&String>) -> Result<BTreeMap<String, Identity>, RecoverError> {
        let mut names: BTreeSet<String> = match &self.connector.topics {
            TopicSelection::List(names) => names.iter().cloned().collect(),
            TopicSelection::Regex(pattern) => {
                self.kafka.topics().await?.into_iter().filter(|name| pattern.is_match(name)).collect()
            }
        };
        names.extend(layout::topics(self.logs().as_ref(), &self.environment, &self.connector.name).await?);
        let mut identities = BTreeMap::new();
        for name in names {
            if let Some(info) = self.kafka.topic(&name).await? {
                let identity = Identity { cluster_id: cluster_id.cloned(), topic_id: info.id, incarnation: 0 };
                identities.insert(name, identity);
            }
        }
        Ok(identities)
    }

    /// How the partitions are shared out: as the store says, else as the connector does.
    async fn mapping(&self, topic: &str) -> Result<(u32, Mapping), RecoverError> {
        let (logs, connector) = (self.logs().as_ref(), &self.connector.name);
        let found = layout::find_mapping(logs, &self.environment, connector, topic).await?;
        let first = Mapping { tasks_max: self.connector.tasks_max.get(), origin: None };
        Ok(found.unwrap_or((1, first)))
    }

    fn log(&self, topic: &Topic<'_>, task: u32) -> Arc<StoreLog> {
        let path = layout::log_path(&self.connector.name, topic.name, topic.mapping.0, task);
        Arc::new(StoreLog::new(Arc::clone(self.logs()), &path))
    }

    async fn topic(&self, topic: &Topic<'_>, execute: bool) -> Result<TopicReport, RecoverError> {
        let (number, mapping) = &topic.mapping;
        let mut report = TopicReport {
            topic: topic.name.to_owned(),
            incarnation: topic.identity.incarnation,
            objects: topic.found.objects,
            mapping: *number,
            tasks: Vec::new(),
        };
        let starts = plan::starts(topic.found);
        if execute {
            let (logs, connector) = (self.logs().as_ref(), &self.connector.name);
            layout::create_mapping(logs, &self.environment, connector, topic.name, *number, mapping).await?;
        }
        for task in 0..mapping.tasks_max {
            let own: BTreeMap<i32, Start> = starts
                .iter()
                .filter(|(partition, _)| partition.unsigned_abs() % mapping.tasks_max == task)
                .map(|(&partition, start)| (partition, start.clone()))
                .collect();
            report.tasks.extend(self.task(topic, task, &own, execute).await?);
        }
        Ok(report)
    }

    /// `None`: the task has nothing and needs nothing.
    async fn task(
        &self,
        topic: &Topic<'_>,
        task: u32,
        starts: &BTreeMap<i32, Start>,
        execute: bool,
    ) -> Result<Option<TaskReport>, RecoverError> {
        let door = self.log(topic, task);
        let log = match read_state(door.as_ref(), &self.environment).await {
            Ok(state) if state.is_started() || state.closed.is_some() => Log::Whole(Box::new(state)),
            Ok(state) if state.tip == 0 => Log::Lost("its log is gone".to_owned()),
            Ok(_) => Log::Lost("its log holds nothing but takeovers".to_owned()),
            Err(crate::log::journal::LogError::Damaged { number, why, .. }) => {
                Log::Lost(format!("its log is damaged: entry {number}: {why}"))
            }
            Err(error) => return Err(TaskError::from(error).into()),
        };
        let mut report = TaskReport { task, ..TaskReport::default() };
        let before = match log {
            Log::Lost(why) if starts.is_empty() => {
                tracing::debug!(task, why, "nothing to recover");
                return Ok(None);
            }
            Log::Lost(why) => {
                report.log = why;
                None
            }
            Log::Whole(state) => {
                let unknown = unknown_objects(topic.found, starts, &state);
                if unknown.is_empty() || state.closed.is_some() {
                    report.log = "its log is whole and knows all objects".to_owned();
                    report.action = Action::Nothing;
                    report.partitions = state
                        .lows
                        .iter()
                        .map(|(&partition, low)| (partition, PartitionReport::unchanged(low.offset)))
                        .collect();
                    return Ok(Some(report));
                }
                let first = unknown.iter().next().cloned().unwrap_or_default();
                report.log = format!("its log does not know {} objects, {first} is one of them", unknown.len());
                Some(*state)
            }
        };
        let state = self.state(topic, starts, before.as_ref(), &mut report).await?;
        if execute {
            let at_least = topic.found.log_number;
            let environment = self.environment.clone();
            let (mut journal, takeovers) =
                Journal::begin_anew(door, environment, &self.by, at_least, FENCE).await.map_err(TaskError::from)?;
            let owner = Owner {
                token: journal.token().clone(),
                worker: self.by.clone(),
                since_ms: self.environment.clock.now_ms(),
            };
            let number = journal.tip() + 1;
            let mut state = State { tip: journal.tip(), owner: Some(owner), takeovers, ..state };
            for pending in state.intents.values_mut().filter(|pending| pending.log_number == 0) {
                pending.log_number = number;
            }
            let entry = Entry::Snapshot { state: Box::new(state) };
            journal.append(entry).await.map_err(TaskError::from)?;
        }
        Ok(Some(report))
    }

    /// What the log will say.
    async fn state(
        &self,
        topic: &Topic<'_>,
        starts: &BTreeMap<i32, Start>,
        before: Option<&State>,
        report: &mut TaskReport,
    ) -> Result<State, RecoverError> {
        let known = |partition: i32| before.and_then(|state| state.low(partition));
        let floors: BTreeMap<i32, (i64, i64)> = starts
            .iter()
            .map(|(&partition, start)| {
                let low = known(partition).map_or(start.low, |known| known.max(start.low));
                (partition, (low, start.end.max(low)))
            })
            .collect();
        let mut lows = extend::extend(&self.place, topic.found, &floors).await?;
        for (&partition, low) in before.iter().flat_map(|state| &state.lows) {
            lows.entry(partition).or_insert(low.offset);
        }
        self.check_settings(topic, &lows, before)?;
        let pending = before.iter().flat_map(|state| state.intents.values()).map(|pending| &pending.intent);
        let lanes = plan::lanes(topic.found, &lows, pending);
        let slots = self.slots(topic, &lows, &lanes).await?;
        let now_ms = self.environment.clock.now_ms();
        let mut state = before.cloned().unwrap_or_default();
        state.settings = Some(topic.settings.record.clone());
        state.identity = Identity {
            incarnation: topic.identity.incarnation.max(state.identity.incarnation),
            ..topic.identity.clone()
        };
        for (lane, marks) in plan::marks(&lanes) {
            let known = state.marks.entry(lane).or_default();
            for (partition, mark) in marks {
                let known = known.entry(partition).or_insert(mark);
                *known = mark.max(*known);
            }
        }
        for (&partition, &offset) in &lows {
            let moved = known(partition) != Some(offset);
            if moved {
                state.lows.insert(partition, Low { offset, since_ms: now_ms });
            }
            if let Some(start) = starts.get(&partition) {
                state.begins.entry(partition).or_insert_with(|| start.begin.clone());
            }
        }
        for intent in &slots {
            report.decided_anew.push(intent.key.clone());
            // Set when the number is known.
            state.intents.insert(intent.id.clone(), Pending { log_number: 0, intent: intent.clone() });
        }
        let state = state.pruned();
        report.action = Action::Write;
        report.lanes = state.marks.len() as u64;
        let ends = state.least_cut();
        report.partitions = state
            .lows
            .iter()
            .map(|(&partition, low)| {
                let found = PartitionReport {
                    begin: state.begins.get(&partition).map(|begin| begin.offset),
                    low_before: known(partition),
                    low: low.offset,
                    highest_mark: ends.get(&partition).copied().unwrap_or(low.offset),
                };
                (partition, found)
            })
            .collect();
        Ok(state)
    }

    /// What lies above low is read again, and must be split as it was.
    fn check_settings(
        &self,
        topic: &Topic<'_>,
        lows: &BTreeMap<i32, i64>,
        before: Option<&State>,
    ) -> Result<(), RecoverError> {
        let hash = &topic.settings.record.hash;
        let above = |intent: &&Intent| {
            intent.ranges.iter().any(|(partition, range)| lows.get(partition).is_some_and(|low| range.last >= *low))
        };
        let intents = topic.found.held.iter().map(|held| &held.intent);
        let pending = before.iter().flat_map(|state| state.intents.values()).map(|pending| &pending.intent);
        let other = intents.filter(above).chain(pending).find(|intent| intent.settings != *hash);
        match other {
            None => Ok(()),
            Some(intent) => Err(RecoverError::Refused(format!(
                "{} was written under other settings ({}, now {hash}) and lies above low: the records beside it must be split as \
                 they were. Give the connector the settings that it had (and use the binary that wrote it), recover, and change \
                 them then",
                intent.key, intent.settings
            ))),
        }
    }

    /// Reads Kafka again from low to the highest mark: which records of a lane does none of its objects hold?
    async fn slots(
        &self,
        topic: &Topic<'_>,
        lows: &BTreeMap<i32, i64>,
        lanes: &Lanes,
    ) -> Result<Vec<Intent>, RecoverError> {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for (partition, mark) in plan::marks(lanes).into_values().flatten() {
            let end = ends.entry(partition).or_insert(mark);
            *end = mark.max(*end);
        }
        ends.retain(|partition, end| lows.get(partition).is_some_and(|low| low < end));
        let offsets: u64 = ends.iter().filter_map(|(partition, end)| Some(end.abs_diff(*lows.get(partition)?))).sum();
        self.progress.step("records of Kafka", Some(offsets));
        let connector = &self.connector;
        let splitter = Splitter::new(connector, topic.name);
        let mut times = EventTimes::new(&connector.time);
        let names = topic.settings.reserved_names();
        let mut slots = Slots::default();
        for (&partition, &end) in &ends {
            let Some(&low) = lows.get(&partition) else { continue };
            let isolation = connector.isolation;
            let log_start = self.kafka.offset(topic.name, partition, At::Earliest, isolation).await?;
            let log_end = self.kafka.offset(topic.name, partition, At::Latest, isolation).await?;
            let topic_id = topic.identity.topic_id.as_ref();
            let (first, end) = (low.max(log_start), end.min(log_end));
            let stretch = Stretch { topic: topic.name, topic_id, isolation, partition, first, end };
            stretch::read(self.kafka.as_ref(), stretch, |record| {
                self.progress.advance(1);
                let time_ms = times.time_ms(record);
                let bucket_start_secs = times.bucket_start_secs(time_ms);
                if let Some(app) = segment(connector, &names, splitter.split(record)) {
                    slots.record(lanes, &Lane { app, bucket_start_secs }, record, time_ms);
                }
            })
            .await?;
        }
        let incarnation = topic.identity.incarnation;
        let hash = &topic.settings.record.hash;
        Ok(slots.into_intents(hash, |lane, opener| topic.settings.key(lane, opener, incarnation)))
    }
}

/// The app of a record's lane; `None`: it is in no lane.
fn segment(connector: &ConnectorConfig, names: &ReservedNames, split: Split<'_>) -> Option<String> {
    match split {
        Split::App(App::Id(id)) => Some(crate::archive::app_id::path_segment(&id)),
        Split::App(App::Missing) => Some(names.missing.clone()),
        Split::Bad { .. } if connector.on_error == OnError::DeadLetter && connector.dead_letter.topic.is_none() => {
            Some(names.dead_letter.clone())
        }
        Split::Bad { .. } => None,
    }
}

/// Objects of a task that its log has not decided.
fn unknown_objects(found: &Found, starts: &BTreeMap<i32, Start>, state: &State) -> BTreeSet<String> {
    let known = Known::of(state);
    let own = |intent: &Intent| intent.ranges.keys().any(|partition| starts.contains_key(partition));
    let counts = |incarnation: u32| incarnation == state.identity.incarnation;
    let held = found.held.iter().filter(|held| counts(held.incarnation) && own(&held.intent));
    held.filter(|held| !known.has(&held.intent)).map(|held| held.intent.key.clone()).collect()
}
