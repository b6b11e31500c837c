//! Local disk where a file's frames wait for the upload. It may vanish at any time: correctness never depends on it.
//!
//! Owns: one growing file per open lane, frames in their order, the index entries that go with them, the tail, leftovers of
//! dead processes.
//! Does not own: what a frame holds, when a file is finished, whether leftovers may be used.
//!
//! A spool file is the object as it will lie in the store: frames, then the tail. The folder of a task is
//! `<spool>/tasks/<connector>/<topic>/<task>/<token>`, locked by nobody but the token: a new owner has a new one. A journal in it
//! ([`journal`]) says what the files hold. What a process leaves is under `<spool>/left` while the next one runs, until its task
//! takes it or it is forgotten.

mod adopt;
pub mod journal;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use adopt::{Adopted, Left};

use self::journal::{Begin, FileNote, Floor, Frame, Journal};
use super::lane::FileId;
use crate::archive::codec::Codec;
use crate::archive::frame::FrameMeta;
use crate::archive::index::{self, FileFacts};

/// What this process has in the spool's directory, and what the one before had.
const TASKS_FOLDER: &str = "tasks";
const LEFT_FOLDER: &str = "left";
const JOURNAL: &str = "journal";
/// Index entries above this many bytes go to disk, so that an open lane stays small.
const META_IN_MEMORY_BYTES: usize = 4096;

/// A process that was killed holds its lock until the kernel has taken its memory back; whoever starts the next one at once must
/// not be told that settings are wrong.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A failure of the local disk.
#[derive(Debug, thiserror::Error)]
#[error("spool {path}: {what}: {source}", path = path.display())]
pub struct SpoolError {
    pub path: PathBuf,
    pub what: &'static str,
    #[source]
    pub source: io::Error,
}

/// The spool of a worker: a folder that only one process uses.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    left: PathBuf,
    max_bytes: u64,
    /// Of what the process before left.
    left_bytes: AtomicU64,
    /// Held by who moves or deletes what was left.
    taking: Mutex<()>,
    shared: Arc<Shared>,
    /// Held as long as the worker lives.
    _lock: File,
}

#[derive(Debug, Default)]
struct Shared {
    used_bytes: AtomicU64,
    /// Nothing is deleted any more.
    kept: AtomicBool,
}

impl Spool {
    /// Opens the folder, locks it and puts what dead processes left aside. Blocks for some seconds where another process has the
    /// lock.
    ///
    /// # Errors
    /// Another process goes on using it, or it can't be written.
    pub fn open(dir: &Path, max_bytes: u64) -> Result<Self, SpoolError> {
        let fail = |what, source| SpoolError { path: dir.to_owned(), what, source };
        fs::create_dir_all(dir).map_err(|error| fail("can't be created", error))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(".lock"))
            .map_err(|error| fail("can't be written", error))?;
        lock_within(&lock, LOCK_WAIT).map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                fail("is used by another process", io::Error::from(io::ErrorKind::ResourceBusy))
            }
            fs::TryLockError::Error(error) => fail("can't be locked", error),
        })?;
        // Only these folders are ours; what else lies in the directory is left alone.
        let (tasks, left) = (dir.join(TASKS_FOLDER), dir.join(LEFT_FOLDER));
        // A process that ended before any of its tasks began leaves those of the one before.
        if tasks.exists() {
            remove(&left).map_err(|error| fail("leftovers can't be deleted", error))?;
            fs::rename(&tasks, &left).map_err(|error| fail("leftovers can't be put aside", error))?;
        }
        let left_bytes = AtomicU64::new(bytes_in(&left));
        Ok(Self {
            dir: tasks,
            left,
            max_bytes,
            left_bytes,
            taking: Mutex::default(),
            shared: Arc::default(),
            _lock: lock,
        })
    }

    /// What this process has and what the one before left.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes.load(Ordering::Relaxed) + self.left_bytes.load(Ordering::Relaxed)
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// The process ends: what lies here from now on stays for the next one.
    pub fn keep(&self) {
        self.shared.kept.store(true, Ordering::Relaxed);
    }

    pub fn is_kept(&self) -> bool {
        self.shared.kept.load(Ordering::Relaxed)
    }

    /// The folder of one ownership of a task.
    ///
    /// # Errors
    /// The folder can't be created.
    pub fn task(&self, connector: &str, topic: &str, task: u32, begin: Begin) -> Result<TaskSpool, SpoolError> {
        let dir = task_folder(&self.dir, connector, topic, task).join(&begin.token);
        let fail = |source| SpoolError { path: dir.clone(), what: "can't be created", source };
        fs::create_dir_all(&dir).map_err(fail)?;
        let journal = Journal::create(dir.join(JOURNAL), begin).map_err(fail)?;
        Ok(TaskSpool { journal: Arc::new(journal), shared: Arc::clone(&self.shared), dir })
    }
}

