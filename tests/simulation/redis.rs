//! Redis' twin: the coordinator in memory behind a network that delays and loses, and behind a server that forgets.
//!
//! Owns: the fate of each request, when Redis is away, what it forgets, who had which lease.
//! Does not own: leases (the coordinator's), who should have which task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::cluster::memory::{Held, MemoryCoordinator};
use sluice::cluster::{Card, CoordinationAway, Coordinator, Instance, LEASE, TaskName, View};
use tokio::time::sleep;

use crate::process::Process;
use crate::world::World;

/// The server of one history.
#[derive(Debug)]
pub struct Redis {
    world: Arc<World>,
    coordinator: MemoryCoordinator,
    clock: Arc<RedisClock>,
    away_until_ms: AtomicU64,
    /// What a replica has of it.
    replica: Mutex<Held>,
    known: Mutex<Known>,
}

/// Redis' own clock: it runs on while the workers' jump.
#[derive(Debug)]
struct RedisClock {
    world: Arc<World>,
    jump_ms: AtomicI64,
}

impl Clock for RedisClock {
    fn now_ms(&self) -> i64 {
        self.world.elapsed_ms() as i64 + self.jump_ms.load(Ordering::Relaxed)
    }
}

/// What the twin remembers of leases, whatever Redis forgets.
#[derive(Debug, Default)]
struct Known {
    processes: BTreeMap<Instance, Arc<Process>>,
    /// Who got the lease last, and whether it gave it back.
    holders: BTreeMap<TaskName, (Instance, bool)>,
    /// Instances that Redis has known.
    seen: BTreeSet<Instance>,
}

impl Redis {
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        let clock = Arc::new(RedisClock { world: Arc::clone(world), jump_ms: AtomicI64::new(0) });
        Arc::new(Self {
            world: Arc::clone(world),
            coordinator: MemoryCoordinator::new(Arc::clone(&clock) as Arc<dyn Clock>, LEASE),
            clock,
            away_until_ms: AtomicU64::new(0),
            replica: Mutex::default(),
            known: Mutex::default(),
        })
    }

    /// No request is answered for so long.
    pub fn away(&self, ms: u64) {
        self.away_until_ms.store(self.world.elapsed_ms() + ms, Ordering::Relaxed);
    }

    /// FLUSHALL.
    pub fn flush(&self) {
        self.coordinator.flush();
    }

    /// A replica takes in what there is now.
    pub fn replicate(&self) {
        *self.replica.lock().unwrap() = self.coordinator.held();
    }

    /// The replica becomes the master: what was written since is lost.
    pub fn fail_over(&self) {
        self.coordinator.restore(self.replica.lock().unwrap().clone());
    }

    pub fn jump_clock(&self, by_ms: i64) {
        self.clock.jump_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    fn on_view(&self, me: &Instance, process: &Arc<Process>, held: &[TaskName], view: &View) {
        let mut known = self.known.lock().unwrap();
        known.processes.entry(me.clone()).or_insert_with(|| Arc::clone(process));
        if !known.seen.insert(me.clone()) && !view.known {
            self.world.count("worker forgotten by Redis");
        }
        for task in held {
            match view.leases.get(task) {
                Some(holder) if holder != me => self.world.count("lease found to be another's"),
                // Also where Redis had forgotten it.
                Some(_) => {
                    known.holders.insert(task.clone(), (me.clone(), false));
                }
                None => {}
            }
        }
    }

    fn on_acquired(&self, me: &Instance, tasks: &[TaskName]) {
        let mut known = self.known.lock().unwrap();
        for task in tasks {
            let before = known.holders.insert(task.clone(), (me.clone(), false));
            let what = match before {
                None => "lease taken for the first time",
                Some((holder, _)) if holder == *me => "lease taken again",
                Some((_, true)) => "lease handed over",
                Some((holder, false)) => match known.processes.get(&holder) {
                    Some(process) if process.dead.is_cancelled() => "lease of a dead worker taken",
                    Some(process) if process.is_frozen() => "lease of a sleeping worker taken",
                    _ => "lease taken that Redis had lost",
                },
            };
            self.world.count(what);
            self.world.trace(format_args!("{task}: {what}"));
        }
    }

    fn on_released(&self, me: &Instance, tasks: Option<&[TaskName]>) {
        let mut known = self.known.lock().unwrap();
        for (task, (holder, released)) in &mut known.holders {
            if holder == me && tasks.is_none_or(|tasks| tasks.contains(task)) {
                *released = true;
            }
        }
    }
}

