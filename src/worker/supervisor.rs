//! Keeps one task running.
//!
//! Owns: what follows from a task's end: another start, a failed state, an exit status.
//! Does not own: the task.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::connector::Connector;
use super::layout::Mapping;
use super::mapping::{self, Seen};
use super::places::Place;
use crate::api::metrics::TaskMetrics;
use crate::cli::Exit;
use crate::cluster::TaskName;
use crate::log::journal::LogError;
use crate::pipeline::source::{SourceError, TopicInfo};
use crate::task::error::Remedy;
use crate::task::status::{TaskState, TaskStatus};
use crate::task::{self, End, TaskContext, TaskError};

/// Waits between two starts of a task double from the first to the second.
const RESTART_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A task that ran this long has earned the short wait again.
const HEALTHY_AFTER_MS: i64 = 5 * 60 * 1000;

/// One task of a connector, as its worker sees it.
#[derive(Debug)]
pub struct Task {
    pub connector: Arc<Connector>,
    pub topic: String,
    pub task: u32,
    pub status: Arc<TaskStatus>,
    pub metrics: Arc<TaskMetrics>,
    pub topic_info: watch::Receiver<TopicInfo>,
    /// Held by the task that looks at the topic's mapping or changes it: the newest that had this worker's `tasks_max`.
    pub changing_mapping: Arc<Mutex<Option<u32>>>,
}

/// Runs a task while it may run here, again where that helps, until the worker stops.
pub async fn keep(this: Task, stop: CancellationToken) -> Exit {
    let places = &this.connector.shared.places;
    let name = TaskName::new(&this.connector.config.name, &this.topic, this.task);
    places.offer(&name);
    let mut seen = Seen::default();
    loop {
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => return Exit::Done,
            place = places.take(&name, |why| this.wait_for(why)) => place,
        };
        let place = match place {
            Ok(place) => place,
            Err(why) => {
                tracing::error!(task = %name, "the task can't be run: {why}");
                this.wait_for(&why);
                return Exit::Unreachable;
            }
        };
        if let Some(exit) = this.keep_in(place, &mut seen, &stop).await {
            return exit;
        }
    }
}

/// The worker that the log names.
fn fencing_worker(error: &TaskError) -> &str {
    match error {
        TaskError::Log(LogError::Fenced { by, .. }) => by,
        _ => "unknown",
    }
}

fn exit_of(error: &TaskError) -> Exit {
    match (error.remedy(), error) {
        (Remedy::Damage, _) => Exit::Damaged,
        (_, TaskError::Source(SourceError::Refused { .. })) => Exit::Usage,
        (Remedy::Leave | Remedy::Restart, _) => Exit::Unreachable,
        (Remedy::Operator, TaskError::Store(_) | TaskError::Log(_) | TaskError::Upload(_)) => Exit::Unreachable,
        (Remedy::Operator, _) => Exit::Usage,
    }
}

impl Task {
    fn wait_for(&self, why: &str) {
        self.status.set_state(TaskState::Unassigned, Some(why.to_owned()), None);
    }

