//! The border between a worker's process and the rest of the world.
//!
//! Owns: whether anything may cross it: a dead process sends and receives nothing any more, a frozen one only later.
//! Does not own: what crosses it.
//!
//! The real task reaches the world through doors only, so that this is all there is to a crash, a SIGSTOP or a cut network.

use std::sync::{Arc, Mutex};

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
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    frozen_until: Instant,
    crossings_left: Option<u64>,
}

impl Process {
    pub fn new(id: u32, world: &Arc<World>, faulty: bool) -> Arc<Self> {
        let state = State { frozen_until: Instant::now(), crossings_left: None };
        Arc::new(Self {
            id,
            world: Arc::clone(world),
            dead: CancellationToken::new(),
            faulty,
            state: Mutex::new(state),
        })
    }

    /// It dies when it has crossed the border so many times more.
    pub fn crash_after(&self, crossings: u64) {
        self.state.lock().unwrap().crossings_left = Some(crossings);
    }

    pub fn freeze_until(&self, until: Instant) {
        self.state.lock().unwrap().frozen_until = until;
    }

    /// Waits until something may cross the border; for ever in a dead process.
    pub async fn cross(&self) {
        {
            let mut state = self.state.lock().unwrap();
            if let Some(left) = &mut state.crossings_left {
                if *left == 0 {
                    self.dead.cancel();
                } else {
                    *left -= 1;
                }
            }
        }
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
