use std::io::Write as _;
use std::ops::Range;
use std::process::{Command, Stdio};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::{option, sample};

use super::*;
use crate::archive::codec::{Encoder, decode_frame};
use crate::archive::digest::topic_seed;
use crate::archive::frame::{FrameBuffer, FrameMeta};
use crate::record::{Headers, Record};

const CODECS: [Codec; 4] = [Codec::Lz4, Codec::Zstd, Codec::Gzip, Codec::None];

fn facts(codec: Codec) -> FileFacts {
    FileFacts {
        connector: "app-logs".to_owned(),
        cluster_id: Some("c".to_owned()),
        topic: "applogs".to_owned(),
        topic_id: None,
        incarnation: 0,
        app: "payments".to_owned(),
        bucket_start_secs: None,
        intent_id: "0".repeat(32),
        digests: BTreeMap::new(),
        log_number: 3,
        settings_hash: "1".repeat(32),
        lows: [(0, 5)].into(),
        format: Format::Raw,
        codec,
        skipped: Vec::new(),
    }
}

fn value(partition: i32, offset: i64) -> Option<Vec<u8>> {
    match offset % 7 {
        3 => None,
        5 => Some(format!("two\nlines {offset}").into_bytes()),
        _ => Some(format!("partition {partition} offset {offset} says the same again and again").into_bytes()),
    }
}

