//! When a record happened, and which bucket that is.
//!
//! Owns: event time from the record or a JSON field, the fallback for absurd times, the start of a bucket in its zone.
//! Does not own: ages and rotation (wall clock, [`super::rotation`]).

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, ZonedDateTime};
use sonic_rs::{JsonType, JsonValueTrait};

use super::split::{json_at, pointer_tokens};
use crate::config::{Bucket, TimeFormat, TimeFrom, TimeRule};
use crate::record::Record;

/// Times outside 1970 to 2200 are taken for damage: they would scatter files over centuries.
const SANE_MS: std::ops::Range<i64> = 0..7_258_118_400_000;

/// Event times and buckets of one connector.
#[derive(Debug)]
pub struct EventTimes {
    field: Option<(Vec<String>, TimeFormat)>,
    zone: TimeZone,
    bucket: Bucket,
    /// The bucket found last, seconds: records come nearly in time order, and zone arithmetic is slow.
    last: Option<std::ops::Range<i64>>,
    fallbacks: u64,
}

impl EventTimes {
    pub fn new(rule: &TimeRule) -> Self {
        let field = match &rule.from {
            TimeFrom::Record => None,
            TimeFrom::Json { pointer, format } => Some((pointer_tokens(pointer), format.clone())),
        };
        Self { field, zone: rule.zone.clone(), bucket: rule.bucket, last: None, fallbacks: 0 }
    }

    pub fn take_fallbacks(&mut self) -> u64 {
        std::mem::take(&mut self.fallbacks)
    }

    /// Milliseconds since the Unix epoch, within 1970 to 2200 whatever the record says.
    pub fn time_ms(&mut self, record: &Record<'_>) -> i64 {
        if let Some((tokens, format)) = &self.field {
            match field_ms(record, tokens, format, &self.zone) {
                Some(time_ms) if SANE_MS.contains(&time_ms) => return time_ms,
                _ => self.fallbacks += 1,
            }
        }
        if SANE_MS.contains(&record.timestamp_ms) {
            return record.timestamp_ms;
        }
        self.fallbacks += 1;
        0
    }

    /// Start of the bucket of a sane time, seconds since the Unix epoch; `None` without buckets.
    pub fn bucket_start_secs(&mut self, time_ms: i64) -> Option<i64> {
        if self.bucket == Bucket::None {
            return None;
        }
        let secs = time_ms.div_euclid(1000);
        if let Some(last) = &self.last
            && last.contains(&secs)
        {
            return Some(last.start);
        }
        // A zone that jiff can't compute with at this time falls back to the bucket in UTC; sane times never do.
        let range = bucket_range(secs, self.bucket, &self.zone).unwrap_or_else(|| utc_range(secs, self.bucket));
        self.last = Some(range.clone());
        Some(range.start)
    }
}

/// End of the bucket that begins at `start_secs`, seconds since the Unix epoch.
pub fn bucket_end_secs(start_secs: i64, bucket: Bucket, zone: &TimeZone) -> i64 {
    bucket_range(start_secs, bucket, zone).unwrap_or_else(|| utc_range(start_secs, bucket)).end
}

fn bucket_range(secs: i64, bucket: Bucket, zone: &TimeZone) -> Option<std::ops::Range<i64>> {
    let at = Timestamp::from_second(secs).ok()?.to_zoned_datetime(zone.clone());
    let (start, end): (ZonedDateTime, ZonedDateTime) = match bucket {
        Bucket::None => return None,
        Bucket::Day => {
            let start = at.start_of_day().ok()?;
            let end = start.checked_add(1.day()).ok()?.start_of_day().ok()?;
            (start, end)
        }
        Bucket::Hour => {
            let start = at.with().minute(0).second(0).subsec_nanosecond(0).build().ok()?;
            let end = start.checked_add(1.hour()).ok()?;
            (start, end)
        }
    };
    let range = start.timestamp().as_second()..end.timestamp().as_second();
    range.contains(&secs).then_some(range)
}

fn utc_range(secs: i64, bucket: Bucket) -> std::ops::Range<i64> {
    let len = if bucket == Bucket::Hour { 3600 } else { 86_400 };
    let start = secs.div_euclid(len) * len;
    start..start + len
}

fn field_ms(record: &Record<'_>, tokens: &[String], format: &TimeFormat, zone: &TimeZone) -> Option<i64> {
    let value = json_at(record.value?, tokens).ok()??;
    let text = match value.get_type() {
        JsonType::String => sonic_rs::from_str::<String>(value.as_raw_str()).ok()?,
        JsonType::Number => value.as_raw_str().to_owned(),
        _ => return None,
    };
    match format {
        TimeFormat::Rfc3339 => text.parse::<Timestamp>().ok().map(|time| time.as_millisecond()),
        TimeFormat::UnixMillis => number(&text, 1.0),
        TimeFormat::UnixSeconds => number(&text, 1000.0),
        TimeFormat::Pattern(pattern) => {
            let parsed = jiff::fmt::strtime::parse(pattern, &text).ok()?;
            if let Ok(time) = parsed.to_timestamp() {
                return Some(time.as_millisecond());
            }
            let local = parsed.to_datetime().ok()?;
            zone.to_ambiguous_zoned_datetime(local).compatible().ok().map(|zoned| zoned.timestamp().as_millisecond())
        }
    }
}

