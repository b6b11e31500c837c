//! A Kafka cluster in memory behind the same door, for tests of the pipeline: no network, no clock, blocks of a set size in
//! a fixed order.
//!
//! Owns: topics whose logs tests append to, cut and recreate. Does not own: anything of the wire protocol.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::kafka::partitioner::Partitioner;
use crate::pipeline::produce::{Outgoing, ProduceError, Written};
use crate::pipeline::source::{
    At, Isolation, Kafka, Position, ReadRequest, Reader, SourceError, SourceEvent, TopicId, TopicInfo,
};
use crate::record::{Block, BlockBuilder, write_header};

/// A record to append. Its offset is the log's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRecord {
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl MemoryRecord {
    /// A record of this value alone.
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }
}

/// The cluster; clones are the same cluster.
#[derive(Clone, Debug)]
pub struct MemoryKafka {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
    block_records: usize,
    partitioner: Arc<Partitioner>,
}

/// What topics take in one record, like a broker's `max.message.bytes`.
const MAX_MESSAGE_BYTES: usize = 1_048_588;

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<String, Topic>,
    topics_made: u128,
    commits: Vec<Commit>,
    compacted: BTreeSet<String>,
    /// Answers of coming writes, before any is taken.
    refusals: VecDeque<ProduceError>,
}

/// Offsets that were copied to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub group: String,
    pub topic: String,
    /// (partition, next offset).
    pub offsets: Vec<(i32, i64)>,
}

#[derive(Debug)]
struct Topic {
    id: TopicId,
    partitions: Vec<Log>,
}

#[derive(Debug)]
struct Log {
    records: Vec<(i64, MemoryRecord)>,
    /// (leader epoch, first offset), ascending in both; never empty.
    epochs: Vec<(i32, i64)>,
    start: i64,
    end: i64,
    /// End for readers of committed records, where a transaction is open.
    stable_end: Option<i64>,
    failure: Option<SourceError>,
}

impl Default for Log {
    fn default() -> Self {
        let (records, epochs) = (Vec::new(), vec![(0, 0)]);
        Self { records, epochs, start: 0, end: 0, stable_end: None, failure: None }
    }
}

impl Log {
    /// The epoch that `offset` is written in, and where it ends.
    fn epoch_at(&self, offset: i64) -> (i32, i64) {
        let next = self.epochs.partition_point(|&(_, first)| first <= offset);
        let epoch = self.epochs.get(next.saturating_sub(1)).map_or(0, |&(epoch, _)| epoch);
        (epoch, self.epochs.get(next).map_or(self.end, |&(_, first)| first))
    }

    /// Where the log leaves the one that a position was read from.
    fn diverged(&self, seen: Position) -> Option<Position> {
        let asked = seen.leader_epoch?;
        let found = self.epochs.iter().rev().find(|&&(epoch, _)| epoch <= asked);
        let next = self.epochs.iter().find(|&&(epoch, _)| epoch > asked);
        let end = next.map_or(self.end, |&(_, first)| first);
        let same_to = Position { offset: end, leader_epoch: found.map(|&(epoch, _)| epoch) };
        (end < seen.offset).then_some(same_to)
    }

    fn readable_end(&self, isolation: Isolation) -> i64 {
        match (isolation, self.stable_end) {
            (Isolation::ReadCommitted, Some(end)) => end,
            _ => self.end,
        }
    }
}

impl Default for MemoryKafka {
    fn default() -> Self {
        Self::new(100)
    }
}

impl MemoryKafka {
    /// An empty cluster whose readers send at most `block_records` records in a block.
    pub fn new(block_records: usize) -> Self {
        Self {
            state: Arc::default(),
            changes: watch::Sender::new(0),
            block_records: block_records.max(1),
            partitioner: Arc::default(),
        }
    }

