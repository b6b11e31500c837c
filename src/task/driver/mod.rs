//! The doing half of a task: carries the core's actions out and brings the answers back.
//!
//! Owns: one event loop, the readers, what becomes of answers. Does not own: decisions (the core's), retries of single requests
//! (the doors').
//!
//! Order in the loop: stop first, then answers, then records, then time. Records are taken only while the memory budget and the
//! spool have room, so that a slow store slows reading and nothing else.

mod copies;
mod perform;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::adopt::Adopted;
use super::context::TaskContext;
use super::core::{Core, Taken};
use super::cut::Goal;
use super::error::TaskError;
use super::fenced;
use super::letters::{Letters, Written};
use super::opening::{self, Opened, Opening};
use super::recent::Upload;
use super::settings::TaskSettings;
use super::status::TaskState;
use crate::archive::app_id::app_id_of_segment;
use crate::archive::key::KeyReader;
use crate::config::ConnectorConfig;
use crate::kafka::backoff::Backoff;
use crate::ledger::encoding::Stored;
use crate::ledger::{State, Token};
use crate::log::journal::LogError;
use crate::pipeline::budget::{LaneCount, Permit};
use crate::pipeline::compress::{CompressError, Outcome, Worked};
use crate::pipeline::lane::FileId;
use crate::pipeline::source::{At, Position, ReadRequest, Reader, SourceError, SourceEvent, TopicInfo};
use crate::pipeline::spool::journal::Floor;
use crate::pipeline::spool::{SpoolFile, TaskSpool};

use self::perform::{JournalCommand, keep_journal};

/// Blocks that may wait in front of the core; their memory is counted by the budget.
const BLOCKS_QUEUED: usize = 16;
/// Longest sleep of the loop: status and metrics are this fresh.
const TICK: Duration = Duration::from_secs(1);
/// The spool's journal learns this often from where on a restart would read.
const FLOOR_EVERY: Duration = Duration::from_secs(5);
/// Other tasks of this process have so long to adopt what is theirs before a full spool makes it go.
const LEFT_GRACE: Duration = Duration::from_secs(30);
/// Above this share of the budget lane buffers are compressed early.
const RELIEF_PERCENT: u64 = 75;

/// How a task ended without an error.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// `--until-caught-up`: everything up to the ends is archived and logged.
    CaughtUp,
    /// Asked to stop; what was decided is finished.
    Stopped,
    /// Asked to stop; uploads in flight did not finish in time. The next owner finishes them.
    CutShort,
    /// The log has ended: another mapping took its place.
    Closed(Box<State>),
}

/// Runs a task until it is stopped, has caught up, or fails.
///
/// # Errors
/// [`TaskError`]: the task stopped; its log is in order, and the next owner goes on from it.
pub async fn run(context: &TaskContext, until_caught_up: bool, stop: CancellationToken) -> Result<End, TaskError> {
    reach(context, Goal::Archive, until_caught_up, stop).await
}

/// Finishes what a task of an old mapping has decided, and ends its log: mapping `next` takes its place. Whoever runs the task is
/// fenced by it.
///
/// # Errors
/// [`TaskError`]: the log is in order, and anybody may go on from it.
pub async fn close(context: &TaskContext, next: u32, stop: CancellationToken) -> Result<End, TaskError> {
    reach(context, Goal::Close { next }, false, stop).await
}

async fn reach(
    context: &TaskContext,
    goal: Goal,
    until_caught_up: bool,
    stop: CancellationToken,
) -> Result<End, TaskError> {
    let mut ours = None;
    match owned(context, goal, until_caught_up, stop, &mut ours).await {
        Err(error) => Err(fenced::explain(context, ours.as_ref(), error).await),
        ended => ended,
    }
}

