//! What a dead process left in the spool, used again.
//!
//! Owns: finding it, checking that the files are what its journal says, making it this process's own, forgetting the rest.
//! Does not own: whether it may be used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::journal::{self, Begin, FileFound, Floor, Journal, JournalFound};
use super::{Inner, JOURNAL, Spool, SpoolFile, TaskSpool, bytes_in, data_path, remove, task_folder};
use crate::pipeline::lane::FileId;

/// The spool of a task as one ownership left it.
#[derive(Debug)]
pub struct Left {
    dir: PathBuf,
    pub journal: JournalFound,
}

impl Spool {
    /// What the ownership of this token left here, if its journal can be read.
    pub fn left(&self, connector: &str, topic: &str, task: u32, token: &str) -> Option<Left> {
        let dir = task_folder(&self.left, connector, topic, task).join(token);
        match journal::read(&dir.join(JOURNAL)) {
            // A folder that was copied by hand tells of another ownership.
            Ok(found) => found.filter(|found| found.begin.token == token).map(|journal| Left { dir, journal }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(dir = %dir.display(), %error, "what was left in the spool can't be read");
                }
                None
            }
        }
    }

    /// Deletes what was left of a task.
    pub fn forget_left(&self, connector: &str, topic: &str, task: u32) {
        self.forget(&task_folder(&self.left, connector, topic, task));
    }

    /// Deletes all that was left and not taken yet.
    pub fn forget_all_left(&self) {
        if self.left_bytes.load(Ordering::Relaxed) > 0 {
            self.forget(&self.left);
        }
    }

    /// Nobody else moves or deletes what was left.
    fn alone(&self) -> MutexGuard<'_, ()> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, dir: &Path) {
        let _alone = self.alone();
        self.uncount(bytes_in(dir));
        if let Err(error) = remove(dir) {
            tracing::warn!(dir = %dir.display(), %error, "leftovers in the spool can't be deleted, the next start tries again");
        }
    }

    fn uncount(&self, bytes: u64) {
        // Never below zero: two tasks may end up forgetting the same.
        let less = |left: u64| Some(left.saturating_sub(bytes));
        let _ = self.left_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Makes these files of what was left the spool of a new ownership; the others are deleted.
    ///
    /// # Errors
    /// Why nothing can be adopted: a file is not what the journal says, or the disk is full or broken. What was left may be gone.
    pub fn adopt(
        &self,
        left: &Left,
        files: &[FileId],
        place: (&str, &str, u32),
        begin: Begin,
        floor: Floor,
    ) -> Result<Adopted, String> {
        let mut wanted: BTreeMap<FileId, &FileFound> = BTreeMap::new();
        for &id in files {
            let Some(found) = left.journal.files.get(&id) else { return Err(format!("file {id} is not in it")) };
            let path = data_path(&left.dir, id);
            match check(&path, found) {
                Ok(true) => wanted.insert(id, found),
                Ok(false) => return Err(format!("{} is not what was written", path.display())),
                Err(error) => return Err(format!("{}: {error}", path.display())),
            };
        }
        let _alone = self.alone();
        let (connector, topic, task) = place;
        let parent = task_folder(&self.dir, connector, topic, task);
        let dir = parent.join(&begin.token);
        let was = bytes_in(&left.dir);
        let moved = fs::create_dir_all(&parent).and_then(|()| fs::rename(&left.dir, &dir));
        if moved.is_ok() {
            self.uncount(was);
        }
        moved.and_then(|()| self.take(&dir, &wanted, begin, floor)).map_err(|error| {
            // On a full disk this makes room.
            let removed = remove(&dir).err().map(|error| format!("; what is left of it can't be deleted: {error}"));
            format!("{} can't be made its own: {error}{}", dir.display(), removed.unwrap_or_default())
        })
    }

    fn take(
        &self,
        dir: &Path,
        wanted: &BTreeMap<FileId, &FileFound>,
        begin: Begin,
        floor: Floor,
    ) -> io::Result<Adopted> {
        let old = dir.join("journal.old");
        fs::rename(dir.join(JOURNAL), &old)?;
        let keeps = wanted.keys().map(|&id| data_path(dir, id)).collect::<HashSet<_>>();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path != old && !keeps.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        let journal = Arc::new(Journal::create(dir.join(JOURNAL), begin)?);
        let mut files = HashMap::new();
        for (&id, found) in wanted {
            let path = data_path(dir, id);
            if fs::metadata(&path)?.nlink() > 1 {
                // A `file://` store links what it is given: the other name may be an object by now, wherever it was moved to.
                let copy = path.with_extension("copy");
                fs::copy(&path, &copy)?;
                fs::rename(&copy, &path)?;
            }
            // A tail, or half a frame.
            OpenOptions::new().write(true).open(&path)?.set_len(found.bytes)?;
            let mut inner = Inner { next_sequence: found.frames, ..Inner::default() };
            (inner.data_bytes, inner.data_crc) = (found.bytes, found.crc);
            let (journal, shared) = (Arc::clone(&journal), Arc::clone(&self.shared));
            let file = SpoolFile { id, path, journal, shared, inner: Mutex::default() };
            file.count(&mut inner, found.bytes);
            *file.lock() = inner;
            files.insert(id, Arc::new(file));
        }
        journal::frames(&old, |id, sequence, entry, index| {
            let (Some(file), Some(found)) = (files.get(&id), wanted.get(&id)) else { return Ok(()) };
            if sequence < found.frames {
                file.add_index(&mut file.lock(), index).map_err(|error| error.source)?;
                journal.copy(id, entry)?;
            }
            Ok(())
        })?;
        journal.floor(floor)?;
        fs::remove_file(old)?;
        Ok(Adopted { spool: TaskSpool { dir: dir.to_owned(), journal, shared: Arc::clone(&self.shared) }, files })
    }
}

/// A spool that was left and is this process's now.
#[derive(Debug)]
pub struct Adopted {
    pub spool: TaskSpool,
    pub files: HashMap<FileId, Arc<SpoolFile>>,
}

/// Whether a file begins with the bytes that were written to it.
fn check(path: &Path, found: &FileFound) -> io::Result<bool> {
    let mut left = File::open(path)?.take(found.bytes);
    let (mut bytes, mut crc, mut buffer) = (0, 0, vec![0; 1 << 17]);
    loop {
        match left.read(&mut buffer)? {
            0 => return Ok(bytes == found.bytes && crc == found.crc),
            read => {
                bytes += read as u64;
                crc = crc32c::crc32c_append(crc, &buffer[..read]);
            }
        }
    }
}
