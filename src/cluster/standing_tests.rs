//! Several standings against the twin of Redis, on a clock that the test moves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::cluster::memory::MemoryCoordinator;
use crate::cluster::{Coordinator as _, LEASE};

#[derive(Debug, Default)]
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Worker {
    standing: Standing,
    /// Tasks that run in its process.
    running: BTreeSet<TaskName>,
    /// Asks nothing: a stopped process. What it runs goes on in the eyes of this test; the log is what fences it.
    paused: bool,
    /// Rounds until it comes.
    late: u32,
    starts: u32,
}

/// One second a tick, as a group looks.
struct World {
    clock: Arc<HandClock>,
    redis: MemoryCoordinator,
    workers: Vec<Option<Worker>>,
    tasks: u32,
    timing: Timing,
}

fn task(number: u32) -> TaskName {
    TaskName::new("c", "t", number)
}

impl World {
    fn new(tasks: u32) -> Self {
        let clock = Arc::new(HandClock::default());
        let redis = MemoryCoordinator::new(Arc::clone(&clock) as Arc<dyn Clock>, LEASE);
        Self { clock, redis, workers: Vec::new(), tasks, timing: Timing::default() }
    }

    fn join(&mut self, max_tasks: Option<u32>) -> usize {
        let number = self.workers.len();
        let me =
            Me { instance: Instance(format!("i{number:03}")), worker: format!("w{number}"), max_tasks, job: false };
        let mut standing = Standing::new(me, self.timing);
        (0..self.tasks).for_each(|number| standing.offer(&task(number)));
        let worker = Worker { standing, running: BTreeSet::new(), paused: false, late: 0, starts: 0 };
        self.workers.push(Some(worker));
        number
    }

    fn at(&mut self, worker: usize) -> &mut Worker {
        self.workers[worker].as_mut().unwrap()
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms().unsigned_abs()
    }

    async fn ticks(&mut self, count: u32) {
        for _ in 0..count {
            self.tick().await;
        }
    }

    async fn tick(&mut self) {
        self.clock.0.fetch_add(1000, Ordering::Relaxed);
        let now_ms = self.now_ms();
        for slot in &mut self.workers {
            let Some(worker) = slot.as_mut().filter(|worker| !worker.paused) else { continue };
            if worker.late > 0 {
                worker.late -= 1;
                continue;
            }
            if let Err(error) = round(&self.redis, &mut worker.standing, now_ms).await {
                worker.standing.on_away(&error, 0);
            }
            worker.supervise(now_ms);
        }
    }

    /// Every task runs in so many processes.
    fn runs(&self) -> BTreeMap<TaskName, Vec<usize>> {
        let mut runs: BTreeMap<TaskName, Vec<usize>> =
            (0..self.tasks).map(|number| (task(number), Vec::new())).collect();
        for (number, worker) in self.workers.iter().enumerate() {
            for task in worker.iter().flat_map(|worker| &worker.running) {
                runs.entry(task.clone()).or_default().push(number);
            }
        }
        runs
    }

    fn loads(&self) -> Vec<usize> {
        self.workers.iter().flatten().map(|worker| worker.running.len()).collect()
    }

    fn is_settled(&self) -> bool {
        self.runs().values().all(|by| by.len() == 1)
    }
}

/// As `Group::round`, without a wait between its steps.
async fn round(redis: &MemoryCoordinator, standing: &mut Standing, now_ms: u64) -> Result<(), String> {
    let me = standing.me().instance.clone();
    let releases = standing.releases();
    if !releases.is_empty() {
        redis.release(&me, &releases).await.map_err(|error| error.0)?;
        standing.on_released(&releases);
    }
    let (card, held) = standing.request(now_ms);
    let view = redis.sync(&me, &card, &held).await.map_err(|error| error.0)?;
    let wanted = standing.on_view(view, now_ms);
    if !wanted.is_empty() {
        let acquired = redis.acquire(&me, &wanted).await.map_err(|error| error.0)?;
        standing.on_acquired(&acquired);
    }
    Ok(())
}

impl Worker {
    /// What supervisors do: start what may run, stop what may not.
    fn supervise(&mut self, now_ms: u64) {
        let tasks: Vec<TaskName> = self.standing.seats.keys().cloned().collect();
        for task in tasks {
            let may = self.standing.permit(&task, now_ms) == Permit::Run;
            if may && !self.running.contains(&task) && self.standing.begin(&task) {
                self.running.insert(task);
                self.starts += 1;
            } else if !may && self.running.remove(&task) {
                self.standing.ended(&task);
            }
        }
    }
}

