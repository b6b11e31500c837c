//! `sluice run`.
//!
//! Owns: what has to be there before the worker: settings, log, crypto provider, runtime. Does not own: the worker.

use std::io;

use clap::Args;

use super::{Exit, SettingsArgs, complain};
use crate::config::schema::Named as _;
use crate::config::{Loaded, load};
use crate::logging;
use crate::worker::connectors::reload::Sources;
use crate::worker::{self, RunOptions};

#[derive(Args, Debug)]
pub struct RunArgs {
    /// Archive up to the end offsets read at start, finish all files and stop
    #[arg(long)]
    until_caught_up: bool,
}

pub fn run(args: &RunArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    // A job without a connector is a mistake; a daemon may get some later.
    let options = settings.options(!args.until_caught_up);
    let environment = super::environment();
    let loaded = match load(&options, &environment) {
        Ok(loaded) => loaded,
        Err(problems) => {
            super::check::print_problems(&mut io::stderr().lock(), &problems)?;
            return Ok(Exit::Usage);
        }
    };
    let levels = match logging::init(&loaded.worker.log, super::colour(&io::stderr())) {
        Ok(levels) => levels,
        Err(error) => {
            let format = loaded.worker.log.format.name();
            complain(&format!("the log can't be opened with log.format {format}: {error}"));
            return Ok(Exit::Unreachable);
        }
    };
    announce(&loaded);
    super::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("sluice").build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "threads can't be started");
            return Ok(Exit::Unreachable);
        }
    };
    let run = RunOptions { until_caught_up: args.until_caught_up };
    match runtime.block_on(worker::run(loaded, run, Sources { options, environment }, levels)) {
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
    if loaded.connectors.is_empty() {
        tracing::warn!("there is no connector's file: connectors can be made over HTTP, or put a file there");
    }
    for file in &loaded.files_used {
        tracing::info!(file = %file.display(), "settings read");
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
}