/// Whole numbers exactly, fractions to the millisecond.
fn number(text: &str, factor: f64) -> Option<i64> {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.checked_mul(factor as i64);
    }
    let scaled = text.parse::<f64>().ok()? * factor;
    (scaled.is_finite() && scaled.abs() < 9e15).then_some(scaled as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Headers;

    fn record(value: &[u8], timestamp_ms: i64) -> Record<'_> {
        Record { partition: 0, offset: 0, timestamp_ms, key: None, value: Some(value), headers: Headers::default() }
    }

    fn times(from: TimeFrom, zone: &str, bucket: Bucket) -> EventTimes {
        EventTimes::new(&TimeRule { from, zone: TimeZone::get(zone).unwrap(), bucket })
    }

    #[test]
    fn buckets_begin_at_the_zones_midnight_and_hour() {
        let mut utc = times(TimeFrom::Record, "UTC", Bucket::Day);
        // 2026-11-22T03:12:05Z
        assert_eq!(utc.bucket_start_secs(1_795_317_125_000), Some(1_795_305_600));
        let mut shanghai = times(TimeFrom::Record, "Asia/Shanghai", Bucket::Day);
        assert_eq!(shanghai.bucket_start_secs(1_795_317_125_000), Some(1_795_305_600 - 8 * 3600));
        assert_eq!(bucket_end_secs(1_795_305_600, Bucket::Day, &TimeZone::UTC), 1_795_392_000);
        let mut hours = times(TimeFrom::Record, "Asia/Kolkata", Bucket::Hour);
        // 08:42:05 local, the hour began at 08:00 local, which is 02:30Z.
        assert_eq!(hours.bucket_start_secs(1_795_317_125_000), Some(1_795_314_600));
        assert_eq!(times(TimeFrom::Record, "UTC", Bucket::None).bucket_start_secs(0), None);
    }

    #[test]
    fn a_cached_bucket_answers_like_a_fresh_one_across_a_clock_change() {
        // Europe/Berlin leaves summer time on 2026-10-25 at 01:00Z: a day of 25 hours, and 02:xx local twice.
        let start = 1_792_875_600;
        let mut cached = times(TimeFrom::Record, "Europe/Berlin", Bucket::Hour);
        let mut days = times(TimeFrom::Record, "Europe/Berlin", Bucket::Day);
        for step in 0..200 {
            let ms = (start + step * 900) * 1000;
            let fresh = times(TimeFrom::Record, "Europe/Berlin", Bucket::Hour).bucket_start_secs(ms);
            assert_eq!(cached.bucket_start_secs(ms), fresh);
            let fresh = times(TimeFrom::Record, "Europe/Berlin", Bucket::Day).bucket_start_secs(ms);
            assert_eq!(days.bucket_start_secs(ms), fresh);
        }
    }

    #[test]
    fn absurd_times_fall_back_to_kafkas_and_are_counted() {
        let from = TimeFrom::Json { pointer: "/t".to_owned(), format: TimeFormat::Rfc3339 };
        let mut times = times(from, "UTC", Bucket::None);
        assert_eq!(times.time_ms(&record(br#"{"t":"2026-11-22T03:12:05.5Z"}"#, 7)), 1_795_317_125_500);
        assert_eq!(times.take_fallbacks(), 0);
        for value in
            [r#"{"t":"0001-01-01T00:00:00Z"}"#, r#"{"t":"9999-01-01T00:00:00Z"}"#, r#"{"t":"soon"}"#, "x", "{}"]
        {
            assert_eq!(times.time_ms(&record(value.as_bytes(), 7)), 7, "{value}");
        }
        assert_eq!(times.take_fallbacks(), 5);
        assert_eq!(times.time_ms(&record(b"{}", -1)), 0);
    }

    #[test]
    fn numbers_and_patterns() {
        let at = |format, value: &str, zone: &str| {
            times(TimeFrom::Json { pointer: "/t".to_owned(), format }, zone, Bucket::None)
                .time_ms(&record(value.as_bytes(), 7))
        };
        assert_eq!(at(TimeFormat::UnixMillis, r#"{"t":1795317125500}"#, "UTC"), 1_795_317_125_500);
        assert_eq!(at(TimeFormat::UnixSeconds, r#"{"t":"1795317125.5"}"#, "UTC"), 1_795_317_125_500);
        let pattern = TimeFormat::Pattern("%Y-%m-%d %H:%M:%S".to_owned());
        assert_eq!(at(pattern, r#"{"t":"2026-11-22 11:12:05"}"#, "Asia/Shanghai"), 1_795_317_125_000);
    }
}
