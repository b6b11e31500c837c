//! One history of a group: several workers share the tasks of a topic over Redis, while settings and `tasks_max` change.
//!
//! Owns: what happens when. Does not own: the workers' own doings, the judgement.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice::cli::Exit;
use sluice::config::OnError;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::kafka::Partition;
use crate::members::{Member, Role, Settings};
use crate::mutation::Mutation;
use crate::process::Process;
use crate::redis::Redis;
use crate::workers::Plan;
use crate::world::{EPOCH_MS, World};

/// Longer than a lease and the wait of those who come.
const LEASES_OVER: Duration = Duration::from_secs(16);

pub struct GroupHistory {
    world: Arc<World>,
    plan: Plan,
    settings: Settings,
    redis: Arc<Redis>,
    members: Vec<Member>,
    next_worker: u32,
}

impl GroupHistory {
    pub fn new(world: &Arc<World>, mutation: Mutation) -> Self {
        let plan = Plan::new(&mut world.rng(), mutation).of_a_group();
        let settings = Settings::new(&plan, &mut world.rng());
        world.oracle().only_conservation = mutation != Mutation::None;
        Self { world: Arc::clone(world), plan, settings, redis: Redis::new(world), members: Vec::new(), next_worker: 1 }
    }

    fn random(&self, low: u64, high: u64) -> u64 {
        self.world.rng().between(low, high)
    }

    pub async fn run(&mut self) {
        self.world.count("history of a group");
        self.world.trace(format_args!("{:?} {:?}", self.plan, self.settings));
        for _ in 0..self.random(1, 5) {
            self.world.kafka().partitions.push(Partition::default());
        }
        self.produce();
        for _ in 0..self.random(1, 3) {
            self.start(Role::Member, true);
        }
        for _ in 0..self.random(6, 20) {
            let pause = match self.random(0, 9) {
                0..=3 => self.random(1, 500),
                4..=7 => self.random(500, 6_000),
                _ => self.random(6_000, 30_000),
            };
            sleep(Duration::from_millis(pause)).await;
            self.collect().await;
            self.happens();
        }
        self.settle().await;
    }

    fn start(&mut self, role: Role, faulty: bool) -> &Member {
        let process = Process::new(self.next_worker, &self.world, faulty);
        self.next_worker += 1;
        let config = match role {
            Role::Job => Arc::clone(self.settings.newest()),
            Role::Member | Role::Outsider => Arc::clone(self.settings.some(&mut self.world.rng())),
        };
        self.members.push(Member::start(&self.plan, &config, &self.redis, process, role));
        &self.members[self.members.len() - 1]
    }

    /// A new worker that may die at one of its first steps: in the middle of a change.
    fn start_member(&mut self) {
        let (dies, steps) = (self.random(0, 99) < 30, self.random(0, 400));
        let member = self.start(Role::Member, true);
        if dies {
            member.process.crash_after(steps);
        }
    }

    async fn collect(&mut self) {
        let mut index = 0;
        while index < self.members.len() {
            self.members[index].judge();
            if self.members[index].ended.is_finished() {
                let member = self.members.remove(index);
                let ended = member.ended.await.unwrap();
                self.world.trace(format_args!("{} ends: {ended:?}", member.process.id));
                self.world.count(if ended.is_some() { "worker stopped" } else { "worker died" });
            } else {
                index += 1;
            }
        }
    }

