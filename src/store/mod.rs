//! The door to object stores.
//!
//! Owns: what an object store must do for us ([`Store`]) and what a failure means to the caller ([`StoreError`]).
//! Does not own: retries (the callers', who know what an unknown outcome means to them), keys, contents.
//!
//! Every implementation passes the contract suite in [`contract`].

mod credentials;
mod key;
mod page;

pub mod bucket;
pub mod contract;
pub mod faults;
pub mod local;
pub mod memory;
pub mod observed;
#[cfg(test)]
pub(crate) mod overwriting;
pub mod probe;
pub mod redis;
pub mod retry;
pub mod retrying;
pub mod s3;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::probe::{ProbeReport, probe};
use crate::config::{SinkConfig, SinkUrl, StateUrl};

/// Opens the store that a sink names. Checks the settings; sends nothing to the store (that is [`probe`]'s).
pub async fn open(sink: &SinkConfig) -> Result<Arc<dyn Store>, StoreError> {
    match &sink.url {
        SinkUrl::File { dir } => Ok(Arc::new(local::LocalStore::open(dir)?)),
        SinkUrl::S3 { .. } | SinkUrl::Oss { .. } => Ok(Arc::new(s3::S3Store::open(sink).await?)),
    }
}

/// Opens the store of `state.url`; an object store takes everything but its place from the connector's sink.
pub async fn open_state(url: &StateUrl, sink: &SinkConfig) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        StateUrl::Store(url) => open(&SinkConfig { url: url.clone(), ..sink.clone() }).await,
        StateUrl::Redis(url) => Ok(Arc::new(redis::RedisStore::open(url))),
    }
}

/// What is uploaded: small things from memory, sealed files from the spool.
#[derive(Clone, Debug)]
pub enum Body {
    Bytes(Bytes),
    /// A finished file that nobody changes any more. `len` is its size in bytes, `crc` the CRC32C of what was written to it:
    /// bytes with another one are refused ([`Fault::Body`]) before an object is made of them.
    File {
        path: PathBuf,
        len: u64,
        crc: Option<u32>,
    },
}

impl Body {
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole content, compared with what was announced; `Err` says what is wrong with it.
    pub async fn read(&self) -> Result<Bytes, String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File { path, len, crc } => {
                let bytes = tokio::fs::read(path).await.map_err(|error| format!("reading the body: {error}"))?;
                if bytes.len() as u64 != *len {
                    return Err(format!("the body has {} bytes, {len} were announced", bytes.len()));
                }
                check_crc(path, crc32c::crc32c(&bytes), *crc)?;
                Ok(Bytes::from(bytes))
            }
        }
    }
}

/// Whether a file's bytes are those that were written to it.
fn check_crc(path: &Path, found: u32, announced: Option<u32>) -> Result<(), String> {
    match announced {
        Some(crc) if crc != found => Err(format!(
            "{} was changed after it was written: its CRC32C is {found:08x}, {crc:08x} was announced",
            path.display()
        )),
        _ => Ok(()),
    }
}

/// Outcome of a create-only write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object is there, whole and durable, and this call put it there.
    New,
    /// An object of this key exists; nothing was written. It may be ours from an earlier attempt whose answer was lost.
    Exists,
}

/// What a store tells of an object without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub size: u64,
    /// Changes whenever the content does; opaque.
    pub etag: String,
    /// The intent id that the writer attached, where the store keeps metadata.
    pub intent_id: Option<String>,
}

/// Which bytes of an object to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    All,
    /// `len` bytes from `start`; what lies beyond the end is left out.
    From {
        start: u64,
        len: u64,
    },
    /// The last `len` bytes, or the whole object where it is shorter.
    Last {
        len: u64,
    },
}

impl ByteRange {
    /// First byte and end (exclusive) within an object of `size` bytes.
    fn bounds(self, size: u64) -> (u64, u64) {
        match self {
            Self::All => (0, size),
            Self::From { start, len } => (start.min(size), start.saturating_add(len).min(size)),
            Self::Last { len } => (size.saturating_sub(len), size),
        }
    }
}

/// Bytes of an object, with the identity and whole size of what they were read from.
#[derive(Clone, Debug)]
pub struct Got {
    pub bytes: Bytes,
    pub etag: String,
    pub size: u64,
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub size: u64,
}

/// One page of a listing in key order (bytewise).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub objects: Vec<Listed>,
    /// Common prefixes up to the next `/`, each ending in `/`; only where the listing asked for folders.
    pub folders: Vec<String>,
    /// Where to go on: pass it as `after`. `None`: this was the last page.
    pub next: Option<String>,
}

/// How deep a listing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every object below the prefix.
    All,
    /// Objects and folders directly below the prefix.
    Folder,
}

/// An object store, or one prefix of it. Keys are relative to that prefix, `/`-separated, never begin with `/`.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Writes the object only if no object of this key exists. It appears whole or not at all, and is durable when this
    /// returns. An error leaves the outcome unknown: the object may appear later, also long after.
    async fn create(&self, key: &str, body: &Body, intent_id: Option<&str>) -> Result<Created, StoreError>;

    /// `None`: no such object.
    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError>;

    /// `None`: no such object. With `if_match` an object of another etag is an error of [`Fault::Changed`].
    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError>;

    /// At most `limit` entries (1 to 1,000) below `prefix` (a string prefix, as in S3) whose key or folder is bytewise above
    /// `after`.
    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Deleting what is not there succeeds.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// What the bucket around it does to objects by itself; `None` where there is no bucket.
    async fn bucket(&self) -> Option<bucket::Bucket> {
        None
    }

    /// The address for messages; never holds a secret.
    fn url(&self) -> &str;
}

/// What the caller does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Try again with backoff: the network, a timeout, a 5xx.
    Transient,
    /// Try again, not before `wait` where the store named it.
    Throttled { wait: Option<Duration> },
    /// 401, 403, expired or wrong credentials: pause, try slowly, say so.
    Denied,
    /// The bucket or folder does not exist: pause, try slowly, say so.
    NoBucket,
    /// The object is not the one that `if_match` named.
    Changed,
    /// The file to upload is gone, or is not what was announced: the local disk lost or changed it.
    Body,
    /// The request can never succeed as it is: a setting is wrong, or this is a bug.
    Invalid,
}

/// A failed request to a store. Holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{op} {url}/{key}: {message}")]
pub struct StoreError {
    pub fault: Fault,
    /// `create`, `head`, `get`, `list`, `delete`.
    pub op: &'static str,
    pub url: String,
    pub key: String,
    /// Cause in words, with the store's code and request id where there are any.
    pub message: String,
}

impl StoreError {
    pub(crate) fn new(fault: Fault, op: &'static str, url: &str, key: &str, message: impl Into<String>) -> Self {
        Self { fault, op, url: url.to_owned(), key: key.to_owned(), message: message.into() }
    }
}
