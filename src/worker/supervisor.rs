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
use crate::api::metrics::TaskMetrics;
use crate::cli::Exit;
use crate::pipeline::source::{SourceError, TopicInfo};
use crate::task::core::SNAPSHOT_EVERY;
use crate::task::error::Remedy;
use crate::task::status::{TaskState, TaskStatus};
use crate::task::{self, End, TaskContext, TaskError};

/// Waits between two starts of a task double from the first to the second.
const RESTART_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A task that ran this long has earned the short wait again.
const HEALTHY_AFTER_MS: i64 = 5 * 60 * 1000;

/// Runs a task, again where that helps, until the worker stops.
pub async fn keep(
    connector: Arc<Connector>,
    topic: String,
    task: u32,
    topic_info: watch::Receiver<TopicInfo>,
    stop: CancellationToken,
) -> Exit {
    let shared = &connector.shared;
    let name = connector.config.name.clone();
    let status = Arc::new(TaskStatus::new(&name, &topic, task));
    shared.board.add_task(Arc::clone(&status));
    // A canary takes at most so many tasks; the others stay unassigned.
    let slot = tokio::select! {
        biased;
        () = stop.cancelled() => return Exit::Done,
        slot = shared.task_slots.acquire() => slot,
    };
    let metrics = Arc::new(TaskMetrics::new(&name, &topic, task));
    let mut wait = RESTART_WAITS.0;
    loop {
        let started_ms = shared.environment.clock.now_ms();
        let context = tokio::select! {
            biased;
            () = stop.cancelled() => return Exit::Done,
            context = TaskContext::of(&connector, &topic, task, &status, &metrics, &topic_info) => context,
        };
        let ended = match context {
            Ok(context) => {
                metrics.set_failed(false);
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
            Ok(end) => {
                tracing::info!(connector = name, topic, task, ?end, "task ended");
                status.set_state(TaskState::Stopped, None, None);
                drop(slot);
                return match end {
                    End::CaughtUp | End::Stopped | End::CutShort => Exit::Done,
                };
            }
            Err(error) => error,
        };
        let remedy = error.remedy();
        tracing::error!(connector = name, topic, task, advice = error.advice(), "task failed: {error}");
        if remedy == Remedy::Restart && !shared.options.until_caught_up {
            status.set_state(TaskState::Restarting, Some(error.to_string()), Some(error.advice()));
            let healthy = shared.environment.clock.now_ms() - started_ms > HEALTHY_AFTER_MS;
            wait = if healthy { RESTART_WAITS.0 } else { wait };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Exit::Done,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RESTART_WAITS.1);
            continue;
        }
        let state = if remedy == Remedy::Leave { TaskState::Unassigned } else { TaskState::Failed };
        metrics.set_failed(state == TaskState::Failed);
        status.set_state(state, Some(error.to_string()), Some(error.advice()));
        drop(slot);
        if !shared.options.until_caught_up {
            // Other tasks go on; this one shows why it does not until the worker stops.
            stop.cancelled().await;
        }
        return exit_of(&error);
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
            snapshot_every: SNAPSHOT_EVERY,
        })
    }
}
