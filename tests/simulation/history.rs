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

use crate::kafka::{Partition, Produced};
use crate::mutation::Mutation;
use crate::workers::{Plan, Worker, freeze, is_kafka_lost, judge};
use crate::world::{EPOCH_MS, World};

/// What came of a history.
#[derive(Debug)]
pub struct Outcome {
    pub violations: Vec<String>,
    pub counters: BTreeMap<&'static str, u64>,
    pub trace_hash: u64,
    pub trace: Vec<String>,
}

/// Runs the history of a seed on a runtime of its own, whose time is virtual.
pub fn run(seed: u64, mutation: Mutation, verbose: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, verbose);
        History::new(&world, mutation).run().await;
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
            oracle.skips_bad = plan.connector.on_error == OnError::Skip;
            oracle.only_conservation = mutation != Mutation::None;
        }
        Self { world: Arc::clone(world), plan, workers: Vec::new(), next_worker: 1, kafka_lost: false }
    }

    fn random(&self, low: u64, high: u64) -> u64 {
        self.world.rng().between(low, high)
    }

    async fn run(&mut self) {
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
            76..=82 => self.workers[chosen % count].stop.cancel(),
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
            98 if self.random(0, 9) == 0 => {
                self.world.count("topic recreated");
                self.world.kafka().incarnation += 1;
                self.kafka_lost = true;
            }
            _ => self.produce(),
        }
    }

    fn produce(&mut self) {
        let world = &self.world;
        let mut rng = world.rng();
        let mut topic = world.kafka();
        if topic.incarnation > 0 {
            return;
        }
        let now_ms = EPOCH_MS + world.elapsed_ms() as i64;
        for partition in &mut topic.partitions {
            for _ in 0..rng.below(15) {
                let hours = if rng.chance(10) { rng.below(3) as i64 } else { 0 };
                let produced =
                    Produced { app: rng.below(4) as u8, timestamp_ms: now_ms - hours * 3_600_000, bad: rng.chance(3) };
                partition.records.push((!rng.chance(3)).then_some(produced));
            }
        }
    }

    /// Retention deletes what is old, archived or not.
    fn retention(&mut self, chosen: usize) {
        let world = &self.world;
        let mut topic = world.kafka();
        let number = chosen % topic.partitions.len();
        let low = world.oracle().state().low(number as i32).unwrap_or(0);
        let partition = &mut topic.partitions[number];
        let end = partition.records.len();
        // Mostly it takes only what is archived.
        let to = if chosen.is_multiple_of(4) { end } else { low as usize };
        partition.log_start = to.clamp(partition.log_start, end);
        if partition.log_start as i64 > low {
            world.count("retention passed low");
            self.kafka_lost = true;
        } else {
            world.count("retention below low");
        }
        world.trace(format_args!("retention of {number} to {}", partition.log_start));
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
        let mut drained = false;
        for _ in 0..6 {
            self.spawn(true, false);
            let Some(mut last) = self.workers.pop() else { return };
            let id = last.process.id;
            let Ok(ended) = timeout(Duration::from_secs(3_600), &mut last.ended).await else {
                self.world.violation(format!("worker {id} does not finish"));
                last.crash();
                break;
            };
            let ended = ended.unwrap();
            let lost = matches!(&ended, Some(Err(error)) if is_kafka_lost(error)) && self.kafka_lost;
            drained = matches!(ended, Some(Ok(End::CaughtUp)));
            judge(&self.world, id, ended, self.kafka_lost);
            if drained || lost {
                break;
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
        } else if self.kafka_lost {
            self.world.count("history ended by a loss in Kafka");
        } else if self.world.violations().is_empty() {
            self.world.violation("no owner could drain the task".to_owned());
        }
    }
}
