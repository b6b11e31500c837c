//! Records that are in no file yet, from Kafka.
//!
//! Owns: where Kafka has to be read from (the log's lows, read before the listing), leaving out what a file holds already.
//! Does not own: reading Kafka ([`crate::kafka`]), which app a record belongs to ([`crate::pipeline::split`]).
//!
//! Every record below low is in a finished file, and the listing is younger than low: so files and Kafka from low together have
//! everything. A file holds all records of its lane between its first and its last offset of a partition: so a record of Kafka is in
//! a file if it lies within one of its lane, whatever is uploaded meanwhile, in whatever order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::mpsc;

use super::batch::{Batch, LiveRecords};
use super::place::Place;
use super::report::Report;
use super::survey::{Question, Stream};
use crate::archive::app_id::path_segment;
use crate::archive::index::FileFacts;
use crate::clock::Environment;
use crate::config::{ConnectorConfig, MissingAppId, OnError};
use crate::ledger::Identity;
use crate::log::journal::read_state;
use crate::log::store_log::StoreLog;
use crate::pipeline::budget::Budget;
use crate::pipeline::event_time::EventTimes;
use crate::pipeline::source::{At, Kafka, ReadRequest, SourceError, SourceEvent};
use crate::pipeline::split::{App, Split, Splitter};
use crate::record::Record;
use crate::store::{Depth, Store};
use crate::worker::layout;

/// Fetched bytes in memory.
const FETCH_BYTES: u64 = 64 << 20;
/// Size of a batch.
const BATCH_BYTES: usize = 1 << 20;
/// Blocks between the reader and here.
const BLOCKS_AHEAD: usize = 4;

/// Where the unfinished part of a task begins.
#[derive(Debug)]
pub struct Open {
    pub topic: String,
    pub identity: Identity,
    pub lows: BTreeMap<i32, i64>,
}

/// A connector's unfinished part.
#[derive(Debug)]
pub struct Live {
    pub kafka: Arc<dyn Kafka>,
    pub connector: Arc<ConnectorConfig>,
    pub open: Vec<Open>,
}

/// Lanes as files know them: the stream and the start of the bucket.
pub type LaneStream = (Stream, Option<i64>);

/// Stretches of offsets (first, last) that files hold.
#[derive(Debug, Default)]
pub struct Covered {
    stretches: HashMap<LaneStream, Vec<(i64, i64)>>,
}

impl Covered {
    pub fn add(&mut self, lane: LaneStream, first: i64, last: i64) {
        self.stretches.entry(lane).or_default().push((first, last));
    }

    fn holds(&self, lane: &LaneStream, offset: i64) -> bool {
        let stretches = self.stretches.get(lane).map(Vec::as_slice).unwrap_or_default();
        stretches.iter().any(|&(first, last)| first <= offset && offset <= last)
    }
}

