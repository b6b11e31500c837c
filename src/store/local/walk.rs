//! Listing a directory tree in the order of its keys.
//!
//! Owns: the order and what memory it takes.
//! Does not own: pages.
//!
//! Keys are ordered bytewise as whole strings, so `/` takes part: `a-b` comes before `a/b` comes before `a0`. Within one
//! directory that is the order of the names with `/` appended to those of subdirectories. Of each directory on the way only
//! the next `limit + 1` names are held, so a page costs one or few scans of each directory that it touches.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use super::super::page::{Entry, is_after};
use super::super::{Depth, Listed};
use super::write::is_temp;

pub(super) struct Walk<'a> {
    pub(super) root: &'a Path,
    pub(super) depth: Depth,
    pub(super) after: Option<&'a str>,
    pub(super) limit: usize,
}

impl Walk<'_> {
    /// The first `limit + 1` entries whose name begins with `prefix`, in order.
    pub(super) fn below(&self, prefix: &str) -> io::Result<Vec<Entry>> {
        let (folder, begin) = prefix.rfind('/').map_or(("", prefix), |slash| prefix.split_at(slash + 1));
        let mut found = Vec::new();
        let _ = self.visit(folder, begin, &mut found)?;
        Ok(found)
    }

    /// Adds the entries of `folder` (empty, or ending in `/`) whose names begin with `begin`; breaks when there are enough.
    fn visit(&self, folder: &str, begin: &str, found: &mut Vec<Entry>) -> io::Result<ControlFlow<()>> {
        let mut seen: Option<String> = None;
        loop {
            let names = self.next_names(folder, begin, seen.as_deref())?;
            for name in &names {
                let full = format!("{folder}{name}");
                match (name.ends_with('/'), self.depth) {
                    (true, Depth::All) => match unless_gone(self.visit(&full, "", found))? {
                        Some(ControlFlow::Break(())) => return Ok(ControlFlow::Break(())),
                        Some(ControlFlow::Continue(())) | None => {}
                    },
                    (true, Depth::Folder) => {
                        if has_object(&self.root.join(&full))? {
                            found.push(Entry::Folder(full));
                        }
                    }
                    (false, _) => {
                        if let Some(meta) = unless_gone(fs::symlink_metadata(self.root.join(&full)))? {
                            found.push(Entry::Object(Listed { key: full, size: meta.len() }));
                        }
                    }
                }
                if found.len() > self.limit {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if names.len() <= self.limit {
                return Ok(ControlFlow::Continue(()));
            }
            seen = names.last().cloned();
        }
    }

    /// The next `limit + 1` names above `seen`, subdirectories with `/` appended.
    fn next_names(&self, folder: &str, begin: &str, seen: Option<&str>) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(self.root.join(folder))? {
            let entry = entry?;
            let Some((name, is_dir)) = plain_name(&entry) else { continue };
            if !name.starts_with(begin) {
                continue;
            }
            let name = if is_dir { format!("{name}/") } else { name };
            let full = format!("{folder}{name}");
            let holds_more =
                is_dir && self.depth == Depth::All && self.after.is_some_and(|after| after.starts_with(&full));
            if is_after(&name, seen) && (is_after(&full, self.after) || holds_more) {
                names.insert(name);
                if names.len() > self.limit + 1 {
                    names.pop_last();
                }
            }
        }
        Ok(names)
    }
}

/// Name of a file or directory that can be a key, and whether it is a directory. Links, sockets and names that are not
/// UTF-8 are none of ours.
fn plain_name(entry: &fs::DirEntry) -> Option<(String, bool)> {
    let kind = entry.file_type().ok()?;
    let name = entry.file_name().into_string().ok()?;
    let plain = kind.is_dir() || (kind.is_file() && !is_temp(&name));
    plain.then(|| (name, kind.is_dir()))
}

/// Whether any object lies below: a store without directories would not show an empty one.
fn has_object(dir: &Path) -> io::Result<bool> {
    let Some(entries) = unless_gone(fs::read_dir(dir))? else { return Ok(false) };
    for entry in entries {
        let entry = entry?;
        match plain_name(&entry) {
            Some((_, false)) => return Ok(true),
            Some((_, true)) if has_object(&entry.path())? => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

/// `None` for what was removed since its name was read.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
