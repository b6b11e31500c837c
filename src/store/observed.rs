//! A store whose requests are counted and whose last trouble is remembered.
//!
//! Owns: outcome counts, the trouble that status shows. Does not own: what is done about it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Body, ByteRange, Created, Depth, Fault, Got, Head, Page, Store, StoreError};
use crate::api::metrics::store_request;

/// Decorates any store.
#[derive(Debug)]
pub struct Observed {
    inner: Arc<dyn Store>,
    trouble: Mutex<Option<StoreError>>,
}

impl Observed {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, trouble: Mutex::default() }
    }

    /// The newest failure, while no request has succeeded since.
    pub fn trouble(&self) -> Option<StoreError> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note<T>(&self, op: &'static str, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        let code = match &outcome {
            Ok(_) => "ok",
            Err(error) => match error.fault {
                Fault::Transient => "transient",
                Fault::Throttled { .. } => "throttled",
                Fault::Denied => "denied",
                Fault::NoBucket => "no_bucket",
                Fault::Changed => "changed",
                Fault::Body => "body",
                Fault::Invalid => "invalid",
            },
        };
        store_request(op, code);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = outcome.as_ref().err().cloned();
        outcome
    }
}

#[async_trait]
impl Store for Observed {
    async fn create(&self, key: &str, body: &Body, intent_id: Option<&str>) -> Result<Created, StoreError> {
        self.note("create", self.inner.create(key, body, intent_id).await)
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.note("head", self.inner.head(key).await)
    }

    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        self.note("get", self.inner.get(key, range, if_match).await)
    }

    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.note("list", self.inner.list(prefix, depth, after, limit).await)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.note("delete", self.inner.delete(key).await)
    }

    fn url(&self) -> &str {
        self.inner.url()
    }
}
