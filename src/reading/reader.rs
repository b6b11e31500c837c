//! A question answered: frames fetched ahead, worked on by all cores, given out in order.
//!
//! Owns: the pipeline and its limits, going on behind what was given out when a file changes under the reader.
//! Does not own: what is fetched ([`super::units`]), what is done with records ([`Work`]).
//!
//! ```text
//!  units -> memory permit -> fetch (several requests) -> decompress, check, work (threads) -> in order -> out
//! ```

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::ReadError;
use super::batch::{Batch, Fetched, Picker, event_times, keep_within};
use super::counted::Counters;
use super::fetch::fetch;
use super::foreign;
use super::live::{Covered, Live, LiveError};
use super::place::Place;
use super::report::Report;
use super::survey::{Emitted, Question, Stream as RecordStream, survey};
use super::sweep::{Sweep, Timed};
use super::units::{By, Unit, units};
use crate::archive::format::Format;
use crate::archive::index::FrameEntry;

/// Fetched and decompressed bytes that wait to be given out.
const AHEAD_BYTES: u64 = 128 << 20;
/// Requests for frames at the same time.
const FETCH_AHEAD: usize = 16;
/// Finished pieces between the pipeline and who takes them.
const DONE_AHEAD: usize = 4;
/// How often a file may change under one reading.
const MAX_CHANGES: usize = 5;

/// What is done with records, on any core, batch by batch.
pub trait Work: Send + Sync + 'static {
    type Out: Send + 'static;

    /// Whether it must know where each record lies, for files of this format.
    fn needs_records(&self, format: Format) -> bool;

    /// Leaves out what need not be sorted by time. Batches have records here.
    fn select(&self, _batch: &mut Batch) {}

    fn work(&self, batch: Batch) -> Self::Out;
}

/// Why an answer ends early.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Live(#[from] LiveError),
    /// Nobody takes it any more.
    #[error(transparent)]
    Out(#[from] std::io::Error),
}

/// Answers questions about one place.
#[derive(Clone, Debug)]
pub struct Reader {
    pub place: Place,
    pub report: Arc<Report>,
    /// Threads that decompress and work.
    pub cores: usize,
    /// What is in no file yet is read too. It follows the files in the order of offsets, and is merged by time.
    pub live: Option<Arc<Live>>,
}

/// Frames that are worked on as one.
struct Piece {
    frames: Vec<Fetched>,
    is_knot: bool,
    held: Arc<OwnedSemaphorePermit>,
}

/// What came of a piece.
struct Done<T> {
    out: T,
    given: Vec<(RecordStream, i64)>,
    /// Nothing that comes later is earlier than this.
    earliest_ms: i64,
    _held: Arc<OwnedSemaphorePermit>,
}

impl Reader {
    pub fn new(place: Place, report: Arc<Report>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { place, report, cores, live: None }
    }

