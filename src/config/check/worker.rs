//! Checks one worker's settings.
//!
//! Owns: rules between the worker's keys. Does not own: single values (the reader's), rules between files.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::check;
use super::cross::overlap;
use super::http::http;
use super::kafka::kafka;
use super::names::check_name;
use crate::config::reader::{Checked, Reader};
use crate::config::suggest::nearest;
use crate::config::tree::show;
use crate::config::url::{REDIS_SCHEMES, SINK_SCHEMES};
use crate::config::{LogConfig, RedisUrl, SinkUrl, SpoolConfig, StateUrl, WorkerConfig};

/// Builds the checked settings; `None`: the reader has problems.
pub fn worker(raw: &mut Reader<'_>, host_name: &str) -> Checked<WorkerConfig> {
    let id = id(raw, host_name);
    let group = raw.required_text("worker.group").filter(|name| check(raw, "worker.group", name, check_name));
    let max_tasks = raw.integer("worker.max_tasks");
    let kafka = kafka(raw);
    let state_url = state_url(raw);
    let coordination_url = coordination_url(raw);
    let spool_dir = raw.required_text("spool.dir").map(PathBuf::from);
    let spool_bytes = raw.bytes("spool.max_bytes");
    let memory_max_bytes = raw.bytes("memory_max_bytes");
    let compression_threads = raw.integer("compression_threads");
    let http = http(raw);
    let shutdown_timeout = raw.duration("shutdown_timeout");
    let log_format = raw.choice("log.format");
    let log_level = raw.required_text("log.level").filter(|level| check(raw, "log.level", level, check_filter));
    together(raw, &state_url, &coordination_url, max_tasks.flatten());
    if let (Some(Some(StateUrl::Store(SinkUrl::File { dir }))), Some(spool)) = (&state_url, &spool_dir)
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
        max_tasks: max_tasks?.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
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

fn state_url(raw: &mut Reader<'_>) -> Checked<Option<StateUrl>> {
    let Some(url) = raw.text("state.url")? else { return Some(None) };
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    let parsed = if scheme.is_some_and(|scheme| REDIS_SCHEMES.contains(&scheme)) {
        RedisUrl::parse(&url).map(StateUrl::Redis)
    } else if scheme.is_some_and(|scheme| SINK_SCHEMES.contains(&scheme)) {
        SinkUrl::parse(&url).map(StateUrl::Store)
    } else {
        let schemes: Vec<_> = SINK_SCHEMES.iter().chain(&REDIS_SCHEMES).map(|scheme| format!("{scheme}://")).collect();
        Err(format!("begins with none of {}", schemes.join(", ")))
    };
    match parsed {
        Ok(url) => return Some(Some(url)),
        Err(message) => raw.problem("state.url", format!("the URL {message}")),
    }
    None
}

fn coordination_url(raw: &mut Reader<'_>) -> Checked<Option<RedisUrl>> {
    let Some(url) = raw.text("coordination.url")? else { return Some(None) };
    match RedisUrl::parse(&url) {
        Ok(url) => return Some(Some(url)),
        Err(message) => raw.problem("coordination.url", format!("the URL {message}")),
    }
    None
}

/// What the settings of several workers ask of each other.
fn together(
    raw: &mut Reader<'_>,
    state: &Checked<Option<StateUrl>>,
    coordination: &Checked<Option<RedisUrl>>,
    max_tasks: Option<i64>,
) {
    if matches!(coordination, Some(None)) {
        if max_tasks == Some(0) {
            raw.problem("worker.max_tasks", "is 0, and without coordination.url there is no other worker to archive");
        }
        if raw.is_set("worker.group") {
            raw.warning("worker.group", "has no effect without coordination.url");
        }
    }
    if let (Some(Some(StateUrl::Redis(state))), Some(Some(coordination))) = (state, coordination)
        && state.nodes.iter().any(|node| coordination.nodes.contains(node))
    {
        raw.warning(
            "coordination.url",
            "is the Redis of state.url: what may be flushed at any time lies beside what must never be lost. Use two",
        );
    }
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
