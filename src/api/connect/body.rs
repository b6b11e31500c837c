//! Bodies of requests.
//!
//! Owns: reading JSON, configurations as clients send them. Does not own: what keys mean.

use std::collections::BTreeMap;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Failure;
use crate::config::flat::FlatConfig;

/// A body that has come whole.
pub(crate) struct Body(Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let failed = |error: BytesRejection| Failure(error.status(), error.body_text());
        Bytes::from_request(request, state).await.map(Self).map_err(failed)
    }
}

impl Body {
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let unexpected = |error| wrong(&format!("the body is not what is expected here: {error}"));
        // kafka-connect-py 1.0.0 encodes a configuration that it lets be validated twice.
        if self.0.first() == Some(&b'"')
            && let Ok(inside) = serde_json::from_slice::<String>(&self.0)
        {
            return serde_json::from_str(&inside).map_err(unexpected);
        }
        serde_json::from_slice(&self.0).map_err(unexpected)
    }
}

/// What makes a connector.
#[derive(Deserialize)]
pub(crate) struct Create {
    pub(crate) name: Option<String>,
    pub(crate) config: BTreeMap<String, Value>,
    pub(crate) initial_state: Option<String>,
}

pub(crate) fn wrong(message: &str) -> Failure {
    Failure(StatusCode::BAD_REQUEST, message.to_owned())
}

/// Numbers and booleans are taken as they are written; null is left out.
pub(crate) fn flat(config: BTreeMap<String, Value>) -> Result<FlatConfig, Failure> {
    let changes = changes(config)?;
    Ok(changes.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
}

/// The same, with null as the wish to take a key out.
pub(crate) fn changes(config: BTreeMap<String, Value>) -> Result<BTreeMap<String, Option<String>>, Failure> {
    let text = |(key, value): (String, Value)| match value {
        Value::Null => Ok((key, None)),
        Value::String(text) => Ok((key, Some(text))),
        Value::Bool(_) | Value::Number(_) => Ok((key, Some(value.to_string()))),
        Value::Array(_) | Value::Object(_) => {
            Err(wrong(&format!("{key}: a configuration is flat: write keys with dots and lists with commas")))
        }
    };
    config.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_text() {
        let config = serde_json::from_str(r#"{"a":"x","b":2,"c":true,"d":null}"#).unwrap();
        let flat = flat(config).unwrap();
        assert_eq!(flat, [("a", "x"), ("b", "2"), ("c", "true")].map(|(k, v)| (k.into(), v.into())).into());
        let twice = Body(Bytes::from_static(br#""{\"a\":\"x\"}""#));
        assert_eq!(twice.read::<FlatConfig>().unwrap(), [("a".to_owned(), "x".to_owned())].into());
        let nested = serde_json::from_str(r#"{"rotate":{"max_bytes":1}}"#).unwrap();
        assert!(super::flat(nested).unwrap_err().1.starts_with("rotate: "));
    }
}