fn task_folder(dir: &Path, connector: &str, topic: &str, task: u32) -> PathBuf {
    dir.join(connector).join(topic).join(task.to_string())
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Of all files below; what can't be looked at counts nothing.
fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

#[allow(
    clippy::disallowed_methods,
    reason = "flock(2) tells nobody when it is let go, and nothing else runs yet at a start"
)]
fn lock_within(lock: &File, wait: Duration) -> Result<(), fs::TryLockError> {
    let until = Instant::now() + wait;
    loop {
        match lock.try_lock() {
            Err(fs::TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
            locked => return locked,
        }
    }
}

/// The spool of one ownership of a task; deleted with it, unless it is kept.
#[derive(Debug)]
pub struct TaskSpool {
    dir: PathBuf,
    journal: Arc<Journal>,
    shared: Arc<Shared>,
}

impl TaskSpool {
    /// A new, empty file; nothing is on disk before the first frame.
    pub fn file(&self, id: FileId) -> SpoolFile {
        SpoolFile {
            id,
            path: data_path(&self.dir, id),
            journal: Arc::clone(&self.journal),
            shared: Arc::clone(&self.shared),
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Writes down from where on the next process would have to read.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn write_floor(&self, floor: Floor) -> Result<(), SpoolError> {
        self.journal.floor(floor).map_err(|source| self.fail(source))
    }

    /// Writes down which frames there are, before something depends on it: the log decides about a file only as a whole, and what
    /// it has decided must be whole here too, or the next process uses nothing of the spool.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn write_journal(&self) -> Result<(), SpoolError> {
        self.journal.write().map_err(|source| self.fail(source))
    }

    fn fail(&self, source: io::Error) -> SpoolError {
        SpoolError { path: self.journal.path().to_owned(), what: "can't be written", source }
    }
}

impl Drop for TaskSpool {
    fn drop(&mut self) {
        if !self.shared.kept.load(Ordering::Relaxed) {
            // What stays is deleted at the next start.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn data_path(dir: &Path, id: FileId) -> PathBuf {
    dir.join(format!("{id:012}.data"))
}

/// One file in the making. Frames may arrive out of order; they are written in order.
#[derive(Debug)]
pub struct SpoolFile {
    id: FileId,
    path: PathBuf,
    journal: Arc<Journal>,
    shared: Arc<Shared>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_sequence: u32,
    parked: BTreeMap<u32, Parked>,
    data_bytes: u64,
    /// CRC32C of the data so far.
    data_crc: u32,
    disk_bytes: u64,
    meta: Vec<u8>,
    /// Bytes and CRC32C of the index entries that are on disk.
    meta_on_disk: Option<(u64, u32)>,
    /// What else was made beside the data.
    beside: Vec<PathBuf>,
}

/// A compressed frame, or some that were cut at once, whose turn has not come.
#[derive(Debug)]
struct Parked {
    frame: Vec<u8>,
    meta: Vec<FrameMeta>,
    note: Option<FileNote>,
}

/// A frame that is in the spool now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameStored {
    pub sequence: u32,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
}

/// A finished file: what is uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedFile {
    pub data: Finished,
    /// The index of a plain file, which has no room for one: uploaded before the data.
    pub sidecar: Option<Finished>,
}

/// A file, and what was written to it. The disk is not trusted to give it back unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub path: PathBuf,
    pub bytes: u64,
    /// CRC32C of all of them.
    pub crc: u32,
}

impl SpoolFile {
    fn fail(&self, what: &'static str) -> impl FnOnce(io::Error) -> SpoolError {
        let path = self.path.clone();
        move |source| SpoolError { path, what, source }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A panic elsewhere leaves a file that is never finished; its data is still in order.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a compressed frame, or some that were cut at once; returns what reached the disk by it, itself among it or not. With a
    /// note, the journal tells of it.
    ///
    /// # Errors
    /// The disk is full or broken. The file is then unusable.
    pub fn write_frame(
        &self,
        sequence: u32,
        frame: Vec<u8>,
        meta: Vec<FrameMeta>,
        note: Option<FileNote>,
    ) -> Result<Vec<FrameStored>, SpoolError> {
        let mut inner = self.lock();
        inner.parked.insert(sequence, Parked { frame, meta, note });
        let mut stored = Vec::new();
        while let Some(Parked { frame: bytes, meta, note }) = {
            let next = inner.next_sequence;
            inner.parked.remove(&next)
        } {
            self.append(&self.path, &bytes).map_err(self.fail("can't be written"))?;
            let (mut entries, mut offset) = (Vec::new(), inner.data_bytes);
            for meta in &meta {
                index::append_frame(&mut entries, offset, meta);
                offset += meta.stored_len;
            }
            self.add_index(&mut inner, &entries)?;
            inner.data_bytes += bytes.len() as u64;
            inner.data_crc = crc32c::crc32c_append(inner.data_crc, &bytes);
            self.count(&mut inner, bytes.len() as u64);
            let sequence = inner.next_sequence;
            let raw_bytes = meta.iter().map(|meta| meta.raw_len).sum();
            stored.push(FrameStored { sequence, stored_bytes: bytes.len() as u64, raw_bytes });
            inner.next_sequence += 1;
            if let Some(note) = note {
                let (bytes, crc) = (inner.data_bytes, inner.data_crc);
                let frame = Frame { file: self.id, sequence, bytes, crc, raw: raw_bytes, note };
                self.journal.frame(frame, &entries).map_err(self.fail("has a journal that can't be written"))?;
            }
        }
        Ok(stored)
    }

    fn add_index(&self, inner: &mut Inner, entries: &[u8]) -> Result<(), SpoolError> {
        inner.meta.extend_from_slice(entries);
        if inner.meta.len() > META_IN_MEMORY_BYTES {
            let entries = std::mem::take(&mut inner.meta);
            if inner.meta_on_disk.is_none() {
                inner.beside.push(self.meta_path());
            }
            self.append(&self.meta_path(), &entries).map_err(self.fail("index entries can't be written"))?;
            let (bytes, crc) = inner.meta_on_disk.unwrap_or_default();
            inner.meta_on_disk = Some((bytes + entries.len() as u64, crc32c::crc32c_append(crc, &entries)));
            self.count(inner, entries.len() as u64);
        }
        Ok(())
    }

    fn count(&self, inner: &mut Inner, bytes: u64) {
        inner.disk_bytes += bytes;
        self.shared.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Opened for each frame: ten thousand open lanes need no descriptors.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().append(true).create(true).open(path)?.write_all(bytes)
    }

    fn meta_path(&self) -> PathBuf {
        self.path.with_extension("meta")
    }

    /// Writes the tail (or the sidecar); every frame must have been stored.
    ///
    /// # Errors
    /// The disk is full or broken, or the file is not what was written to it.
    pub fn finish(&self, codec: Codec, facts: &FileFacts) -> Result<FinishedFile, SpoolError> {
        let mut inner = self.lock();
        let mut file = OpenOptions::new().append(true).open(&self.path).map_err(self.fail("is gone"))?;
        let len = file.metadata().map_err(self.fail("is gone"))?.len();
        if len != inner.data_bytes || !inner.parked.is_empty() {
            return Err(self.changed(format!("{len} bytes instead of {}", inner.data_bytes)));
        }
        let mut meta = Vec::new();
        if let Some((bytes, crc)) = inner.meta_on_disk {
            File::open(self.meta_path())
                .and_then(|file| file.take(bytes).read_to_end(&mut meta))
                .map_err(self.fail("index entries can't be read"))?;
            if meta.len() as u64 != bytes || crc32c::crc32c(&meta) != crc {
                return Err(self.changed("its index entries are not those that were written".to_owned()));
            }
        }
        meta.extend_from_slice(&inner.meta);
        if codec == Codec::None {
            inner.beside.push(self.sorted_path());
            inner.data_crc = self.sort(&mut meta, inner.data_crc)?;
        }
        let mut tail = Vec::new();
        index::write_tail(codec, facts, &meta, inner.data_bytes, &mut tail)
            .map_err(|error| self.fail("index can't be built")(io::Error::other(error.to_string())))?;
        let sidecar = if codec == Codec::None {
            let path = self.path.with_extension("idx");
            inner.beside.push(path.clone());
            fs::write(&path, &tail).map_err(self.fail("sidecar can't be written"))?;
            Some(Finished { path, bytes: tail.len() as u64, crc: crc32c::crc32c(&tail) })
        } else {
            file.write_all(&tail).map_err(self.fail("can't be written"))?;
            inner.data_bytes += tail.len() as u64;
            inner.data_crc = crc32c::crc32c_append(inner.data_crc, &tail);
            None
        };
        self.count(&mut inner, tail.len() as u64);
        let data = Finished { path: self.path.clone(), bytes: inner.data_bytes, crc: inner.data_crc };
        Ok(FinishedFile { data, sidecar })
    }
}

impl SpoolFile {
    /// Orders a plain file by partition, then offset. How its frames were cut and mixed is an accident of one attempt; after
    /// it every attempt has the same bytes, so that the sidecar of any fits the data of any. Returns the CRC32C afterwards.
    fn sort(&self, meta: &mut Vec<u8>, crc: u32) -> Result<u32, SpoolError> {
        let sorted = index::sort_by_partition(meta)
            .map_err(|error| self.fail("index entries can't be read")(io::Error::other(error.to_string())))?;
        let Some(index::Sorted { entries, places }) = sorted else { return Ok(crc) };
        let path = self.sorted_path();
        let copy = || {
            let (mut from, mut to) = (File::open(&self.path)?, File::create(&path)?);
            let mut copied = Vec::with_capacity(places.len());
            let mut bytes = Vec::new();
            for place in places {
                bytes.clear();
                from.seek(SeekFrom::Start(place.start))?;
                (&from).take(place.end - place.start).read_to_end(&mut bytes)?;
                to.write_all(&bytes)?;
                copied.push((place.start, crc32c::crc32c(&bytes), bytes.len()));
            }
            fs::rename(&path, &self.path)?;
            Ok(copied)
        };
        let mut copied = copy().map_err(self.fail("can't be sorted"))?;
        let whole = |parts: &[(u64, u32, usize)]| {
            parts.iter().fold(0, |before, &(_, crc, len)| crc32c::crc32c_combine(before, crc, len))
        };
        let sorted = whole(&copied);
        copied.sort_unstable();
        if whole(&copied) != crc {
            return Err(self.changed("its bytes are not those that were written".to_owned()));
        }
        *meta = entries;
        Ok(sorted)
    }

    fn changed(&self, how: String) -> SpoolError {
        self.fail("was changed by somebody else")(io::Error::other(how))
    }

    fn sorted_path(&self) -> PathBuf {
        self.path.with_extension("sorted")
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.shared.used_bytes.fetch_sub(inner.disk_bytes, Ordering::Relaxed);
        if self.shared.kept.load(Ordering::Relaxed) {
            return;
        }
        self.journal.forget(self.id);
        for path in std::iter::once(&self.path).chain(&inner.beside) {
            // Nothing is there where no frame was written; what can't be deleted is at the next start.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests;
