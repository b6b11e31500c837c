//! Every metric that a worker shows.
//!
//! Owns: names, kinds, units, labels, help, what a figure tells the operator. Does not own: who sets it. docs/metrics.md is
//! written from this list.

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One family of series.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// `records`, `bytes`, `seconds`, or what is counted.
    pub unit: &'static str,
    /// Their number of values has a limit: what the worker runs, or a fixed set.
    pub labels: &'static [&'static str],
    /// Prometheus' own HELP text.
    pub help: &'static str,
    /// What an operator learns from it.
    pub tells: &'static str,
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    tells: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, unit, labels, help, tells }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    tells: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, help, tells }
}

const NONE: &[&str] = &[];
const TOPIC: &[&str] = &["connector", "topic"];
const PARTITION: &[&str] = &["connector", "topic", "partition"];
const TASK: &[&str] = &["connector", "topic", "task"];

/// In the order of the documentation.
pub const METRICS: &[Metric] = &[
    counter(
        RECORDS_READ,
        "records",
        PARTITION,
        "Records read from Kafka, replays included",
        "The rate is what comes in. After a start it counts again what is replayed.",
    ),
    counter(
        RECORDS_ARCHIVED,
        "records",
        TOPIC,
        "Records in uploaded objects",
        "Moves in steps, when objects are done: a flat line shorter than `rotate.max_interval` is healthy.",
    ),
    counter(
        RECORDS_SKIPPED,
        "records",
        TOPIC,
        "Records left out by rule (on_error: skip)",
        "Records that are in no object because the settings say so; replayed ones count again.",
    ),
    counter(
        RECORDS_REPLAYED,
        "records",
        TOPIC,
        "Records read again after a start that an object holds already",
        "What a restart cost.",
    ),
    counter(
        RECORDS_DEAD_LETTERED,
        "records",
        TOPIC,
        "Records that could not be split and went to the dead letters",
        "It grows: an app writes records without an id. In the folder or the topic; replayed ones count again.",
    ),
    counter(
        TIME_FALLBACKS,
        "records",
        TOPIC,
        "Records whose own time was unusable and whose Kafka time was taken",
        "It grows: `time.pointer` or `time.format` does not fit what an app writes.",
    ),
    counter(
        BYTES_RAW,
        "bytes",
        TOPIC,
        "Bytes of formatted records before compression",
        "Against the bytes stored: the ratio of compression.",
    ),
    counter(BYTES_STORED, "bytes", TOPIC, "Bytes of uploaded objects", "What the archive grows by, and costs."),
    counter(
        FRAMES,
        "frames",
        TOPIC,
        "Compressed frames stored in the spool",
        "Bytes raw by frames is the mean size of a frame: far below `compression.frame_bytes` means many small lanes.",
    ),
    counter(
        OBJECTS,
        "objects",
        TOPIC,
        "Objects uploaded",
        "Bytes stored by objects is the mean size of an object; each costs a request.",
    ),
    counter(
        UPLOAD_REQUESTS,
        "requests",
        &["op", "code"],
        "Requests to the object store by outcome",
        "The log's are included. `op`: create, head, get, list, delete. `code`: ok, transient, throttled, denied, no_bucket, \
         changed, body (the spool lost or changed a file), invalid.",
    ),
    counter(
        STORE_RETRIES,
        "requests",
        NONE,
        "Requests to the object store that were tried again after a failure",
        "It grows while the store is away, throttles or refuses. Nothing is lost by a retry.",
    ),
    gauge(
        STORE_TROUBLE,
        "0 or 1",
        &["connector"],
        "1 while the newest request of the connector to its store has failed",
        "1 for long: `store_trouble` in the status says why.",
    ),
    counter(
        LOG_APPENDS,
        "entries",
        TOPIC,
        "Entries appended to the tasks' logs",
        "Each is a request to the place of the state.",
    ),
    counter(
        TAKEOVERS,
        "takeovers",
        TOPIC,
        "Tasks taken over by this worker",
        "One each time that a task starts. Many: tasks wander between workers, or fail and start again.",
    ),
    counter(
        TASK_RESTARTS,
        "restarts",
        TOPIC,
        "Failures of a task after which it was started again by itself",
        "It grows: the task can't stay up; the log and the status say why.",
    ),
    gauge(
        LAG_RECORDS,
        "records",
        PARTITION,
        "Records between low (safe in the store) and the end of the partition",
        "A saw-tooth, as low moves when objects are done: up to `rotate.max_interval` of records is healthy.",
    ),
    gauge(
        LAG_SECONDS,
        "seconds",
        TASK,
        "Age of the oldest lane that is not sealed, since its first record was read",
        "Stays below `rotate.max_interval`; 0 without an open lane. Files in upload are not in it: see the intents.",
    ),
    gauge(
        OLDEST_UNSEALED,
        "seconds since 1970",
        TASK,
        "When the oldest open lane was opened, Unix time",
        "The same as a time; now, without an open lane.",
    ),
    gauge(
        LAST_UPLOAD,
        "seconds since 1970",
        TASK,
        "When the last object was uploaded, Unix time",
        "Absent before the first. Old while lag grows: nothing reaches the store.",
    ),
    gauge(
        RETENTION_HEADROOM,
        "records",
        PARTITION,
        "Records between the start of Kafka's log and low",
        "Near 0 with lag: retention is about to take records that are not archived. Falls when Kafka deletes, rises when low moves.",
    ),
    gauge(
        LOG_START,
        "offset",
        PARTITION,
        "First offset that Kafka still has, as last seen",
        "It moves: retention is at work. A headroom of a topic where it never moved says nothing.",
    ),
    gauge(
        INTENTS_PENDING,
        "objects",
        TASK,
        "Objects decided in the log and not yet known to be in the store",
        "Above 0 for long without new objects: uploads are stuck, or a replay has not come to their records yet.",
    ),
    gauge(
        OPEN_LANES,
        "lanes",
        TASK,
        "Lanes with records that are not sealed",
        "One for each app (and bucket) with new records; each holds memory.",
    ),
    gauge(
        TASK_STATE,
        "0 or 1",
        &["connector", "topic", "task", "state"],
        "1 for the state that the task is in on this worker, 0 for the others",
        "In a group the task is RUNNING on one worker and UNASSIGNED on the others: take the highest of all.",
    ),
    gauge(
        TASK_FAILED,
        "0 or 1",
        TASK,
        "1 while the task is failed and waits for somebody",
        "The status says why and what to do.",
    ),
    gauge(
        CONNECTOR_FAILED,
        "0 or 1",
        &["connector"],
        "1 while the connector could not begin, or not yet, and has no tasks",
        "Its settings, its prefix or its state can't be used; the status says why.",
    ),
    gauge(
        MISSING_TOPICS,
        "topics",
        &["connector"],
        "Topics that the connector names and Kafka does not have",
        "They are waited for; the status names them.",
    ),
    gauge(
        COORDINATION_UP,
        "0 or 1",
        NONE,
        "1 while the Redis of coordination.url answers; absent without one",
        "0: tasks stay where they are, and no other worker takes over those of a dead one.",
    ),
    gauge(
        CONFIG_RELOAD_OK,
        "0 or 1",
        NONE,
        "1 while the files of connectors as last read are all in use, 0 if one was refused",
        "0: the log names file and line; what ran before goes on.",
    ),
    counter(
        CONFIG_RELOADS,
        "reloads",
        &["result"],
        "Times that changed connectors' files were read, by result: ok or refused",
        "That a change has arrived.",
    ),
    gauge(
        MEMORY_USED,
        "bytes",
        NONE,
        "Bytes counted against memory_max_bytes",
        "Near the limit while it catches up; for long, more memory or a smaller `frame_bytes` makes larger frames or fewer waits.",
    ),
    gauge(MEMORY_MAX, "bytes", NONE, "The limit memory_max_bytes", "What the above is to be divided by."),
    gauge(
        SPOOL_USED,
        "bytes",
        NONE,
        "Bytes counted against spool.max_bytes",
        "Above 90 % the fullest lanes are sealed early, so that uploads free the disk.",
    ),
    gauge(SPOOL_MAX, "bytes", NONE, "The limit spool.max_bytes", "What the above is to be divided by."),
    gauge(
        COMPRESSION_THREADS,
        "threads",
        NONE,
        "Threads of the compression pool",
        "`compression_threads`, or the cores of the machine.",
    ),
    gauge(
        COMPRESSION_BUSY,
        "threads",
        NONE,
        "Threads of the compression pool that are at work",
        "All of them for long: compression is what limits the worker.",
    ),
    gauge(BUILD_INFO, "1", &["version"], "Always 1; the version is a label", "Which versions run."),
    counter(
        PROCESS_CPU,
        "seconds",
        NONE,
        "Processor time of the process, user and system",
        "The rate is the number of cores in use.",
    ),
    gauge(
        PROCESS_RSS,
        "bytes",
        NONE,
        "Resident memory of the process",
        "Above the memory budget by what is not counted in it.",
    ),
    gauge(PROCESS_OPEN_FDS, "descriptors", NONE, "Open file descriptors", "Sockets, mostly."),
    gauge(
        PROCESS_MAX_FDS,
        "descriptors",
        NONE,
        "Most file descriptors that may be open",
        "The soft limit of the system.",
    ),
    gauge(
        PROCESS_START,
        "seconds since 1970",
        NONE,
        "When the process started, Unix time",
        "Changes by a restart, which also sets the counters to 0.",
    ),
];

