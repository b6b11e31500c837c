//! Writing archived records back into a Kafka topic, each once, also when the process is killed on the way.
//!
//! ```text
//!  archive -> records in order -> chunk -> target topic (acks=all) -> position -> file
//! ```
//!
//! Owns: what is refused, the order of apps, reading and writing side by side, where a restore goes on.
//! Does not own: reading ([`crate::reading`]), a chunk's way ([`write`]), what is known to be written ([`position`]).
//!
//! Order: one app after the other; within an app the records of each origin partition in offset order. One chunk is under way
//! at a time, and the position is saved after its acknowledgement, at the latest each second. So all that is written is what the
//! position says, and some records behind it. Those are found at the end of the target, from where it ended when the position
//! was saved: each record's headers name its origin and this restore. What is there is not written again.
//!
//! Crash at any place: before a chunk, nothing; within, some of its records are in the target and the tail names each; after
//! it, the same for all. Accepted: a batch whose answer was lost is written again by [`Kafka::produce`] while the process lives.

mod plan;
mod position;
mod records;
mod target;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use plan::Plan;
pub use position::{Asked, PartitionsBy, Position, PositionFile};

use crate::clock::Environment;
use crate::pipeline::produce::ProduceError;
use crate::pipeline::source::{Kafka, SourceError};
use crate::reading::ReadError;
use crate::reading::place::Place;
use crate::reading::reader::{AnswerError, Reader};
use crate::reading::report::{Report, Worst};
use crate::reading::survey::Question;
use crate::reading::times::Times;
use records::{Ready, Rewrite};
use write::Writer;

/// How much at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What is under way, so that a single record may be larger.
    pub chunk_bytes: usize,
    pub chunk_records: usize,
    /// How much may be written and not saved: after a kill it is read from the target.
    pub save_every: Duration,
    /// How long the target's end has to stand still after a kill before it is believed.
    pub settle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            chunk_bytes: 4 << 20,
            chunk_records: 10_000,
            save_every: Duration::from_secs(1),
            settle: Duration::from_secs(3),
        }
    }
}

/// Why a restore ends early. What was written is in its position, or at the end of the target.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// What is asked for can't be done.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Kafka(#[from] SourceError),
    /// This record is not known to be written.
    #[error("topic {topic} partition {partition} offset {offset}: {error}")]
    Record { topic: String, partition: i32, offset: i64, error: ProduceError },
    #[error("{}: how far this restore came can't be written: {error}", file.display())]
    Position { file: PathBuf, error: std::io::Error },
}

