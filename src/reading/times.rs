//! The range of time that is asked for.
//!
//! Owns: the spellings of `--since` and `--until`, which of a zone's days and hours a range touches.
//! Does not own: a record's time ([`crate::pipeline::event_time`]).

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Milliseconds since the Unix epoch: `since <= time < until`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
}

impl Times {
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    pub fn contains(&self, time_ms: i64) -> bool {
        self.since_ms.is_none_or(|since| since <= time_ms) && self.until_ms.is_none_or(|until| time_ms < until)
    }

    /// Whether something from `first` to `last` (both included) lies within.
    pub fn touches(&self, first_ms: i64, last_ms: i64) -> bool {
        self.since_ms.is_none_or(|since| since <= last_ms) && self.until_ms.is_none_or(|until| first_ms < until)
    }

    /// Whether all from `first` to `last` (both included) lies within.
    pub fn covers(&self, first_ms: i64, last_ms: i64) -> bool {
        self.contains(first_ms) && self.contains(last_ms)
    }

    /// The least and the greatest local time that anything within can have. A zone that turns its clocks back shows a local
    /// time twice: the bounds reach over it.
    pub fn local(&self, zone: &TimeZone) -> (Option<DateTime>, Option<DateTime>) {
        let at = |ms: i64| Timestamp::from_millisecond(ms).ok();
        let local = |at: Timestamp| at.to_zoned_datetime(zone.clone()).datetime();
        let since = self.since_ms.and_then(at).map(|since| {
            let later = zone.following(since).next().map(|transition| local(transition.timestamp()));
            later.map_or(local(since), |later| later.min(local(since)))
        });
        let until = self.until_ms.and_then(|until| at(until.saturating_sub(1))).map(|until| {
            let before = zone.preceding(until).next();
            let earlier = before.and_then(|transition| {
                transition.timestamp().checked_sub(SignedDuration::from_millis(1)).ok().map(local)
            });
            earlier.map_or(local(until), |earlier| earlier.max(local(until)))
        });
        (since, until)
    }
}

/// Reads `T`: RFC 3339, a date (its first moment in `zone`) or a duration before now such as `-90m`, `-2h`, `-1d`.
///
/// # Errors
/// In words.
pub fn parse_time(text: &str, now_ms: i64, zone: &TimeZone) -> Result<i64, String> {
    if let Some(back) = text.strip_prefix('-') {
        return back_ms(back).map(|back| now_ms.saturating_sub(back)).ok_or_else(|| wrong(text));
    }
    if let Ok(date) = text.parse::<Date>()
        && text.len() <= "-009999-01-01".len()
        && !text.contains(':')
    {
        let midnight = date.to_datetime(jiff::civil::Time::midnight());
        let start =
            zone.to_ambiguous_zoned_datetime(midnight).compatible().map_err(|why| format!("`{text}`: {why}"))?;
        return Ok(start.timestamp().as_millisecond());
    }
    text.parse::<Timestamp>().map(|time| time.as_millisecond()).map_err(|_| wrong(text))
}

fn back_ms(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at(text.find(|char: char| !char.is_ascii_digit())?);
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(factor)
}

fn wrong(text: &str) -> String {
    format!(
        "`{text}` is no time: write RFC 3339 (2026-11-22T03:00:00Z), a date (2026-11-22) or a time ago (-90m, -2h, -1d)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_317_125_000;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    #[test]
    fn the_spellings() {
        let at = |text| parse_time(text, NOW, &zone("Asia/Shanghai"));
        assert_eq!(at("-90m"), Ok(NOW - 5_400_000));
        assert_eq!(at("-1d"), Ok(NOW - 86_400_000));
        assert_eq!(at("1970-01-02"), Ok(16 * 3_600_000));
        assert_eq!(at("1970-01-01T00:00:01.5Z"), Ok(1500));
        assert_eq!(at("1970-01-01T08:00:01+08:00"), Ok(1000));
        for wrong in ["", "-", "-90", "-m", "-1y", "yesterday", "1970-01-01T00:00:00", "12:00", "-99999999999999999d"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges() {
        let times = Times { since_ms: Some(10), until_ms: Some(20) };
        assert!(times.contains(10) && times.contains(19) && !times.contains(20) && !times.contains(9));
        assert!(times.touches(0, 10) && times.touches(19, 30) && !times.touches(0, 9) && !times.touches(20, 30));
        assert!(times.covers(10, 19) && !times.covers(10, 20) && Times::default().covers(i64::MIN, i64::MAX));
    }

    #[test]
    fn local_bounds_reach_over_clocks_that_are_turned_back() {
        // Berlin, 2026-10-25: at 01:00 UTC it is 03:00 and becomes 02:00.
        let berlin = zone("Europe/Berlin");
        let ms = |text: &str| Some(text.parse::<Timestamp>().unwrap().as_millisecond());
        let (since, until) =
            Times { since_ms: ms("2026-10-25T00:59:00Z"), until_ms: ms("2026-10-25T01:01:00Z") }.local(&berlin);
        assert_eq!(since.unwrap().to_string(), "2026-10-25T02:00:00");
        assert!(until.unwrap().to_string().starts_with("2026-10-25T02:59:59"));
        let (since, until) = Times { since_ms: ms("2026-10-25T12:00:00Z"), until_ms: None }.local(&zone("UTC"));
        assert_eq!((since.unwrap().to_string(), until), ("2026-10-25T12:00:00".to_owned(), None));
    }
}
