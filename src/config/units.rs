//! Sizes (`128MiB`) and times (`1h30m`) as people write them.
//!
//! Owns: both notations. Does not own: which values a key allows.

use std::time::Duration;

/// Units of a size, largest first; the decimal ones come after the binary ones so that writing prefers these.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Units of a time in milliseconds, largest first.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a size in bytes: a whole number, with or without a unit (`B KB MB GB TB` are powers of 1000, `KiB MiB GiB TiB` of
/// 1024; case and a space before the unit make no difference).
///
/// # Errors
/// In words, without the text itself.
pub fn parse_bytes(text: &str) -> Result<u64, &'static str> {
    const WANTED: &str = "is not a size: write a whole number with a unit, for example 128MiB or 20GiB";
    let (number, unit) = split(text.trim()).ok_or(WANTED)?;
    let unit = unit.trim();
    let factor = match unit {
        "" => 1,
        _ => SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(WANTED)?.1,
    };
    number.ok_or("is too large")?.checked_mul(factor).ok_or("is too large")
}

/// Reads a time: whole numbers with units `d h m s ms`, largest first, each at most once (`1h30m`).
///
/// # Errors
/// In words, without the text itself.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const WANTED: &str = "is not a time: write whole numbers with units, for example 30s, 10m or 1h30m";
    let mut rest = text.trim();
    let mut smaller = TIMES.as_slice();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(WANTED);
    }
    while !rest.is_empty() {
        let (number, after) = split(rest).ok_or(WANTED)?;
        let unit_len = after.find(|char: char| !char.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, tail) = after.split_at(unit_len);
        let place = smaller.iter().position(|(name, _)| *name == unit).ok_or(match unit {
            "" => "needs a unit: write for example 30s, 10m or 1h30m",
            _ => WANTED,
        })?;
        let (_, factor) = smaller.get(place).ok_or(WANTED)?;
        total_ms = number
            .and_then(|number| number.checked_mul(*factor))
            .and_then(|ms| ms.checked_add(total_ms))
            .ok_or("is too large")?;
        smaller = smaller.get(place + 1..).unwrap_or_default();
        rest = tail;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Splits leading digits off; the number is `None` where it exceeds 64 bits, the whole where there are no digits.
fn split(text: &str) -> Option<(Option<u64>, &str)> {
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    (!number.is_empty()).then(|| (number.parse().ok(), rest))
}

/// Writes a size with the largest unit that divides it: `128MiB`.
pub fn show_bytes(bytes: u64) -> String {
    let unit = SIZES.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// Writes a time: `1h30m`. Parts of a millisecond are left out.
pub fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, factor) in TIMES {
        if left >= factor {
            text.push_str(&format!("{}{name}", left / factor));
            left %= factor;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("128MiB", 128 << 20),
            ("20GiB", 20 << 30),
            ("1MB", 1_000_000),
            ("1 mb", 1_000_000),
            ("64kib", 65_536),
            ("7B", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "12M", "1 2MiB", "0x10", "128MiBs", "१२MiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(parse_bytes("99999999999999999999"), Err("is too large"));
        assert_eq!(parse_bytes("99999999TiB"), Err("is too large"));
    }

    #[test]
    fn reads_times() {
        for (text, ms) in [
            ("10m", 600_000),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1d", 86_400_000),
            ("1m5ms", 60_005),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "m", "-10m", "1.5h", "30m1h", "1h1h", "10 m", "10min", "1h30"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("99999999999999999999d"), Err("is too large"));
        assert_eq!(parse_duration("9999999999999999999d"), Err("is too large"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes: u64, ms: u64) {
            prop_assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
            prop_assert_eq!(parse_duration(&show_duration(Duration::from_millis(ms))), Ok(Duration::from_millis(ms)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", digits in "[0-9]{0,25}[a-zA-Z ]{0,4}[0-9]{0,25}[a-zA-Z]{0,4}") {
            let _ = (parse_bytes(&text), parse_duration(&text), parse_bytes(&digits), parse_duration(&digits));
        }
    }
}
