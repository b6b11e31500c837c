//! Checks one worker's settings.
//!
//! Owns: rules between the worker's keys. Does not own: single values (the reader's), rules between files.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use super::cross::overlap;
use super::http::http;
use super::kafka::kafka;
use super::names::check_name;
use super::{check, unsupported};
use crate::config::reader::{Checked, Reader};
use crate::config::suggest::nearest;
use crate::config::tree::show;
use crate::config::url::{REDIS_SCHEMES, SINK_SCHEMES, check_redis_url};
use crate::config::{LogConfig, SecretUrl, SinkUrl, SpoolConfig, WorkerConfig};

/// Builds the checked settings; `None`: the reader has problems.
pub fn worker(raw: &mut Reader<'_>, host_name: &str) -> Checked<WorkerConfig> {
    let id = id(raw, host_name);
    let group = raw.required_text("worker.group").filter(|name| check(raw, "worker.group", name, check_name));
    let max_tasks = raw.integer("worker.max_tasks");
    let kafka = kafka(raw);
    let state_url = state_url(raw);
    let coordination_url = raw.text("coordination.url").and_then(|url| match url {
        Some(url) => check(raw, "coordination.url", &url, check_redis_url).then(|| Some(SecretUrl::new(url))),
        None => Some(None),
    });
    let spool_dir = raw.required_text("spool.dir").map(PathBuf::from);
    let spool_bytes = raw.bytes("spool.max_bytes");
    let memory_max_bytes = raw.bytes("memory_max_bytes");
    let compression_threads = raw.integer("compression_threads");
    let http = http(raw);
    let shutdown_timeout = raw.duration("shutdown_timeout");
    let log_format = raw.choice("log.format");
    let log_level = raw.required_text("log.level").filter(|level| check(raw, "log.level", level, check_filter));
    unsupported::worker(raw);
    if let (Some(Some(SinkUrl::File { dir })), Some(spool)) = (&state_url, &spool_dir)
        && overlap(dir, spool)
    {
        raw.problem(
            "state.url",
            format!("lies in, or around, spool.dir ({}); each needs its own directory", spool.display()),
        );
    }
    Some(WorkerConfig {
        id: id?,
        group: group?,
        max_tasks: max_tasks?.and_then(|count| NonZeroU32::new(u32::try_from(count).ok()?)),
        kafka: kafka?,
        state_url: state_url?,
        coordination_url: coordination_url?,
        spool: SpoolConfig { dir: spool_dir?, max_bytes: spool_bytes? },
        memory_max_bytes: memory_max_bytes?,
        compression_threads: compression_threads?.and_then(|count| NonZeroUsize::new(usize::try_from(count).ok()?)),
        http: http?,
        shutdown_timeout: shutdown_timeout?,
        log: LogConfig { format: log_format?, level: log_level? },
    })
}

fn id(raw: &mut Reader<'_>, host_name: &str) -> Checked<String> {
    const MAX_BYTES: usize = 255;
    let id = raw.text("worker.id")?.unwrap_or_else(|| host_name.to_owned());
    if id.len() > MAX_BYTES {
        raw.problem("worker.id", format!("has {} bytes; at most {MAX_BYTES} are allowed", id.len()));
        return None;
    }
    Some(id)
}

fn state_url(raw: &mut Reader<'_>) -> Checked<Option<SinkUrl>> {
    let Some(url) = raw.text("state.url")? else { return Some(None) };
    let message = match url.split_once("://") {
        Some((scheme, _)) if REDIS_SCHEMES.contains(&scheme) => {
            let schemes: Vec<_> = SINK_SCHEMES.iter().map(|scheme| format!("{scheme}://")).collect();
            format!("{scheme}:// is not in this version; write one of {}, or leave it out", schemes.join(", "))
        }
        _ => match SinkUrl::parse(&url) {
            Ok(url) => return Some(Some(url)),
            Err(message) => format!("the URL {message}"),
        },
    };
    raw.problem("state.url", message);
    None
}

/// A tracing filter: `info`, `info,sluice::log=debug`. A mistyped level alone would be taken for a part of the program.
fn check_filter(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in text.split(',') {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            let hint = match nearest(level, LEVELS) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("write one of {}, or part=level", LEVELS.join(", ")),
            };
            return Err(format!("has the unknown level {}; {hint}", show(level)));
        }
    }
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("is not a filter: {error}")),
    }
}
