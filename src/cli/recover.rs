//! `sluice recover`: rebuilds lost logs from the objects.
//!
//! Owns: arguments, how the answer is shown. Does not own: what is recovered ([`crate::recover`]).

use std::io::{self, Write};
use std::sync::Arc;

use clap::Args;

use super::verify::Bar;
use super::{Exit, SettingsArgs, complain};
use crate::clock::Environment;
use crate::config::{ConnectorConfig, WorkerConfig};
use crate::kafka;
use crate::reading::place::Place;
use crate::recover::{RecoverError, Recoverer};
use crate::store;
use crate::task::TaskError;
use crate::task::error::Remedy;
use crate::worker::layout;

#[derive(Args, Debug)]
pub struct RecoverArgs {
    /// The connector whose logs are lost. Stop its workers before
    connector: String,
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &RecoverArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    super::install_crypto();
    let (worker, connector) = match settings.connector(&args.connector, "")? {
        Ok(found) => found,
        Err(exit) => return Ok(exit),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let recoverer = open(&worker, connector).await?;
        let report = recoverer.run(!args.dry_run).await;
        recoverer.progress.step("", None);
        report.map_err(|error| (exit_of(&error), error.to_string()))
    });
    match report {
        Ok(report) => {
            let text = if args.json { format!("{}\n", serde_json::json!(report)) } else { report.as_text() };
            io::stdout().lock().write_all(text.as_bytes())?;
            Ok(Exit::Done)
        }
        Err((exit, message)) => {
            complain(&message);
            Ok(exit)
        }
    }
}

async fn open(worker: &WorkerConfig, connector: ConnectorConfig) -> Result<Recoverer, (Exit, String)> {
    let environment = Environment::system();
    let usage = |error: store::StoreError| (Exit::Usage, error.to_string());
    let place = Place::of_connector(connector.clone(), &environment).await.map_err(usage)?;
    let store = store::open(&connector.sink).await.map_err(usage)?;
    let state = match &worker.state_url {
        Some(url) => Some(store::open_state(url, &connector.sink).await.map_err(usage)?),
        None => None,
    };
    // Everything later waits for logs that are away; a command says so instead.
    let logs = state.as_ref().unwrap_or(&store);
    logs.head(layout::STATE_FOLDER).await.map_err(|error| (Exit::Unreachable, error.to_string()))?;
    let kafka = kafka::connect(&worker.kafka).await.map_err(|error| (Exit::Unreachable, error.to_string()))?;
    Ok(Recoverer {
        connector: Arc::new(connector),
        place,
        store,
        state,
        kafka,
        environment,
        by: format!("{} (sluice recover)", worker.id),
        progress: Arc::new(Bar::default()),
    })
}

fn exit_of(error: &RecoverError) -> Exit {
    match error {
        RecoverError::Refused(_) | RecoverError::Task(TaskError::Conflict(_)) => Exit::Usage,
        RecoverError::Task(error) if error.remedy() == Remedy::Damage => Exit::Damaged,
        RecoverError::Read(error) if error.is_of_one_file() => Exit::Damaged,
        _ => Exit::Unreachable,
    }
}
