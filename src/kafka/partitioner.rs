//! Which partition a record goes to when nobody says.
//!
//! Owns: the choice by key, as Kafka's Java producer makes it, and in turn without one. Does not own: how many there are.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::pipeline::produce::Outgoing;

/// Chooses partitions.
#[derive(Debug, Default)]
pub struct Partitioner {
    turn: AtomicU32,
}

impl Partitioner {
    /// Among `partitions`, which ascend from 0; `None` where the one asked for is not there.
    pub fn partition(&self, record: &Outgoing, partitions: &[i32]) -> Option<i32> {
        if let Some(wanted) = record.partition {
            return partitions.contains(&wanted).then_some(wanted);
        }
        let count = u32::try_from(partitions.len()).ok().filter(|count| *count > 0)?;
        let number = match &record.key {
            Some(key) => murmur2(key) & 0x7fff_ffff,
            None => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        partitions.get((number % count) as usize).copied()
    }
}

/// MurmurHash2 with the seed of Kafka's Java clients (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let word = word.first_chunk().map_or(0, |word| u32::from_le_bytes(*word)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (word ^ (word >> 24)).wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ word).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Kafka's own test, `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_are_those_of_the_java_client() {
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (data, hash) in known {
            assert_eq!(murmur2(data).cast_signed(), hash, "{}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn a_key_always_gives_the_same_partition_and_none_goes_round() {
        let partitioner = Partitioner::default();
        let keyed = Outgoing { key: Some(b"foobar".to_vec()), ..Outgoing::default() };
        let expected = (murmur2(b"foobar") & 0x7fff_ffff) % 3;
        for _ in 0..3 {
            assert_eq!(partitioner.partition(&keyed, &[0, 1, 2]), Some(expected.cast_signed()));
        }
        let keyless = Outgoing::default();
        let turns: Vec<_> = (0..4).map(|_| partitioner.partition(&keyless, &[0, 1, 2])).collect();
        assert_eq!(turns, [Some(0), Some(1), Some(2), Some(0)]);
        let wanted = Outgoing { partition: Some(2), ..Outgoing::default() };
        assert_eq!(
            (partitioner.partition(&wanted, &[0, 1, 2]), partitioner.partition(&wanted, &[0, 1])),
            (Some(2), None)
        );
        assert_eq!(partitioner.partition(&keyless, &[]), None);
    }
}
