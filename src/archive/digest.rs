//! Hashes that prove what an object holds.
//!
//! Owns: the digest of an intent's records, the hash of an offset that verify adds up. Both are part of the file format:
//! docs/file-format.md has test vectors.
//! Does not own: where they are kept.
//!
//! Neither is cryptographic: they guard against accidents and bugs, not against whoever can write to the bucket.

use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::{XxHash3_64, XxHash3_128, xxhash3_128};

use crate::record::Record;

/// Odd, with no pattern: the 128-bit golden ratio.
const STEP: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
/// Stand for a field that is null; the hash of any bytes is something else but by chance.
const NULL: u128 = 0x6E75_6C6C_6E75_6C6C_6E75_6C6C_6E75_6C6C;

/// Seed of values' hashes.
const VALUE_SEED: u64 = 2;
/// What that seed makes of the library's secret: for longer values it would be made anew for each.
static VALUE_SECRET: LazyLock<Box<[u8]>> = LazyLock::new(|| xxhash3_128::Hasher::with_seed(VALUE_SEED).into_secret());

fn value_hash(value: &[u8]) -> u128 {
    // The secret is the library's own, so that it is never too short.
    XxHash3_128::oneshot_with_seed_and_secret(VALUE_SEED, &VALUE_SECRET, value)
        .unwrap_or_else(|_| XxHash3_128::oneshot_with_seed(VALUE_SEED, value))
}

/// A chain over raw record fields in offset order: 16 bytes of state, no allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentDigest(u128);

impl ContentDigest {
    pub fn push(&mut self, record: &Record<'_>) {
        let mut fields = [0; 64];
        fields[..8].copy_from_slice(&record.offset.to_le_bytes());
        fields[8..16].copy_from_slice(&record.timestamp_ms.to_le_bytes());
        let key = record.key.map_or(NULL, |key| XxHash3_128::oneshot_with_seed(1, key));
        fields[16..32].copy_from_slice(&key.to_le_bytes());
        let value = record.value.map_or(NULL, value_hash);
        fields[32..48].copy_from_slice(&value.to_le_bytes());
        if !record.headers.is_empty() {
            let headers = XxHash3_128::oneshot_with_seed(record.headers.len() as u64, record.headers.as_bytes());
            fields[48..].copy_from_slice(&headers.to_le_bytes());
        }
        self.0 = self.0.wrapping_mul(STEP).wrapping_add(XxHash3_128::oneshot(&fields));
    }

    pub fn number(&self) -> u128 {
        self.0
    }
}

impl std::fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for ContentDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let parsed = (text.len() == 32).then(|| u128::from_str_radix(&text, 16).ok()).flatten();
        parsed.map(Self).ok_or_else(|| serde::de::Error::custom("a digest is 32 hex digits"))
    }
}

/// Seed of the offset hashes of a topic.
pub fn topic_seed(topic: &str) -> u64 {
    XxHash3_64::oneshot(topic.as_bytes())
}

/// Hash of (topic, partition, offset). The 128-bit wrapping sum over a set of offsets identifies the set.
pub fn offset_hash(topic_seed: u64, partition: i32, offset: i64) -> u128 {
    let place = topic_seed ^ u64::from(partition.cast_unsigned()).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let low = mix(mix(place).wrapping_add(offset.cast_unsigned()));
    let high = mix(mix(place ^ 0xA5A5_A5A5_A5A5_A5A5).wrapping_add(offset.cast_unsigned().rotate_left(32)));
    u128::from(high) << 64 | u128::from(low)
}