#[tokio::test]
async fn workers_that_start_together_share_before_they_begin() {
    let mut world = World::new(6);
    for _ in 0..3 {
        world.join(None);
    }
    world.ticks(7).await;
    assert_eq!((world.loads(), world.is_settled()), (vec![2, 2, 2], true));
    world.ticks(60).await;
    let starts: Vec<u32> = world.workers.iter().flatten().map(|worker| worker.starts).collect();
    assert_eq!(starts, [2, 2, 2], "nothing moves afterwards");
}

#[tokio::test]
async fn a_dead_workers_tasks_are_taken_within_its_lease_and_five_seconds() {
    let mut world = World::new(6);
    for _ in 0..3 {
        world.join(None);
    }
    world.ticks(10).await;
    world.workers[1] = None;
    world.ticks(9).await;
    assert_eq!(world.loads(), [2, 2], "its leases last");
    world.ticks(4).await;
    assert_eq!((world.loads(), world.is_settled()), (vec![3, 3], true));
}

#[tokio::test]
async fn a_joining_worker_gets_its_share_one_by_one_and_nothing_else_stops() {
    let mut world = World::new(6);
    world.join(None);
    world.ticks(10).await;
    assert_eq!(world.loads(), [6]);
    world.join(None);
    let mut before = world.at(0).running.clone();
    let mut idle = 0;
    for _ in 0..30 {
        world.tick().await;
        idle += world.runs().values().filter(|by| by.is_empty()).count();
        let now = world.at(0).running.clone();
        assert!(before.is_superset(&now) && before.len() - now.len() <= 1, "{before:?} {now:?}");
        before = now;
    }
    assert_eq!((world.loads(), world.is_settled()), (vec![3, 3], true));
    assert_eq!((world.at(0).starts, world.at(1).starts), (6, 3));
    assert!(idle <= 6, "three moves of two seconds at most, not {idle} s without a worker");
}

/// What is given up for one that is ready must not wait for one that is not.
#[tokio::test]
async fn no_task_waits_for_a_worker_that_is_still_joining() {
    let mut world = World::new(9);
    world.join(None);
    world.ticks(10).await;
    world.join(None);
    let mut idle = BTreeMap::<TaskName, u32>::new();
    for tick in 0..60 {
        // The second has just been given its first task.
        if tick == 7 {
            world.join(None);
        }
        world.tick().await;
        for (task, by) in world.runs() {
            let seconds = idle.entry(task).or_default();
            *seconds = if by.is_empty() { *seconds + 1 } else { 0 };
            assert!(*seconds <= 2, "tick {tick}: {idle:?}");
        }
    }
    assert_eq!((world.loads(), world.is_settled()), (vec![3, 3, 3], true));
}

#[tokio::test]
async fn who_leaves_hands_over_at_once() {
    let mut world = World::new(4);
    world.join(None);
    world.join(None);
    world.ticks(10).await;
    world.at(0).standing.leave();
    world.ticks(3).await;
    assert_eq!((world.loads(), world.is_settled()), (vec![2, 2], true), "its tasks run until they are stopped");
    let now_ms = world.now_ms();
    let leaver = world.at(0);
    for task in std::mem::take(&mut leaver.running) {
        leaver.standing.ended(&task);
    }
    leaver.supervise(now_ms);
    world.ticks(2).await;
    assert_eq!((world.loads(), world.is_settled()), (vec![0, 4], true));
    assert_eq!(world.at(0).standing.releases(), []);
}

#[tokio::test]
async fn while_redis_is_away_nobody_moves_and_owners_are_back_first() {
    let mut world = World::new(6);
    for _ in 0..3 {
        world.join(None);
    }
    world.ticks(10).await;
    let before = world.runs();
    world.redis.set_away(true);
    // One that comes meanwhile takes nothing.
    let newcomer = world.join(None);
    world.ticks(3600).await;
    assert_eq!(world.runs(), before);
    assert!(matches!(world.at(newcomer).standing.permit(&task(0), 0), Permit::Wait(why) if why.contains("away")));
    // All leases have ended, and two owners come back as late as they can.
    world.redis.set_away(false);
    world.at(1).late = 3;
    world.at(2).late = 3;
    world.ticks(4).await;
    assert_eq!(world.runs(), before);
    world.ticks(40).await;
    assert!(world.is_settled());
    let starts: Vec<u32> = world.workers.iter().flatten().map(|worker| worker.starts).collect();
    assert_eq!((world.loads(), starts), (vec![1, 2, 2, 1], vec![2, 2, 2, 1]), "only the newcomer's share moved");
}

