//! Topics of every kind, made by Kafka's Java client on a real Kafka, read by the native reader and compared record by
//! record with what librdkafka and the Java consumer read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sluice::config::KafkaConfig;
use sluice::kafka::native;
use sluice::pipeline::source::{At, Isolation, Kafka, Position, SourceError};
use support::brokers::Brokers;
use support::kafka::{Oracle, Reading, address, ends, read_all, request, sockets_to, unique};
use support::librdkafka::{self, TimestampType};

const COMMITTED: Isolation = Isolation::ReadCommitted;
const UNCOMMITTED: Isolation = Isolation::ReadUncommitted;
/// The last but one that takes no topic ids in fetches, in the mode that needs no ZooKeeper.
const OLD_KAFKA: &str = "3.0.2";

/// A cluster with everybody who reads it.
struct Cluster {
    address: String,
    oracle: Oracle,
    kafka: Arc<dyn Kafka>,
}

impl Cluster {
    async fn shared() -> Option<Self> {
        Some(Self::at(address()?).await)
    }

    async fn at(address: String) -> Self {
        let kafka = native::connect(&KafkaConfig::plaintext(&address)).await.unwrap();
        Self { oracle: Oracle::start(&address), address, kafka }
    }

    fn ask(&mut self, command: &str) -> String {
        self.oracle.ask(command)
    }

    fn create(&mut self, name: &str, partitions: usize, settings: &str) -> String {
        let topic = unique(name);
        self.ask(format!("create {topic} {partitions} 1 {settings}").trim_end());
        topic
    }

    /// Reads the topic in both isolations with all three and returns how many records there are, uncommitted ones included.
    async fn same(&mut self, topic: &str) -> usize {
        self.same_with_times(topic, TimestampType::CreateTime).await
    }

    async fn same_with_times(&mut self, topic: &str, times: TimestampType) -> usize {
        let mut records = 0;
        for isolation in [COMMITTED, UNCOMMITTED] {
            let ours = read_all(&*self.kafka, topic, isolation).await;
            let librdkafka = librdkafka::read(&self.address, topic, isolation);
            compare(topic, isolation, &ours, &librdkafka.lines, "librdkafka");
            compare(topic, isolation, &ours, &self.oracle.dump(topic, isolation), "Java");
            assert!(librdkafka.timestamp_types.is_subset(&BTreeSet::from([times])), "{topic}: {times:?}");
            records = ours.len();
        }
        records
    }
}

fn compare(topic: &str, isolation: Isolation, ours: &[String], theirs: &[String], who: &str) {
    let different = ours.iter().zip(theirs).find(|(ours, theirs)| ours != theirs);
    assert!(different.is_none(), "{topic} {isolation:?}: (ours, {who}) {different:?}");
    assert_eq!(ours.len(), theirs.len(), "{topic} {isolation:?}: ours, {who}");
}

async fn codecs(cluster: &mut Cluster) {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let by_producer = cluster.create(&format!("codec-{codec}"), 2, "");
        cluster.ask(&format!("produce {by_producer} -1 {codec} 3000 200"));
        assert_eq!(cluster.same(&by_producer).await, 3000);
        let setting = if codec == "none" { "uncompressed" } else { codec };
        let by_topic = cluster.create(&format!("topic-codec-{codec}"), 1, &format!("compression.type={setting}"));
        cluster.ask(&format!("produce {by_topic} 0 lz4 1000 200"));
        cluster.ask(&format!("produce {by_topic} 0 none 1000 200"));
        assert_eq!(cluster.same(&by_topic).await, 2000);
        // Snappy without the framing of Java's library, and headers of another hand.
        let by_librdkafka = cluster.create(&format!("librdkafka-{codec}"), 1, "");
        librdkafka::produce(&cluster.address, &by_librdkafka, codec, 2000);
        assert_eq!(cluster.same(&by_librdkafka).await, 2000);
    }
}

