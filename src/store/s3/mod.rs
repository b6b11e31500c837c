//! Objects in an S3-compatible store.
//!
//! Owns: requests that read, list and delete; what their answers mean.
//! Does not own: writing (`upload`), the flavors' rules (`dialect`), what failures mean (`errors`), waiting between attempts
//! beyond the SDK's few (the callers').

mod bucket;
mod client;
mod dialect;
mod errors;
mod piece;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::EncodingType;
use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;

pub use self::client::Patience;
use self::client::SdkError;
use self::dialect::Dialect;
pub(super) use self::dialect::query_encode;
use self::errors::Answer;
pub(super) use self::errors::causes;
use super::bucket::Bucket;
use super::key::{MAX_KEY_BYTES, check_key, check_prefix};
use super::page::{Entry, clamp_limit, is_after, page_of};
use super::{Body, ByteRange, Created, Depth, Fault, Got, Head, Listed, Page, Store, StoreError};
use crate::clock::Environment;
use crate::config::{SinkConfig, SinkUrl};

/// Beyond the size of any object; larger numbers in a range confuse some servers.
const BEYOND: u64 = 1 << 50;

/// What may be reserved for an object's content before it comes.
const MAX_RESERVE_BYTES: u64 = 8 << 20;

/// A bucket, or a prefix of one.
#[derive(Debug, Clone)]
pub struct S3Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    bucket: String,
    /// Empty, or ends in `/`.
    prefix: String,
    url: String,
    dialect: Dialect,
    part_bytes: u64,
    /// Requests that carry file content, over all objects.
    uploads: Semaphore,
    patience: Patience,
}

/// What tests change of a store's surroundings.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// `None`: one with rustls and the authorities of the system and `sink.ca_file`.
    pub http_client: Option<SharedHttpClient>,
    pub patience: Patience,
    /// Clock and randomness; `None`: the system's.
    pub environment: Option<Environment>,
    /// In place of the process's environment variables. AWS's own chain reads those of the process.
    pub variables: Option<BTreeMap<String, String>>,
}

impl S3Store {
    /// Checks the settings and prepares a client; sends nothing to the store.
    pub async fn open(sink: &SinkConfig) -> Result<Self, StoreError> {
        Self::open_with(sink, S3Options::default()).await
    }

    pub async fn open_with(sink: &SinkConfig, options: S3Options) -> Result<Self, StoreError> {
        let url = sink.url.to_string();
        let refuse = |why: String| StoreError::new(Fault::Invalid, "open", &url, "", why);
        let (SinkUrl::S3 { bucket, prefix } | SinkUrl::Oss { bucket, prefix }) = &sink.url else {
            return Err(refuse("not the address of a bucket".to_owned()));
        };
        let dialect = Dialect::new(sink).map_err(refuse)?;
        let http = match &options.http_client {
            Some(client) => client.clone(),
            None => client::http_client(sink.ca_file.as_deref()).await.map_err(refuse)?,
        };
        let client = client::client(sink, bucket, &dialect, http, &options).await.map_err(refuse)?;
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                bucket: bucket.clone(),
                prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
                url: url.trim_end_matches('/').to_owned(),
                dialect,
                part_bytes: sink.part_bytes.clamp(upload::MIN_PART_BYTES, upload::MAX_PART_BYTES),
                uploads: Semaphore::new(sink.max_uploads.get().min(Semaphore::MAX_PERMITS)),
                patience: options.patience,
            }),
        })
    }
}

impl Inner {
    fn error(&self, fault: Fault, op: &'static str, key: &str, message: impl Into<String>) -> StoreError {
        StoreError::new(fault, op, &self.url, key, message)
    }

    fn failed(&self, op: &'static str, key: &str, answer: &Answer) -> StoreError {
        self.error(answer.fault(), op, key, answer.words())
    }

    /// The key within the bucket.
    fn full_key(&self, op: &'static str, key: &str) -> Result<String, StoreError> {
        check_key(key).map_err(|why| self.error(Fault::Invalid, op, key, why))?;
        let full = format!("{}{key}", self.prefix);
        if full.len() > MAX_KEY_BYTES {
            let why = format!("with its prefix the key has {} bytes, more than {MAX_KEY_BYTES}", full.len());
            return Err(self.error(Fault::Invalid, op, key, why));
        }
        Ok(full)
    }

    /// Settings of one request that moves `len` bytes.
    fn with_time_for(&self, len: u64) -> aws_sdk_s3::config::Builder {
        aws_sdk_s3::Config::builder().timeout_config(self.patience.timeouts(len))
    }