#[tokio::test]
async fn a_task_that_was_given_up_goes_on_when_redis_goes_away_meanwhile() {
    let mut world = World::new(2);
    world.join(None);
    world.ticks(10).await;
    world.join(None);
    // The first is told to give one up, and is slow to stop it.
    let mut given_up = None;
    while given_up.is_none() {
        world.clock.0.fetch_add(1000, Ordering::Relaxed);
        let now_ms = world.now_ms();
        for number in 0..2 {
            let worker = world.workers[number].as_mut().unwrap();
            round(&world.redis, &mut worker.standing, now_ms).await.unwrap();
        }
        let first = world.at(0);
        given_up = first.running.iter().find(|task| first.standing.permit(task, now_ms) != Permit::Run).cloned();
    }
    world.redis.set_away(true);
    world.ticks(3).await;
    assert_eq!(world.at(0).running.len(), 2, "{given_up:?} goes on");
    world.redis.set_away(false);
    world.ticks(20).await;
    assert_eq!((world.loads(), world.is_settled()), (vec![1, 1], true));
}

#[tokio::test]
async fn a_flush_moves_nothing() {
    let mut world = World::new(5);
    world.join(None);
    world.join(None);
    world.ticks(10).await;
    let before = world.runs();
    for _ in 0..5 {
        world.redis.flush();
        world.ticks(7).await;
    }
    assert_eq!(world.runs(), before);
}

#[tokio::test]
async fn a_worker_that_slept_through_its_lease_stops_what_others_have() {
    let mut world = World::new(4);
    world.join(None);
    world.join(None);
    world.ticks(10).await;
    world.at(0).paused = true;
    world.ticks(14).await;
    assert_eq!(world.at(1).running.len(), 4);
    world.at(0).paused = false;
    world.tick().await;
    assert_eq!(world.at(0).running.len(), 0);
    world.ticks(30).await;
    assert_eq!((world.loads(), world.is_settled()), (vec![2, 2], true));
}

#[tokio::test]
async fn what_somebody_outside_took_over_is_left_alone_longer_each_time() {
    let mut world = World::new(1);
    world.join(None);
    world.ticks(8).await;
    for wait in [10, 20, 40] {
        let now_ms = world.now_ms();
        let worker = world.at(0);
        assert!(worker.running.remove(&task(0)));
        worker.standing.fenced(&task(0), "stranger", now_ms);
        world.ticks(wait - 1).await;
        assert!(world.at(0).running.is_empty());
        let now_ms = world.now_ms();
        let permit = world.at(0).standing.permit(&task(0), now_ms);
        assert!(matches!(&permit, Permit::Wait(why) if why.contains("worker stranger has taken")), "{permit:?}");
        world.ticks(3).await;
        assert_eq!(world.at(0).running.len(), 1, "after {wait} s");
    }
    // Another of the group need not wait.
    let now_ms = world.now_ms();
    world.at(0).running.clear();
    world.at(0).standing.fenced(&task(0), "stranger", now_ms);
    world.join(None);
    world.ticks(8).await;
    assert_eq!(world.at(1).running.len(), 0, "as the least loaded the first is waited for");
    world.workers[0] = None;
    world.ticks(13).await;
    assert_eq!(world.at(1).running.len(), 1);
}

#[tokio::test]
async fn a_full_worker_and_one_that_looks_on_are_standbys() {
    let mut world = World::new(2);
    world.join(Some(2));
    world.join(Some(0));
    world.ticks(10).await;
    assert_eq!(world.loads(), [2, 0]);
    world.join(Some(2));
    world.ticks(20).await;
    assert_eq!(world.loads(), [1, 0, 1]);
    world.workers[0] = None;
    world.ticks(14).await;
    assert_eq!((world.loads(), world.is_settled()), (vec![0, 2], true));
}

#[tokio::test]
async fn a_job_takes_what_is_free_and_names_who_has_the_rest() {
    let mut world = World::new(2);
    world.join(Some(1));
    world.ticks(10).await;
    let job = world.join(None);
    world.at(job).standing.me.job = true;
    world.ticks(2).await;
    let held = world.at(job).standing.held();
    assert_eq!(held.len(), 1);
    let other = (0..2).map(task).find(|task| !held.contains(task)).unwrap();
    let permit = world.at(job).standing.permit(&other, 0);
    assert_eq!(permit, Permit::Refused("worker w0 of the group runs it".to_owned()));
    world.redis.set_away(true);
    let second = world.join(None);
    world.at(second).standing.me.job = true;
    world.tick().await;
    assert!(matches!(world.at(second).standing.permit(&other, 0), Permit::Refused(why) if why.contains("away")));
}

