//! Kafka's twin: one topic, read with delays.
//!
//! Owns: what was produced, retention, truncation, recreation, leader epochs, what was read first.
//! Does not own: what became of the records.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluice::pipeline::source::{
    At, Isolation, Kafka, Position, ReadRequest, Reader, SourceError, SourceEvent, TopicId, TopicInfo,
};
use sluice::record::BlockBuilder;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::oracle::Place;
use crate::process::Process;
use crate::world::{EPOCH_MS, Rng, World};

pub const TOPIC: &str = "applogs";

/// What was produced at an offset.
#[derive(Clone, Copy, Debug)]
pub struct Produced {
    pub app: u8,
    pub timestamp_ms: i64,
    /// It can't be split.
    pub bad: bool,
    /// Counts losses of Kafka: the same offset is another record after one.
    pub generation: u32,
    /// Kafka lost it before it was archived.
    pub lost: bool,
}

impl Produced {
    /// A good record of app 1 from the start of all histories.
    pub fn some() -> Self {
        Self { app: 1, timestamp_ms: EPOCH_MS, bad: false, generation: 0, lost: false }
    }

    /// `skips_bad`: bad records are left out, archived, or either.
    pub fn wanted(self, skips_bad: Option<bool>) -> Want {
        match (self.bad, skips_bad) {
            (true, Some(true)) => Want::Never,
            (true, None) => Want::Maybe,
            _ if self.lost => Want::Maybe,
            _ => Want::Must,
        }
    }
}

/// Whether a record is to be archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Must,
    Maybe,
    Never,
}

#[derive(Debug)]
pub struct Partition {
    /// By offset; `None` is a hole (a control batch, compaction).
    pub records: Vec<Option<Produced>>,
    pub log_start: usize,
    /// Where the first reader of all began: from here on nothing may be missed.
    pub baseline: Option<i64>,
    /// (leader epoch, first offset), ascending; never empty.
    epochs: Vec<(i32, i64)>,
}

impl Default for Partition {
    fn default() -> Self {
        Self { records: Vec::new(), log_start: 0, baseline: None, epochs: vec![(0, 0)] }
    }
}

impl Partition {
    fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// The epoch that an offset is written in, where it begins and where it ends.
    fn epoch_at(&self, offset: i64) -> (i32, i64, i64) {
        let next = self.epochs.partition_point(|&(_, first)| first <= offset).max(1);
        let (epoch, first) = self.epochs[next - 1];
        (epoch, first, self.epochs.get(next).map_or(self.end(), |&(_, first)| first))
    }

    /// Where the log leaves the one that a position was read from: what a leader answers who is asked for the end of an epoch.
    fn diverged(&self, seen: Position) -> Option<Position> {
        let asked = seen.leader_epoch?;
        let found = self.epochs.iter().rev().find(|&&(epoch, _)| epoch <= asked);
        let next = self.epochs.iter().find(|&&(later, _)| later > asked);
        let end = next.map_or(self.end(), |&(_, first)| first);
        let gone = found.is_none_or(|&(epoch, _)| epoch < asked);
        let same_to = Position { offset: end.min(seen.offset), leader_epoch: found.map(|&(epoch, _)| epoch) };
        (gone || end < seen.offset).then_some(same_to)
    }
}

#[derive(Debug, Default)]
pub struct Topic {
    pub partitions: Vec<Partition>,
    pub incarnation: u32,
    /// Of what is produced now.
    pub generation: u32,
    /// Records that are not in the topic any more; some were archived before.
    pub lost: BTreeSet<Place>,
    /// A record more after each question for an end.
    pub grows_when_asked: bool,
}

impl Topic {
    pub fn info(&self) -> TopicInfo {
        TopicInfo {
            name: TOPIC.to_owned(),
            id: Some(TopicId(format!("{:032x}", self.incarnation))),
            partitions: (0..self.partitions.len() as i32).collect(),
        }
    }

    /// Appends up to `most` records to each partition.
    pub fn produce(&mut self, rng: &mut Rng, now_ms: i64, most: u64) {
        for partition in &mut self.partitions {
            for _ in 0..rng.below(most) {
                let hours = if rng.chance(10) { rng.below(3) as i64 } else { 0 };
                let produced = Produced {
                    app: rng.below(4) as u8,
                    timestamp_ms: now_ms - hours * 3_600_000,
                    bad: rng.chance(3),
                    generation: self.generation,
                    lost: false,
                };
                partition.records.push((!rng.chance(3)).then_some(produced));
            }
        }
    }

    /// A record more in each partition.
    pub fn grow(&mut self) {
        let produced = Produced { generation: self.generation, ..Produced::some() };
        self.partitions.iter_mut().for_each(|partition| partition.records.push(Some(produced)));
    }

