//! Writing an object: one PUT, or a multipart upload above the size of a part.
//!
//! Owns: create-only writes, parts and their retries, giving up.
//! Does not own: reading the content (`piece`), deciding whether an existing object is ours (the caller compares the intent id).
//!
//! A multipart upload that is given up, or whose caller goes away, is aborted; if that fails too (kill -9), its
//! parts stay until the bucket's lifecycle rule for incomplete uploads removes them.

use std::sync::Arc;

use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use futures::{StreamExt, TryStreamExt};

use super::dialect::{Checksum, Headers, is_header_text};
use super::errors::Answer;
use super::piece::{Piece, check_file};
use super::{Inner, SdkError};
use crate::store::retry::Backoff;
use crate::store::{Body, Created, Fault, StoreError, check_crc};

/// Every store takes parts of this size.
pub(super) const MIN_PART_BYTES: u64 = 5 << 20;
/// The largest part, and the largest single PUT.
pub(super) const MAX_PART_BYTES: u64 = 5 << 30;
const MAX_PARTS: u64 = 10_000;
/// Parts of one object that are sent at once; `max_uploads` limits them over all objects.
const PARTS_AT_ONCE: usize = 4;

pub(super) fn set_headers(request: &mut HttpRequest, headers: &Headers) {
    for (name, value) in headers {
        // Values were checked to be plain text.
        let _ = request.headers_mut().try_insert(*name, value.clone());
    }
}

pub(super) async fn create(
    store: &Arc<Inner>,
    key: &str,
    body: &Body,
    intent_id: Option<&str>,
) -> Result<Created, StoreError> {
    let full = store.full_key("create", key)?;
    if let Some(id) = intent_id
        && !is_header_text(id)
    {
        return Err(store.error(Fault::Invalid, "create", key, format!("the intent id {id:?} can't be a header")));
    }
    if let Body::File { path, len, .. } = body {
        check_file(path, *len).await.map_err(|why| store.error(Fault::Body, "create", key, why))?;
    }
    let attributes = store.dialect.attributes(key, intent_id);
    let write = Write { store, key, full, body };
    if body.len() <= store.part_bytes { write.put(attributes).await } else { write.multipart(attributes).await }
}

/// What one request sends.
struct Prepared {
    /// This or the next is set.
    content_md5: Option<String>,
    crc_header: Option<String>,
    crc: u32,
    content: ByteStream,
}

/// One object on its way.
struct Write<'a> {
    store: &'a Arc<Inner>,
    key: &'a str,
    full: String,
    body: &'a Body,
}

