//! An object store in memory: the twin of the real ones for tests and simulation.
//!
//! Owns: the objects.
//! Does not own: anything that outlives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::key::{check_key, check_prefix};
use super::page::{Entry, clamp_limit, folder_of, page_of};
use super::{Body, ByteRange, Created, Depth, Fault, Got, Head, Listed, Page, Store, StoreError};

const URL: &str = "memory:";

#[derive(Debug)]
struct Object {
    bytes: Bytes,
    etag: String,
    intent_id: Option<String>,
}

#[derive(Debug, Default)]
struct Objects {
    by_key: BTreeMap<String, Object>,
    written: u64,
}

/// Keeps objects in memory. Nothing in it fails; `faults::Faulty` adds failures.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: Mutex<Objects>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, key: &str, body: &Body, intent_id: Option<&str>) -> Result<Created, StoreError> {
        check_key(key).map_err(|m| StoreError::new(Fault::Invalid, "create", URL, key, m))?;
        let bytes = body.read().await.map_err(|why| StoreError::new(Fault::Body, "create", URL, key, why))?;
        let mut objects = self.objects();
        if objects.by_key.contains_key(key) {
            return Ok(Created::Exists);
        }
        objects.written += 1;
        let object =
            Object { bytes, etag: format!("\"{}\"", objects.written), intent_id: intent_id.map(ToOwned::to_owned) };
        objects.by_key.insert(key.to_owned(), object);
        Ok(Created::New)
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        check_key(key).map_err(|m| StoreError::new(Fault::Invalid, "head", URL, key, m))?;
        Ok(self.objects().by_key.get(key).map(|object| Head {
            size: object.bytes.len() as u64,
            etag: object.etag.clone(),
            intent_id: object.intent_id.clone(),
        }))
    }

    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        check_key(key).map_err(|m| StoreError::new(Fault::Invalid, "get", URL, key, m))?;
        let objects = self.objects();
        let Some(object) = objects.by_key.get(key) else { return Ok(None) };
        if if_match.is_some_and(|etag| etag != object.etag) {
            return Err(StoreError::new(Fault::Changed, "get", URL, key, format!("its etag is now {}", object.etag)));
        }
        let size = object.bytes.len() as u64;
        let (start, end) = range.bounds(size);
        let bytes = object.bytes.slice(start as usize..end as usize);
        Ok(Some(Got { bytes, etag: object.etag.clone(), size }))
    }

    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        check_prefix(prefix).map_err(|m| StoreError::new(Fault::Invalid, "list", URL, prefix, m))?;
        let limit = clamp_limit(limit);
        let objects = self.objects();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut entries: Vec<Entry> = Vec::new();
        for (key, object) in objects.by_key.range::<str, _>((from, Bound::Unbounded)) {
            if entries.len() > limit || !key.starts_with(prefix) {
                break;
            }
            let folder = folder_of(key, prefix).filter(|_| depth == Depth::Folder);
            match folder {
                None => entries.push(Entry::Object(Listed { key: key.clone(), size: object.bytes.len() as u64 })),
                Some(folder) if !super::page::is_after(folder, after) => {}
                Some(folder) if entries.last().is_some_and(|last| last.name() == folder) => {}
                Some(folder) => entries.push(Entry::Folder(folder.to_owned())),
            }
        }
        Ok(page_of(entries, limit, false))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key).map_err(|m| StoreError::new(Fault::Invalid, "delete", URL, key, m))?;
        self.objects().by_key.remove(key);
        Ok(())
    }

    fn url(&self) -> &str {
        URL
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let scratch = tempfile::tempdir().unwrap();
        crate::store::contract::run(Arc::new(MemoryStore::new()), scratch.path()).await;
    }
}
