//! Access tokens for OAUTHBEARER by client credentials (RFC 6749, section 4.4).
//!
//! Owns: asking the token endpoint, keeping a token while it holds. Does not own: what the token is shown to.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::{SaslConfig, TlsConfig};
use crate::kafka::native::sasl::secret;
use crate::kafka::native::stream::{Address, Stream};
use crate::kafka::native::tls;
use crate::pipeline::source::SourceError;

const ANSWER_LIMIT: Duration = Duration::from_secs(15);
const ANSWER_MAX_BYTES: usize = 1024 * 1024;
/// Where the endpoint doesn't say how long a token holds.
const LIFETIME: Duration = Duration::from_secs(300);

/// Tokens of one cluster's settings.
#[derive(Debug)]
pub struct Tokens {
    tls: TlsConfig,
    kept: Mutex<Option<Token>>,
}

struct Token {
    text: String,
    renew_at: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

#[derive(serde::Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<f64>,
}

impl Tokens {
    pub fn new(tls: &TlsConfig) -> Self {
        Self { tls: tls.clone(), kept: Mutex::new(None) }
    }

    /// A token that holds, and whether it was asked for just now; kept ones may have been revoked since.
    ///
    /// # Errors
    /// [`SourceError::Refused`] where the endpoint refuses, [`SourceError::Unreachable`] where it doesn't answer.
    pub async fn token(&self, settings: &SaslConfig) -> Result<(String, bool), SourceError> {
        let mut kept = self.kept.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok((token.text.clone(), false));
        }
        let asked = tokio::time::timeout(ANSWER_LIMIT, self.ask(settings)).await;
        let answer =
            asked.unwrap_or_else(|_| Err(unreachable(format!("no answer within {} s", ANSWER_LIMIT.as_secs()))))?;
        let lifetime = answer.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let renew_at = Instant::now() + lifetime.unwrap_or(LIFETIME).min(LIFETIME * 1000).mul_f64(0.8);
        let text = answer.access_token;
        *kept = Some(Token { text: text.clone(), renew_at });
        Ok((text, true))
    }

    /// Drops a token that was refused.
    pub async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    async fn ask(&self, settings: &SaslConfig) -> Result<Answer, SourceError> {
        let (https, address, path) = endpoint(settings).map_err(refused)?;
        let client_id = settings.client_id.as_deref().ok_or_else(|| refused("client_id is not set".into()))?;
        let file = settings.client_secret_file.as_ref();
        let client_secret = file.map(|file| secret(file)).transpose().map_err(refused)?.unwrap_or_default();
        let stream = address.connect().await?;
        let stream: Box<dyn Stream> =
            if https { tls::connect(&self.tls, &address, stream).await? } else { Box::new(stream) };
        let failed = |error: hyper::Error| unreachable(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let driver = tokio::spawn(connection);
        // Form encoding of both, RFC 6749 section 2.3.1.
        let basic = STANDARD.encode(format!("{}:{}", encode(client_id), encode(&client_secret)));
        let mut form = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &settings.scope {
            form.push_str(&format!("&scope={}", encode(scope)));
        }
        let request = hyper::Request::post(path)
            .header("host", address.to_string())
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| refused(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
        driver.abort();
        if status.is_success() {
            // The body holds the token, so what is wrong with it is not shown.
            return serde_json::from_slice(&body).map_err(|_| refused("its answer holds no access_token".into()));
        }
        let said: String = String::from_utf8_lossy(&body).chars().take(300).collect();
        let message = format!("{status}: {said}");
        Err(if status.is_server_error() { unreachable(message) } else { refused(message) })
    }
}

fn endpoint(settings: &SaslConfig) -> Result<(bool, Address, String), String> {
    let url = settings.token_endpoint.as_deref().ok_or("token_endpoint is not set")?;
    let (scheme, rest) = url.split_once("://").ok_or("token_endpoint is no URL")?;
    let https = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(format!("token_endpoint with {scheme}:// instead of https://")),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let port = if https { 443 } else { 80 };
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = Address::parse(authority).ok_or("token_endpoint without a host")?;
    let address = if has_port { address } else { Address { port, ..address } };
    Ok((https, address, path.to_owned()))
}

fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn unreachable(message: String) -> SourceError {
    SourceError::Unreachable { what: "token endpoint".into(), message }
}

fn refused(message: String) -> SourceError {
    SourceError::Refused { what: "token endpoint".into(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_split_as_urls_are() {
        let split = |url: &str| {
            let settings = SaslConfig { token_endpoint: Some(url.to_owned()), ..SaslConfig::default() };
            endpoint(&settings).map(|(https, address, path)| format!("{https} {address} {path}"))
        };
        assert_eq!(split("https://a.example/t?x=1").unwrap(), "true a.example:443 /t?x=1");
        assert_eq!(split("http://a:8080").unwrap(), "false a:8080 /");
        assert!(split("ftp://a").is_err() && split("a/b").is_err() && split("https:///x").is_err());
    }

    #[test]
    fn secrets_are_encoded_for_forms() {
        assert_eq!(encode("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }
}
