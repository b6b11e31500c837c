//! Reads one topic with the native reader and with rskafka, touching every byte of every value, and prints what that cost.
//!
//! `SLUICE_BENCH_KAFKA=host:port SLUICE_BENCH_TOPIC=name cargo bench --bench kafka_read`; SLUICE_BENCH_CLIENTS says which and
//! in which order. The figures to compare are the ratios of one run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench")]

mod rskafka_reader;
mod rskafka_source;

use std::collections::BTreeMap;
use std::time::Instant;

use sluice::config::{KafkaConfig, KafkaSecurity, SaslConfig, SecurityProtocol, TlsConfig};
use sluice::kafka::native;
use sluice::pipeline::budget::Budget;
use sluice::pipeline::source::{At, Isolation, Kafka, ReadRequest, SourceEvent};
use tokio::sync::mpsc;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let (Ok(address), Ok(topic)) = (std::env::var("SLUICE_BENCH_KAFKA"), std::env::var("SLUICE_BENCH_TOPIC")) else {
        println!("not run: set SLUICE_BENCH_KAFKA and SLUICE_BENCH_TOPIC");
        return;
    };
    let config = KafkaConfig {
        bootstrap_servers: vec![address],
        security: KafkaSecurity {
            protocol: SecurityProtocol::Plaintext,
            sasl: SaslConfig::default(),
            tls: TlsConfig { ca_file: None, cert_file: None, key_file: None, verify_hostname: true },
        },
        client_rack: None,
        group_offsets: false,
    };
    println!("client   records    GB     wall s  CPU s/GB  MB/s   peak RSS MB");
    let clients = std::env::var("SLUICE_BENCH_CLIENTS").unwrap_or_else(|_| "native,rskafka,native".into());
    for client in clients.split(',') {
        let kafka = match client {
            "rskafka" => rskafka_source::connect(&config).await,
            _ => native::connect(&config).await,
        };
        read(client, &*kafka.unwrap(), &topic).await;
    }
}

async fn read(name: &str, kafka: &dyn Kafka, topic: &str) {
    let isolation = Isolation::ReadCommitted;
    let info = kafka.topic(topic).await.unwrap().unwrap();
    let (mut starts, mut ends) = (Vec::new(), BTreeMap::new());
    for partition in info.partitions {
        let start = kafka.offset(topic, partition, At::Earliest, isolation).await.unwrap();
        let end = kafka.offset(topic, partition, At::Latest, isolation).await.unwrap();
        starts.push((partition, start));
        if end > start {
            ends.insert(partition, end);
        }
    }
    let budget = Budget::new(192 << 20);
    let seen = Vec::new();
    let request = ReadRequest { topic: topic.to_owned(), topic_id: info.id, isolation, starts, seen, budget };
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let (cpu, wall) = (cpu_seconds(), Instant::now());
    let (sender, mut events) = mpsc::channel(8);
    let reader = kafka.read(request, sender);
    let (mut records, mut bytes, mut sum) = (0_u64, 0_u64, 0_u64);
    while !ends.is_empty() {
        match events.recv().await.unwrap() {
            SourceEvent::Block(block, _permit) => {
                for record in block.records() {
                    let value = record.value.unwrap_or_default();
                    records += 1;
                    bytes += value.len() as u64;
                    sum += u64::from(value.iter().map(|&byte| u32::from(byte)).sum::<u32>());
                }
                if ends.get(&block.partition).is_some_and(|&end| block.next_offset >= end) {
                    ends.remove(&block.partition);
                }
            }
            SourceEvent::Waiting { .. } => {}
            SourceEvent::Failed { error, .. } => panic!("{error}"),
        }
    }
    drop(reader);
    let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
    let gb = bytes as f64 / 1e9;
    println!(
        "{name:8} {records:9} {gb:6.3} {wall:7.2} {:8.3} {:6.0} {:10.1}   (sum {sum})",
        cpu / gb,
        bytes as f64 / 1e6 / wall,
        peak_rss_mb()
    );
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
