//! One `sluice run` process: its connectors, their tasks, the budgets that they share.
//!
//! ```text
//!  worker ── connector (store, marker, topics) ── task (one share of a topic)
//! ```
//!
//! Owns: wiring, signals, how the process ends. Does not own: what a connector or a task does.

pub mod connector;
pub mod connectors;
pub mod first_start;
pub mod layout;
pub mod mapping;
pub mod notify;
pub mod offsets;
pub mod places;
pub mod progress;
pub mod supervisor;
pub mod watchdog;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::connectors::Connectors;
use self::connectors::kept::Keeping;
use self::connectors::reload::{self, Phase, Sources};
use self::connectors::wanted::FromFile;
use self::notify::Notify;
use self::places::Places;
use crate::api::activity::Activity;
use crate::api::connect;
use crate::api::http;
use crate::api::metrics;
use crate::api::page;
use crate::cli::Exit;
use crate::clock::Environment;
use crate::cluster::LEASE;
use crate::cluster::group::Group;
use crate::cluster::redis::RedisCoordinator;
use crate::cluster::standing::Timing;
use crate::config::{Loaded, WorkerConfig};
use crate::kafka;
use crate::logging::Levels;
use crate::pipeline::budget::Budget;
use crate::pipeline::compress::CompressPool;
use crate::pipeline::source::{Kafka, SourceError};
use crate::pipeline::spool::Spool;
use crate::task::core::SNAPSHOT_EVERY;

/// Time for tasks to come back to this worker after a start, other workers' leases included.
const LEFT_STAYS: Duration = Duration::from_secs(600);

/// How a worker runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Archive up to the end offsets read at start, seal everything, stop.
    pub until_caught_up: bool,
}

/// Why a worker could not run.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RunError {
    pub exit: Exit,
    pub message: String,
}

impl RunError {
    fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

/// What all tasks of the process share.
#[derive(Debug)]
pub struct Shared {
    pub worker: WorkerConfig,
    pub kafka: Arc<dyn Kafka>,
    pub pool: CompressPool,
    pub spool: Arc<Spool>,
    pub budget: Budget,
    pub environment: Environment,
    pub board: Arc<http::Board>,
    /// Which tasks may run here.
    pub places: Places,
    pub options: RunOptions,
    /// Entries of a task's log between snapshots.
    pub snapshot_every: u64,
}

/// Runs until stopped, or with `until_caught_up` until everything is archived.
///
/// # Errors
/// [`RunError`]: the worker could not begin. Failures of single tasks end up in the exit status.
pub async fn run(loaded: Loaded, options: RunOptions, sources: Sources, levels: Levels) -> Result<Exit, RunError> {
    let Loaded { worker, connectors, flat, .. } = loaded;
    let usage = |error: &dyn std::fmt::Display| RunError::new(Exit::Usage, error);
    let handle = metrics::install().map_err(|error| usage(&error))?;
    let spool = Arc::new(Spool::open(&worker.spool.dir, worker.spool.max_bytes).map_err(|error| usage(&error))?);
    let budget = Budget::new(worker.memory_max_bytes);
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let pool = CompressPool::start(worker.compression_threads.unwrap_or(cores)).map_err(|error| usage(&error))?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop, &spool).map_err(|error| usage(&error))?;
    // Before anybody hears that the worker is ready: without a listener the signal ends the process.
    let hangup = signal(SignalKind::hangup()).map_err(|error| usage(&error))?;
    let board =
        Arc::new(http::Board::new(&worker.id, budget.clone(), Arc::clone(&spool), handle, options.until_caught_up));
    let rest = Arc::new(connect::Rest::new(levels));
    let activity = Arc::new(Activity::default());
    let pages = Arc::new(page::Pages::new(Arc::clone(&rest), Arc::clone(&activity)));
    let more = connect::routes(Arc::clone(&rest)).merge(page::routes(pages));
    let server = http::serve(&worker.http, Arc::clone(&board), more, stop.clone())
        .await
        .map_err(|error| RunError::new(Exit::Usage, error))?;
    let notify = Notify::from_environment();
    notify.ready();
    let _told = notify.keep(&board, &stop, worker.shutdown_timeout);
    let Some(kafka) = connect(&worker, options, &stop).await? else { return Ok(Exit::Done) };
    let environment = Environment::system();
    let places = places(&worker, &environment, options);
    let group = places.group().map(|group| keep_group(group, &board, &stop));
    let snapshot_every = SNAPSHOT_EVERY;
    let shared =
        Arc::new(Shared { kafka, pool, spool, budget, environment, board, places, options, worker, snapshot_every });
    let from_file = |(config, flat)| FromFile { config: Arc::new(config), flat };
    let files = connectors.into_iter().zip(flat).map(from_file).collect();
    let in_group = shared.worker.coordination_url.clone().map(|url| (url, shared.worker.group.clone()));
    let keeping = Keeping::new(&shared.worker.spool.dir, in_group.as_ref().map(|(url, name)| (url, name.as_str())));
    let connectors = Connectors::start(Arc::clone(&shared), keeping, files, stop.clone())
        .await
        .map_err(|error| RunError::new(Exit::Usage, error))?;
    rest.begin(Arc::clone(&connectors));
    let sampling = activity.watch(Arc::clone(&shared.board), shared.environment.clone(), stop.clone());
    let sampling = tokio::spawn(sampling);
    let (following, reloading) = if options.until_caught_up {
        (None, None)
    } else {
        let told = Box::new(move |phase| match phase {
            Phase::Begins => notify.reloading(),
            Phase::Ends => notify.reloaded(),
        });
        let reloading = reload::watch(Arc::clone(&connectors), sources, hangup, told, stop.clone());
        (Some(tokio::spawn(Arc::clone(&connectors).follow())), Some(reloading))
    };
    let forgetting = tokio::spawn(forget_left(Arc::clone(&shared.spool), stop.clone()));
    let bar = progress::show(&shared, &stop);
    let worst = connectors.ended().await;
    stop.cancel();
    for task in following.into_iter().chain(reloading).chain([sampling, forgetting]) {
        // They end by the stop; how changes nothing any more.
        let _ = task.await;
    }
    if let (Some(group), Some(running)) = (shared.places.group(), group) {
        group.left();
        let _ = running.await;
    }
    // Both end by the stop; how they end changes nothing any more.
    let _ = bar.await;
    server.ended().await;
    Ok(worst)
}

