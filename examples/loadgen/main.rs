//! Fills a topic with JSON log records, for tests, demo and bench.
//!
//! Owns: the options, the topic, sending at full speed or at a steady rate, the count of what the broker holds at the end.
//! Does not own: what a record says (`records`).
//!
//! Record `seq` goes to partition `seq % partitions`, in ascending order, so that a reader can prove from the records alone
//! that each came through once and in order (`dev/verify-archive` does).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool for developers")]

mod records;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use jiff::Timestamp;
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;

use records::Plan;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Produces N log records with app ids of a zipf distribution.
#[derive(Clone, Debug, Parser)]
#[command(name = "loadgen")]
struct Options {
    /// Brokers, with commas [default: SLUICE_TEST_KAFKA of the environment]
    #[arg(long)]
    bootstrap: Option<String>,
    /// Created where it does not exist
    #[arg(long)]
    topic: String,
    /// About 267 bytes each: the default is 1 GB
    #[arg(long, default_value_t = 3_745_000)]
    records: u64,
    #[arg(long, default_value_t = 200)]
    apps: usize,
    #[arg(long, default_value_t = 8)]
    partitions: u64,
    /// Copies of each partition
    #[arg(long, default_value_t = 1)]
    replicas: i16,
    /// Exponent of the distribution of app ids
    #[arg(long, default_value_t = 1.0)]
    zipf: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// First number of the records' `seq`, to add to a topic that holds records already; a multiple of --partitions
    #[arg(long, default_value_t = 0)]
    first_seq: u64,
    /// Records per second; without it as fast as possible
    #[arg(long)]
    rate: Option<u64>,
    /// Time of the first record; without it each record has the time of its sending
    #[arg(long)]
    start_time: Option<Timestamp>,
    /// The records' times are spread evenly over this many seconds after --start-time
    #[arg(long, default_value_t = 3600)]
    time_span: u64,
    #[arg(long, default_value_t = 3000)]
    batch_records: u64,
    /// none | gzip | lz4 | snappy | zstd
    #[arg(long, default_value = "lz4", value_parser = compression)]
    compression: Compression,
    /// Write what was produced to this file, for dev/verify-archive
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// Also write the app id into the record's key
    #[arg(long)]
    key: bool,
    /// Also write the app id into a header of this name
    #[arg(long)]
    header: Option<String>,
}

fn compression(name: &str) -> Result<Compression, String> {
    Ok(match name {
        "none" => Compression::NoCompression,
        "gzip" => Compression::Gzip,
        "lz4" => Compression::Lz4,
        "snappy" => Compression::Snappy,
        "zstd" => Compression::Zstd,
        other => return Err(format!("no such codec: {other}")),
    })
}

