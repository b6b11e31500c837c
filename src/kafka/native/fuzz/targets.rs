//! What reads bytes from outside, each as a target with its limits.
//!
//! Owns: what must hold for any input. Does not own: the inputs.

use bytes::Bytes;
use kafka_protocol::messages::SaslAuthenticateResponse;
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::Target;
use super::allocations::peak;
use super::corpus;
use crate::kafka::native::batch::{self, HEADER_BYTES, Next};
use crate::kafka::native::codecs::{BATCH_MAX_BYTES, Codecs};
use crate::kafka::native::connection::read_frame;
use crate::kafka::native::decode::{Decoder, Fetched};
use crate::kafka::native::messages::Request;
use crate::kafka::native::messages::api_versions::ApiVersions;
use crate::kafka::native::messages::describe_configs::DescribeConfigs;
use crate::kafka::native::messages::fetch::Fetch;
use crate::kafka::native::messages::group::{FindCoordinator, OffsetCommit};
use crate::kafka::native::messages::list_offsets::ListOffsets;
use crate::kafka::native::messages::metadata::Metadata;
use crate::kafka::native::messages::offset_for_leader_epoch::OffsetForLeaderEpoch;
use crate::kafka::native::messages::sasl::{SaslAuthenticate, SaslHandshake};
use crate::kafka::native::output::Pool;
use crate::kafka::native::partition::walk;

/// What one payload may decompress to here.
const LIMIT: usize = 1024 * 1024;

/// Bytes that take their place whatever the input says: first steps of buffers, states of codecs.
const FIRST_BYTES: usize = 512 * 1024;

/// Spans, growing by doubling, for each byte of records.
const SPANS: usize = 40;

/// Of an answer's bytes, the memory that its parts may take: the greatest of them is 64 bytes for a topic of 3.
const PARTS: usize = 32;

pub(super) fn batches() -> Target {
    Target {
        name: "batches",
        seeds: corpus::records().into_iter().map(Vec::from).collect(),
        run: Box::new(decode),
        mend: mend_batches,
    }
}

fn decode(input: &[u8]) {
    let (decompressed, batches) = size(input);
    let fetched = Fetched {
        partition: 0,
        position: 3,
        aborted: vec![(-1, 0), (0, 5), (1000, 7)],
        end_offset: 100,
        log_start_offset: 0,
        records: Bytes::copy_from_slice(input),
    };
    let walked = walk(3, &fetched.records);
    assert!(walked.next_offset >= 3);
    let (mut codecs, pool) = (Codecs::default(), Pool::default());
    let ((), bytes) = peak(|| {
        let (mut position, mut blocks) = (fetched.position, 0);
        for block in Decoder::new(fetched, &mut codecs, &pool) {
            let Ok(block) = block else { return };
            blocks += 1;
            assert!(blocks <= batches + 1, "{blocks} blocks of {batches} batches");
            assert!(block.next_offset >= position);
            let mut before = position - 1;
            for record in block.records() {
                assert!(record.offset > before && record.offset < block.next_offset);
                assert_eq!(record.headers.iter().count(), record.headers.len());
                before = record.offset;
            }
            position = block.next_offset;
        }
    });
    let most = 8 * FIRST_BYTES + SPANS * (input.len() + decompressed);
    assert!(bytes <= most, "{bytes} bytes for {} and {decompressed} decompressed", input.len());
}

/// Bytes that the batches hold decompressed, and how many batches there are.
fn size(input: &[u8]) -> (usize, usize) {
    let (mut codecs, pool) = (Codecs::default(), Pool::default());
    let (mut rest, mut bytes, mut batches) = (Bytes::copy_from_slice(input), 0, 0);
    while let Ok(Next::Batch(batch)) = batch::take(&mut rest) {
        let mut out = pool.output();
        let _ = codecs.decompress(batch.codec(), &batch.payload(), &mut out, BATCH_MAX_BYTES);
        bytes += out.len();
        batches += 1;
    }
    (bytes, batches)
}

