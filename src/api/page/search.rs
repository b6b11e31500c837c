//! The page's search over one app's recent log.
//!
//! Owns: its question, its limits. Does not own: reading and matching ([`crate::reading`]).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::Pages;
use crate::api::connect::{Answer, Failure};
use crate::config::ConnectorConfig;
use crate::reading::grep::{Grep, Pattern, PatternOptions, Shape, Style};
use crate::reading::live::Live;
use crate::reading::place::Place;
use crate::reading::reader::{AnswerError, Reader};
use crate::reading::report::Report;
use crate::reading::survey::Question;
use crate::reading::times::Times;
use crate::reading::units::By;
use crate::store::{Store, open_state};
use crate::worker::Shared;

const MAX_LINES: usize = 200;
const MAX_NOTES: usize = 20;
const MAX_LINE_BYTES: usize = 4 << 10;
const MAX_MINUTES: i64 = 7 * 24 * 60;
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
pub(super) struct Asked {
    connector: String,
    app: String,
    #[serde(default)]
    pattern: String,
    minutes: i64,
}

/// The lines that were found, and what is to be known of them.
#[derive(Default, Serialize)]
struct Found {
    lines: Vec<String>,
    /// There are more.
    is_cut: bool,
    notes: Vec<String>,
}

fn wrong(message: impl std::fmt::Display) -> Failure {
    Failure(StatusCode::BAD_REQUEST, message.to_string())
}

pub(super) async fn search(State(pages): State<Arc<Pages>>, Query(asked): Query<Asked>) -> Answer {
    let connectors = pages.rest.connectors()?;
    let view = connectors.view(&asked.connector)?;
    let config = view.config.ok_or_else(|| wrong("the connector's configuration can't be used: see its status"))?;
    if !(1..=MAX_MINUTES).contains(&asked.minutes) {
        return Err(wrong(format!("minutes lies between 1 and {MAX_MINUTES}")));
    }
    let options = PatternOptions { ignore_case: true, ..PatternOptions::default() };
    let pattern = Pattern::new(&asked.pattern, options).map_err(wrong)?;
    let busy = || Failure(StatusCode::SERVICE_UNAVAILABLE, "another search runs; try again in a moment".to_owned());
    let one = Arc::clone(&pages.searching).try_acquire_owned().map_err(|_| busy())?;
    // A client that goes away drops the guard.
    let gone = CancellationToken::new();
    let _guard = gone.clone().drop_guard();
    let (shared, runtime) = (Arc::clone(&connectors.shared), Handle::current());
    let searched = tokio::task::spawn_blocking(move || {
        let _one = one;
        runtime.block_on(bounded(&shared, &config, &asked, pattern, &gone))
    });
    let failed = |error: JoinError| Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("the search failed: {error}"));
    Ok(Json(searched.await.map_err(failed)??).into_response())
}

/// What is found within the limits is shown.
async fn bounded(
    shared: &Arc<Shared>,
    config: &ConnectorConfig,
    asked: &Asked,
    pattern: Pattern,
    gone: &CancellationToken,
) -> Result<Found, Failure> {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&notes);
    let report = Report::new(move |note| {
        let mut notes = noted.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < MAX_NOTES {
            notes.push(note.to_owned());
        }
    });
    let mut found = Found::default();
    let late = tokio::select! {
        biased;
        () = gone.cancelled() => false,
        outcome = look(shared, config, asked, pattern, report, &mut found) => outcome.map(|()| false)?,
        () = tokio::time::sleep(LIMIT) => true,
    };
    if late {
        found.is_cut = true;
        found.notes.push(format!("not finished within {} s: ask for fewer minutes", LIMIT.as_secs()));
    }
    found.notes.append(&mut notes.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(found)
}

async fn look(
    shared: &Arc<Shared>,
    config: &ConnectorConfig,
    asked: &Asked,
    pattern: Pattern,
    report: Report,
    found: &mut Found,
) -> Result<(), Failure> {
    let away = |error: &dyn std::fmt::Display| Failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    let environment = &shared.environment;
    let place = Place::of_connector(config.clone(), environment).await.map_err(|error| away(&error))?;
    let question = Question {
        app: Some(place.app_segment(&asked.app)),
        times: Times {
            since_ms: Some(environment.clock.now_ms().saturating_sub(asked.minutes * 60_000)),
            until_ms: None,
        },
    };
    let state: Arc<dyn Store> = match &shared.worker.state_url {
        Some(url) => open_state(url, &config.sink).await.map_err(|error| away(&error))?,
        None => Arc::clone(&place.store) as Arc<dyn Store>,
    };
    let mut reader = Reader::new(place.clone(), Arc::new(report));
    // What is in no file yet is mostly what is looked for.
    if let Some(connector) = &place.connector {
        match Live::open(Arc::clone(&shared.kafka), Arc::clone(connector), &state, environment).await {
            Ok(live) => reader.live = Some(Arc::new(live)),
            Err(error) => found.notes.push(format!("without what is in no file yet: {error}")),
        }
    }
    let grep = Arc::new(Grep { pattern, style: Style::default(), shape: Shape::Lines });
    let answered = reader
        .answer(&question, By::Offset, &grep, |hits| {
            for line in hits.text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                if found.lines.len() == MAX_LINES {
                    found.is_cut = true;
                    return Err(io::Error::other("enough"));
                }
                let shown = line.get(..MAX_LINE_BYTES).unwrap_or(line);
                found.lines.push(String::from_utf8_lossy(shown).into_owned());
            }
            Ok(())
        })
        .await;
    match answered {
        Ok(()) | Err(AnswerError::Out(_)) => Ok(()),
        Err(error) => Err(away(&error)),
    }
}