async fn odd_records(cluster: &mut Cluster) {
    let topic = cluster.create("log-append-time", 1, "message.timestamp.type=LogAppendTime");
    cluster.ask(&format!("produce {topic} 0 zstd 500 100"));
    assert_eq!(cluster.same_with_times(&topic, TimestampType::LogAppendTime).await, 500);
    let topic = cluster.create("cases", 1, "max.message.bytes=10000000 retention.ms=-1");
    cluster.ask(&format!("cases {topic}"));
    assert_eq!(cluster.same(&topic).await, 72);
}

async fn transactions(cluster: &mut Cluster) {
    for (partitions, codec) in [(1, "none"), (3, "lz4")] {
        let topic = cluster.create("transactions", partitions, "");
        cluster.ask(&format!("transactions {topic} 25 {codec}"));
        assert_eq!(cluster.same(&topic).await, 300, "read_uncommitted shows every record");
    }
    // Nothing but the markers of a transaction without records of its own remains at the end, and in all of it.
    let topic = cluster.create("aborted", 1, "");
    for _ in 0..3 {
        cluster.ask(&format!("begin {topic}-t {topic} 0 4"));
        cluster.ask(&format!("abort {topic}-t"));
    }
    assert_eq!(cluster.same(&topic).await, 12);
    assert_eq!(read_all(&*cluster.kafka, &topic, COMMITTED).await.len(), 0);
}

async fn compaction(cluster: &mut Cluster) {
    for kind in ["plain", "transactional"] {
        let settings =
            "cleanup.policy=compact segment.bytes=1048576 min.cleanable.dirty.ratio=0.01 delete.retention.ms=0";
        let topic = cluster.create(&format!("compacted-{kind}"), 1, settings);
        let seen = cluster.ask(&format!("compact {topic} {kind}"));
        eprintln!("{kind}: {seen} records left");
        cluster.same(&topic).await;
    }
}