    fn happens(&mut self) {
        let die = self.random(0, 99);
        let chosen = self.random(0, 1_000) as usize;
        let count = self.members.len();
        let world = Arc::clone(&self.world);
        match die {
            0..=24 => self.produce(),
            _ if count == 0 => self.start_member(),
            25..=36 if count < 4 => self.start_member(),
            37..=43 => self.members[chosen % count].crash(),
            44..=50 => {
                let steps = self.random(0, 200);
                self.members[chosen % count].process.crash_after(steps);
            }
            51..=57 => {
                let ms = if chosen.is_multiple_of(2) { self.random(100, 9_000) } else { self.random(9_000, 90_000) };
                world.count("freeze");
                self.members[chosen % count].process.freeze_until(Instant::now() + Duration::from_millis(ms));
            }
            58..=62 => self.members[chosen % count].ask_to_stop(),
            63..=69 => {
                self.settings.change_tasks(&mut world.rng());
                self.deploy(chosen);
            }
            70..=77 => {
                self.settings.change_content(&mut world.rng());
                self.deploy(chosen);
            }
            78 => {
                let listed = (!chosen.is_multiple_of(3)).then(|| BTreeSet::from([0, 2]));
                self.settings.leave_partitions_out(listed);
                self.deploy(chosen);
            }
            79..=82 => {
                world.count("Redis away");
                self.redis.away(self.random(500, 60_000));
            }
            83..=84 => {
                world.count("Redis flushed");
                self.redis.flush();
            }
            85 => self.redis.replicate(),
            86..=87 => {
                world.count("Redis failed over");
                self.redis.fail_over();
                self.redis.replicate();
            }
            88 => {
                let by = self.random(0, 60_000) as i64 - 30_000;
                world.count("Redis clock jump");
                self.redis.jump_clock(by);
            }
            89..=90 => {
                let by = self.random(0, 1_200_000) as i64 - 300_000;
                world.count(if by < 0 { "clock jump back" } else { "clock jump forward" });
                world.jump_clocks(by);
            }
            91..=93 => {
                let until = world.elapsed_ms() + self.random(1_000, 30_000);
                world.count("store outage");
                world.outage_until_ms.store(until, Ordering::Relaxed);
            }
            94..=95 if world.kafka().partitions.len() < 7 => {
                world.trace(format_args!("a partition more"));
                world.kafka().partitions.push(Partition::default());
            }
            96 => {
                let mut topic = world.kafka();
                let number = chosen % topic.partitions.len();
                let low = world.oracle().low(number as i32).unwrap_or(0);
                topic.delete_below(number, low as usize);
                world.count("retention below low");
            }
            97 => {
                world.count("worker without coordination");
                let dies_after = self.random(0, 600);
                self.start(Role::Outsider, true).process.crash_after(dies_after);
            }
            _ => self.produce(),
        }
    }

    /// Workers get the new settings by a restart: none of them yet, one, or all, by a stop or by a crash.
    fn deploy(&mut self, chosen: usize) {
        self.world.count("settings deployed");
        self.world.trace(format_args!("new settings: {:?}", self.settings.newest()));
        let restarted = match chosen % 4 {
            0 => 0,
            1 | 2 => 1,
            _ => self.members.len(),
        };
        for index in 0..restarted.min(self.members.len()) {
            if (chosen / 4 + index).is_multiple_of(2) {
                self.members[index].ask_to_stop();
            } else {
                self.members[index].crash();
            }
            self.start_member();
        }
    }

    fn produce(&self) {
        let now_ms = EPOCH_MS + self.world.elapsed_ms() as i64;
        self.world.kafka().produce(&mut self.world.rng(), now_ms, 15);
    }

    /// No more faults: jobs with the newest settings drain all tasks, late requests land, zombies wake up.
    async fn settle(&mut self) {
        self.world.outage_until_ms.store(0, Ordering::Relaxed);
        self.redis.away(0);
        self.settings.leave_partitions_out(None);
        let zombies_live = self.random(0, 2) == 0;
        for member in &self.members {
            if !zombies_live {
                member.crash();
            } else if member.process.is_frozen() {
                let (stop, after) = (member.stop.clone(), self.random(0, 120));
                tokio::spawn(async move {
                    sleep(Duration::from_secs(after)).await;
                    stop.cancel();
                });
            } else {
                member.ask_to_stop();
            }
        }
        let mut drained = false;
        for _ in 0..12 {
            sleep(LEASES_OVER).await;
            self.collect().await;
            self.start(Role::Job, false);
            let Some(mut job) = self.members.pop() else { return };
            let id = job.process.id;
            let Ok(ended) = timeout(Duration::from_secs(3_600), &mut job.ended).await else {
                self.world.violation(format!("job {id} does not finish"));
                job.crash();
                break;
            };
            let ended = ended.unwrap();
            self.world.trace(format_args!("job {id} ends: {ended:?}"));
            drained = ended == Some(Exit::Done);
            if drained {
                break;
            }
            job.judge();
            self.world.count("job had to be run again");
        }
        // Zombies run on while what they sent long ago lands.
        let quiet = self.world.landed_by().max(Instant::now()) + Duration::from_secs(1);
        sleep_until(quiet).await;
        self.collect().await;
        for member in &self.members {
            member.crash();
        }
        if drained {
            self.world.count("group history drained");
            let mut oracle = self.world.oracle();
            let skips = self.settings.newest().on_error == OnError::Skip;
            oracle.skips_bad = (!self.settings.on_error_changed).then_some(skips);
            oracle.from_earliest = self.settings.starts_from_earliest();
            oracle.check_conservation(&self.world);
        } else if self.world.violations().is_empty() {
            self.world.violation("no job could drain the tasks".to_owned());
        }
    }
}
