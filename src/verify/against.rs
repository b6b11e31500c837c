//! Comparing the archive record by record with what Kafka still has.
//!
//! Owns: the fingerprints of records and of stretches of them, which of them differ. Does not own: reading objects
//! ([`super::deep`]) or Kafka.
//!
//! Both sides are added up by stretches of a million offsets. Where a stretch differs, its records are held one by one.

use std::collections::BTreeMap;

use twox_hash::XxHash3_128;

use super::explain::Witness;
use super::report::Finding;
use super::scope::Scope;
use crate::archive::digest::ContentDigest;
use crate::archive::format::Format;
use crate::kafka::stretch;
use crate::pipeline::source::{At, SourceError};
use crate::record::Record;

/// Offsets of a stretch: what is held one by one takes 48 MiB.
const STRETCH_BITS: u32 = 20;
/// Records that differ and are named, of a stretch.
const MAX_NAMED: usize = 20;

/// A record by what survives in every format, and by all that Kafka has of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Print {
    weak: u128,
    /// 0 where keys and headers did not survive.
    strong: u128,
}

impl Print {
    pub fn of(record: &Record<'_>) -> Self {
        let mut fields = [0; 32];
        fields[..8].copy_from_slice(&record.offset.to_le_bytes());
        fields[8..16].copy_from_slice(&record.timestamp_ms.to_le_bytes());
        let value = record.value.map_or(0, |value| XxHash3_128::oneshot_with_seed(1, value));
        fields[16..].copy_from_slice(&value.to_le_bytes());
        let mut digest = ContentDigest::default();
        digest.push(record);
        Self { weak: XxHash3_128::oneshot(&fields), strong: digest.number() }
    }

    pub fn of_archived(record: &Record<'_>, format: Format) -> Self {
        let print = Self::of(record);
        if format == Format::Raw { Self { strong: 0, ..print } } else { print }
    }

    /// Whether an archived record is the one that Kafka has.
    fn is(&self, kafka: &Self) -> bool {
        self.weak == kafka.weak && (self.strong == 0 || self.strong == kafka.strong)
    }
}

/// Records of a stretch, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stretch {
    records: u64,
    weak: u128,
    strong: u128,
    /// Without keys and headers.
    raw: u64,
}

/// One side of the comparison.
#[derive(Clone, Debug, Default)]
pub struct Side {
    stretches: BTreeMap<(i32, i64), Stretch>,
}

impl Side {
    pub fn add(&mut self, partition: i32, offset: i64, print: Print, raw: bool) {
        let stretch = self.stretches.entry((partition, offset >> STRETCH_BITS)).or_default();
        stretch.records += 1;
        stretch.weak = stretch.weak.wrapping_add(print.weak);
        stretch.strong = stretch.strong.wrapping_add(print.strong);
        stretch.raw += u64::from(raw);
    }

    pub fn merge(&mut self, other: &Self) {
        for (&place, found) in &other.stretches {
            let stretch = self.stretches.entry(place).or_default();
            stretch.records += found.records;
            stretch.weak = stretch.weak.wrapping_add(found.weak);
            stretch.strong = stretch.strong.wrapping_add(found.strong);
            stretch.raw += found.raw;
        }
    }

    pub fn has_raw(&self) -> bool {
        self.stretches.values().any(|stretch| stretch.raw > 0)
    }

    pub fn records(&self) -> u64 {
        self.stretches.values().map(|stretch| stretch.records).sum()
    }

    /// Stretches in which this, the archive, is not what Kafka has: partition, first offset, the one after the last.
    pub fn differs(&self, kafka: &Self) -> Vec<(i32, i64, i64)> {
        let places: std::collections::BTreeSet<_> =
            self.stretches.keys().chain(kafka.stretches.keys()).copied().collect();
        let differs = |place: &(i32, i64)| {
            let get = |side: &Self| side.stretches.get(place).copied().unwrap_or_default();
            let (archive, kafka) = (get(self), get(kafka));
            archive.records != kafka.records
                || archive.weak != kafka.weak
                || (archive.raw == 0 && archive.strong != kafka.strong)
        };
        let range = |(partition, number): (i32, i64)| (partition, number << STRETCH_BITS, (number + 1) << STRETCH_BITS);
        places.into_iter().filter(differs).map(range).collect()
    }
}

/// The records of a stretch, one by one.
#[derive(Debug)]
pub struct Single {
    pub partition: i32,
    pub first: i64,
    prints: Vec<Option<Print>>,
    /// Kafka's records below it are gone.
    from: i64,
    findings: usize,
}

impl Single {
    /// Partition, first offset, the one after the last.
    pub fn range(&self) -> (i32, i64, i64) {
        (self.partition, self.first, self.first.saturating_add_unsigned(self.prints.len() as u64))
    }

    fn index(&self, offset: i64) -> Option<usize> {
        let index = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        (index < self.prints.len()).then_some(index)
    }

