//! What lies in a task's spool, written beside it for the next process on this machine.
//!
//! Owns: the journal's format, appending to it, keeping it short, reading what a dead process left.
//! Does not own: whether that may be used (the task's).
//!
//! An entry is three numbers of 4 bytes, little endian (length of its text, length of its index entries, CRC32C of both), then
//! text (JSON) and index entries. A frame's entry is written after the frame, so that whatever part of a journal can still be read
//! tells of nothing that was not there. Entries of frames are gathered until something depends on them: a floor, an entry of the
//! log, a file that is finished. Nothing is synced: what a crash of the machine takes, checksums show.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::archive::index::Skipped;
use crate::ledger::{Lane, Range};
use crate::pipeline::lane::{FileId, Opener, OwnedAppKey};

/// To be raised with every change of this format, of frames or of index entries: another version's spool is not read.
const VERSION: u32 = 1;
/// Below this many bytes a journal is left as it is, however little of it still matters.
const COMPACT_BYTES: u64 = 8 << 20;
/// Entries of frames that are gathered before they are written: with small frames it would be a write for each.
const GATHERED_BYTES: usize = 64 * 1024;
/// Longest text and index entries that are believed.
const MAX_PART_BYTES: u32 = 256 << 20;
const HEAD_BYTES: usize = 12;

/// Whose spool it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    version: u32,
    /// Of the ownership that wrote it.
    pub token: String,
    /// Hash of the settings that shape content.
    pub settings: String,
    /// Of the topic, as in the task's log.
    pub incarnation: u32,
}

impl Begin {
    pub fn new(token: &str, settings: &str, incarnation: u32) -> Self {
        Self { version: VERSION, token: token.to_owned(), settings: settings.to_owned(), incarnation }
    }
}

/// What an open file holds once a frame of it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileNote {
    pub lane: Lane,
    pub app: OwnedAppKey,
    pub opener: Opener,
    pub opened_at_ms: i64,
    /// Of the partitions that the frame has records of: all in the file up to this frame.
    pub held: Vec<Held>,
    /// By partition, where earlier files of the lane end that the log did not know when the frame was cut.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub after: BTreeMap<i32, i64>,
}

impl FileNote {
    /// What a later frame says of the same file.
    fn extend(&mut self, later: Self) {
        for held in later.held {
            match self.held.iter_mut().find(|known| known.partition == held.partition) {
                Some(known) => *known = held,
                None => self.held.push(held),
            }
        }
        self.after = later.after;
    }
}

/// Records of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub partition: i32,
    pub range: Range,
    /// With which the last of them was read.
    pub leader_epoch: Option<i32>,
}

/// From where on records would have to be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// By partition: every record from low to below this is in a frame of the spool, in the log, or left out.
    pub offsets: BTreeMap<i32, i64>,
    /// What was left out of that, above low.
    pub noted: Vec<Skipped>,
    /// Below the offsets: from which offset on which leader epoch, ascending.
    pub epochs: BTreeMap<i32, Vec<(i64, Option<i32>)>>,
    /// When it was written, milliseconds since the Unix epoch: nothing that lies above was read long before.
    pub time_ms: i64,
}

