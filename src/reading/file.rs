//! One object of an archive, opened by its end.
//!
//! Owns: how much of the end is fetched, the pinned etag, telling files of ours from other tools'.
//! Does not own: what the index's bytes mean ([`crate::archive::index`]), which files are opened.

use futures::stream::{Stream, StreamExt};

use super::ReadError;
use super::catalog::Entry;
use super::counted::Counters;
use super::place::Place;
use crate::archive::codec::Codec;
use crate::archive::index::{Index, IndexError, IndexRead, codec_of_key, read_index, sidecar_key};
use crate::store::ByteRange;

/// Files whose ends are fetched at the same time.
pub const OPEN_AHEAD: usize = 32;

/// The end of a file of this size that is fetched at first: the facts of a usual index, and the frames of a usual file. Where it
/// is too little, a second request asks for exactly what is missing; where it is too much, it costs bytes each time.
fn first_tail_len(size: u64) -> u64 {
    (1024 + size / 1024).min(1 << 20)
}

/// How often a file is opened again that changes under the reader.
const MAX_ATTEMPTS: usize = 5;

/// A file and what it says of itself.
#[derive(Clone, Debug)]
pub struct OpenFile {
    pub entry: Entry,
    pub codec: Codec,
    /// Bytes of the object (not of a sidecar).
    pub size: u64,
    /// What later requests must find. `None` for plain files, whose index is an object of its own: they have the same bytes
    /// however often they were finished.
    pub etag: Option<String>,
    /// `None`: another tool's file, without an index.
    pub index: Option<Box<Index>>,
}

/// Opens the files of a listing, several at a time, in the order of the listing. An error of one file comes with its entry;
/// one of the listing without.
pub fn open_all<S>(
    place: &Place,
    entries: S,
) -> impl Stream<Item = Result<OpenFile, (Option<Entry>, ReadError)>> + use<S>
where
    S: Stream<Item = Result<Entry, ReadError>>,
{
    let place = place.clone();
    entries
        .map(move |entry| {
            let place = place.clone();
            async move {
                let entry = entry.map_err(|error| (None, error))?;
                open(&place, &entry).await.map_err(|error| (Some(entry), error))
            }
        })
        .buffered(OPEN_AHEAD)
}

/// Reads a file's index.
///
/// # Errors
/// [`ReadError`]: damage, a newer version, or the store.
pub async fn open(place: &Place, entry: &Entry) -> Result<OpenFile, ReadError> {
    let mut attempts = 0;
    let file = loop {
        attempts += 1;
        match open_once(place, entry).await {
            Err(ReadError::Changed { .. }) if attempts < MAX_ATTEMPTS => {}
            decided => break decided?,
        }
    };
    Counters::add(&place.counters.files, 1);
    Ok(file)
}

async fn open_once(place: &Place, entry: &Entry) -> Result<OpenFile, ReadError> {
    let codec = codec_of_key(&entry.key);
    let url = place.store.url();
    let plain = codec == Codec::None;
    let key = if plain { sidecar_key(&entry.key) } else { entry.key.clone() };
    let mut file = OpenFile { entry: entry.clone(), codec, size: entry.size, etag: None, index: None };
    let mut len = first_tail_len(entry.size);
    let mut etag: Option<String> = None;
    loop {
        let got = place.store.get(&key, ByteRange::Last { len }, etag.as_deref()).await?;
        let Some(got) = got else {
            return match (plain, entry.parts.is_some()) {
                (true, false) => Ok(file),
                (true, true) => {
                    let why = "its sidecar is missing, which was written before it".to_owned();
                    Err(ReadError::Damaged { url: url.to_owned(), key: entry.key.clone(), why })
                }
                (false, _) => Err(ReadError::Gone { url: url.to_owned(), key }),
            };
        };
        match read_index(codec, got.size, &got.bytes) {
            Ok(IndexRead::Index(index)) => {
                if plain && index.data_len != entry.size {
                    let why = format!("it has {} bytes, its index says {}", entry.size, index.data_len);
                    return Err(ReadError::Damaged { url: url.to_owned(), key: entry.key.clone(), why });
                }
                if !plain {
                    (file.size, file.etag) = (got.size, Some(got.etag));
                }
                file.index = Some(index);
                return Ok(file);
            }
            // Each answer must bring more than the last one, or a store that ignores ranges would be asked for ever.
            Ok(IndexRead::NeedMore { len: more }) if more > len && more <= got.size => {
                (len, etag) = (more, Some(got.etag));
            }
            Ok(IndexRead::NeedMore { len: more }) => {
                let why = format!("its index has {more} of its {} bytes", got.size);
                return Err(ReadError::Damaged { url: url.to_owned(), key, why });
            }
            Err(IndexError::None) if plain => {
                let why = "its sidecar is none of ours, or was cut off".to_owned();
                return Err(ReadError::Damaged { url: url.to_owned(), key: entry.key.clone(), why });
            }
            // The name is of our template, so that one of us wrote it: then its end is missing.
            Err(IndexError::None) if entry.parts.is_some() => {
                let why = "it has no index at its end: it was cut off, or another tool wrote it under a name of ours";
                return Err(ReadError::Damaged { url: url.to_owned(), key, why: why.to_owned() });
            }
            Err(IndexError::None) => {
                (file.size, file.etag) = (got.size, Some(got.etag));
                return Ok(file);
            }
            Err(error) => return Err(ReadError::of_index(url, &entry.key, &error)),
        }
    }
}
