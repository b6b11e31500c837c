//! SASL inside a connection: PLAIN, SCRAM-SHA-256/512, OAUTHBEARER.
//!
//! Owns: the steps of each mechanism, the files that secrets come from. Does not own: fetching tokens ([`super::oauth`]).

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::config::{SaslConfig, SaslMechanism};
use crate::kafka::native::connection::Connection;
use crate::kafka::native::errors;
use crate::kafka::native::messages::sasl::{SaslAuthenticate, SaslAuthenticateAnswer, SaslHandshake};
use crate::kafka::native::oauth::Tokens;
use crate::kafka::native::scram::{Exchange, Hash};
use crate::pipeline::source::SourceError;

/// Authenticates; returns how long that holds, `None` for ever.
///
/// # Errors
/// [`SourceError::Refused`] for wrong credentials and mechanisms, [`SourceError::Unreachable`] for the rest.
pub async fn authenticate(
    connection: &mut Connection,
    settings: &SaslConfig,
    tokens: &Tokens,
) -> Result<Option<Duration>, SourceError> {
    let Some(mechanism) = settings.mechanism else {
        return Err(connection.refused("security.sasl.mechanism is not set".into()));
    };
    let name = match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        SaslMechanism::OauthBearer => "OAUTHBEARER",
    };
    let answer = connection.ask(&SaslHandshake { mechanism: name }).await?;
    if answer.error != errors::NONE {
        let offered = answer.mechanisms.join(", ");
        let message = format!("SASL {name}: {}, the broker offers {offered}", errors::name(answer.error));
        return Err(connection.refused(message));
    }
    let lifetime_ms = match mechanism {
        SaslMechanism::Plain => plain(connection, settings).await?,
        SaslMechanism::ScramSha256 => scram(connection, settings, Hash::Sha256).await?,
        SaslMechanism::ScramSha512 => scram(connection, settings, Hash::Sha512).await?,
        SaslMechanism::OauthBearer => oauth_bearer(connection, settings, tokens).await?,
    };
    Ok(u64::try_from(lifetime_ms).ok().filter(|&ms| ms > 0).map(Duration::from_millis))
}

async fn step(connection: &mut Connection, token: Vec<u8>) -> Result<SaslAuthenticateAnswer, SourceError> {
    let answer = connection.ask(&SaslAuthenticate { token }).await?;
    if answer.error == errors::NONE {
        return Ok(answer);
    }
    let said = answer.message.unwrap_or_default();
    Err(connection.refused(format!("{}: {said}", errors::name(answer.error))))
}

async fn plain(connection: &mut Connection, settings: &SaslConfig) -> Result<i64, SourceError> {
    let (username, password) = credentials(settings).map_err(|message| connection.refused(message))?;
    Ok(step(connection, format!("\0{username}\0{password}").into_bytes()).await?.lifetime_ms)
}

async fn scram(connection: &mut Connection, settings: &SaslConfig, hash: Hash) -> Result<i64, SourceError> {
    let (username, password) = credentials(settings).map_err(|message| connection.refused(message))?;
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(|error| connection.unreachable(format!("no randomness: {error}")))?;
    let (exchange, first) = Exchange::start(hash, &username, STANDARD_NO_PAD.encode(random));
    let challenge = step(connection, first.into_bytes()).await?;
    let challenge = String::from_utf8_lossy(&challenge.token).into_owned();
    let (proof, answer) = exchange.prove(&password, &challenge).map_err(|message| connection.refused(message))?;
    let last = step(connection, answer.into_bytes()).await?;
    proof.check(&String::from_utf8_lossy(&last.token)).map_err(|message| connection.refused(message))?;
    Ok(last.lifetime_ms)
}

async fn oauth_bearer(connection: &mut Connection, settings: &SaslConfig, tokens: &Tokens) -> Result<i64, SourceError> {
    let (token, is_new) = tokens.token(settings).await?;
    let refusal = match show_token(connection, &token).await {
        Err(SourceError::Refused { message, .. }) => message,
        done => return done,
    };
    tokens.forget().await;
    // A kept token may be refused because it was revoked; the next connection shows a new one.
    Err(if is_new { connection.refused(refusal) } else { connection.unreachable(refusal) })
}

async fn show_token(connection: &mut Connection, token: &str) -> Result<i64, SourceError> {
    // RFC 7628: the fields are separated by ^A.
    let answer = step(connection, format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()).await?;
    if answer.token.is_empty() {
        return Ok(answer.lifetime_ms);
    }
    // What the server finds wrong comes as a challenge; the exchange is to be ended with an empty answer.
    let problem = String::from_utf8_lossy(&answer.token).into_owned();
    let _ = step(connection, vec![1]).await;
    Err(connection.refused(format!("SASL OAUTHBEARER: {problem}")))
}

fn credentials(settings: &SaslConfig) -> Result<(String, String), String> {
    let username = settings.username.clone().ok_or("security.sasl.username is not set")?;
    let file = settings.password_file.as_ref().ok_or("security.sasl.password_file is not set")?;
    Ok((username, secret(file)?))
}

/// The content of a secret's file without the line's end. Read each time, so that a changed secret is taken up.
pub fn secret(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