/// The sum of the hashes of all offsets from `first` to before `end`: what [`offset_hash`] gives, without doing for each what is
/// the same for all.
pub fn offset_sum(topic_seed: u64, partition: i32, first: i64, end: i64) -> u128 {
    let place = topic_seed ^ u64::from(partition.cast_unsigned()).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let (low_base, high_base) = (mix(place), mix(place ^ 0xA5A5_A5A5_A5A5_A5A5));
    // The halves apart: what the low ones carry over is added once.
    let (mut low, mut high) = (0u128, 0u64);
    for offset in first..end {
        let offset = offset.cast_unsigned();
        low += u128::from(mix(low_base.wrapping_add(offset)));
        high = high.wrapping_add(mix(high_base.wrapping_add(offset.rotate_left(32))));
    }
    (u128::from(high) << 64).wrapping_add(low)
}

/// The finalizer of splitmix64: a bijection in which every input bit moves every output bit.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Headers, write_header};

    fn digest(records: &[Record<'_>]) -> String {
        let mut digest = ContentDigest::default();
        for record in records {
            digest.push(record);
        }
        digest.to_string()
    }

    #[test]
    fn every_field_and_the_order_count() {
        let mut headers = Vec::new();
        write_header(&mut headers, b"h", None);
        let base = Record {
            partition: 3,
            offset: 42,
            timestamp_ms: 1_795_317_125_000,
            key: Some(b"k"),
            value: Some(b"v"),
            headers: Headers::default(),
        };
        let other = [
            Record { offset: 43, ..base },
            Record { timestamp_ms: 0, ..base },
            Record { key: None, ..base },
            Record { key: Some(b""), ..base },
            Record { value: None, ..base },
            Record { value: Some(b""), ..base },
            Record { headers: Headers::new(1, &headers), ..base },
        ];
        let mut seen: Vec<String> = other.iter().map(|record| digest(&[*record])).collect();
        seen.extend([digest(&[base]), digest(&[base, other[0]]), digest(&[other[0], base]), digest(&[])]);
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn a_value_is_hashed_as_its_seed_says() {
        let bytes: Vec<u8> = (0..5_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        for len in (0..600).chain([1_023, 1_024, 1_025, 5_000]) {
            let value = &bytes[..len];
            assert_eq!(value_hash(value), XxHash3_128::oneshot_with_seed(2, value), "{len}");
        }
    }

    /// The format's test vectors: these values are in objects that people have.
    #[test]
    fn test_vectors() {
        let record = Record {
            partition: 0,
            offset: 7,
            timestamp_ms: 1000,
            key: None,
            value: Some(b"hello"),
            headers: Headers::default(),
        };
        assert_eq!(digest(&[record]), DIGEST_VECTOR);
        assert_eq!(format!("{:016x}", topic_seed("applogs")), SEED_VECTOR);
        assert_eq!(format!("{:032x}", offset_hash(topic_seed("applogs"), 3, 1042)), OFFSET_VECTOR);
    }
    const DIGEST_VECTOR: &str = "7fbd28854a0f4da694b406287d67ac80";
    const SEED_VECTOR: &str = "779cf8c44e62b909";
    const OFFSET_VECTOR: &str = "c11b38a50472bb7381ee5c7f0caa2e50";

    #[test]
    fn a_sum_is_that_of_the_single_hashes() {
        for (partition, first, end) in [(0, 0, 0), (0, 5, 3), (3, 1042, 1043), (7, 0xFFFF_FF00, 0x1_0000_0A00)] {
            let singly = (first..end).fold(0u128, |sum, o| sum.wrapping_add(offset_hash(SEED, partition, o)));
            assert_eq!(offset_sum(SEED, partition, first, end), singly, "{partition} {first} {end}");
        }
    }
    const SEED: u64 = 0x779c_f8c4_4e62_b909;

    #[test]
    fn neighbouring_offsets_do_not_collide_in_small_sums() {
        let mut sums = std::collections::HashSet::new();
        for partition in 0..8 {
            for offset in 0..200 {
                let hash = offset_hash(1, partition, offset);
                assert!(sums.insert(hash));
                assert!(sums.insert(hash.wrapping_add(offset_hash(1, partition, offset + 1))));
            }
        }
    }
}
