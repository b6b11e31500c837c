//! Reads one topic with the native reader, librdkafka and rskafka, touching every byte of every value, and prints what that
//! cost.
//!
//! `SLUICE_BENCH_KAFKA=host:port SLUICE_BENCH_TOPIC=name cargo bench --bench kafka_read`; SLUICE_BENCH_CLIENTS says which and
//! in which order, SLUICE_BENCH_BUDGET_MIB what the native reader may keep in memory, SLUICE_BENCH_TOUCH whether the sum is
//! over all `bytes` of the values, or over the first and last of each (`values`). The figures to compare are the ratios of one
//! run; the first client of a run also warms the machine up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench")]

mod librdkafka_reader;
mod rskafka_reader;
mod rskafka_source;

use std::collections::BTreeMap;
use std::time::Instant;

use sluice::config::KafkaConfig;
use sluice::kafka::native;
use sluice::pipeline::budget::Budget;
use sluice::pipeline::source::{At, Isolation, Kafka, ReadRequest, SourceEvent, TopicId};
use tokio::sync::mpsc;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let (Ok(address), Ok(topic)) = (std::env::var("SLUICE_BENCH_KAFKA"), std::env::var("SLUICE_BENCH_TOPIC")) else {
        println!("not run: set SLUICE_BENCH_KAFKA and SLUICE_BENCH_TOPIC");
        return;
    };
    let config = KafkaConfig::plaintext(&address);
    let clients =
        std::env::var("SLUICE_BENCH_CLIENTS").unwrap_or_else(|_| "native,librdkafka,rskafka,native,librdkafka".into());
    let budget_mib = std::env::var("SLUICE_BENCH_BUDGET_MIB").map_or(192, |mib| mib.parse().unwrap());
    let ends_only = std::env::var("SLUICE_BENCH_TOUCH").is_ok_and(|touch| touch == "values");
    println!("client       records    GB   wall s  CPU s/GB   MB/s  peak RSS MB");
    let mut native = None;
    for client in clients.split(',') {
        let kafka = match client {
            "rskafka" => rskafka_source::connect(&config).await,
            _ => native::connect(&config).await,
        };
        let (kafka, started) = (kafka.unwrap(), Started::now());
        let range = Range::of(&*kafka, &topic).await;
        let mut sum = Sum { ends_only, ..Sum::default() };
        match client {
            "librdkafka" => {
                drop(kafka);
                let (address, topic) = (config.bootstrap_servers.join(","), topic.clone());
                let reading = move || {
                    librdkafka_reader::read(&address, &topic, &range.starts, range.ends, |value| sum.take(value));
                    sum
                };
                sum = tokio::task::spawn_blocking(reading).await.unwrap();
            }
            _ => {
                let topic = topic.clone();
                // A task of the runtime, as the one that reads in a worker: not the main thread, which is another core.
                let reading = async move {
                    read(&*kafka, &topic, range, budget_mib << 20, &mut sum).await;
                    sum
                };
                sum = tokio::spawn(reading).await.unwrap();
            }
        }
        let cost = started.print(client, &sum);
        if client == "native" {
            native.get_or_insert(cost);
        } else if let Some(native) = native {
            println!("{:8} {client} takes {:.2} times the CPU of the first native run", "", cost / native);
        }
    }
}

/// What was read of the values.
#[derive(Default)]
struct Sum {
    ends_only: bool,
    records: u64,
    bytes: u64,
    sum: u64,
}

impl Sum {
    fn take(&mut self, value: &[u8]) {
        self.records += 1;
        self.bytes += value.len() as u64;
        self.sum += match value {
            [first, .., last] if self.ends_only => u64::from(*first) + u64::from(*last),
            _ => u64::from(value.iter().map(|&byte| u32::from(byte)).sum::<u32>()),
        };
    }
}

/// All of a topic, as it is at the start.
struct Range {
    topic_id: Option<TopicId>,
    starts: Vec<(i32, i64)>,
    ends: BTreeMap<i32, i64>,
}

impl Range {
    async fn of(kafka: &dyn Kafka, topic: &str) -> Self {
        let info = kafka.topic(topic).await.unwrap().unwrap();
        let (mut starts, mut ends) = (Vec::new(), BTreeMap::new());
        for partition in info.partitions {
            let start = kafka.offset(topic, partition, At::Earliest, Isolation::ReadCommitted).await.unwrap();
            let end = kafka.offset(topic, partition, At::Latest, Isolation::ReadCommitted).await.unwrap();
            starts.push((partition, start));
            if end > start {
                ends.insert(partition, end);
            }
        }
        Self { topic_id: info.id, starts, ends }
    }
}

async fn read(kafka: &dyn Kafka, topic: &str, range: Range, budget_bytes: u64, sum: &mut Sum) {
    let mut ends = range.ends;
    let request = ReadRequest {
        topic: topic.to_owned(),
        topic_id: range.topic_id,
        isolation: Isolation::ReadCommitted,
        starts: range.starts,
        seen: Vec::new(),
        budget: Budget::new(budget_bytes),
    };
    let (sender, mut events) = mpsc::channel(8);
    let _reader = kafka.read(request, sender);
    while !ends.is_empty() {
        match events.recv().await.unwrap() {
            SourceEvent::Block(block, _permit) => {
                block.records().for_each(|record| sum.take(record.value.unwrap_or_default()));
                if ends.get(&block.partition).is_some_and(|&end| block.next_offset >= end) {
                    ends.remove(&block.partition);
                }
            }
            SourceEvent::Waiting { .. } => {}
            SourceEvent::Failed { error, .. } => panic!("{error}"),
        }
    }
}

/// When a reading began.
struct Started {
    cpu: f64,
    wall: Instant,
}

impl Started {
    fn now() -> Self {
        // Resets the peak of the memory.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { cpu: cpu_seconds(), wall: Instant::now() }
    }

    /// Prints a row and returns the CPU seconds per GB.
    fn print(&self, client: &str, sum: &Sum) -> f64 {
        let (cpu, wall) = (cpu_seconds() - self.cpu, self.wall.elapsed().as_secs_f64());
        let gb = sum.bytes as f64 / 1e9;
        println!(
            "{client:10} {:9} {gb:6.3} {wall:7.2} {:8.3} {:7.0} {:10.1}   (sum {})",
            sum.records,
            cpu / gb,
            sum.bytes as f64 / 1e6 / wall,
            peak_rss_mb(),
            sum.sum
        );
        cpu / gb
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), in ticks of a hundredth of a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