/// One worker's way to Redis.
#[derive(Debug)]
pub struct SimRedis {
    pub process: Arc<Process>,
    pub redis: Arc<Redis>,
}

impl SimRedis {
    /// A request runs at once, never, or long after its sender gave it up.
    async fn ask<T, F>(&self, request: impl FnOnce(Arc<Redis>) -> F) -> Result<T, CoordinationAway>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CoordinationAway>> + Send + 'static,
    {
        self.process.cross().await;
        let world = &self.process.world;
        let away = world.elapsed_ms() < self.redis.away_until_ms.load(Ordering::Relaxed);
        let (there, back, die, timeout) = {
            let mut rng = world.rng();
            (rng.between(1, 10), rng.between(1, 10), rng.below(100), rng.between(500, 3_000))
        };
        let lost = |what| {
            world.count(what);
            Err(CoordinationAway("simulated".to_owned()))
        };
        if away || (self.process.faulty && die == 0) {
            sleep(Duration::from_millis(timeout)).await;
            self.process.cross().await;
            return lost("request to Redis lost");
        }
        if self.process.faulty && die == 1 {
            let (redis, request) = (Arc::clone(&self.redis), request);
            let running = request(redis);
            tokio::spawn(async move {
                sleep(Duration::from_millis(timeout + there)).await;
                let _ = running.await;
            });
            sleep(Duration::from_millis(timeout)).await;
            self.process.cross().await;
            return lost("request to Redis came late");
        }
        sleep(Duration::from_millis(there)).await;
        let answer = request(Arc::clone(&self.redis)).await;
        if self.process.faulty && die == 2 {
            sleep(Duration::from_millis(timeout)).await;
            self.process.cross().await;
            return lost("lost answer of Redis");
        }
        sleep(Duration::from_millis(back)).await;
        self.process.cross().await;
        answer
    }
}

#[async_trait]
impl Coordinator for SimRedis {
    async fn sync(&self, me: &Instance, card: &Card, held: &[TaskName]) -> Result<View, CoordinationAway> {
        let (me, card, held, process) = (me.clone(), card.clone(), held.to_vec(), Arc::clone(&self.process));
        self.ask(|redis| async move {
            let view = redis.coordinator.sync(&me, &card, &held).await?;
            redis.on_view(&me, &process, &held, &view);
            Ok(view)
        })
        .await
    }

    async fn acquire(&self, me: &Instance, tasks: &[TaskName]) -> Result<Vec<TaskName>, CoordinationAway> {
        let (me, tasks) = (me.clone(), tasks.to_vec());
        self.ask(|redis| async move {
            let acquired = redis.coordinator.acquire(&me, &tasks).await?;
            redis.on_acquired(&me, &acquired);
            Ok(acquired)
        })
        .await
    }

    async fn release(&self, me: &Instance, tasks: &[TaskName]) -> Result<(), CoordinationAway> {
        let (me, tasks) = (me.clone(), tasks.to_vec());
        self.ask(|redis| async move {
            redis.coordinator.release(&me, &tasks).await?;
            redis.on_released(&me, Some(&tasks));
            Ok(())
        })
        .await
    }

    async fn leave(&self, me: &Instance) -> Result<(), CoordinationAway> {
        let me = me.clone();
        self.ask(|redis| async move {
            redis.coordinator.leave(&me).await?;
            redis.on_released(&me, None);
            Ok(())
        })
        .await
    }

    fn place(&self) -> String {
        "sim:".to_owned()
    }
}