async fn owned(
    context: &TaskContext,
    goal: Goal,
    until_caught_up: bool,
    stop: CancellationToken,
    ours: &mut Option<Token>,
) -> Result<End, TaskError> {
    loop {
        let settings = TaskSettings::new(Arc::clone(&context.connector), &context.topic, context.task);
        let opening = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(End::Stopped),
            opening = opening::open(context, settings, goal, ours) => opening?,
        };
        let opened = match opening {
            Opening::Ready(opened) => *opened,
            Opening::Closed(state) => return Ok(End::Closed(state)),
        };
        let cut = opened.cut.clone();
        let mut driver = Driver::start(context, opened)?;
        if let Some(ends) = cut.clone().or_else(|| until_caught_up.then(|| driver.live_ends.clone())) {
            driver.core.until(ends, context.environment.clock.now_ms());
        }
        context.status.set_state(TaskState::Running, None, None);
        let end = driver.run(stop.clone()).await?;
        if cut.is_none() || end != End::CaughtUp {
            return Ok(end);
        }
    }
}

/// Answers of everything that runs beside the loop.
enum Answer {
    Appended(Result<Stored, LogError>),
    Uploaded {
        file: FileId,
        key: String,
        bytes: u64,
    },
    DeadLettered(Written),
    /// With where they begin.
    NewPartitions(BTreeMap<i32, i64>),
    /// Kafka's group has these; `None`: it could not be told.
    LowsCopied(Option<Vec<(i32, i64)>>),
    Failed(TaskError),
}

struct Driver<'a> {
    context: &'a TaskContext,
    /// As the task's settings are: below a cut they are earlier ones.
    connector: Arc<ConnectorConfig>,
    keys: KeyReader,
    core: Core,
    live_ends: BTreeMap<i32, i64>,
    spool: TaskSpool,
    spool_files: HashMap<FileId, Arc<SpoolFile>>,
    /// The last that the spool's journal has.
    floor: Option<Floor>,
    floor_at: Instant,
    adopted_seen: BTreeMap<i32, Position>,
    begun: Instant,
    /// What the lanes' buffers take.
    lanes_permit: Permit,
    lane_count: LaneCount,
    journal: mpsc::Sender<JournalCommand>,
    answers: (mpsc::UnboundedSender<Answer>, mpsc::UnboundedReceiver<Answer>),
    worked: (mpsc::UnboundedSender<Worked>, mpsc::UnboundedReceiver<Worked>),
    background: JoinSet<()>,
    blocks: (mpsc::Sender<SourceEvent>, mpsc::Receiver<SourceEvent>),
    readers: Vec<Reader>,
    topic_info: watch::Receiver<TopicInfo>,
    /// New partitions whose start was asked for.
    asked_partitions: BTreeSet<i32>,
    copied_lows: Vec<(i32, i64)>,
    copied_lows_at_ms: i64,
    copying_lows: bool,
    letters: Letters,
    tick_at: Instant,
    stopping: bool,
    /// Why the task ends once what was read is finished.
    failed: Option<TaskError>,
}

/// Whether records that were read may be gone from Kafka: the task's copy is the only one.
fn is_gone(error: &SourceError) -> bool {
    matches!(
        error,
        SourceError::NoTopic { .. }
            | SourceError::Recreated { .. }
            | SourceError::Truncated { .. }
            | SourceError::OutOfRange { .. }
    )
}

impl<'a> Driver<'a> {
    fn start(context: &'a TaskContext, opened: Opened) -> Result<Self, TaskError> {
        let Opened { journal, state, settings, partitions, missing, live_ends, compacted, adopted, begin, .. } = opened;
        tracing::info!(
            connector = context.connector.name,
            topic = context.topic,
            task = context.task,
            entry = state.tip,
            pending = state.intents.len(),
            missing = missing.len(),
            "task taken over"
        );
        context.metrics.took_over();
        context.status.update(|report| {
            for (&partition, &end) in &live_ends {
                report.partitions.entry(partition).or_default().end = Some(end);
            }
        });
        let (adoption, spool, spool_files) = match adopted {
            Some(Adopted { adoption, spool, files }) => (Some(adoption), spool, files),
            None => {
                let spool = context.spool.task(&context.connector.name, &context.topic, context.task, begin)?;
                (None, spool, HashMap::new())
            }
        };
        let now_ms = context.environment.clock.now_ms();
        let taken = Taken {
            partitions: &partitions,
            missing: &missing,
            live_ends: live_ends.clone(),
            entries_since_snapshot: journal.entries_since_snapshot(),
            adoption: adoption.as_ref(),
        };
        let connector = Arc::clone(&settings.connector);
        let mut core = Core::new(settings, state, taken, now_ms)
            .with_snapshot_every(context.snapshot_every)
            .with_compacted(compacted);
        core.begin(now_ms)?;
        let answers = mpsc::unbounded_channel();
        let (commands, queue) = mpsc::channel(4);
        let mut background = JoinSet::new();
        background.spawn(keep_journal(journal, queue, answers.0.clone()));
        Ok(Self {
            context,
            keys: connector.sink.key.reader(),
            connector,
            core,
            live_ends,
            spool,
            spool_files,
            adopted_seen: adoption.map(|adoption| adoption.seen).unwrap_or_default(),
            begun: Instant::now(),
            floor: None,
            floor_at: Instant::now() + FLOOR_EVERY,
            lanes_permit: context.budget.charge(0),
            lane_count: context.budget.lanes(),
            journal: commands,
            answers,
            worked: mpsc::unbounded_channel(),
            background,
            blocks: mpsc::channel(BLOCKS_QUEUED),
            readers: Vec::new(),
            topic_info: context.topic_info.clone(),
            asked_partitions: BTreeSet::new(),
            copied_lows: Vec::new(),
            copied_lows_at_ms: 0,
            copying_lows: false,
            letters: Letters::default(),
            tick_at: Instant::now(),
            stopping: false,
            failed: None,
        })
    }

