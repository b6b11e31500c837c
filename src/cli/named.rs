//! The connector that a command names.
//!
//! Owns: where it is looked for: the files, then what was made over HTTP and is kept on this machine. Does not own: reading
//! settings ([`crate::config`]), what is kept ([`crate::worker::connectors::kept`]).

use std::io;

use super::{Exit, SettingsArgs, check, complain};
use crate::config::{ConnectorConfig, Problems, WorkerConfig, load_connector_flat};
use crate::worker::connectors::kept::Keeping;

/// The worker's settings and those of one connector, or how the program ends without: it was said why.
pub(super) type Found = Result<(WorkerConfig, ConnectorConfig), Exit>;

impl SettingsArgs {
    /// `advice` follows what is said where there is none of that name.
    pub(super) fn connector(&self, name: &str, advice: &str) -> io::Result<Found> {
        let print = |problems: &Problems| check::print_problems(&mut io::stderr().lock(), problems);
        let loaded = match self.load(true) {
            Ok(loaded) => loaded,
            Err(problems) => {
                print(&problems)?;
                return Ok(Err(Exit::Usage));
            }
        };
        let mut names: Vec<String> = loaded.connectors.iter().map(|connector| connector.name.clone()).collect();
        if let Some(connector) = loaded.connectors.into_iter().find(|connector| connector.name == name) {
            return Ok(Ok((loaded.worker, connector)));
        }
        // A file hides what was made under its name, so this comes second.
        let kept = match Keeping::new(&loaded.worker.spool.dir, None).load() {
            Ok(kept) => kept,
            Err(error) => {
                complain(&format!(
                    "connector {name} is in no file, and what was made over HTTP can't be read: {error}"
                ));
                return Ok(Err(Exit::Usage));
            }
        };
        let mut made = kept.connectors.into_iter().filter_map(|(name, kept)| Some((name, kept.config?)));
        if let Some((_, flat)) = made.by_ref().find(|(made, _)| {
            names.push(made.clone());
            made == name
        }) {
            return Ok(match load_connector_flat(name, &flat) {
                Ok((connector, _)) => Ok((loaded.worker, connector)),
                Err(problems) => {
                    print(&problems)?;
                    Err(Exit::Usage)
                }
            });
        }
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        complain(&format!("there is no connector {name} in the settings (there are: {there}){advice}"));
        Ok(Err(Exit::Usage))
    }
}