#[derive(Clone, Debug)]
enum Event {
    Ticks(u32),
    Join(Option<u32>),
    Kill(usize),
    Leave(usize),
    Pause(usize),
    Resume(usize),
    Late(usize, u32),
    Fence(usize),
    Away(bool),
    Flush,
}

fn event() -> impl Strategy<Value = Event> {
    let worker = 0..8_usize;
    prop_oneof![
        6 => (1..15_u32).prop_map(Event::Ticks),
        2 => prop_oneof![3 => Just(None), 1 => (0..4_u32).prop_map(Some)].prop_map(Event::Join),
        1 => worker.clone().prop_map(Event::Kill),
        1 => worker.clone().prop_map(Event::Leave),
        1 => worker.clone().prop_map(Event::Pause),
        1 => worker.clone().prop_map(Event::Resume),
        1 => (worker.clone(), 1..5_u32).prop_map(|(worker, rounds)| Event::Late(worker, rounds)),
        1 => worker.prop_map(Event::Fence),
        1 => any::<bool>().prop_map(Event::Away),
        1 => Just(Event::Flush),
    ]
}

impl World {
    async fn apply(&mut self, event: &Event) {
        let now_ms = self.now_ms();
        match *event {
            Event::Ticks(count) => self.ticks(count).await,
            Event::Join(max_tasks) => {
                self.join(max_tasks);
            }
            Event::Away(away) => self.redis.set_away(away),
            Event::Flush => self.redis.flush(),
            Event::Kill(number) => {
                if let Some(slot) = self.workers.get_mut(number) {
                    *slot = None;
                }
            }
            Event::Leave(number)
            | Event::Pause(number)
            | Event::Resume(number)
            | Event::Late(number, _)
            | Event::Fence(number) => {
                let Some(worker) = self.workers.get_mut(number).and_then(Option::as_mut) else { return };
                match *event {
                    Event::Leave(_) => {
                        worker.standing.leave();
                        for task in std::mem::take(&mut worker.running) {
                            worker.standing.ended(&task);
                        }
                    }
                    Event::Pause(_) => worker.paused = true,
                    Event::Resume(_) => worker.paused = false,
                    Event::Late(_, rounds) => worker.late = rounds,
                    _ => {
                        if let Some(task) = worker.running.pop_first() {
                            worker.standing.fenced(&task, "stranger", now_ms);
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    /// From whatever state: once all is well for a while, every task runs once, evenly, and stays where it is.
    #[test]
    fn any_history_ends_well(tasks in 0..9_u32, events in prop::collection::vec(event(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(tasks);
            world.timing.cool_off.1 = Duration::from_secs(40);
            world.join(None);
            for event in &events {
                world.apply(event).await;
            }
            world.redis.set_away(false);
            world.join(None);
            for worker in world.workers.iter_mut().flatten() {
                worker.paused = false;
                worker.late = 0;
            }
            // The longest that a task is left alone, then one move a round and worker.
            world.ticks(100).await;
            assert!(world.is_settled(), "{:?}", world.runs());
            let before = world.runs();
            let here: Vec<&Worker> = world.workers.iter().flatten().filter(|worker| !worker.standing.leaving).collect();
            let most = here.iter().map(|worker| worker.running.len()).max().unwrap_or_default();
            for worker in here {
                let (load, room) = (worker.running.len(), worker.standing.me.max_tasks);
                assert!(load + 1 >= most || room == Some(load as u32), "{:?}", world.loads());
            }
            world.ticks(30).await;
            assert_eq!(world.runs(), before);
        });
    }
}

/// Redis is asked seldomer once nothing moves.
#[tokio::test]
async fn a_group_is_still_until_somebody_comes_or_goes() {
    let mut world = World::new(2);
    world.join(None);
    let is_still = |world: &mut World| {
        let now_ms = world.now_ms();
        world.at(0).standing.is_still(30_000, now_ms)
    };
    world.ticks(30).await;
    assert!(!is_still(&mut world), "it took its tasks");
    world.ticks(20).await;
    assert!(is_still(&mut world));
    world.join(None);
    world.ticks(30).await;
    assert!(!is_still(&mut world), "one task was given");
    world.ticks(30).await;
    assert!(is_still(&mut world));
    world.workers[1] = None;
    world.ticks(15).await;
    assert!(!is_still(&mut world), "its lease ended");
}
