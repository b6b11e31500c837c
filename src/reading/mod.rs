//! Reading an archive back: what `ls`, `cat`, `grep` and `verify` stand on. Needs neither Kafka nor the log.
//!
//! ```text
//!  place -> catalog (keys, page by page) -> file (the end of each: its index) -> order -> frames (ranges) -> work on cores -> out
//! ```
//!
//! Owns: finding an app's files, their indexes, the frames that a question needs, in bounded memory.
//! Does not own: bytes of files ([`crate::archive`]), requests ([`crate::store`]), arguments ([`crate::cli`]).
//!
//! A file that is damaged is named and left out; the others are read. Nothing that a store sends is believed: lengths have
//! limits before memory is taken, frames and tables have checksums, and the etag of an index is pinned for all that is read
//! by it, since an object may be finished twice with other bytes (and the same records).

pub mod batch;
pub mod cat;
pub mod catalog;
pub mod counted;
pub mod fetch;
pub mod file;
pub mod foreign;
pub mod grep;
pub mod order;
pub mod place;
pub mod reader;
pub mod report;
pub mod survey;
pub mod sweep;
pub mod times;
pub mod units;

use crate::archive::index::IndexError;
use crate::store::{Fault, StoreError};

/// Why something of an archive can't be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The store can't be reached, or refuses: nothing else is tried.
    #[error(transparent)]
    Store(StoreError),
    /// This file is not what was written; others may be.
    #[error("{url}/{key} is damaged: {why}")]
    Damaged { url: String, key: String, why: String },
    /// A newer version wrote this file.
    #[error("{url}/{key}: {why}")]
    Newer { url: String, key: String, why: String },
    /// It was listed, and is not there any more.
    #[error("{url}/{key} was deleted while it was read")]
    Gone { url: String, key: String },
    /// It is another object than the one whose index was read.
    #[error("{url}/{key} was written again while it was read")]
    Changed { url: String, key: String },
}

impl ReadError {
    /// Whether only one file is concerned, so that the others can be read.
    pub fn is_of_one_file(&self) -> bool {
        !matches!(self, Self::Store(_))
    }

    /// What an index that can't be read means for its file.
    pub(crate) fn of_index(url: &str, key: &str, error: &IndexError) -> Self {
        let (url, key, why) = (url.to_owned(), key.to_owned(), error.to_string());
        match error {
            IndexError::Newer { .. } => Self::Newer { url, key, why },
            _ => Self::Damaged { url, key, why },
        }
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error.fault {
            Fault::Changed => Self::Changed { url: error.url, key: error.key },
            _ => Self::Store(error),
        }
    }
}
