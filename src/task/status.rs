//! What a task tells about itself.
//!
//! Owns: the state that status, REST and metrics show. Does not own: how it is shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::Notify;

use super::core::Progress;
use super::recent::{Recent, Upload};

/// Kafka Connect's states of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskState {
    Unassigned,
    Running,
    Failed,
    Paused,
    Stopped,
    Restarting,
}

impl TaskState {
    pub const ALL: [Self; 6] =
        [Self::Unassigned, Self::Running, Self::Failed, Self::Paused, Self::Stopped, Self::Restarting];

    /// As it is spelled wherever it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unassigned => "UNASSIGNED",
            Self::Running => "RUNNING",
            Self::Failed => "FAILED",
            Self::Paused => "PAUSED",
            Self::Stopped => "STOPPED",
            Self::Restarting => "RESTARTING",
        }
    }
}

/// A task at one moment.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct TaskReport {
    pub connector: String,
    pub topic: String,
    pub task: u32,
    pub state: TaskState,
    /// Why it failed or waits, and what to do.
    pub message: Option<String>,
    pub advice: Option<String>,
    pub lag_records: i64,
    pub open_lanes: usize,
    pub files_in_upload: usize,
    pub intents_pending: usize,
    pub objects: u64,
    pub records_archived: u64,
    pub bytes_stored: u64,
    /// Milliseconds since the Unix epoch.
    pub last_upload_ms: Option<i64>,
    pub oldest_unsealed_ms: Option<i64>,
    pub partitions: BTreeMap<i32, PartitionReport>,
}

/// A partition at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct PartitionReport {
    pub low: i64,
    pub position: i64,
    /// End of what can be read, as last seen.
    pub end: Option<i64>,
    /// First offset that Kafka still has, as last seen.
    pub log_start: Option<i64>,
    /// Why reading waits.
    pub waiting: Option<String>,
}

/// Shared between a task and who asks about it.
#[derive(Debug)]
pub struct TaskStatus {
    report: Mutex<TaskReport>,
    recent: Mutex<Recent>,
    restart: Notify,
    /// How often the event loop has gone round.
    turns: AtomicU64,
    in_loop: AtomicBool,
}

/// An event loop that runs.
#[derive(Debug)]
pub struct LoopGuard<'a>(&'a TaskStatus);

impl Drop for LoopGuard<'_> {
    fn drop(&mut self) {
        self.0.in_loop.store(false, Ordering::Relaxed);
    }
}

impl TaskStatus {
    pub fn new(connector: &str, topic: &str, task: u32) -> Self {
        let report = TaskReport {
            connector: connector.to_owned(),
            topic: topic.to_owned(),
            task,
            state: TaskState::Unassigned,
            message: None,
            advice: None,
            lag_records: 0,
            open_lanes: 0,
            files_in_upload: 0,
            intents_pending: 0,
            objects: 0,
            records_archived: 0,
            bytes_stored: 0,
            last_upload_ms: None,
            oldest_unsealed_ms: None,
            partitions: BTreeMap::new(),
        };
        Self {
            report: Mutex::new(report),
            recent: Mutex::default(),
            restart: Notify::new(),
            turns: AtomicU64::new(0),
            in_loop: AtomicBool::new(false),
        }
    }

    /// Shows what was uploaded lately.
    pub fn recent<T>(&self, look: impl FnOnce(&Recent) -> T) -> T {
        look(&self.recent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An object was uploaded; `app`: whose it is, where its key tells.
    pub fn uploaded(&self, upload: Upload, app: Option<&str>) {
        self.update(|report| report.last_upload_ms = Some(upload.at_ms));
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).add(upload, app);
    }

    pub fn is_of(&self, connector: &str) -> bool {
        self.lock().connector == connector
    }

    /// Asks whoever keeps the task to end it and start it anew.
    pub fn ask_restart(&self) {
        self.restart.notify_one();
    }

    /// Returns when a restart is asked for, or was since the last one.
    pub async fn restart_asked(&self) {
        self.restart.notified().await;
    }

    pub fn report(&self) -> TaskReport {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TaskReport> {
        // A report has no half-done state worth refusing.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event loop begins; it ends when the answer is dropped.
    pub fn begin_loop(&self) -> LoopGuard<'_> {
        self.turn();
        self.in_loop.store(true, Ordering::Relaxed);
        LoopGuard(self)
    }

    /// The event loop goes round once more: what shows a watchdog that it does not stand still.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// `None`: no event loop runs.
    pub fn turns(&self) -> Option<u64> {
        self.in_loop.load(Ordering::Relaxed).then(|| self.turns.load(Ordering::Relaxed))
    }

    /// Connector, topic, task.
    pub fn name(&self) -> (String, String, u32) {
        let report = self.lock();
        (report.connector.clone(), report.topic.clone(), report.task)
    }

    pub fn set_state(&self, state: TaskState, message: Option<String>, advice: Option<&str>) {
        let mut report = self.lock();
        report.state = state;
        report.message = message;
        report.advice = advice.map(str::to_owned);
    }

    /// The task goes on elsewhere: lag and lanes are shown there. What was archived here stays counted.
    pub fn leave(&self) {
        let mut report = self.lock();
        report.lag_records = 0;
        report.open_lanes = 0;
        report.files_in_upload = 0;
        report.intents_pending = 0;
        report.oldest_unsealed_ms = None;
        report.partitions.clear();
    }

    pub fn update(&self, change: impl FnOnce(&mut TaskReport)) {
        change(&mut self.lock());
    }

    /// Why reading of a partition waits.
    pub fn waiting(&self, partition: i32) -> Option<String> {
        self.lock().partitions.get(&partition).and_then(|partition| partition.waiting.clone())
    }

    pub fn set_progress(&self, progress: &Progress) {
        let mut report = self.lock();
        report.open_lanes = progress.open_lanes;
        report.files_in_upload = progress.files_in_upload;
        report.intents_pending = progress.intents_pending;
        report.oldest_unsealed_ms = progress.oldest_unsealed_ms;
        for (&partition, &position) in &progress.positions {
            report.partitions.entry(partition).or_default().position = position;
        }
        for (&partition, &low) in &progress.lows {
            report.partitions.entry(partition).or_default().low = low;
        }
        // Lag counts what is not yet safe in the store, as consumer lag counts what is not yet committed.
        report.lag_records = report.partitions.values().filter_map(|p| Some((p.end? - p.low).max(0))).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_known() {
        for state in
            [TaskState::Unassigned, TaskState::Running, TaskState::Failed, TaskState::Stopped, TaskState::Restarting]
        {
            assert!(TaskState::ALL.contains(&state), "{state:?}");
        }
        for state in TaskState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
