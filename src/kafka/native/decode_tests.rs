#![allow(clippy::panic, reason = "a failed expectation ends the test")]

use bytes::BytesMut;
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{Compression, Record as Theirs, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use proptest::prelude::*;

use super::*;
use crate::pipeline::source::Position;

/// (offset, timestamp, key, value, headers)
type Plain = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn theirs(offset: i64, value: &str) -> Theirs {
    Theirs {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: offset as i32,
        timestamp: 1000 + offset,
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: IndexMap::new(),
    }
}

fn encode(records: &[Theirs], compression: Compression) -> Vec<u8> {
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, records, &RecordEncodeOptions { version: 2, compression }).unwrap();
    out.to_vec()
}

/// A marker as a broker writes it: 0 abort, 1 commit.
fn marker(offset: i64, producer_id: i64, kind: u8) -> Vec<u8> {
    let record = Theirs {
        transactional: true,
        control: true,
        producer_id,
        key: Some(Bytes::copy_from_slice(&[0, 0, 0, kind])),
        ..theirs(offset, "\0\0\0\0\0\0")
    };
    encode(&[record], Compression::None)
}

/// Writes fields of a batch's header and makes its checksum right again.
fn patch(batch: &mut [u8], at: usize, bytes: &[u8]) {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn fetched(records: Vec<u8>, position: i64) -> Fetched {
    Fetched {
        partition: 4,
        position,
        aborted: Vec::new(),
        end_offset: 100,
        log_start_offset: 0,
        records: records.into(),
    }
}

/// All records, the position at the end, and the error if there was one.
fn decode(fetched: Fetched) -> (Vec<Plain>, i64, Option<DecodeError>) {
    let mut codecs = Codecs::default();
    let mut position = fetched.position;
    let mut out = Vec::new();
    for block in Decoder::new(fetched, &mut codecs, &Pool::default()) {
        let block = match block {
            Ok(block) => block,
            Err(error) => return (out, position, Some(error)),
        };
        assert!(block.next_offset >= position);
        position = block.next_offset;
        for record in block.records() {
            assert_eq!(record.partition, 4);
            let headers = record.headers.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
            out.push((
                record.offset,
                record.timestamp_ms,
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                headers,
            ));
        }
    }
    (out, position, None)
}

fn offsets(records: &[Plain]) -> Vec<i64> {
    records.iter().map(|record| record.0).collect()
}

fn plain(record: &Theirs) -> Plain {
    let owned = |bytes: &Bytes| bytes.to_vec();
    let headers = record.headers.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_ref().map(owned)));
    (
        record.offset,
        record.timestamp,
        record.key.as_ref().map(owned),
        record.value.as_ref().map(owned),
        headers.collect(),
    )
}

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn record_strategy() -> impl Strategy<Value = Theirs> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..300));
    (bytes(), bytes(), -1_i64..1 << 50, prop::collection::vec((".{0,9}", bytes()), 0..4)).prop_map(
        |(key, value, timestamp, headers)| Theirs {
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            timestamp,
            headers: headers
                .into_iter()
                .map(|(key, value)| (StrBytes::from_string(key), value.map(Bytes::from)))
                .collect(),
            ..theirs(0, "")
        },
    )
}

/// Batches in offset order, with gaps inside and between them, each with its codec.
fn log_strategy() -> impl Strategy<Value = Vec<(Compression, Vec<Theirs>)>> {
    let batch = (0_usize..5, prop::collection::vec((record_strategy(), 0_i64..3), 1..12), 0_i64..4);
    prop::collection::vec(batch, 0..6).prop_map(|batches| {
        let mut offset = 0;
        let mut log = Vec::new();
        for (codec, records, gap) in batches {
            offset += gap;
            let mut batch = Vec::new();
            for (mut record, gap) in records {
                offset += gap;
                record.offset = offset;
                record.sequence = offset as i32;
                batch.push(record);
                offset += 1;
            }
            log.push((CODECS[codec], batch));
        }
        log
    })
}

fn bytes_of(log: &[(Compression, Vec<Theirs>)]) -> Vec<u8> {
    log.iter().flat_map(|(codec, records)| encode(records, *codec)).collect()
}

