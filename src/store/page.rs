//! Pages of a listing.
//!
//! Owns: one rule, for all stores, of what a listing holds and where it goes on.
//! Does not own: finding the entries.
//!
//! An entry is an object's key or a folder (ending in `/`). A listing holds the entries that are bytewise above `after`, so the
//! last entry of a page, key or folder, is always the right `after` for the next one. S3's own `start-after` looks at keys only
//! and would repeat the folder that it points into.

use super::{Listed, Page};

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Object(Listed),
    Folder(String),
}

impl Entry {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Object(listed) => &listed.key,
            Self::Folder(folder) => folder,
        }
    }
}

/// What a page may hold, whatever the caller asked for.
pub(super) fn clamp_limit(limit: usize) -> usize {
    limit.clamp(1, 1000)
}

/// Whether an entry belongs behind `after`.
pub(super) fn is_after(name: &str, after: Option<&str>) -> bool {
    after.is_none_or(|after| name > after)
}

/// Makes a page of at most `limit` entries in key order; `more`: the store has entries beyond these.
pub(super) fn page_of(mut entries: Vec<Entry>, limit: usize, more: bool) -> Page {
    entries.sort_by(|a, b| a.name().cmp(b.name()));
    let more = more || entries.len() > limit;
    entries.truncate(limit);
    let mut page = Page { next: entries.last().filter(|_| more).map(|e| e.name().to_owned()), ..Page::default() };
    for entry in entries {
        match entry {
            Entry::Object(listed) => page.objects.push(listed),
            Entry::Folder(folder) => page.folders.push(folder),
        }
    }
    page
}

/// The folder that a key belongs to in a listing of `prefix` by folders: up to the next `/`. `None`: it is directly below.
pub(super) fn folder_of<'k>(key: &'k str, prefix: &str) -> Option<&'k str> {
    let rest = key.get(prefix.len()..)?;
    let slash = rest.find('/')?;
    key.get(..=prefix.len() + slash)
}
