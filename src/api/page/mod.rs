//! The status page: one document without anything from elsewhere.
//!
//! Owns: the page, who gets it at `/`, what a browser may run of it; its two questions. Does not own: what it shows
//! ([`super::activity`], [`super::http`]), reading archives ([`search`]).
//!
//! Ids of apps and lines of logs are other people's text: the page puts them in as text only, and its policy runs no script but its own.

mod search;

use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use tokio::sync::Semaphore;

use super::activity::Activity;
use super::connect::Rest;
use super::http::Board;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

static PAGE: LazyLock<String> =
    LazyLock::new(|| include_str!("page.html").replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT));

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        base64::engine::general_purpose::STANDARD.encode(digest)
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; form-action \
         'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

/// What the page's questions work on.
#[derive(Debug)]
pub struct Pages {
    pub rest: Arc<Rest>,
    pub activity: Arc<Activity>,
    /// One search at a time: reading an archive must not crowd out archiving.
    searching: Arc<Semaphore>,
}

impl Pages {
    pub fn new(rest: Arc<Rest>, activity: Arc<Activity>) -> Self {
        Self { rest, activity, searching: Arc::new(Semaphore::new(1)) }
    }
}

/// The page's questions.
pub fn routes(pages: Arc<Pages>) -> Router<Arc<Board>> {
    Router::new().route("/api/activity", get(activity)).route("/api/search", get(search::search)).with_state(pages)
}

async fn activity(State(pages): State<Arc<Pages>>) -> Response {
    match pages.rest.connectors() {
        Ok(connectors) => Json(pages.activity.report(&connectors.shared.board)).into_response(),
        Err(failure) => failure.into_response(),
    }
}

/// Whether a client at `/` wants to see rather than to parse: browsers name HTML first, Connect's clients JSON or anything.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let first = kinds.into_iter().find(|kind| ["text/html", "application/json", "*/*"].contains(kind));
    first == Some("text/html")
}

pub fn page() -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, PAGE.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_the_page_and_tools_json() {
        let wanted = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            is_wanted(&headers)
        };
        assert!(wanted("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        for tool in ["*/*", "application/json", "application/json, text/html", "", "text/plain"] {
            assert!(!wanted(tool), "{tool}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_text_stays_text() {
        assert!(PAGE.contains("<style>") && PAGE.contains("<script>") && !PAGE.contains("/*S"));
        for forbidden in [
            "http://",
            "https://",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=",
            " onclick=",
        ] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }
}
