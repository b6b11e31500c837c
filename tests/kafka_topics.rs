//! Topics of every kind, made by Kafka's Java client on a real Kafka, read by the native reader and compared record by
//! record with what the Java consumer reads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice::kafka::native;
use sluice::pipeline::source::{At, Isolation, Kafka, SourceError};
use support::kafka::{Oracle, Reading, address, config, ends, read_all, request, sockets_to, unique};

const COMMITTED: Isolation = Isolation::ReadCommitted;
const UNCOMMITTED: Isolation = Isolation::ReadUncommitted;

/// Tests of this file, which may run at once and have two sockets each.
const TESTS: usize = 9;

async fn start() -> Option<(Oracle, Arc<dyn Kafka>)> {
    let address = address()?;
    let kafka = native::connect(&config(&address)).await.unwrap();
    Some((Oracle::start(&address), kafka))
}

async fn same(oracle: &mut Oracle, kafka: &dyn Kafka, topic: &str) -> usize {
    let mut records = 0;
    for isolation in [COMMITTED, UNCOMMITTED] {
        let ours = read_all(kafka, topic, isolation).await;
        let theirs = oracle.dump(topic, isolation);
        let different = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
        assert!(different.is_none(), "{topic} {isolation:?}: (ours, theirs) {different:?}");
        assert_eq!(ours.len(), theirs.len(), "{topic} {isolation:?}");
        records = ours.len();
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codecs_timestamps_and_odd_records_are_read_as_java_reads_them() {
    let Some((mut oracle, kafka)) = start().await else { return };
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let by_producer = unique(&format!("codec-{codec}"));
        oracle.ask(&format!("create {by_producer} 2 1"));
        oracle.ask(&format!("produce {by_producer} -1 {codec} 3000 200"));
        assert_eq!(same(&mut oracle, &*kafka, &by_producer).await, 3000);
        let by_topic = unique(&format!("topic-codec-{codec}"));
        let setting = if codec == "none" { "uncompressed" } else { codec };
        oracle.ask(&format!("create {by_topic} 1 1 compression.type={setting}"));
        oracle.ask(&format!("produce {by_topic} 0 lz4 1000 200"));
        oracle.ask(&format!("produce {by_topic} 0 none 1000 200"));
        assert_eq!(same(&mut oracle, &*kafka, &by_topic).await, 2000);
    }
    let topic = unique("log-append-time");
    oracle.ask(&format!("create {topic} 1 1 message.timestamp.type=LogAppendTime"));
    oracle.ask(&format!("produce {topic} 0 zstd 500 100"));
    assert_eq!(same(&mut oracle, &*kafka, &topic).await, 500);
    let topic = unique("cases");
    oracle.ask(&format!("create {topic} 1 1 max.message.bytes=10000000 retention.ms=-1"));
    oracle.ask(&format!("cases {topic}"));
    assert_eq!(same(&mut oracle, &*kafka, &topic).await, 96);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_read_as_java_reads_them() {
    let Some((mut oracle, kafka)) = start().await else { return };
    for (partitions, codec) in [(1, "none"), (3, "lz4")] {
        let topic = unique("transactions");
        oracle.ask(&format!("create {topic} {partitions} 1"));
        oracle.ask(&format!("transactions {topic} 25 {codec}"));
        assert_eq!(same(&mut oracle, &*kafka, &topic).await, 300, "read_uncommitted shows every record");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_is_waited_for() {
    let Some((mut oracle, kafka)) = start().await else { return };
    let topic = unique("open");
    oracle.ask(&format!("create {topic} 1 1"));
    oracle.ask(&format!("produce {topic} 0 none 5 50"));
    oracle.ask(&format!("begin {topic}-t {topic} 0 4"));
    oracle.ask(&format!("produce {topic} 0 none 5 50"));
    assert_eq!(kafka.offset(&topic, 0, At::Latest, COMMITTED).await.unwrap(), 5);
    assert_eq!(kafka.offset(&topic, 0, At::Latest, UNCOMMITTED).await.unwrap(), 14);
    let mut reading = Reading::start(&*kafka, request(&*kafka, &topic, COMMITTED).await);
    reading.until(&BTreeMap::from([(0, 5)])).await;
    assert_eq!(reading.lines.len(), 5);
    oracle.ask(&format!("commit {topic}-t"));
    reading.until(&BTreeMap::from([(0, 15)])).await;
    assert_eq!(reading.sorted(), oracle.dump(&topic, COMMITTED));
    assert_eq!(reading.lines.len(), 14, "the marker is no record but moves the position");
    oracle.ask(&format!("begin {topic}-t {topic} 0 3"));
    oracle.ask(&format!("abort {topic}-t"));
    reading.until(&BTreeMap::from([(0, 19)])).await;
    assert_eq!(reading.lines.len(), 14, "a tail of aborted records and markers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compacted_topics_are_read_as_java_reads_them() {
    let Some((mut oracle, kafka)) = start().await else { return };
    for kind in ["plain", "transactional"] {
        let topic = unique(&format!("compacted-{kind}"));
        oracle.ask(&format!(
            "create {topic} 1 1 cleanup.policy=compact segment.bytes=1048576 min.cleanable.dirty.ratio=0.01 delete.retention.ms=0"
        ));
        let seen = oracle.ask(&format!("compact {topic} {kind}"));
        eprintln!("{kind}: {seen} records left");
        same(&mut oracle, &*kafka, &topic).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_are_told_and_the_rest_is_read() {
    let Some((mut oracle, kafka)) = start().await else { return };
    let topic = unique("deleted");
    oracle.ask(&format!("create {topic} 1 1"));
    oracle.ask(&format!("produce {topic} 0 lz4 1000 100"));
    oracle.ask(&format!("delete-records {topic} 0 400"));
    assert_eq!(same(&mut oracle, &*kafka, &topic).await, 600);
    let mut early = request(&*kafka, &topic, COMMITTED).await;
    early.starts = vec![(0, 399)];
    let error = Reading::start(&*kafka, early).failure().await;
    assert!(matches!(error, SourceError::OutOfRange { offset: 399, log_start: 400, log_end: 1000, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_topic_is_never_read_with_old_positions() {
    let Some((mut oracle, kafka)) = start().await else { return };
    let topic = unique("recreated");
    oracle.ask(&format!("create {topic} 1 1"));
    oracle.ask(&format!("produce {topic} 0 none 10 50"));
    let old = request(&*kafka, &topic, COMMITTED).await;
    let mut running = Reading::start(&*kafka, old.clone());
    running.until(&ends(&*kafka, &old).await).await;
    oracle.ask(&format!("delete-topic {topic}"));
    oracle.ask(&format!("create {topic} 1 1"));
    oracle.ask(&format!("produce {topic} 0 none 50 50"));
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
    let Some((mut oracle, kafka)) = start().await else { return };
    let (topic, group) = (unique("group"), unique("sluice-test"));
    oracle.ask(&format!("create {topic} 2 1"));
    oracle.ask(&format!("produce {topic} -1 none 20 50"));
    kafka.commit(&group, &topic, &[(0, 5), (1, 10)]).await.unwrap();
    assert_eq!(oracle.ask(&format!("lag {group}")), format!("{topic}-0=5 {topic}-1=10"));
    kafka.commit(&group, &topic, &[(0, 7)]).await.unwrap();
    assert_eq!(oracle.ask(&format!("lag {group}")), format!("{topic}-0=7 {topic}-1=10"));
    oracle.ask(&format!("join {group} {topic}"));
    let error = kafka.commit(&group, &topic, &[(0, 8)]).await.unwrap_err();
    assert!(matches!(&error, SourceError::Refused { message, .. } if message.contains("live members")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_an_epoch_is_found() {
    let Some((mut oracle, kafka)) = start().await else { return };
    let topic = unique("epoch");
    oracle.ask(&format!("create {topic} 1 1"));
    oracle.ask(&format!("produce {topic} 0 none 20 50"));
    assert_eq!(kafka.truncated_to(&topic, 0, 0, 20).await.unwrap(), None, "nothing was truncated");
    assert_eq!(kafka.truncated_to(&topic, 0, 0, 21).await.unwrap(), Some(20));
    assert_eq!(kafka.truncated_to(&topic, 0, -1, 21).await.unwrap(), None, "no epoch is known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_partitions_share_two_sockets() {
    let Some((mut oracle, kafka)) = start().await else { return };
    let topic = unique("wide");
    oracle.ask(&format!("create {topic} 200 1"));
    oracle.ask(&format!("produce {topic} -1 lz4 20000 150"));
    let wide = request(&*kafka, &topic, COMMITTED).await;
    let ends = ends(&*kafka, &wide).await;
    let mut reading = Reading::start(&*kafka, wide);
    reading.until(&ends).await;
    assert_eq!(reading.sorted(), oracle.dump(&topic, COMMITTED));
    // One for fetches, one for everything else; each test has a process-wide count of its own only when it runs alone.
    let port: u16 = address().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
    assert!(sockets_to(port) <= 2 * TESTS, "{} sockets", sockets_to(port));
    oracle.ask(&format!("produce {topic} 77 none 10 50"));
    let more = BTreeMap::from([(77, ends[&77] + 10)]);
    reading.until(&more).await;
}
