//! What archiving costs at least: the load generator's records, in memory as lz4 batches, are decompressed, checked, decoded,
//! split, copied into their lanes and compressed as frames, by the program's own functions, without I/O, on one thread.
//!
//! `cargo bench --bench limit` prints a table, with `-- --json` a line of JSON. SLUICE_BENCH_APPS and SLUICE_BENCH_RECORDS say
//! how much of what, SLUICE_BENCH_UNTIL which steps (`lane lz4`; for profiles). GB are 10^9 bytes of the records' values, as `make bench` counts them; the least of a few rounds counts.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

#[allow(dead_code, reason = "this uses its share")]
mod common;

use common::{Load, PARTITIONS, TOPIC, cpu_seconds};
use sluice::archive::codec::{Codec, Encoder};
use sluice::archive::digest::topic_seed;
use sluice::config::ConnectorConfig;
use sluice::kafka::native::offline::{Codecs, Decoder, Pool};
use sluice::pipeline::event_time::EventTimes;
use sluice::pipeline::lane::{AppKey, Lanes, Opener, ReservedNames};
use sluice::pipeline::split::{App, Split, Splitter};

const ROUNDS: usize = 3;

/// How far the records go.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    Decoded,
    Split,
    Lane,
    Frames(Codec),
}

const STEPS: [(&str, Until); 6] = [
    ("decoded", Until::Decoded),
    ("split", Until::Split),
    ("lane", Until::Lane),
    ("lz4", Until::Frames(Codec::Lz4)),
    ("zstd", Until::Frames(Codec::Zstd)),
    ("gzip", Until::Frames(Codec::Gzip)),
];

fn main() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let (records, apps) = (number("SLUICE_BENCH_RECORDS", 750_000), number("SLUICE_BENCH_APPS", 200));
    let load = Load::new(records, apps as usize, PARTITIONS);
    let connector = common::connector();
    let gb = load.bytes as f64 / 1e9;
    let mut rows = serde_json::Map::new();
    let wanted = std::env::var("SLUICE_BENCH_UNTIL").unwrap_or_default();
    let is_wanted = |name| wanted.is_empty() || wanted.split(' ').any(|one| one == name);
    for (name, until) in STEPS.into_iter().filter(|(name, _)| is_wanted(*name)) {
        // gzip takes so long that a round tells enough.
        let rounds = if until == Until::Frames(Codec::Gzip) { 1 } else { ROUNDS };
        let seconds = (0..rounds).map(|_| seconds_of(&load, &connector, until)).fold(f64::INFINITY, f64::min);
        rows.insert(name.to_owned(), ((seconds / gb * 1000.0).round() / 1000.0).into());
    }
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", serde_json::json!({ "apps": apps, "bytes": load.bytes, "cpu_seconds_per_gb": rows }));
        return;
    }
    println!("{gb:.3} GB, {records} records, {apps} apps\n\n| until | CPU s/GB | MB/s of one core |\n|---|---|---|");
    for (name, _) in STEPS {
        let Some(cost) = rows.get(name).and_then(serde_json::Value::as_f64) else { continue };
        println!("| {name} | {cost:.3} | {:.0} |", 1000.0 / cost);
    }
}

fn seconds_of(load: &Load, connector: &ConnectorConfig, until: Until) -> f64 {
    let started = cpu_seconds();
    let reached = run(load, connector, until);
    let seconds = cpu_seconds() - started;
    assert_eq!(reached, load.records, "records are missing");
    seconds
}

/// Returns how many records there were.
fn run(load: &Load, connector: &ConnectorConfig, until: Until) -> u64 {
    let (mut codecs, pool) = (Codecs::default(), Pool::default());
    let (splitter, mut times) = (Splitter::new(connector, TOPIC), EventTimes::new(&connector.time));
    let reserved = ReservedNames { missing: "_unknown".to_owned(), dead_letter: "_dead_letter".to_owned() };
    let (mut lanes, seed) = (Lanes::new(reserved), topic_seed(TOPIC));
    let frame_bytes = connector.compression.frame_bytes as usize;
    let codec = if let Until::Frames(codec) = until { codec } else { Codec::None };
    let (mut encoder, mut frame) = (Encoder::new(codec, None).unwrap(), Vec::new());
    let (mut records, mut files) = (0, 0);
    let mut compress = |buffer: sluice::archive::frame::FrameBuffer| {
        if until != Until::Lane && !buffer.is_empty() {
            frame.clear();
            std::hint::black_box(buffer.encode(&mut encoder, &mut frame).unwrap());
        }
    };
    for answer in &load.answers {
        for block in Decoder::new(answer.clone(), &mut codecs, &pool) {
            let block = block.unwrap();
            for record in block.records() {
                records += 1;
                if until == Until::Decoded {
                    std::hint::black_box(record);
                    continue;
                }
                let Split::App(App::Id(id)) = splitter.split(&record) else { continue };
                if until == Until::Split {
                    std::hint::black_box(id);
                    continue;
                }
                let time_ms = times.time_ms(&record);
                let (key, bucket) = (AppKey::Id(&id), times.bucket_start_secs(time_ms));
                let file = lanes.find(key, bucket).unwrap_or_else(|| {
                    let opener = Opener { partition: record.partition, offset: record.offset, time_ms };
                    files += 1;
                    lanes.open(key, bucket, files, opener, 0, 0).file
                });
                let lane = lanes.get_mut(file).unwrap();
                lane.buffer.push(connector.format, TOPIC, seed, &record, time_ms);
                if lane.buffer.len() >= frame_bytes {
                    compress(std::mem::take(&mut lane.buffer));
                }
            }
        }
    }
    for file in lanes.files() {
        compress(lanes.close(file).unwrap().buffer);
    }
    records
}
