//! A log as objects of a store, beside the data.
//!
//! Owns: the names of entries. Does not own: the store.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::LogDoor;
use crate::store::{Body, ByteRange, Created, Depth, Store, StoreError};

/// Entries `<prefix><20-digit number>` in a store.
#[derive(Debug)]
pub struct StoreLog {
    store: Arc<dyn Store>,
    /// Ends in `/`.
    prefix: String,
}

impl StoreLog {
    /// `path` is the log's folder, without a trailing `/`.
    pub fn new(store: Arc<dyn Store>, path: &str) -> Self {
        Self { store, prefix: format!("{path}/") }
    }

    fn key(&self, number: u64) -> String {
        format!("{}{number:020}", self.prefix)
    }
}

#[async_trait]
impl LogDoor for StoreLog {
    async fn create(&self, number: u64, entry: Bytes) -> Result<Created, StoreError> {
        self.store.create(&self.key(number), &Body::Bytes(entry), None).await
    }

    async fn read(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.store.get(&self.key(number), ByteRange::All, None).await?.map(|got| got.bytes))
    }

    async fn numbers(&self, after: u64) -> Result<Vec<u64>, StoreError> {
        let mut numbers = Vec::new();
        let mut from = Some(self.key(after));
        while let Some(after) = from {
            let page = self.store.list(&self.prefix, Depth::Folder, Some(&after), 1000).await?;
            // Names that are not numbers are not entries: a file system may hold leftovers of its own.
            numbers.extend(page.objects.iter().filter_map(|object| {
                let name = object.key.strip_prefix(&self.prefix)?;
                (name.len() == 20).then(|| name.parse::<u64>().ok())?
            }));
            from = page.next;
        }
        Ok(numbers)
    }

    async fn delete(&self, number: u64) -> Result<(), StoreError> {
        self.store.delete(&self.key(number)).await
    }

    fn place(&self) -> String {
        format!("{}/{}", self.store.url(), self.prefix.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::log::contract;
    use crate::store::local::LocalStore;
    use crate::store::memory::MemoryStore;

    async fn keeps_the_contract(store: Arc<dyn Store>) {
        let logs = AtomicU32::new(0);
        contract::run(|| {
            let number = logs.fetch_add(1, Ordering::Relaxed);
            Arc::new(StoreLog::new(Arc::clone(&store), &format!("_sluice/c/t/1/{number}")))
        })
        .await;
    }

    #[tokio::test]
    async fn in_memory() {
        keeps_the_contract(Arc::new(MemoryStore::new())).await;
    }

    #[tokio::test]
    async fn in_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        keeps_the_contract(Arc::new(LocalStore::open(dir.path()).unwrap())).await;
    }
}