    /// Compares an archived record; names it where it is another one than Kafka has.
    pub fn compare(&mut self, topic: &str, key: &str, partition: i32, offset: i64, print: Print) -> Option<Finding> {
        let kafka = *self.prints.get(self.index(offset)?)?;
        if offset < self.from || kafka.is_some_and(|kafka| print.is(&kafka)) || self.findings >= MAX_NAMED {
            return None;
        }
        self.findings += 1;
        let why = match kafka {
            Some(_) => format!("the record in {key} is not the one that Kafka has"),
            None => format!("Kafka has no record there (any more), {key} has one"),
        };
        Some(Finding::Differs { topic: topic.to_owned(), partition, offset, why })
    }
}

/// Reads all that Kafka has of what is to be proven. Answers with the sums, and where Kafka begins.
///
/// # Errors
/// Kafka can't be read.
pub async fn read_kafka(
    witness: &Witness,
    scope: &Scope,
    done: &(dyn Fn(u64) + Sync),
) -> Result<(Side, BTreeMap<i32, i64>), SourceError> {
    let mut side = Side::default();
    let mut begins = BTreeMap::new();
    for (&partition, extent) in &scope.partitions {
        let isolation = witness.connector.isolation;
        let log_start = witness.kafka.offset(&scope.topic, partition, At::Earliest, isolation).await?;
        let first = log_start.max(extent.start.unwrap_or(extent.low));
        begins.insert(partition, first);
        read(witness, scope, (partition, first, extent.low), |record| {
            if scope.counts(extent.incarnation, partition, record.offset) {
                side.add(partition, record.offset, Print::of(record), false);
                done(1);
            }
        })
        .await?;
    }
    Ok((side, begins))
}

/// Reads a stretch of Kafka record by record.
///
/// # Errors
/// Kafka can't be read.
pub async fn read_single(
    witness: &Witness,
    scope: &Scope,
    (partition, first, end): (i32, i64, i64),
    from: i64,
) -> Result<Single, SourceError> {
    let low = scope.partitions.get(&partition).map_or(end, |extent| extent.low);
    let len = usize::try_from(end.abs_diff(first)).unwrap_or_default();
    let mut single = Single { partition, first, prints: vec![None; len], from, findings: 0 };
    read(witness, scope, (partition, first.max(from), end.min(low)), |record| {
        if let Some(place) = single.index(record.offset).and_then(|index| single.prints.get_mut(index)) {
            *place = Some(Print::of(record));
        }
    })
    .await?;
    Ok(single)
}

async fn read(
    witness: &Witness,
    scope: &Scope,
    (partition, first, end): (i32, i64, i64),
    each: impl FnMut(&Record<'_>),
) -> Result<(), SourceError> {
    let stretch = stretch::Stretch {
        topic: &scope.topic,
        topic_id: scope.identity.topic_id.as_ref(),
        isolation: witness.connector.isolation,
        partition,
        first,
        end,
    };
    stretch::read(witness.kafka.as_ref(), stretch, each).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Headers, write_header};

    fn record(offset: i64, key: Option<&'static [u8]>) -> Record<'static> {
        Record { partition: 0, offset, timestamp_ms: 5, key, value: Some(b"v"), headers: Headers::default() }
    }

    #[test]
    fn what_did_not_survive_is_not_compared() {
        let kafka = Print::of(&record(1, Some(b"k")));
        assert!(Print::of_archived(&record(1, None), Format::Raw).is(&kafka));
        assert!(!Print::of_archived(&record(1, None), Format::Json).is(&kafka));
        assert!(Print::of_archived(&record(1, Some(b"k")), Format::Json).is(&kafka));
        let mut headers = Vec::new();
        write_header(&mut headers, b"h", None);
        let other = Record { headers: Headers::new(1, &headers), ..record(1, Some(b"k")) };
        assert!(!Print::of_archived(&other, Format::Json).is(&kafka));
        for other in [Record { value: None, ..record(1, None) }, Record { timestamp_ms: 6, ..record(1, None) }] {
            assert!(!Print::of_archived(&other, Format::Raw).is(&kafka));
        }
        assert!(!Print::of_archived(&record(2, None), Format::Raw).is(&kafka));
    }

    #[test]
    fn a_stretch_that_differs_is_found() {
        let side = |records: &[(i64, Option<&'static [u8]>)], format| {
            let mut side = Side::default();
            for &(offset, key) in records {
                let print = Print::of_archived(&record(offset, key), format);
                side.add(0, offset, print, format == Format::Raw);
            }
            side
        };
        let far = 5 << STRETCH_BITS;
        let kafka = side(&[(1, Some(b"k")), (far, None)], Format::Json);
        assert!(side(&[(1, None), (far, None)], Format::Raw).differs(&kafka).is_empty());
        assert_eq!(side(&[(1, None), (far, None)], Format::Json).differs(&kafka), [(0, 0, 1 << STRETCH_BITS)]);
        assert_eq!(side(&[(1, Some(b"k"))], Format::Json).differs(&kafka), [(0, far, 6 << STRETCH_BITS)]);
    }
}