    /// Retention: what lies below is gone.
    pub fn delete_below(&mut self, number: usize, offset: usize) {
        let partition = &mut self.partitions[number];
        let to = offset.clamp(partition.log_start, partition.records.len());
        for produced in partition.records[partition.log_start..to].iter_mut().flatten() {
            produced.lost = true;
        }
        partition.log_start = to;
    }

    /// An unclean election: records from `offset` on are gone, what is produced now is of a new epoch.
    pub fn truncate(&mut self, number: usize, offset: usize) {
        let partition = &mut self.partitions[number];
        let to = offset.max(partition.log_start);
        self.lost.extend(
            (to as i64..)
                .zip(partition.records.drain(to.min(partition.records.len())..))
                .filter_map(|(at, produced)| Some((number as i32, at, produced?.generation))),
        );
        let (epoch, end) = (partition.epochs[partition.epochs.len() - 1].0 + 1, partition.end());
        partition.epochs.retain(|&(_, first)| first < end);
        partition.epochs.push((epoch, end));
        self.generation += 1;
    }

    /// The topic is deleted and made again.
    pub fn recreate(&mut self) {
        for number in 0..self.partitions.len() {
            self.partitions[number].log_start = 0;
            self.truncate(number, 0);
            // Whoever has read the old one and accepts it has all of the new one.
            let baseline = self.partitions[number].baseline.map(|_| 0);
            self.partitions[number] = Partition { baseline, ..Partition::default() };
        }
        self.incarnation += 1;
    }
}

/// The bytes of a record's value: its own place is in it.
pub fn value(partition: i32, offset: i64, produced: Produced) -> String {
    let Produced { app, bad, generation, .. } = produced;
    let at = format!("at={partition}:{offset}:{generation};");
    match (bad, app) {
        (true, _) => format!("no json {at}"),
        (false, 0) => format!("{{\"m\":\"{at}\"}}"),
        (false, _) => format!("{{\"app_id\":\"app{app}\",\"other\":\"o{}\",\"m\":\"{at}\"}}", app / 2),
    }
}

#[derive(Debug)]
pub struct SimKafka(pub Arc<Process>);

impl SimKafka {
    async fn ask<T>(&self, answer: impl FnOnce(&mut Topic) -> T) -> Result<T, SourceError> {
        let Self(process) = self;
        process.cross().await;
        let world = &process.world;
        let (delay, fails) = {
            let mut rng = world.rng();
            (rng.between(1, 40), process.faulty && rng.chance(1))
        };
        sleep(Duration::from_millis(delay)).await;
        let answer = answer(&mut world.kafka());
        process.cross().await;
        if fails {
            return Err(SourceError::Unreachable { what: "broker".to_owned(), message: "simulated".to_owned() });
        }
        Ok(answer)
    }
}

#[async_trait]
impl Kafka for SimKafka {
    async fn cluster_id(&self) -> Result<Option<String>, SourceError> {
        self.ask(|_| Some("cluster".to_owned())).await
    }

    async fn topics(&self) -> Result<Vec<String>, SourceError> {
        Ok(vec![TOPIC.to_owned()])
    }

    async fn topic(&self, _name: &str) -> Result<Option<TopicInfo>, SourceError> {
        self.ask(|topic| Some(topic.info())).await
    }

    async fn offset(&self, _topic: &str, partition: i32, at: At, _: Isolation) -> Result<i64, SourceError> {
        self.ask(|topic| {
            let grows = topic.grows_when_asked && at != At::Earliest;
            let partition = &mut topic.partitions[partition as usize];
            let offset = match at {
                At::Earliest => partition.log_start as i64,
                At::Latest | At::TimestampMs(_) => partition.end(),
            };
            if grows {
                partition.records.push(Some(Produced::some()));
            }
            offset
        })
        .await
    }

    async fn diverged(&self, _topic: &str, partition: i32, seen: Position) -> Result<Option<Position>, SourceError> {
        let answer = self.ask(|topic| topic.partitions[partition as usize].diverged(seen)).await?;
        if answer.is_some() {
            self.0.world.count("truncation told of a partition that is not read");
        }
        Ok(answer)
    }

    fn read(&self, request: ReadRequest, events: mpsc::Sender<SourceEvent>) -> Reader {
        let Self(process) = self;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        {
            let mut topic = process.world.kafka();
            for &(partition, start) in &request.starts {
                topic.partitions[partition as usize].baseline.get_or_insert(start);
            }
        }
        for &(partition, start) in &request.starts {
            let mut read_from = process.world.read_from();
            let first = read_from.entry((process.id, partition)).or_insert(start);
            *first = start.min(*first);
        }
        let low = |partition: i32| process.world.oracle().low(partition);
        if request.starts.iter().any(|&(partition, start)| low(partition).is_some_and(|low| low < start)) {
            process.world.count("spool adopted");
        }
        process.world.trace(format_args!("{} reads from {:?}", process.id, request.starts));
        let reader = run(Arc::clone(process), request, events);
        tokio::spawn(async move { stopped.run_until_cancelled(reader).await });
        Reader::new(stop)
    }
}

