//! The one place that counts.
//!
//! Owns: the recorder, labels. Does not own: names ([`list`]), what is counted.

pub mod asked;
pub mod list;
mod process;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

pub use list::{Kind, METRICS};

use crate::pipeline::budget::Budget;
use crate::pipeline::spool::Spool;
use crate::task::core::Counters;
use crate::task::status::TaskReport;
use crate::version::VERSION;
use list::*;

/// Installs the recorder of this process.
///
/// # Errors
/// Another recorder is installed already.
pub fn install() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, Unit::Count, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
        }
    }
    // Before their first event: a counter that begins with a count hides that count from rates.
    counter!(STORE_RETRIES).increment(0);
    for result in ["ok", "refused"] {
        counter!(CONFIG_RELOADS, "result" => result).increment(0);
    }
    for code in ["ok", "transient", "throttled", "denied"] {
        counter!(UPLOAD_REQUESTS, "op" => "create", "code" => code).increment(0);
    }
    gauge!(CONFIG_RELOAD_OK).set(1.0);
    gauge!(BUILD_INFO, "version" => VERSION).set(1.0);
    Ok(handle)
}

/// The metrics of one task: labels connector and topic, and partition where it fits.
#[derive(Debug)]
pub struct TaskMetrics {
    connector: String,
    topic: String,
    task: String,
    /// Partition label values, made once.
    partitions: Mutex<BTreeMap<i32, String>>,
}

impl TaskMetrics {
    pub fn new(connector: &str, topic: &str, task: u32) -> Self {
        let metrics = Self {
            connector: connector.to_owned(),
            topic: topic.to_owned(),
            task: task.to_string(),
            partitions: Mutex::default(),
        };
        // From zero on, or Prometheus would not see the first of them as an increase.
        for rare in [TAKEOVERS, TASK_RESTARTS] {
            counter!(rare, &metrics.labels()).increment(0);
        }
        metrics
    }

