//! Checks one connector's settings.
//!
//! Owns: rules between the keys of one connector, the sink's apart. Does not own: single values (the reader's), rules between
//! files.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::check_sink::sink;
use super::check_worker::check;
use super::names::{check_name, check_pointer, check_segment, check_topic};
use super::problem::Problem;
use super::reader::{Checked, Reader, parse_integer};
use super::schema::Named;
use super::suggest::nearest;
use super::units::show_bytes;
use super::{
    AppIdFrom, AppIdKind, AppIdRule, Compression, ConnectorConfig, DeadLetter, MissingAppId, Rotate, SinkUrl,
    StartFrom, TimeFormat, TimeFrom, TimeKind, TimeRule, TopicSelection,
};
use crate::archive::codec::{Codec, validate_level};

/// Regular expressions of settings compile to at most this much.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// A connector as far as it could be checked: what the rules between connectors need is there also when other keys are wrong.
#[derive(Debug)]
pub struct Draft {
    pub name: Checked<String>,
    pub sink_url: Checked<SinkUrl>,
    pub config: Checked<ConnectorConfig>,
}

/// `None` inside the draft: the reader has problems.
pub fn connector(raw: &mut Reader<'_>, file: &Path) -> Draft {
    let name = name(raw, file);
    let topics = topics(raw);
    let partitions = partitions(raw);
    let tasks_max = raw.integer("tasks_max");
    let start_from = start_from(raw);
    let isolation = raw.choice("isolation");
    let app_id = app_id(raw);
    let time = time(raw);
    let rotate = rotate(raw);
    let format = raw.choice("format");
    let compression = compression(raw);
    let sink = sink(raw);
    let on_error = raw.choice("on_error");
    let dead_letter = dead_letter(raw);
    if let (Some(rotate), Some(compression)) = (&rotate, &compression)
        && rotate.max_bytes < u64::from(compression.frame_bytes)
    {
        let frame = show_bytes(u64::from(compression.frame_bytes));
        let shown = raw.shown("rotate.max_bytes");
        raw.problem("rotate.max_bytes", format!("{shown} is less than compression.frame_bytes ({frame})"));
    }
    if let (Some(app_id), Some(dead_letter)) = (&app_id, &dead_letter)
        && app_id.missing == MissingAppId::Name(dead_letter.path.clone())
    {
        let shown = raw.shown("dead_letter.path");
        raw.problem("dead_letter.path", format!("{shown} is the folder of app_id.missing too; they must differ"));
    }
    if let (Some(topics), Some(DeadLetter { topic: Some(topic), .. })) = (&topics, &dead_letter)
        && topics.holds(topic)
    {
        let shown = raw.shown("dead_letter.topic");
        raw.problem("dead_letter.topic", format!("{shown} is archived by this connector itself; name another topic"));
    }
    let sink_url = sink.as_ref().map(|sink| sink.url.clone());
    let build = || {
        Some(ConnectorConfig {
            name: name.clone()?,
            file: file.to_owned(),
            topics: topics?,
            partitions: partitions?,
            tasks_max: tasks_max?.and_then(|count| NonZeroU32::new(u32::try_from(count).ok()?))?,
            start_from: start_from?,
            isolation: isolation?,
            app_id: app_id?,
            time: time?,
            rotate: rotate?,
            format: format?,
            compression: compression?,
            sink: sink?,
            on_error: on_error?,
            dead_letter: dead_letter?,
        })
    };
    Draft { config: build(), name, sink_url }
}