impl Floor {
    /// Whether it says more than the other.
    pub fn is_news(&self, other: &Self) -> bool {
        (&self.offsets, &self.noted, &self.epochs) != (&other.offsets, &other.noted, &other.epochs)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Text {
    Begin(Begin),
    Frame(Frame),
    Floor(Floor),
}

/// A frame that is in its file.
#[derive(Serialize, Deserialize)]
pub(super) struct Frame {
    pub file: FileId,
    pub sequence: u32,
    /// Of the file's data up to the end of this frame.
    pub bytes: u64,
    pub crc: u32,
    /// Bytes of this frame before compression.
    pub raw: u64,
    pub note: FileNote,
}

/// The journal of one ownership of a task.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Entries of frames that are not in the file yet.
    gathered: Vec<u8>,
    /// Entries are missing: a floor behind them would be believed.
    broken: bool,
    /// Of the file and what is gathered for it.
    bytes: u64,
    /// Bytes of the entries of each file that is still there.
    live: BTreeMap<FileId, u64>,
    live_bytes: u64,
    /// Of the last floor.
    floor_bytes: u64,
}

impl Journal {
    pub(super) fn create(path: PathBuf, begin: Begin) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        let entry = encode(&Text::Begin(begin), &[])?;
        file.write_all(&entry)?;
        let inner = Inner {
            file,
            gathered: Vec::new(),
            broken: false,
            bytes: entry.len() as u64,
            live: BTreeMap::new(),
            live_bytes: 0,
            floor_bytes: 0,
        };
        Ok(Self { path, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere may leave half an entry, which ends the journal.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn frame(&self, frame: Frame, index: &[u8]) -> io::Result<()> {
        let file = frame.file;
        let entry = encode(&Text::Frame(frame), index)?;
        let mut inner = self.lock();
        inner.keep(file, &entry)?;
        self.compact_if_long(&mut inner)
    }

    fn compact_if_long(&self, inner: &mut Inner) -> io::Result<()> {
        if inner.bytes > COMPACT_BYTES.max(2 * (inner.live_bytes + inner.floor_bytes)) {
            self.compact(inner)?;
        }
        Ok(())
    }

    /// What one journal says of a file becomes this one's.
    pub(super) fn copy(&self, file: FileId, entry: &[u8]) -> io::Result<()> {
        self.lock().keep(file, entry)
    }

    pub(super) fn floor(&self, floor: Floor) -> io::Result<()> {
        let entry = encode(&Text::Floor(floor), &[])?;
        let mut inner = self.lock();
        inner.gather(&entry)?;
        inner.write()?;
        inner.floor_bytes = entry.len() as u64;
        self.compact_if_long(&mut inner)
    }

    /// Writes what is gathered.
    pub(super) fn write(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.gathered.is_empty() { Ok(()) } else { inner.write() }
    }

    /// The file is gone: what is said of it is worth nothing.
    pub(super) fn forget(&self, file: FileId) {
        let mut inner = self.lock();
        inner.live_bytes -= inner.live.remove(&file).unwrap_or_default();
    }

    /// Leaves out what is said of files that are gone, and all floors but the last.
    fn compact(&self, inner: &mut Inner) -> io::Result<()> {
        inner.write()?;
        let path = self.path.with_extension("new");
        let mut to = io::BufWriter::new(File::create(&path)?);
        let (mut bytes, mut floor) = (0, Vec::new());
        let mut entries = Entries::open(&self.path)?;
        while let Some(entry) = entries.next()? {
            match &entry.text {
                Text::Floor(_) => {
                    floor = entry.raw;
                    continue;
                }
                Text::Frame(frame) if !inner.live.contains_key(&frame.file) => continue,
                Text::Frame(_) | Text::Begin(_) => {}
            }
            to.write_all(&entry.raw)?;
            bytes += entry.raw.len() as u64;
        }
        to.write_all(&floor)?;
        to.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(&path, &self.path)?;
        inner.file = OpenOptions::new().append(true).open(&self.path)?;
        inner.bytes = bytes + floor.len() as u64;
        Ok(())
    }
}

impl Inner {
    fn keep(&mut self, file: FileId, entry: &[u8]) -> io::Result<()> {
        self.gather(entry)?;
        *self.live.entry(file).or_default() += entry.len() as u64;
        self.live_bytes += entry.len() as u64;
        Ok(())
    }

    fn gather(&mut self, entry: &[u8]) -> io::Result<()> {
        self.gathered.extend_from_slice(entry);
        self.bytes += entry.len() as u64;
        if self.gathered.len() >= GATHERED_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write failed"));
        }
        let gathered = std::mem::take(&mut self.gathered);
        self.file.write_all(&gathered).inspect_err(|_| self.broken = true)
    }
}

fn encode(text: &Text, index: &[u8]) -> io::Result<Vec<u8>> {
    let too_long = || io::Error::other("an entry of the journal is too long");
    let mut entry = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut entry, text)?;
    let text_len = u32::try_from(entry.len() - HEAD_BYTES).map_err(|_| too_long())?;
    let index_len = u32::try_from(index.len()).map_err(|_| too_long())?;
    if text_len.max(index_len) > MAX_PART_BYTES {
        return Err(too_long());
    }
    entry.extend_from_slice(index);
    let crc = crc32c::crc32c(&entry[HEAD_BYTES..]);
    entry[..4].copy_from_slice(&text_len.to_le_bytes());
    entry[4..8].copy_from_slice(&index_len.to_le_bytes());
    entry[8..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(entry)
}

struct Entry {
    text: Text,
    raw: Vec<u8>,
    index_at: usize,
}

/// The entries of a journal, up to the first that can't be read.
struct Entries {
    from: BufReader<File>,
    /// Not yet read.
    left: u64,
}

impl Entries {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { left: file.metadata()?.len(), from: BufReader::with_capacity(1 << 16, file) })
    }

    fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut raw = vec![0; HEAD_BYTES];
        if self.left < HEAD_BYTES as u64 {
            return Ok(None);
        }
        self.from.read_exact(&mut raw)?;
        let number = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let (text_len, index_len, crc) = (number(0), number(4), number(8));
        let len = u64::from(text_len) + u64::from(index_len);
        self.left -= HEAD_BYTES as u64;
        if text_len.max(index_len) > MAX_PART_BYTES || len > self.left {
            self.left = 0;
            return Ok(None);
        }
        self.left -= len;
        let index_at = HEAD_BYTES + text_len as usize;
        raw.resize(index_at + index_len as usize, 0);
        self.from.read_exact(&mut raw[HEAD_BYTES..])?;
        let text = serde_json::from_slice(&raw[HEAD_BYTES..index_at]);
        match text {
            Ok(text) if crc32c::crc32c(&raw[HEAD_BYTES..]) == crc => Ok(Some(Entry { text, raw, index_at })),
            _ => {
                self.left = 0;
                Ok(None)
            }
        }
    }
}

/// What a journal says of one file.
#[derive(Clone, Debug)]
pub struct FileFound {
    pub note: FileNote,
    pub frames: u32,
    /// Of the data.
    pub bytes: u64,
    pub crc: u32,
    /// Before compression.
    pub raw_bytes: u64,
}

/// What a journal says in all.
#[derive(Clone, Debug)]
pub struct JournalFound {
    pub begin: Begin,
    /// The last that was written.
    pub floor: Option<Floor>,
    pub files: BTreeMap<FileId, FileFound>,
}

/// Reads a journal; `None`: it is not one of ours.
pub(super) fn read(path: &Path) -> io::Result<Option<JournalFound>> {
    let mut entries = Entries::open(path)?;
    let begin = match entries.next()?.map(|entry| entry.text) {
        Some(Text::Begin(begin)) if begin.version == VERSION => begin,
        _ => return Ok(None),
    };
    let mut found = JournalFound { begin, floor: None, files: BTreeMap::new() };
    while let Some(entry) = entries.next()? {
        match entry.text {
            Text::Floor(floor) => found.floor = Some(floor),
            Text::Frame(Frame { file, sequence, bytes, crc, raw, note }) => match found.files.get_mut(&file) {
                None if sequence == 0 => {
                    found.files.insert(file, FileFound { note, frames: 1, bytes, crc, raw_bytes: raw });
                }
                Some(known) if sequence == known.frames => {
                    known.note.extend(note);
                    (known.frames, known.bytes, known.crc) = (sequence + 1, bytes, crc);
                    known.raw_bytes += raw;
                }
                None | Some(_) => break,
            },
            Text::Begin(_) => break,
        }
    }
    Ok(Some(found))
}

/// Tells `each` of the frames again, in their order: file, sequence, whole entry, index entries in it.
pub(super) fn frames(path: &Path, mut each: impl FnMut(FileId, u32, &[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut entries = Entries::open(path)?;
    while let Some(entry) = entries.next()? {
        if let Text::Frame(frame) = &entry.text {
            each(frame.file, frame.sequence, &entry.raw, &entry.raw[entry.index_at..])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a full disk did not take is missing for good, also once there is room: no floor may say otherwise.
    #[test]
    fn nothing_follows_entries_that_could_not_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::create(path.clone(), Begin::new("token", "settings", 0)).unwrap();
        let lane = Lane { app: "a".to_owned(), bucket_start_secs: None };
        let opener = Opener { partition: 0, offset: 0, time_ms: 0 };
        let (app, held, after) = (OwnedAppKey::Missing, Vec::new(), BTreeMap::new());
        let note = FileNote { lane, app, opener, opened_at_ms: 0, held, after };
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let disk = std::mem::replace(&mut journal.lock().file, full);
        journal.frame(Frame { file: 1, sequence: 0, bytes: 1, crc: 0, raw: 1, note }, &[]).unwrap();
        assert!(journal.floor(Floor::default()).is_err());
        journal.lock().file = disk;
        assert!(journal.floor(Floor::default()).is_err(), "there is room again");
        let found = read(&path).unwrap().unwrap();
        assert_eq!((found.floor, found.files.len()), (None, 0));
    }
}
