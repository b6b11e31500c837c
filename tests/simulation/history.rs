//! One history: a few minutes in the life of a task, with everything that may happen to it, and its end.
//!
//! Owns: what happens when. Does not own: the workers' own doings, the judgement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice::config::OnError;
use sluice::task::End;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::group::GroupHistory;
use crate::kafka::Partition;
use crate::mutation::Mutation;
use crate::workers::{Plan, Worker, accept_loss, freeze, is_kafka_lost, judge};
use crate::world::{EPOCH_MS, Watch, World};

/// What came of a history.
#[derive(Debug)]
pub struct Outcome {
    pub violations: Vec<String>,
    pub counters: BTreeMap<&'static str, u64>,
    pub trace_hash: u64,
    pub trace: Vec<String>,
}

/// Every so manieth seed is the history of a group.
const GROUPS: u64 = 4;

/// Runs the history of a seed on a runtime of its own, whose time is virtual.
pub fn run(seed: u64, mutation: Mutation, watch: Watch) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, watch);
        let of_a_group = match mutation {
            Mutation::None => seed.is_multiple_of(GROUPS),
            mutation => mutation.is_about_groups(),
        };
        if of_a_group {
            GroupHistory::new(&world, mutation).run().await;
        } else {
            History::new(&world, mutation).run().await;
        }
        Outcome {
            violations: world.violations(),
            counters: world.counters(),
            trace_hash: world.trace_hash(),
            trace: world.trace_lines(),
        }
    })
}

struct History {
    world: Arc<World>,
    plan: Plan,
    workers: Vec<Worker>,
    next_worker: u32,
    /// Records that were not archived may be gone, or be others.
    kafka_lost: bool,
}

impl History {
    fn new(world: &Arc<World>, mutation: Mutation) -> Self {
        let plan = Plan::new(&mut world.rng(), mutation);
        {
            let mut oracle = world.oracle();
            oracle.skips_bad = Some(plan.connector.on_error == OnError::Skip);
            oracle.only_conservation = mutation != Mutation::None;
        }
        Self { world: Arc::clone(world), plan, workers: Vec::new(), next_worker: 1, kafka_lost: false }
    }

    fn random(&self, low: u64, high: u64) -> u64 {
        self.world.rng().between(low, high)
    }

    async fn run(&mut self) {
        self.world.count("history of one task");
        self.world.trace(format_args!("{:?}", self.plan));
        let partitions = self.random(1, 3);
        for _ in 0..partitions {
            self.world.kafka().partitions.push(Partition::default());
        }
        self.produce();
        self.start_worker();
        if self.plan.mutation.is_about_late_takeovers() || self.world.rng().chance(3) {
            self.takes_over_late().await;
        }
        let events = self.random(6, 30);
        for _ in 0..events {
            let pause = match self.random(0, 9) {
                0..=3 => self.random(1, 200),
                4..=7 => self.random(200, 4_000),
                _ => self.random(4_000, 30_000),
            };
            sleep(Duration::from_millis(pause)).await;
            self.collect().await;
            if self.kafka_lost && self.plan.mutation == Mutation::None && self.world.rng().chance(15) {
                self.accept().await;
            }
            self.happens();
        }
        self.settle().await;
    }

    fn start_worker(&mut self) {
        let until = self.world.rng().chance(10);
        self.spawn(until, true);
        // While it opens the log, or soon after.
        if self.world.rng().chance(10) {
            let (steps, ms) = (self.random(0, 30), self.random(1_000, 120_000));
            self.world.count("freeze at a step");
            if let Some(worker) = self.workers.last() {
                worker.process.freeze_after(steps, Duration::from_millis(ms));
            }
        }
    }

    fn spawn(&mut self, until: bool, faulty: bool) {
        let worker = Worker::start(&self.world, &self.plan, self.next_worker, until, faulty);
        self.next_worker += 1;
        self.workers.push(worker);
    }

    /// A worker has read the log and freezes, while the owner appends, snapshots and cleans; then its Takeover goes out.
    async fn takes_over_late(&mut self) {
        sleep(Duration::from_secs(5)).await;
        let (steps, thaws) = (self.random(5, 60), self.random(20, 90));
        self.spawn(false, true);
        if let Some(worker) = self.workers.last() {
            worker.process.freeze_after(steps, Duration::from_secs(thaws));
        }
        for _ in 0..thaws / 2 + 10 {
            self.produce();
            sleep(Duration::from_secs(2)).await;
        }
        self.collect().await;
    }

    /// Looks at the workers that ended.
    async fn collect(&mut self) {
        let mut index = 0;
        while index < self.workers.len() {
            if self.workers[index].ended.is_finished() {
                let worker = self.workers.remove(index);
                let ended = worker.ended.await.unwrap();
                judge(&self.world, worker.process.id, ended, self.kafka_lost);
            } else {
                index += 1;
            }
        }
    }