pub const RECORDS_READ: &str = "sluice_records_read_total";
pub const RECORDS_ARCHIVED: &str = "sluice_records_archived_total";
pub const RECORDS_SKIPPED: &str = "sluice_records_skipped_total";
pub const RECORDS_REPLAYED: &str = "sluice_records_replayed_total";
pub const RECORDS_DEAD_LETTERED: &str = "sluice_records_dead_lettered_total";
pub const TIME_FALLBACKS: &str = "sluice_time_fallbacks_total";
pub const BYTES_RAW: &str = "sluice_bytes_raw_total";
pub const BYTES_STORED: &str = "sluice_bytes_stored_total";
pub const FRAMES: &str = "sluice_frames_total";
pub const OBJECTS: &str = "sluice_objects_total";
pub const UPLOAD_REQUESTS: &str = "sluice_upload_requests_total";
pub const STORE_RETRIES: &str = "sluice_store_retries_total";
pub const STORE_TROUBLE: &str = "sluice_store_trouble";
pub const LOG_APPENDS: &str = "sluice_log_appends_total";
pub const TAKEOVERS: &str = "sluice_takeovers_total";
pub const TASK_RESTARTS: &str = "sluice_task_restarts_total";
pub const LAG_RECORDS: &str = "sluice_lag_records";
pub const LAG_SECONDS: &str = "sluice_lag_seconds";
pub const OLDEST_UNSEALED: &str = "sluice_oldest_unsealed_timestamp_seconds";
pub const LAST_UPLOAD: &str = "sluice_last_upload_timestamp_seconds";
pub const RETENTION_HEADROOM: &str = "sluice_retention_headroom_records";
pub const LOG_START: &str = "sluice_kafka_log_start_offset";
pub const INTENTS_PENDING: &str = "sluice_intents_pending";
pub const OPEN_LANES: &str = "sluice_open_lanes";
pub const TASK_STATE: &str = "sluice_task_state";
pub const TASK_FAILED: &str = "sluice_task_failed";
pub const CONNECTOR_FAILED: &str = "sluice_connector_failed";
pub const MISSING_TOPICS: &str = "sluice_missing_topics";
pub const COORDINATION_UP: &str = "sluice_coordination_up";
pub const CONFIG_RELOAD_OK: &str = "sluice_config_last_reload_successful";
pub const CONFIG_RELOADS: &str = "sluice_config_reloads_total";
pub const MEMORY_USED: &str = "sluice_memory_budget_used_bytes";
pub const MEMORY_MAX: &str = "sluice_memory_budget_max_bytes";
pub const SPOOL_USED: &str = "sluice_spool_used_bytes";
pub const SPOOL_MAX: &str = "sluice_spool_max_bytes";
pub const COMPRESSION_THREADS: &str = "sluice_compression_threads";
pub const COMPRESSION_BUSY: &str = "sluice_compression_busy_threads";
pub const BUILD_INFO: &str = "sluice_build_info";
pub const PROCESS_CPU: &str = "process_cpu_seconds_total";
pub const PROCESS_RSS: &str = "process_resident_memory_bytes";
pub const PROCESS_OPEN_FDS: &str = "process_open_fds";
pub const PROCESS_MAX_FDS: &str = "process_max_fds";
pub const PROCESS_START: &str = "process_start_time_seconds";
