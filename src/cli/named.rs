//! The connector that a command names.
//!
//! Owns: where it is looked for: the files, each by itself, then what was made over HTTP and is kept on this machine. Does not
//! own: reading settings ([`crate::config`]), what is kept ([`crate::worker::connectors::kept`]).

use std::io;

use super::{Exit, SettingsArgs, check, complain, environment};
use crate::config::{ConnectorConfig, Problems, WorkerConfig, connector_files, load_connector_flat, load_worker_alone};
use crate::worker::connectors::kept::Keeping;

/// The worker's settings and those of one connector, or how the program ends without: it was said why.
pub(super) type Found = Result<(WorkerConfig, ConnectorConfig), Exit>;

enum Missing {
    Problems(Problems),
    Said(String),
}

impl From<Problems> for Missing {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

impl SettingsArgs {
    /// `advice` follows what is said where there is none of that name.
    pub(super) fn connector(&self, name: &str, advice: &str) -> io::Result<Found> {
        Ok(match self.look_for(name, advice) {
            Ok(found) => Ok(found),
            Err(Missing::Said(message)) => {
                complain(&message);
                Err(Exit::Usage)
            }
            Err(Missing::Problems(problems)) => {
                check::print_problems(&mut io::stderr().lock(), &problems)?;
                Err(Exit::Usage)
            }
        })
    }

    fn look_for(&self, name: &str, advice: &str) -> Result<(WorkerConfig, ConnectorConfig), Missing> {
        let (options, environment) = (self.options(true), environment());
        let worker = load_worker_alone(&options, &environment)?;
        let (mut names, mut wrong) = (Vec::new(), Vec::new());
        // A slip in the file of one connector is no matter to the others, as in a worker that runs.
        for file in connector_files(&options, &environment)? {
            match file.outcome {
                Ok((connector, _)) if connector.name == name => return Ok((worker, connector)),
                Ok((connector, _)) => names.push(connector.name),
                Err(problems) => wrong.extend(problems.0),
            }
        }
        let kept = Keeping::new(&worker.spool.dir, None).load().map_err(|error| {
            Missing::Said(format!("connector {name} is in no file, and what was made over HTTP can't be read: {error}"))
        })?;
        for (made, kept) in kept.connectors {
            match kept.config {
                Some(flat) if made == name => return Ok((worker, load_connector_flat(name, &flat)?.0)),
                Some(_) => names.push(made),
                None => {}
            }
        }
        if !wrong.is_empty() {
            return Err(Problems(wrong).into());
        }
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(Missing::Said(format!("there is no connector {name} in the settings (there are: {there}){advice}")))
    }
}