    async fn head(&self, op: &'static str, key: &str) -> Result<Option<Head>, StoreError> {
        let full = self.full_key(op, key)?;
        match self.client.head_object().bucket(&self.bucket).key(full).send().await {
            Ok(head) => {
                let etag = head.e_tag.ok_or_else(|| self.garbled(op, key, "it holds no etag"))?;
                let size = self.size(op, key, head.content_length)?;
                let intent_id = head.metadata.and_then(|mut all| all.remove(dialect::INTENT_KEY));
                Ok(Some(Head { size, etag, intent_id }))
            }
            Err(error) => {
                let answer = Answer::of(&error);
                match answer.status {
                    // An answer to HEAD has no body that could tell more.
                    Some(404) if !answer.is("NoSuchBucket") => Ok(None),
                    _ => Err(self.failed(op, key, &answer)),
                }
            }
        }
    }

    fn size(&self, op: &'static str, key: &str, length: Option<i64>) -> Result<u64, StoreError> {
        length.and_then(|n| u64::try_from(n).ok()).ok_or_else(|| self.garbled(op, key, "it holds no length"))
    }

    /// The store answered success but not what was asked.
    fn garbled(&self, op: &'static str, key: &str, why: &str) -> StoreError {
        self.error(Fault::Transient, op, key, format!("unusable answer: {why}"))
    }

    fn changed(&self, key: &str, now: &str) -> StoreError {
        self.error(Fault::Changed, "get", key, format!("its etag is now {now}"))
    }

    /// For ranges that hold nothing: only the identity of the object is of interest.
    async fn get_nothing(&self, key: &str, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        let Some(head) = self.head("get", key).await? else { return Ok(None) };
        if if_match.is_some_and(|etag| etag != head.etag) {
            return Err(self.changed(key, &head.etag));
        }
        Ok(Some(Got { bytes: Bytes::new(), etag: head.etag, size: head.size }))
    }

    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        let full = self.full_key("get", key)?;
        let header = match range {
            ByteRange::From { len: 0, .. } | ByteRange::Last { len: 0 } => {
                return self.get_nothing(key, if_match).await;
            }
            ByteRange::From { start, .. } if start >= BEYOND => return self.get_nothing(key, if_match).await,
            ByteRange::All => None,
            ByteRange::From { start, len } => {
                Some(format!("bytes={start}-{}", start.saturating_add(len - 1).min(BEYOND)))
            }
            ByteRange::Last { len } => Some(format!("bytes=-{}", len.min(BEYOND))),
        };
        let headers = if header.is_some() { self.dialect.on_range() } else { Vec::new() };
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(full)
            .set_range(header)
            .set_if_match(if_match.map(ToOwned::to_owned))
            .customize()
            .mutate_request(move |request| upload::set_headers(request, &headers));
        match request.send().await {
            Ok(output) => self.content(key, range, output).await.map(Some),
            Err(error) => {
                let answer = Answer::of(&error);
                match answer.status {
                    Some(404) if answer.is("NoSuchKey") => Ok(None),
                    Some(416) => self.get_nothing(key, if_match).await,
                    _ => Err(self.failed("get", key, &answer)),
                }
            }
        }
    }

    /// Reads the part of the body that was asked for; a store may send more.
    async fn content(&self, key: &str, range: ByteRange, output: GetObjectOutput) -> Result<Got, StoreError> {
        let etag = output.e_tag.ok_or_else(|| self.garbled("get", key, "it holds no etag"))?;
        let length = self.size("get", key, output.content_length)?;
        let (first, size) = match output.content_range.as_deref() {
            None => (0, length),
            Some(text) => parse_content_range(text).ok_or_else(|| self.garbled("get", key, text))?,
        };
        let (start, end) = range.bounds(size);
        if first > start || first.saturating_add(length) < end {
            let why = format!("{length} bytes from {first} of {size}, for {range:?}");
            return Err(self.garbled("get", key, &why));
        }
        let read = collect(output.body, start - first, end - start, length);
        let bytes = tokio::time::timeout(self.patience.attempt(end - first), read)
            .await
            .map_err(|_| self.error(Fault::Transient, "get", key, "reading the body took too long"))?
            .map_err(|why| self.error(Fault::Transient, "get", key, why))?;
        Ok(Got { bytes, etag, size })
    }

    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        check_prefix(prefix).map_err(|why| self.error(Fault::Invalid, "list", prefix, why))?;
        let limit = clamp_limit(limit);
        // Some servers do not understand a start outside the prefix.
        let start = after.filter(|after| *after > prefix);
        if start.is_some_and(|start| !start.starts_with(prefix)) {
            return Ok(Page::default());
        }
        // One more than asked for: S3 repeats the folder that `after` names.
        let ask = i32::try_from(limit + 1).unwrap_or(1000).min(1000);
        let mut token = None;
        loop {
            let request = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(format!("{}{prefix}", self.prefix))
                .set_delimiter((depth == Depth::Folder).then(|| "/".to_owned()))
                .set_start_after(start.map(|start| format!("{}{start}", self.prefix)))
                .set_continuation_token(token.take())
                .encoding_type(EncodingType::Url)
                .max_keys(ask);
            let output = request.send().await.map_err(|e| self.failed("list", prefix, &Answer::of(&e)))?;
            let more = output.is_truncated.unwrap_or(false);
            token = output.next_continuation_token.clone();
            let mut entries = self.entries(output).map_err(|why| self.garbled("list", prefix, &why))?;
            entries.retain(|entry| is_after(entry.name(), after));
            if !entries.is_empty() || !more {
                let mut page = page_of(entries, limit, more);
                // Placeholders of consoles (`a/`) and other keys that only S3 can have are none of ours.
                page.objects.retain(|object| check_key(&object.key).is_ok());
                page.folders.retain(|folder| check_prefix(folder).is_ok());
                return Ok(page);
            }
            if token.is_none() {
                return Err(self.garbled("list", prefix, "it is cut short and does not say where to go on"));
            }
        }
    }

    /// Keys relative to the store's prefix.
    fn entries(&self, output: ListObjectsV2Output) -> Result<Vec<Entry>, String> {
        let encoded = output.encoding_type == Some(EncodingType::Url);
        let relative = |key: Option<String>| -> Result<String, String> {
            let key = key.ok_or("an entry has no key")?;
            let key = if encoded { dialect::query_decode(&key)? } else { key };
            let relative = key.strip_prefix(&self.prefix).ok_or_else(|| format!("{key:?} is outside the prefix"))?;
            Ok(relative.to_owned())
        };
        let mut entries = Vec::new();
        for object in output.contents.unwrap_or_default() {
            let size = object.size.and_then(|n| u64::try_from(n).ok()).ok_or("an object has no size")?;
            entries.push(Entry::Object(Listed { key: relative(object.key)?, size }));
        }
        for folder in output.common_prefixes.unwrap_or_default() {
            entries.push(Entry::Folder(relative(folder.prefix)?));
        }
        Ok(entries)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let full = self.full_key("delete", key)?;
        match self.client.delete_object().bucket(&self.bucket).key(full).send().await {
            Ok(_) => Ok(()),
            Err(error) => match Answer::of(&error) {
                answer if answer.status == Some(404) && answer.is("NoSuchKey") => Ok(()),
                answer => Err(self.failed("delete", key, &answer)),
            },
        }
    }
}

