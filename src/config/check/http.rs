//! Checks the worker's own HTTP address.
//!
//! Owns: who may reach it. Does not own: serving.

use super::{check, together};
use crate::config::problem::Problem;
use crate::config::reader::{Checked, Reader};
use crate::config::url::{check_host_port, check_http_url, is_loopback};
use crate::config::{HttpAuth, HttpConfig, HttpTls, SinkUrl};

/// Builds the checked settings of HTTP.
pub fn http(raw: &mut Reader<'_>) -> Checked<HttpConfig> {
    let listen = raw.required_text("http.listen").filter(|text| check(raw, "http.listen", text, check_host_port));
    let metrics_listen = raw.text("http.metrics_listen").filter(|text| match text {
        Some(text) => check(raw, "http.metrics_listen", text, check_host_port),
        None => true,
    });
    let auth = auth(raw);
    let tls = tls(raw);
    let allow_sinks = allow_sinks(raw);
    if let (Some(listen), Some(HttpAuth::Unset)) = (&listen, &auth)
        && !is_loopback(listen)
    {
        let shown = raw.shown("http.listen");
        raw.problem(
            "http.listen",
            format!("{shown} can be reached from other machines: set http.auth, or write `auth: none` if everyone may use it"),
        );
    }
    Some(HttpConfig {
        listen: listen?,
        metrics_listen: metrics_listen?,
        auth: auth?,
        tls: tls?,
        allow_sinks: allow_sinks?,
    })
}

fn tls(raw: &mut Reader<'_>) -> Checked<Option<HttpTls>> {
    let (cert_file, key_file) = (raw.path("http.tls.cert_file"), raw.path("http.tls.key_file"));
    together(raw, "http.tls.cert_file", "http.tls.key_file");
    match (cert_file?, key_file?) {
        (Some(cert_file), Some(key_file)) => Some(Some(HttpTls { cert_file, key_file })),
        _ => Some(None),
    }
}

fn auth(raw: &mut Reader<'_>) -> Checked<HttpAuth> {
    // The shape leaves a map, or the word `none`.
    if raw.is_word("http.auth") {
        return Some(HttpAuth::None);
    }
    let bearer = raw.path("http.auth.bearer_token_file");
    let basic = raw.path("http.auth.basic_file");
    match (bearer?, basic?) {
        (None, None) => Some(HttpAuth::Unset),
        (Some(file), None) => Some(HttpAuth::BearerTokenFile(file)),
        (None, Some(file)) => Some(HttpAuth::BasicFile(file)),
        (Some(_), Some(_)) => {
            raw.problem("http.auth.basic_file", "stands beside bearer_token_file; write one of them");
            None
        }
    }
}

fn allow_sinks(raw: &mut Reader<'_>) -> Checked<Vec<String>> {
    const PATH: &str = "http.allow_sinks";
    let urls = raw.list(PATH)?.unwrap_or_default();
    let mut legal = true;
    for (place, text) in &urls {
        let address = text.text.starts_with("http");
        let parsed = if address { check_http_url(&text.text) } else { SinkUrl::parse(&text.text).map(|_| ()) };
        if let Err(message) = parsed {
            raw.problems.push(Problem::new(place.clone(), PATH, format!("{} {message}", text.shown())));
            legal = false;
        }
    }
    legal.then(|| urls.into_iter().map(|(_, text)| text.text.clone()).collect())
}
