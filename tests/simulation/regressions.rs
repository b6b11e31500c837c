//! Faults that histories showed, each told alone, so that it stays told when the histories change.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice::ledger::encoding::Stored;
use sluice::ledger::{Commit, Entry, Identity, State, StepId, Token};
use sluice::log::store_log::StoreLog;
use sluice::pipeline::spool::FrameStored;
use sluice::task::core::{Action, Core, Taken};
use sluice::task::settings::TaskSettings;
use sluice::task::{self, End, Origin, TaskError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::kafka::{Partition, Produced, TOPIC};
use crate::mutation::Mutation;
use crate::process::Process;
use crate::workers::{Plan, TOPIC_FOLDER, Worker, accept_loss, context};
use crate::world::{EPOCH_MS, Rng, Watch, World};

fn in_virtual_time<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

fn plan(spool_bytes: u64) -> Plan {
    let mut plan = Plan::new(&mut Rng::new(1), Mutation::None);
    plan.spool_bytes = spool_bytes;
    plan
}

fn world(records: usize) -> Arc<World> {
    let world = World::new(1, Watch::Nothing);
    let produced = Produced::some();
    let mut partition = Partition::default();
    partition.records = vec![Some(produced); records];
    world.kafka().partitions.push(partition);
    world
}

async fn end_of(worker: Worker) -> Result<End, TaskError> {
    timeout(Duration::from_secs(3_600), worker.ended).await.unwrap().unwrap().unwrap()
}

/// The end of the topic was asked before the start was resolved and before the log was taken over, and what
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

/// What a predecessor had decided filled the spool, so that the records which complete it were never read.
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

/// Nothing was in an object yet, so nothing told that the log had been another one: records in the place of what low had passed
/// were missed (seed 104371).
#[test]
fn a_log_that_was_truncated_below_what_is_in_no_object_is_noticed() {
    in_virtual_time(async {
        let world = world(5);
        world.kafka().partitions[0].records.fill(None);
        let plan = plan(1 << 24);
        assert_eq!(end_of(Worker::start(&world, &plan, 1, true, false)).await.unwrap(), End::CaughtUp);
        assert_eq!(world.oracle().state().low(0), Some(5));
        {
            let mut topic = world.kafka();
            topic.truncate(0, 0);
            (0..9).for_each(|_| topic.grow());
        }
        let error = end_of(Worker::start(&world, &plan, 2, true, false)).await.unwrap_err();
        assert!(error.to_string().contains("truncated"), "{error}");
    });
}

/// What an adopted spool holds was read too, although nothing of it is decided: records in its place were missed where the partition
/// was idle since.
#[test]
fn a_log_that_was_truncated_below_what_the_spool_holds_is_noticed() {
    in_virtual_time(async {
        let world = world(200);
        world.disks().always_again = true;
        let plan = plan(1 << 24).of_one_large_file();
        let first = Worker::start(&world, &plan, 1, false, false);
        tokio::time::sleep(Duration::from_secs(60)).await;
        first.crash();
        assert!(first.ended.await.unwrap().is_none());
        let second = Worker::start(&world, &plan, 2, false, false);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(world.counters().get("spool adopted"), Some(&1), "{:?}", world.counters());
        {
            let mut topic = world.kafka();
            topic.truncate(0, 150);
            (0..100).for_each(|_| topic.grow());
        }
        let error = end_of(second).await.unwrap_err();
        assert!(error.to_string().contains("truncated"), "{error}");
    });
}

/// A job had nothing to read of a log that was truncated and had grown again to where it was, so it said that it had caught up
/// (seed 63526).
#[test]
fn a_job_notices_a_truncation_of_what_it_does_not_read() {
    in_virtual_time(async {
        let world = world(5);
        let plan = plan(1 << 24);
        assert_eq!(end_of(Worker::start(&world, &plan, 1, true, false)).await.unwrap(), End::CaughtUp);
        {
            let mut topic = world.kafka();
            topic.truncate(0, 2);
            (0..3).for_each(|_| topic.grow());
        }
        let error = end_of(Worker::start(&world, &plan, 2, true, false)).await.unwrap_err();
        assert!(error.to_string().contains("truncated to 2"), "{error}");
    });
}

/// A log that was accepted at where it had been truncated was truncated again, below that and below low, before anything of it was
/// read: what had been seen was forgotten by then, so records in the place of archived ones were missed (seed 202542).
#[test]
fn a_second_truncation_before_the_accepted_log_is_read_is_noticed() {
    in_virtual_time(async {
        let (world, plan) = (world(5), plan(1 << 24));
        let grown_after = |end: usize, more: usize| {
            let mut topic = world.kafka();
            topic.truncate(0, end);
            (0..more).for_each(|_| topic.grow());
        };
        assert_eq!(end_of(Worker::start(&world, &plan, 1, true, false)).await.unwrap(), End::CaughtUp);
        grown_after(4, 5);
        assert!(accept_loss(&world, &plan, 2, None).await);
        assert_eq!(world.oracle().state().low(0), Some(4));
        grown_after(2, 9);
        let error = end_of(Worker::start(&world, &plan, 3, true, false)).await.unwrap_err();
        assert!(error.to_string().contains("truncated to 2"), "{error}");
        assert!(accept_loss(&world, &plan, 4, None).await);
        assert_eq!(world.oracle().state().low(0), Some(2));
        assert_eq!(end_of(Worker::start(&world, &plan, 5, true, false)).await.unwrap(), End::CaughtUp);
    });
}

/// Whoever had looked at the mapping before began a log that was ended for the next one since, or ended it again: it could not be
/// read any more, and with it the whole topic.
#[test]
fn a_log_that_was_ended_before_it_began_stays_ended() {
    in_virtual_time(async {
        let (world, plan) = (world(5), plan(1 << 24));
        let context = |id| {
            let (_, topic_info) = watch::channel(world.kafka().info());
            context(&Process::new(id, &world, false), &plan, topic_info)
        };
        let stop = CancellationToken::new;
        let ends = [
            task::close(&context(1), 2, stop()).await,
            task::run(&context(2), false, stop()).await,
            task::close(&context(3), 2, stop()).await,
        ];
        for end in ends {
            assert!(
                matches!(&end, Ok(End::Closed(state)) if state.closed == Some(2) && !state.is_started()),
                "{end:?}"
            );
        }
        assert!(world.violations().is_empty(), "{:?}", world.violations());
    });
}

/// A log of another mapping that began while `partitions` left one out forgot where that one had ended: listed again, it was
/// archived from its start once more.
#[test]
fn a_partition_that_is_left_out_while_the_mapping_changes_keeps_its_place() {
    in_virtual_time(async {
        let (world, plan) = (world(5), plan(1 << 24).of_one_large_file());
        let mut second = Partition::default();
        second.records = vec![Some(Produced::some()); 5];
        world.kafka().partitions.push(second);
        let context = |id, listed: Option<i32>, origin: Option<&State>| {
            let (_, topic_info) = watch::channel(world.kafka().info());
            let mut context = context(&Process::new(id, &world, false), &plan, topic_info);
            Arc::make_mut(&mut context.connector).partitions = listed.map(|partition| BTreeSet::from([partition]));
            if let Some(State { identity, lows, .. }) = origin {
                let lows = lows.iter().map(|(&partition, low)| (partition, low.offset)).collect();
                context.origin = Some(Arc::new(Origin { identity: identity.clone(), lows, skipped: Vec::new() }));
                context.log = Arc::new(StoreLog::new(Arc::clone(&context.store), &format!("{TOPIC_FOLDER}2/0")));
            }
            context
        };
        let stop = CancellationToken::new;
        assert_eq!(task::run(&context(1, None, None), true, stop()).await.unwrap(), End::CaughtUp);
        let Ok(End::Closed(ended)) = task::close(&context(2, None, None), 2, stop()).await else { panic!() };
        world.kafka().grow();
        assert_eq!(task::run(&context(3, Some(0), Some(&ended)), true, stop()).await.unwrap(), End::CaughtUp);
        assert_eq!(task::run(&context(4, None, Some(&ended)), true, stop()).await.unwrap(), End::CaughtUp);
        world.oracle().check_conservation(&world);
        assert!(world.violations().is_empty(), "{:?}", world.violations());
    });
}

/// A core that owns partition 0 from its start, and the number of its log's next entry.
fn core() -> (Core, u64) {
    let plan = Plan::new(&mut Rng::new(1), Mutation::None);
    let settings = TaskSettings::new(Arc::clone(&plan.connector), TOPIC, 0);
    let mut state = State::default();
    state.apply(&stored(1, Entry::Takeover { worker: "w".to_owned(), time_ms: 0 })).unwrap();
    let lows = BTreeMap::from([(0, 0)]);
    let identity = Identity::default();
    state
        .apply(&stored(
            2,
            Entry::Start { settings: settings.record.clone(), identity, lows, skipped: Vec::new(), time_ms: 0 },
        ))
        .unwrap();
    let missing = HashSet::new();
    let live_ends = BTreeMap::new();
    let taken = Taken { partitions: &[0], missing: &missing, live_ends, entries_since_snapshot: 0, adoption: None };
    (Core::new(settings, state, taken, 0), 3)
}

fn stored(number: u64, entry: Entry) -> Stored {
    Stored { number, token: Token("t".to_owned()), step: StepId(number.to_string()), entry }
}

fn appended(core: &mut Core) -> Vec<Entry> {
    let entry = |action| if let Action::Append(entry) = action { Some(entry) } else { None };
    core.take_actions().into_iter().filter_map(entry).collect()
}

/// Seals whatever is open, as a full spool does: only what lies in it frees some.
fn seal_all(core: &mut Core, now_ms: i64) {
    core.relieve_memory(usize::MAX);
    for action in core.take_actions() {
        if let Action::Compress { file, sequence, .. } = action {
            core.on_stored(file, &[FrameStored { sequence, stored_bytes: 1, raw_bytes: 1 }], now_ms);
        }
    }
    core.relieve_spool(u64::MAX, now_ms);
}

/// The topic grew again while the log took its first new partition in, and the second entry broke the log for good.
#[test]
fn a_partition_begins_once_however_often_it_is_told_of() {
    let (mut core, number) = core();
    core.add_partitions(BTreeMap::from([(1, 0)]), 1);
    let first = appended(&mut core).remove(0);
    core.add_partitions(BTreeMap::from([(1, 0), (2, 0)]), 2);
    core.add_partitions(BTreeMap::from([(1, 7)]), 3);
    core.on_appended(&stored(number, first), 4).unwrap();
    let second = appended(&mut core).remove(0);
    assert_eq!(second, Entry::Partitions { lows: BTreeMap::from([(2, 0)]), time_ms: 4 });
    core.on_appended(&stored(number + 1, second), 5).unwrap();
    assert_eq!(appended(&mut core), []);
}

/// What was sealed and not logged was never decided: a stop gives it up, and the next owner reads it again.
#[test]
fn a_stop_gives_up_what_is_not_logged() {
    let (mut core, _) = core();
    let mut block = sluice::record::BlockBuilder::default();
    block.push(0, EPOCH_MS, None, Some(b"{\"app_id\":\"a\"}"), |_| 0).unwrap();
    core.on_block(&block.finish(0, 1, 1), 0).unwrap();
    seal_all(&mut core, 0);
    core.stop(0);
    let actions = core.take_actions();
    assert!(actions.iter().any(|action| matches!(action, Action::Discard { .. })), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Append(_))), "{actions:?}");
    assert!(core.is_finished());
    assert_eq!(core.state().low(0), Some(0));
}

/// Histories with a store outage never ended: a deadline that had passed could do nothing before the append's answer, and the loop
/// woke up for it at once, again and again.
#[test]
fn nothing_is_due_by_time_while_an_append_is_under_way() {
    let (mut core, number) = core();
    let block = |from: i64, to: i64| {
        let mut block = sluice::record::BlockBuilder::default();
        for offset in from..to {
            block.push(offset, EPOCH_MS, None, Some(b"{\"app_id\":\"a\"}"), |_| 0).unwrap();
        }
        block.finish(0, to, to)
    };
    core.on_block(&block(0, 1), 0).unwrap();
    seal_all(&mut core, 0);
    core.on_tick(1_000);
    let seal = appended(&mut core).remove(0);
    assert!(matches!(&seal, Entry::Commit(Commit { seal, .. }) if seal.len() == 1));
    core.on_block(&block(1, 2), 1_000).unwrap();
    seal_all(&mut core, 1_000);
    core.on_tick(100_000);
    assert_eq!(core.next_deadline_ms(), None, "the answer comes first");
    core.on_appended(&stored(number, seal), 100_000).unwrap();
    assert_eq!(appended(&mut core).len(), 1);
}
