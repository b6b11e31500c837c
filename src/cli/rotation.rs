//! What a connector's rotation leads to: files, requests, what is read again.
//!
//! Owns: these sums and their words. Does not own: measured rates (a probe's).

use std::time::Duration;

use crate::config::units::{show_bytes, show_duration};
use crate::config::{Bucket, ConnectorConfig};

const DAY: Duration = Duration::from_secs(86_400);

/// The most that rotation by time makes of one app and topic in a day; files that reach `max_bytes` come on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rotation {
    pub tasks: u64,
    /// Files that age finishes, of each task.
    pub by_age: u64,
    /// Files that the end of a bucket finishes, of each task.
    pub by_bucket: u64,
    /// Tasks × (by age + by bucket).
    pub files: u64,
    /// One upload and at most two entries of the task's log for each file.
    pub requests: u64,
    /// Requests for a file that reaches `max_bytes`.
    pub requests_of_a_full_file: u64,
    /// Records up to this old are read again after a restart without the spool, in milliseconds.
    pub replay_ms: u64,
}

impl Rotation {
    pub fn of(config: &ConnectorConfig) -> Self {
        let interval_ms = config.rotate.max_interval.as_millis().max(1);
        let by_age = u64::try_from(DAY.as_millis().div_ceil(interval_ms)).unwrap_or(u64::MAX);
        let by_bucket = match config.time.bucket {
            Bucket::None => 0,
            Bucket::Day => 1,
            Bucket::Hour => 24,
        };
        let tasks = u64::from(config.tasks_max.get());
        let files = tasks.saturating_mul(by_age.saturating_add(by_bucket));
        let parts = config.rotate.max_bytes.div_ceil(config.sink.part_bytes.max(1));
        // Above one part: begin and complete; always at most two entries of the log.
        let requests_of_a_full_file = if parts > 1 { parts + 4 } else { 3 };
        Self {
            tasks,
            by_age,
            by_bucket,
            files,
            requests: files.saturating_mul(3),
            requests_of_a_full_file,
            replay_ms: u64::try_from(interval_ms).unwrap_or(u64::MAX),
        }
    }

    /// Lines of text, with the numbers in the sums.
    pub fn lines(&self, config: &ConnectorConfig) -> Vec<String> {
        let interval = config.rotate.max_interval;
        let seconds = interval.as_secs_f64();
        let bucket = match self.by_bucket {
            0 => String::new(),
            1 => " + 1 at the end of the day's bucket".to_owned(),
            hours => format!(" + {hours} at the ends of the hours' buckets"),
        };
        vec![
            format!(
                "files a day, of each app and topic: at most {} = {} task{} x (86400 s / {seconds} s{bucket}); more only of \
                 an app that fills {} sooner",
                self.files,
                self.tasks,
                if self.tasks == 1 { "" } else { "s" },
                show_bytes(config.rotate.max_bytes),
            ),
            format!(
                "requests a day, of each app and topic: at most {} = {} files x (1 upload + 2 log entries); apps due together \
                 share log entries; a full file takes {}",
                self.requests, self.files, self.requests_of_a_full_file,
            ),
            format!(
                "with 100 apps on one topic: at most {} files and {} requests a day",
                self.files.saturating_mul(100),
                self.requests.saturating_mul(100)
            ),
            format!("a restart without the spool reads up to {} of records again", show_duration(interval)),
        ]
    }
}