/// What tasks of the process before left in the spool, and no task of this one has taken by now, is another worker's to go on with.
async fn forget_left(spool: Arc<Spool>, stop: CancellationToken) {
    if stop.run_until_cancelled(tokio::time::sleep(LEFT_STAYS)).await.is_some() {
        // Thousands of files may have to be deleted.
        let _ = tokio::task::spawn_blocking(move || spool.forget_all_left()).await;
    }
}

fn places(worker: &WorkerConfig, environment: &Environment, options: RunOptions) -> Places {
    let Some(url) = &worker.coordination_url else { return Places::alone(worker.max_tasks) };
    let coordinator = Arc::new(RedisCoordinator::new(url, &worker.group, LEASE));
    let (job, timing) = (options.until_caught_up, Timing::default());
    let environment = environment.clone();
    let group = Group::new(&worker.group, coordinator, environment, &worker.id, worker.max_tasks, job, timing);
    Places::Group(Arc::new(group))
}

/// Takes part in the group until the last task has ended.
pub fn keep_group(group: &Arc<Group>, board: &http::Board, stop: &CancellationToken) -> JoinHandle<()> {
    board.set_group(Arc::clone(group));
    let (leaving, stop) = (Arc::clone(group), stop.clone());
    tokio::spawn(async move {
        stop.cancelled().await;
        leaving.leave();
    });
    let group = Arc::clone(group);
    tokio::spawn(async move { group.run().await })
}

/// `None`: stopped before Kafka answered.
async fn connect(
    worker: &WorkerConfig,
    options: RunOptions,
    stop: &CancellationToken,
) -> Result<Option<Arc<dyn Kafka>>, RunError> {
    let mut backoff = kafka::backoff::Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    loop {
        let connected = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            connected = kafka::connect(&worker.kafka) => connected,
        };
        match connected {
            Ok(kafka) => return Ok(Some(kafka)),
            Err(error @ SourceError::Unreachable { .. }) if !options.until_caught_up => {
                tracing::warn!(%error, "kafka can't be reached, trying again");
                tokio::select! {
                    () = stop.cancelled() => return Ok(None),
                    () = backoff.wait() => {}
                }
            }
            Err(error @ SourceError::Refused { .. }) => return Err(RunError::new(Exit::Usage, error)),
            Err(error) => return Err(RunError::new(Exit::Unreachable, error)),
        }
    }
}

/// SIGTERM and SIGINT ask to stop.
fn stop_on_signals(stop: &CancellationToken, spool: &Arc<Spool>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, spool) = (stop.clone(), Arc::clone(spool));
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: uploads in flight are finished, nothing new is decided");
        // Before anything stops: what is open is left to the next process on this disk.
        spool.keep();
        stop.cancel();
    });
    Ok(())
}