    fn now_ms(&self) -> i64 {
        self.context.environment.clock.now_ms()
    }

    fn read(&mut self, partitions: &[i32]) {
        let starts: Vec<(i32, i64)> =
            partitions.iter().filter(|&&p| self.core.wants(p)).map(|&p| (p, self.core.position(p))).collect();
        if starts.is_empty() {
            return;
        }
        let request = ReadRequest {
            topic: self.context.topic.clone(),
            topic_id: self.core.state().identity.topic_id.clone(),
            isolation: self.connector.isolation,
            starts,
            seen: partitions.iter().filter_map(|&p| Some((p, self.seen(p)?))).collect(),
            budget: self.context.budget.clone(),
        };
        self.readers.push(self.context.kafka.read(request, self.blocks.0.clone()));
    }

    /// The highest position that was read before, as the log or an adopted spool says.
    fn seen(&self, partition: i32) -> Option<Position> {
        let logged = self.core.state().seen.get(&partition);
        let spooled = self.adopted_seen.get(&partition);
        logged.into_iter().chain(spooled).max_by_key(|position| position.offset).copied()
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<End, TaskError> {
        let partitions: Vec<i32> = self.core.positions().keys().copied().collect();
        self.read(&partitions);
        let mut deadline: Option<Instant> = None;
        let status = Arc::clone(&self.context.status);
        let _running = status.begin_loop();
        loop {
            status.turn();
            // Also what the pool is too slow to take must not hold up a stop.
            let acted = match deadline {
                Some(at) => timeout_at(at, self.act()).await,
                None => Ok(self.act().await),
            };
            let Ok(acted) = acted else {
                self.write_last_floor();
                return Ok(End::CutShort);
            };
            acted?;
            if self.core.is_finished() {
                self.write_last_floor();
                self.copy_lows_at_the_end().await;
                if let Some(error) = self.failed.take() {
                    return Err(error);
                }
                return Ok(if deadline.is_some() { End::Stopped } else { End::CaughtUp });
            }
            if self.core.is_draining() || deadline.is_some() {
                // Nothing more is wanted; what is queued frees its memory.
                if !self.readers.is_empty() && self.failed.is_none() && deadline.is_none() {
                    tracing::info!(
                        connector = self.connector.name,
                        topic = self.context.topic,
                        task = self.context.task,
                        "all is read, its files are being finished"
                    );
                }
                self.readers.clear();
            }
            if Instant::now() >= self.tick_at || self.core.is_due(self.now_ms()) {
                // Before the records: under load there is always one more of them.
                self.tick_at = Instant::now() + TICK;
                self.on_tick()?;
                continue;
            }
            let wake = self.wake_at().min(self.tick_at);
            let has_room = self.has_room();
            tokio::select! {
                biased;
                () = stop.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + self.context.shutdown_timeout);
                    self.stopping = true;
                    let now_ms = self.now_ms();
                    if self.context.spool.is_kept() {
                        self.core.park(now_ms);
                    } else {
                        self.core.stop(now_ms);
                    }
                }
                () = sleep_until(deadline.unwrap_or(wake)), if deadline.is_some() => {
                    self.write_last_floor();
                    return Ok(End::CutShort);
                }
                Some(answer) = self.answers.1.recv() => self.on_answer(answer)?,
                Some(worked) = self.worked.1.recv() => self.on_worked(worked)?,
                Some(ended) = self.background.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        return Err(TaskError::Panicked(error.to_string()));
                    }
                }
                Ok(()) = self.topic_info.changed(), if deadline.is_none() => self.on_topic_info(),
                Some(event) = self.blocks.1.recv(), if has_room => self.on_source(event)?,
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Frames in flight and buffers fill the budget, or the spool is full: then records wait.
    fn has_room(&self) -> bool {
        self.letters.have_room() && self.spool_has_room()
    }