/// A file of several frames with records of two partitions in turn: data, then its tail or sidecar, and all records as read.
fn file(codec: Codec, frames: i64, records: i64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut encoder = Encoder::new(codec, None).unwrap();
    let (mut data, mut entries, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for frame in 0..frames {
        let mut buffer = FrameBuffer::default();
        let mut by_partition = [Vec::new(), Vec::new()];
        for offset in frame * records..(frame + 1) * records {
            for partition in [1, 0] {
                let value = value(partition, offset);
                let record = Record {
                    partition,
                    offset: offset * 3,
                    timestamp_ms: 1_795_317_125_000 + offset,
                    key: None,
                    value: value.as_deref(),
                    headers: Headers::default(),
                };
                buffer.push(Format::Raw, "applogs", topic_seed("applogs"), &record, record.timestamp_ms);
                let line = &mut by_partition[usize::try_from(partition).unwrap()];
                line.extend_from_slice(value.as_deref().unwrap_or_default());
                line.push(b'\n');
            }
        }
        plain.extend(by_partition.concat());
        let offset = data.len() as u64;
        let meta = buffer.encode(&mut encoder, &mut data).unwrap();
        append_frame(&mut entries, offset, &meta);
    }
    let mut tail = Vec::new();
    write_tail(codec, &facts(codec), &entries, data.len() as u64, &mut tail).unwrap();
    (data, tail, plain)
}

fn index_file(codec: Codec, data: &[u8], tail: &[u8]) -> Vec<u8> {
    if codec == Codec::None { tail.to_vec() } else { [data, tail].concat() }
}

fn read(codec: Codec, file: &[u8]) -> Result<Index, IndexError> {
    let mut len = 100.min(file.len());
    loop {
        match read_index(codec, file.len() as u64, &file[file.len() - len..])? {
            IndexRead::Index(index) => return Ok(*index),
            IndexRead::NeedMore { len: more } => {
                let more = usize::try_from(more).unwrap();
                assert!(more > len && more <= file.len(), "asks for {more} of {} after {len}", file.len());
                len = more;
            }
        }
    }
}

#[test]
fn what_was_written_is_read_back_record_by_record() {
    for codec in CODECS {
        let (data, tail, plain) = file(codec, 40, 500);
        let file = index_file(codec, &data, &tail);
        let index = read(codec, &file).unwrap();
        assert_eq!(index.facts, facts(codec));
        assert_eq!(index.frames.len(), 40);
        let mut text = Vec::new();
        for (number, frame) in (0..).zip(&index.frames) {
            let at = usize::try_from(frame.offset).unwrap();
            let stored = &data[at..at + usize::try_from(frame.stored_len).unwrap()];
            let raw = decode_frame(codec, stored, usize::try_from(frame.raw_len).unwrap()).unwrap();
            let table: Vec<u8> = index
                .table_ranges(frame)
                .into_iter()
                .flat_map(|range| {
                    file[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
                })
                .collect();
            let records = read_record_table(frame, &table).unwrap();
            check_records(number, &records, &raw);
            text.extend(raw);
        }
        assert!(text == plain, "{codec:?}");
    }
}

/// How partitions took turns and where pieces of memory ended is not in a frame.
#[test]
fn a_frame_is_the_same_in_whatever_turns_its_partitions_came() {
    let (partitions, offsets) = (0..3, 0..2_000);
    let in_turn: Vec<(i32, i64)> =
        offsets.clone().flat_map(|offset| partitions.clone().map(move |p| (p, offset))).collect();
    let in_order: Vec<(i32, i64)> = partitions.flat_map(|p| offsets.clone().map(move |offset| (p, offset))).collect();
    let mut in_runs = in_turn.clone();
    in_runs.sort_by_key(|&(partition, offset)| (offset / 37, -partition, offset));
    let mut encoder = Encoder::new(Codec::Lz4, None).unwrap();
    let mut encode = |order: &[(i32, i64)]| {
        let mut buffer = FrameBuffer::default();
        for &(partition, offset) in order {
            let value = value(partition, offset);
            let (timestamp_ms, offset) = (1_795_317_125_000 + offset * 7 % 11, offset * 3 + offset / 50);
            let (key, headers) = (None, Headers::default());
            let record = Record { partition, offset, timestamp_ms, key, value: value.as_deref(), headers };
            buffer.push(Format::Raw, "applogs", topic_seed("applogs"), &record, timestamp_ms);
        }
        let mut frame = Vec::new();
        let meta = buffer.encode(&mut encoder, &mut frame).unwrap();
        (meta, frame)
    };
    let expected = encode(&in_order);
    assert!(expected.0.raw_len > 1 << 17, "several pieces of memory");
    assert!(encode(&in_turn) == expected, "in turn");
    assert!(encode(&in_runs) == expected, "in runs");
}

/// Files of the first version have longer pieces of index.
#[test]
fn gzip_files_of_version_1_are_read() {
    let (data, tail, _) = file(Codec::Gzip, 1_500, 60);
    let whole = [data.clone(), tail].concat();
    let index = read(Codec::Gzip, &whole).unwrap();
    let mut entries = Vec::new();
    for frame in &index.frames {
        let stored =
            |range: Range<u64>| &whole[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        let table: Vec<u8> = index.table_ranges(frame).into_iter().flat_map(stored).copied().collect();
        let (raw_len, stored_len, crc, table_raw_len) =
            (frame.raw_len, frame.stored_len, frame.crc, frame.table_raw_len);
        let (min_time_ms, max_time_ms, sum) = (frame.min_time_ms, frame.max_time_ms, frame.sum);
        let partitions = frame.partitions.clone();
        let meta =
            FrameMeta { raw_len, stored_len, crc, min_time_ms, max_time_ms, partitions, sum, table_raw_len, table };
        append_frame(&mut entries, frame.offset, &meta);
    }
    let mut old = data;
    let len = old.len() as u64;
    writer::write_version(1, Codec::Gzip, &facts(Codec::Gzip), &entries, len, &mut old).unwrap();
    assert!(whole.len() > old.len(), "more members than before");
    let read_old = read(Codec::Gzip, &old).unwrap();
    assert_eq!(read_old.frames, index.frames);
    let tables = |index: &Index, file: &[u8]| -> Vec<u8> {
        let ranges = index.frames.iter().flat_map(|frame| index.table_ranges(frame));
        ranges
            .flat_map(|range| file[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec())
            .collect()
    };
    assert!(tables(&read_old, &old) == tables(&index, &whole));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// With its index a raw file gives back every value, whatever is in it, and where it came from.
    #[test]
    fn raw_is_reversible_with_the_index(
        records in vec((0..3i32, 1..1000i64, any::<i64>(), option::of(vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..30))), 1..60),
        codec in sample::select(CODECS.to_vec()),
        cut in 1..20usize,
    ) {
        let mut ends = [0i64; 3];
        let records: Vec<(i32, i64, i64, Option<Vec<u8>>)> = records.into_iter().map(|(partition, step, time, value)| {
            let end = &mut ends[usize::try_from(partition).unwrap()];
            *end += step;
            (partition, *end, time, value)
        }).collect();
        let mut encoder = Encoder::new(codec, None).unwrap();
        let (mut data, mut entries) = (Vec::new(), Vec::new());
        for records in records.chunks(cut) {
            let mut buffer = FrameBuffer::default();
            for (partition, offset, timestamp_ms, value) in records {
                let (partition, offset, timestamp_ms) = (*partition, *offset, *timestamp_ms);
                let record = Record { partition, offset, timestamp_ms, key: None, value: value.as_deref(), headers: Headers::default() };
                buffer.push(Format::Raw, "t", 1, &record, 0);
            }
            let offset = data.len() as u64;
            let meta = buffer.encode(&mut encoder, &mut data).unwrap();
            append_frame(&mut entries, offset, &meta);
        }
        let mut tail = Vec::new();
        write_tail(codec, &facts(codec), &entries, data.len() as u64, &mut tail).unwrap();
        let file = index_file(codec, &data, &tail);
        let index = read(codec, &file).unwrap();
        let mut found = Vec::new();
        for frame in &index.frames {
            let place = |at: u64| usize::try_from(at).unwrap();
            let stored = &data[place(frame.offset)..place(frame.offset + frame.stored_len)];
            let raw = decode_frame(codec, stored, place(frame.raw_len)).unwrap();
            let ranges = index.table_ranges(frame).into_iter();
            let table: Vec<u8> = ranges.flat_map(|range| file[place(range.start)..place(range.end)].to_vec()).collect();
            let mut rest = raw.as_slice();
            for entry in read_record_table(frame, &table).unwrap() {
                let len = match entry.value {
                    ValueLen::Line => rest.iter().position(|&byte| byte == b'\n').unwrap(),
                    ValueLen::Bytes(len) => place(len),
                    ValueLen::Null => 0,
                };
                let value = (entry.value != ValueLen::Null).then(|| rest[..len].to_vec());
                found.push((entry.partition, entry.offset, entry.timestamp_ms, value));
                rest = &rest[len + 1..];
            }
            prop_assert!(rest.is_empty());
        }
        let expected: Vec<_> = records.chunks(cut).flat_map(|records| {
            let mut records = records.to_vec();
            records.sort_by_key(|(partition, offset, ..)| (*partition, *offset));
            records
        }).collect();
        prop_assert_eq!(found, expected);
    }
}

fn check_records(frame: i64, records: &[RecordEntry], raw: &[u8]) {
    let mut rest = raw;
    let expected = [0, 1].into_iter().flat_map(|p| (frame * 500..(frame + 1) * 500).map(move |offset| (p, offset)));
    for (record, (partition, offset)) in records.iter().zip(expected) {
        assert_eq!((record.partition, record.offset), (partition, offset * 3));
        assert_eq!(record.timestamp_ms, 1_795_317_125_000 + offset);
        let len = match record.value {
            ValueLen::Line => rest.iter().position(|&byte| byte == b'\n').unwrap(),
            ValueLen::Bytes(len) => usize::try_from(len).unwrap(),
            ValueLen::Null => 0,
        };
        let found = (record.value != ValueLen::Null).then(|| rest[..len].to_vec());
        assert_eq!(found, value(partition, offset));
        rest = &rest[len + 1..];
    }
    assert!(rest.is_empty());
}

#[test]
fn ordinary_tools_see_the_records_and_nothing_else() {
    for (codec, tool, args) in
        [(Codec::Lz4, "lz4", ["-dc"].as_slice()), (Codec::Zstd, "zstd", &["-dc"]), (Codec::Gzip, "gzip", &["-dc"])]
    {
        let (data, tail, plain) = file(codec, 1_500, 60);
        assert!(codec != Codec::Gzip || tail.len() > 1 << 16, "more than one gzip member of index");
        let mut child =
            Command::new(tool).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(
                |error| panic!("this test needs the {tool} tool (Debian: apt install {tool}): {error}"),
            );
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&[data, tail].concat()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success(), "{tool}");
        assert!(output.stdout == plain, "{tool} reads something else");
    }
}

#[test]
fn every_cut_and_every_flipped_byte_is_noticed_or_harmless() {
    for codec in CODECS {
        let (data, tail, _) = file(codec, 2, 20);
        let whole = index_file(codec, &data, &tail);
        let good = read(codec, &whole).unwrap();
        for end in 0..whole.len() {
            assert!(read(codec, &whole[..end]).is_err(), "{codec:?} cut at {end}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            // What is outside the frame table (frames, tables, wrapping) has checksums of its own, or says nothing.
            if let Ok(index) = read(codec, &changed) {
                assert_eq!(index, good, "{codec:?} changed at {at}");
            }
        }
    }
}

#[test]
fn the_frame_table_and_record_tables_stay_small() {
    let mut encoder = Encoder::new(Codec::Lz4, None).unwrap();
    let (mut data, mut entries) = (Vec::new(), Vec::new());
    let mut records = 0u64;
    let mut tables = 0;
    // 4,000 records a frame of one app among 200 over 8 partitions: gaps of about 200.
    for frame in 0..20i64 {
        let mut buffer = FrameBuffer::default();
        for record in 0..4000i64 {
            let at = frame * 4000 + record;
            let noise = at.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed()).unsigned_abs();
            let more = noise.wrapping_mul(0xD6E8_FEB8_6659_FD93);
            let text = format!(
                "{{\"app_id\":\"a\",\"n\":{at},\"trace\":\"{noise:016x}{more:016x}\",\"msg\":\"{}\"}}",
                "m".repeat(180)
            );
            let record = Record {
                partition: i32::try_from(record / 500).unwrap(),
                offset: at * 200 + i64::try_from(noise % 150).unwrap(),
                timestamp_ms: 1_795_317_125_000 + at * 3,
                key: None,
                value: Some(text.as_bytes()),
                headers: Headers::default(),
            };
            buffer.push(Format::Raw, "applogs", 1, &record, record.timestamp_ms);
            records += 1;
        }
        let offset = data.len() as u64;
        let meta = buffer.encode(&mut encoder, &mut data).unwrap();
        tables += meta.table.len() as u64;
        append_frame(&mut entries, offset, &meta);
    }
    let mut tail = Vec::new();
    write_tail(Codec::Lz4, &facts(Codec::Lz4), &entries, data.len() as u64, &mut tail).unwrap();
    let frame_table = tail.len() as u64 - tables;
    assert!(tables <= 4 * records, "{tables} bytes of tables for {records} records");
    // 0.1 % of the file, beside the facts, which a file has once.
    assert!(frame_table * 1000 <= data.len() as u64 + 400_000, "{frame_table} bytes for {}", data.len());
}

/// docs/file-format.md shows a file; what is in it must be what the page says. WRITE_GOLDEN=1 writes it anew.
#[test]
fn the_documented_example_is_a_file() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/file-format.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once("```hex\n").unwrap();
    let (hex, after) = rest.split_once("```").unwrap();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        let lines: Vec<String> = example()
            .chunks(32)
            .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
            .collect();
        std::fs::write(&page, format!("{before}```hex\n{}\n```{after}", lines.join("\n"))).unwrap();
        return;
    }
    let file: Vec<u8> = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let index = read(Codec::Lz4, &file).unwrap();
    assert_eq!(index.facts, facts(Codec::Lz4));
    let frame = &index.frames[0];
    let data = &file[..usize::try_from(index.data_len).unwrap()];
    assert_eq!(decode_frame(Codec::Lz4, data, 6).unwrap(), b"hello\n");
    assert_eq!(frame.crc, crc32c::crc32c(data));
    let range = &index.table_ranges(frame)[0];
    let table = &file[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
    let records = read_record_table(frame, table).unwrap();
    assert_eq!(records, [RecordEntry { partition: 0, offset: 7, timestamp_ms: 1000, value: ValueLen::Line }]);
    assert_eq!(frame.sum, crate::archive::digest::offset_hash(topic_seed("applogs"), 0, 7));
}

fn example() -> Vec<u8> {
    let mut buffer = FrameBuffer::default();
    let record = Record {
        partition: 0,
        offset: 7,
        timestamp_ms: 1000,
        key: None,
        value: Some(b"hello"),
        headers: Headers::default(),
    };
    buffer.push(Format::Raw, "applogs", topic_seed("applogs"), &record, 1000);
    let (mut file, mut entries) = (Vec::new(), Vec::new());
    let meta = buffer.encode(&mut Encoder::new(Codec::Lz4, None).unwrap(), &mut file).unwrap();
    append_frame(&mut entries, 0, &meta);
    let len = file.len() as u64;
    write_tail(Codec::Lz4, &facts(Codec::Lz4), &entries, len, &mut file).unwrap();
    file
}
