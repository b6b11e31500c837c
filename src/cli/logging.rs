//! The program's own log.
//!
//! Owns: where log lines go and how they look. Does not own: what is logged.

use std::io;

use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
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
    let filter = filter.and(filter_fn(|metadata| !holds_secrets(metadata.target(), *metadata.level())));
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
    fn a_level_alone_keeps_libraries_at_their_warnings() {
        assert_eq!(filter("info"), "warn,sluice=info");
        assert_eq!(filter("TRACE"), "warn,sluice=trace");
        for whole in ["off", "error", "warn", "info,rskafka=debug", "sluice=debug"] {
            assert_eq!(filter(whole), whole);
        }
    }
}
