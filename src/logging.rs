//! The program's own log.
//!
//! Owns: where log lines go and how they look. Does not own: what is logged.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{LogConfig, LogFormat};

/// More levels of their own than this are a mistake.
const MAX_LEVELS: usize = 100;

/// The levels of the running program, by target (`sluice::log`), `root` for what has none of its own.
#[derive(Clone, Debug)]
pub struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    /// As the settings say.
    configured: String,
    changed: Arc<Mutex<BTreeMap<String, Changed>>>,
}

/// A level that was set while the program ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// In lower case.
    pub level: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
}

impl Levels {
    /// What is set for each logger, and since when where it was changed.
    pub fn all(&self) -> BTreeMap<String, (String, Option<i64>)> {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: BTreeMap<String, (String, Option<i64>)> = directives(&self.configured)
            .map(|(target, level)| (target.to_owned(), (level.to_ascii_lowercase(), None)))
            .collect();
        all.entry(ROOT.to_owned()).or_insert_with(|| ("error".to_owned(), None));
        all.extend(changed.iter().map(|(target, to)| (target.clone(), (to.level.clone(), Some(to.at_ms)))));
        all
    }

    /// Sets the level (`debug`) of a logger until the program ends.
    ///
    /// # Errors
    /// In words: it is no logger or level, or there are too many.
    pub fn set(&self, logger: &str, level: &str, now_ms: i64) -> Result<(), String> {
        let legal = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | ':');
        if logger.is_empty() || logger.len() > 200 || !logger.chars().all(legal) {
            return Err("a logger is `root` or the path of a module, like sluice::log".to_owned());
        }
        let level = level.to_ascii_lowercase();
        if !LEVELS.contains(&level.as_str()) {
            return Err(format!("a level is one of {}", LEVELS.join(", ")));
        }
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.len() >= MAX_LEVELS && !changed.contains_key(logger) {
            return Err(format!("{MAX_LEVELS} loggers have a level of their own already"));
        }
        let mut new = changed.clone();
        new.insert(logger.to_owned(), Changed { level, at_ms: now_ms });
        let filter = EnvFilter::builder().parse(combined(&self.configured, &new)).map_err(|error| error.to_string())?;
        self.handle.reload(filter).map_err(|error| error.to_string())?;
        *changed = new;
        Ok(())
    }
}

/// What Kafka Connect calls the level of everything that has none of its own.
pub const ROOT: &str = "root";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Targets with their levels; what a filter says of spans and fields is left out.
fn directives(filter: &str) -> impl Iterator<Item = (&str, &str)> {
    filter.split(',').map(str::trim).filter_map(|directive| match directive.split_once('=') {
        Some((target, level)) if !target.contains(['[', '{']) => Some((target, level)),
        None if LEVELS.contains(&directive.to_ascii_lowercase().as_str()) => Some((ROOT, directive)),
        _ => None,
    })
}

/// Of two directives for one target the later one counts.
fn combined(configured: &str, changed: &BTreeMap<String, Changed>) -> String {
    let mut filter = configured.to_owned();
    for (target, to) in changed {
        filter += &if target == ROOT { format!(",{}", to.level) } else { format!(",{target}={}", to.level) };
    }
    filter
}

/// Sends the log to stderr (text, in colour or not, or json) or the journal, from now on.
///
/// # Errors
/// The journal can't be reached, the filter can't be read, or a log was set up before.
pub fn init(config: &LogConfig, colour: bool) -> Result<Levels, Box<dyn std::error::Error>> {
    let configured = filter(&config.level);
    let (filter, handle) = reload::Layer::new(EnvFilter::builder().parse(&configured)?);
    let lines = fmt::layer().with_writer(io::stderr);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Text => Box::new(lines.with_ansi(colour)),
        LogFormat::Json => Box::new(lines.json().flatten_event(true)),
        LogFormat::Journald => Box::new(tracing_journald::layer()?.with_syslog_identifier("sluice".to_owned())),
    };
    let filter = filter.and(filter_fn(|metadata| !holds_secrets(metadata.target(), *metadata.level())));
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(Levels { handle, configured, changed: Arc::default() })
}

/// A level alone is ours: clients of Kafka and of stores tell each connection at `info`, and what they send at `debug`. Their
/// warnings are kept. A filter with parts is taken as it is.
fn filter(level: &str) -> String {
    match level.trim().to_ascii_lowercase().as_str() {
        ours @ ("info" | "debug" | "trace") => format!("warn,sluice={ours}"),
        _ => level.to_owned(),
    }
}

/// The SDK's trace shows whole requests and answers, and with them session tokens: no setting brings that into a log.
fn holds_secrets(target: &str, level: Level) -> bool {
    level == Level::TRACE && target.starts_with("aws_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_tokens_is_never_logged() {
        assert!(holds_secrets("aws_smithy_runtime::client::orchestrator", Level::TRACE));
        assert!(holds_secrets("aws_sigv4::http_request::sign", Level::TRACE));
        assert!(
            !holds_secrets("aws_smithy_runtime::client", Level::DEBUG) && !holds_secrets("sluice::store", Level::TRACE)
        );
    }

    #[test]
    fn later_levels_win() {
        let changed = |level: &str| Changed { level: level.to_owned(), at_ms: 0 };
        let set = [("root".to_owned(), changed("error")), ("sluice::log".to_owned(), changed("debug"))];
        let text = combined("warn,sluice=info", &set.into());
        assert_eq!(text, "warn,sluice=info,error,sluice::log=debug");
        let parsed = EnvFilter::builder().parse(&text).unwrap().to_string();
        assert!(!parsed.contains("warn") && parsed.contains("error"), "{parsed}");
        assert_eq!(
            directives("warn,sluice=info,a[b]=trace").collect::<Vec<_>>(),
            [("root", "warn"), ("sluice", "info")]
        );
    }

    #[test]
    fn levels_are_set_while_it_runs() {
        let (_filter, handle) = reload::Layer::new(EnvFilter::builder().parse("warn,sluice=info").unwrap());
        let levels = Levels { handle, configured: "warn,sluice=info".to_owned(), changed: Arc::default() };
        levels.set("sluice::log", "DEBUG", 7).unwrap();
        assert_eq!(levels.all()["sluice::log"], ("debug".to_owned(), Some(7)));
        assert_eq!((levels.all()["root"].0.as_str(), levels.all()["sluice"].0.as_str()), ("warn", "info"));
        for (logger, level) in [("a b", "debug"), ("", "debug"), ("a=trace,b", "debug"), ("a", "loud")] {
            assert!(levels.set(logger, level, 8).is_err(), "{logger} {level}");
        }
    }

    #[test]
    fn a_level_alone_keeps_libraries_at_their_warnings() {
        assert_eq!(filter("info"), "warn,sluice=info");
        assert_eq!(filter("TRACE"), "warn,sluice=trace");
        for whole in ["off", "error", "warn", "info,rskafka=debug", "sluice=debug"] {
            assert_eq!(filter(whole), whole);
        }
    }
}
