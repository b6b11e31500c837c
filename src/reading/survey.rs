//! A first look at all files of a question: which of them count, and what they hold.
//!
//! Owns: offsets and times of each file in range, indexes as far as memory allows.
//! Does not own: the order ([`super::order`]), frames.
//!
//! What is kept of a file is some hundred bytes; indexes are kept up to a limit and read again beyond it. So a year of one
//! app's files, some 20,000, takes a few megabytes.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;

use super::catalog::{Entry, files};
use super::file::{OpenFile, open, open_all};
use super::order::Span;
use super::place::Place;
use super::report::Report;
use super::times::Times;
use super::{ReadError, catalog};
use crate::archive::index::{FrameEntry, Index};

/// Memory for indexes that are kept between the look and the reading.
const KEPT_INDEX_BYTES: usize = 64 << 20;

/// Frames that claim more are damage: a frame ends with the record that fills it, and a record has some hundred MiB at most.
pub const MAX_FRAME_BYTES: u64 = 1 << 30;

/// Offsets that were given out already, by stream: reading goes on behind them.
pub type Emitted = HashMap<Stream, i64>;

/// Where offsets ascend: topic, incarnation, partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    pub topic: Arc<str>,
    pub incarnation: u32,
    pub partition: i32,
}

impl Stream {
    pub fn of(index: &Index, partition: i32) -> Self {
        Self { topic: index.facts.topic.as_str().into(), incarnation: index.facts.incarnation, partition }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The app's segment; `None`: every app's.
    pub app: Option<String>,
    pub times: Times,
}

/// A file that has something in range.
#[derive(Clone, Debug)]
pub struct Surveyed {
    pub entry: Entry,
    pub spans: Vec<Span>,
    pub min_time_ms: i64,
    pub max_time_ms: i64,
    kept: Option<Arc<OpenFile>>,
}

/// All files of a question.
#[derive(Debug, Default)]
pub struct Survey {
    pub files: Vec<Surveyed>,
    /// Other tools' files.
    pub foreign: Vec<Arc<OpenFile>>,
    pub streams: Streams,
}

/// Numbers for streams.
#[derive(Debug, Default)]
pub struct Streams {
    numbers: HashMap<Stream, u32>,
}

impl Streams {
    fn number(&mut self, stream: Stream) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(stream).or_insert(next)
    }

    /// Offsets of the frames, as one thing to order.
    pub fn spans<'f>(&mut self, index: &Index, frames: impl Iterator<Item = &'f FrameEntry>) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        let mut of_partition: HashMap<i32, usize> = HashMap::new();
        for held in frames.flat_map(|frame| &frame.partitions) {
            let at = *of_partition.entry(held.partition).or_insert_with(|| {
                let stream = self.number(Stream::of(index, held.partition));
                spans.push(Span { stream, first: held.first, last: held.last });
                spans.len() - 1
            });
            if let Some(span) = spans.get_mut(at) {
                (span.first, span.last) = (span.first.min(held.first), span.last.max(held.last));
            }
        }
        spans
    }
}

/// The frames of a file (by number) that can hold what is asked for.
pub fn fitting(index: &Index, times: &Times, emitted: &Emitted) -> Vec<usize> {
    let fits = |frame: &FrameEntry| times.touches(frame.min_time_ms, frame.max_time_ms);
    let is_new = |frame: &FrameEntry| {
        emitted.is_empty()
            || frame
                .partitions
                .iter()
                .any(|held| emitted.get(&Stream::of(index, held.partition)).is_none_or(|&last| last < held.last))
    };
    let frames = index.frames.iter().enumerate();
    frames.filter(|(_, frame)| fits(frame) && is_new(frame)).map(|(number, _)| number).collect()
}

/// Looks at all files. Those that can't be read are reported and left out.
///
/// # Errors
/// The store.
pub async fn survey(
    place: &Place,
    question: &Question,
    emitted: &Emitted,
    report: &Report,
) -> Result<Survey, ReadError> {
    let mut survey = Survey::default();
    let mut kept_bytes = 0;
    let listing = files(place, question.app.as_deref(), &question.times);
    let mut opened = std::pin::pin!(open_all(place, listing));
    while let Some(opened) = opened.next().await {
        let file = match opened {
            Ok(file) => Arc::new(file),
            Err((Some(_), error)) if error.is_of_one_file() => {
                report.problem(&error);
                continue;
            }
            Err((_, error)) => return Err(error),
        };
        let Some(index) = &file.index else {
            survey.foreign.push(file);
            continue;
        };
        if question.app.as_ref().is_some_and(|app| *app != index.facts.app) {
            continue;
        }
        if let Err(error) = check(place, &file, index) {
            report.problem(&error);
            continue;
        }
        let frames = fitting(index, &question.times, emitted);
        let entries = || frames.iter().filter_map(|&number| index.frames.get(number));
        let (Some(min_time_ms), Some(max_time_ms)) =
            (entries().map(|frame| frame.min_time_ms).min(), entries().map(|frame| frame.max_time_ms).max())
        else {
            continue;
        };
        let spans = survey.streams.spans(index, entries());
        let bytes = index_bytes(index);
        let kept = (kept_bytes + bytes <= KEPT_INDEX_BYTES).then(|| Arc::clone(&file));
        kept_bytes += if kept.is_some() { bytes } else { 0 };
        survey.files.push(Surveyed { entry: file.entry.clone(), spans, min_time_ms, max_time_ms, kept });
    }
    Ok(survey)
}

impl Surveyed {
    /// The opened file; forgets the index.
    ///
    /// # Errors
    /// It has to be opened again, and that fails.
    pub async fn take(&mut self, place: &Place) -> Result<Arc<OpenFile>, ReadError> {
        if let Some(kept) = self.kept.take() {
            return Ok(kept);
        }
        let file = open(place, &self.entry).await?;
        if let Some(index) = &file.index {
            check(place, &file, index)?;
        }
        Ok(Arc::new(file))
    }
}

/// Sizes that no file of ours has would only cost memory.
fn check(place: &Place, file: &OpenFile, index: &Index) -> Result<(), ReadError> {
    let is_absurd = |frame: &&FrameEntry| frame.raw_len > MAX_FRAME_BYTES || frame.stored_len > MAX_FRAME_BYTES;
    match index.frames.iter().find(is_absurd) {
        None => Ok(()),
        Some(frame) => {
            let why = format!("a frame of {} bytes, {} before compression", frame.stored_len, frame.raw_len);
            Err(ReadError::Damaged { url: place.store.url().to_owned(), key: file.entry.key.clone(), why })
        }
    }
}

fn index_bytes(index: &Index) -> usize {
    let partitions: usize = index.frames.iter().map(|frame| frame.partitions.capacity()).sum();
    let held = size_of::<crate::archive::frame::FramePartition>();
    index.frames.capacity() * size_of::<FrameEntry>() + partitions * held + 4096
}

/// All apps that a name, or a pattern with `*` and `?`, stands for, in order; `None`: the key template has no folders of apps.
///
/// # Errors
/// The store.
pub async fn matching_apps(place: &Place, matches: impl Fn(&str) -> bool) -> Result<Option<Vec<String>>, ReadError> {
    let Some(apps) = catalog::apps(place) else { return Ok(None) };
    let mut apps = std::pin::pin!(apps);
    let mut found = Vec::new();
    while let Some(app) = apps.next().await {
        let app = app?;
        if matches(&app) {
            found.push(app);
        }
    }
    Ok(Some(found))
}
