//! Faults that histories showed, each told alone, so that it stays told when the histories change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice::task::{End, TaskError};
use tokio::time::timeout;

use crate::kafka::{Partition, Produced};
use crate::mutation::Mutation;
use crate::workers::{Plan, Worker};
use crate::world::{EPOCH_MS, Rng, World};

fn in_virtual_time<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

fn plan(spool_bytes: u64) -> Plan {
    let mut plan = Plan::new(&mut Rng::new(1), Mutation::None);
    plan.spool_bytes = spool_bytes;
    plan
}

fn world(records: usize) -> Arc<World> {
    let world = World::new(1, false);
    let produced = Produced { app: 1, timestamp_ms: EPOCH_MS, bad: false };
    world.kafka().partitions.push(Partition { records: vec![Some(produced); records], ..Partition::default() });
    world
}

async fn end_of(worker: Worker) -> Result<End, TaskError> {
    timeout(Duration::from_secs(3_600), worker.ended).await.unwrap().unwrap().unwrap()
}

/// Seeds 2, 112 and 169: the end of the topic was asked before the start was resolved and before the log was taken over, and what
/// was archived in between looked like a truncated topic.
#[test]
fn a_topic_that_grows_while_a_task_opens_is_not_taken_for_truncated() {
    in_virtual_time(async {
        let world = world(5);
        world.kafka().grows_when_asked = true;
        let plan = plan(1 << 24).starting_at_the_latest();
        assert_eq!(end_of(Worker::start(&world, &plan, 1, true, false)).await.unwrap(), End::CaughtUp);
        assert_eq!(end_of(Worker::start(&world, &plan, 2, true, false)).await.unwrap(), End::CaughtUp);
    });
}

/// Seed 335: what a predecessor had decided filled the spool, so that the records which complete it were never read.
#[test]
fn objects_decided_by_a_predecessor_may_exceed_the_spool() {
    in_virtual_time(async {
        let world = world(400);
        let narrow = plan(1_500).of_one_large_file();
        let roomy = plan(1 << 24).of_one_large_file();
        world.uploads_fail.store(true, Ordering::Relaxed);
        let first = Worker::start(&world, &roomy, 1, true, false);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.oracle().state().intents.len(), 1);
        first.crash();
        world.uploads_fail.store(false, Ordering::Relaxed);
        assert_eq!(end_of(Worker::start(&world, &narrow, 2, true, false)).await.unwrap(), End::CaughtUp);
        world.oracle().check_conservation(&world);
        assert!(world.violations().is_empty(), "{:?}", world.violations());
    });
}
