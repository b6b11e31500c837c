//! A store whose create-only does not work, as of a bucket that ignores the condition.
//!
//! Owns: overwriting, for tests. Does not own: anything else of a store.

use async_trait::async_trait;

use super::memory::MemoryStore;
use super::{Body, ByteRange, Created, Depth, Got, Head, Page, Store, StoreError};

/// A store that overwrites.
#[derive(Debug, Default)]
pub(crate) struct Overwriting(MemoryStore);

#[async_trait]
impl Store for Overwriting {
    async fn create(&self, key: &str, body: &Body, intent_id: Option<&str>) -> Result<Created, StoreError> {
        self.0.delete(key).await?;
        self.0.create(key, body, intent_id).await
    }
    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.0.head(key).await
    }
    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        self.0.get(key, range, if_match).await
    }
    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.0.list(prefix, depth, after, limit).await
    }
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.0.delete(key).await
    }
    fn url(&self) -> &str {
        self.0.url()
    }
}
