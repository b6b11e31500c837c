//! What the benches without services work on.
//!
//! Owns: the load generator's records as a broker answers with them, the settings of their connector. Does not own: measuring.

#[path = "../../examples/loadgen/records.rs"]
pub mod records;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use sluice::config::ConnectorConfig;
use sluice::config::flat::FlatConfig;
use sluice::config::load_connector_flat;
use sluice::kafka::native::offline::{Fetched, encode};
use sluice::pipeline::produce::Outgoing;

pub const TOPIC: &str = "applogs";
/// As `make bench` has them.
pub const PARTITIONS: u64 = 8;
/// Below 256 KiB: of larger batches our producer makes blocks of up to 4 MiB, which Kafka's own clients never do.
const BATCH_RECORDS: u64 = 900;
/// What a broker answers with for a partition at least, while it has that much (`max.partition.fetch.bytes`).
const ANSWER_BYTES: usize = 1 << 20;
const START: Timestamp = Timestamp::constant(1_795_316_400, 0);
const TIME_SPAN_MS: u64 = 3_600_000;

/// Records as they come from a broker: lz4 batches of format v2.
#[derive(Debug)]
pub struct Load {
    pub answers: Vec<Fetched>,
    pub records: u64,
    /// Of the records' values.
    pub bytes: u64,
}

impl Load {
    pub fn new(records: u64, apps: usize, partitions: u64) -> Self {
        let plan = records::Plan::new(0, records, apps, 1.0, partitions, 1);
        let mut load = Self { answers: Vec::new(), records, bytes: 0 };
        // In turn, as a reader fetches them.
        let mut partitions: Vec<(u64, u64)> = (0..partitions).map(|partition| (partition, 0)).collect();
        while !partitions.is_empty() {
            partitions.retain_mut(|(partition, made)| load.answer(&plan, *partition, made));
        }
        load
    }

    /// The next answer of a partition; whether there is more.
    fn answer(&mut self, plan: &records::Plan, partition: u64, made: &mut u64) -> bool {
        let (position, total) = (*made as i64, plan.records_of(partition));
        let mut bytes: Vec<u8> = Vec::new();
        while *made < total && bytes.len() < ANSWER_BYTES {
            let base_offset = *made as i64;
            let batch: Vec<Outgoing> = (*made..total.min(*made + BATCH_RECORDS))
                .map(|nth| {
                    let seq = plan.seq(partition, nth);
                    let timestamp_ms = START.as_millisecond() + (seq * TIME_SPAN_MS / plan.records) as i64;
                    let time = Timestamp::from_millisecond(timestamp_ms).unwrap();
                    let mut value = Vec::with_capacity(320);
                    plan.write(&mut value, seq, &format!("{time:.3}"));
                    self.bytes += value.len() as u64;
                    Outgoing { value: Some(value), timestamp_ms, ..Outgoing::default() }
                })
                .collect();
            *made += batch.len() as u64;
            let mut batch = encode(&batch.iter().collect::<Vec<_>>());
            // The broker's part of a batch; its checksum does not cover it.
            batch[..8].copy_from_slice(&base_offset.to_be_bytes());
            bytes.extend(batch);
        }
        self.answers.push(Fetched {
            partition: partition as i32,
            position,
            aborted: Vec::new(),
            end_offset: total as i64,
            log_start_offset: 0,
            records: bytes.into(),
        });
        *made < total
    }
}

/// The shipped defaults, with the app id where the load generator writes it.
pub fn connector() -> ConnectorConfig {
    let settings =
        [("topics", TOPIC), ("app_id.from", "json"), ("app_id.pointer", "/app_id"), ("sink.url", "file:///nowhere")];
    let flat: FlatConfig = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    load_connector_flat("bench", &flat).unwrap().0
}

/// CPU time of this process.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
