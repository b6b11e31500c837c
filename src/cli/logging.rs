//! The program's own log.
//!
//! Owns: where log lines go and how they look. Does not own: what is logged.

use std::io;

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
    let filter = EnvFilter::builder().parse(filter(&config.level))?;
    let lines = fmt::layer().with_writer(io::stderr);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Text => Box::new(lines.with_ansi(super::colour(&io::stderr()))),
        LogFormat::Json => Box::new(lines.json().flatten_event(true)),
        LogFormat::Journald => Box::new(tracing_journald::layer()?.with_syslog_identifier("sluice".to_owned())),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(())
}

/// A level alone is ours: clients of Kafka and of stores tell each connection at `info`, and what they send at `debug`. Their
/// warnings are kept. A filter with parts is taken as it is.
fn filter(level: &str) -> String {
    match level.trim().to_ascii_lowercase().as_str() {
        ours @ ("info" | "debug" | "trace") => format!("warn,sluice={ours}"),
        _ => level.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_keeps_libraries_at_their_warnings() {
        assert_eq!(filter("info"), "warn,sluice=info");
        assert_eq!(filter("TRACE"), "warn,sluice=trace");
        for whole in ["off", "error", "warn", "info,rskafka=debug", "sluice=debug"] {
            assert_eq!(filter(whole), whole);
        }
    }
}