    /// Makes a topic of `partitions` partitions, or adds partitions to the topic; never removes any.
    pub fn create_topic(&self, name: &str, partitions: usize) {
        self.change(|state| {
            state.topics_made += 1;
            let id = TopicId(format!("{:032x}", state.topics_made));
            let topic = state.topics.entry(name.to_owned()).or_insert(Topic { id, partitions: Vec::new() });
            while topic.partitions.len() < partitions {
                topic.partitions.push(Log::default());
            }
        });
    }

    /// Removes a topic; created again it has another id.
    pub fn delete_topic(&self, name: &str) {
        self.change(|state| state.topics.remove(name));
    }

    /// Appends records and returns the offset of the first; `None` where there is no such partition.
    pub fn append(&self, topic: &str, partition: i32, records: impl IntoIterator<Item = MemoryRecord>) -> Option<i64> {
        self.change_log(topic, partition, |log| {
            let first = log.end;
            for record in records {
                log.records.push((log.end, record));
                log.end += 1;
            }
            first
        })
    }

    /// Offsets without records at the end of the log, as transaction markers and compaction leave them.
    pub fn append_gap(&self, topic: &str, partition: i32, offsets: i64) {
        self.change_log(topic, partition, |log| log.end += offsets.max(0));
    }

    /// Records from `offset` on belong to an open transaction; `None` ends it.
    pub fn set_stable_end(&self, topic: &str, partition: i32, offset: Option<i64>) {
        self.change_log(topic, partition, |log| log.stable_end = offset);
    }

