//! What every client behind the door must do, as tests that take a cluster to do it on.
//!
//! Owns: the expectations. Does not own: how a cluster is filled ([`Cluster`], one implementation per kind of cluster).

#![allow(clippy::panic, reason = "a failed expectation ends the test")]

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::kafka::memory::{MemoryKafka, MemoryRecord};
use crate::pipeline::budget::{Budget, Permit};
use crate::pipeline::produce::{HeaderList, Outgoing, ProduceError, Written};
use crate::pipeline::source::{At, Isolation, Kafka, Position, ReadRequest, SourceError, SourceEvent};
use crate::record::Block;

/// A cluster that a test fills, and the client under test connected to it.
#[async_trait]
pub(super) trait Cluster: Send + Sync {
    fn kafka(&self) -> &dyn Kafka;
    async fn create_topic(&self, name: &str, partitions: usize);
    /// Returns the offset of the first record.
    async fn append(&self, topic: &str, partition: i32, records: Vec<MemoryRecord>) -> i64;
    async fn delete_records(&self, topic: &str, partition: i32, offset: i64);
}

/// Long enough that only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

/// Runs the whole suite; `prefix` keeps the topics of runs apart.
pub(super) async fn run(cluster: &dyn Cluster, prefix: &str) {
    lists_topics_and_creates_none(cluster, &format!("{prefix}-list")).await;
    finds_offsets(cluster, &format!("{prefix}-offsets")).await;
    reads_every_field(cluster, &format!("{prefix}-fields")).await;
    reads_on_from_any_offset(cluster, &format!("{prefix}-middle")).await;
    reads_what_comes_later(cluster, &format!("{prefix}-later")).await;
    keeps_the_order_of_each_partition(cluster, &format!("{prefix}-order")).await;
    tells_that_records_are_gone(cluster, &format!("{prefix}-gone")).await;
    waits_for_the_budget(cluster, &format!("{prefix}-budget")).await;
    stops(cluster, &format!("{prefix}-stop")).await;
    missing_topic_fails(cluster, &format!("{prefix}-missing")).await;
    writes_every_field(cluster, &format!("{prefix}-write")).await;
    writes_in_order_and_by_key(cluster, &format!("{prefix}-write-order")).await;
    tells_which_record_was_not_written(cluster, &format!("{prefix}-write-large")).await;
}

async fn lists_topics_and_creates_none(cluster: &dyn Cluster, topic: &str) {
    let kafka = cluster.kafka();
    let missing = format!("{topic}-missing");
    cluster.create_topic(topic, 3).await;
    assert_eq!(kafka.topic(topic).await.unwrap().unwrap().partitions, [0, 1, 2]);
    assert!(kafka.topic(&missing).await.unwrap().is_none());
    let error = kafka.offset(&missing, 0, At::Latest, Isolation::ReadCommitted).await.unwrap_err();
    assert!(matches!(error, SourceError::NoTopic { .. }), "{error}");
    let topics = kafka.topics().await.unwrap();
    assert!(topics.iter().any(|name| name == topic), "{topics:?}");
    assert!(!topics.contains(&missing));
    assert!(!topics.iter().any(|name| name.starts_with("__")), "internal topics are left out");
}

async fn finds_offsets(cluster: &dyn Cluster, topic: &str) {
    let kafka = cluster.kafka();
    cluster.create_topic(topic, 1).await;
    let ask = |at| kafka.offset(topic, 0, at, Isolation::ReadCommitted);
    assert_eq!(ask(At::Earliest).await.unwrap(), 0);
    assert_eq!(ask(At::Latest).await.unwrap(), 0);
    let base = base_ms();
    let records = (0..10).map(|n| MemoryRecord { timestamp_ms: base + n * 100, ..record(n) }).collect();
    cluster.append(topic, 0, records).await;
    assert_eq!(ask(At::Latest).await.unwrap(), 10);
    assert_eq!(ask(At::TimestampMs(base + 250)).await.unwrap(), 3);
    assert_eq!(ask(At::TimestampMs(1)).await.unwrap(), 0);
    assert_eq!(ask(At::TimestampMs(base + 9_000)).await.unwrap(), 10, "no record is that young");
    cluster.delete_records(topic, 0, 4).await;
    assert_eq!(ask(At::Earliest).await.unwrap(), 4);
}

