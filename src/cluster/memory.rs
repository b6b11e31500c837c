//! Coordination in memory: the twin of Redis for tests and simulation.
//!
//! Owns: members, leases, a switch that makes it unreachable. Does not own: the clock by which leases end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Card, CoordinationAway, Coordinator, Instance, TaskName, View};
use crate::clock::Clock;

/// A group whose workers are in one process.
#[derive(Debug)]
pub struct MemoryCoordinator {
    clock: Arc<dyn Clock>,
    lease_ms: i64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    away: bool,
    held: Held,
}

/// All that a coordinator knows, with the time at which each ends.
#[derive(Clone, Debug, Default)]
pub struct Held {
    members: BTreeMap<Instance, (i64, Card)>,
    leases: BTreeMap<TaskName, (i64, Instance)>,
}

impl MemoryCoordinator {
    /// `clock` is what Redis' own clock is to the real one.
    pub fn new(clock: Arc<dyn Clock>, lease: Duration) -> Self {
        let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        Self { clock, lease_ms, inner: Mutex::default() }
    }

    /// Every request fails until it is switched back.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// FLUSHALL.
    pub fn flush(&self) {
        self.restore(Held::default());
    }

    /// What a replica would have now.
    pub fn held(&self) -> Held {
        self.lock().held.clone()
    }

    /// A fail-over to a replica that has less, or older.
    pub fn restore(&self, held: Held) {
        self.lock().held = held;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state without what has ended, and the time at which a lease of now ends.
    fn here(&self) -> Result<(MutexGuard<'_, Inner>, i64), CoordinationAway> {
        let mut inner = self.lock();
        if inner.away {
            return Err(CoordinationAway("memory: is away".to_owned()));
        }
        let now_ms = self.clock.now_ms();
        let ends_ms = now_ms.saturating_add(self.lease_ms);
        let Held { members, leases } = &mut inner.held;
        members.retain(|_, (at, _)| *at > now_ms);
        leases.retain(|_, (at, _)| *at > now_ms);
        // What claims more than a whole lease is from a clock that was ahead.
        members.values_mut().for_each(|(at, _)| *at = (*at).min(ends_ms));
        leases.values_mut().for_each(|(at, _)| *at = (*at).min(ends_ms));
        Ok((inner, ends_ms))
    }
}

#[async_trait]
impl Coordinator for MemoryCoordinator {
    async fn sync(&self, me: &Instance, card: &Card, held: &[TaskName]) -> Result<View, CoordinationAway> {
        let (mut inner, ends_ms) = self.here()?;
        let known = inner.held.members.insert(me.clone(), (ends_ms, card.clone())).is_some();
        for task in held {
            let lease = inner.held.leases.entry(task.clone()).or_insert_with(|| (ends_ms, me.clone()));
            if lease.1 == *me {
                lease.0 = ends_ms;
            }
        }
        let members = inner.held.members.iter().map(|(instance, (_, card))| (instance.clone(), card.clone())).collect();
        let leases = inner.held.leases.iter().map(|(task, (_, holder))| (task.clone(), holder.clone())).collect();
        Ok(View { known, members, leases })
    }

    async fn acquire(&self, me: &Instance, tasks: &[TaskName]) -> Result<Vec<TaskName>, CoordinationAway> {
        let (mut inner, ends_ms) = self.here()?;
        let free = |task: &&TaskName| inner.held.leases.get(task).is_none_or(|(_, holder)| holder == me);
        let mine: Vec<TaskName> = tasks.iter().filter(free).cloned().collect();
        inner.held.leases.extend(mine.iter().map(|task| (task.clone(), (ends_ms, me.clone()))));
        Ok(mine)
    }

    async fn release(&self, me: &Instance, tasks: &[TaskName]) -> Result<(), CoordinationAway> {
        let (mut inner, _) = self.here()?;
        inner.held.leases.retain(|task, (_, holder)| holder != me || !tasks.contains(task));
        Ok(())
    }

    async fn leave(&self, me: &Instance) -> Result<(), CoordinationAway> {
        let (mut inner, _) = self.here()?;
        inner.held.members.remove(me);
        inner.held.leases.retain(|_, (_, holder)| holder != me);
        Ok(())
    }

    fn place(&self) -> String {
        "memory:".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        contract::run(|lease| {
            let coordinator = Arc::new(MemoryCoordinator::new(Arc::new(SystemClock), lease)) as Arc<dyn Coordinator>;
            (Arc::clone(&coordinator), coordinator)
        })
        .await;
    }
}
