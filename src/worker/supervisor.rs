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
use crate::api::metrics::TaskMetrics;
use crate::cli::Exit;
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
    /// Held by the task that looks at the topic's mapping or changes it.
    pub changing_mapping: Arc<Mutex<()>>,
}

/// Runs a task, again where that helps, until the worker stops.
pub async fn keep(this: Task, stop: CancellationToken) -> Exit {
    let Task { connector, topic, task, status, metrics, .. } = &this;
    let shared = &connector.shared;
    let name = &connector.config.name;
    // A canary takes at most so many tasks; the others stay unassigned.
    let slot = tokio::select! {
        biased;
        () = stop.cancelled() => return Exit::Done,
        slot = shared.task_slots.acquire() => slot,
    };
    let mut seen = Seen::default();
    let mut wait = RESTART_WAITS.0;
    loop {
        let started_ms = shared.environment.clock.now_ms();
        // What was half done in memory is thrown away with the task; its log is in order.
        let ended = AssertUnwindSafe(this.run(&mut seen, &stop)).catch_unwind().await;
        let ended = ended.unwrap_or_else(|_| Err(TaskError::Panicked("see the message above".to_owned())));
        let error = match ended {
            // Another mapping is there, or has to be made.
            Ok(End::Closed(_)) => continue,
            Ok(end) => {
                tracing::info!(connector = name, topic, task, ?end, "task ended");
                status.set_state(TaskState::Stopped, None, None);
                drop(slot);
                return Exit::Done;
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

impl Task {
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
            origin: mapping::origin(mapping),
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
        }
    }
}
