//! Objects as files below a directory.
//!
//! Owns: the path of a key, reading, deleting, what an I/O error means to the caller.
//! Does not own: how a file appears whole and durable ([`write`]), the order of a listing ([`walk`]).
//!
//! A missing directory is an empty store; the first create makes it. Once it was seen, its absence is [`Fault::NoBucket`]: a
//! vanished mount must not be mistaken for an empty archive. Symbolic links are followed by get and head, not by list.
//!
//! The etag is inode, size and modification time (ns) in hex: an object is never written to after it appeared, so another
//! content is another inode or a later time.

mod walk;
mod write;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::key::{check_key, check_prefix};
use super::page::{clamp_limit, page_of};
use super::{Body, ByteRange, Created, Depth, Fault, Got, Head, Page, Store, StoreError};

/// A store in a directory tree of one or several file systems.
#[derive(Debug)]
pub struct LocalStore {
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    dir: PathBuf,
    url: String,
    writer: write::Writer,
    /// Whether this process ever saw the directory.
    seen: AtomicBool,
}

/// An I/O error with what was being done.
#[derive(Debug)]
struct Failure {
    doing: &'static str,
    error: io::Error,
}

trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, Failure>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure { doing, error })
    }
}

impl LocalStore {
    /// Takes `dir` as the store's directory; it need not exist yet. Does not touch the disk.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let given = dir.as_ref();
        let refuse = |message: String| {
            StoreError::new(Fault::Invalid, "open", &format!("file://{}", given.display()), "", message)
        };
        let dir = std::path::absolute(given).map_err(|e| refuse(format!("not a usable path: {e}")))?;
        let random = getrandom::u64().map_err(|e| refuse(format!("no randomness: {e}")))?;
        let url = format!("file://{}", dir.display());
        let writer = write::Writer::new(dir.clone(), random);
        Ok(Self { root: Arc::new(Root { dir, url, writer, seen: AtomicBool::new(false) }) })
    }

    /// Runs `work` where blocking is allowed. It runs to its end even if the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        op: &'static str,
        key: &str,
        work: impl FnOnce(&Root) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = Arc::clone(&self.root);
        match tokio::task::spawn_blocking(move || work(&root)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(failure)) => Err(self.root.explain(op, key, &failure)),
            Err(stopped) => Err(StoreError::new(Fault::Transient, op, &self.root.url, key, stopped.to_string())),
        }
    }

    fn checked(&self, op: &'static str, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key).map_err(|m| StoreError::new(Fault::Invalid, op, &self.root.url, key, m))?;
        Ok(self.root.dir.join(key))
    }
}

impl Root {
    fn explain(&self, op: &'static str, key: &str, failure: &Failure) -> StoreError {
        let fault = match failure.error.kind() {
            io::ErrorKind::NotFound if self.vanished() => Fault::NoBucket,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Fault::Denied,
            io::ErrorKind::InvalidData => Fault::Body,
            io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
            | io::ErrorKind::FileTooLarge => Fault::Invalid,
            _ => Fault::Transient,
        };
        let message = match fault {
            Fault::NoBucket => format!("{}: the directory {} is gone", failure.doing, self.dir.display()),
            _ => format!("{}: {}", failure.doing, failure.error),
        };
        StoreError::new(fault, op, &self.url, key, message)
    }

    /// Whether the store's directory was there once and is not now.
    fn vanished(&self) -> bool {
        let there = self.dir.is_dir();
        if there {
            self.seen.store(true, Ordering::Relaxed);
        }
        !there && self.seen.load(Ordering::Relaxed)
    }

    /// Turns "not found" into `None`, unless everything is gone.
    fn found<T>(&self, result: io::Result<T>, doing: &'static str) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotADirectory => Ok(None),
                io::ErrorKind::NotFound if !self.vanished() => Ok(None),
                _ => Err(Failure { doing, error }),
            },
        }
    }

    fn create(&self, path: &Path, body: &Body) -> Result<Created, Failure> {
        if self.vanished() {
            return Err(io::Error::from(io::ErrorKind::NotFound)).doing("looking for the store");
        }
        let created = self.writer.create(path, body)?;
        self.seen.store(true, Ordering::Relaxed);
        Ok(created)
    }

    fn head(&self, path: &Path) -> Result<Option<Head>, Failure> {
        let meta = self.found(fs::metadata(path), "stat")?;
        Ok(meta.filter(Metadata::is_file).map(|m| Head { size: m.len(), etag: etag(&m), intent_id: None }))
    }

    /// The outer `Err` is the disk's, the inner one the etag found instead of the wanted one.
    fn get(&self, path: &Path, range: ByteRange, want: Option<&str>) -> Result<Option<Result<Got, String>>, Failure> {
        let Some(file) = self.found(File::open(path), "open")? else { return Ok(None) };
        let meta = file.metadata().doing("stat")?;
        if !meta.is_file() {
            return Ok(None);
        }
        let etag = etag(&meta);
        if want.is_some_and(|want| want != etag) {
            return Ok(Some(Err(etag)));
        }
        let (start, end) = range.bounds(meta.len());
        let len = usize::try_from(end - start).map_err(io::Error::other).doing("read")?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, start).doing("read")?;
        Ok(Some(Ok(Got { bytes: Bytes::from(bytes), etag, size: meta.len() })))
    }

    fn delete(&self, path: &Path) -> Result<(), Failure> {
        if self.found(fs::remove_file(path), "unlink")?.is_some()
            && let Some(parent) = path.parent()
        {
            write::sync_dir(parent)?;
        }
        Ok(())
    }
}

fn etag(meta: &Metadata) -> String {
    let time_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    format!("\"{:x}-{:x}-{time_ns:x}\"", meta.ino(), meta.len())
}

#[async_trait]
impl Store for LocalStore {
    async fn create(&self, key: &str, body: &Body, _intent_id: Option<&str>) -> Result<Created, StoreError> {
        let path = self.checked("create", key)?;
        let body = body.clone();
        self.blocking("create", key, move |root| root.create(&path, &body)).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let path = self.checked("head", key)?;
        self.blocking("head", key, move |root| root.head(&path)).await
    }

    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        let path = self.checked("get", key)?;
        let want = if_match.map(ToOwned::to_owned);
        match self.blocking("get", key, move |root| root.get(&path, range, want.as_deref())).await? {
            None => Ok(None),
            Some(Ok(got)) => Ok(Some(got)),
            Some(Err(etag)) => Err(StoreError::new(
                Fault::Changed,
                "get",
                &self.root.url,
                key,
                format!("its etag is now {etag}, not {}", if_match.unwrap_or_default()),
            )),
        }
    }

    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        check_prefix(prefix).map_err(|m| StoreError::new(Fault::Invalid, "list", &self.root.url, prefix, m))?;
        let limit = clamp_limit(limit);
        let (wanted, after) = (prefix.to_owned(), after.map(ToOwned::to_owned));
        self.blocking("list", prefix, move |root| {
            let walk = walk::Walk { root: &root.dir, depth, after: after.as_deref(), limit };
            let entries = root.found(walk.below(&wanted), "listing")?.unwrap_or_default();
            Ok(page_of(entries, limit, false))
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.checked("delete", key)?;
        self.blocking("delete", key, move |root| root.delete(&path)).await
    }

    fn url(&self) -> &str {
        &self.root.url
    }
}

#[cfg(test)]
mod tests;
