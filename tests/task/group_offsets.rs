//! Lows as offsets of a Kafka group, for lag tools.

use std::sync::atomic::{AtomicI64, Ordering};

use sluice::clock::{Clock, SystemRandom};
use sluice::config::KafkaConfig;
use sluice::kafka::native;
use tokio::time::Instant;

use super::support::brokers::Brokers;
use super::support::kafka::Oracle;
use super::*;

/// All offsets are copied at least this often.
const HOUR_MS: i64 = 3_600_000;

/// A clock that a test moves.
#[derive(Debug)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

async fn commits(kafka: &MemoryKafka, count: usize) -> Vec<Vec<(i32, i64)>> {
    let wait = async {
        while kafka.commits().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("the lows are not copied"));
    kafka.commits().into_iter().map(|commit| commit.offsets).collect()
}

/// Kafka forgets offsets of a group without members, each partition's by its own age.
#[tokio::test]
async fn offsets_of_idle_partitions_are_committed_again_before_they_expire() {
    let (kafka, store) = (kafka(3, &[(1, record("app", "one"))]), Arc::new(MemoryStore::new()));
    let mut world = world(&kafka, &store, "rotate: { max_interval: 1s }", "w");
    let clock = Arc::new(TestClock(AtomicI64::new(1_795_317_125_000)));
    let context = Arc::get_mut(&mut world.context).unwrap();
    context.group = Some("sluice-app-logs".to_owned());
    context.environment = Environment { clock: Arc::clone(&clock) as Arc<dyn Clock>, random: Arc::new(SystemRandom) };
    let (stop, running) = world.start();
    commits(&kafka, 1).await;
    clock.0.fetch_add(10_000, Ordering::Relaxed);
    let low = |offsets: &Vec<(i32, i64)>| offsets.contains(&(1, 1));
    let seen = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let seen = commits(&kafka, 1).await;
            if seen.iter().any(low) {
                return seen.len();
            }
            // The lane's age and the pause between copies pass on this clock.
            clock.0.fetch_add(1000, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("the finished record does not move the group's offset"));
    clock.0.fetch_add(HOUR_MS, Ordering::Relaxed);
    let all = commits(&kafka, seen + 1).await;
    assert_eq!(all.last().unwrap(), &[(0, 0), (1, 1), (2, 0)], "all of them, moved or not");
    stop.cancel();
    assert_eq!(running.await.unwrap().unwrap(), End::Stopped);
    assert!(kafka.commits().iter().all(|commit| commit.group == "sluice-app-logs" && commit.topic == TOPIC));
}

/// A clock on which an hour is 20 seconds.
#[derive(Debug)]
struct FastClock(Instant);

impl Clock for FastClock {
    fn now_ms(&self) -> i64 {
        1_795_317_125_000 + self.0.elapsed().as_millis() as i64 * HOUR_MS / 20_000
    }
}

/// The shortest time that a broker can be told to keep offsets is a minute.
#[tokio::test]
#[ignore = "waits for three minutes: cargo test --test task expire -- --ignored --nocapture"]
#[allow(clippy::print_stdout, reason = "figures for whoever runs it by hand")]
async fn offsets_of_idle_partitions_do_not_expire_on_a_real_broker() {
    let brokers = Brokers::start(1);
    let file = brokers.dir.path().join("kafka/1/server.properties");
    let short = "offsets.retention.minutes=1\noffsets.retention.check.interval.ms=2000\n";
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + short).unwrap();
    brokers.run(&["kill"], &["1"]);
    brokers.run(&["start"], &[]);
    let address = brokers.address();
    let mut oracle = Oracle::start(&address);
    oracle.ask(&format!("create {TOPIC} 3 1"));
    oracle.ask(&format!("produce {TOPIC} 1 lz4 5 100"));
    let native = native::connect(&KafkaConfig::plaintext(&address)).await.unwrap();
    // The control: committed once, as a worker would that does not come back to it.
    native.commit("once", TOPIC, &[(0, 0), (1, 5), (2, 0)]).await.unwrap();

    let store = Arc::new(MemoryStore::new());
    let mut world = world(&MemoryKafka::new(1), &store, "", "w");
    let context = Arc::get_mut(&mut world.context).unwrap();
    context.kafka = native;
    context.group = Some("sluice-app-logs".to_owned());
    let clock = Arc::new(FastClock(Instant::now()));
    context.environment = Environment { clock, random: Arc::new(SystemRandom) };
    let (stop, running) = world.start();
    let all = |low: i64| format!("{TOPIC}-0=0 {TOPIC}-1={low} {TOPIC}-2=0");
    let started = Instant::now();
    let (mut archived, mut forgotten) = (false, None);
    while started.elapsed() < Duration::from_secs(180) {
        let (ours, once) = (oracle.ask("lag sluice-app-logs"), oracle.ask("lag once"));
        archived |= ours == all(5);
        assert!(!archived || ours == all(5), "after {:?}: {ours}", started.elapsed());
        if once.is_empty() && forgotten.is_none() {
            forgotten = Some(started.elapsed());
            println!("{forgotten:?}: the broker forgot the group that was committed once; ours: {ours}");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    println!("{:?}: {}", started.elapsed(), oracle.ask("lag sluice-app-logs"));
    assert!(archived && forgotten.is_some(), "{archived} {forgotten:?}");
    stop.cancel();
    assert_eq!(running.await.unwrap().unwrap(), End::Stopped);
}
