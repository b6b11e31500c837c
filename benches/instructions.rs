//! Steps of a record's way, small enough for valgrind: `make instructions` counts what each takes and compares it with
//! benches/instructions.json.
//!
//! A step is a function `measured_<name>` that is called once; what prepares it and checks it lies outside. Run without
//! valgrind, this only checks that the steps do what they should.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a bench")]

#[allow(dead_code, reason = "this uses its share")]
mod common;

use std::collections::BTreeMap;
use std::hint::black_box;

use common::{Load, TOPIC};
use sluice::archive::codec::{Codec, Encoder};
use sluice::archive::digest::{ContentDigest, topic_seed};
use sluice::archive::frame::{FrameBuffer, FrameMeta};
use sluice::archive::index::{FileFacts, IndexRead, append_frame, read_index, write_tail};
use sluice::config::ConnectorConfig;
use sluice::kafka::native::offline::{Codecs, Decoder, Pool};
use sluice::ledger::encoding::Stored;
use sluice::ledger::{Commit, Entry, Identity, Intent, Lane, Range, SettingsRecord, State, StepId, Token};
use sluice::pipeline::lane::{AppKey, Lanes, Opener, ReservedNames};
use sluice::pipeline::split::{App, Split, Splitter};
use sluice::record::Block;

const RECORDS: u64 = 24_000;
/// Frames that are compressed: those of the apps with the most records.
const FRAMES: usize = 4;
const INDEXED_FRAMES: u64 = 64;
const COMMITS: i64 = 64;
const INTENTS: usize = 20;
const PARTITIONS: i32 = common::PARTITIONS as i32;
const LANE_RECORDS: i64 = 100;

fn main() {
    let (load, connector) = (Load::new(RECORDS, 200, common::PARTITIONS), common::connector());
    let splitter = Splitter::new(&connector, TOPIC);
    assert_eq!(measured_decode(&load), RECORDS);
    let blocks = blocks(&load);
    assert_eq!(measured_split(&blocks, &splitter), RECORDS);
    let ids: Vec<Vec<u8>> = blocks.iter().flat_map(Block::records).map(|record| id(&splitter, &record)).collect();
    let mut buffers = buffers(measured_lane(&blocks, &ids, &connector));
    buffers.sort_by_key(|buffer| std::cmp::Reverse(buffer.len()));
    buffers.truncate(FRAMES);
    let frames = measured_lz4(&buffers);
    for made in [&frames, &measured_zstd(&buffers), &measured_gzip(&buffers)] {
        assert!(made.iter().all(|frame| frame.stored_len < frame.raw_len / 2), "logs shrink by more than that");
    }
    assert_eq!(measured_index(&frames, &facts()), INDEXED_FRAMES);
    let entries = entries();
    assert_eq!(measured_ledger(&entries).tip, entries.len() as u64);
    println!("every step did what it should");
}

#[inline(never)]
fn measured_decode(load: &Load) -> u64 {
    let (mut codecs, pool) = (Codecs::default(), Pool::default());
    let mut records = 0;
    for answer in &load.answers {
        for block in Decoder::new(answer.clone(), &mut codecs, &pool) {
            records += block.unwrap().records().map(black_box).count() as u64;
        }
    }
    records
}

fn blocks(load: &Load) -> Vec<Block> {
    let (mut codecs, pool) = (Codecs::default(), Pool::default());
    let mut blocks = Vec::new();
    for answer in &load.answers {
        blocks.extend(Decoder::new(answer.clone(), &mut codecs, &pool).map(Result::unwrap));
    }
    blocks
}

#[inline(never)]
fn measured_split(blocks: &[Block], splitter: &Splitter) -> u64 {
    let found = |record| matches!(black_box(splitter.split(&record)), Split::App(App::Id(_)));
    blocks.iter().flat_map(Block::records).filter(|record| found(*record)).count() as u64
}

fn id(splitter: &Splitter, record: &sluice::record::Record<'_>) -> Vec<u8> {
    let Split::App(App::Id(id)) = splitter.split(record) else { panic!("a record without an id") };
    id.into_owned()
}

/// What the core does with a record that is fresh.
#[inline(never)]
fn measured_lane(blocks: &[Block], ids: &[Vec<u8>], connector: &ConnectorConfig) -> Lanes {
    let reserved = ReservedNames { missing: "_unknown".to_owned(), dead_letter: "_dead_letter".to_owned() };
    let (mut lanes, seed, mut files) = (Lanes::new(reserved), topic_seed(TOPIC), 0);
    for (record, id) in blocks.iter().flat_map(Block::records).zip(ids) {
        let key = AppKey::Id(id);
        let file = lanes.find(key, None).unwrap_or_else(|| {
            files += 1;
            let opener = Opener { partition: record.partition, offset: record.offset, time_ms: record.timestamp_ms };
            lanes.open(key, None, files, opener, 0, 0).file
        });
        let lane = lanes.get_mut(file).unwrap();
        lane.ranges.push(&record);
        let before = lane.buffer.memory_bytes();
        lane.buffer.push(connector.format, TOPIC, seed, &record, record.timestamp_ms);
        if lane.buffer.memory_bytes() != before {
            lanes.recount(file);
        }
    }
    lanes
}