/// Makes lengths and checksums right, so that what is inside counts.
fn mend_batches(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(length) = bytes.get(at + 8..at + 12).and_then(|length| length.first_chunk::<4>()) {
        let left = bytes.len() - at;
        let size = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX).saturating_add(12);
        let size = if (HEADER_BYTES..=left).contains(&size) { size } else { left };
        if size < HEADER_BYTES {
            return;
        }
        bytes[at + 8..at + 12].copy_from_slice(&(size as i32 - 12).to_be_bytes());
        bytes[at + 16] = 2;
        let crc = crc32c::crc32c(&bytes[at + 21..at + size]);
        bytes[at + 17..at + 21].copy_from_slice(&crc.to_be_bytes());
        at += size;
    }
}

pub(super) fn codecs() -> Vec<Target> {
    let names = [(1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd")];
    let target = |(codec, name): (u8, &'static str)| Target {
        name,
        seeds: corpus::batches()
            .iter()
            .filter(|batch| batch.codec() == codec)
            .map(|batch| batch.payload().into())
            .collect(),
        run: Box::new(move |input| decompress(codec, input)),
        mend: |_| {},
    };
    names.into_iter().map(target).collect()
}

fn decompress(codec: u8, input: &[u8]) {
    let ((), bytes) = peak(|| {
        let mut out = Pool::default().output();
        out.extend(b"before");
        let result = Codecs::default().decompress(codec, input, &mut out, LIMIT);
        assert!(out.as_slice().starts_with(b"before"));
        if let Some(Ok(())) = result {
            assert!(out.len() <= LIMIT + 6, "{} bytes", out.len());
        }
    });
    assert!(bytes <= 3 * LIMIT + FIRST_BYTES, "{bytes} bytes for {}", input.len());
}

pub(super) fn answers() -> Vec<Target> {
    vec![
        answer::<ApiVersions>(),
        answer::<DescribeConfigs>(),
        answer::<Fetch>(),
        answer::<FindCoordinator>(),
        answer::<ListOffsets>(),
        answer::<Metadata>(),
        answer::<OffsetCommit>(),
        answer::<OffsetForLeaderEpoch>(),
        answer::<SaslHandshake>(),
        sasl_authenticate(),
    ]
}

/// An input is the version, then the answer with its header.
fn answer<R: Request + 'static>() -> Target {
    let seeds = corpus::answers(R::API.name).into_iter();
    Target {
        name: R::API.name,
        seeds: seeds.map(|(version, bytes)| [vec![version as u8], bytes].concat()).collect(),
        run: Box::new(read::<R>),
        mend: |_| {},
    }
}

/// No broker without SASL answers this one.
fn sasl_authenticate() -> Target {
    let challenge = "r=abcdefgh,s=c2FsdHNhbHQ=,i=4096";
    let seed = |version: i16| {
        let answer = SaslAuthenticateResponse::default()
            .with_error_message(Some(StrBytes::from_static_str("no")))
            .with_auth_bytes(Bytes::from_static(challenge.as_bytes()))
            .with_session_lifetime_ms(if version >= 1 { 1000 } else { 0 });
        let header: &[u8] = if version >= SaslAuthenticate::API.flexible { &[0; 5] } else { &[0; 4] };
        let mut bytes = bytes::BytesMut::from(&[&[version as u8], header].concat()[..]);
        answer.encode(&mut bytes, version).unwrap();
        Vec::from(bytes)
    };
    Target { seeds: (0..=2).map(seed).collect(), ..answer::<SaslAuthenticate>() }
}

fn read<R: Request>(input: &[u8]) {
    let Some((&version, frame)) = input.split_first() else { return };
    let (lowest, highest) = R::API.versions;
    let version = lowest + (i16::from(version) - lowest).rem_euclid(highest - lowest + 1);
    let frame = Bytes::copy_from_slice(frame);
    let length = frame.len();
    let (_, bytes) = peak(|| read_frame::<R>(frame, version));
    assert!(bytes <= PARTS * length + 1024, "{bytes} bytes for an answer of {length}");
}