async fn reads_every_field(cluster: &dyn Cluster, topic: &str) {
    cluster.create_topic(topic, 1).await;
    let header = |key: &str, value: &[u8]| (key.as_bytes().to_vec(), Some(value.to_vec()));
    let records = vec![
        MemoryRecord { timestamp_ms: base_ms() - 123, ..record(1) },
        MemoryRecord { value: None, key: Some(b"tombstone".to_vec()), ..record(2) },
        MemoryRecord { value: Some(Vec::new()), key: None, ..record(3) },
        MemoryRecord {
            value: Some((0..=255).collect()),
            headers: vec![header("a", b"1"), header("b", b"")],
            ..record(4)
        },
        MemoryRecord { value: Some(vec![b'x'; 900_000]), key: Some(Vec::new()), ..record(5) },
    ];
    cluster.append(topic, 0, records.clone()).await;
    let mut reading = Reading::start(cluster.kafka(), topic, &[(0, 0)]);
    let read = reading.records(0, 5).await;
    assert_eq!(read, (0..).zip(records).collect::<Vec<(i64, MemoryRecord)>>());
    assert_eq!(reading.next_offsets[&0], 5);
}

fn outgoing(record: &MemoryRecord, partition: Option<i32>) -> Outgoing {
    let MemoryRecord { timestamp_ms, key, value, headers: pairs } = record.clone();
    let mut headers = HeaderList::default();
    pairs.iter().for_each(|(key, value)| headers.push(key, value.as_deref()));
    Outgoing { partition, key, value, headers, timestamp_ms }
}

async fn writes_every_field(cluster: &dyn Cluster, topic: &str) {
    cluster.create_topic(topic, 2).await;
    let header = |key: &str, value: Option<&[u8]>| (key.as_bytes().to_vec(), value.map(<[u8]>::to_vec));
    let records = vec![
        MemoryRecord { timestamp_ms: base_ms() - 123, key: None, ..record(1) },
        MemoryRecord { value: None, key: Some(b"tombstone".to_vec()), ..record(2) },
        MemoryRecord { value: Some(Vec::new()), key: Some(Vec::new()), ..record(3) },
        MemoryRecord {
            value: Some((0..=255).collect()),
            headers: vec![header("a", Some(b"1")), header("a", None), header("", Some(b""))],
            ..record(4)
        },
        MemoryRecord { value: Some(vec![b'x'; 700_000]), ..record(5) },
        MemoryRecord { value: Some(vec![b'y'; 700_000]), ..record(6) },
    ];
    let sent: Vec<Outgoing> = records.iter().map(|record| outgoing(record, Some(1))).collect();
    let written = cluster.kafka().produce(topic, &sent).await;
    let expected: Vec<_> = (0..6).map(|offset| Ok(Written { partition: 1, offset })).collect();
    assert_eq!(written, expected);
    let mut reading = Reading::start(cluster.kafka(), topic, &[(0, 0), (1, 0)]);
    assert_eq!(reading.records(1, 6).await, (0..).zip(records).collect::<Vec<(i64, MemoryRecord)>>());
    assert_eq!(cluster.kafka().produce(topic, &[]).await, []);
}

async fn writes_in_order_and_by_key(cluster: &dyn Cluster, topic: &str) {
    cluster.create_topic(topic, 3).await;
    // As Java's producer shares them out: the hashes are 1,357,151,166 and 1,161,502,112.
    let keys = [("foobar", 0), ("a-little-bit-long-string", 2)];
    let mut expected: BTreeMap<i32, Vec<MemoryRecord>> = BTreeMap::new();
    let mut sent = Vec::new();
    for n in 0..200 {
        let (key, partition) = keys[(n % 2) as usize];
        let written = MemoryRecord { key: Some(key.as_bytes().to_vec()), ..record(n) };
        sent.push(outgoing(&written, None));
        expected.entry(partition).or_default().push(written);
    }
    let written = cluster.kafka().produce(topic, &sent).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    for (partition, expected) in expected {
        let mut reading = Reading::start(cluster.kafka(), topic, &[(partition, 0)]);
        let read: Vec<MemoryRecord> =
            reading.records(partition, expected.len()).await.into_iter().map(|(_, record)| record).collect();
        assert_eq!(read, expected);
    }
    let keyless: Vec<Outgoing> = (0..3).map(|n| outgoing(&MemoryRecord { key: None, ..record(n) }, None)).collect();
    let written = cluster.kafka().produce(topic, &keyless).await;
    let mut partitions: Vec<i32> = written.iter().map(|written| written.as_ref().unwrap().partition).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2], "in turn");
}