    /// Removes the records below `offset`, as retention and DeleteRecords do.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        self.change_log(topic, partition, |log| {
            log.records.retain(|&(at, _)| at >= offset);
            log.start = offset.clamp(log.start, log.end);
        });
    }

    /// Removes the records at these offsets and makes the topic a compacted one.
    pub fn compact(&self, topic: &str, partition: i32, gone: &[i64]) {
        self.change(|state| {
            state.compacted.insert(topic.to_owned());
        });
        self.change_log(topic, partition, |log| log.records.retain(|(at, _)| !gone.contains(at)));
    }

    /// Removes the records from `offset` on, as an unclean election does: what is appended then is of a new leader epoch.
    pub fn truncate(&self, topic: &str, partition: i32, offset: i64) {
        self.change_log(topic, partition, |log| {
            log.records.retain(|&(at, _)| at < offset);
            log.end = offset.clamp(log.start, log.end);
            let epoch = log.epochs.last().map_or(0, |&(epoch, _)| epoch) + 1;
            let end = log.end;
            log.epochs.retain(|&(_, first)| first < end);
            log.epochs.push((epoch, end));
        });
    }

    /// The next look of a reader at this partition ends with this error: an unreachable one is retried, another final.
    pub fn fail_once(&self, topic: &str, partition: i32, error: SourceError) {
        self.change_log(topic, partition, |log| log.failure = Some(error));
    }

    /// The next records handed in are not taken, and this is said instead.
    pub fn refuse_once(&self, error: ProduceError) {
        self.change(|state| state.refusals.push_back(error));
    }

    /// Forgets what [`Self::refuse_once`] is still to say.
    pub fn accept_writes(&self) {
        self.change(|state| state.refusals.clear());
    }

    /// The records of a partition, with their offsets.
    pub fn records(&self, topic: &str, partition: i32) -> Vec<(i64, MemoryRecord)> {
        self.lock().log(topic, partition).map(|log| log.records.clone()).unwrap_or_default()
    }

    /// Every commit so far.
    pub fn commits(&self) -> Vec<Commit> {
        self.lock().commits.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changes.send_modify(|version| *version += 1);
        changed
    }

    fn change_log<T>(&self, topic: &str, partition: i32, change: impl FnOnce(&mut Log) -> T) -> Option<T> {
        self.change(|state| state.log(topic, partition).map(change))
    }

    /// What a reader at `offset` sees now: a block, nothing new, or an error.
    fn look(&self, request: &ReadRequest, at: &Place) -> Result<Option<Block>, SourceError> {
        let Place { partition, position, end_offset, .. } = *at;
        let offset = position.offset;
        let mut state = self.lock();
        let no_topic = || SourceError::NoTopic { topic: request.topic.clone() };
        let topic = state.topics.get(&request.topic).ok_or_else(no_topic)?;
        if let Some(expected) = request.topic_id.as_ref().filter(|expected| **expected != topic.id) {
            return Err(SourceError::Recreated {
                topic: request.topic.clone(),
                expected: expected.0.clone(),
                found: topic.id.0.clone(),
            });
        }
        let log = state.log(&request.topic, partition).ok_or_else(no_topic)?;
        if let Some(error) = log.failure.take() {
            return Err(error);
        }
        for seen in at.seen.into_iter().chain([position]) {
            if let Some(Position { offset: end_offset, .. }) = log.diverged(seen) {
                let topic = request.topic.clone();
                return Err(SourceError::Truncated { topic, partition, offset: seen.offset, end_offset });
            }
        }
        if offset < log.start || offset > log.end {
            return Err(SourceError::OutOfRange {
                topic: request.topic.clone(),
                partition,
                offset,
                log_start: log.start,
                log_end: log.end,
            });
        }
        let end = log.readable_end(request.isolation);
        if offset >= end && end_offset == Some(end) {
            return Ok(None);
        }
        let first = log.records.partition_point(|&(at, _)| at < offset);
        let (epoch, epoch_end) = log.epoch_at(offset);
        let end_here = end.min(epoch_end);
        let last = log.records.partition_point(|&(at, _)| at < end_here).max(first);
        let taken = &log.records[first..last.min(first + self.block_records)];
        let next_offset = match taken.last() {
            Some(&(at, _)) if taken.len() < last - first => at + 1,
            _ => end_here.max(offset),
        };
        let mut block = BlockBuilder::default();
        for (at, record) in taken {
            block
                .push(*at, record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), |out| {
                    for (key, value) in &record.headers {
                        write_header(out, key, value.as_deref());
                    }
                    record.headers.len() as u32
                })
                .map_err(|error| SourceError::Unreadable {
                    topic: request.topic.clone(),
                    partition,
                    offset,
                    message: error.to_string(),
                })?;
        }
        let mut block = block.finish(partition, next_offset, end);
        block.log_start_offset = Some(log.start);
        block.leader_epoch = Some(epoch).filter(|_| next_offset > offset);
        Ok(Some(block))
    }

    /// Sends blocks of the partitions in turn until nobody listens.
    async fn run(self, request: ReadRequest, events: mpsc::Sender<SourceEvent>) {
        let mut changes = self.changes.subscribe();
        let seen = |wanted| request.seen.iter().find(|(partition, _)| *partition == wanted).map(|(_, seen)| *seen);
        let mut places: Vec<Place> = request
            .starts
            .iter()
            .map(|&(partition, offset)| Place {
                partition,
                position: Position { offset, leader_epoch: None },
                seen: seen(partition),
                end_offset: None,
            })
            .collect();
        while !events.is_closed() {
            changes.borrow_and_update();
            let mut idle = true;
            let mut index = 0;
            while let Some(place) = places.get_mut(index) {
                let Place { partition, position: Position { offset, .. }, .. } = *place;
                index += 1;
                let event = match self.look(&request, place) {
                    Ok(None) => continue,
                    Ok(Some(block)) => {
                        place.position = place.position.after(&block);
                        place.end_offset = Some(block.end_offset);
                        let permit = tokio::select! {
                            () = events.closed() => return,
                            permit = request.budget.reserve(block.memory_bytes()) => permit,
                        };
                        SourceEvent::Block(block, permit)
                    }
                    Err(error @ SourceError::Unreachable { .. }) => {
                        SourceEvent::Waiting { partition, offset, reason: error.to_string() }
                    }
                    Err(error) => {
                        index -= 1;
                        places.remove(index);
                        SourceEvent::Failed { partition, offset, error }
                    }
                };
                idle = false;
                if events.send(event).await.is_err() {
                    return;
                }
            }
            if places.is_empty() {
                return;
            }
            if idle {
                tokio::select! {
                    () = events.closed() => return,
                    // Never an error: this clone holds a sender.
                    _ = changes.changed() => {}
                }
            }
        }
    }
}

