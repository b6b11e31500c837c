//! Lows as offsets of a Kafka group, for lag tools.

use std::sync::atomic::{AtomicI64, Ordering};

use sluice::clock::{Clock, SystemRandom};

use super::*;

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
    clock.0.fetch_add(12 * 3600 * 1000, Ordering::Relaxed);
    let all = commits(&kafka, seen + 1).await;
    assert_eq!(all.last().unwrap(), &[(0, 0), (1, 1), (2, 0)], "all of them, moved or not");
    stop.cancel();
    assert_eq!(running.await.unwrap().unwrap(), End::Stopped);
    assert!(kafka.commits().iter().all(|commit| commit.group == "sluice-app-logs" && commit.topic == TOPIC));
}
