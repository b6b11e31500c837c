//! `sluice restore`: writes apps' records back into a Kafka topic.
//!
//! Owns: arguments, signals, how it goes on and what came of it are shown. Does not own: the writing ([`crate::restore`]).

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use twox_hash::XxHash3_64;

use super::reading::{Session, TimeArgs};
use super::{Exit, SettingsArgs, bar_style, complain};
use crate::clock::Environment;
use crate::config::{ConnectorConfig, WorkerConfig};
use crate::kafka;
use crate::pipeline::produce::ProduceError;
use crate::pipeline::source::SourceError;
use crate::reading::ReadError;
use crate::reading::place::Place;
use crate::reading::report::{Report, Worst};
use crate::restore::{Asked, End, Limits, Order, Outcome, PartitionsBy, Progress, RestoreError, Restorer};

/// Without a terminal a line is written this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// The connector that archived the records
    connector: String,
    /// The app ids, or patterns with * and ?; one is restored after the other
    #[arg(long = "app", value_name = "ID", required = true)]
    apps: Vec<String>,
    /// The topic to write to. It has to exist in the worker's Kafka
    #[arg(long, value_name = "TOPIC")]
    to_topic: String,
    #[command(flatten)]
    time: TimeArgs,
    /// Write no more than this
    #[arg(long, value_name = "RECORDS_PER_SEC", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Which partition of the topic a record goes to
    #[arg(long, value_name = "BY", default_value = "keep")]
    partitions: PartitionsBy,
    /// Keep in FILE how far it came; the same command goes on from there [default:
    /// a file of its own for each command, in restore/ beside spool.dir]
    #[arg(long, value_name = "FILE")]
    progress_file: Option<PathBuf>,
    /// Write to a topic although this connector archives it
    #[arg(long)]
    into_archived_topic: bool,
    /// Only say what would be written
    #[arg(long)]
    dry_run: bool,
    /// Write the outcome as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: RestoreArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    super::install_crypto();
    let (worker, connector) = match settings.connector(&args.connector, "")? {
        Ok(found) => found,
        Err(exit) => return Ok(exit),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = Arc::new(Report::new(complain));
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let again = stop_on_signals(&stop)?;
        Ok::<_, io::Error>(tokio::select! {
            outcome = restore(&args, &worker, connector, &report, stop) => outcome,
            () = again.cancelled() => Err((Exit::Interrupted, "ended at once; the same command goes on".to_owned())),
        })
    });
    runtime.shutdown_background();
    match outcome? {
        Ok(outcome) => {
            let text = match args.json {
                true => format!("{}\n", serde_json::json!(outcome)),
                false => as_text(&outcome),
            };
            io::stdout().lock().write_all(text.as_bytes())?;
            Ok(exit_of(&outcome, report.worst()))
        }
        Err((exit, message)) => {
            complain(&message);
            Ok(exit)
        }
    }
}

async fn restore(
    args: &RestoreArgs,
    worker: &WorkerConfig,
    connector: ConnectorConfig,
    report: &Arc<Report>,
    stop: CancellationToken,
) -> Result<Outcome, (Exit, String)> {
    let environment = Environment::system();
    let place = Place::of_connector(connector, &environment).await;
    let place = place.map_err(|error| (Exit::Usage, error.to_string()))?;
    let session = Session { worker: Some(worker.clone()), place, report: Arc::clone(report), environment };
    let order = order(args, worker, &session).await?;
    let kafka = kafka::connect(&worker.kafka).await.map_err(|error| (Exit::Unreachable, error.to_string()))?;
    let restorer = Restorer {
        place: session.place,
        report: session.report,
        kafka,
        environment: session.environment,
        progress: Arc::new(Shown::default()),
        stop,
        limits: Limits::default(),
    };
    let outcome = match args.dry_run {
        true => restorer.plan(&order).await,
        false => restorer.run(&order).await,
    };
    outcome.map_err(|error| (exit_of_error(&error), advise(&error)))
}

async fn order(args: &RestoreArgs, worker: &WorkerConfig, session: &Session) -> Result<Order, (Exit, String)> {
    let failed = |failure: super::reading::Failure| (failure.0, failure.1);
    let times = session.times(&args.time).map_err(failed)?;
    let apps = session.apps(&args.apps).await.map_err(failed)?.unwrap_or_default();
    if apps.is_empty() {
        return Err((Exit::NotSo, format!("no app of this archive is called {}", args.apps.join(" or "))));
    }
    let asked = Asked {
        connector: args.connector.clone(),
        apps: args.apps.clone(),
        target: args.to_topic.clone(),
        since: args.time.since.clone(),
        until: args.time.until.clone(),
        partitions: args.partitions,
    };
    Ok(Order {
        position_file: args.progress_file.clone().unwrap_or_else(|| own_file(worker, &asked)),
        asked,
        apps,
        times,
        rate: args.rate,
        into_archived_topic: args.into_archived_topic,
    })
}

