//! Offsets that no file holds, and why that is no loss.
//!
//! Owns: what is said of them, joining what is said of many. Does not own: which offsets those are, where it is kept until a
//! file takes it along.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::archive::digest::offset_hash;

/// Offsets that were left out, from `first` to `last`: all of them, or where they are scattered among archived ones, as many as
/// `scattered` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub partition: i32,
    pub first: i64,
    pub last: i64,
    pub reason: SkipReason,
    /// Of the topic, as in [`super::FileFacts::incarnation`]; a file may take along what an earlier one left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub incarnation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scattered: Option<Scattered>,
}

/// Which offsets of a range, without naming each: the sum identifies the set as that of a frame does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scattered {
    pub count: u64,
    pub sum: OffsetSum,
}

/// Sum of the hashes of (topic, partition, offset), modulo 2^128; 32 hex digits in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffsetSum(pub u128);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// `on_error: skip`, or dead-lettered to a Kafka topic.
    Rule,
    /// Kafka had no record there: control batches, aborted transactions, compaction.
    Hole,
    /// Kafka had none any more, and somebody accepted it. What of these offsets was archived before is in files all the same.
    Lost,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Skipped {
    /// How many offsets are left out. Of a range that is no range: none.
    pub fn count(&self) -> u64 {
        let all = if self.first <= self.last { self.last.abs_diff(self.first).saturating_add(1) } else { 0 };
        self.scattered.map_or(all, |scattered| scattered.count)
    }

    /// Sum of the hashes of the offsets that are left out. Takes about two nanoseconds for each where they are all.
    pub fn sum(&self, topic_seed: u64) -> u128 {
        match self.scattered {
            Some(Scattered { sum: OffsetSum(sum), .. }) => sum,
            None => (self.first..=self.last)
                .fold(0, |sum: u128, offset| sum.wrapping_add(offset_hash(topic_seed, self.partition, offset))),
        }
    }

    /// Whether both say the same of the same stream of offsets, so that they can be joined.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.partition, self.incarnation, self.reason) == (other.partition, other.incarnation, other.reason)
    }

    /// Takes in what follows at once: nothing is lost by it. `false`: `next` does not follow so.
    pub fn extend(&mut self, next: &Self) -> bool {
        let follows =
            self.scattered.is_none() && next.scattered.is_none() && self.last.checked_add(1) == Some(next.first);
        if follows && self.is_like(next) {
            self.last = next.last;
            return true;
        }
        false
    }

    /// Takes in any other: what stays is the number and the sum.
    pub fn join(&mut self, other: &Self, topic_seed: u64) {
        if self.extend(other) {
            return;
        }
        let count = self.count().saturating_add(other.count());
        let sum = OffsetSum(self.sum(topic_seed).wrapping_add(other.sum(topic_seed)));
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.scattered = Some(Scattered { count, sum });
    }

    /// Whether it can be true.
    pub fn is_sound(&self) -> bool {
        let all = Self { scattered: None, ..*self }.count();
        0 <= self.first && self.first <= self.last && (1..=all).contains(&self.count())
    }
}

impl Serialize for OffsetSum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", self.0))
    }
}

impl<'de> Deserialize<'de> for OffsetSum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let parsed = (text.len() == 32).then(|| u128::from_str_radix(&text, 16).ok()).flatten();
        parsed.map(Self).ok_or_else(|| serde::de::Error::custom("a sum is 32 hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hole(first: i64, last: i64) -> Skipped {
        Skipped { partition: 3, first, last, reason: SkipReason::Hole, incarnation: 0, scattered: None }
    }

    #[test]
    fn neighbours_become_one_range_and_others_a_number_and_a_sum() {
        let mut joined = hole(5, 9);
        joined.join(&hole(10, 10), 7);
        assert_eq!((joined, joined.count()), (hole(5, 10), 6));
        joined.join(&hole(20, 21), 7);
        let hash = |offset| offset_hash(7, 3, offset);
        let sum = [5, 6, 7, 8, 9, 10, 20, 21].into_iter().fold(0, |sum: u128, offset| sum.wrapping_add(hash(offset)));
        assert_eq!((joined.first, joined.last, joined.count(), joined.sum(7)), (5, 21, 8, sum));
        // Whatever order they come in.
        let mut other = hole(20, 21);
        other.join(&hole(5, 10), 7);
        assert_eq!(other, joined);
        joined.join(&hole(22, 22), 7);
        assert_eq!((joined.last, joined.count()), (22, 9));
    }

    #[test]
    fn it_survives_its_text_and_what_can_not_be_is_noticed() {
        let mut scattered = Skipped { incarnation: 2, ..hole(5, 9) };
        assert_eq!(
            serde_json::to_string(&hole(5, 9)).unwrap(),
            r#"{"partition":3,"first":5,"last":9,"reason":"hole"}"#,
            "as earlier versions know it"
        );
        scattered.join(&Skipped { incarnation: 2, ..hole(20, 21) }, 7);
        let text = serde_json::to_string(&scattered).unwrap();
        assert_eq!(serde_json::from_str::<Skipped>(&text).unwrap(), scattered);
        assert!(scattered.is_sound() && hole(0, 0).is_sound());
        assert!(!hole(5, 4).is_sound() && !hole(-1, 4).is_sound());
        let with = |count| Skipped { scattered: Some(Scattered { count, sum: OffsetSum(1) }), ..hole(5, 9) };
        assert!(with(5).is_sound() && !with(6).is_sound() && !with(0).is_sound());
        assert!(hole(i64::MIN, i64::MAX).count() == u64::MAX);
    }
}
