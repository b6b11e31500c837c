//! `sluice verify`: proves a connector's archive, or says what is wrong with it.
//!
//! Owns: arguments, the progress bar, how the answer is shown. Does not own: the proof ([`crate::verify`]).

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;

use super::{Exit, SettingsArgs, bar_style, complain};
use crate::clock::Environment;
use crate::config::{ConnectorConfig, WorkerConfig};
use crate::kafka;
use crate::log::journal::LogError;
use crate::reading::ReadError;
use crate::reading::place::Place;
use crate::store;
use crate::task::TaskError;
use crate::task::error::Remedy;
use crate::verify::{Logs, Options, Progress, Verifier, VerifyError, Witness};
use crate::worker::layout;

#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The connector to verify
    connector: String,
    /// Only this topic [default: all of the connector's]
    #[arg(long)]
    topic: Option<String>,
    /// Read every byte: decompress all frames, compare checksums, counts and digests
    #[arg(long)]
    deep: bool,
    /// Compare record by record with what Kafka still has; as deep
    #[arg(long)]
    against_kafka: bool,
    /// Keep in FILE how far it came, and go on from there if it is there; deleted at the end
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &VerifyArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    super::install_crypto();
    let (worker, connector) = match settings.connector(&args.connector, "")? {
        Ok(found) => found,
        Err(exit) => return Ok(exit),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let verifier = open(&worker, connector).await?;
        let options = Options {
            topic: args.topic.clone(),
            resume: args.resume.clone(),
            deep: args.deep,
            against_kafka: args.against_kafka,
            window_offsets: None,
        };
        let report = verifier.run(&options).await;
        verifier.progress.step("", None);
        report
    });
    match report {
        Ok(report) => {
            let text = if args.json { format!("{}\n", serde_json::json!(report)) } else { report.as_text() };
            io::stdout().lock().write_all(text.as_bytes())?;
            Ok(if report.proven { Exit::Done } else { Exit::NotSo })
        }
        Err(error) => {
            complain(&error.to_string());
            Ok(exit_of(&error))
        }
    }
}

async fn open(worker: &WorkerConfig, connector: ConnectorConfig) -> Result<Verifier, VerifyError> {
    let environment = Environment::system();
    let state = match &worker.state_url {
        Some(url) => store::open_state(url, &connector.sink).await,
        None => store::open(&connector.sink).await,
    };
    let state = state.map_err(|error| VerifyError::Usage(error.to_string()))?;
    // Everything later waits for logs that are away; a command says so instead.
    state.head(layout::STATE_FOLDER).await.map_err(ReadError::from)?;
    let logs = Logs { connector: connector.name.clone(), state, environment: environment.clone() };
    let place = Place::of_connector(connector.clone(), &environment).await;
    let place = place.map_err(|error| VerifyError::Usage(error.to_string()))?;
    let kafka = kafka::connect(&worker.kafka).await;
    let witness = match kafka {
        Ok(kafka) => Some(Witness { kafka, connector: Arc::new(connector) }),
        Err(error) => {
            complain(&format!("Kafka is not asked about missing offsets: {error}"));
            None
        }
    };
    let progress: Arc<dyn Progress> = Arc::new(Bar::default());
    Ok(Verifier { place, logs, witness, environment, progress })
}

fn exit_of(error: &VerifyError) -> Exit {
    match error {
        VerifyError::Usage(_) => Exit::Usage,
        VerifyError::Log(error @ TaskError::Log(LogError::Damaged { .. })) if error.remedy() == Remedy::Damage => {
            Exit::Damaged
        }
        VerifyError::Log(TaskError::Conflict(_)) => Exit::Damaged,
        _ => Exit::Unreachable,
    }
}

/// Without a terminal a line is written this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How far a long step is: a bar on a terminal, lines elsewhere.
#[derive(Debug, Default)]
pub struct Bar(Mutex<Step>);

#[derive(Debug, Default)]
struct Step {
    bar: Option<ProgressBar>,
    what: String,
    len: Option<u64>,
    done: u64,
    said: Option<Instant>,
}

impl Step {
    fn line(&self) -> String {
        match self.len {
            Some(len) => format!("{} of {len} {}", self.done, self.what),
            None => format!("{} {}", self.done, self.what),
        }
    }
}

impl Progress for Bar {
    fn step(&self, what: &str, len: Option<u64>) {
        let mut step = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = step.bar.take() {
            before.finish_and_clear();
        }
        *step = Step { what: what.to_owned(), len, ..Step::default() };
        if what.is_empty() {
            return;
        }
        if !io::stderr().is_terminal() {
            step.said = Some(Instant::now());
            return;
        }
        let next = len.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let style = match len {
            Some(_) => "{bar:40} {percent}% of {len} {msg}, {rate}, {eta} left",
            None => "{spinner} {pos} {msg}, {rate}",
        };
        if let Some(style) = bar_style(style) {
            next.set_style(style);
        }
        next.set_message(what.to_owned());
        step.bar = Some(next);
    }

    fn advance(&self, done: u64) {
        let mut step = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        step.done += done;
        if let Some(bar) = &step.bar {
            bar.inc(done);
        } else if step.said.is_some_and(|said| said.elapsed() >= LINE_EVERY) {
            complain(&step.line());
            step.said = Some(Instant::now());
        }
    }
}
