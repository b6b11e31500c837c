//! Kafka's twin: one topic, read with delays.
//!
//! Owns: what was produced, retention, recreation, what was read first.
//! Does not own: what became of the records.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluice::pipeline::source::{
    At, Isolation, Kafka, ReadRequest, Reader, SourceError, SourceEvent, TopicId, TopicInfo,
};
use sluice::record::BlockBuilder;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::process::Process;
use crate::world::{EPOCH_MS, World};

pub const TOPIC: &str = "applogs";

/// What was produced at an offset.
#[derive(Clone, Copy, Debug)]
pub struct Produced {
    pub app: u8,
    pub timestamp_ms: i64,
    /// It can't be split.
    pub bad: bool,
}

#[derive(Debug, Default)]
pub struct Partition {
    /// By offset; `None` is a hole (a control batch, compaction).
    pub records: Vec<Option<Produced>>,
    pub log_start: usize,
    /// Where the first reader of all began: from here on nothing may be missed.
    pub baseline: Option<i64>,
}

#[derive(Debug, Default)]
pub struct Topic {
    pub partitions: Vec<Partition>,
    pub incarnation: u32,
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
}

/// The bytes of a record's value: its own place is in it.
pub fn value(partition: i32, offset: i64, produced: Produced) -> String {
    let Produced { app, bad, .. } = produced;
    match (bad, app) {
        (true, _) => format!("no json at={partition}:{offset};"),
        (false, 0) => format!("{{\"m\":\"at={partition}:{offset};\"}}"),
        (false, _) => format!("{{\"app_id\":\"app{app}\",\"m\":\"at={partition}:{offset};\"}}"),
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
                At::Latest | At::TimestampMs(_) => partition.records.len() as i64,
            };
            if grows {
                partition.records.push(Some(Produced { app: 1, timestamp_ms: EPOCH_MS, bad: false }));
            }
            offset
        })
        .await
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

async fn run(process: Arc<Process>, request: ReadRequest, events: mpsc::Sender<SourceEvent>) {
    let world = Arc::clone(&process.world);
    let mut positions = request.starts.clone();
    let mut idle = false;
    while !positions.is_empty() {
        let delay = if idle { world.rng().between(300, 2_000) } else { world.rng().between(1, 60) };
        sleep(Duration::from_millis(delay)).await;
        process.cross().await;
        idle = true;
        let mut index = 0;
        while index < positions.len() {
            let (partition, offset) = positions[index];
            index += 1;
            let event = match fetch(&world, &process, &request, partition, offset) {
                Fetched::Nothing => continue,
                Fetched::Event(event) => {
                    if matches!(event, SourceEvent::Failed { .. }) {
                        index -= 1;
                        positions.remove(index);
                    }
                    event
                }
                Fetched::Block(block) => {
                    positions[index - 1].1 = block.next_offset;
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

fn fetch(world: &World, process: &Process, request: &ReadRequest, partition: i32, offset: i64) -> Fetched {
    let (most, overlap, waiting) = {
        let mut rng = world.rng();
        (rng.between(1, 12), rng.chance(5), process.faulty && rng.chance(1))
    };
    let topic = world.kafka();
    let log = &topic.partitions[partition as usize];
    let end = log.records.len() as i64;
    let found = topic.info().id;
    if found != request.topic_id {
        let id = |id: Option<TopicId>| id.map_or_else(String::new, |id| id.0);
        let error = SourceError::Recreated {
            topic: TOPIC.to_owned(),
            expected: id(request.topic_id.clone()),
            found: id(found),
        };
        return Fetched::Event(SourceEvent::Failed { partition, offset, error });
    }
    let log_start = log.log_start as i64;
    if offset < log_start || offset > end {
        let error = SourceError::OutOfRange { topic: TOPIC.to_owned(), partition, offset, log_start, log_end: end };
        return Fetched::Event(SourceEvent::Failed { partition, offset, error });
    }
    if waiting {
        return Fetched::Event(SourceEvent::Waiting { partition, offset, reason: "simulated".to_owned() });
    }
    if offset == end {
        return Fetched::Nothing;
    }
    // A fetch may bring records below what was asked for: the batch began there.
    let first = if overlap { (offset - 3).max(log_start) } else { offset };
    let next = (offset + most as i64).min(end);
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
    Fetched::Block(block.finish(partition, next, end))
}
