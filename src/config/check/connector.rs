//! Checks one connector's settings.
//!
//! Owns: rules between the keys of one connector, the sink's apart. Does not own: single values (the reader's), rules between
//! files.

use std::num::NonZeroU32;
use std::path::Path;

use jiff::Timestamp;

use super::check;
use super::names::{check_name, check_segment, check_topic};
use super::record::{app_id, time};
use super::sink::sink;
use super::topics::{partitions, topics};
use crate::archive::codec::{Codec, validate_level};
use crate::config::reader::{Checked, Reader};
use crate::config::suggest::nearest;
use crate::config::units::show_bytes;
use crate::config::{Compression, ConnectorConfig, DeadLetter, Rotate, SinkUrl, StartFrom};

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
    if raw.peek("app_id.missing") == raw.peek("dead_letter.path") {
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
