//! A store as a command reads it: each request counted, tried again a few times.
//!
//! Owns: the counters of `--stats`. Does not own: which faults are tried again ([`crate::store::retrying`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::clock::Environment;
use crate::store::retrying::retrying_briefly;
use crate::store::{Body, ByteRange, Created, Depth, Got, Head, Page, Store, StoreError};

/// What reading costs.
#[derive(Debug, Default)]
pub struct Counters {
    pub lists: AtomicU64,
    /// Heads too.
    pub gets: AtomicU64,
    pub fetched_bytes: AtomicU64,
    pub decompressed_bytes: AtomicU64,
    pub files: AtomicU64,
    pub frames: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// Decorates a store for reading.
#[derive(Debug)]
pub struct Counted {
    inner: Arc<dyn Store>,
    environment: Environment,
    counters: Arc<Counters>,
}

impl Counted {
    pub fn new(inner: Arc<dyn Store>, environment: Environment, counters: Arc<Counters>) -> Self {
        Self { inner, environment, counters }
    }
}

#[async_trait]
impl Store for Counted {
    /// Reading writes nothing; what writes decides about its retries itself.
    async fn create(&self, key: &str, body: &Body, intent_id: Option<&str>) -> Result<Created, StoreError> {
        self.inner.create(key, body, intent_id).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        Counters::add(&self.counters.gets, 1);
        retrying_briefly(&self.environment, || self.inner.head(key)).await
    }

    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        let got = retrying_briefly(&self.environment, || {
            Counters::add(&self.counters.gets, 1);
            self.inner.get(key, range, if_match)
        });
        let got = got.await?;
        Counters::add(&self.counters.fetched_bytes, got.as_ref().map_or(0, |got| got.bytes.len() as u64));
        Ok(got)
    }

    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        retrying_briefly(&self.environment, || {
            Counters::add(&self.counters.lists, 1);
            self.inner.list(prefix, depth, after, limit)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    fn url(&self) -> &str {
        self.inner.url()
    }
}