    fn labels(&self) -> [(&'static str, String); 2] {
        [("connector", self.connector.clone()), ("topic", self.topic.clone())]
    }

    fn task_labels(&self) -> [(&'static str, String); 3] {
        [("connector", self.connector.clone()), ("topic", self.topic.clone()), ("task", self.task.clone())]
    }

    fn partition_labels(&self, partition: i32) -> [(&'static str, String); 3] {
        let mut known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let label = known.entry(partition).or_insert_with(|| partition.to_string()).clone();
        [("connector", self.connector.clone()), ("topic", self.topic.clone()), ("partition", label)]
    }

    pub fn took_over(&self) {
        counter!(TAKEOVERS, &self.labels()).increment(1);
    }

    /// It failed and is started again by itself.
    pub fn restarts(&self) {
        counter!(TASK_RESTARTS, &self.labels()).increment(1);
    }

    pub fn appended(&self) {
        counter!(LOG_APPENDS, &self.labels()).increment(1);
    }

    pub fn set_failed(&self, failed: bool) {
        gauge!(TASK_FAILED, &self.task_labels()).set(if failed { 1.0 } else { 0.0 });
    }

    /// The task goes on elsewhere: nothing of it waits here. A headroom of not-a-number alarms nobody.
    pub fn leave(&self, now_ms: i64) {
        let known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for partition in known.into_keys() {
            let labels = self.partition_labels(partition);
            gauge!(LAG_RECORDS, &labels).set(0.0);
            gauge!(RETENTION_HEADROOM, &labels).set(f64::NAN);
            gauge!(LOG_START, &labels).set(f64::NAN);
        }
        let task = self.task_labels();
        gauge!(OPEN_LANES, &task).set(0.0);
        gauge!(INTENTS_PENDING, &task).set(0.0);
        gauge!(LAG_SECONDS, &task).set(0.0);
        gauge!(OLDEST_UNSEALED, &task).set(seconds(now_ms));
        gauge!(TASK_FAILED, &task).set(0.0);
    }

    /// Adds what was counted and shows the report.
    pub fn publish(&self, counters: &Counters, report: &TaskReport, now_ms: i64) {
        let labels = self.labels();
        for (&partition, &records) in &counters.records_read {
            counter!(RECORDS_READ, &self.partition_labels(partition)).increment(records);
        }
        for (name, count) in [
            (RECORDS_ARCHIVED, counters.records_archived),
            (RECORDS_SKIPPED, counters.records_skipped),
            (RECORDS_REPLAYED, counters.records_skipped_by_mark),
            (RECORDS_DEAD_LETTERED, counters.records_dead_lettered),
            (TIME_FALLBACKS, counters.time_fallbacks),
            (BYTES_RAW, counters.bytes_raw),
            (BYTES_STORED, counters.bytes_stored),
            (FRAMES, counters.frames),
            (OBJECTS, counters.objects),
            (TASK_RESTARTS, 0),
        ] {
            counter!(name, &labels).increment(count);
        }
        for (&partition, seen) in &report.partitions {
            let labels = self.partition_labels(partition);
            if let Some(end) = seen.end {
                gauge!(LAG_RECORDS, &labels).set((end - seen.low).max(0) as f64);
            }
            if let Some(start) = seen.log_start {
                gauge!(RETENTION_HEADROOM, &labels).set((seen.low - start) as f64);
                gauge!(LOG_START, &labels).set(start as f64);
            }
        }
        let task = self.task_labels();
        gauge!(OPEN_LANES, &task).set(report.open_lanes as f64);
        gauge!(INTENTS_PENDING, &task).set(report.intents_pending as f64);
        let oldest = report.oldest_unsealed_ms;
        gauge!(LAG_SECONDS, &task).set(oldest.map_or(0.0, |at| seconds((now_ms - at).max(0))));
        gauge!(OLDEST_UNSEALED, &task).set(seconds(oldest.unwrap_or(now_ms)));
        if let Some(at) = report.last_upload_ms {
            gauge!(LAST_UPLOAD, &task).set(seconds(at));
        }
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Shows whether the group can be asked.
pub fn coordination(up: bool) {
    gauge!(COORDINATION_UP).set(if up { 1.0 } else { 0.0 });
}

/// Counts a reading of changed files; `ok`: nothing was refused.
pub fn reloaded(ok: bool) {
    counter!(CONFIG_RELOADS, "result" => if ok { "ok" } else { "refused" }).increment(1);
    gauge!(CONFIG_RELOAD_OK).set(if ok { 1.0 } else { 0.0 });
}

/// Shows the budgets of the worker.
pub fn publish_budgets(budget: &Budget, spool: &Spool) {
    gauge!(MEMORY_USED).set(budget.used_bytes() as f64);
    gauge!(MEMORY_MAX).set(budget.max_bytes() as f64);
    gauge!(SPOOL_USED).set(spool.used_bytes() as f64);
    gauge!(SPOOL_MAX).set(spool.max_bytes() as f64);
}

/// Shows the size of the compression pool.
pub fn compression_threads(threads: usize) {
    gauge!(COMPRESSION_THREADS).set(threads as f64);
    gauge!(COMPRESSION_BUSY).set(0.0);
}

/// Counts a thread of the compression pool as busy until it is dropped, also by a panic.
#[derive(Debug)]
pub struct Busy(());

impl Busy {
    pub fn begin() -> Self {
        gauge!(COMPRESSION_BUSY).increment(1.0);
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        gauge!(COMPRESSION_BUSY).decrement(1.0);
    }
}

/// Counts a request to the store that is tried again.
pub fn store_retry() {
    counter!(STORE_RETRIES).increment(1);
}

/// Counts a request to the object store: `code` is `ok` or the kind of fault.
pub fn store_request(op: &'static str, code: &'static str) {
    counter!(UPLOAD_REQUESTS, "op" => op, "code" => code).increment(1);
}
