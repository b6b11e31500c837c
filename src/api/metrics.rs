//! Every metric's name, in one list, and the one place that counts.
//!
//! Owns: names, help texts, labels. Does not own: what is counted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::task::core::Counters;
use crate::task::status::TaskReport;
use crate::version::VERSION;

/// Kind, name, help. Seconds and bytes are the base units.
pub const METRICS: &[(Kind, &str, &str)] = &[
    (Kind::Counter, RECORDS_READ, "Records read from Kafka, replays included"),
    (Kind::Counter, RECORDS_ARCHIVED, "Records in uploaded objects"),
    (Kind::Counter, RECORDS_SKIPPED, "Records left out by rule (on_error: skip)"),
    (Kind::Counter, RECORDS_REPLAYED, "Records read again after a start that an object holds already"),
    (Kind::Counter, RECORDS_DEAD_LETTERED, "Records that could not be split and went to the dead letters"),
    (Kind::Counter, TIME_FALLBACKS, "Records whose own time was unusable and whose Kafka time was taken"),
    (Kind::Counter, BYTES_RAW, "Bytes of formatted records before compression"),
    (Kind::Counter, BYTES_STORED, "Bytes of uploaded objects"),
    (Kind::Counter, OBJECTS, "Objects uploaded"),
    (Kind::Counter, UPLOAD_REQUESTS, "Requests to the object store by outcome"),
    (Kind::Counter, LOG_APPENDS, "Entries appended to the tasks' logs"),
    (Kind::Counter, TAKEOVERS, "Tasks taken over by this worker"),
    (Kind::Gauge, LAG_RECORDS, "Records between low (safe in the store) and the end of the partition"),
    (Kind::Gauge, LAG_SECONDS, "Age of the oldest lane that is not sealed, since its first record was read"),
    (Kind::Gauge, OLDEST_UNSEALED, "When the oldest open lane was opened, Unix time"),
    (Kind::Gauge, LAST_UPLOAD, "When the last object was uploaded, Unix time"),
    (Kind::Gauge, RETENTION_HEADROOM, "Records between the start of Kafka's log and low"),
    (Kind::Gauge, INTENTS_PENDING, "Objects decided in the log and not yet known to be in the store"),
    (Kind::Gauge, OPEN_LANES, "Lanes with records that are not sealed"),
    (Kind::Gauge, TASK_FAILED, "1 while the task is failed and waits for somebody"),
    (Kind::Gauge, COORDINATION_UP, "1 while the Redis of coordination.url answers; absent without one"),
    (Kind::Gauge, MEMORY_USED, "Bytes counted against memory_max_bytes"),
    (Kind::Gauge, SPOOL_USED, "Bytes counted against spool.max_bytes"),
    (Kind::Counter, CONFIG_RELOADS, "Times that changed connectors' files were read, by result: ok or refused"),
    (
        Kind::Gauge,
        CONFIG_RELOAD_OK,
        "1 while the files of connectors as last read are all in use, 0 if one was refused",
    ),
    (Kind::Gauge, BUILD_INFO, "Always 1; the version is a label"),
];

pub const RECORDS_READ: &str = "sluice_records_read_total";
pub const RECORDS_ARCHIVED: &str = "sluice_records_archived_total";
pub const RECORDS_SKIPPED: &str = "sluice_records_skipped_total";
pub const RECORDS_REPLAYED: &str = "sluice_records_replayed_total";
pub const RECORDS_DEAD_LETTERED: &str = "sluice_records_dead_lettered_total";
pub const TIME_FALLBACKS: &str = "sluice_time_fallbacks_total";
pub const BYTES_RAW: &str = "sluice_bytes_raw_total";
pub const BYTES_STORED: &str = "sluice_bytes_stored_total";
pub const OBJECTS: &str = "sluice_objects_total";
pub const UPLOAD_REQUESTS: &str = "sluice_upload_requests_total";
pub const LOG_APPENDS: &str = "sluice_log_appends_total";
pub const TAKEOVERS: &str = "sluice_takeovers_total";
pub const LAG_RECORDS: &str = "sluice_lag_records";
pub const LAG_SECONDS: &str = "sluice_lag_seconds";
pub const OLDEST_UNSEALED: &str = "sluice_oldest_unsealed_timestamp_seconds";
pub const LAST_UPLOAD: &str = "sluice_last_upload_timestamp_seconds";
pub const RETENTION_HEADROOM: &str = "sluice_retention_headroom_records";
pub const INTENTS_PENDING: &str = "sluice_intents_pending";
pub const OPEN_LANES: &str = "sluice_open_lanes";
pub const TASK_FAILED: &str = "sluice_task_failed";
pub const COORDINATION_UP: &str = "sluice_coordination_up";
pub const MEMORY_USED: &str = "sluice_memory_budget_used_bytes";
pub const SPOOL_USED: &str = "sluice_spool_used_bytes";
pub const CONFIG_RELOADS: &str = "sluice_config_reloads_total";
pub const CONFIG_RELOAD_OK: &str = "sluice_config_last_reload_successful";
pub const BUILD_INFO: &str = "sluice_build_info";

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// Installs the recorder of this process.
///
/// # Errors
/// Another recorder is installed already.
pub fn install() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    for &(kind, name, help) in METRICS {
        match kind {
            Kind::Counter => describe_counter!(name, Unit::Count, help),
            Kind::Gauge => describe_gauge!(name, help),
        }
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
        Self {
            connector: connector.to_owned(),
            topic: topic.to_owned(),
            task: task.to_string(),
            partitions: Mutex::default(),
        }
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
            (OBJECTS, counters.objects),
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
pub fn publish_budgets(memory_used_bytes: u64, spool_used_bytes: u64) {
    gauge!(MEMORY_USED).set(memory_used_bytes as f64);
    gauge!(SPOOL_USED).set(spool_used_bytes as f64);
}

/// Counts a request to the object store: `code` is `ok`, `exists` or the kind of fault.
pub fn store_request(op: &'static str, code: &'static str) {
    counter!(UPLOAD_REQUESTS, "op" => op, "code" => code).increment(1);
}