    /// Keeps the task running in its place. `None`: the place is gone, the worker goes on.
    async fn keep_in(&self, place: Place, seen: &mut Seen, stop: &CancellationToken) -> Option<Exit> {
        let (connector, topic, task) = (self.connector.config.name.as_str(), self.topic.as_str(), self.task);
        let until_caught_up = self.connector.shared.options.until_caught_up;
        let stop_here = stop.child_token();
        let ended = {
            let mut work = std::pin::pin!(self.work(seen, &stop_here));
            tokio::select! {
                biased;
                ended = &mut work => ended,
                () = place.revoked() => {
                    tracing::info!(connector, topic, task, "the task is another worker's now, or about to be: it stops here");
                    stop_here.cancel();
                    work.await
                }
                () = self.status.restart_asked() => {
                    tracing::info!(connector, topic, task, "the task is started anew, as asked");
                    self.status.set_state(TaskState::Restarting, None, None);
                    stop_here.cancel();
                    work.await
                }
            }
        };
        let error = match ended {
            Ok(end) => {
                tracing::info!(connector, topic, task, ?end, "task ended");
                let given_up = !stop.is_cancelled() && end != End::CaughtUp;
                if !given_up {
                    self.status.set_state(TaskState::Stopped, None, None);
                    if !until_caught_up {
                        self.metrics.leave(self.connector.shared.environment.clock.now_ms());
                    }
                    return Some(Exit::Done);
                }
                self.left();
                if until_caught_up {
                    self.wait_for("another worker of the group took its lease");
                    return Some(Exit::Unreachable);
                }
                return None;
            }
            Err(error) => error,
        };
        let (remedy, advice) = (error.remedy(), error.advice());
        tracing::error!(connector, topic, task, advice, "task failed: {error}");
        let state = if remedy == Remedy::Leave { TaskState::Unassigned } else { TaskState::Failed };
        self.metrics.set_failed(state == TaskState::Failed);
        self.status.set_state(state, Some(error.to_string()), Some(advice));
        match place {
            _ if until_caught_up => {}
            // The lease says whether it comes back, the log has said that it is another's now.
            Place::Group(turn) if remedy == Remedy::Leave => {
                self.left();
                turn.fenced(fencing_worker(&error));
                return None;
            }
            // Other tasks go on; this one shows why it does not until the worker stops, or until another one may try it.
            Place::Group(turn) => tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = turn.revoked() => {
                    self.left();
                    return None;
                }
                () = self.status.restart_asked() => return None,
            },
            Place::Alone(slot) => {
                drop(slot);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = self.status.restart_asked() => return None,
                }
            }
        }
        // Who stops a connector on purpose wants no alarm of it.
        self.metrics.leave(self.connector.shared.environment.clock.now_ms());
        Some(exit_of(&error))
    }

    /// Starts the task, again after failures that may pass.
    async fn work(&self, seen: &mut Seen, stop: &CancellationToken) -> Result<End, TaskError> {
        let shared = &self.connector.shared;
        let mut wait = RESTART_WAITS.0;
        loop {
            let started_ms = shared.environment.clock.now_ms();
            // What was half done in memory is thrown away with the task; its log is in order.
            let ended = AssertUnwindSafe(self.run(seen, stop)).catch_unwind().await;
            let ended = ended.unwrap_or_else(|_| Err(TaskError::Panicked("see the message above".to_owned())));
            let error = match ended {
                // Another mapping is there, or has to be made.
                Ok(End::Closed(_)) => continue,
                Err(error) if error.remedy() == Remedy::Restart && !shared.options.until_caught_up => error,
                decided => return decided,
            };
            let (connector, topic, task) = (&self.connector.config.name, &self.topic, self.task);
            tracing::error!(connector, topic, task, advice = error.advice(), "task failed: {error}");
            self.metrics.restarts();
            self.status.set_state(TaskState::Restarting, Some(error.to_string()), Some(error.advice()));
            let healthy = shared.environment.clock.now_ms() - started_ms > HEALTHY_AFTER_MS;
            wait = if healthy { RESTART_WAITS.0 } else { wait };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(End::Stopped),
                () = self.status.restart_asked() => {}
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RESTART_WAITS.1);
        }
    }

    /// What was shown of the task is another worker's to show.
    fn left(&self) {
        self.status.leave();
        self.metrics.leave(self.connector.shared.environment.clock.now_ms());
    }

    async fn run(&self, seen: &mut Seen, stop: &CancellationToken) -> Result<End, TaskError> {
        let until_caught_up = self.connector.shared.options.until_caught_up;
        let current = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            current = mapping::current(self, seen, stop) => current?,
        };
        let Some((number, mapping)) = current else { return Ok(End::Stopped) };
        self.metrics.set_failed(false);
        let context = self.context(self.task, number, &mapping);
        let end = task::run(&context, until_caught_up, stop.clone()).await?;
        if matches!(end, End::Closed(_)) {
            seen.closed = Some(number);
        }
        Ok(end)
    }

    /// What share `share` of a mapping works with.
    pub fn context(&self, share: u32, number: u32, mapping: &Mapping) -> TaskContext {
        let connector = &self.connector;
        let shared = &connector.shared;
        TaskContext {
            connector: Arc::clone(&connector.config),
            topic: self.topic.clone(),
            task: share,
            tasks_max: mapping.tasks_max,
            origin: mapping.origin.clone().map(Arc::new),
            worker_id: shared.worker.id.clone(),
            kafka: Arc::clone(&shared.kafka),
            store: connector.store.clone(),
            log: Arc::new(connector.log(&self.topic, number, share)),
            pool: shared.pool.clone(),
            spool: Arc::clone(&shared.spool),
            budget: shared.budget.clone(),
            uploads: Arc::clone(&connector.uploads),
            environment: shared.environment.clone(),
            status: Arc::clone(&self.status),
            metrics: Arc::clone(&self.metrics),
            shutdown_timeout: shared.worker.shutdown_timeout,
            group: shared.worker.kafka.group_offsets.then(|| format!("sluice-{}", connector.config.name)),
            topic_info: self.topic_info.clone(),
            snapshot_every: shared.snapshot_every,
        }
    }
}
