//! What is fetched, piece by piece, in reading order.
//!
//! Owns: turning the files of a question into runs of frames and knots that are merged; the order by time.
//! Does not own: fetching ([`super::fetch`]), files' order ([`super::order`]).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use futures::stream::{self, Stream};

use super::ReadError;
use super::fetch::runs;
use super::file::OpenFile;
use super::order::order;
use super::place::Place;
use super::report::Report;
use super::survey::{Emitted, Question, Survey, Surveyed, fitting};
use crate::archive::index::FrameEntry;

/// Frames that overlap are merged in memory up to this, decompressed.
const MAX_KNOT_BYTES: u64 = 256 << 20;

/// Pieces of a question.
#[derive(Clone, Debug)]
pub enum Unit {
    /// Frames next to each other, given out one after the other.
    Run { file: Arc<OpenFile>, frames: Vec<usize> },
    /// Frames of files that overlap, given out as one, by partition and offset.
    Knot(Vec<(Arc<OpenFile>, usize)>),
}

/// In which order records are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Offsets ascend in each partition; partitions as stored.
    Offset,
    /// Units come by their earliest record: whoever merges has seen all that is earlier than the next unit's earliest.
    Time,
}

impl Unit {
    fn frames(&self) -> impl Iterator<Item = &FrameEntry> {
        let (run, knot) = match self {
            Self::Run { file, frames } => (Some((file, frames)), None),
            Self::Knot(frames) => (None, Some(frames)),
        };
        let in_run = run.into_iter().flat_map(|(file, frames)| frames.iter().map(move |&number| (file, number)));
        let in_knot = knot.into_iter().flatten().map(|(file, number)| (file, *number));
        in_run.chain(in_knot).filter_map(|(file, number)| file.index.as_ref()?.frames.get(number))
    }

    /// Memory that the unit takes while it is worked on.
    pub fn memory_bytes(&self) -> u64 {
        self.frames().fold(0, |sum, frame| sum.saturating_add(frame.stored_len).saturating_add(2 * frame.raw_len))
    }
}

/// The units of a question, made as they are taken.
pub fn units(
    place: &Place,
    question: &Question,
    survey: Survey,
    by: By,
    emitted: Arc<Emitted>,
    report: Arc<Report>,
) -> impl Stream<Item = Result<Unit, ReadError>> + use<> {
    let (place, question) = (place.clone(), question.clone());
    let source = match by {
        By::Offset => {
            let spans: Vec<_> = survey.files.iter().map(|file| file.spans.clone()).collect();
            let mut files: Vec<Option<Surveyed>> = survey.files.into_iter().map(Some).collect();
            let groups = order(&spans).into_iter();
            Source::Groups(
                groups
                    .map(|group| group.into_iter().filter_map(|file| files.get_mut(file)?.take()).collect())
                    .collect(),
            )
        }
        By::Time => {
            let files = survey.files.into_iter().map(|file| Reverse(Due::File(file.min_time_ms, Box::new(file))));
            Source::Due(files.collect())
        }
    };
    let maker = Maker { place, question, emitted, report, source, ready: VecDeque::new() };
    stream::try_unfold(maker, |mut maker| async move {
        loop {
            if let Some(unit) = maker.ready.pop_front() {
                return Ok(Some((unit, maker)));
            }
            if !maker.more().await? {
                return Ok(None);
            }
        }
    })
}

struct Maker {
    place: Place,
    question: Question,
    emitted: Arc<Emitted>,
    report: Arc<Report>,
    source: Source,
    ready: VecDeque<Unit>,
}

enum Source {
    Groups(VecDeque<Vec<Surveyed>>),
    Due(BinaryHeap<Reverse<Due>>),
}

/// Files and frames by their earliest record.
enum Due {
    File(i64, Box<Surveyed>),
    Frame(i64, Arc<OpenFile>, usize),
}