/// `bytes 0-9/100` -> first byte and whole size.
fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, size.trim().parse().ok()?))
}

/// Leaves out `skip` bytes of the body and takes `take`. A body that ends with the last of them is read to its end, where the
/// SDK compares checksums.
async fn collect(mut body: ByteStream, skip: u64, take: u64, length: u64) -> Result<Bytes, String> {
    let mut out = BytesMut::with_capacity(usize::try_from(take.min(MAX_RESERVE_BYTES)).unwrap_or(0));
    let (mut skip, mut left) = (skip, take);
    let to_end = skip + take >= length;
    while left > 0 || to_end {
        let Some(chunk) = body.next().await else { break };
        let chunk = chunk.map_err(|e| format!("reading the body: {e}"))?;
        let skipped = skip.min(chunk.len() as u64);
        let taken = left.min(chunk.len() as u64 - skipped);
        // Both are at most the chunk's length.
        out.extend_from_slice(&chunk[skipped as usize..(skipped + taken) as usize]);
        skip -= skipped;
        left -= taken;
    }
    if left > 0 { Err(format!("the body ended {left} bytes early")) } else { Ok(out.freeze()) }
}

#[async_trait]
impl Store for S3Store {
    async fn create(&self, key: &str, body: &Body, intent_id: Option<&str>) -> Result<Created, StoreError> {
        upload::create(&self.inner, key, body, intent_id).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.inner.head("head", key).await
    }

    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        self.inner.get(key, range, if_match).await
    }

    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, depth, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn bucket(&self) -> Option<Bucket> {
        Some(self.inner.bucket().await)
    }

    fn url(&self) -> &str {
        &self.inner.url
    }
}

#[cfg(test)]
mod tests;