/// Shows how it goes on.
pub trait Progress: Send + Sync {
    /// `done` of about `all` records are written.
    fn start(&self, done: u64, all: u64);
    fn written(&self, records: u64);
    fn end(&self);
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Order {
    pub asked: Asked,
    /// The segments of the apps.
    pub apps: Vec<String>,
    pub times: Times,
    /// Records a second; `None`: as fast as it goes.
    pub rate: Option<u32>,
    pub position_file: PathBuf,
    pub into_archived_topic: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub connector: String,
    pub target: String,
    pub end: End,
    /// Written by this run, and by all runs of this restore.
    pub records: u64,
    pub records_in_all: u64,
    /// Some files could not be read; they were named.
    pub left_out: bool,
    /// What there was to do at the start of this run, with what former runs did.
    pub plan: Plan,
    pub progress_file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Nothing was written: only the plan was wanted.
    Planned,
    /// Nothing was written: there is nothing.
    Nothing,
    Finished,
    /// Nothing was written: a former run finished.
    FinishedBefore,
    /// Somebody stopped it; the same command goes on.
    Stopped,
}

/// Restores what one connector archived.
pub struct Restorer {
    pub place: Place,
    pub report: Arc<Report>,
    pub kafka: Arc<dyn Kafka>,
    pub environment: Environment,
    pub progress: Arc<dyn Progress>,
    pub stop: CancellationToken,
    pub limits: Limits,
}

impl Restorer {
    /// What there is to do, and what stands against it.
    ///
    /// # Errors
    /// It can't be done, or a service does not answer.
    pub async fn plan(&self, order: &Order) -> Result<Outcome, RestoreError> {
        self.refuse_loop(order)?;
        let target = target::find(self.kafka.as_ref(), &order.asked.target).await?;
        let position = position::load(&order.position_file, &order.asked)?;
        let position = position.unwrap_or_else(|| self.beginning(order));
        let plan = self.look(&position, &target).await?;
        Ok(self.outcome(order, &position, plan, End::Planned, 0))
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// [`RestoreError`]; the same order goes on where this one ended.
    pub async fn run(&self, order: &Order) -> Result<Outcome, RestoreError> {
        self.refuse_loop(order)?;
        let kafka = self.kafka.as_ref();
        let target = target::find(kafka, &order.asked.target).await?;
        let file = PositionFile::open(&order.position_file)?;
        let position = match file.load(&order.asked)? {
            Some(position) if position.finished => {
                return Ok(self.outcome(order, &position, Plan::default(), End::FinishedBefore, 0));
            }
            Some(mut position) => {
                self.same_target(&position, &target, &order.position_file)?;
                if !position.settled {
                    let ends = target::settled_ends(kafka, &target, &position, self.limits.settle).await?;
                    target::read_tail(kafka, &target, &mut position, ends).await?;
                    file.save(&position)?;
                }
                position
            }
            None => {
                let mut position = self.beginning(order);
                position.target_id = target.id.as_ref().map(|id| id.0.clone());
                position.ends = target::ends(kafka, &target).await?;
                position
            }
        };
        let plan = self.look(&position, &target).await?;
        if plan.files == 0 && position.records == 0 {
            return Ok(self.outcome(order, &position, plan, End::Nothing, 0));
        }
        self.progress.start(position.records, plan.records);
        let limits = (self.limits, order.rate);
        let mut writer = Writer::new(kafka, self.progress.as_ref(), &file, position, limits);
        let done = self.write_apps(&mut writer).await;
        self.progress.end();
        let end = match done? {
            true => End::Finished,
            false => End::Stopped,
        };
        writer.position.finished = end == End::Finished;
        writer.settle()?;
        Ok(self.outcome(order, &writer.position, plan, end, writer.records))
    }

    fn beginning(&self, order: &Order) -> Position {
        let restore = format!("{:032x}", self.environment.random.next_u128());
        Position::new(order.asked.clone(), restore, order.apps.clone(), order.times)
    }

    fn outcome(&self, order: &Order, position: &Position, plan: Plan, end: End, records: u64) -> Outcome {
        Outcome {
            connector: order.asked.connector.clone(),
            target: order.asked.target.clone(),
            end,
            records,
            records_in_all: position.records,
            left_out: position.left_out || self.report.worst() != Worst::Fine,
            plan,
            progress_file: order.position_file.clone(),
        }
    }

    /// The connector would archive what is restored, for the next restore to find it twice.
    fn refuse_loop(&self, order: &Order) -> Result<(), RestoreError> {
        let (connector, target) = (self.place.connector.as_deref(), &order.asked.target);
        match connector.is_some_and(|connector| connector.topics.holds(target)) && !order.into_archived_topic {
            false => Ok(()),
            true => Err(RestoreError::Usage(format!(
                "connector {} archives topic {target}: it would archive each record again. Restore to another topic, or \
                 say --into-archived-topic",
                order.asked.connector
            ))),
        }
    }

    fn same_target(
        &self,
        position: &Position,
        target: &crate::pipeline::source::TopicInfo,
        file: &std::path::Path,
    ) -> Result<(), RestoreError> {
        match (&position.target_id, &target.id) {
            (Some(known), Some(found)) if *known != found.0 => Err(RestoreError::Usage(format!(
                "topic {} was made again since this restore began: delete {} to begin anew",
                target.name,
                file.display()
            ))),
            _ => Ok(()),
        }
    }

    async fn look(
        &self,
        position: &Position,
        target: &crate::pipeline::source::TopicInfo,
    ) -> Result<Plan, RestoreError> {
        let plan = plan::plan(&self.place, &position.apps, &position.times(), &self.report).await?;
        target::check_partitions(target, position.asked.partitions, plan.partitions)?;
        if plan.raw_files > 0 {
            let by_key = match position.asked.partitions {
                PartitionsBy::Key => ", so partitions are chosen in turn",
                PartitionsBy::Keep => "",
            };
            self.report.note(&format!(
                "{} of {} files are of the format raw: their records come back without key and headers{by_key}",
                plan.raw_files, plan.files
            ));
        }
        let kept = self.kafka.retention(&target.name).await?;
        let now_ms = self.environment.clock.now_ms();
        if let (Some(kept), Some(earliest)) = (kept, plan.min_time_ms) {
            let age = Duration::from_millis(u64::try_from(now_ms.saturating_sub(earliest)).unwrap_or_default());
            if age > kept {
                self.report.note(&format!(
                    "topic {} keeps records for {} hours and the earliest of these is {} hours old: Kafka may delete them at \
                     once. Raise its retention.ms to keep them",
                    target.name,
                    kept.as_secs() / 3600,
                    age.as_secs() / 3600
                ));
            }
        }
        Ok(plan)
    }

    /// `false`: it was stopped.
    async fn write_apps(&self, writer: &mut Writer<'_>) -> Result<bool, RestoreError> {
        while let Some(app) = writer.position.apps.get(writer.position.app).cloned() {
            if !self.write_app(&app, writer).await? {
                return Ok(false);
            }
            // The tail behind this holds nothing of the app any more.
            writer.position.left_out |= self.report.worst() != Worst::Fine;
            writer.position.next_app();
            writer.save()?;
        }
        Ok(true)
    }

    async fn write_app(&self, app: &str, writer: &mut Writer<'_>) -> Result<bool, RestoreError> {
        let question = Question { app: Some(app.to_owned()), times: writer.position.times() };
        let work = Arc::new(Rewrite {
            url: self.place.store.url().to_owned(),
            restore: writer.position.restore.clone(),
            by: writer.position.asked.partitions,
        });
        let reader = Reader::new(self.place.clone(), Arc::clone(&self.report));
        let emitted = writer.position.emitted();
        let (sender, receiver) = mpsc::channel(1);
        let mut reading = std::pin::pin!(async move { reader.behind(&question, emitted, &work, sender).await });
        let (written, read) = {
            let mut writing = std::pin::pin!(self.write_all(receiver, writer));
            tokio::select! {
                written = &mut writing => (written, None),
                read = &mut reading => (writing.await, Some(read)),
            }
        };
        let whole = written?;
        match read {
            None if !whole => return Ok(false),
            None => {}
            Some(Ok(foreign)) => writer.position.left_out |= foreign > 0,
            Some(Err(error)) => {
                // Nothing is under way.
                writer.settle()?;
                return Err(match error {
                    AnswerError::Read(error) => error.into(),
                    AnswerError::Live(error) => RestoreError::Usage(error.to_string()),
                    AnswerError::Out(error) => RestoreError::Usage(error.to_string()),
                });
            }
        }
        Ok(whole)
    }

    /// `false`: it was stopped.
    async fn write_all(
        &self,
        mut batches: mpsc::Receiver<Result<Vec<Ready>, ReadError>>,
        writer: &mut Writer<'_>,
    ) -> Result<bool, RestoreError> {
        let mut ended = false;
        loop {
            if self.stop.is_cancelled() {
                return Ok(false);
            }
            if writer.is_full() || (ended && !writer.is_empty()) {
                tokio::select! {
                    () = self.stop.cancelled() => return Ok(false),
                    () = tokio::time::sleep_until(writer.due()) => {}
                }
                // A later run may begin behind what was damaged, and not see it.
                writer.position.left_out |= self.report.worst() != Worst::Fine;
                writer.write().await?;
                continue;
            }
            if ended {
                return Ok(true);
            }
            let batch = tokio::select! {
                () = self.stop.cancelled() => return Ok(false),
                batch = batches.recv() => batch,
            };
            match batch {
                // A position says "all up to here": it needs offsets in order.
                Some(_) if self.report.is_inexact() => {
                    return Err(RestoreError::Usage(
                        "these records can't be restored in the order of their offsets: narrow --since and --until"
                            .to_owned(),
                    ));
                }
                Some(batch) => batch?.into_iter().for_each(|ready| writer.take(ready)),
                None => ended = true,
            }
        }
    }
}
