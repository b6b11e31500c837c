//! Bringing a finished file to the store, under a key that was decided before.
//!
//! Owns: create-only with retries until the outcome is known, telling one's own object from another's.
//! Does not own: when a file may be uploaded, how many at a time.

use super::spool::{Finished, FinishedFile};
use crate::archive::codec::Codec;
use crate::archive::index::{self, IndexRead};
use crate::clock::Environment;
use crate::store::retrying::retrying;
use crate::store::{Body, ByteRange, Created, Head, Store, StoreError};

/// Bytes read from the end of an object to find its index.
const TAIL_BYTES: u64 = 64 * 1024;

/// Why an object can't be brought to the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UploadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key is taken by something that we did not write; it is never overwritten.
    #[error("object {url}/{key} exists and is not ours: it should hold intent {expected}, it holds {found}")]
    Foreign { url: String, key: String, expected: String, found: String },
}

/// What the store has under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// The object of this very intent.
    Ours,
}

/// Uploads a file, and its sidecar before it. Returns when the store has acknowledged it, or has it already.
///
/// # Errors
/// [`UploadError`]; transient failures are retried inside, for ever.
pub async fn upload(
    store: &dyn Store,
    environment: &Environment,
    key: &str,
    intent: &str,
    file: &FinishedFile,
) -> Result<(), UploadError> {
    if let Some(sidecar) = &file.sidecar {
        // That of an earlier attempt serves as well: the data of an intent are the same bytes in all of them.
        create(store, environment, &index::sidecar_key(key), intent, sidecar).await?;
    }
    create(store, environment, key, intent, &file.data).await
}

async fn create(
    store: &dyn Store,
    environment: &Environment,
    key: &str,
    intent: &str,
    file: &Finished,
) -> Result<(), UploadError> {
    let body = Body::File { path: file.path.clone(), len: file.bytes, crc: Some(file.crc) };
    match retrying(environment, || store.create(key, &body, Some(intent))).await? {
        Created::New => Ok(()),
        // An earlier attempt whose answer was lost, or an earlier owner's: the same records either way.
        Created::Exists => match find(store, environment, key, intent).await? {
            Found::Ours => Ok(()),
            Found::Nothing => Err(foreign(store, key, intent, "nothing any more: it was deleted meanwhile")),
        },
    }
}

/// Looks whether the object of an intent is in the store.
///
/// # Errors
/// [`UploadError::Foreign`]: another object has the key.
pub async fn find(store: &dyn Store, environment: &Environment, key: &str, intent: &str) -> Result<Found, UploadError> {
    let Some(head) = retrying(environment, || store.head(key)).await? else { return Ok(Found::Nothing) };
    let found = match &head.intent_id {
        Some(id) => id.clone(),
        None => intent_in_index(store, environment, key, &head).await?,
    };
    if found == intent { Ok(Found::Ours) } else { Err(foreign(store, key, intent, &found)) }
}

/// Stores without metadata: the index at the end of the object says whose it is.
async fn intent_in_index(
    store: &dyn Store,
    environment: &Environment,
    key: &str,
    head: &Head,
) -> Result<String, UploadError> {
    let codec = index::codec_of_key(key);
    let sidecar = index::sidecar_key(key);
    let index_key = if codec == Codec::None && !index::is_sidecar(key) { sidecar.as_str() } else { key };
    let mut len = TAIL_BYTES;
    loop {
        let range = ByteRange::Last { len };
        let Some(got) = retrying(environment, || store.get(index_key, range, None)).await? else {
            return Ok("no index".to_owned());
        };
        match index::read_index(codec, got.size, &got.bytes) {
            Ok(IndexRead::Index(index)) => return Ok(index.facts.intent_id),
            Ok(IndexRead::NeedMore { len: more }) if more > len && more <= head.size.max(got.size) => len = more,
            Ok(IndexRead::NeedMore { .. }) => return Ok("a damaged index".to_owned()),
            Err(error) => return Ok(format!("no index ({error})")),
        }
    }
}

fn foreign(store: &dyn Store, key: &str, expected: &str, found: &str) -> UploadError {
    UploadError::Foreign {
        url: store.url().to_owned(),
        key: key.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
