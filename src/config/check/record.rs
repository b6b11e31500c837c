//! Checks what is taken from each record: its app id and its time.
//!
//! Owns: rules between the keys of `app_id` and of `time`. Does not own: how records are looked into.

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::names::{check_pointer, check_segment};
use super::{MAX_REGEX_BYTES, check, regex_error};
use crate::config::reader::{Checked, Reader};
use crate::config::schema::Named as _;
use crate::config::suggest::nearest;
use crate::config::{AppIdFrom, AppIdKind, AppIdRule, MissingAppId, TimeFormat, TimeFrom, TimeKind, TimeRule};

/// How app ids are found.
pub fn app_id(raw: &mut Reader<'_>) -> Checked<AppIdRule> {
    let from = raw.choice::<AppIdKind>("app_id.from");
    let missing = missing(raw);
    let from = from?;
    let used = match from {
        AppIdKind::Json => "app_id.pointer",
        AppIdKind::Header => "app_id.name",
        AppIdKind::Regex => "app_id.pattern",
        AppIdKind::Key | AppIdKind::Topic => "",
    };
    let mut legal = true;
    for path in ["app_id.pointer", "app_id.name", "app_id.pattern"] {
        if path != used && raw.is_set(path) {
            raw.problem(path, format!("is not used with from: {}", from.name()));
            legal = false;
        }
    }
    let from = match from {
        AppIdKind::Json => AppIdFrom::Json { pointer: pointer(raw, "app_id.pointer")? },
        AppIdKind::Header => AppIdFrom::Header { name: raw.required_text("app_id.name")? },
        AppIdKind::Regex => AppIdFrom::Regex { pattern: one_group(raw, "app_id.pattern")? },
        AppIdKind::Key => AppIdFrom::Key,
        AppIdKind::Topic => AppIdFrom::Topic,
    };
    let missing = missing?;
    legal.then_some(AppIdRule { from, missing })
}

fn missing(raw: &mut Reader<'_>) -> Checked<MissingAppId> {
    let name = raw.required_text("app_id.missing")?;
    if name == "dead_letter" {
        return Some(MissingAppId::DeadLetter);
    }
    check(raw, "app_id.missing", &name, check_segment).then_some(MissingAppId::Name(name))
}

/// A JSON pointer; the empty one is the whole value.
fn pointer(raw: &mut Reader<'_>, path: &str) -> Checked<String> {
    let Some(pointer) = raw.text_or_empty(path)? else {
        raw.problem(path, "is missing: from: json needs it, like /app_id");
        return None;
    };
    check(raw, path, &pointer, check_pointer).then_some(pointer)
}

fn one_group(raw: &mut Reader<'_>, path: &str) -> Checked<regex::bytes::Regex> {
    let pattern = raw.required_text(path)?;
    let message = match regex::bytes::RegexBuilder::new(&pattern).size_limit(MAX_REGEX_BYTES).build() {
        Ok(regex) if regex.captures_len() == 2 => return Some(regex),
        Ok(regex) => {
            let groups = regex.captures_len() - 1;
            format!("has {groups} groups; write exactly one, the app id (a group that is not meant is `(?:..)`)")
        }
        Err(error) => format!("is not a regular expression: {}", regex_error(&error)),
    };
    let shown = raw.shown(path);
    raw.problem(path, format!("{shown} {message}"));
    None
}

/// How times are found and grouped.
pub fn time(raw: &mut Reader<'_>) -> Checked<TimeRule> {
    let from = raw.choice::<TimeKind>("time.from");
    let zone = zone(raw);
    let bucket = raw.choice("time.bucket");
    let from = match from? {
        TimeKind::Json => {
            let pointer = pointer(raw, "time.pointer");
            let format = time_format(raw, zone.as_ref());
            TimeFrom::Json { pointer: pointer?, format: format? }
        }
        TimeKind::Record => {
            let set: Vec<_> = ["time.pointer", "time.format"].into_iter().filter(|path| raw.is_set(path)).collect();
            for path in &set {
                raw.problem(path, "is not used with from: record");
            }
            if !set.is_empty() {
                return None;
            }
            TimeFrom::Record
        }
    };
    Some(TimeRule { from, zone: zone?, bucket: bucket? })
}

/// Zones come from the data in the program, not the machine's: two workers must agree on every bucket.
fn zone(raw: &mut Reader<'_>) -> Checked<TimeZone> {
    let name = raw.required_text("time.zone")?;
    let zones = TimeZoneDatabase::bundled();
    if let Ok(zone) = zones.get(&name) {
        return Some(zone);
    }
    let known: Vec<String> = zones.available().map(|name| name.as_str().to_owned()).collect();
    let shown = raw.shown("time.zone");
    let hint = match nearest(&name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => "write an IANA name like UTC or Asia/Shanghai".to_owned(),
    };
    raw.problem("time.zone", format!("{shown} is not a known time zone; {hint}"));
    None
}

fn time_format(raw: &mut Reader<'_>, zone: Option<&TimeZone>) -> Checked<TimeFormat> {
    const WORDS: [&str; 3] = ["rfc3339", "unix_seconds", "unix_millis"];
    let text = raw.text("time.format")?.unwrap_or_else(|| "rfc3339".to_owned());
    let message = match text.as_str() {
        "rfc3339" => return Some(TimeFormat::Rfc3339),
        "unix_seconds" => return Some(TimeFormat::UnixSeconds),
        "unix_millis" => return Some(TimeFormat::UnixMillis),
        pattern if pattern.contains('%') => match check_pattern(pattern, zone.unwrap_or(&TimeZone::UTC)) {
            Ok(()) => return Some(TimeFormat::Pattern(text)),
            Err(message) => message,
        },
        word => match nearest(word, WORDS) {
            Some(near) => format!("is not known; did you mean {near}?"),
            None => format!("is not known; write one of {}, or a pattern like %Y-%m-%d %H:%M:%S", WORDS.join(", ")),
        },
    };
    let shown = raw.shown("time.format");
    raw.problem("time.format", format!("{shown} {message}"));
    None
}

/// A pattern must tell an instant: what it writes of one, it must be able to read back.
fn check_pattern(pattern: &str, zone: &TimeZone) -> Result<(), String> {
    use jiff::fmt::strtime::{BrokenDownTime, format};
    let sample = Timestamp::UNIX_EPOCH.to_zoned_datetime(zone.clone());
    let written = format(pattern, &sample).map_err(|error| format!("is not a pattern: {error}"))?;
    let read = BrokenDownTime::parse(pattern, &written).map_err(|error| format!("can't be read: {error}"))?;
    match read.to_timestamp().is_ok() || read.to_datetime().is_ok() {
        true => Ok(()),
        false => Err("does not tell a date and a time".to_owned()),
    }
}
