//! When a lane's file is finished.
//!
//! Owns: the rules by size, age and bucket. Does not own: clocks, lanes.

use std::time::Duration;

use crate::config::Rotate;

/// After the end of a bucket its files wait this long for stragglers.
const BUCKET_GRACE_MS: i64 = 60_000;

/// Lanes at least this share of the interval old go along when another one is due: the log gets one entry for many lanes, and
/// the number of files grows by no more than the share given up.
const COMPANION_PERCENT: i64 = 95;

/// The time rules of one connector, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    max_bytes: u64,
    interval_ms: i64,
}

impl Rotation {
    pub fn new(rotate: &Rotate) -> Self {
        Self { max_bytes: rotate.max_bytes, interval_ms: millis(rotate.max_interval) }
    }

    pub fn interval_ms(&self) -> i64 {
        self.interval_ms
    }

    /// When a lane opened at `opened_at_ms` is due. The end of its bucket counts only for a lane that was opened before it:
    /// stragglers and replays of old buckets rotate by age like everything else.
    pub fn due_at_ms(&self, opened_at_ms: i64, bucket_end_ms: Option<i64>) -> i64 {
        let by_age = opened_at_ms.saturating_add(self.interval_ms);
        match bucket_end_ms {
            Some(end) if opened_at_ms < end => by_age.min(end.saturating_add(BUCKET_GRACE_MS)),
            _ => by_age,
        }
    }

    /// With one lane due now, others due by this time go along.
    pub fn companions_due_by_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_add(self.interval_ms / 100 * (100 - COMPANION_PERCENT))
    }

    /// Whether the file has reached its size: `stored_bytes` are compressed, `raw_bytes` will shrink by `ratio`
    /// (stored / raw, as measured on the task so far).
    pub fn is_full(&self, stored_bytes: u64, raw_bytes: u64, ratio: f64) -> bool {
        stored_bytes.saturating_add((raw_bytes as f64 * ratio) as u64) >= self.max_bytes
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation() -> Rotation {
        Rotation::new(&Rotate { max_bytes: 1000, max_interval: Duration::from_secs(1800) })
    }

    #[test]
    fn age_or_the_end_of_the_bucket_whichever_comes_first() {
        assert_eq!(rotation().due_at_ms(0, None), 1_800_000);
        assert_eq!(rotation().due_at_ms(0, Some(600_000)), 660_000);
        assert_eq!(rotation().due_at_ms(0, Some(3_600_000)), 1_800_000);
    }

    #[test]
    fn a_straggler_of_an_old_bucket_is_not_due_at_once() {
        assert_eq!(rotation().due_at_ms(700_000, Some(600_000)), 2_500_000);
    }

    #[test]
    fn size_counts_what_is_still_to_be_compressed() {
        assert!(!rotation().is_full(900, 400, 0.2));
        assert!(rotation().is_full(900, 500, 0.2));
    }

    #[test]
    fn companions_give_up_at_most_a_twentieth_of_the_interval() {
        assert_eq!(rotation().companions_due_by_ms(1_000), 91_000);
    }
}