fn buffers(mut lanes: Lanes) -> Vec<FrameBuffer> {
    lanes.files().into_iter().map(|file| lanes.close(file).unwrap().buffer).collect()
}

#[inline(never)]
fn measured_lz4(buffers: &[FrameBuffer]) -> Vec<FrameMeta> {
    compress(buffers, Codec::Lz4)
}

#[inline(never)]
fn measured_zstd(buffers: &[FrameBuffer]) -> Vec<FrameMeta> {
    compress(buffers, Codec::Zstd)
}

#[inline(never)]
fn measured_gzip(buffers: &[FrameBuffer]) -> Vec<FrameMeta> {
    compress(buffers, Codec::Gzip)
}

fn compress(buffers: &[FrameBuffer], codec: Codec) -> Vec<FrameMeta> {
    let (mut encoder, mut frame) = (Encoder::new(codec, None).unwrap(), Vec::new());
    let mut made = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        frame.clear();
        made.push(buffer.encode(&mut encoder, &mut frame).unwrap());
    }
    made
}

fn facts() -> FileFacts {
    FileFacts {
        connector: "bench".to_owned(),
        cluster_id: None,
        topic: TOPIC.to_owned(),
        topic_id: None,
        incarnation: 0,
        app: "payments-000".to_owned(),
        bucket_start_secs: None,
        intent_id: "0".repeat(32),
        digests: (0..PARTITIONS).map(|partition| (partition, ContentDigest::default())).collect(),
        log_number: 1,
        settings_hash: "0".repeat(32),
        lows: (0..PARTITIONS).map(|partition| (partition, 0)).collect(),
        format: sluice::archive::format::Format::Raw,
        codec: Codec::Lz4,
        skipped: Vec::new(),
    }
}

/// Writes an index and reads it back; returns how many frames it told of.
#[inline(never)]
fn measured_index(frames: &[FrameMeta], facts: &FileFacts) -> u64 {
    let (mut entries, mut tail, mut end) = (Vec::new(), Vec::new(), 0);
    for frame in frames.iter().cycle().take(INDEXED_FRAMES as usize) {
        append_frame(&mut entries, end, frame);
        end += frame.stored_len;
    }
    write_tail(Codec::Lz4, facts, &entries, end, &mut tail).unwrap();
    match read_index(Codec::Lz4, end + tail.len() as u64, &tail).unwrap() {
        IndexRead::Index(index) => index.frames.len() as u64,
        IndexRead::NeedMore { len } => panic!("{len} bytes of index were written {}", tail.len()),
    }
}

/// A log in which each entry seals a file of each lane and tells that the files before are done.
fn entries() -> Vec<Stored> {
    let mut said = vec![
        Entry::Takeover { worker: "bench".to_owned(), time_ms: 0 },
        Entry::Start {
            settings: SettingsRecord::new(serde_json::json!({ "format": "raw" })),
            identity: Identity::default(),
            lows: (0..PARTITIONS).map(|partition| (partition, 0)).collect(),
            skipped: Vec::new(),
            time_ms: 0,
        },
    ];
    let mut before: Vec<Intent> = Vec::new();
    for commit in 0..COMMITS {
        let first = commit * LANE_RECORDS;
        let range = Range {
            first,
            last: first + LANE_RECORDS - 1,
            count: LANE_RECORDS as u64,
            digest: ContentDigest::default(),
        };
        let ranges: BTreeMap<i32, Range> = (0..PARTITIONS).map(|partition| (partition, range.clone())).collect();
        let seal: Vec<Intent> = (0..INTENTS)
            .map(|app| {
                let lane = Lane { app: format!("payments-{app:03}"), bucket_start_secs: None };
                let key = format!("{}/2026-11-22/030000_{TOPIC}+00000+{first:020}.log.lz4", lane.app);
                Intent::new(key, lane, ranges.clone(), "0".repeat(32))
            })
            .collect();
        let done = before.iter().map(|intent| intent.id.clone()).collect();
        said.push(Entry::Commit(Commit { seal: seal.clone(), done, time_ms: commit, ..Commit::default() }));
        before = seal;
    }
    let stored = |(number, entry)| Stored { number, token: Token("0".repeat(32)), step: StepId("0".repeat(32)), entry };
    (1..).zip(said).map(stored).collect()
}

/// Entries as they are written, read and folded.
#[inline(never)]
fn measured_ledger(entries: &[Stored]) -> State {
    let mut state = State::default();
    for stored in entries {
        let bytes = stored.encode().unwrap();
        state.apply(&Stored::decode(stored.number, &bytes).unwrap()).unwrap();
    }
    state
}