async fn tells_which_record_was_not_written(cluster: &dyn Cluster, topic: &str) {
    cluster.create_topic(topic, 1).await;
    // No codec makes less of it.
    let mut state = 1_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    };
    let large = outgoing(&MemoryRecord { value: Some(noise(1_500_000)), ..record(1) }, None);
    let small = |n| outgoing(&record(n), None);
    let elsewhere = outgoing(&record(9), Some(7));
    let written = cluster.kafka().produce(topic, &[small(0), large, small(2), elsewhere]).await;
    let is_written = |at: usize, offset| written[at] == Ok(Written { partition: 0, offset });
    assert!(is_written(0, 0) && is_written(2, 1), "{written:?}");
    assert!(matches!(written[1], Err(ProduceError::TooLarge { bytes: 1_500_000.., .. })), "{written:?}");
    assert!(matches!(written[3], Err(ProduceError::NoTopic { .. })), "{written:?}");
    let missing = cluster.kafka().produce(&format!("{topic}-missing"), &[small(0)]).await;
    assert!(matches!(missing[..], [Err(ProduceError::NoTopic { .. })]), "{missing:?}");
    assert!(cluster.kafka().topic(&format!("{topic}-missing")).await.unwrap().is_none(), "it is not made");
}

async fn reads_on_from_any_offset(cluster: &dyn Cluster, topic: &str) {
    cluster.create_topic(topic, 1).await;
    cluster.append(topic, 0, (0..50).map(record).collect()).await;
    for start in [0, 17, 49] {
        let mut reading = Reading::start(cluster.kafka(), topic, &[(0, start)]);
        let read = reading.records(0, 50 - start as usize).await;
        assert_eq!(read, (start..50).map(|n| (n, record(n))).collect::<Vec<_>>());
    }
}

async fn reads_what_comes_later(cluster: &dyn Cluster, topic: &str) {
    cluster.create_topic(topic, 1).await;
    let mut reading = Reading::start(cluster.kafka(), topic, &[(0, 0)]);
    for n in 0..3 {
        cluster.append(topic, 0, vec![record(n)]).await;
        assert_eq!(reading.records(0, 1).await, [(n, record(n))]);
    }
}

async fn keeps_the_order_of_each_partition(cluster: &dyn Cluster, topic: &str) {
    cluster.create_topic(topic, 4).await;
    for partition in 0..4 {
        for batch in 0..5 {
            cluster.append(topic, partition, (batch * 40..(batch + 1) * 40).map(record).collect()).await;
        }
    }
    let mut reading = Reading::start(cluster.kafka(), topic, &[(0, 0), (1, 100), (3, 0)]);
    for (partition, start) in [(3, 0), (1, 100), (0, 0)] {
        let read = reading.records(partition, 200 - start as usize).await;
        assert_eq!(read, (start..200).map(|n| (n, record(n))).collect::<Vec<_>>());
    }
    assert!(!reading.next_offsets.contains_key(&2), "partition 2 was not asked for");
}

async fn tells_that_records_are_gone(cluster: &dyn Cluster, topic: &str) {
    cluster.create_topic(topic, 1).await;
    cluster.append(topic, 0, (0..20).map(record).collect()).await;
    cluster.delete_records(topic, 0, 5).await;
    for position in [3, 21] {
        let error = Reading::start(cluster.kafka(), topic, &[(0, position)]).failure().await;
        match error {
            SourceError::OutOfRange { partition: 0, offset, log_start: 5, log_end: 20, .. } => {
                assert_eq!(offset, position)
            }
            other => panic!("expected out of range, got: {other}"),
        }
    }
    let mut at_start = Reading::start(cluster.kafka(), topic, &[(0, 5)]);
    assert_eq!(at_start.records(0, 15).await.len(), 15);
}

