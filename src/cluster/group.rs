//! A worker's part in its group: the loop that asks Redis, and what supervisors see of it.
//!
//! Owns: when Redis is asked, telling supervisors, the report. Does not own: decisions ([`super::standing`]).

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::standing::{Me, Permit, Standing, Timing};
use super::{CoordinationAway, Coordinator, Instance, Phase, TaskName};
use crate::clock::Environment;

/// Between two looks at the group; spread by a tenth, so that many workers do not ask at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same once nothing has moved for a while: each look renews what is held, and all owners are still back within the others'
/// hold-off when Redis has lost its memory.
const LOOK_WHEN_STILL: Duration = Duration::from_secs(3);
const STILL_AFTER_MS: u64 = 30_000;
/// Between two tries while Redis is away, spread by half. With the link's limits every owner is back within the others' hold-off.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What status shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReport {
    pub group: String,
    /// Without user and password.
    pub coordination: String,
    pub phase: Phase,
    /// Milliseconds since the Unix epoch; `None`: Redis answers.
    pub away_since_ms: Option<i64>,
    pub away_why: Option<String>,
    /// Leases of this worker.
    pub tasks_held: usize,
    /// As last seen, by worker; this one is among them.
    pub members: Vec<MemberReport>,
    /// Tasks that nobody holds, as last seen.
    pub tasks_free: usize,
}

/// A worker of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    pub worker: String,
    pub phase: Phase,
    pub max_tasks: Option<u32>,
    pub tasks_held: usize,
    pub this: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Group {
    name: String,
    coordinator: Arc<dyn Coordinator>,
    environment: Environment,
    standing: Mutex<Standing>,
    begun: Instant,
    /// After each step supervisors look again, in the order in which they began to wait.
    stepped: Notify,
    /// Something is to be said to Redis at once.
    wake: Notify,
    left: watch::Sender<bool>,
}