fn name(raw: &mut Reader<'_>, file: &Path) -> Checked<String> {
    if let Some(name) = raw.text("name")? {
        return check(raw, "name", &name, check_name).then_some(name);
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if let Err(message) = check_name(&stem) {
        raw.problem("name", format!("is not written, and the file's name {message}"));
        return None;
    }
    Some(stem)
}

fn topics(raw: &mut Reader<'_>) -> Checked<TopicSelection> {
    let list = raw.list("topics");
    let pattern = raw.text("topics_regex");
    match (list?, pattern?) {
        (Some(_), Some(_)) => {
            raw.problem("topics_regex", "stands beside topics; write one of them");
            None
        }
        (None, None) => {
            raw.problem("topics", "is missing: write topics: [name, ..] or topics_regex");
            None
        }
        (None, Some(pattern)) => match regex::RegexBuilder::new(&pattern).size_limit(MAX_REGEX_BYTES).build() {
            Ok(regex) => Some(TopicSelection::Regex(regex)),
            Err(error) => {
                let shown = raw.shown("topics_regex");
                raw.problem("topics_regex", format!("{shown} is not a regular expression: {}", last_line(&error)));
                None
            }
        },
        (Some(topics), None) => {
            let mut names = Vec::new();
            let mut legal = !topics.is_empty();
            if topics.is_empty() {
                raw.problem("topics", "is an empty list");
            }
            for (place, text) in topics {
                let message = match check_topic(&text.text) {
                    Err(message) => message,
                    Ok(()) if names.contains(&text.text) => "stands in the list twice".to_owned(),
                    Ok(()) => {
                        names.push(text.text.clone());
                        continue;
                    }
                };
                raw.problems.push(Problem::new(place, "topics", format!("{} {message}", text.shown())));
                legal = false;
            }
            legal.then_some(TopicSelection::List(names))
        }
    }
}

fn partitions(raw: &mut Reader<'_>) -> Checked<Option<BTreeSet<i32>>> {
    let Some(items) = raw.list("partitions")? else { return Some(None) };
    let mut partitions = BTreeSet::new();
    let mut legal = !items.is_empty();
    if items.is_empty() {
        raw.problem("partitions", "is an empty list; leave the key out for all partitions");
    }
    for (place, text) in items {
        let partition = parse_integer(&text.text).and_then(|number| i32::try_from(number).ok()).filter(|p| *p >= 0);
        let message = match partition {
            Some(partition) if partitions.insert(partition) => continue,
            Some(_) => "stands in the list twice",
            None => "is not a partition's number",
        };
        raw.problems.push(Problem::new(place, "partitions", format!("{} {message}", text.shown())));
        legal = false;
    }
    legal.then_some(Some(partitions))
}

fn start_from(raw: &mut Reader<'_>) -> Checked<StartFrom> {
    let text = raw.required_text("start_from")?;
    match (text.as_str(), text.parse::<Timestamp>()) {
        ("earliest", _) => Some(StartFrom::Earliest),
        ("latest", _) => Some(StartFrom::Latest),
        (_, Ok(time)) => Some(StartFrom::TimestampMs(time.as_millisecond())),
        (_, Err(_)) => {
            let shown = raw.shown("start_from");
            let hint = match nearest(&text, ["earliest", "latest"]) {
                Some(near) => format!("did you mean {near}?"),
                None => "write earliest, latest or a time with its offset, like 2026-11-22T00:00:00Z".to_owned(),
            };
            raw.problem("start_from", format!("{shown} is not known; {hint}"));
            None
        }
    }
}

fn app_id(raw: &mut Reader<'_>) -> Checked<AppIdRule> {
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
        Err(error) => format!("is not a regular expression: {}", last_line(&error)),
    };
    let shown = raw.shown(path);
    raw.problem(path, format!("{shown} {message}"));
    None
}

/// A regex error draws the pattern over several lines; the last one says what is wrong.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next_back().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn time(raw: &mut Reader<'_>) -> Checked<TimeRule> {
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

fn rotate(raw: &mut Reader<'_>) -> Checked<Rotate> {
    let max_bytes = raw.bytes("rotate.max_bytes");
    let max_interval = raw.duration("rotate.max_interval");
    Some(Rotate { max_bytes: max_bytes?, max_interval: max_interval? })
}

fn compression(raw: &mut Reader<'_>) -> Checked<Compression> {
    let codec = raw.choice::<Codec>("compression.codec");
    let level = raw.integer("compression.level");
    let frame_bytes = raw.bytes("compression.frame_bytes");
    let (codec, level) = (codec?, level?.and_then(|level| i32::try_from(level).ok()));
    if let Err(error) = validate_level(codec, level) {
        let shown = raw.shown("compression.level");
        raw.problem("compression.level", format!("{shown}: {error}"));
        return None;
    }
    Some(Compression { codec, level, frame_bytes: u32::try_from(frame_bytes?).ok()? })
}

fn dead_letter(raw: &mut Reader<'_>) -> Checked<DeadLetter> {
    let topic = raw.text("dead_letter.topic").filter(|topic| match topic {
        Some(topic) => check(raw, "dead_letter.topic", topic, check_topic),
        None => true,
    });
    let path = raw.required_text("dead_letter.path").filter(|path| {
        check(raw, "dead_letter.path", path, |path| {
            check_segment(path)?;
            path.starts_with('_')
                .then_some(())
                .ok_or_else(|| "does not begin with `_`, as reserved folders do".to_owned())
        })
    });
    Some(DeadLetter { topic: topic?, path: path? })
}

impl TopicSelection {
    /// Whether a topic of this name is selected.
    pub fn holds(&self, topic: &str) -> bool {
        match self {
            Self::List(topics) => topics.iter().any(|name| name == topic),
            Self::Regex(regex) => regex.is_match(topic),
        }
    }
}