async fn waits_for_the_budget(cluster: &dyn Cluster, topic: &str) {
    cluster.create_topic(topic, 1).await;
    let big = |n| MemoryRecord { value: Some(vec![n as u8; 100_000]), ..record(n) };
    for n in 0..20 {
        cluster.append(topic, 0, vec![big(n)]).await;
    }
    let budget = Budget::new(600_000);
    let mut reading = Reading::with_budget(cluster.kafka(), topic, &[(0, 0)], &budget);
    let (block, permit) = reading.block().await;
    assert_eq!(permit.bytes(), block.memory_bytes(), "a permit counts what the block holds");
    let left = 20 - block.spans.len();
    drop((block, permit));
    reading.records(0, left).await;
    drop(reading);
    tokio::time::timeout(HANG, async {
        while budget.used_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("everything is given back");
}

async fn stops(cluster: &dyn Cluster, topic: &str) {
    cluster.create_topic(topic, 1).await;
    cluster.append(topic, 0, vec![record(0)]).await;
    let mut reading = Reading::start(cluster.kafka(), topic, &[(0, 0)]);
    reading.records(0, 1).await;
    drop(reading.reader.take());
    tokio::time::timeout(HANG, async { while reading.events.recv().await.is_some() {} })
        .await
        .expect("a dropped reader closes the channel");
}

async fn missing_topic_fails(cluster: &dyn Cluster, topic: &str) {
    let error = Reading::start(cluster.kafka(), topic, &[(0, 0)]).failure().await;
    assert!(matches!(error, SourceError::NoTopic { .. }), "{error}");
    assert!(cluster.kafka().topic(topic).await.unwrap().is_none());
}

/// The time of the run: Kafka's retention would remove records of a fixed time.
pub(super) fn base_ms() -> i64 {
    static BASE: OnceLock<i64> = OnceLock::new();
    *BASE.get_or_init(|| jiff::Timestamp::now().as_millisecond())
}

/// A record that tells its number in every field.
pub(super) fn record(n: i64) -> MemoryRecord {
    MemoryRecord {
        timestamp_ms: base_ms() + n,
        key: Some(format!("key-{n}").into_bytes()),
        value: Some(format!("value-{n}").into_bytes()),
        headers: Vec::new(),
    }
}

/// A read under way, with what came of partitions that were not waited for.
pub(super) struct Reading {
    pub(super) reader: Option<crate::pipeline::source::Reader>,
    pub(super) events: mpsc::Receiver<SourceEvent>,
    pub(super) next_offsets: BTreeMap<i32, i64>,
    pending: BTreeMap<i32, Vec<(i64, MemoryRecord)>>,
}

impl Reading {
    pub(super) fn start(kafka: &dyn Kafka, topic: &str, starts: &[(i32, i64)]) -> Self {
        Self::with_budget(kafka, topic, starts, &Budget::new(64 << 20))
    }

    pub(super) fn with_budget(kafka: &dyn Kafka, topic: &str, starts: &[(i32, i64)], budget: &Budget) -> Self {
        Self::with_request(
            kafka,
            ReadRequest {
                topic: topic.to_owned(),
                topic_id: None,
                isolation: Isolation::ReadCommitted,
                starts: starts.to_vec(),
                seen: Vec::new(),
                budget: budget.clone(),
            },
        )
    }

    pub(super) fn with_request(kafka: &dyn Kafka, request: ReadRequest) -> Self {
        let (sender, events) = mpsc::channel(4);
        let reader = Some(kafka.read(request, sender));
        Self { reader, events, next_offsets: BTreeMap::new(), pending: BTreeMap::new() }
    }

    async fn event(&mut self) -> SourceEvent {
        tokio::time::timeout(HANG, self.events.recv()).await.expect("the reader hangs").expect("the reader ended")
    }

    /// The next block that holds records.
    pub(super) async fn block(&mut self) -> (Block, Permit) {
        loop {
            match self.event().await {
                SourceEvent::Block(block, permit) => {
                    let next = self.next_offsets.insert(block.partition, block.next_offset).unwrap_or(i64::MIN);
                    assert!(next <= block.next_offset, "the position never goes back");
                    if !block.spans.is_empty() {
                        return (block, permit);
                    }
                }
                SourceEvent::Waiting { .. } => {}
                SourceEvent::Failed { error, .. } => panic!("reading failed: {error}"),
            }
        }
    }

    /// The next `count` records of a partition.
    pub(super) async fn records(&mut self, partition: i32, count: usize) -> Vec<(i64, MemoryRecord)> {
        while self.pending.get(&partition).map_or(0, Vec::len) < count {
            let (block, _permit) = self.block().await;
            self.pending.entry(block.partition).or_default().extend(owned(&block));
        }
        self.pending.entry(partition).or_default().drain(..count).collect()
    }

    pub(super) async fn failure(&mut self) -> SourceError {
        loop {
            match self.event().await {
                SourceEvent::Failed { error, .. } => return error,
                SourceEvent::Block(block, _) => assert!(block.spans.is_empty(), "read {block:?} before the failure"),
                SourceEvent::Waiting { .. } => {}
            }
        }
    }
}

pub(super) fn owned(block: &Block) -> Vec<(i64, MemoryRecord)> {
    block
        .records()
        .map(|record| {
            let headers = record.headers.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
            (
                record.offset,
                MemoryRecord {
                    timestamp_ms: record.timestamp_ms,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: headers.collect(),
                },
            )
        })
        .collect()
}

#[async_trait]
impl Cluster for MemoryKafka {
    fn kafka(&self) -> &dyn Kafka {
        self
    }

    async fn create_topic(&self, name: &str, partitions: usize) {
        MemoryKafka::create_topic(self, name, partitions);
    }

    async fn append(&self, topic: &str, partition: i32, records: Vec<MemoryRecord>) -> i64 {
        MemoryKafka::append(self, topic, partition, records).unwrap()
    }

    async fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        MemoryKafka::delete_records(self, topic, partition, offset);
    }
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    for block_records in [1, 7, 1000] {
        run(&MemoryKafka::new(block_records), "t").await;
    }
}

#[tokio::test]
async fn memory_shows_recreated_topics_and_open_transactions() {
    let kafka = MemoryKafka::default();
    kafka.create_topic("t", 1);
    let topic_id = kafka.topic("t").await.unwrap().unwrap().id;
    kafka.append("t", 0, (0..10).map(record));
    kafka.append_gap("t", 0, 2);
    kafka.set_stable_end("t", 0, Some(4));
    assert_eq!(kafka.offset("t", 0, At::Latest, Isolation::ReadCommitted).await.unwrap(), 4);
    assert_eq!(kafka.offset("t", 0, At::Latest, Isolation::ReadUncommitted).await.unwrap(), 12);
    let request = ReadRequest {
        topic: "t".into(),
        topic_id,
        isolation: Isolation::ReadCommitted,
        starts: vec![(0, 0)],
        seen: Vec::new(),
        budget: Budget::new(1 << 20),
    };
    let mut reading = Reading::with_request(&kafka, request.clone());
    assert_eq!(reading.records(0, 4).await.len(), 4);
    kafka.set_stable_end("t", 0, None);
    assert_eq!(reading.records(0, 6).await.len(), 6);
    assert_eq!(reading.next_offsets[&0], 12, "the gap belongs to the position");
    kafka.delete_topic("t");
    kafka.create_topic("t", 1);
    kafka.append("t", 0, (0..20).map(record));
    let error = Reading::with_request(&kafka, request).failure().await;
    assert!(matches!(error, SourceError::Recreated { .. }), "{error}");
}

#[tokio::test]
async fn memory_tells_truncations_by_epochs() {
    let kafka = MemoryKafka::default();
    kafka.create_topic("t", 1);
    kafka.append("t", 0, (0..10).map(record));
    let request = |start, seen| ReadRequest {
        topic: "t".into(),
        topic_id: None,
        isolation: Isolation::ReadCommitted,
        starts: vec![(0, start)],
        seen,
        budget: Budget::new(1 << 20),
    };
    let mut running = Reading::with_request(&kafka, request(0, Vec::new()));
    assert_eq!(running.block().await.0.leader_epoch, Some(0));
    kafka.truncate("t", 0, 6);
    kafka.append("t", 0, (6..30).map(record));
    let error = running.failure().await;
    assert!(matches!(error, SourceError::Truncated { offset: 10, end_offset: 6, .. }), "{error}");
    let seen = |offset| vec![(0, Position { offset, leader_epoch: Some(0) })];
    let error = Reading::with_request(&kafka, request(2, seen(7))).failure().await;
    assert!(matches!(error, SourceError::Truncated { offset: 7, end_offset: 6, .. }), "{error}");
    let seen = |offset| Position { offset, leader_epoch: Some(0) };
    assert_eq!(kafka.diverged("t", 0, seen(7)).await.unwrap(), Some(seen(6)));
    assert_eq!(kafka.diverged("t", 0, seen(6)).await.unwrap(), None);
    let mut same = Reading::with_request(&kafka, request(2, vec![(0, seen(6))]));
    let epochs = [same.block().await.0.leader_epoch, same.block().await.0.leader_epoch];
    assert_eq!(epochs, [Some(0), Some(1)], "a block is of one epoch");
}