impl Group {
    pub fn new(
        name: &str,
        coordinator: Arc<dyn Coordinator>,
        environment: Environment,
        worker: &str,
        max_tasks: Option<u32>,
        job: bool,
        timing: Timing,
    ) -> Self {
        let instance = Instance(format!("{:032x}", environment.random.next_u128()));
        let me = Me { instance, worker: worker.to_owned(), max_tasks, job };
        Self {
            name: name.to_owned(),
            coordinator,
            environment,
            standing: Mutex::new(Standing::new(me, timing)),
            begun: Instant::now(),
            stepped: Notify::new(),
            wake: Notify::new(),
            left: watch::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        // Every change of it is whole before anything can panic.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Asks Redis again and again, until [`Group::leave`] and everything is given back.
    pub async fn run(&self) {
        while !self.may_go() {
            let outcome = self.step().await;
            self.stepped.notify_waiters();
            let random = self.environment.random.next_u128() as u32;
            let (every, spread_percent) = match outcome {
                Ok(()) if self.lock().is_still(STILL_AFTER_MS, self.now_ms()) => (LOOK_WHEN_STILL, 10),
                Ok(()) => (LOOK_EVERY, 10),
                Err(_) => (RETRY_EVERY, 50),
            };
            let spread = every * spread_percent / 100;
            let wait = every - spread + spread.mul_f64(f64::from(random) / f64::from(u32::MAX)) * 2;
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                // Who can't be asked is not asked more often.
                () = self.wake.notified(), if outcome.is_ok() => {}
            }
        }
        let me = self.lock().me().instance.clone();
        if let Err(error) = self.coordinator.leave(&me).await {
            tracing::warn!(group = self.name, %error, "the leases are not given back; they end by themselves");
        }
        self.stepped.notify_waiters();
    }

    fn may_go(&self) -> bool {
        *self.left.borrow()
    }

    /// One round: free, renew and look, take.
    async fn step(&self) -> Result<(), CoordinationAway> {
        let outcome = self.round().await;
        if let Err(error) = &outcome
            && self.lock().on_away(&error.0, self.environment.clock.now_ms())
        {
            tracing::warn!(
                group = self.name,
                %error,
                "coordination is away: this worker goes on with the tasks that it has, and takes and gives none"
            );
        }
        crate::api::metrics::coordination(outcome.is_ok());
        outcome
    }

    async fn round(&self) -> Result<(), CoordinationAway> {
        let (me, releases) = {
            let standing = self.lock();
            (standing.me().instance.clone(), standing.releases())
        };
        if !releases.is_empty() {
            self.coordinator.release(&me, &releases).await?;
            self.lock().on_released(&releases);
            self.say(&releases, "lease given back");
        }
        let (card, held) = self.lock().request(self.now_ms());
        let view = self.coordinator.sync(&me, &card, &held).await?;
        let wanted = {
            let mut standing = self.lock();
            if let Some(away) = standing.away() {
                let away_ms = self.environment.clock.now_ms().saturating_sub(away.since_ms);
                tracing::info!(group = self.name, away_ms, held = held.len(), "coordination is back");
            }
            standing.on_view(view, self.now_ms())
        };
        if !wanted.is_empty() {
            let acquired = self.coordinator.acquire(&me, &wanted).await?;
            self.lock().on_acquired(&acquired);
            self.say(&acquired, "lease taken");
        }
        Ok(())
    }

    fn say(&self, tasks: &[TaskName], what: &str) {
        for task in tasks {
            tracing::info!(
                connector = task.connector,
                topic = task.topic,
                task = task.task,
                group = self.name,
                "{what}"
            );
        }
    }

    /// The worker can run this task.
    pub fn offer(&self, task: &TaskName) {
        self.lock().offer(task);
        self.wake.notify_one();
    }

    /// The worker does not run a connector's tasks any more; they have ended.
    pub fn withdraw(&self, connector: &str) {
        self.lock().withdraw(connector);
        self.wake.notify_one();
    }

    /// A worker that runs a task of a connector, as last seen.
    pub fn holder_of(&self, connector: &str) -> Option<String> {
        let standing = self.lock();
        let view = standing.view()?;
        let (_, holder) = view.leases.iter().find(|(task, _)| task.connector == connector)?;
        Some(view.members.get(holder).map_or_else(|| "that left".to_owned(), |card| card.worker.clone()))
    }

    /// The worker stops; leases go back as their tasks end.
    pub fn leave(&self) {
        self.lock().leave();
        self.wake.notify_one();
    }

    /// All tasks have ended: [`Group::run`] gives back what is left and returns.
    pub fn left(&self) {
        self.left.send_replace(true);
        self.wake.notify_one();
    }

    /// Waits until this worker may run the task. `tell` hears why not, whenever that changes.
    ///
    /// # Errors
    /// Why a job can't have it.
    pub async fn turn(self: &Arc<Self>, task: &TaskName, mut tell: impl FnMut(&str)) -> Result<Turn, String> {
        let mut told = String::new();
        loop {
            // A step while this one looks is not missed.
            let mut stepped = pin!(self.stepped.notified());
            stepped.as_mut().enable();
            let permit = {
                let mut standing = self.lock();
                let permit = standing.permit(task, self.now_ms());
                if permit == Permit::Run && standing.begin(task) {
                    return Ok(Turn { group: Arc::clone(self), task: task.clone(), over: false });
                }
                permit
            };
            match permit {
                Permit::Wait(why) if why != told => {
                    tell(&why);
                    told = why;
                }
                Permit::Refused(why) => return Err(why),
                Permit::Run | Permit::Wait(_) => {}
            }
            stepped.await;
        }
    }

    pub fn report(&self) -> GroupReport {
        let standing = self.lock();
        let me = standing.me();
        let mut members = Vec::new();
        let mut tasks_free = 0;
        if let Some(view) = standing.view() {
            for (instance, card) in &view.members {
                members.push(MemberReport {
                    worker: card.worker.clone(),
                    phase: card.phase,
                    max_tasks: card.max_tasks,
                    tasks_held: view.leases.values().filter(|holder| *holder == instance).count(),
                    this: *instance == me.instance,
                });
            }
            let offered: std::collections::BTreeSet<(&String, u32)> = view
                .members
                .values()
                .flat_map(|card| &card.offers)
                .flat_map(|(topic, &count)| (0..count).map(move |task| (topic, task)))
                .collect();
            let leased = |(topic, task): &(&String, u32)| {
                view.leases.keys().any(|lease| lease.task == *task && lease.topic_name() == **topic)
            };
            tasks_free = offered.iter().filter(|task| !leased(task)).count();
        }
        members.sort_by(|a, b| a.worker.cmp(&b.worker).then(b.this.cmp(&a.this)));
        GroupReport {
            group: self.name.clone(),
            coordination: self.coordinator.place(),
            phase: standing.phase(self.now_ms()),
            away_since_ms: standing.away().map(|away| away.since_ms),
            away_why: standing.away().map(|away| away.why.clone()),
            tasks_held: standing.held().len(),
            members,
            tasks_free,
        }
    }
}

/// The right to run a task, until it is revoked or ends.
#[derive(Debug)]
pub struct Turn {
    group: Arc<Group>,
    task: TaskName,
    over: bool,
}

impl Turn {
    /// Returns when the task must not run any more here.
    pub async fn revoked(&self) {
        loop {
            let mut stepped = pin!(self.group.stepped.notified());
            stepped.as_mut().enable();
            if self.group.lock().permit(&self.task, self.group.now_ms()) != Permit::Run {
                return;
            }
            stepped.await;
        }
    }

    /// The task's log was taken over by another worker.
    pub fn fenced(mut self, by: &str) {
        self.over = true;
        let now_ms = self.group.now_ms();
        self.group.lock().fenced(&self.task, by, now_ms);
        self.group.wake.notify_one();
    }
}

/// The task does not run any more.
impl Drop for Turn {
    fn drop(&mut self) {
        if !self.over {
            self.group.lock().ended(&self.task);
            self.group.wake.notify_one();
            // Where Redis is away the task may go on here.
            self.group.stepped.notify_waiters();
        }
    }
}
