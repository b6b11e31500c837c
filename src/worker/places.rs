//! Whether a task may run here.
//!
//! Owns: the two ways: alone, up to `worker.max_tasks`; in a group, by its leases. Does not own: sharing ([`crate::cluster`]).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cluster::TaskName;
use crate::cluster::group::{Group, Turn};

/// Where tasks get the right to run.
#[derive(Debug)]
pub enum Places {
    Alone(Arc<Semaphore>),
    Group(Arc<Group>),
}

/// The right to run one task.
#[derive(Debug)]
pub enum Place {
    Alone(OwnedSemaphorePermit),
    Group(Turn),
}

impl Places {
    pub fn alone(max_tasks: Option<u32>) -> Self {
        let slots = max_tasks.map_or(Semaphore::MAX_PERMITS, |max| max as usize);
        Self::Alone(Arc::new(Semaphore::new(slots)))
    }

    pub fn group(&self) -> Option<&Arc<Group>> {
        match self {
            Self::Alone(_) => None,
            Self::Group(group) => Some(group),
        }
    }

    /// This worker can run the task.
    pub fn offer(&self, task: &TaskName) {
        if let Self::Group(group) = self {
            group.offer(task);
        }
    }

    /// This worker does not run a connector's tasks any more; they have ended.
    pub fn withdraw(&self, connector: &str) {
        if let Self::Group(group) = self {
            group.withdraw(connector);
        }
    }

    /// Waits for the right to run the task. `tell` hears what it waits for.
    ///
    /// # Errors
    /// Why a run to the end, which waits for nobody, can't have it.
    pub async fn take(&self, task: &TaskName, tell: impl FnMut(&str)) -> Result<Place, String> {
        match self {
            Self::Alone(slots) => match Arc::clone(slots).acquire_owned().await {
                Ok(permit) => Ok(Place::Alone(permit)),
                Err(_) => Err("the worker stops".to_owned()),
            },
            Self::Group(group) => Ok(Place::Group(group.turn(task, tell).await?)),
        }
    }
}

impl Place {
    /// Returns when the task must not run here any more; alone, never.
    pub async fn revoked(&self) {
        match self {
            Self::Alone(_) => std::future::pending().await,
            Self::Group(turn) => turn.revoked().await,
        }
    }
}