proptest! {
    #[test]
    fn another_encoder_s_batches_are_read_as_written(log in log_strategy(), from in 0.0..1.1_f64) {
        let all: Vec<Theirs> = log.iter().flat_map(|(_, records)| records.clone()).collect();
        let end = all.last().map_or(0, |record| record.offset + 1);
        let position = (end as f64 * from) as i64;
        let (read, next, error) = decode(fetched(bytes_of(&log), position));
        prop_assert_eq!(error, None);
        prop_assert_eq!(next, position.max(end));
        let expected: Vec<Plain> = all.iter().filter(|record| record.offset >= position).map(plain).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn a_cut_shows_the_whole_batches_before_it(log in log_strategy(), cut in 0.0..1.0_f64) {
        let bytes = bytes_of(&log);
        let cut = (bytes.len() as f64 * cut) as usize;
        let mut whole = Vec::new();
        let mut size = 0;
        for (codec, records) in &log {
            size += encode(records, *codec).len();
            if size <= cut {
                whole.extend(records.iter().map(|record| record.offset));
            }
        }
        let (read, next, error) = decode(fetched(bytes[..cut].to_vec(), 0));
        prop_assert_eq!(error, None);
        prop_assert_eq!(next, whole.last().map_or(0, |last| last + 1));
        prop_assert_eq!(offsets(&read), whole);
    }

    #[test]
    fn damage_never_panics_and_never_goes_back(
        log in log_strategy(), flips in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 1..5), mend: bool
    ) {
        let mut bytes = bytes_of(&log);
        for (at, byte) in flips {
            let at = (bytes.len() as f64 * at) as usize;
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        if mend {
            // With the checksum made right, the damage reaches the code behind it.
            let mut rest = &mut bytes[..];
            while rest.len() >= batch::HEADER_BYTES {
                let length = i32::from_be_bytes(*rest[8..].first_chunk().unwrap());
                let Some(size) = usize::try_from(length).ok().map(|length| length + 12).filter(|size| *size <= rest.len() && *size > 60) else { break };
                let (batch, tail) = rest.split_at_mut(size);
                patch(batch, 16, &[2]);
                rest = tail;
            }
        }
        let (read, _, _) = decode(fetched(bytes, 0));
        prop_assert!(offsets(&read).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>) {
        let _ = decode(fetched(noise.clone(), 0));
        let mut batch = encode(&[theirs(0, "x")], Compression::None);
        batch.truncate(batch::HEADER_BYTES);
        batch.extend(noise);
        let length = (batch.len() as i32 - 12).to_be_bytes();
        patch(&mut batch, 8, &length);
        let _ = decode(fetched(batch, 0));
    }
}

#[test]
fn a_wrong_checksum_names_the_batch_and_shows_what_came_before() {
    let mut bytes = encode(&[theirs(0, "a"), theirs(1, "b")], Compression::Lz4);
    let mut second = encode(&[theirs(2, "c")], Compression::Lz4);
    *second.last_mut().unwrap() ^= 1;
    bytes.extend(second);
    let (read, next, error) = decode(fetched(bytes, 0));
    assert_eq!(offsets(&read), [0, 1]);
    assert_eq!(next, 2);
    let error = error.unwrap();
    assert_eq!(error.position, 2);
    assert!(matches!(error.error, BatchError::Checksum { base_offset: 2, .. }), "{error:?}");
}

#[test]
fn log_append_time_overrides_every_timestamp() {
    let mut bytes = encode(&[theirs(0, "a"), theirs(1, "b")], Compression::None);
    patch(&mut bytes, 21, &8_i16.to_be_bytes());
    patch(&mut bytes, 35, &77_777_i64.to_be_bytes());
    let (read, ..) = decode(fetched(bytes, 0));
    assert_eq!(read.iter().map(|record| record.1).collect::<Vec<_>>(), [77_777, 77_777]);
}

#[test]
fn aborted_transactions_are_left_out_and_committed_ones_shown() {
    let transactional = |offset, producer_id| {
        encode(&[Theirs { transactional: true, producer_id, ..theirs(offset, "t") }], Compression::Zstd)
    };
    let log = [
        transactional(0, 7), // aborted
        transactional(1, 8), // committed
        encode(&[theirs(2, "plain")], Compression::None),
        marker(3, 7, 0),
        transactional(4, 7), // the same producer, committed
        marker(5, 8, 1),
        marker(6, 7, 1),
        encode(&[Theirs { producer_id: 7, ..theirs(7, "idempotent") }], Compression::None),
        transactional(8, 7), // aborted
        marker(9, 7, 0),
    ]
    .concat();
    let aborted = vec![(7, 8), (7, 0)];
    let (read, next, error) = decode(Fetched { aborted, ..fetched(log.clone(), 0) });
    assert_eq!(error, None);
    assert_eq!(offsets(&read), [1, 2, 4, 7]);
    assert_eq!(next, 10, "markers belong to the position");
    let (read, ..) = decode(fetched(log, 0));
    assert_eq!(offsets(&read), [0, 1, 2, 4, 7, 8], "read_uncommitted shows all data and no markers");
}

#[test]
fn batches_that_compaction_emptied_move_the_position() {
    let mut empty = encode(&[theirs(5, "x")], Compression::None);
    empty.truncate(batch::HEADER_BYTES);
    patch(&mut empty, 8, &(batch::HEADER_BYTES as i32 - 12).to_be_bytes());
    patch(&mut empty, 57, &0_i32.to_be_bytes());
    // The last offsets of a batch stay when their records go.
    patch(&mut empty, 23, &9_i32.to_be_bytes());
    let mut control = empty.clone();
    patch(&mut control, 0, &15_i64.to_be_bytes());
    patch(&mut control, 21, &(16_i16 | 32).to_be_bytes());
    let mut compressed = empty.clone();
    patch(&mut compressed, 0, &25_i64.to_be_bytes());
    patch(&mut compressed, 21, &3_i16.to_be_bytes());
    let (read, next, error) = decode(fetched([empty, control, compressed].concat(), 5));
    assert_eq!((read.len(), next, error), (0, 35, None));
}

#[test]
fn duplicate_null_and_broken_headers_are_kept_as_they_are() {
    let record = Theirs { headers: [(StrBytes::from_static_str("zz"), None)].into(), ..theirs(0, "v") };
    let mut bytes = encode(&[record], Compression::None);
    // The encoder knows no duplicates and no broken UTF-8: the header `zz` null is written over in place.
    let at = bytes.len() - 5;
    assert_eq!(bytes[at..], [2, 4, b'z', b'z', 1]);
    patch(&mut bytes, at + 2, &[0xff, 0xfe]);
    let (read, _, error) = decode(fetched(bytes, 0));
    assert_eq!(error, None);
    assert_eq!(read[0].4, [(vec![0xff, 0xfe], None)]);
}

#[test]
fn old_message_formats_are_named() {
    let mut bytes = encode(&[theirs(0, "a")], Compression::None);
    bytes[16] = 1;
    let error = decode(fetched(bytes, 0)).2.unwrap();
    assert_eq!(error.error, BatchError::OldFormat(1));
}

#[test]
fn claims_that_the_bytes_do_not_hold_allocate_nothing() {
    for (count, what) in [(1_000_000, "more records than bytes"), (i32::MAX, "more records than a batch may hold")] {
        let mut bytes = encode(&[theirs(0, "a")], Compression::None);
        patch(&mut bytes, 57, &count.to_be_bytes());
        patch(&mut bytes, 23, &i32::MAX.to_be_bytes());
        let error = decode(fetched(bytes, 0)).2.unwrap();
        assert_eq!(error.error, BatchError::Record { base_offset: 0, what });
    }
    let mut bytes = encode(&[theirs(0, "a")], Compression::None);
    patch(&mut bytes, 8, &i32::MAX.to_be_bytes());
    let (read, next, error) = decode(fetched(bytes, 0));
    assert_eq!((read.len(), next, error), (0, 0, None), "cut off: nothing to show, nothing to fail");
}

#[test]
fn large_answers_become_several_blocks_without_copies_of_uncompressed_data() {
    let value = "v".repeat(700_000);
    let log: Vec<u8> = (0..8)
        .flat_map(|n| encode(&[theirs(n, &value)], if n < 4 { Compression::Lz4 } else { Compression::None }))
        .collect();
    let source = Bytes::from(log);
    let range = source.as_ptr_range();
    let mut codecs = Codecs::default();
    let blocks: Vec<Block> =
        Decoder::new(Fetched { records: source.clone(), ..fetched(Vec::new(), 0) }, &mut codecs, &Pool::default())
            .collect::<Result<_, _>>()
            .unwrap();
    let shape: Vec<(usize, i64, bool)> = blocks
        .iter()
        .map(|block| (block.spans.len(), block.next_offset, range.contains(&block.data.as_ptr())))
        .collect();
    assert_eq!(shape, [(1, 1, false), (1, 2, false), (1, 3, false), (1, 4, false), (4, 8, true)]);
    assert!(blocks.iter().all(|block| block.leader_epoch == Some(3)));
}

#[test]
fn a_block_holds_batches_of_one_leader_epoch() {
    let of_epoch = |offset, epoch: i32, compression| {
        let mut batch = encode(&[theirs(offset, "v")], compression);
        // Not under the checksum: brokers set it.
        batch[12..16].copy_from_slice(&epoch.to_be_bytes());
        batch
    };
    let log = [(0, 3), (1, 3), (2, 5), (3, -1), (4, -1), (5, 5)]
        .map(|(offset, epoch)| {
            of_epoch(offset, epoch, if offset % 2 == 0 { Compression::Lz4 } else { Compression::None })
        })
        .concat();
    let mut codecs = Codecs::default();
    let mut position = Position { offset: 1, leader_epoch: Some(3) };
    let mut kept = Vec::new();
    for block in Decoder::new(fetched(log, 1), &mut codecs, &Pool::default()) {
        position = position.after(&block.unwrap());
        kept.push((position.offset, position.leader_epoch));
    }
    kept.dedup();
    assert_eq!(kept, [(2, Some(3)), (3, Some(5)), (4, None), (5, None), (6, Some(5))]);
}

#[test]
fn an_answer_without_records_tells_the_end_once() {
    let mut codecs = Codecs::default();
    let blocks: Vec<Block> =
        Decoder::new(fetched(Vec::new(), 9), &mut codecs, &Pool::default()).collect::<Result<_, _>>().unwrap();
    assert_eq!(blocks.len(), 1);
    assert_eq!((blocks[0].next_offset, blocks[0].end_offset, blocks[0].log_start_offset), (9, 100, Some(0)));
}
