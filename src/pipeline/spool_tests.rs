use std::collections::BTreeMap;
use std::ops::Range;

use super::*;
use crate::archive::codec::Encoder;
use crate::archive::format::Format;
use crate::archive::frame::FrameBuffer;
use crate::archive::index::{IndexRead, read_index, read_record_table};
use crate::record::{Headers, Record};

fn facts() -> FileFacts {
    FileFacts {
        connector: "c".to_owned(),
        cluster_id: None,
        topic: "t".to_owned(),
        topic_id: None,
        incarnation: 0,
        app: "a".to_owned(),
        bucket_start_secs: None,
        intent_id: "0".repeat(32),
        digests: BTreeMap::new(),
        log_number: 1,
        settings_hash: String::new(),
        lows: BTreeMap::new(),
        format: Format::Raw,
        codec: Codec::None,
        skipped: Vec::new(),
    }
}

/// Values that tell their place; one has two lines, so that lengths matter.
fn value(partition: i32, offset: i64) -> String {
    let line = format!("{partition}/{offset}");
    if offset % 3 == 0 { format!("{line}\n{line}") } else { line }
}

/// One attempt to make a plain file: its data and its sidecar. `frames` are records as (partition, offset).
fn attempt(frames: &[&[(i32, i64)]]) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 1 << 20).unwrap();
    let task = spool.task("c", "t", 0, "token").unwrap();
    let file = task.file("file.data");
    let mut encoder = Encoder::new(Codec::None, None).unwrap();
    // The last frame first: they are written in their order.
    for (sequence, records) in frames.iter().enumerate().rev() {
        let mut buffer = FrameBuffer::default();
        for &(partition, offset) in *records {
            let value = value(partition, offset);
            let (value, headers) = (Some(value.as_bytes()), Headers::default());
            let record = Record { partition, offset, timestamp_ms: offset, key: None, value, headers };
            buffer.push(Format::Raw, "t", 1, &record, offset);
        }
        let mut frame = Vec::new();
        let meta = buffer.encode_apart(&mut encoder, &mut frame).unwrap();
        file.write_frame(u32::try_from(sequence).unwrap(), frame, meta).unwrap();
    }
    let finished = file.finish(Codec::None, &facts()).unwrap();
    let read = |file: Finished| {
        let bytes = fs::read(file.path).unwrap();
        assert_eq!((bytes.len() as u64, crc32c::crc32c(&bytes)), (file.bytes, file.crc));
        bytes
    };
    (read(finished.data), read(finished.sidecar.unwrap()))
}

#[test]
fn attempts_that_cut_a_plain_file_elsewhere_make_the_same_bytes() {
    let (data, sidecar) = attempt(&[&[(1, 3), (0, 5), (1, 4)], &[(0, 6), (2, 0)], &[(1, 9), (0, 7)]]);
    let (other_data, other_sidecar) = attempt(&[&[(2, 0), (0, 5), (0, 6), (0, 7), (1, 3)], &[(1, 4), (1, 9)]]);
    assert_eq!(String::from_utf8(data).unwrap(), String::from_utf8(other_data.clone()).unwrap());
    assert_ne!(sidecar, other_sidecar);
    for sidecar in [sidecar, other_sidecar] {
        let Ok(IndexRead::Index(index)) = read_index(Codec::None, sidecar.len() as u64, &sidecar) else {
            panic!("no index")
        };
        let (mut text, mut at) = (String::new(), 0);
        for frame in &index.frames {
            let bytes = |range: Range<u64>| {
                sidecar[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
            };
            let table: Vec<u8> = index.table_ranges(frame).into_iter().flat_map(bytes).collect();
            let start = text.len();
            for record in read_record_table(frame, &table).unwrap() {
                text.push_str(&value(record.partition, record.offset));
                text.push('\n');
            }
            let stored = &other_data[start..text.len()];
            assert_eq!((frame.offset, frame.stored_len), (at, stored.len() as u64));
            assert_eq!(frame.crc, crc32c::crc32c(stored));
            at += frame.stored_len;
        }
        assert_eq!(text.as_bytes(), other_data);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "either order ends well, the pause only makes the waiting likely")]
fn a_lock_that_is_let_go_is_waited_for_and_one_that_is_not_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let first = Spool::open(dir.path(), 1 << 20).unwrap();
    let error = Spool::open(dir.path(), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("is used by another process"), "{error}");
    std::thread::scope(|scope| {
        let second = scope.spawn(|| Spool::open(dir.path(), 1 << 20));
        std::thread::sleep(LOCK_PAUSE * 2);
        drop(first);
        second.join().unwrap().unwrap();
    });
}
