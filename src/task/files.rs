//! Files from their seal to their Done.
//!
//! Owns: the stage of each, and what is legal in it. Does not own: when a stage changes (the core's).

use std::collections::{BTreeMap, HashMap};

use crate::archive::frame::FrameBuffer;
use crate::archive::index::Skipped;
use crate::ledger::{Intent, IntentId, Lane};
use crate::pipeline::lane::{FileId, Frames, Opener, Ranges};

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Decided, not yet in the log: must not be uploaded.
    Sealed,
    /// Its intent is entry `number` of the log.
    Logged { number: u64 },
    /// Its tail is being written.
    Finishing,
    /// On its way to the store.
    Uploading { bytes: u64 },
    /// In the store.
    Uploaded,
}

/// A sealed file.
#[derive(Debug)]
pub struct File {
    pub intent: Intent,
    pub stage: Stage,
    pub frames: Frames,
    /// Every record of the intent has been cut into frames; `false` while it is being rebuilt.
    pub complete: bool,
    /// The intent that this one takes the place of; without ranges of its own nothing is left of it.
    pub replaces: Option<IntentId>,
}

impl File {
    pub fn new(intent: Intent, stage: Stage) -> Self {
        Self { intent, stage, frames: Frames::default(), complete: stage == Stage::Sealed, replaces: None }
    }

    /// In the log and not in the store; those that still wait for records left out.
    fn is_in_upload(&self) -> bool {
        self.complete && matches!(self.stage, Stage::Logged { .. } | Stage::Finishing | Stage::Uploading { .. })
    }
}

/// An object that a predecessor decided and did not upload, while its records are read again.
#[derive(Debug)]
pub struct Rebuild {
    pub file: FileId,
    pub buffer: FrameBuffer,
    pub ranges: Ranges,
    /// The first record found.
    pub opener: Option<Opener>,
}

impl Rebuild {
    pub fn new(file: FileId) -> Self {
        Self { file, buffer: FrameBuffer::default(), ranges: Ranges::default(), opener: None }
    }
}

/// All sealed files of a task.
#[derive(Debug, Default)]
pub struct Files {
    files: BTreeMap<FileId, File>,
    /// Files whose intent waits for its log entry.
    sealed: HashMap<IntentId, FileId>,
    /// By lane: how many of its files wait, and by partition where the last of them ends.
    waiting: HashMap<Lane, (usize, BTreeMap<i32, i64>)>,
    /// Of the files, kept with each change: each event asks, and there may be as many files as apps.
    in_upload: usize,
    uploaded: usize,
}

impl Files {
    pub fn insert(&mut self, id: FileId, file: File) {
        if file.stage == Stage::Sealed {
            self.sealed.insert(file.intent.id.clone(), id);
            let (files, ends) = self.waiting.entry(file.intent.lane.clone()).or_default();
            *files += 1;
            for (&partition, range) in &file.intent.ranges {
                let end = ends.entry(partition).or_insert(range.last + 1);
                *end = (*end).max(range.last + 1);
            }
        }
        self.in_upload += usize::from(file.is_in_upload());
        self.uploaded += usize::from(file.stage == Stage::Uploaded);
        if let Some(before) = self.files.insert(id, file) {
            self.uncount(&before);
        }
    }

    fn waits_no_more(&mut self, lane: &Lane) {
        if let Some((files, _)) = self.waiting.get_mut(lane) {
            *files -= 1;
            if *files == 0 {
                self.waiting.remove(lane);
            }
        }
    }

    /// By partition, where files of the lane end that the log does not know yet.
    pub fn unlogged_ends(&self, lane: &Lane) -> BTreeMap<i32, i64> {
        self.waiting.get(lane).map(|(_, ends)| ends.clone()).unwrap_or_default()
    }

    fn uncount(&mut self, file: &File) {
        self.in_upload -= usize::from(file.is_in_upload());
        self.uploaded -= usize::from(file.stage == Stage::Uploaded);
    }

    pub fn get(&self, id: FileId) -> Option<&File> {
        self.files.get(&id)
    }

    /// `None`: there is no such file.
    pub fn change<R>(&mut self, id: FileId, change: impl FnOnce(&mut File) -> R) -> Option<R> {
        let file = self.files.get_mut(&id)?;
        let (was_in_upload, was_uploaded) = (file.is_in_upload(), file.stage == Stage::Uploaded);
        let result = change(file);
        self.in_upload = self.in_upload + usize::from(file.is_in_upload()) - usize::from(was_in_upload);
        self.uploaded = self.uploaded + usize::from(file.stage == Stage::Uploaded) - usize::from(was_uploaded);
        Some(result)
    }

    /// What a file that waits for its log entry also tells of.
    pub fn tell(&mut self, id: FileId, skipped: Vec<Skipped>) -> Option<Intent> {
        let file = self.files.get_mut(&id)?;
        self.sealed.remove(&file.intent.id);
        file.intent = file.intent.clone().with_skipped(skipped);
        self.sealed.insert(file.intent.id.clone(), id);
        Some(file.intent.clone())
    }

    pub fn remove(&mut self, id: FileId) -> Option<File> {
        let file = self.files.remove(&id)?;
        if self.sealed.remove(&file.intent.id).is_some() {
            self.waits_no_more(&file.intent.lane);
        }
        self.uncount(&file);
        Some(file)
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The log holds these intents as entry `number`: their files may be uploaded.
    pub fn logged<'a>(&mut self, intents: impl IntoIterator<Item = &'a Intent>, number: u64) -> Vec<FileId> {
        let mut logged = Vec::new();
        for intent in intents {
            let Some(id) = self.sealed.remove(&intent.id) else { continue };
            self.waits_no_more(&intent.lane);
            if self.change(id, |file| file.stage = Stage::Logged { number }).is_some() {
                logged.push(id);
            }
        }
        logged
    }

    /// Files in the log and not in the store, those that still wait for records left out.
    pub fn in_upload(&self) -> usize {
        self.in_upload
    }

    /// Stored bytes of the files that are on their way to the store.
    pub fn leaving_bytes(&self) -> u64 {
        let complete = self.files.values().filter(|file| file.complete && file.stage != Stage::Uploaded);
        complete.map(|file| file.frames.stored_bytes).sum()
    }

    pub fn none_in_upload(&self) -> bool {
        self.in_upload == 0
    }

    pub fn none_but_uploaded(&self) -> bool {
        self.uploaded == self.files.len()
    }
}
