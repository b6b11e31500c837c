//! Leader moves, a killed broker and its return, a log that was lost: on real brokers of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]
// The helpers are shared with tests that need more of them.
#![allow(dead_code)]

mod support;

use std::collections::BTreeSet;

use sluice::config::KafkaConfig;
use sluice::kafka::native;
use sluice::pipeline::source::{Isolation, Position, SourceError};
use support::brokers::Brokers;
use support::kafka::{Oracle, Reading, address, ends, request, sockets_to, unique};
use support::librdkafka;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_through_leader_moves_and_killed_brokers() {
    if address().is_none() {
        return;
    }
    let brokers = Brokers::start(3);
    let address = brokers.address();
    let mut oracle = Oracle::start(&address);
    let kafka = native::connect(&KafkaConfig::plaintext(&address)).await.unwrap();
    let topic = unique("moves");
    oracle.ask(&format!("create {topic} 3 3 min.insync.replicas=1"));
    let mut wanted = request(&*kafka, &topic, Isolation::ReadCommitted).await;
    // A partition may still be without its first offset when the topic is new.
    wanted.starts.iter_mut().for_each(|start| start.1 = 0);
    let mut reading = Reading::start(&*kafka, wanted.clone());

    for broker in [2, 3, 1] {
        oracle.ask(&format!("produce {topic} -1 lz4 300 100"));
        oracle.ask(&format!("move {topic} 0 {broker}"));
        oracle.ask(&format!("produce {topic} -1 none 300 100"));
        reading.until(&ends(&*kafka, &wanted).await).await;
    }
    // A partition whose only copy goes to another broker, and is deleted where it was.
    let lonely = unique("reassigned");
    oracle.ask(&format!("create {lonely} 1 1"));
    let mut wanted_lonely = request(&*kafka, &lonely, Isolation::ReadCommitted).await;
    wanted_lonely.starts = vec![(0, 0)];
    let mut lonely_reading = Reading::start(&*kafka, wanted_lonely.clone());
    for broker in [2, 3, 1, 2] {
        oracle.ask(&format!("produce {lonely} 0 lz4 300 100"));
        oracle.ask(&format!("reassign {lonely} 0 {broker}"));
        oracle.ask(&format!("produce {lonely} 0 none 300 100"));
        lonely_reading.until(&ends(&*kafka, &wanted_lonely).await).await;
    }
    assert_eq!(lonely_reading.sorted(), librdkafka::read(&address, &lonely, Isolation::ReadCommitted).lines);
    drop(lonely_reading);

    for round in 0..2 {
        let leader = oracle.ask(&format!("leader {topic} 0"));
        brokers.run(&["kill"], &[&leader]);
        oracle.ask(&format!("produce {topic} -1 zstd 300 100"));
        reading.until(&ends(&*kafka, &wanted).await).await;
        brokers.run(&["start"], &[]);
        oracle.ask(&format!("produce {topic} -1 zstd 300 100"));
        reading.until(&ends(&*kafka, &wanted).await).await;
        eprintln!("round {round}: {} waits", reading.waits);
    }
    assert_eq!(reading.sorted(), oracle.dump(&topic, Isolation::ReadCommitted));
    assert_eq!(reading.sorted(), librdkafka::read(&address, &topic, Isolation::ReadCommitted).lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_its_end_is_told_as_truncated() {
    if address().is_none() {
        return;
    }
    let brokers = Brokers::start(1);
    let address = brokers.address();
    let mut oracle = Oracle::start(&address);
    let kafka = native::connect(&KafkaConfig::plaintext(&address)).await.unwrap();
    let topic = unique("lost");
    oracle.ask(&format!("create {topic} 1 1"));
    oracle.ask(&format!("produce {topic} 0 lz4 100 100"));
    let wanted = request(&*kafka, &topic, Isolation::ReadCommitted).await;
    let mut reading = Reading::start(&*kafka, wanted.clone());
    reading.until(&ends(&*kafka, &wanted).await).await;
    assert_eq!(reading.epochs, BTreeSet::from([Some(0)]));

    brokers.run(&["kill"], &["1"]);
    let log = brokers.dir.path().join(format!("kafka/1/data/{topic}-0"));
    std::fs::remove_dir_all(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    brokers.run(&["start"], &[]);
    // More records than the position, so that the position exists again and only the epoch tells.
    oracle.ask(&format!("produce {topic} 0 lz4 150 100"));

    let error = reading.failure().await;
    assert!(matches!(error, SourceError::Truncated { offset: 100, .. }), "{error}");
    assert_eq!(reading.lines.len(), 100, "nothing of the other log was read");
    // The same after a restart, from a place that is there in both logs, with what was kept of the first read.
    let mut later = wanted;
    later.starts = vec![(0, 20)];
    later.seen = vec![(0, Position { offset: 100, leader_epoch: Some(0) })];
    let mut reading = Reading::start(&*kafka, later);
    let error = reading.failure().await;
    assert!(matches!(error, SourceError::Truncated { offset: 100, end_offset: 0, .. }), "{error}");
    assert_eq!(reading.lines.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_in_the_client_s_rack_is_read() {
    if address().is_none() {
        return;
    }
    let brokers = Brokers::start(3);
    brokers.run(&["stop"], &[]);
    for broker in 1..=3 {
        let file = brokers.dir.path().join(format!("kafka/{broker}/server.properties"));
        let mut properties = std::fs::read_to_string(&file).unwrap();
        properties.push_str(&format!(
            "broker.rack=rack-{broker}\nreplica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector\n"
        ));
        std::fs::write(&file, properties).unwrap();
    }
    brokers.run(&["start"], &[]);
    let address = brokers.address();
    let mut oracle = Oracle::start(&address);
    let topic = unique("racks");
    oracle.ask(&format!("create {topic} 1 3 min.insync.replicas=1"));
    oracle.ask(&format!("move {topic} 0 1"));
    oracle.ask(&format!("produce {topic} 0 lz4 500 100"));
    // Only broker 1 is asked for the way in, so a connection to broker 3 is one for fetches.
    let servers: Vec<&str> = address.split(',').collect();
    let port: u16 = servers[2].rsplit_once(':').unwrap().1.parse().unwrap();
    let mut settings = KafkaConfig::plaintext(servers[0]);
    settings.client_rack = Some("rack-3".into());
    let kafka = native::connect(&settings).await.unwrap();
    let wanted = request(&*kafka, &topic, Isolation::ReadCommitted).await;
    let before = sockets_to(port);
    let mut reading = Reading::start(&*kafka, wanted.clone());
    reading.until(&ends(&*kafka, &wanted).await).await;
    assert_eq!(sockets_to(port), before + 1, "the records come from broker 3");
    oracle.ask(&format!("move {topic} 0 2"));
    oracle.ask(&format!("produce {topic} 0 lz4 500 100"));
    reading.until(&ends(&*kafka, &wanted).await).await;
    brokers.run(&["kill"], &["3"]);
    oracle.ask(&format!("produce {topic} 0 lz4 500 100"));
    reading.until(&ends(&*kafka, &wanted).await).await;
    assert_eq!(reading.sorted(), oracle.dump(&topic, Isolation::ReadCommitted));
    assert_eq!(reading.sorted(), librdkafka::read(&address, &topic, Isolation::ReadCommitted).lines);
}
