//! Open lanes: the records of each app (and bucket) that wait to become a file.
//!
//! Owns: finding a record's lane, its buffer, what it holds per partition, when it is due, which buffers are the fullest.
//! Does not own: compression, the spool, the decision to seal.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::archive::app_id;
use crate::archive::frame::FrameBuffer;
use crate::ledger::{Lane, Range};
use crate::record::Record;

/// Names one file in the making within a task's ownership of its partitions.
pub type FileId = u64;

/// Apps without open lanes that may stay known; above it they are forgotten.
const MAX_IDLE_APPS: usize = 4096;

/// Which app a lane belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppKey<'a> {
    Id(&'a [u8]),
    Missing,
    DeadLetter,
}

/// The same, to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnedAppKey {
    Id(Box<[u8]>),
    Missing,
    DeadLetter,
}

impl OwnedAppKey {
    pub fn as_key(&self) -> AppKey<'_> {
        match self {
            Self::Id(id) => AppKey::Id(id),
            Self::Missing => AppKey::Missing,
            Self::DeadLetter => AppKey::DeadLetter,
        }
    }
}

impl From<AppKey<'_>> for OwnedAppKey {
    fn from(key: AppKey<'_>) -> Self {
        match key {
            AppKey::Id(id) => Self::Id(id.into()),
            AppKey::Missing => Self::Missing,
            AppKey::DeadLetter => Self::DeadLetter,
        }
    }
}

/// Path segments of the records without an app.
#[derive(Clone, Debug)]
pub struct ReservedNames {
    pub missing: String,
    pub dead_letter: String,
}

/// The record that opened a file: it names the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opener {
    pub partition: i32,
    pub offset: i64,
    pub time_ms: i64,
}

/// What a file holds per partition, while it grows.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    /// A file has few partitions, and records come in runs of one: the last one found is nearly always right.
    ranges: Vec<(i32, Range)>,
    last: usize,
}

impl Ranges {
    pub fn push(&mut self, record: &Record<'_>) {
        let found = match self.ranges.get(self.last) {
            Some((partition, _)) if *partition == record.partition => self.last,
            _ => self.find(record),
        };
        self.last = found;
        let range = &mut self.ranges[found].1;
        range.last = record.offset;
        range.count += 1;
        range.digest.push(record);
    }

    /// Index of the record's partition, made where it is new.
    fn find(&mut self, record: &Record<'_>) -> usize {
        let found = self.ranges.iter().position(|(partition, _)| *partition == record.partition);
        found.unwrap_or_else(|| {
            let range = Range { first: record.offset, last: record.offset, count: 0, digest: Default::default() };
            self.ranges.push((record.partition, range));
            self.ranges.len() - 1
        })
    }

    /// Whether the next record of this partition would be its first.
    pub fn is_new(&self, partition: i32) -> bool {
        self.ranges.get(self.last).is_none_or(|(last, _)| *last != partition)
            && self.ranges.iter().all(|(known, _)| *known != partition)
    }

    pub fn into_map(self) -> BTreeMap<i32, Range> {
        self.ranges.into_iter().collect()
    }

    pub fn get(&self, partition: i32) -> Option<&Range> {
        self.ranges.iter().find(|(known, _)| *known == partition).map(|(_, range)| range)
    }

    /// In the order in which the partitions came.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &Range)> {
        self.ranges.iter().map(|(partition, range)| (*partition, range))
    }
}

impl FromIterator<(i32, Range)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (i32, Range)>>(ranges: I) -> Self {
        Self { ranges: ranges.into_iter().collect(), last: 0 }
    }
}

/// Frames of a file on their way through compression to the spool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    /// Handed to compression; also the next frame's sequence number.
    pub cut: u32,
    /// In the spool.
    pub stored: u32,
    pub stored_bytes: u64,
    /// Bytes before compression, handed over and not yet in the spool.
    pub raw_in_flight: u64,
}

/// A lane's file in the making.
#[derive(Debug)]
pub struct OpenLane {
    pub file: FileId,
    pub lane: Lane,
    pub opener: Opener,
    pub opened_at_ms: i64,
    pub due_at_ms: i64,
    pub buffer: FrameBuffer,
    /// When the buffer's first record came; says nothing of an empty one.
    pub buffered_since_ms: i64,
    pub ranges: Ranges,
    pub frames: Frames,
    app: OwnedAppKey,
    /// Bytes of memory counted for the buffer.
    counted_bytes: usize,
}

#[derive(Debug, Default)]
struct App {
    segment: String,
    lanes: Vec<(Option<i64>, FileId)>,
}

impl OpenLane {
    pub fn app(&self) -> &OwnedAppKey {
        &self.app
    }
}

/// All open lanes of a task.
#[derive(Debug)]
pub struct Lanes {
    apps: HashMap<Box<[u8]>, App, foldhash::fast::RandomState>,
    missing: App,
    dead_letter: App,
    open: HashMap<FileId, OpenLane, foldhash::fast::RandomState>,
    due: BTreeSet<(i64, FileId)>,
    /// Lanes whose buffers take memory, by how much.
    by_memory: BTreeSet<(usize, FileId)>,
    buffered_bytes: usize,
}

