//! Who may ask over HTTP.
//!
//! Owns: from secrets in files to values of the Authorization header, comparing them. Does not own: what is answered.

use base64::Engine as _;
use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::config::HttpAuth;

/// Who is let in.
#[derive(Clone)]
pub enum Gate {
    Open,
    /// Whoever sends one of these values.
    Keys {
        keys: Arc<[String]>,
        /// What a client that sent none is asked for: the WWW-Authenticate header.
        challenge: &'static str,
    },
}

impl Gate {
    /// Reads the secrets.
    ///
    /// # Errors
    /// A file can't be read or holds nothing usable; in words, without the secret.
    pub fn open(auth: &HttpAuth) -> Result<Self, String> {
        let challenge = match auth {
            HttpAuth::Unset | HttpAuth::None => return Ok(Self::Open),
            HttpAuth::BearerTokenFile(_) => "Bearer",
            HttpAuth::BasicFile(_) => "Basic realm=\"sluice\", charset=\"UTF-8\"",
        };
        Ok(Self::Keys { keys: keys(auth)?.into(), challenge })
    }

    /// `Err`: the challenge.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let Self::Keys { keys, challenge } = self else { return Ok(()) };
        let given = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        // All are looked at, so that the time does not tell which one was near.
        let known = keys.iter().fold(false, |known, key| known | same(given, key.as_bytes()));
        if known { Ok(()) } else { Err(challenge) }
    }
}

/// The Authorization values that a worker with these settings takes; none where it asks for nothing.
///
/// # Errors
/// As [`Gate::open`].
pub fn keys(auth: &HttpAuth) -> Result<Vec<String>, String> {
    match auth {
        HttpAuth::Unset | HttpAuth::None => Ok(Vec::new()),
        HttpAuth::BearerTokenFile(file) => Ok(vec![bearer(file)?]),
        HttpAuth::BasicFile(file) => {
            let text = read(file)?;
            let users: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            if let Some(line) = users.iter().position(|user| !user.contains(':')) {
                return Err(format!("{}: user {} is not written as user:password", file.display(), line + 1));
            }
            Ok(users.into_iter().map(|user| format!("Basic {}", base64(user.as_bytes()))).collect())
        }
    }
}

/// The Authorization value for a token in a file.
///
/// # Errors
/// As [`Gate::open`].
pub fn bearer(file: &Path) -> Result<String, String> {
    Ok(format!("Bearer {}", read(file)?))
}

fn read(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let text = text.trim();
    if text.is_empty() { Err(format!("{} is empty", file.display())) } else { Ok(text.to_owned()) }
}

/// Compares in a time that tells nothing but the length.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// RFC 4648, for the one header that needs it.
fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_all_lengths() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("user:pass", "dXNlcjpwYXNz")];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn each_line_is_a_user() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        std::fs::write(&file, "user:pass\n\n  f:\n").unwrap();
        let auth = HttpAuth::BasicFile(file.clone());
        assert_eq!(keys(&auth).unwrap(), ["Basic dXNlcjpwYXNz", "Basic Zjo="]);
        for (text, reason) in [("user:pass\nplanted\n", "user 2 is not written as"), (" \n", "is empty")] {
            std::fs::write(&file, text).unwrap();
            let message = keys(&auth).unwrap_err();
            assert!(message.contains(reason) && !message.contains("planted"), "{message}");
        }
    }
}