async fn deleted_records(cluster: &mut Cluster) {
    let topic = cluster.create("deleted", 1, "");
    cluster.ask(&format!("produce {topic} 0 lz4 1000 100"));
    cluster.ask(&format!("delete-records {topic} 0 400"));
    assert_eq!(cluster.same(&topic).await, 600);
    let mut early = request(&*cluster.kafka, &topic, COMMITTED).await;
    early.starts = vec![(0, 399)];
    let error = Reading::start(&*cluster.kafka, early).failure().await;
    assert!(matches!(error, SourceError::OutOfRange { offset: 399, log_start: 400, log_end: 1000, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codecs_timestamps_and_odd_records_are_read_as_others_read_them() {
    let Some(mut cluster) = Cluster::shared().await else { return };
    codecs(&mut cluster).await;
    odd_records(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_read_as_others_read_them() {
    let Some(mut cluster) = Cluster::shared().await else { return };
    transactions(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_is_waited_for() {
    let Some(mut cluster) = Cluster::shared().await else { return };
    let kafka = Arc::clone(&cluster.kafka);
    let topic = cluster.create("open", 1, "");
    cluster.ask(&format!("produce {topic} 0 none 5 50"));
    cluster.ask(&format!("begin {topic}-t {topic} 0 4"));
    cluster.ask(&format!("produce {topic} 0 none 5 50"));
    assert_eq!(kafka.offset(&topic, 0, At::Latest, COMMITTED).await.unwrap(), 5);
    assert_eq!(kafka.offset(&topic, 0, At::Latest, UNCOMMITTED).await.unwrap(), 14);
    assert_eq!(cluster.same(&topic).await, 14);
    let mut reading = Reading::start(&*kafka, request(&*kafka, &topic, COMMITTED).await);
    reading.until(&BTreeMap::from([(0, 5)])).await;
    assert_eq!(reading.lines.len(), 5);
    cluster.ask(&format!("commit {topic}-t"));
    reading.until(&BTreeMap::from([(0, 15)])).await;
    assert_eq!(reading.sorted(), librdkafka::read(&cluster.address, &topic, COMMITTED).lines);
    assert_eq!(reading.lines.len(), 14, "the marker is no record but moves the position");
    cluster.ask(&format!("begin {topic}-t {topic} 0 3"));
    cluster.ask(&format!("abort {topic}-t"));
    reading.until(&BTreeMap::from([(0, 19)])).await;
    assert_eq!(reading.lines.len(), 14, "a tail of aborted records and markers");
    assert_eq!(cluster.same(&topic).await, 17);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compacted_topics_are_read_as_others_read_them() {
    let Some(mut cluster) = Cluster::shared().await else { return };
    compaction(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_are_told_and_the_rest_is_read() {
    let Some(mut cluster) = Cluster::shared().await else { return };
    deleted_records(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_come_while_it_reads_are_read_as_others_read_them() {
    let Some(mut cluster) = Cluster::shared().await else { return };
    let kafka = Arc::clone(&cluster.kafka);
    let topic = cluster.create("growing", 3, "");
    let mut wanted = request(&*kafka, &topic, COMMITTED).await;
    wanted.starts = vec![(0, 0), (1, 0), (2, 0)];
    let mut reading = Reading::start(&*kafka, wanted);
    let name = topic.clone();
    let growing = tokio::task::spawn_blocking(move || {
        for (codec, size) in [("lz4", 100), ("none", 20_000), ("zstd", 10), ("snappy", 3000), ("gzip", 400)] {
            cluster.ask(&format!("produce {name} -1 {codec} 900 {size}"));
        }
        cluster
    });
    reading.until(&BTreeMap::from([(0, 1500), (1, 1500), (2, 1500)])).await;
    let mut cluster = growing.await.unwrap();
    compare(
        &topic,
        COMMITTED,
        &reading.sorted(),
        &librdkafka::read(&cluster.address, &topic, COMMITTED).lines,
        "librdkafka",
    );
    assert_eq!(cluster.same(&topic).await, 4500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_kafka_s_topics_are_read_as_others_read_them() {
    if address().is_none() {
        return;
    }
    let brokers = Brokers::start_version(OLD_KAFKA);
    let mut cluster = Cluster::at(brokers.address()).await;
    codecs(&mut cluster).await;
    odd_records(&mut cluster).await;
    transactions(&mut cluster).await;
    deleted_records(&mut cluster).await;
    compaction(&mut cluster).await;
    let topic = cluster.create("known-by-id", 1, "");
    assert!(cluster.kafka.topic(&topic).await.unwrap().unwrap().id.is_some(), "fetches alone do without ids there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_retention_of_a_topic_is_told() {
    let Some(mut cluster) = Cluster::shared().await else { return };
    let kafka = Arc::clone(&cluster.kafka);
    for (settings, retention) in [
        ("retention.ms=7200000", Some(Duration::from_secs(7200))),
        // What dev/kafka sets for the broker.
        ("", None),
        ("cleanup.policy=compact retention.ms=7200000", None),
    ] {
        let topic = cluster.create("retention", 1, settings);
        assert_eq!(kafka.retention(&topic).await.unwrap(), retention, "{settings}");
    }
    let error = kafka.retention(&unique("no-such")).await.unwrap_err();
    assert!(matches!(error, SourceError::NoTopic { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_topic_is_never_read_with_old_positions() {
    let Some(mut cluster) = Cluster::shared().await else { return };
    let kafka = Arc::clone(&cluster.kafka);
    let topic = cluster.create("recreated", 1, "");
    cluster.ask(&format!("produce {topic} 0 none 10 50"));
    let old = request(&*kafka, &topic, COMMITTED).await;
    let mut running = Reading::start(&*kafka, old.clone());
    running.until(&ends(&*kafka, &old).await).await;
    cluster.ask(&format!("delete-topic {topic}"));
    cluster.ask(&format!("create {topic} 1 1"));
    cluster.ask(&format!("produce {topic} 0 none 50 50"));
    let error = running.failure().await;
    assert!(matches!(error, SourceError::Recreated { .. }), "{error}");
    assert_eq!(running.lines.len(), 10);
    let mut later = old;
    later.starts = vec![(0, 10)];
    let error = Reading::start(&*kafka, later).failure().await;
    assert!(matches!(error, SourceError::Recreated { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_offsets_are_seen_by_kafka_s_tools() {
    let Some(mut cluster) = Cluster::shared().await else { return };
    let (kafka, group) = (Arc::clone(&cluster.kafka), unique("sluice-test"));
    let topic = cluster.create("group", 2, "");
    cluster.ask(&format!("produce {topic} -1 none 20 50"));
    kafka.commit(&group, &topic, &[(0, 5), (1, 10)]).await.unwrap();
    assert_eq!(cluster.ask(&format!("lag {group}")), format!("{topic}-0=5 {topic}-1=10"));
    kafka.commit(&group, &topic, &[(0, 7)]).await.unwrap();
    assert_eq!(cluster.ask(&format!("lag {group}")), format!("{topic}-0=7 {topic}-1=10"));
    cluster.ask(&format!("join {group} {topic}"));
    let error = kafka.commit(&group, &topic, &[(0, 8)]).await.unwrap_err();
    assert!(matches!(&error, SourceError::Refused { message, .. } if message.contains("live members")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_past_the_end_of_its_epoch_is_a_truncation() {
    let Some(mut cluster) = Cluster::shared().await else { return };
    let kafka = Arc::clone(&cluster.kafka);
    let topic = cluster.create("epoch", 1, "");
    cluster.ask(&format!("produce {topic} 0 none 20 50"));
    let seen = |offset, leader_epoch| vec![(0, Position { offset, leader_epoch })];
    let mut wanted = request(&*kafka, &topic, COMMITTED).await;
    for same in [seen(20, Some(0)), seen(7, Some(0)), seen(21, None)] {
        wanted.seen = same;
        let mut reading = Reading::start(&*kafka, wanted.clone());
        reading.until(&BTreeMap::from([(0, 20)])).await;
        assert_eq!(reading.epochs, BTreeSet::from([Some(0)]));
    }
    wanted.seen = seen(21, Some(0));
    let error = Reading::start(&*kafka, wanted).failure().await;
    assert!(matches!(error, SourceError::Truncated { offset: 21, end_offset: 20, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_partitions_share_two_sockets() {
    if address().is_none() {
        return;
    }
    // A broker of its own: other tests have sockets to the shared one in this process.
    let brokers = Brokers::start(1);
    let mut cluster = Cluster::at(brokers.address()).await;
    let kafka = Arc::clone(&cluster.kafka);
    let topic = cluster.create("wide", 200, "");
    cluster.ask(&format!("produce {topic} -1 lz4 20000 150"));
    let wide = request(&*kafka, &topic, COMMITTED).await;
    let ends = ends(&*kafka, &wide).await;
    let mut reading = Reading::start(&*kafka, wide);
    reading.until(&ends).await;
    let port: u16 = cluster.address.rsplit_once(':').unwrap().1.parse().unwrap();
    assert_eq!(sockets_to(port), 2, "one for fetches, one for everything else");
    cluster.ask(&format!("produce {topic} 77 none 10 50"));
    reading.until(&BTreeMap::from([(77, ends[&77] + 10)])).await;
    assert_eq!(sockets_to(port), 2);
    compare(
        &topic,
        COMMITTED,
        &reading.sorted(),
        &librdkafka::read(&cluster.address, &topic, COMMITTED).lines,
        "librdkafka",
    );
    compare(&topic, COMMITTED, &reading.sorted(), &cluster.oracle.dump(&topic, COMMITTED), "Java");
}
