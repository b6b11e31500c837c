//! Asking a running worker.
//!
//! Owns: one GET over HTTP or HTTPS, its limits, what its failures mean. Does not own: what is asked and shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, HOST, USER_AGENT};
use axum::http::{Request, StatusCode, Uri};
use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pem;

use crate::version::VERSION;

/// Whole request; a worker answers from memory.
const LIMIT: Duration = Duration::from_secs(10);
/// More than 100,000 tasks take.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The address can't be used: write another one.
    #[error("{0}")]
    Address(String),
    /// Nobody answers, or not in HTTP.
    #[error("{0}")]
    Unreachable(String),
}

/// Sends a GET for `path` to `http://host[:port]` or `https://`. `authorization` is the header's value; `trust` holds
/// certificates (PEM) that are trusted beside the system's.
///
/// # Errors
/// [`AskError`]; any answer, whatever its status, is none.
pub async fn get(
    address: &str,
    path: &str,
    authorization: Option<&str>,
    trust: Option<&Path>,
) -> Result<Answer, AskError> {
    let mut target = target(address)?;
    target.trust = trust.map(Path::to_owned);
    let unreachable = |why: &dyn std::fmt::Display| AskError::Unreachable(format!("{address} can't be reached: {why}"));
    match tokio::time::timeout(LIMIT, ask(&target, path, authorization)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unreachable(&error)),
        Err(_) => Err(unreachable(&format_args!("no answer within {} s", LIMIT.as_secs()))),
    }
}

#[derive(Debug)]
struct Target {
    host: String,
    port: u16,
    /// As in the address, for the Host header.
    authority: String,
    /// Path of the address, without a trailing `/`.
    base: String,
    tls: bool,
    trust: Option<PathBuf>,
}

fn target(address: &str) -> Result<Target, AskError> {
    let refuse = |why: &str| AskError::Address(format!("the address {why}: write http://host:port"));
    let uri: Uri = address.parse().map_err(|_| refuse("is not a URL"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(refuse("does not begin with http:// or https://")),
    };
    let Some(authority) = uri.authority() else { return Err(refuse("names no host")) };
    if authority.as_str().contains('@') {
        return Err(refuse("holds a user or password"));
    }
    let host = authority.host();
    Ok(Target {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        authority: authority.as_str().to_owned(),
        base: uri.path().trim_end_matches('/').to_owned(),
        tls,
        trust: None,
    })
}

async fn ask(
    target: &Target,
    path: &str,
    authorization: Option<&str>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let mut request = Request::get(format!("{}{path}", target.base))
        .header(HOST, &target.authority)
        .header(USER_AGENT, format!("sluice/{VERSION}"));
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Body::empty())?;
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    if !target.tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(target.host.clone())?;
    exchange(TlsConnector::from(Arc::new(trusting(target.trust.as_deref())?)).connect(name, stream).await?, request)
        .await
}

fn trusting(file: Option<&Path>) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    // Some of a system's certificates are often unusable.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = file {
        roots.add_parsable_certificates(pem::certificates(file)?);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Body>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender; what went wrong in it the sender tells too.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = to_bytes(Body::new(answer.into_body()), MAX_ANSWER_BYTES).await?;
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let target = |address: &str| super::target(address).map(|t| (t.host, t.port, t.base));
        let is = |host: &str, port: u16, base: &str| Ok((host.to_owned(), port, base.to_owned()));
        assert_eq!(target("http://127.0.0.1:8083"), is("127.0.0.1", 8083, ""));
        assert_eq!(target("http://[::1]:8083/"), is("::1", 8083, ""));
        assert_eq!(target("https://h/"), is("h", 443, ""));
        assert_eq!(target("http://sluice.example/behind/a/proxy/"), is("sluice.example", 80, "/behind/a/proxy"));
        for (address, reason) in [
            ("127.0.0.1:8083", "does not begin with"),
            ("http://u:planted@h:1", "holds a user or password"),
            ("", "is not a URL"),
            ("ftp://h", "does not begin with"),
        ] {
            let Err(AskError::Address(message)) = target(address) else { unreachable!("{address}") };
            assert!(message.contains(reason) && !message.contains("planted"), "{address}: {message}");
        }
    }
}