/// What the next fetch of a partition brings.
enum Fetched {
    Nothing,
    Event(SourceEvent),
    Block(sluice::record::Block),
}

/// How far one partition is read.
struct Reading {
    partition: i32,
    offset: i64,
    /// The log has to be the same below it still.
    seen: Option<Position>,
}

async fn run(process: Arc<Process>, request: ReadRequest, events: mpsc::Sender<SourceEvent>) {
    let world = Arc::clone(&process.world);
    let seen = |partition| request.seen.iter().find(|(of, _)| *of == partition).map(|(_, seen)| *seen);
    let starts = request.starts.iter();
    let mut readings: Vec<Reading> =
        starts.map(|&(partition, offset)| Reading { partition, offset, seen: seen(partition) }).collect();
    let mut idle = false;
    while !readings.is_empty() {
        let delay = if idle { world.rng().between(300, 2_000) } else { world.rng().between(1, 60) };
        sleep(Duration::from_millis(delay)).await;
        process.cross().await;
        idle = true;
        let mut index = 0;
        while index < readings.len() {
            let reading = &mut readings[index];
            index += 1;
            let event = match fetch(&world, &process, &request, reading) {
                Fetched::Nothing => continue,
                Fetched::Event(event) => {
                    if matches!(event, SourceEvent::Failed { .. }) {
                        index -= 1;
                        readings.remove(index);
                    }
                    event
                }
                Fetched::Block(block) => {
                    let after = Position { offset: block.next_offset, leader_epoch: block.leader_epoch };
                    reading.offset = after.offset;
                    if reading.seen.is_none_or(|seen| seen.offset < after.offset) {
                        reading.seen = Some(after);
                    }
                    let permit = request.budget.reserve(block.memory_bytes()).await;
                    SourceEvent::Block(block, permit)
                }
            };
            idle = false;
            process.cross().await;
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

fn fetch(world: &World, process: &Process, request: &ReadRequest, reading: &Reading) -> Fetched {
    let Reading { partition, offset, seen } = *reading;
    let (most, overlap, waiting) = {
        let mut rng = world.rng();
        (rng.between(1, 12), rng.chance(5), process.faulty && rng.chance(1))
    };
    let topic = world.kafka();
    let log = &topic.partitions[partition as usize];
    let end = log.end();
    let failed = |error| Fetched::Event(SourceEvent::Failed { partition, offset, error });
    let found = topic.info().id;
    if found != request.topic_id {
        let id = |id: Option<TopicId>| id.map_or_else(String::new, |id| id.0);
        let (expected, found) = (id(request.topic_id.clone()), id(found));
        return failed(SourceError::Recreated { topic: TOPIC.to_owned(), expected, found });
    }
    if let Some(Position { offset: end_offset, .. }) = seen.and_then(|seen| log.diverged(seen)) {
        world.count("truncation told by its leader epoch");
        return failed(SourceError::Truncated { topic: TOPIC.to_owned(), partition, offset, end_offset });
    }
    let log_start = log.log_start as i64;
    if offset < log_start || offset > end {
        return failed(SourceError::OutOfRange { topic: TOPIC.to_owned(), partition, offset, log_start, log_end: end });
    }
    if waiting {
        return Fetched::Event(SourceEvent::Waiting { partition, offset, reason: "simulated".to_owned() });
    }
    if offset == end {
        return Fetched::Nothing;
    }
    let (epoch, begins, ends) = log.epoch_at(offset);
    // A fetch may bring records below what was asked for: the batch began there.
    let first = if overlap { (offset - 3).max(log_start).max(begins) } else { offset };
    let next = (offset + most as i64).min(ends);
    let mut block = BlockBuilder::default();
    for at in first..next {
        if let Some(produced) = log.records[at as usize] {
            let value = value(partition, at, produced);
            block.push(at, produced.timestamp_ms, None, Some(value.as_bytes()), |_| 0).unwrap();
        }
    }
    drop(topic);
    world.oracle().on_fetched(world, partition, first, next);
    world.belief().fetched.insert((process.id, partition), next);
    world.trace(format_args!("{} fetches {partition}:{first}..{next}", process.id));
    let mut block = block.finish(partition, next, end);
    block.leader_epoch = Some(epoch);
    Fetched::Block(block)
}
