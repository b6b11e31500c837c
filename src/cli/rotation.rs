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

/// What to say where a topic keeps its records hardly longer than a file may wait; `None`: it keeps them long enough.
///
/// A worker that is down for what is left between the two loses records.
pub fn retention_warning(config: &ConnectorConfig, topic: &str, retention: Duration) -> Option<String> {
    const ROOM: u32 = 4;
    let interval = config.rotate.max_interval;
    (retention < interval.saturating_mul(ROOM)).then(|| {
        format!(
            "topic {topic} keeps records for {}, and a file may wait for {} (rotate.max_interval): less than {ROOM} times that \
             is left for a worker that is down",
            show_duration(retention),
            show_duration(interval),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, load_connector_str};

    fn connector(more: &str) -> ConnectorConfig {
        let text = format!("{{ topics: [t], app_id: {{ from: key }}, sink: {{ url: s3://logs }}{more} }}");
        load_connector_str(Path::new("c.yaml"), &text, &Environment::new()).unwrap().0
    }

    #[test]
    fn counts_files_and_requests() {
        let of = |more: &str| Rotation::of(&connector(more));
        let default = of("");
        assert_eq!((default.by_age, default.by_bucket, default.files, default.requests), (48, 1, 49, 147));
        // 128 MiB in parts of 16 MiB: 8 parts, begin, complete, 2 log entries.
        assert_eq!(default.requests_of_a_full_file, 12);
        assert_eq!(of(", rotate: { max_bytes: 16MiB }").requests_of_a_full_file, 3);
        assert_eq!(of(", time: { bucket: none }").files, 48);
        assert_eq!(of(", time: { bucket: 1h }, tasks_max: 10").files, 720);
        assert_eq!(of(", rotate: { max_interval: 7h }").by_age, 4);
        assert_eq!(of(", rotate: { max_interval: 30d }").by_age, 1);
    }

    #[test]
    fn shows_its_numbers() {
        let config = connector(", tasks_max: 2, rotate: { max_interval: 90m }");
        let lines = Rotation::of(&config).lines(&config);
        assert!(lines[0].contains("at most 34 = 2 tasks x (86400 s / 5400 s + 1 at"), "{}", lines[0]);
        assert!(lines[1].contains("at most 102 = 34 files x (1 upload + 2 log entries)"), "{}", lines[1]);
        assert!(lines[3].contains("up to 1h30m of records again"), "{}", lines[3]);
    }

    #[test]
    fn short_retention_is_told() {
        let config = connector("");
        assert_eq!(retention_warning(&config, "t", Duration::from_secs(7_200)), None);
        let warning = retention_warning(&config, "t", Duration::from_secs(3_600)).unwrap();
        assert!(warning.starts_with("topic t keeps records for 1h, and a file may wait for 30m"), "{warning}");
    }
}
