//! Records as a batch of format v2, see [`super::batch`].
//!
//! Owns: the bytes of a batch. Does not own: which records go together.

use std::io::Write;

use crate::pipeline::produce::Outgoing;
use crate::record::write_varint;

/// Below it compression saves nothing worth its time.
const COMPRESSED_FROM_BYTES: usize = 1024;
const LZ4: i16 = 3;

/// Encodes records, in this order; compressed where that is shorter.
pub fn encode(records: &[&Outgoing]) -> Vec<u8> {
    let base_ms = records.first().map_or(-1, |record| record.timestamp_ms);
    let max_ms = records.iter().map(|record| record.timestamp_ms).max().unwrap_or(-1);
    let mut payload = Vec::with_capacity(records.iter().map(|record| record.bytes()).sum());
    let mut body = Vec::new();
    for (number, record) in (0..).zip(records) {
        body.clear();
        encode_record(&mut body, record, record.timestamp_ms.wrapping_sub(base_ms), number);
        write_varint(&mut payload, body.len() as i64);
        payload.extend_from_slice(&body);
    }
    let compressed = (payload.len() >= COMPRESSED_FROM_BYTES).then(|| lz4(&payload)).flatten();
    let (attributes, payload) = match compressed.filter(|compressed| compressed.len() < payload.len()) {
        Some(compressed) => (LZ4, compressed),
        None => (0, payload),
    };
    let count = records.len() as i32;
    let mut checked = Vec::with_capacity(40 + payload.len());
    checked.extend(attributes.to_be_bytes());
    checked.extend((count - 1).to_be_bytes());
    checked.extend(base_ms.to_be_bytes());
    checked.extend(max_ms.to_be_bytes());
    // No producer id, epoch or sequence: what is repeated may be there twice.
    checked.extend((-1_i64).to_be_bytes());
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend(count.to_be_bytes());
    checked.extend(payload);
    let mut batch = Vec::with_capacity(21 + checked.len());
    batch.extend(0_i64.to_be_bytes());
    // What follows the length: leader epoch (4), magic (1), checksum (4).
    batch.extend((9 + checked.len() as i32).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c::crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

fn encode_record(out: &mut Vec<u8>, record: &Outgoing, delta_ms: i64, number: i64) {
    out.push(0);
    write_varint(out, delta_ms);
    write_varint(out, number);
    for field in [&record.key, &record.value] {
        match field {
            None => write_varint(out, -1),
            Some(bytes) => {
                write_varint(out, bytes.len() as i64);
                out.extend_from_slice(bytes);
            }
        }
    }
    let headers = record.headers.as_headers();
    write_varint(out, headers.len() as i64);
    out.extend_from_slice(headers.as_bytes());
}

/// `None`: it could not be compressed, which memory alone can't cause.
fn lz4(payload: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::with_capacity(payload.len() / 2));
    encoder.write_all(payload).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::kafka::native::batch::{self, Next};
    use crate::pipeline::produce::HeaderList;

    fn outgoing() -> impl Strategy<Value = Outgoing> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
        let headers = prop::collection::btree_map("[a-zä]{0,9}", bytes(), 0..4);
        (bytes(), bytes(), headers, prop_oneof![Just(-1), 0_i64..4_000_000_000_000]).prop_map(
            |(key, value, pairs, timestamp_ms)| {
                let mut headers = HeaderList::default();
                pairs.iter().for_each(|(key, value)| headers.push(key.as_bytes(), value.as_deref()));
                Outgoing { partition: None, key, value, headers, timestamp_ms }
            },
        )
    }

    proptest! {
        /// Held against the crate kafka-protocol; the contract holds it against brokers.
        #[test]
        fn what_is_written_is_read(records in prop::collection::vec(outgoing(), 1..30)) {
            let encoded = encode(&records.iter().collect::<Vec<_>>());
            let mut bytes = Bytes::from(encoded.clone());
            let Ok(Next::Batch(batch)) = batch::take(&mut bytes) else { panic!("no batch") };
            prop_assert!(bytes.is_empty());
            batch.check_crc().unwrap();
            prop_assert_eq!((batch.base_offset, batch.last_offset), (0, records.len() as i64 - 1));
            let mut bytes = Bytes::from(encoded);
            let theirs = kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes).unwrap();
            prop_assert_eq!(theirs.records.len(), records.len());
            for (offset, (mine, theirs)) in (0..).zip(records.iter().zip(&theirs.records)) {
                prop_assert_eq!(theirs.offset, offset);
                prop_assert_eq!(theirs.timestamp, mine.timestamp_ms);
                prop_assert_eq!(theirs.key.as_deref(), mine.key.as_deref());
                prop_assert_eq!(theirs.value.as_deref(), mine.value.as_deref());
                let headers: Vec<_> =
                    theirs.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref())).collect();
                prop_assert_eq!(headers, mine.headers.as_headers().iter().collect::<Vec<_>>());
            }
        }
    }
}