    /// Does the work for all records of the question and hands each result to `take`, in the order of `by`.
    ///
    /// # Errors
    /// The store, or whoever takes. Files that can't be read are reported and left out.
    pub async fn answer<W: Work>(
        &self,
        question: &Question,
        by: By,
        work: &Arc<W>,
        mut take: impl FnMut(W::Out) -> std::io::Result<()>,
    ) -> Result<(), AnswerError> {
        let mut emitted: Emitted = HashMap::new();
        let mut changes = 0;
        loop {
            let mut survey = survey(&self.place, question, &emitted, self.live.as_deref(), &self.report).await?;
            let covered = std::mem::take(&mut survey.covered);
            let foreign = std::mem::take(&mut survey.foreign);
            if changes == 0 {
                foreign::read_all(self, &foreign, &question.times, work, &mut take).await?;
            }
            let units = units(&self.place, question, survey, by, Arc::new(emitted.clone()), Arc::clone(&self.report));
            let outcome = match by {
                By::Offset => self.by_offset(question, units, work, &mut emitted, &covered, &mut take).await,
                By::Time => self.by_time(question, units, work, &covered, &mut take).await,
            };
            match outcome {
                Err(AnswerError::Read(ReadError::Changed { url, key })) => {
                    changes += 1;
                    // Records that were given out of order can't be told from those that were not yet.
                    if by == By::Time || self.report.is_inexact() || changes > MAX_CHANGES {
                        return Err(ReadError::Changed { url, key }.into());
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Does the work for the records of the question behind what was given out before, in offset order, and sends each
    /// result. Files without an index have no offsets: they are left out. Answers with how many. What is in no file yet is not
    /// read.
    ///
    /// # Errors
    /// The store, or nobody takes the results any more. Files that can't be read are reported and left out.
    pub async fn behind<W: Work>(
        &self,
        question: &Question,
        mut emitted: Emitted,
        work: &Arc<W>,
        results: mpsc::Sender<W::Out>,
    ) -> Result<u64, AnswerError> {
        let mut changes = 0;
        loop {
            let survey = survey(&self.place, question, &emitted, None, &self.report).await?;
            let foreign = survey.foreign.len() as u64;
            for file in &survey.foreign {
                let (url, key) = (self.place.store.url(), &file.entry.key);
                self.report.note(&format!("{url}/{key} has no index: it is left out"));
            }
            let known = Arc::new(emitted.clone());
            let units = units(&self.place, question, survey, By::Offset, Arc::clone(&known), Arc::clone(&self.report));
            let (needs, job) = (Arc::clone(work), Arc::clone(work));
            let needs = move |format| needs.needs_records(format);
            let job = move |batch: Batch, _: Option<Vec<i64>>| job.work(batch);
            let mut done = self.pipeline(question, units, known, needs, false, job);
            loop {
                let next = match done.recv().await {
                    None => return Ok(foreign),
                    Some(Err(error @ ReadError::Changed { .. })) => {
                        changes += 1;
                        if self.report.is_inexact() || changes > MAX_CHANGES {
                            return Err(error.into());
                        }
                        break;
                    }
                    Some(next) => next?,
                };
                let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
                results.send(next.out).await.map_err(gone)?;
                for (stream, last) in next.given {
                    let known = emitted.entry(stream).or_insert(last);
                    *known = last.max(*known);
                }
            }
        }
    }

    async fn by_offset<W: Work>(
        &self,
        question: &Question,
        units: impl Stream<Item = Result<Unit, ReadError>> + Send + 'static,
        work: &Arc<W>,
        emitted: &mut Emitted,
        covered: &Covered,
        take: &mut impl FnMut(W::Out) -> std::io::Result<()>,
    ) -> Result<(), AnswerError> {
        let job = {
            let work = Arc::clone(work);
            move |batch: Batch, _: Option<Vec<i64>>| work.work(batch)
        };
        let needs = Arc::clone(work);
        let needs = move |format| needs.needs_records(format);
        let mut done = self.pipeline(question, units, Arc::new(emitted.clone()), needs, false, job);
        while let Some(next) = done.recv().await {
            let next = next?;
            take(next.out)?;
            for (stream, last) in next.given {
                let known = emitted.entry(stream).or_insert(last);
                *known = last.max(*known);
            }
        }
        let Some(live) = &self.live else { return Ok(()) };
        let give = |batch, _| take(work.work(batch)).map_err(AnswerError::from);
        live.read(&self.place, question, covered, &self.report, give).await
    }

    async fn by_time<W: Work>(
        &self,
        question: &Question,
        units: impl Stream<Item = Result<Unit, ReadError>> + Send + 'static,
        work: &Arc<W>,
        covered: &Covered,
        take: &mut impl FnMut(W::Out) -> std::io::Result<()>,
    ) -> Result<(), AnswerError> {
        let select = Arc::clone(work);
        let job = move |batch: Batch, times: Option<Vec<i64>>| {
            let mut timed = Timed::new(batch, times.unwrap_or_default());
            timed.select(|batch| select.select(batch));
            timed
        };
        let mut done = self.pipeline(question, units, Arc::default(), |_| true, true, job);
        let mut sweep = Sweep::new(Arc::clone(&self.report));
        if let Some(live) = &self.live {
            let give = |batch, times| {
                let mut timed = Timed::new(batch, times);
                timed.select(|batch| work.select(batch));
                sweep.push(timed);
                Ok::<_, AnswerError>(())
            };
            live.read(&self.place, question, covered, &self.report, give).await?;
        }
        while let Some(next) = done.recv().await {
            let next = next?;
            while let Some(batch) = sweep.before(next.earliest_ms) {
                take(work.work(batch))?;
            }
            sweep.push(next.out);
        }
        while let Some(batch) = sweep.before(i64::MAX) {
            take(work.work(batch))?;
        }
        while let Some(batch) = sweep.rest() {
            take(work.work(batch))?;
        }
        Ok(())
    }

    /// Starts the pipeline; it ends when the receiver is dropped.
    fn pipeline<T: Send + 'static>(
        &self,
        question: &Question,
        units: impl Stream<Item = Result<Unit, ReadError>> + Send + 'static,
        emitted: Arc<Emitted>,
        needs: impl Fn(Format) -> bool + Send + Sync + 'static,
        times: bool,
        job: impl Fn(Batch, Option<Vec<i64>>) -> T + Send + Sync + 'static,
    ) -> mpsc::Receiver<Result<Done<T>, ReadError>> {
        let (sender, receiver) = mpsc::channel(DONE_AHEAD);
        let (reader, question) = (Arc::new(self.clone()), Arc::new(question.clone()));
        let (needs, job) = (Arc::new(needs), Arc::new(job));
        let budget = Arc::new(Semaphore::new((AHEAD_BYTES >> 10) as usize));
        let fetched = {
            let (reader, question, emitted) = (Arc::clone(&reader), Arc::clone(&question), Arc::clone(&emitted));
            units
                .then(move |unit| permit(unit, Arc::clone(&budget)))
                .map(move |unit| {
                    let (reader, question, emitted) =
                        (Arc::clone(&reader), Arc::clone(&question), Arc::clone(&emitted));
                    let needs = Arc::clone(&needs);
                    async move {
                        let (unit, held) = unit?;
                        reader.fetch_unit(unit, Arc::new(held), &question, &emitted, needs.as_ref()).await
                    }
                })
                .buffered(FETCH_AHEAD)
        };
        let cores = self.cores;
        let worked = fetched
            .flat_map(|pieces| match pieces {
                Ok(pieces) => stream::iter(pieces.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .map(move |piece| {
                let (reader, question, emitted) = (Arc::clone(&reader), Arc::clone(&question), Arc::clone(&emitted));
                let job = Arc::clone(&job);
                async move {
                    let piece = piece?;
                    let work = move || reader.work_on(piece, &question, &emitted, times, job.as_ref());
                    tokio::task::spawn_blocking(work).await.map_err(|stopped| {
                        let why = format!("a thread stopped: {stopped}");
                        ReadError::Damaged { url: String::new(), key: String::new(), why }
                    })
                }
            })
            .buffered(cores + 2);
        tokio::spawn(async move {
            let mut worked = std::pin::pin!(worked);
            while let Some(done) = worked.next().await {
                let failed = done.is_err();
                if sender.send(done).await.is_err() || failed {
                    return;
                }
            }
        });
        receiver
    }

    async fn fetch_unit(
        &self,
        unit: Unit,
        held: Arc<OwnedSemaphorePermit>,
        question: &Question,
        emitted: &Emitted,
        needs: &(impl Fn(Format) -> bool + Send + Sync),
    ) -> Result<Vec<Piece>, ReadError> {
        let is_knot = matches!(unit, Unit::Knot(_));
        let runs = match unit {
            Unit::Run { file, frames } => vec![(file, frames)],
            Unit::Knot(members) => members.into_iter().map(|(file, frame)| (file, vec![frame])).collect(),
        };
        let mut fetched = Vec::new();
        for (file, frames) in runs {
            let Some(index) = &file.index else { continue };
            let always = is_knot || !emitted.is_empty() || needs(index.facts.format);
            let needs_table =
                |frame: &FrameEntry| always || !question.times.covers(frame.min_time_ms, frame.max_time_ms);
            match fetch(&self.place, &file, &frames, needs_table).await {
                Ok(frames) => fetched.extend(frames),
                Err(error @ (ReadError::Changed { .. } | ReadError::Store(_))) => return Err(error),
                Err(error) => self.report.problem(&error),
            }
        }
        let piece = |frames| Piece { frames, is_knot, held: Arc::clone(&held) };
        Ok(match is_knot {
            true => vec![piece(fetched)],
            false => fetched.into_iter().map(|frame| piece(vec![frame])).collect(),
        })
    }

    fn work_on<T>(
        &self,
        piece: Piece,
        question: &Question,
        emitted: &Emitted,
        times: bool,
        job: &impl Fn(Batch, Option<Vec<i64>>) -> T,
    ) -> Done<T> {
        let mut given = Vec::new();
        let mut batches = Vec::new();
        let mut earliest_ms = i64::MAX;
        let mut found_times = None;
        for fetched in piece.frames {
            let frame = fetched.frame.clone();
            earliest_ms = earliest_ms.min(frame.min_time_ms);
            given.extend(streams_of(&fetched));
            match self.batch(fetched, &frame, question, emitted, times) {
                Ok((batch, times)) => {
                    found_times = times;
                    batches.push(batch);
                }
                Err(error) => self.report.problem(&error),
            }
        }
        let batch = match piece.is_knot {
            true => Picker::merge(batches),
            false => batches.pop().unwrap_or_default(),
        };
        Done { out: job(batch, found_times), given, earliest_ms, _held: piece.held }
    }

    fn batch(
        &self,
        fetched: Fetched,
        frame: &FrameEntry,
        question: &Question,
        emitted: &Emitted,
        times: bool,
    ) -> Result<(Batch, Option<Vec<i64>>), ReadError> {
        let mut batch = fetched.decode(self.place.store.url())?;
        Counters::add(&self.place.counters.decompressed_bytes, batch.raw_len() as u64);
        let rule = self.place.connector.as_deref().map(|connector| &connector.time);
        if !emitted.is_empty() {
            let file = batch.files.first().cloned();
            let known = |partition| {
                let stream = RecordStream::of(file.as_ref()?.index.as_deref()?, partition);
                emitted.get(&stream).copied()
            };
            let known: HashMap<i32, i64> =
                frame.partitions.iter().filter_map(|held| Some((held.partition, known(held.partition)?))).collect();
            // Times are told by all records of the frame: they come first.
            self.within(&mut batch, frame, question, rule);
            batch.retain(|place| known.get(&place.partition).is_none_or(|&last| last < place.offset));
            return Ok((batch, None));
        }
        if !times {
            self.within(&mut batch, frame, question, rule);
            return Ok((batch, None));
        }
        let known = event_times(&batch, frame, rule);
        let is_known = known.is_some();
        let found = known.unwrap_or_else(|| {
            self.report.note(NO_TIMES);
            batch.records().unwrap_or_default().iter().map(|place| place.timestamp_ms).collect()
        });
        let mut kept = Vec::with_capacity(found.len());
        let mut times = found.into_iter();
        batch.retain(|_| {
            let time = times.next();
            let keep = time.is_some_and(|time| !is_known || question.times.contains(time));
            kept.extend(time.filter(|_| keep));
            keep
        });
        Ok((batch, Some(kept)))
    }

    fn within(
        &self,
        batch: &mut Batch,
        frame: &FrameEntry,
        question: &Question,
        rule: Option<&crate::config::TimeRule>,
    ) {
        if !keep_within(batch, frame, &question.times, rule) {
            self.report.note(NO_TIMES);
        }
    }
}

const NO_TIMES: &str = "the times of some records come from their values by a rule that is not known here: name the \
                        connector instead of the URL to have them, or expect records from somewhat before and after";

async fn permit(
    unit: Result<Unit, ReadError>,
    budget: Arc<Semaphore>,
) -> Result<(Unit, OwnedSemaphorePermit), ReadError> {
    let unit = unit?;
    // A unit beyond the budget has it for itself.
    let kib = (unit.memory_bytes() >> 10).clamp(1, AHEAD_BYTES >> 10);
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    match budget.acquire_many_owned(kib).await {
        Ok(held) => Ok((unit, held)),
        Err(closed) => Err(ReadError::Damaged { url: String::new(), key: String::new(), why: closed.to_string() }),
    }
}

fn streams_of(fetched: &Fetched) -> Vec<(RecordStream, i64)> {
    let Some(index) = fetched.file.index.as_deref() else { return Vec::new() };
    fetched.frame.partitions.iter().map(|held| (RecordStream::of(index, held.partition), held.last)).collect()
}
