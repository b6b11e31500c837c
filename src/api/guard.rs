//! Requests that a web page of somebody else makes a browser send.
//!
//! Owns: which Host, Origin and Content-Type are refused. Does not own: who may ask ([`super::auth`]).
//!
//! A worker that listens on this machine alone usually asks for no password. Pages of other sites reach it by their scripts
//! (Origin tells) or by a name of theirs that leads here (Host tells).

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::http::refusal;

/// What a worker knows of its own address.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    /// Only this machine can reach it.
    pub local: bool,
}

/// A middleware.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, message)) => refusal(status, message),
    }
}

impl Guard {
    fn check(self, method: &Method, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
        let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        if self.local && !is_here(host) {
            let message = format!(
                "the Host {host:?} is not this machine: ask by localhost or 127.0.0.1. A proxy before this worker sets one of them"
            );
            return Err((StatusCode::FORBIDDEN, message));
        }
        if let Some(origin) = text(header::ORIGIN)
            && origin.split_once("://").map(|(_, origin)| origin) != Some(host)
        {
            return Err((StatusCode::FORBIDDEN, "pages of other sites may not ask".to_owned()));
        }
        // A form of another site can't send this type without asking first.
        let has_body = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
            || headers.contains_key(header::TRANSFER_ENCODING);
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if changes && has_body && !text(header::CONTENT_TYPE).is_some_and(is_json) {
            let message = "send the body as Content-Type: application/json".to_owned();
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        Ok(())
    }
}

fn is_json(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// A name that other sites could let lead here is none of these.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(local: bool, method: Method, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Guard { local }.check(&method, &map).map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn hosts() {
        for host in ["localhost:8083", "127.0.0.1:8083", "[::1]:8083", "10.1.2.3", "LOCALHOST"] {
            assert_eq!(check(true, Method::GET, &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example:8083", "", "localhost.evil.example"] {
            assert_eq!(check(true, Method::GET, &[("host", host)]), 403, "{host}");
            assert_eq!(check(false, Method::GET, &[("host", host)]), 200, "{host}");
        }
    }

    #[test]
    fn other_sites_and_forms() {
        let here = ("host", "localhost:8083");
        assert_eq!(check(true, Method::POST, &[here, ("origin", "http://localhost:8083")]), 200);
        for origin in ["https://evil.example", "null", "http://localhost:80"] {
            assert_eq!(check(true, Method::POST, &[here, ("origin", origin)]), 403, "{origin}");
        }
        let body = ("content-length", "7");
        assert_eq!(check(true, Method::PUT, &[here]), 200);
        assert_eq!(check(true, Method::PUT, &[here, body]), 415);
        assert_eq!(check(true, Method::PUT, &[here, body, ("content-type", "text/plain")]), 415);
        assert_eq!(check(true, Method::PUT, &[here, body, ("content-type", "application/json; charset=utf-8")]), 200);
    }
}
