//! What a worker did within the last hour.
//!
//! Owns: samples over time, what tasks uploaded lately put together. Does not own: the tasks' own figures
//! ([`crate::task::status`], [`crate::task::recent`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::http::Board;
use crate::clock::Environment;
use crate::task::recent::Upload;
use crate::task::status::TaskReport;

const EVERY: Duration = Duration::from_secs(5);
/// An hour.
const SAMPLES: usize = 720;
const UPLOADS: usize = 50;
const APPS: usize = 20;

/// All tasks together at one moment. What is counted starts anew with a task, so differences may be below zero once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    pub records_archived: u64,
    pub bytes_stored: u64,
    pub lag_records: i64,
    pub open_lanes: usize,
}

/// An app and what it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AppBytes {
    pub app: String,
    pub bytes: u64,
}

/// What `/api/activity` answers.
#[derive(Clone, Debug, Serialize)]
pub struct ActivityReport {
    /// Oldest first, `sample_secs` apart.
    pub samples: Vec<Sample>,
    pub sample_secs: u64,
    /// Newest first.
    pub uploads: Vec<Upload>,
    /// Largest first, since the tasks began here.
    pub apps: Vec<AppBytes>,
}

/// The samples of a worker.
#[derive(Debug, Default)]
pub struct Activity(Mutex<VecDeque<Sample>>);

impl Activity {
    /// Takes samples until `stop`.
    pub async fn watch(self: Arc<Self>, board: Arc<Board>, environment: Environment, stop: CancellationToken) {
        while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
            self.add(sample(&board.reports(), environment.clock.now_ms()));
        }
    }

    fn add(&self, sample: Sample) {
        // One plain value after the other.
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    pub fn report(&self, board: &Board) -> ActivityReport {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let mut uploads: Vec<Upload> = Vec::new();
        let mut apps: BTreeMap<String, u64> = BTreeMap::new();
        for task in board.tasks() {
            task.recent(|recent| {
                uploads.extend(recent.uploads().cloned());
                recent.apps().for_each(|(app, bytes)| *apps.entry(app.to_owned()).or_default() += bytes);
            });
        }
        uploads.sort_by(|a, b| b.at_ms.cmp(&a.at_ms).then_with(|| a.key.cmp(&b.key)));
        uploads.truncate(UPLOADS);
        let mut apps: Vec<AppBytes> = apps.into_iter().map(|(app, bytes)| AppBytes { app, bytes }).collect();
        apps.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.app.cmp(&b.app)));
        apps.truncate(APPS);
        ActivityReport { samples, sample_secs: EVERY.as_secs(), uploads, apps }
    }
}

fn sample(reports: &[TaskReport], at_ms: i64) -> Sample {
    Sample {
        at_ms,
        records_archived: reports.iter().map(|report| report.records_archived).sum(),
        bytes_stored: reports.iter().map(|report| report.bytes_stored).sum(),
        lag_records: reports.iter().map(|report| report.lag_records).sum(),
        open_lanes: reports.iter().map(|report| report.open_lanes).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept() {
        let activity = Activity::default();
        for at_ms in 0..1_000 {
            activity.add(Sample { at_ms, ..Sample::default() });
        }
        let samples = activity.0.lock().unwrap();
        assert_eq!((samples.len(), samples[0].at_ms), (SAMPLES, 1_000 - SAMPLES as i64));
    }
}
