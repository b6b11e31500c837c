//! `sluice run`.
//!
//! Owns: what has to be there before the worker: settings, log, crypto provider, runtime. Does not own: the worker.

use std::io;

use clap::Args;

use super::{Exit, SettingsArgs, complain, logging};
use crate::config::Loaded;
use crate::config::schema::Named as _;
use crate::worker::{self, RunOptions};

#[derive(Args, Debug)]
pub struct RunArgs {
    /// Archive up to the end offsets read at start, finish all files and stop
    #[arg(long)]
    until_caught_up: bool,
}

pub fn run(args: &RunArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    let loaded = match settings.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            super::check::print_problems(&mut io::stderr().lock(), &problems)?;
            return Ok(Exit::Usage);
        }
    };
    if let Err(error) = logging::init(&loaded.worker.log) {
        let format = loaded.worker.log.format.name();
        complain(&format!("the log can't be opened with log.format {format}: {error}"));
        return Ok(Exit::Unreachable);
    }
    announce(&loaded);
    super::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("sluice").build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "threads can't be started");
            return Ok(Exit::Unreachable);
        }
    };
    let options = RunOptions { until_caught_up: args.until_caught_up };
    match runtime.block_on(worker::run(loaded, options)) {
        Ok(exit) => Ok(exit),
        Err(error) => {
            tracing::error!("{error}");
            Ok(error.exit)
        }
    }
}

fn announce(loaded: &Loaded) {
    let names: Vec<&str> = loaded.connectors.iter().map(|connector| connector.name.as_str()).collect();
    tracing::info!(
        version = crate::version::VERSION,
        worker = loaded.worker.id,
        connectors = names.join(","),
        listen = loaded.worker.http.listen,
        "sluice starts"
    );
    for file in &loaded.files_used {
        tracing::info!(file = %file.display(), "settings read");
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
}
