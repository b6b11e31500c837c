#![allow(clippy::panic, reason = "a failed expectation ends the test")]

use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::kafka::native::output::Pool;

const GZIP: u8 = 1;
const SNAPPY: u8 = 2;
const LZ4: u8 = 3;
const ZSTD: u8 = 4;
const LIMIT: usize = 1 << 22;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn snappy_raw(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

fn snappy_xerial(bytes: &[u8], block: usize) -> Vec<u8> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend([0, 0, 0, 1, 0, 0, 0, 1]);
    for block in bytes.chunks(block) {
        let block = snappy_raw(block);
        out.extend((block.len() as u32).to_be_bytes());
        out.extend(block);
    }
    out
}

fn lz4(bytes: &[u8], mode: lz4_flex::frame::BlockMode, size: lz4_flex::frame::BlockSize, sums: bool) -> Vec<u8> {
    let info = lz4_flex::frame::FrameInfo::new()
        .block_mode(mode)
        .block_size(size)
        .block_checksums(sums)
        .content_checksum(sums)
        .content_size(sums.then_some(bytes.len() as u64));
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8], known_size: bool) -> Vec<u8> {
    if known_size {
        return zstd::bulk::compress(bytes, 1).unwrap();
    }
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn encodings(bytes: &[u8]) -> Vec<(&'static str, u8, Vec<u8>)> {
    use lz4_flex::frame::{BlockMode, BlockSize};
    vec![
        ("none", 0, bytes.to_vec()),
        ("gzip", GZIP, gzip(bytes)),
        ("gzip members", GZIP, [gzip(&bytes[..bytes.len() / 2]), gzip(&bytes[bytes.len() / 2..])].concat()),
        ("snappy raw", SNAPPY, snappy_raw(bytes)),
        ("snappy xerial", SNAPPY, snappy_xerial(bytes, 32 * 1024)),
        ("lz4 independent", LZ4, lz4(bytes, BlockMode::Independent, BlockSize::Max64KB, false)),
        ("lz4 linked", LZ4, lz4(bytes, BlockMode::Linked, BlockSize::Max64KB, true)),
        ("lz4 large", LZ4, lz4(bytes, BlockMode::Independent, BlockSize::Max4MB, true)),
        ("zstd", ZSTD, zstd(bytes, true)),
        ("zstd stream", ZSTD, zstd(bytes, false)),
        ("zstd frames", ZSTD, [zstd(&bytes[..bytes.len() / 2], false), zstd(&bytes[bytes.len() / 2..], true)].concat()),
    ]
}

fn check(bytes: &[u8]) {
    let mut codecs = Codecs::default();
    for (name, codec, encoded) in encodings(bytes) {
        let mut out = Pool::default().output();
        out.extend(b"before");
        codecs.decompress(codec, &encoded, &mut out, LIMIT).unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(out.as_slice().strip_prefix(b"before").unwrap() == bytes, "{name} of {} bytes", bytes.len());
    }
}

/// Text that repeats itself over distances that cross blocks.
fn text(bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + 64);
    let mut n: u32 = 1;
    while out.len() < bytes {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.extend(format!("{{\"app\":\"a{}\",\"n\":{n}}}\n", n % 7).as_bytes());
    }
    out.truncate(bytes);
    out
}

#[test]
fn every_framing_gives_back_what_went_in() {
    for size in [0, 1, 100, 65_535, 65_536, 65_537, 300_000, 2_000_000] {
        check(&text(size));
        check(&vec![b'x'; size]);
    }
}

#[test]
fn more_than_the_limit_is_an_error_and_not_memory() {
    let bomb = vec![0; 1 << 20];
    let mut codecs = Codecs::default();
    for (name, codec, encoded) in encodings(&bomb) {
        let mut out = Pool::default().output();
        let result = codecs.decompress(codec, &encoded, &mut out, 100_000).unwrap();
        assert!(result.is_err(), "{name}");
        let room = out.split(0).1.len() + out.len();
        assert!(room < 1 << 19, "{name} took {room} bytes");
        let mut out = Pool::default().output();
        codecs.decompress(codec, &encoded, &mut out, 1 << 20).unwrap().unwrap();
    }
}

/// A block of text in a frame of 4 MiB blocks: room for the text, not for a whole block.
#[test]
fn a_frame_with_large_blocks_takes_no_more_room_than_it_needs() {
    use lz4_flex::frame::{BlockMode, BlockSize};
    let text = text(250_000);
    let encoded = lz4(&text, BlockMode::Independent, BlockSize::Max4MB, false);
    let mut out = Pool::default().output();
    Codecs::default().decompress(LZ4, &encoded, &mut out, LIMIT).unwrap().unwrap();
    assert!(out.as_slice() == text);
    assert!(out.spare() < text.len() * 2, "{} bytes beside {}", out.spare(), text.len());
}

#[test]
fn an_unknown_codec_is_told_apart_from_damage() {
    assert!(Codecs::default().decompress(5, b"", &mut Pool::default().output(), 10).is_none());
}

proptest! {
    #[test]
    fn damage_is_an_error_or_other_bytes_but_never_a_panic(
        size in 0_usize..5_000, cut in 0.0..1.0_f64, flips in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 0..6)
    ) {
        let mut codecs = Codecs::default();
        for (_, codec, mut encoded) in encodings(&text(size)) {
            for (at, byte) in &flips {
                let at = (encoded.len() as f64 * at) as usize;
                if let Some(slot) = encoded.get_mut(at) {
                    *slot = *byte;
                }
            }
            encoded.truncate(encoded.len() - (encoded.len() as f64 * cut * 0.3) as usize);
            let mut out = Pool::default().output();
            let _ = codecs.decompress(codec, &encoded, &mut out, 1 << 20);
            prop_assert!(out.len() <= 1 << 20);
        }
    }

    #[test]
    fn noise_is_never_a_panic(codec in 0_u8..8, noise: Vec<u8>) {
        let mut out = Pool::default().output();
        let _ = Codecs::default().decompress(codec, &noise, &mut out, 1 << 20);
        let framed = [&LZ4_MAGIC[..], &noise].concat();
        let _ = Codecs::default().decompress(LZ4, &framed, &mut out, 1 << 20);
        let framed = [&XERIAL_MAGIC[..], &[0; 8], &noise].concat();
        let _ = Codecs::default().decompress(SNAPPY, &framed, &mut out, 1 << 20);
    }
}
