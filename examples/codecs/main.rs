//! Speed and ratio of each codec on the load generator's records: `cargo run --release --example codecs`.
//!
//! Owns: measuring. Does not own: codecs; what a whole worker needs (`make bench`).
//!
//! One thread compresses frames of 1 MiB with one reused context, as a thread of the worker's pool does. Speeds are bytes before
//! compression by the CPU time of this process.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]

#[path = "../loadgen/records.rs"]
#[allow(dead_code, reason = "this uses its share")]
mod records;

use sluice::archive::codec::{Codec, Encoder, decode_frame};

const FRAME_BYTES: usize = 1 << 20;
const FRAMES: usize = 64;

/// One app's lines, as a file has them.
fn frames() -> Vec<Vec<u8>> {
    let plan = records::Plan::new(0, u64::MAX, 200, 1.0, 8, 1);
    let (mut frames, mut frame, mut line) = (Vec::new(), Vec::new(), Vec::new());
    let mut seq = 0;
    while frames.len() < FRAMES {
        line.clear();
        let millis = seq / 20;
        let time = format!(
            "2026-11-22T{:02}:{:02}:{:02}.{:03}Z",
            millis / 3_600_000 % 24,
            millis / 60_000 % 60,
            millis / 1000 % 60,
            millis % 1000
        );
        let app = plan.write(&mut line, seq, &time);
        seq += 1;
        if app != plan.names[0] {
            continue;
        }
        frame.extend_from_slice(&line);
        frame.push(b'\n');
        if frame.len() >= FRAME_BYTES {
            frames.push(std::mem::take(&mut frame));
        }
    }
    frames
}

/// User and system time of this process, in hundredths of a second (the clock ticks of Linux).
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Megabytes a second: repeated until it took a second and a half.
fn speed(bytes: usize, mut work: impl FnMut()) -> f64 {
    let (start, mut rounds) = (cpu_ticks(), 0);
    loop {
        work();
        rounds += 1;
        let ticks = cpu_ticks() - start;
        if ticks >= 150 {
            return (bytes * rounds) as f64 / 1e6 / (ticks as f64 / 100.0);
        }
    }
}

fn main() {
    let frames = frames();
    let raw: usize = frames.iter().map(Vec::len).sum();
    println!("| codec, level | compress, MB/s of CPU | decompress, MB/s of CPU | ratio |\n|---|---|---|---|");
    let levels = |codec, levels: &[Option<i32>]| levels.iter().map(|level| (codec, *level)).collect::<Vec<_>>();
    let zstd = [None, Some(3), Some(6), Some(9), Some(15)];
    let all = [
        levels(Codec::None, &[None]),
        levels(Codec::Lz4, &[None]),
        levels(Codec::Zstd, &zstd),
        levels(Codec::Gzip, &[Some(1), None, Some(9)]),
    ];
    for (codec, level) in all.concat() {
        let mut encoder = Encoder::new(codec, level).unwrap();
        let mut stored: Vec<Vec<u8>> = vec![Vec::new(); frames.len()];
        let compress = speed(raw, || {
            for (frame, out) in frames.iter().zip(&mut stored) {
                out.clear();
                encoder.encode(&[frame], out).unwrap();
            }
        });
        let decompress = speed(raw, || {
            for (frame, stored) in frames.iter().zip(&stored) {
                assert_eq!(decode_frame(codec, stored, frame.len()).unwrap().len(), frame.len());
            }
        });
        let size: usize = stored.iter().map(Vec::len).sum();
        let level = level.map_or_else(|| "default".to_owned(), |level| level.to_string());
        let name = format!("{codec:?}").to_lowercase();
        println!("| {name}, {level} | {compress:.0} | {decompress:.0} | {:.2} |", raw as f64 / size as f64);
    }
}
