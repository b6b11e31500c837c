//! How an object appears in a directory: whole or not at all, once, and durable.
//!
//! Owns: temporary files, hard links, fsync, leftovers of dead writers.
//! Does not own: which key lies where.
//!
//! The content is written under a temporary name, fsynced, then hard-linked to its final name: link(2) fails if the name is
//! taken, which makes it create-only also between processes and machines. Then the directory is fsynced. A sealed file of the
//! spool on the same file system is linked straight to its final name, without a copy: nobody may change it afterwards, the
//! spool unlinks its own name later.
//!
//! A process that dies in between leaves a temporary file. Its writer held a lock on it (flock); the next process that
//! writes to that directory removes those that nobody locks. Where locks do not reach (some network file systems) it may
//! take away the file of a living writer; that writer's link then fails and its caller tries again.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::key::TEMP_PREFIX;
use super::super::{Body, Created};
use super::{Doing, Failure};

/// Directories that are remembered as settled; over it they are looked at again.
const MAX_SETTLED: usize = 4096;
const READ_BYTES: usize = 256 << 10;
const READING: &str = "reading the spooled file";

#[derive(Debug)]
pub(super) struct Writer {
    root: PathBuf,
    /// Makes temporary names unique: a random number of this writer and a count.
    random: u64,
    count: AtomicU64,
    /// Directories that are there, durably, and hold no leftovers.
    settled: Mutex<HashSet<PathBuf>>,
}

impl Writer {
    pub(super) fn new(root: PathBuf, random: u64) -> Self {
        Self { root, random, count: AtomicU64::new(0), settled: Mutex::default() }
    }

    /// Creates the file `path`, which is below the root.
    pub(super) fn create(&self, path: &Path, body: &Body) -> Result<Created, Failure> {
        let dir = path.parent().unwrap_or(&self.root);
        if let Body::File { path: source, len, crc } = body {
            sync_source(source, *len, *crc)?;
        }
        let settle_and_place = || self.settle(dir).and_then(|()| self.place(path, dir, body));
        match settle_and_place() {
            // Someone removed the directory or swept our temporary file: once more from the start.
            Err(failure) if failure.error.kind() == io::ErrorKind::NotFound => {
                self.settled().retain(|known| !dir.starts_with(known));
                settle_and_place()
            }
            other => other,
        }
    }

    fn place(&self, path: &Path, dir: &Path, body: &Body) -> Result<Created, Failure> {
        let created = match body {
            _ if exists(path)? => Created::Exists,
            Body::File { path: source, .. } => match fs::hard_link(source, path) {
                Ok(()) => Created::New,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Created::Exists,
                Err(e) if must_copy(&e) => self.place_copy(path, dir, body)?,
                Err(e) => return Err(e).doing("linking the spooled file"),
            },
            Body::Bytes(_) => self.place_copy(path, dir, body)?,
        };
        if created == Created::Exists && path.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory)).doing("the key is a folder of other keys");
        }
        // Also where it exists: whoever linked it may have died before this.
        sync_dir(dir)?;
        Ok(created)
    }

    fn place_copy(&self, path: &Path, dir: &Path, body: &Body) -> Result<Created, Failure> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let temp = dir.join(format!("{TEMP_PREFIX}{:016x}-{count:x}", self.random));
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&temp).doing("creating a temporary file")?;
        let filled = fill(&mut file, body).and_then(|()| match fs::hard_link(&temp, path) {
            Ok(()) => Ok(Created::New),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(Created::Exists),
            Err(e) if must_copy(&e) => Err(io::Error::new(io::ErrorKind::Unsupported, e))
                .doing("linking (a store needs a file system with hard links)"),
            Err(e) => Err(e).doing("linking"),
        });
        // What can't be removed now is a leftover for the next sweep.
        let _ = fs::remove_file(&temp);
        filled
    }

    /// Makes the directory and its parents up to the root, their entries durably, and removes leftovers: once per directory and
    /// process, also where it exists, since its maker may have died before the fsync. What is in the directory itself is synced with
    /// each file that is placed there.
    fn settle(&self, dir: &Path) -> Result<(), Failure> {
        if self.settled().contains(dir) {
            return Ok(());
        }
        let is_ours = dir.starts_with(&self.root);
        // The root and what is above it may be somebody else's: they are synced where they are made here.
        let must_be_synced = (is_ours && dir != self.root) || !dir.exists();
        let mut made = false;
        if let Some(parent) = dir.parent().filter(|_| must_be_synced) {
            self.settle(parent)?;
            made = match fs::create_dir(dir) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
                made => made.map(|()| true).doing("creating a directory")?,
            };
            sync_dir(parent)?;
        }
        if is_ours && !made {
            sweep(dir)?;
        }
        let mut settled = self.settled();
        if settled.len() >= MAX_SETTLED {
            settled.clear();
        }
        settled.insert(dir.to_owned());
        Ok(())
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a name in a directory is an unfinished file.
pub(super) fn is_temp(name: &str) -> bool {
    name.starts_with(TEMP_PREFIX)
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), Failure> {
    File::open(dir).and_then(|d| d.sync_all()).doing("fsync of the directory")
}

/// The errors of link(2) that a copy may avoid: another file system, a foreign owner, too many links, no links at all.
fn must_copy(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TooManyLinks
            | io::ErrorKind::Unsupported
    )
}

fn exists(path: &Path) -> Result<bool, Failure> {
    fs::exists(path).doing("stat")
}

fn sync_source(source: &Path, len: u64, crc: Option<u32>) -> Result<(), Failure> {
    let mut file = source_file(source, len)?;
    if crc.is_some() {
        let found = crc_of(&mut file).doing(READING)?;
        super::super::check_crc(source, found, crc).map_err(unusable)?;
    }
    file.sync_all().doing("fsync of the spooled file")
}

fn crc_of(file: &mut File) -> io::Result<u32> {
    let mut buffer = vec![0; READ_BYTES];
    let mut crc = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crc),
            n => crc = crc32c::crc32c_append(crc, &buffer[..n]),
        }
    }
}

/// A lost or changed body never heals by trying again; it is not the store's NotFound.
fn unusable(why: String) -> Failure {
    Failure { doing: READING, error: io::Error::new(io::ErrorKind::InvalidData, why) }
}

fn source_file(source: &Path, len: u64) -> Result<File, Failure> {
    let meta = fs::symlink_metadata(source).map_err(|e| unusable(format!("{}: {e}", source.display())))?;
    if !meta.is_file() || meta.len() != len {
        return Err(unusable(format!("{} has {} bytes, {len} were announced", source.display(), meta.len())));
    }
    File::open(source).map_err(|e| unusable(format!("{}: {e}", source.display())))
}

/// Writes the body to a new file and makes it durable.
fn fill(file: &mut File, body: &Body) -> Result<(), Failure> {
    // A lock that the file system does not offer protects nobody, and nothing depends on it.
    let _ = file.try_lock();
    match body {
        Body::Bytes(bytes) => file.write_all(bytes).doing("write")?,
        Body::File { path, len, .. } => {
            let copied = io::copy(&mut source_file(path, *len)?, file).doing("copying the spooled file")?;
            if copied != *len {
                let why = format!("{copied} bytes copied, {len} were announced");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why)).doing("copying the spooled file");
            }
        }
    }
    file.sync_all().doing("fsync")
}

/// Removes temporary files whose writers are dead. What can't be looked at stays.
fn sweep(dir: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(dir).doing("reading the directory")? {
        let entry = entry.doing("reading the directory")?;
        if !entry.file_name().to_str().is_some_and(is_temp) {
            continue;
        }
        let path = entry.path();
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}