impl Lanes {
    pub fn new(reserved: ReservedNames) -> Self {
        let app = |segment| App { segment, lanes: Vec::new() };
        Self {
            missing: app(reserved.missing),
            dead_letter: app(reserved.dead_letter),
            apps: HashMap::default(),
            open: HashMap::default(),
            due: BTreeSet::new(),
            by_memory: BTreeSet::new(),
            buffered_bytes: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Memory of all buffers.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    fn app(&mut self, key: AppKey<'_>) -> &mut App {
        match key {
            AppKey::Missing => &mut self.missing,
            AppKey::DeadLetter => &mut self.dead_letter,
            AppKey::Id(id) => {
                if !self.apps.contains_key(id) {
                    self.forget_idle_apps();
                    let app = App { segment: app_id::path_segment(id), lanes: Vec::new() };
                    self.apps.insert(id.into(), app);
                }
                // The branch above made sure; the fallback is never taken.
                match self.apps.get_mut(id) {
                    Some(app) => app,
                    None => &mut self.missing,
                }
            }
        }
    }

    fn forget_idle_apps(&mut self) {
        if self.apps.len() > self.open.len() + MAX_IDLE_APPS {
            self.apps.retain(|_, app| !app.lanes.is_empty());
        }
    }

    /// The first key segment of the app's objects.
    pub fn segment(&mut self, key: AppKey<'_>) -> &str {
        &self.app(key).segment
    }

    /// The file of the app's open lane of this bucket.
    pub fn find(&self, key: AppKey<'_>, bucket_start_secs: Option<i64>) -> Option<FileId> {
        let app = match key {
            AppKey::Id(id) => self.apps.get(id)?,
            AppKey::Missing => &self.missing,
            AppKey::DeadLetter => &self.dead_letter,
        };
        app.lanes.iter().find(|(bucket, _)| *bucket == bucket_start_secs).map(|&(_, file)| file)
    }

    /// Opens a lane that [`Lanes::find`] did not find.
    pub fn open(
        &mut self,
        key: AppKey<'_>,
        bucket_start_secs: Option<i64>,
        file: FileId,
        opener: Opener,
        opened_at_ms: i64,
        due_at_ms: i64,
    ) -> &mut OpenLane {
        let app = self.app(key);
        app.lanes.push((bucket_start_secs, file));
        let lane = Lane { app: app.segment.clone(), bucket_start_secs };
        self.due.insert((due_at_ms, file));
        self.open.entry(file).or_insert(OpenLane {
            file,
            lane,
            opener,
            opened_at_ms,
            due_at_ms,
            buffer: FrameBuffer::default(),
            buffered_since_ms: 0,
            ranges: Ranges::default(),
            frames: Frames::default(),
            app: key.into(),
            counted_bytes: 0,
        })
    }

    pub fn get_mut(&mut self, file: FileId) -> Option<&mut OpenLane> {
        self.open.get_mut(&file)
    }

    /// Counts what the lane's buffer takes now.
    pub fn recount(&mut self, file: FileId) {
        if let Some(lane) = self.open.get_mut(&file) {
            let bytes = lane.buffer.memory_bytes();
            self.buffered_bytes = self.buffered_bytes + bytes - lane.counted_bytes;
            self.by_memory.remove(&(lane.counted_bytes, file));
            if bytes > 0 {
                self.by_memory.insert((bytes, file));
            }
            lane.counted_bytes = bytes;
        }
    }

    /// Takes a lane out: it gets no more records.
    pub fn close(&mut self, file: FileId) -> Option<OpenLane> {
        let lane = self.open.remove(&file)?;
        self.buffered_bytes -= lane.counted_bytes;
        self.by_memory.remove(&(lane.counted_bytes, file));
        self.due.remove(&(lane.due_at_ms, file));
        let app = match &lane.app {
            OwnedAppKey::Missing => Some(&mut self.missing),
            OwnedAppKey::DeadLetter => Some(&mut self.dead_letter),
            OwnedAppKey::Id(id) => self.apps.get_mut(id),
        };
        if let Some(app) = app {
            app.lanes.retain(|&(_, known)| known != file);
        }
        Some(lane)
    }

    /// Files due by `by_ms`, the earliest first.
    pub fn due(&self, by_ms: i64) -> Vec<FileId> {
        self.due.iter().take_while(|(due_at_ms, _)| *due_at_ms <= by_ms).map(|&(_, file)| file).collect()
    }

    /// When the next lane is due.
    pub fn next_due_ms(&self) -> Option<i64> {
        self.due.first().map(|&(due_at_ms, _)| due_at_ms)
    }

    pub fn iter(&self) -> impl Iterator<Item = &OpenLane> {
        self.open.values()
    }

    pub fn files(&self) -> Vec<FileId> {
        let mut files: Vec<FileId> = self.open.keys().copied().collect();
        files.sort_unstable();
        files
    }

    /// When the oldest open lane was opened.
    pub fn oldest_opened_at_ms(&self) -> Option<i64> {
        self.open.values().map(|lane| lane.opened_at_ms).min()
    }

    /// The fullest buffers, enough of them to free `bytes`.
    pub fn fullest(&self, bytes: usize) -> Vec<FileId> {
        let mut freed = 0;
        let enough = |(counted, _): &&(usize, FileId)| {
            let more = freed < bytes;
            freed += counted;
            more
        };
        self.by_memory.iter().rev().take_while(enough).map(|&(_, file)| file).collect()
    }
}