    fn spool_has_room(&self) -> bool {
        let spool = &self.context.spool;
        if spool.used_bytes() >= spool.max_bytes() && self.begun.elapsed() >= LEFT_GRACE {
            // What nobody has taken yet is worth less than going on.
            spool.forget_all_left();
        }
        spool.used_bytes() < spool.max_bytes() || self.core.needs_records_to_free_spool()
    }

    fn wake_at(&self) -> Instant {
        let left = self.core.next_deadline_ms().map(|at| at.saturating_sub(self.now_ms()).max(0));
        let left = left.map_or(TICK, |ms| Duration::from_millis(ms.unsigned_abs()).min(TICK));
        Instant::now() + left
    }

    fn on_tick(&mut self) -> Result<(), TaskError> {
        let now_ms = self.now_ms();
        self.core.on_tick(now_ms);
        if Instant::now() >= self.floor_at {
            self.floor_at = Instant::now() + FLOOR_EVERY;
            self.write_floor()?;
        }
        // Also without records of its own: other tasks wait for the same budget.
        self.relieve_memory();
        let spool = &self.context.spool;
        let ceiling = spool.max_bytes() / 100 * 90;
        if spool.used_bytes() > ceiling {
            self.core.relieve_spool(spool.used_bytes() - ceiling, now_ms);
        }
        self.copy_lows(now_ms);
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        let progress = self.core.progress();
        let counters = self.core.take_counters();
        self.context.status.update(|report| {
            report.objects += counters.objects;
            report.records_archived += counters.records_archived;
            report.bytes_stored += counters.bytes_stored;
        });
        self.context.status.set_progress(&progress);
        self.context.metrics.publish(&counters, &self.context.status.report(), self.now_ms());
    }

    fn on_source(&mut self, event: SourceEvent) -> Result<(), TaskError> {
        match event {
            SourceEvent::Block(block, permit) => {
                let now_ms = self.now_ms();
                let (partition, end, log_start) = (block.partition, block.end_offset, block.log_start_offset);
                self.core.on_block(&block, now_ms)?;
                drop(block);
                drop(permit);
                self.context.status.update(|report| {
                    let partition = report.partitions.entry(partition).or_default();
                    partition.end = Some(end);
                    partition.log_start = log_start.or(partition.log_start);
                    partition.waiting = None;
                });
                self.relieve_memory();
            }
            SourceEvent::Waiting { partition, offset, reason } => {
                let told = self.context.status.waiting(partition);
                if told.as_ref() != Some(&reason) {
                    tracing::warn!(
                        connector = self.context.connector.name,
                        topic = self.context.topic,
                        partition,
                        offset,
                        reason,
                        "reading waits"
                    );
                }
                self.context.status.update(|report| {
                    report.partitions.entry(partition).or_default().waiting = Some(reason);
                });
            }
            // What is decided needs no more records.
            SourceEvent::Failed { .. } if self.stopping || self.core.is_draining() => {}
            SourceEvent::Failed { error, .. } if is_gone(&error) => {
                tracing::error!(
                    connector = self.connector.name,
                    topic = self.context.topic,
                    %error,
                    "reading failed for good; what was read before is finished first"
                );
                self.failed = Some(error.into());
                self.core.fail(self.now_ms());
            }
            SourceEvent::Failed { error, .. } => return Err(error.into()),
        }
        Ok(())
    }