    fn happens(&mut self) {
        let die = self.random(0, 99);
        let chosen = self.random(0, 1_000) as usize;
        let count = self.workers.len();
        match die {
            0..=29 => self.produce(),
            _ if count == 0 => self.start_worker(),
            30..=44 if count < 4 => self.start_worker(),
            45..=54 => {
                self.world.trace(format_args!("crash"));
                self.workers[chosen % count].crash();
            }
            55..=66 => {
                let steps = self.random(0, 60);
                self.workers[chosen % count].process.crash_after(steps);
            }
            67..=75 => {
                let ms = match self.random(0, 2) {
                    0 => self.random(10, 3_000),
                    1 => self.random(1_000, 60_000),
                    _ => self.random(60_000, 600_000),
                };
                self.world.count("freeze");
                freeze(&self.workers[chosen % count], ms);
            }
            76..=82 => self.workers[chosen % count].ask_to_stop(),
            83..=85 => {
                let by = self.random(0, 1_200_000) as i64 - 300_000;
                self.world.count(if by < 0 { "clock jump back" } else { "clock jump forward" });
                self.world.jump_clocks(by);
            }
            86..=89 => {
                let until = self.world.elapsed_ms() + self.random(1_000, 60_000);
                self.world.count("store outage");
                self.world.outage_until_ms.store(until, Ordering::Relaxed);
            }
            90..=92 if self.world.kafka().partitions.len() < 6 => {
                self.world.trace(format_args!("a partition more"));
                self.world.kafka().partitions.push(Partition::default());
            }
            90..=96 => {
                let info = self.world.kafka().info();
                self.workers[chosen % count].topic_info.send_replace(info);
            }
            97 => self.retention(chosen),
            98 if self.random(0, 3) == 0 => self.kafka_loses(chosen),
            _ => self.produce(),
        }
    }

    fn produce(&mut self) {
        let world = &self.world;
        let now_ms = EPOCH_MS + world.elapsed_ms() as i64;
        world.kafka().produce(&mut world.rng(), now_ms, 15);
    }

    /// Retention deletes what is old, archived or not.
    fn retention(&mut self, chosen: usize) {
        let world = &self.world;
        let mut topic = world.kafka();
        let number = chosen % topic.partitions.len();
        let low = world.oracle().low(number as i32).unwrap_or(0);
        // Mostly it takes only what is archived.
        let to = if chosen.is_multiple_of(4) { usize::MAX } else { low as usize };
        topic.delete_below(number, to);
        let log_start = topic.partitions[number].log_start;
        if log_start as i64 > low {
            world.count("retention passed low");
            self.kafka_lost = true;
        } else {
            world.count("retention below low");
        }
        world.trace(format_args!("retention of {number} to {log_start}"));
    }

    /// The topic is made again, or an unclean election truncates a partition, which grows again.
    fn kafka_loses(&mut self, chosen: usize) {
        let world = &self.world;
        let mut topic = world.kafka();
        self.kafka_lost = true;
        if chosen.is_multiple_of(3) {
            world.count("topic recreated");
            world.trace(format_args!("the topic is made again"));
            topic.recreate();
            return;
        }
        let number = chosen % topic.partitions.len();
        let end = topic.partitions[number].records.len();
        let to = end.saturating_sub(world.rng().below(20) as usize);
        world.count("log truncated");
        world.trace(format_args!("{number} is truncated from {end} to {to}"));
        topic.truncate(number, to);
        if world.rng().chance(70) {
            let now_ms = EPOCH_MS + world.elapsed_ms() as i64;
            topic.produce(&mut world.rng(), now_ms, 40);
        }
    }

    /// An operator stops all workers, sees to it that nothing of them is under way, and lets the task go on with what Kafka
    /// still has.
    async fn accept(&mut self) -> bool {
        for worker in &self.workers {
            worker.crash();
        }
        sleep_until(self.world.landed_by().max(Instant::now())).await;
        self.collect().await;
        let (dies, steps) = (self.random(0, 99) < 20, self.random(0, 30));
        let id = self.next_worker;
        self.next_worker += 1;
        accept_loss(&self.world, &self.plan, id, dies.then_some(steps)).await
    }

    /// No more faults: a clean owner drains everything, late requests land, zombies wake up.
    async fn settle(&mut self) {
        self.world.outage_until_ms.store(0, Ordering::Relaxed);
        let zombies_live = self.random(0, 2) == 0;
        for worker in &self.workers {
            if !zombies_live {
                worker.crash();
            }
        }
        if self.kafka_lost {
            // A run to the end asks no leader about a partition of which it has nothing to read.
            self.world.kafka().grow();
        }
        let accepts = self.plan.mutation == Mutation::None && self.world.rng().chance(70);
        let (mut drained, mut lost) = (false, false);
        for _ in 0..10 {
            self.spawn(true, false);
            let Some(mut last) = self.workers.pop() else { return };
            let id = last.process.id;
            let Ok(ended) = timeout(Duration::from_secs(3_600), &mut last.ended).await else {
                self.world.violation(format!("worker {id} does not finish"));
                last.crash();
                break;
            };
            let ended = ended.unwrap();
            lost = matches!(&ended, Some(Err(error)) if is_kafka_lost(error)) && self.kafka_lost;
            drained = matches!(ended, Some(Ok(End::CaughtUp)));
            judge(&self.world, id, ended, self.kafka_lost);
            if drained || (lost && !accepts) {
                break;
            }
            if lost {
                self.accept().await;
            }
        }
        // Zombies run on while what they sent long ago lands.
        let quiet = self.world.landed_by().max(Instant::now()) + Duration::from_secs(1);
        sleep_until(quiet).await;
        self.collect().await;
        for worker in &self.workers {
            worker.crash();
        }
        if drained {
            self.world.count("history drained");
            // Retention before the first start is no loss.
            self.world.oracle().from_earliest = self.plan.starts_from_earliest() && !self.kafka_lost;
            self.world.oracle().check_conservation(&self.world);
            if self.kafka_lost {
                self.world.count("history drained after a loss in Kafka");
            }
        } else if lost && !accepts {
            self.world.count("history ended by a loss in Kafka");
        } else if self.world.violations().is_empty() {
            self.world.violation("no owner could drain the task".to_owned());
        }
    }
}