impl Due {
    /// Files before frames of the same time, so that nothing of that time is still hidden in one.
    fn place(&self) -> (i64, bool, &str, usize) {
        match self {
            Self::File(at, file) => (*at, false, &file.entry.key, 0),
            Self::Frame(at, file, number) => (*at, true, &file.entry.key, *number),
        }
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl Maker {
    /// Makes the next units; `false`: there are none.
    async fn more(&mut self) -> Result<bool, ReadError> {
        match &mut self.source {
            Source::Groups(groups) => {
                let Some(group) = groups.pop_front() else { return Ok(false) };
                let mut files = Vec::with_capacity(group.len());
                for mut file in group {
                    files.extend(self.opened(&mut file).await?);
                }
                self.group(&files);
                Ok(true)
            }
            Source::Due(due) => {
                let Some(Reverse(next)) = due.pop() else { return Ok(false) };
                match next {
                    Due::Frame(_, file, number) => self.append(file, number),
                    Due::File(_, mut file) => {
                        if let Some(file) = self.opened(&mut file).await? {
                            self.due_frames(&file);
                        }
                    }
                }
                Ok(true)
            }
        }
    }

    /// `None`: the file is damaged or gone by now, and was reported.
    async fn opened(&self, file: &mut Surveyed) -> Result<Option<Arc<OpenFile>>, ReadError> {
        match file.take(&self.place).await {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.is_of_one_file() => {
                self.report.problem(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn fitting(&self, file: &OpenFile) -> Vec<usize> {
        let index = file.index.as_ref();
        index.map(|index| fitting(index, &self.question.times, &self.emitted)).unwrap_or_default()
    }

    fn due_frames(&mut self, file: &Arc<OpenFile>) {
        let numbers = self.fitting(file);
        let Source::Due(due) = &mut self.source else { return };
        for number in numbers {
            let Some(frame) = file.index.as_ref().and_then(|index| index.frames.get(number)) else { continue };
            due.push(Reverse(Due::Frame(frame.min_time_ms, Arc::clone(file), number)));
        }
    }

    fn append(&mut self, file: Arc<OpenFile>, number: usize) {
        self.ready.push_back(Unit::Run { file, frames: vec![number] });
    }

    /// Files that are read as one: a file alone as it lies; several by frames, of which those that overlap are merged.
    fn group(&mut self, files: &[Arc<OpenFile>]) {
        if let [file] = files {
            let frames = self.fitting(file);
            self.run(file, &frames);
            return;
        }
        let mut streams = super::survey::Streams::default();
        let mut frames: Vec<(Arc<OpenFile>, usize)> = Vec::new();
        let mut spans = Vec::new();
        for file in files {
            let Some(index) = &file.index else { continue };
            for number in self.fitting(file) {
                spans.push(streams.spans(index, index.frames.get(number).into_iter()));
                frames.push((Arc::clone(file), number));
            }
        }
        let mut row: Option<(Arc<OpenFile>, Vec<usize>)> = None;
        for knot in order(&spans) {
            let members: Vec<(Arc<OpenFile>, usize)> =
                knot.iter().filter_map(|&member| frames.get(member).cloned()).collect();
            if let [(file, number)] = members.as_slice() {
                match &mut row {
                    Some((last, numbers)) if Arc::ptr_eq(last, file) => numbers.push(*number),
                    _ => {
                        self.flush(row.take());
                        row = Some((Arc::clone(file), vec![*number]));
                    }
                }
                continue;
            }
            self.flush(row.take());
            self.knot(members);
        }
        self.flush(row);
    }

    fn flush(&mut self, row: Option<(Arc<OpenFile>, Vec<usize>)>) {
        if let Some((file, numbers)) = row {
            self.run(&file, &numbers);
        }
    }

    fn run(&mut self, file: &Arc<OpenFile>, frames: &[usize]) {
        let runs = runs(file, frames).into_iter();
        self.ready.extend(runs.map(|frames| Unit::Run { file: Arc::clone(file), frames }));
    }

    fn knot(&mut self, members: Vec<(Arc<OpenFile>, usize)>) {
        let knot = Unit::Knot(members);
        let bytes = knot.frames().fold(0u64, |sum, frame| sum.saturating_add(frame.raw_len));
        let Unit::Knot(members) = knot else { return };
        if bytes <= MAX_KNOT_BYTES {
            self.ready.push_back(Unit::Knot(members));
            return;
        }
        self.report.inexact(&format!(
            "files overlap in {} MiB of records, more than are merged in memory: some offsets of a partition come out of \
             order. Narrow --since and --until, or use --sort time",
            bytes >> 20
        ));
        for (file, number) in members {
            self.ready.push_back(Unit::Run { file, frames: vec![number] });
        }
    }
}