    /// Counts what the lanes take.
    fn count_lanes(&mut self) {
        self.lane_count.set(self.core.open_lanes());
        self.lanes_permit.resize(self.core.buffered_bytes() as u64);
    }

    fn relieve_memory(&mut self) {
        self.count_lanes();
        let budget = &self.context.budget;
        let buffered = self.core.buffered_bytes() as u64;
        // What is being compressed frees itself.
        let used = budget.used_bytes().saturating_sub(self.context.pool.held_bytes());
        let ceiling = budget.max_bytes() / 100 * RELIEF_PERCENT;
        if used > ceiling {
            // Some more at once: where the many leave the few full ones little room, these would be cut again after each block, into
            // tiny frames. Not much more, so that records and compression take short turns.
            let excess = used - ceiling + budget.max_bytes() / 16;
            self.core.relieve_memory(usize::try_from(excess.min(buffered)).unwrap_or(usize::MAX));
        }
    }

    /// The topic grew: the log takes the new partitions in before they are read, from where they begin.
    fn on_topic_info(&mut self) {
        let info = self.topic_info.borrow_and_update().clone();
        // They begin after the cut.
        if self.core.state().cut.is_some() {
            return;
        }
        let known = &self.core.state().lows;
        let is_new = |p: &i32| !known.contains_key(p) && !self.asked_partitions.contains(p);
        let new: Vec<i32> = self.context.own_partitions(&info).into_iter().filter(is_new).collect();
        self.asked_partitions.extend(&new);
        if new.is_empty() {
            return;
        }
        let kafka = Arc::clone(&self.context.kafka);
        let topic = self.context.topic.clone();
        let isolation = self.connector.isolation;
        let answers = self.answers.0.clone();
        let random = Arc::clone(&self.context.environment.random);
        self.background.spawn(async move {
            let mut lows = BTreeMap::new();
            let mut backoff = Backoff::new(Duration::from_secs(1), TICK * 30);
            for partition in new {
                loop {
                    match kafka.offset(&topic, partition, At::Earliest, isolation).await {
                        Ok(offset) => {
                            lows.insert(partition, offset);
                            break;
                        }
                        Err(error) => {
                            tracing::warn!(topic, partition, %error, "a new partition is not read yet, trying again");
                            sleep(backoff.next_wait(random.next_u128() as u32)).await;
                        }
                    }
                }
            }
            let _ = answers.send(Answer::NewPartitions(lows));
        });
    }

    fn on_worked(&mut self, Worked { file, outcome }: Worked) -> Result<(), TaskError> {
        let outcome = match outcome {
            Err(error @ CompressError::Spool(_)) if self.only_leaves_spool() => {
                tracing::warn!(connector = self.context.connector.name, %error, "the spool is not left in order");
                return Ok(());
            }
            outcome => outcome?,
        };
        match outcome {
            Outcome::Stored(stored) => {
                let now_ms = self.now_ms();
                self.core.on_stored(file, &stored, now_ms);
            }
            Outcome::Finished(finished) => self.core.on_finished(file, finished),
        }
        Ok(())
    }

    fn on_answer(&mut self, answer: Answer) -> Result<(), TaskError> {
        let now_ms = self.now_ms();
        match answer {
            Answer::Appended(stored) => {
                let stored = stored?;
                self.context.metrics.appended();
                self.core.on_appended(&stored, now_ms)?;
            }
            Answer::Uploaded { file, key, bytes } => {
                let app = self.keys.read(&key).map(|parts| match app_id_of_segment(&parts.app) {
                    Some(id) => String::from_utf8_lossy(&id).into_owned(),
                    None => parts.app,
                });
                self.context.status.uploaded(Upload { at_ms: now_ms, key, bytes }, app.as_deref());
                self.core.on_uploaded(file, now_ms);
            }
            Answer::DeadLettered(written) => {
                self.letters.written(&written);
                written.ids.into_iter().for_each(|id| self.core.on_dead_lettered(id, now_ms));
                self.write_letters();
            }
            Answer::NewPartitions(lows) => self.core.add_partitions(lows, now_ms),
            Answer::LowsCopied(copied) => {
                self.copying_lows = false;
                self.copied_lows = copied.unwrap_or_default();
            }
            Answer::Failed(error) => return Err(error),
        }
        Ok(())
    }
}
