//! Keeps one task running.
//!
//! Owns: what follows from a task's end: another start, a failed state, an exit status.
//! Does not own: the task.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connector::Connector;
use super::layout::{self, LayoutError};
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

/// One task of one connector, and who hears of it.
struct Supervised {
    connector: Arc<Connector>,
    topic: String,
    task: u32,
    topic_info: watch::Receiver<TopicInfo>,
    status: Arc<TaskStatus>,
    metrics: Arc<TaskMetrics>,
}

/// Runs a task while it may run here, again where that helps, until the worker stops.
pub async fn keep(
    connector: Arc<Connector>,
    topic: String,
    task: u32,
    topic_info: watch::Receiver<TopicInfo>,
    stop: CancellationToken,
) -> Exit {
    let shared = Arc::clone(&connector.shared);
    let name = TaskName::new(&connector.config.name, &topic, task);
    let status = Arc::new(TaskStatus::new(&name.connector, &topic, task));
    let metrics = Arc::new(TaskMetrics::new(&name.connector, &topic, task));
    shared.board.add_task(Arc::clone(&status));
    shared.places.offer(&name);
    let supervised = Supervised { connector, topic, task, topic_info, status, metrics };
    loop {
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => return Exit::Done,
            place = shared.places.take(&name, |why| supervised.wait_for(why)) => place,
        };
        let place = match place {
            Ok(place) => place,
            Err(why) => {
                tracing::error!(task = %name, "the task can't be run: {why}");
                supervised.wait_for(&why);
                return Exit::Unreachable;
            }
        };
        if let Some(exit) = supervised.run(place, &stop).await {
            return exit;
        }
    }
}

impl Supervised {
    fn wait_for(&self, why: &str) {
        self.status.set_state(TaskState::Unassigned, Some(why.to_owned()), None);
    }

    /// Runs the task in its place. `None`: the place is gone, the worker goes on.
    async fn run(&self, place: Place, stop: &CancellationToken) -> Option<Exit> {
        let (connector, topic, task) = (self.connector.config.name.as_str(), self.topic.as_str(), self.task);
        let until_caught_up = self.connector.shared.options.until_caught_up;
        let stop_here = stop.child_token();
        let ended = {
            let mut work = std::pin::pin!(self.work(&stop_here));
            tokio::select! {
                biased;
                ended = &mut work => ended,
                () = place.revoked() => {
                    tracing::info!(connector, topic, task, "the task is another worker's now, or about to be: it stops here");
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
            },
            Place::Alone(slot) => {
                drop(slot);
                stop.cancelled().await;
            }
        }
        Some(exit_of(&error))
    }

    /// Starts the task, again after failures that may pass.
    async fn work(&self, stop: &CancellationToken) -> Result<End, TaskError> {
        let shared = &self.connector.shared;
        let mut wait = RESTART_WAITS.0;
        loop {
            let started_ms = shared.environment.clock.now_ms();
            let context = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(End::Stopped),
                context = TaskContext::of(
                    &self.connector,
                    &self.topic,
                    self.task,
                    &self.status,
                    &self.metrics,
                    &self.topic_info,
                ) => context,
            };
            let ended = match context {
                Ok(context) => {
                    self.metrics.set_failed(false);
                    let running = task::run(&context, shared.options.until_caught_up, stop.clone());
                    // What was half done in memory is thrown away with the task; its log is in order.
                    AssertUnwindSafe(running)
                        .catch_unwind()
                        .await
                        .unwrap_or_else(|_| Err(TaskError::Panicked("see the message above".to_owned())))
                }
                Err(LayoutError::Store(error)) => Err(TaskError::Store(error)),
                Err(LayoutError::Conflict(message)) => Err(TaskError::Conflict(message)),
            };
            let error = match ended {
                Err(error) if error.remedy() == Remedy::Restart && !shared.options.until_caught_up => error,
                decided => return decided,
            };
            let (connector, topic, task) = (&self.connector.config.name, &self.topic, self.task);
            tracing::error!(connector, topic, task, advice = error.advice(), "task failed: {error}");
            self.status.set_state(TaskState::Restarting, Some(error.to_string()), Some(error.advice()));
            let healthy = shared.environment.clock.now_ms() - started_ms > HEALTHY_AFTER_MS;
            wait = if healthy { RESTART_WAITS.0 } else { wait };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(End::Stopped),
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

impl TaskContext {
    async fn of(
        connector: &Arc<Connector>,
        topic: &str,
        task: u32,
        status: &Arc<TaskStatus>,
        metrics: &Arc<TaskMetrics>,
        topic_info: &watch::Receiver<TopicInfo>,
    ) -> Result<Self, LayoutError> {
        let shared = &connector.shared;
        let tasks_max = connector.config.tasks_max.get();
        let mapping =
            layout::mapping(connector.state.as_ref(), &shared.environment, &connector.config.name, topic, tasks_max)
                .await?;
        Ok(Self {
            connector: Arc::clone(&connector.config),
            topic: topic.to_owned(),
            task,
            worker_id: shared.worker.id.clone(),
            kafka: Arc::clone(&shared.kafka),
            store: connector.store.clone(),
            log: Arc::new(connector.log(topic, mapping, task)),
            pool: shared.pool.clone(),
            spool: Arc::clone(&shared.spool),
            budget: shared.budget.clone(),
            uploads: Arc::clone(&connector.uploads),
            environment: shared.environment.clone(),
            status: Arc::clone(status),
            metrics: Arc::clone(metrics),
            shutdown_timeout: shared.worker.shutdown_timeout,
            group: shared.worker.kafka.group_offsets.then(|| format!("sluice-{}", connector.config.name)),
            topic_info: topic_info.clone(),
        })
    }
}