/// What all partitions share.
struct Run {
    options: Options,
    plan: Plan,
    started: Instant,
    bytes: AtomicU64,
    /// Sum of the CRC-32 of each value.
    crc_sum: AtomicU64,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match produce(Options::parse()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn produce(options: Options) -> Result<(), Failure> {
    if options.partitions == 0 || options.apps == 0 || options.batch_records == 0 {
        return Err("partitions, apps and batch records start at 1".into());
    }
    if !options.first_seq.is_multiple_of(options.partitions) {
        return Err("the first seq must be a multiple of the partitions".into());
    }
    let bootstrap = options.bootstrap.clone().or_else(|| std::env::var("SLUICE_TEST_KAFKA").ok());
    let bootstrap = bootstrap.ok_or("name the brokers with --bootstrap or SLUICE_TEST_KAFKA")?;
    let brokers = bootstrap.split(',').map(str::to_owned).collect();
    let connecting = ClientBuilder::new(brokers).client_id("sluice-loadgen").build();
    // Once connected, an outage is waited out; a wrong address should not be.
    let client = tokio::time::timeout(Duration::from_secs(20), connecting)
        .await
        .map_err(|_| format!("no broker answers at {bootstrap}"))??;
    ensure_topic(&client, &options).await?;
    let plan =
        Plan::new(options.first_seq, options.records, options.apps, options.zipf, options.partitions, options.seed);
    let mut clients = Vec::new();
    for partition in 0..options.partitions {
        let id = i32::try_from(partition)?;
        clients.push(Arc::new(client.partition_client(&options.topic, id, UnknownTopicHandling::Retry).await?));
    }
    let before = end_offsets(&clients).await?;

    let run =
        Arc::new(Run { options, plan, started: Instant::now(), bytes: AtomicU64::new(0), crc_sum: AtomicU64::new(0) });
    let mut senders = tokio::task::JoinSet::new();
    for (partition, client) in (0..).zip(&clients) {
        senders.spawn(fill(Arc::clone(&run), partition, Arc::clone(client)));
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }

    let seconds = run.started.elapsed().as_secs_f64();
    let bytes = run.bytes.load(Ordering::Relaxed);
    let stored: i64 = end_offsets(&clients).await?.iter().zip(&before).map(|(after, before)| after - before).sum();
    let wanted = run.options.records;
    println!(
        "produced {wanted} records, {bytes} bytes, {} apps, {} partitions into {} in {seconds:.1} s ({:.0} MB/s)",
        run.options.apps,
        run.options.partitions,
        run.options.topic,
        bytes as f64 / 1e6 / seconds,
    );
    if stored != i64::try_from(wanted)? {
        // This producer is not idempotent: a request whose answer was lost is sent twice.
        return Err(format!("the topic grew by {stored} records instead of {wanted}: a request was repeated").into());
    }
    if let Some(file) = &run.options.manifest {
        let manifest = serde_json::json!({
            "topic": run.options.topic,
            "records": wanted,
            "first_seq": run.options.first_seq,
            "partitions": run.options.partitions,
            "apps": run.options.apps,
            "bytes": bytes,
            "crc_sum": run.crc_sum.load(Ordering::Relaxed),
            "seconds": seconds,
        });
        std::fs::write(file, format!("{manifest:#}\n"))?;
    }
    Ok(())
}

async fn ensure_topic(client: &Client, options: &Options) -> Result<(), Failure> {
    let topics = client.list_topics().await?;
    if let Some(topic) = topics.iter().find(|topic| topic.name == options.topic) {
        if topic.partitions.len() as u64 == options.partitions {
            return Ok(());
        }
        let (has, wanted) = (topic.partitions.len(), options.partitions);
        return Err(format!("topic {} has {has} partitions, not {wanted}", options.topic).into());
    }
    let partitions = i32::try_from(options.partitions)?;
    client.controller_client()?.create_topic(&options.topic, partitions, options.replicas, 10_000).await?;
    Ok(())
}

async fn end_offsets(clients: &[Arc<PartitionClient>]) -> Result<Vec<i64>, Failure> {
    let mut offsets = Vec::with_capacity(clients.len());
    for client in clients {
        offsets.push(client.get_offset(OffsetAt::Latest).await?);
    }
    Ok(offsets)
}

/// Sends one partition's records, the next batch being made while the broker works on the one before.
async fn fill(run: Arc<Run>, partition: u64, client: Arc<PartitionClient>) -> Result<(), Failure> {
    let total = run.plan.records_of(partition);
    // At a steady rate ten batches a second and partition are enough.
    let per_second = run.options.rate.map(|rate| rate as f64 / run.plan.partitions as f64);
    let size = match per_second {
        Some(rate) => ((rate / 10.0) as u64).clamp(1, run.options.batch_records),
        None => run.options.batch_records,
    };
    let mut made = 0;
    let mut batch = Vec::new();
    loop {
        let count = size.min(total - made);
        let (sent, next) = tokio::join!(client.produce(batch, run.options.compression), async {
            if let Some(rate) = per_second {
                let due = run.started + Duration::from_secs_f64(made as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
            }
            run.batch(partition, made, count)
        });
        sent?;
        batch = next;
        made += count;
        if batch.is_empty() {
            return Ok(());
        }
    }
}

impl Run {
    fn batch(&self, partition: u64, from: u64, count: u64) -> Vec<Record> {
        let now = Timestamp::now();
        let mut text = String::new();
        let mut last = i64::MIN;
        let mut bytes = 0;
        let mut crc_sum = 0;
        let records = (from..from + count).map(|nth| {
            let seq = self.plan.seq(partition, nth);
            let millis = match self.options.start_time {
                Some(start) => {
                    let part = (seq - self.plan.first_seq) as f64 / self.plan.records as f64;
                    start.as_millisecond() + (part * self.options.time_span as f64 * 1000.0) as i64
                }
                None => now.as_millisecond(),
            };
            if millis != last {
                last = millis;
                text = Timestamp::from_millisecond(millis).map(|time| format!("{time:.3}")).unwrap_or_default();
            }
            let mut value = Vec::with_capacity(320);
            let app = self.plan.write(&mut value, seq, &text);
            bytes += value.len() as u64;
            let mut crc = flate2::Crc::new();
            crc.update(&value);
            crc_sum += u64::from(crc.sum());
            Record {
                key: self.options.key.then(|| app.as_bytes().to_vec()),
                headers: match &self.options.header {
                    Some(name) => BTreeMap::from([(name.clone(), app.as_bytes().to_vec())]),
                    None => BTreeMap::new(),
                },
                value: Some(value),
                timestamp: DateTime::from_timestamp_millis(millis).unwrap_or_default(),
            }
        });
        let records = records.collect();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.crc_sum.fetch_add(crc_sum, Ordering::Relaxed);
        records
    }
}