impl State {
    fn log(&mut self, topic: &str, partition: i32) -> Option<&mut Log> {
        let partition = usize::try_from(partition).ok()?;
        self.topics.get_mut(topic)?.partitions.get_mut(partition)
    }
}

/// Where a reader stands, what a former one saw, and the end that it told of last.
#[derive(Debug)]
struct Place {
    partition: i32,
    position: Position,
    seen: Option<Position>,
    end_offset: Option<i64>,
}

#[async_trait]
impl Kafka for MemoryKafka {
    async fn cluster_id(&self) -> Result<Option<String>, SourceError> {
        Ok(Some("memory".into()))
    }

    async fn topics(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.lock().topics.keys().cloned().collect())
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>, SourceError> {
        Ok(self.lock().topics.get(name).map(|topic| TopicInfo {
            name: name.to_owned(),
            id: Some(topic.id.clone()),
            partitions: (0..).take(topic.partitions.len()).collect(),
        }))
    }

    async fn is_compacted(&self, topic: &str) -> Result<bool, SourceError> {
        Ok(self.lock().compacted.contains(topic))
    }

    async fn offset(&self, topic: &str, partition: i32, at: At, isolation: Isolation) -> Result<i64, SourceError> {
        let mut state = self.lock();
        let log = state.log(topic, partition).ok_or_else(|| SourceError::NoTopic { topic: topic.to_owned() })?;
        let end = log.readable_end(isolation);
        Ok(match at {
            At::Earliest => log.start,
            At::Latest => end,
            At::TimestampMs(ms) => {
                log.records.iter().find(|(_, record)| record.timestamp_ms >= ms).map_or(end, |&(at, _)| at.min(end))
            }
        })
    }

    async fn diverged(&self, topic: &str, partition: i32, seen: Position) -> Result<Option<Position>, SourceError> {
        let mut state = self.lock();
        let log = state.log(topic, partition).ok_or_else(|| SourceError::NoTopic { topic: topic.to_owned() })?;
        Ok(log.diverged(seen))
    }

    async fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), SourceError> {
        let commit = Commit { group: group.to_owned(), topic: topic.to_owned(), offsets: offsets.to_vec() };
        self.lock().commits.push(commit);
        Ok(())
    }

    async fn produce(&self, topic: &str, records: &[Outgoing]) -> Vec<Result<Written, ProduceError>> {
        let no_topic = || ProduceError::NoTopic { topic: topic.to_owned() };
        let info = self.topic(topic).await.ok().flatten();
        self.change(|state| {
            if let Some(error) = state.refusals.pop_front() {
                return vec![Err(error); records.len()];
            }
            let write = |record: &Outgoing| {
                let partitions = info.as_ref().map_or(&[][..], |info| &info.partitions);
                let partition = self.partitioner.partition(record, partitions).ok_or_else(no_topic)?;
                let bytes = record.bytes();
                if bytes > MAX_MESSAGE_BYTES {
                    return Err(ProduceError::TooLarge { topic: topic.to_owned(), bytes });
                }
                let log = state.log(topic, partition).ok_or_else(no_topic)?;
                let headers = record.headers.as_headers();
                let headers = headers.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
                let Outgoing { key, value, timestamp_ms, .. } = record.clone();
                let offset = log.end;
                log.records.push((offset, MemoryRecord { timestamp_ms, key, value, headers }));
                log.end += 1;
                Ok(Written { partition, offset })
            };
            records.iter().map(write).collect()
        })
    }

    fn read(&self, request: ReadRequest, events: mpsc::Sender<SourceEvent>) -> Reader {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = self.clone().run(request, events);
        tokio::spawn(async move { stopped.run_until_cancelled(running).await });
        Reader::new(stop)
    }
}
