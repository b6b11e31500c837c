//! The border between a worker's process and the rest of the world.
//!
//! Owns: whether anything may cross it: a dead process sends and receives nothing any more, a frozen one only later.
//! Does not own: what crosses it.
//!
//! The real task reaches the world through doors only, so that this is all there is to a crash, a SIGSTOP or a cut network.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sluice::pipeline::spool::Spool;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::world::World;

#[derive(Debug)]
pub struct Process {
    pub id: u32,
    pub world: Arc<World>,
    pub dead: CancellationToken,
    /// Requests of this process may fail.
    pub faulty: bool,
    spool: Mutex<Weak<Spool>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    frozen_until: Instant,
    steps: u64,
    dies_at: Option<u64>,
    /// At which step, and for how long.
    freezes_at: Option<(u64, Duration)>,
}

impl Process {
    pub fn new(id: u32, world: &Arc<World>, faulty: bool) -> Arc<Self> {
        let state = State { frozen_until: Instant::now(), steps: 0, dies_at: None, freezes_at: None };
        Arc::new(Self {
            id,
            world: Arc::clone(world),
            dead: CancellationToken::new(),
            faulty,
            spool: Mutex::default(),
            state: Mutex::new(state),
        })
    }

    pub fn uses(&self, spool: &Arc<Spool>) {
        *self.spool.lock().unwrap() = Arc::downgrade(spool);
    }

    /// kill -9, now: nothing of it runs any more, not even what would delete its files.
    pub fn die(&self) {
        self.keep_spool();
        self.dead.cancel();
    }

    fn keep_spool(&self) {
        if let Some(spool) = self.spool.lock().unwrap().upgrade() {
            spool.keep();
        }
    }

    /// It is asked to stop: as a whole, or it is only to give its tasks back.
    pub fn is_asked_to_stop(&self) {
        if self.world.disks().rng.chance(60) {
            self.keep_spool();
        }
    }

    /// It dies after so many steps more.
    pub fn crash_after(&self, steps: u64) {
        let mut state = self.state.lock().unwrap();
        state.dies_at = Some(state.steps + steps);
    }

    /// It freezes after so many steps more.
    pub fn freeze_after(&self, steps: u64, time: Duration) {
        let mut state = self.state.lock().unwrap();
        state.freezes_at = Some((state.steps + steps, time));
    }

    /// Steps that it has made.
    pub fn steps(&self) -> u64 {
        self.state.lock().unwrap().steps
    }

    /// One step: it goes on past an await, or dies there.
    fn step(&self) {
        if self.dead.is_cancelled() {
            return;
        }
        let mut state = self.state.lock().unwrap();
        if state.dies_at.is_some_and(|at| state.steps >= at) {
            drop(state);
            self.die();
        } else {
            state.steps += 1;
            if let Some((at, time)) = state.freezes_at
                && state.steps > at
            {
                state.freezes_at = None;
                state.frozen_until = Instant::now() + time;
            }
        }
    }

    /// Runs what the process does, one poll a step, until it dies.
    pub async fn live<T>(&self, life: impl Future<Output = T>) -> Option<T> {
        let mut life = std::pin::pin!(life);
        let life = std::future::poll_fn(|context| {
            self.step();
            if self.dead.is_cancelled() { std::task::Poll::Pending } else { life.as_mut().poll(context) }
        });
        self.dead.run_until_cancelled(life).await
    }

    pub fn freeze_until(&self, until: Instant) {
        self.state.lock().unwrap().frozen_until = until;
    }

    pub fn is_frozen(&self) -> bool {
        self.state.lock().unwrap().frozen_until > Instant::now()
    }

    /// Waits until something may cross the border; for ever in a dead process.
    pub async fn cross(&self) {
        self.step();
        loop {
            if self.dead.is_cancelled() {
                std::future::pending::<()>().await;
            }
            let until = self.state.lock().unwrap().frozen_until;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