/// The file of what is asked for: the same command finds it, another has another.
fn own_file(worker: &WorkerConfig, asked: &Asked) -> PathBuf {
    let beside = worker.spool.dir.parent().unwrap_or(Path::new("."));
    let number = XxHash3_64::oneshot(serde_json::json!(asked).to_string().as_bytes());
    beside.join("restore").join(format!("{}-{}-{:08x}.json", asked.connector, asked.target, number >> 32))
}

/// The first signal stops between two writes; the answer is cancelled by the second.
fn stop_on_signals(stop: &CancellationToken) -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, again) = (stop.clone(), CancellationToken::new());
    let second = again.clone();
    tokio::spawn(async move {
        for token in [stop, second] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !token.is_cancelled() {
                token.cancel();
            }
        }
    });
    Ok(again)
}

fn exit_of(outcome: &Outcome, worst: Worst) -> Exit {
    match outcome.end {
        End::Stopped => Exit::Interrupted,
        End::Nothing => Exit::NotSo,
        _ if worst == Worst::Damaged => Exit::Damaged,
        _ if outcome.left_out => Exit::NotSo,
        _ => Exit::Done,
    }
}

fn exit_of_error(error: &RestoreError) -> Exit {
    match error {
        RestoreError::Usage(_) | RestoreError::Position { .. } => Exit::Usage,
        RestoreError::Read(ReadError::Damaged { .. }) => Exit::Damaged,
        RestoreError::Record { error: ProduceError::Unreachable { .. }, .. } => Exit::Unreachable,
        RestoreError::Kafka(SourceError::Refused { .. } | SourceError::NoTopic { .. })
        | RestoreError::Record { .. } => Exit::Usage,
        RestoreError::Read(_) | RestoreError::Kafka(_) => Exit::Unreachable,
    }
}

fn advise(error: &RestoreError) -> String {
    let way_out = match error {
        RestoreError::Record { error: ProduceError::TooLarge { .. }, .. } => {
            "; then the same command goes on with this record (kafka-configs.sh --alter --add-config max.message.bytes=..)"
        }
        RestoreError::Record { error: ProduceError::Refused { .. }, .. } => {
            "; when that is put right the same command goes on (timestamps: message.timestamp.before.max.ms of the topic)"
        }
        RestoreError::Record { .. } | RestoreError::Read(ReadError::Store(_)) | RestoreError::Kafka(_) => {
            "; the same command goes on where this one ended"
        }
        _ => "",
    };
    format!("{error}{way_out}")
}

fn as_text(outcome: &Outcome) -> String {
    let Outcome { target, records, records_in_all, plan, .. } = outcome;
    let file = outcome.progress_file.display();
    let before = records_in_all.saturating_sub(*records);
    let also = if before > 0 { format!(", {before} before") } else { String::new() };
    let left_out = if outcome.left_out { ", without what could not be read" } else { "" };
    match outcome.end {
        End::Planned => format!(
            "would write up to {} records ({} bytes) of {} files into {target}, {records_in_all} of them are written\n",
            plan.records, plan.bytes, plan.files
        ),
        End::Nothing => "nothing was written: the archive has nothing of that in that time\n".to_owned(),
        End::Finished => format!("{records} records written into {target}{also}: all of them{left_out}\n"),
        End::FinishedBefore => format!(
            "nothing to do: all {records_in_all} records were written into {target} before{left_out}. To write them once \
             more, delete {file}\n"
        ),
        End::Stopped => format!(
            "{records} records written into {target}{also}, and stopped. The same command goes on from there, by {file}\n"
        ),
    }
}

/// A bar on a terminal, lines elsewhere.
#[derive(Default)]
struct Shown(Mutex<Showing>);

#[derive(Default)]
struct Showing {
    bar: Option<ProgressBar>,
    done: u64,
    all: u64,
    since: Option<(Instant, u64)>,
}

impl Shown {
    fn change(&self, change: impl FnOnce(&mut Showing)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Shown {
    fn start(&self, done: u64, all: u64) {
        self.change(|shown| {
            (shown.done, shown.all, shown.since) = (done, all, Some((Instant::now(), done)));
            if io::stderr().is_terminal() {
                // What is left: the rate is this run's.
                let bar = ProgressBar::new(all.saturating_sub(done));
                if let Some(style) = bar_style("{bar:40} {percent}% of {len} records, {rate}, {eta} left") {
                    bar.set_style(style);
                }
                shown.bar = Some(bar);
            }
        });
    }

    fn written(&self, records: u64) {
        self.change(|shown| {
            shown.done += records;
            if let Some(bar) = &shown.bar {
                bar.inc(records);
                return;
            }
            let Some((since, before)) = shown.since else { return };
            if since.elapsed() >= LINE_EVERY {
                let rate = (shown.done - before) as f64 / since.elapsed().as_secs_f64();
                complain(&format!("{} of about {} records written, {rate:.0}/s", shown.done, shown.all));
                shown.since = Some((Instant::now(), shown.done));
            }
        });
    }

    fn end(&self) {
        self.change(|shown| {
            if let Some(bar) = shown.bar.take() {
                bar.finish_and_clear();
            }
        });
    }
}
