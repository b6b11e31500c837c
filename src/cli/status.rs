//! `sluice status`.
//!
//! Owns: which worker is asked, the exit status. Does not own: the request ([`crate::api::client`]), the table
//! ([`super::status_table`]).

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use clap::Args;

use super::{Exit, SettingsArgs, complain, status_table};
use crate::api::auth;
use crate::api::client::{self, Answer, AskError};
use crate::api::http::WorkerReport;
use crate::clock::{Clock as _, SystemClock};
use crate::config::load_worker_alone;
use crate::task::status::TaskState;
use crate::version::VERSION;

/// The environment variable that names the file of the token.
const TOKEN_VARIABLE: &str = "SLUICE_HTTP_TOKEN_FILE";
const DEFAULT_URL: &str = "http://127.0.0.1:8083";

#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Write the worker's answer as one JSON object
    #[arg(long)]
    json: bool,
    /// The worker to ask [default: http.listen of the settings, else http://127.0.0.1:8083]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Whom to ask, and as whom.
#[derive(Debug, Default)]
struct Asked {
    url: String,
    authorization: Option<String>,
    /// The worker's own certificate, which nobody else may have signed.
    trust: Option<PathBuf>,
    /// Added to a failure: why the address may be the wrong one.
    doubt: &'static str,
}

pub fn run(args: &StatusArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    let asked = match asked(args.url.as_deref(), settings) {
        Ok(asked) => asked,
        Err(message) => {
            complain(&message);
            return Ok(Exit::Usage);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = match runtime.block_on(client::get(
        &asked.url,
        "/status",
        asked.authorization.as_deref(),
        asked.trust.as_deref(),
    )) {
        Ok(answer) => answer,
        Err(error) => {
            complain(&format!("{error}{}", asked.doubt));
            return Ok(match error {
                AskError::Address(_) => Exit::Usage,
                AskError::Unreachable(_) => Exit::Unreachable,
            });
        }
    };
    let report = match read(&asked.url, &answer) {
        Ok(report) => report,
        Err((exit, message)) => {
            complain(&message);
            return Ok(exit);
        }
    };
    let mut out = io::stdout().lock();
    if args.json {
        out.write_all(&answer.body)?;
        writeln!(out)?;
    } else {
        let colour = super::colour(&out);
        status_table::print(&mut out, &asked.url, &report, SystemClock.now_ms(), colour)?;
    }
    Ok(if is_failed(&report) { Exit::NotSo } else { Exit::Done })
}

fn asked(url: Option<&str>, settings: &SettingsArgs) -> Result<Asked, String> {
    let token = match std::env::var_os(TOKEN_VARIABLE).filter(|file| !file.is_empty()) {
        Some(file) => Some(auth::bearer(Path::new(&file)).map_err(|error| format!("{TOKEN_VARIABLE}: {error}"))?),
        None => None,
    };
    if let Some(url) = url {
        return Ok(Asked { url: url.to_owned(), authorization: token, trust: None, doubt: "" });
    }
    // A slip in a connector's file must not keep anybody from asking the worker that runs without it.
    let Ok(worker) = load_worker_alone(&settings.options(true), &super::environment()) else {
        let doubt = ". The settings can't be used, so the default address was asked: see `sluice check`, or give --url";
        return Ok(Asked { url: DEFAULT_URL.to_owned(), authorization: token, trust: None, doubt });
    };
    let http = worker.http;
    // Whoever may read the worker's secret may use it; otherwise the worker's answer says what is missing.
    let own = || auth::keys(&http.auth).ok().and_then(|keys| keys.into_iter().next());
    let authorization = token.or_else(own);
    let scheme = if http.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", reachable(&http.listen));
    Ok(Asked { url, authorization, trust: http.tls.map(|tls| tls.cert_file), doubt: ". Is it running?" })
}

/// An address that is listened on everywhere is asked on this machine.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}

fn read(url: &str, answer: &Answer) -> Result<WorkerReport, (Exit, String)> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            let message = format!("{url} wants a token: set {TOKEN_VARIABLE} to a file that holds it");
            return Err((Exit::Usage, message));
        }
        status => {
            return Err((Exit::Unreachable, format!("{url} answers {status}; it is not a sluice worker's address")));
        }
    }
    serde_json::from_slice(&answer.body).map_err(|error| {
        let message = format!("{url} is no sluice worker of version {}: {error}", VERSION);
        (Exit::Unreachable, message)
    })
}

fn is_failed(report: &WorkerReport) -> bool {
    report.tasks.iter().any(|task| task.state == TaskState::Failed)
        || report.connectors.values().any(|connector| connector.failed.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_is_asked_here() {
        for (listen, asked) in [
            ("0.0.0.0:8083", "127.0.0.1:8083"),
            ("[::]:1", "[::1]:1"),
            ("10.1.1.1:8083", "10.1.1.1:8083"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(reachable(listen), asked);
        }
    }

    #[test]
    fn answers_that_are_no_status_are_told_apart() {
        let read = |status, body: &'static str| {
            super::read("http://h:1", &Answer { status, body: body.into() }).map(|_| ()).unwrap_err()
        };
        let (exit, message) = read(StatusCode::UNAUTHORIZED, "");
        assert!(exit == Exit::Usage && message.contains(TOKEN_VARIABLE), "{message}");
        let (exit, message) = read(StatusCode::NOT_FOUND, "");
        assert!(exit == Exit::Unreachable && message.contains("404"), "{message}");
        let (exit, message) = read(StatusCode::OK, "{\"version\":\"8.3.0\"}");
        assert!(exit == Exit::Unreachable && message.contains("is no sluice worker"), "{message}");
    }
}