/// Why the unfinished part can't be told.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Log(#[from] crate::log::journal::LogError),
    #[error(transparent)]
    Layout(#[from] layout::LayoutError),
    #[error(transparent)]
    Kafka(#[from] SourceError),
}

impl Live {
    /// Reads the logs of a connector. To be called before files are listed.
    ///
    /// # Errors
    /// The state's store, or a log is damaged.
    pub async fn open(
        kafka: Arc<dyn Kafka>,
        connector: Arc<ConnectorConfig>,
        state: &Arc<dyn Store>,
        environment: &Environment,
    ) -> Result<Self, LiveError> {
        // Everything later waits for a store that is away; a command says so instead.
        state.head(layout::STATE_FOLDER).await?;
        let folder = layout::connector_folder(&connector.name);
        let mut open = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = state.list(&folder, Depth::Folder, after.as_deref(), 1000).await?;
            for topic in page.folders.iter().filter_map(|name| name.strip_prefix(&folder)) {
                let topic = topic.trim_end_matches('/');
                let found = layout::find_mapping(state.as_ref(), environment, &connector.name, topic).await?;
                let Some((number, mapping)) = found else { continue };
                for task in 0..mapping.tasks_max {
                    let path = layout::log_path(&connector.name, topic, number, task);
                    let log = read_state(&StoreLog::new(Arc::clone(state), &path), environment).await?;
                    let lows = log.lows.iter().map(|(&partition, low)| (partition, low.offset)).collect();
                    open.push(Open { topic: topic.to_owned(), identity: log.identity.clone(), lows });
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(Self { kafka, connector, open }),
            }
        }
    }

    /// The offset from which Kafka is read, where the stream has one: files below it are of no interest.
    pub fn low(&self, stream: &Stream) -> Option<i64> {
        let of = |open: &&Open| *open.topic == *stream.topic && open.identity.incarnation == stream.incarnation;
        self.open.iter().filter(of).find_map(|open| open.lows.get(&stream.partition).copied())
    }

    /// Hands out what is in no file, with its event times, up to the ends that Kafka has now.
    ///
    /// # Errors
    /// Kafka, or `give`.
    pub async fn read<E: From<LiveError>>(
        &self,
        place: &Place,
        question: &Question,
        covered: &Covered,
        report: &Report,
        mut give: impl FnMut(Batch, Vec<i64>) -> Result<(), E>,
    ) -> Result<(), E> {
        for open in &self.open {
            self.read_task(open, place, question, covered, report, &mut give).await?;
        }
        Ok(())
    }

    async fn read_task<E: From<LiveError>>(
        &self,
        open: &Open,
        place: &Place,
        question: &Question,
        covered: &Covered,
        report: &Report,
        give: &mut impl FnMut(Batch, Vec<i64>) -> Result<(), E>,
    ) -> Result<(), E> {
        let isolation = self.connector.isolation;
        let asked = futures::stream::iter(&open.lows).map(|(&partition, &low)| async move {
            let end = self.kafka.offset(&open.topic, partition, At::Latest, isolation).await?;
            Ok::<_, SourceError>((partition, low, end))
        });
        let asked: Vec<Result<_, SourceError>> = asked.buffered(16).collect().await;
        let mut ends = BTreeMap::new();
        let mut starts = Vec::new();
        for answer in asked {
            let (partition, low, end) = answer.map_err(LiveError::from)?;
            if low < end {
                starts.push((partition, low));
                ends.insert(partition, end);
            }
        }
        if starts.is_empty() {
            return Ok(());
        }
        let request = ReadRequest {
            topic: open.topic.clone(),
            topic_id: open.identity.topic_id.clone(),
            isolation,
            starts,
            seen: Vec::new(),
            budget: Budget::new(FETCH_BYTES),
        };
        let (events, mut blocks) = mpsc::channel(BLOCKS_AHEAD);
        let _reader = self.kafka.read(request, events);
        let mut sorter = Sorter::new(self, open, place, question, covered);
        while !ends.is_empty() {
            match blocks.recv().await {
                Some(SourceEvent::Block(block, _permit)) => {
                    let Some(&end) = ends.get(&block.partition) else { continue };
                    block.records().filter(|record| record.offset < end).for_each(|record| sorter.push(&record));
                    if block.next_offset >= end {
                        ends.remove(&block.partition);
                    }
                    if sorter.records.len() >= BATCH_BYTES {
                        let (batch, times) = sorter.take();
                        give(batch, times)?;
                    }
                }
                Some(SourceEvent::Waiting { partition, reason, .. }) => {
                    report.note(&format!("waiting for topic {} partition {partition}: {reason}", open.topic));
                }
                Some(SourceEvent::Failed { error, .. }) => return Err(LiveError::from(error).into()),
                None => {
                    let (what, message) = ("reading".to_owned(), "it ended early".to_owned());
                    return Err(LiveError::from(SourceError::Unreachable { what, message }).into());
                }
            }
        }
        let (batch, times) = sorter.take();
        give(batch, times)
    }
}

/// Sorts out what is asked for.
struct Sorter<'a> {
    connector: &'a ConnectorConfig,
    open: &'a Open,
    question: &'a Question,
    covered: &'a Covered,
    splitter: Splitter,
    event_times: EventTimes,
    facts: FileFacts,
    topic: Arc<str>,
    url: String,
    records: LiveRecords,
    times: Vec<i64>,
}

impl<'a> Sorter<'a> {
    fn new(live: &'a Live, open: &'a Open, place: &Place, question: &'a Question, covered: &'a Covered) -> Self {
        let connector = live.connector.as_ref();
        let facts = FileFacts {
            connector: connector.name.clone(),
            cluster_id: open.identity.cluster_id.clone(),
            topic: open.topic.clone(),
            topic_id: open.identity.topic_id.as_ref().map(|id| id.0.clone()),
            incarnation: open.identity.incarnation,
            app: question.app.clone().unwrap_or_default(),
            bucket_start_secs: None,
            intent_id: String::new(),
            digests: BTreeMap::new(),
            log_number: 0,
            settings_hash: String::new(),
            lows: BTreeMap::new(),
            format: connector.format,
            codec: connector.compression.codec,
            skipped: Vec::new(),
        };
        Self {
            connector,
            open,
            question,
            covered,
            splitter: Splitter::new(connector, &open.topic),
            event_times: EventTimes::new(&connector.time),
            facts,
            topic: open.topic.as_str().into(),
            url: place.store.url().to_owned(),
            records: LiveRecords::default(),
            times: Vec::new(),
        }
    }

    fn push(&mut self, record: &Record<'_>) {
        let time_ms = self.event_times.time_ms(record);
        let bucket = self.event_times.bucket_start_secs(time_ms);
        let segment = match self.splitter.split(record) {
            Split::App(App::Id(id)) => path_segment(&id),
            Split::App(App::Missing) => match &self.connector.app_id.missing {
                MissingAppId::Name(name) => name.clone(),
                MissingAppId::DeadLetter => self.connector.dead_letter.path.clone(),
            },
            Split::Bad { .. } if self.connector.on_error == OnError::DeadLetter => {
                self.connector.dead_letter.path.clone()
            }
            Split::Bad { .. } => return,
        };
        if self.question.app.as_ref().is_some_and(|app| *app != segment) || !self.question.times.contains(time_ms) {
            return;
        }
        let (topic, incarnation) = (Arc::clone(&self.topic), self.open.identity.incarnation);
        let stream = Stream { topic, incarnation, partition: record.partition };
        if self.covered.holds(&(stream, bucket), record.offset) {
            return;
        }
        self.records.push(self.connector.format, &self.open.topic, record);
        self.times.push(time_ms);
    }

    fn take(&mut self) -> (Batch, Vec<i64>) {
        let batch = std::mem::take(&mut self.records).into_batch(&self.url, self.facts.clone());
        (batch, std::mem::take(&mut self.times))
    }
}