impl Write<'_> {
    fn failed<E>(&self, error: &SdkError<E>) -> StoreError
    where
        E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.store.failed("create", self.key, &Answer::of(error))
    }

    /// A place among the uploads in flight. Small things from memory, such as log entries, need none.
    async fn turn(&self) -> Result<Option<tokio::sync::SemaphorePermit<'_>>, StoreError> {
        match self.body {
            Body::Bytes(_) => Ok(None),
            Body::File { .. } => match self.store.uploads.acquire().await {
                Ok(permit) => Ok(Some(permit)),
                Err(_) => Err(self.store.error(Fault::Transient, "create", self.key, "the store is closed")),
            },
        }
    }

    async fn prepared(&self, piece: &Piece) -> Result<Prepared, StoreError> {
        let kind = self.store.dialect.checksum();
        let unreadable = |why: String| self.unusable(format!("reading the body: {why}"));
        let (sum, crc) = piece.checksum(kind).await.map_err(|e| unreadable(e.to_string()))?;
        let content = piece.stream().await.map_err(unreadable)?;
        let (content_md5, crc_header) = match kind {
            Checksum::Md5 => (Some(sum), None),
            Checksum::Crc32c => (None, Some(sum)),
        };
        Ok(Prepared { content_md5, crc_header, crc, content })
    }

    fn unusable(&self, why: String) -> StoreError {
        self.store.error(Fault::Body, "create", self.key, why)
    }

    /// Whether what was read is what was announced. The store has the same checksums, of what arrives.
    fn check(&self, found: u32) -> Result<(), StoreError> {
        match self.body {
            Body::File { path, crc, .. } => check_crc(path, found, *crc).map_err(|why| self.unusable(why)),
            Body::Bytes(_) => Ok(()),
        }
    }

    async fn put(&self, mut headers: Headers) -> Result<Created, StoreError> {
        let _turn = self.turn().await?;
        let piece = Piece::of(self.body, 0, self.body.len());
        let Prepared { content_md5, crc_header, crc, content } = self.prepared(&piece).await?;
        self.check(crc)?;
        headers.push(self.store.dialect.create_only());
        let sent = self
            .store
            .client
            .put_object()
            .bucket(&self.store.bucket)
            .key(&self.full)
            .content_length(i64::try_from(piece.len()).unwrap_or(i64::MAX))
            .set_content_md5(content_md5)
            .set_checksum_crc32_c(crc_header)
            .body(content)
            .customize()
            .config_override(self.store.with_time_for(piece.len()))
            .mutate_request(move |request| set_headers(request, &headers))
            .send()
            .await;
        match sent {
            Ok(output) if output.e_tag.is_none() => Err(self.store.garbled("create", self.key, "it holds no etag")),
            Ok(_) => Ok(Created::New),
            Err(error) if Answer::of(&error).says_exists() => Ok(Created::Exists),
            Err(error) => Err(self.failed(&error)),
        }
    }

    async fn multipart(&self, mut headers: Headers) -> Result<Created, StoreError> {
        let store = self.store;
        if store.dialect.forbids_at_start() {
            headers.push(store.dialect.create_only());
        }
        let crc = (store.dialect.checksum() == Checksum::Crc32c).then_some(ChecksumAlgorithm::Crc32C);
        let started = store
            .client
            .create_multipart_upload()
            .bucket(&store.bucket)
            .key(&self.full)
            .set_checksum_algorithm(crc)
            .customize()
            .mutate_request(move |request| set_headers(request, &headers))
            .send()
            .await;
        let id = match started {
            Ok(output) => output.upload_id.ok_or_else(|| store.garbled("create", self.key, "it holds no upload id"))?,
            Err(error) if Answer::of(&error).says_exists() => return Ok(Created::Exists),
            Err(error) => return Err(self.failed(&error)),
        };
        let mut upload = Upload { store: Arc::clone(store), full: self.full.clone(), id, open: true };
        let outcome = match self.parts(&upload.id).await {
            Ok((parts, crc)) => match self.check(crc) {
                Ok(()) => self.complete(&upload.id, parts).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match outcome {
            Ok(Created::New) => upload.open = false,
            Ok(Created::Exists) | Err(_) => upload.abort().await,
        }
        outcome
    }

    /// All parts, and the CRC32C of the whole.
    async fn parts(&self, id: &str) -> Result<(Vec<CompletedPart>, u32), StoreError> {
        let len = self.body.len();
        let part_bytes = self.store.part_bytes.max(len.div_ceil(MAX_PARTS));
        let parts = (0..len.div_ceil(part_bytes)).map(|n| {
            let offset = n * part_bytes;
            let piece = Piece::of(self.body, offset, part_bytes.min(len - offset));
            async move {
                let (part, crc) = self.part_in_rounds(id, n as i32 + 1, &piece).await?;
                Ok((part, crc, piece.len()))
            }
        });
        let sent: Vec<(CompletedPart, u32, u64)> =
            futures::stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await?;
        let mut whole = 0;
        let mut parts = Vec::with_capacity(sent.len());
        for (part, crc, len) in sent {
            whole = crc32c::crc32c_combine(whole, crc, len as usize);
            parts.push(part);
        }
        Ok((parts, whole))
    }

    async fn part_in_rounds(&self, id: &str, number: i32, piece: &Piece) -> Result<(CompletedPart, u32), StoreError> {
        let mut backoff = Backoff::new();
        loop {
            match self.part(id, number, piece).await {
                Err(error) if self.once_more(&backoff, &error) => pause(&mut backoff, &error).await,
                other => return other,
            }
        }
    }

    fn once_more(&self, backoff: &Backoff, error: &StoreError) -> bool {
        matches!(error.fault, Fault::Transient | Fault::Throttled { .. })
            && backoff.failures() < self.store.patience.part_rounds
    }

    async fn part(&self, id: &str, number: i32, piece: &Piece) -> Result<(CompletedPart, u32), StoreError> {
        let _turn = self.turn().await?;
        let Prepared { content_md5, crc_header, crc, content } = self.prepared(piece).await?;
        let sent = self
            .store
            .client
            .upload_part()
            .bucket(&self.store.bucket)
            .key(&self.full)
            .upload_id(id)
            .part_number(number)
            .content_length(i64::try_from(piece.len()).unwrap_or(i64::MAX))
            .set_content_md5(content_md5)
            .set_checksum_crc32_c(crc_header.clone())
            .body(content)
            .customize()
            .config_override(self.store.with_time_for(piece.len()))
            .send()
            .await
            .map_err(|error| self.failed(&error))?;
        let etag = sent.e_tag.ok_or_else(|| self.store.garbled("create", self.key, "a part has no etag"))?;
        let part = CompletedPart::builder().part_number(number).e_tag(etag).set_checksum_crc32_c(crc_header).build();
        Ok((part, crc))
    }

    async fn complete(&self, id: &str, parts: Vec<CompletedPart>) -> Result<Created, StoreError> {
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let mut backoff = Backoff::new();
        loop {
            let headers = vec![self.store.dialect.create_only()];
            let sent = self
                .store
                .client
                .complete_multipart_upload()
                .bucket(&self.store.bucket)
                .key(&self.full)
                .upload_id(id)
                .multipart_upload(list.clone())
                .customize()
                // Some stores copy the parts together before they answer.
                .config_override(self.store.with_time_for(self.body.len()))
                .mutate_request(move |request| set_headers(request, &headers))
                .send()
                .await;
            let answer = match sent {
                Ok(_) => return Ok(Created::New),
                Err(error) => Answer::of(&error),
            };
            if answer.says_exists() {
                return Ok(Created::Exists);
            }
            // The upload is gone: an earlier request that seemed to fail has completed it, or someone aborted it.
            if answer.is("NoSuchUpload") && self.store.head("create", self.key).await?.is_some() {
                return Ok(Created::Exists);
            }
            let error = self.store.failed("create", self.key, &answer);
            if answer.is("NoSuchUpload") || !self.once_more(&backoff, &error) {
                return Err(error);
            }
            pause(&mut backoff, &error).await;
        }
    }
}

async fn pause(backoff: &mut Backoff, error: &StoreError) {
    // Without randomness the wait is the longest.
    let wait = backoff.next(getrandom::u64().unwrap_or(u64::MAX), &error.fault);
    tokio::time::sleep(wait).await;
}

/// A multipart upload at the store; aborted when it is dropped open.
struct Upload {
    store: Arc<Inner>,
    full: String,
    id: String,
    open: bool,
}

impl Upload {
    async fn abort(&mut self) {
        self.open = false;
        let (store, full, id) = (Arc::clone(&self.store), self.full.clone(), self.id.clone());
        abort(store, full, id).await;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.open, tokio::runtime::Handle::try_current()) {
            runtime.spawn(abort(Arc::clone(&self.store), self.full.clone(), self.id.clone()));
        }
    }
}

async fn abort(store: Arc<Inner>, full: String, id: String) {
    let sent = store.client.abort_multipart_upload().bucket(&store.bucket).key(&full).upload_id(id).send().await;
    if let Err(error) = sent {
        let answer = Answer::of(&error);
        if !answer.is("NoSuchUpload") {
            tracing::warn!(url = %store.url, key = %full, error = %answer.words(), "could not abort a multipart upload");
        }
    }
}
