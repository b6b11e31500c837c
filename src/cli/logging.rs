//! The program's own log.
//!
//! Owns: where log lines go and how they look. Does not own: what is logged.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::{LogConfig, LogFormat};

/// Sends the log to stderr (text, json) or the journal, from now on.
///
/// # Errors
/// The journal can't be reached, the filter can't be read, or a log was set up before.
pub fn init(config: &LogConfig) -> Result<(), Box<dyn std::error::Error>> {
    let filter = EnvFilter::builder().parse(&config.level)?;
    let lines = fmt::layer().with_writer(io::stderr);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Text => Box::new(lines.with_ansi(colour())),
        LogFormat::Json => Box::new(lines.json().flatten_event(true)),
        LogFormat::Journald => Box::new(tracing_journald::layer()?.with_syslog_identifier("sluice".to_owned())),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(())
}

/// Colour is for terminals, and not where NO_COLOR (no-color.org) says no.
fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
