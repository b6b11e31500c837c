//! The worker.

use crate::cli::Exit;
use crate::config::Loaded;

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

/// # Errors
/// None yet.
pub async fn run(loaded: Loaded, options: RunOptions) -> Result<Exit, RunError> {
    tracing::info!(
        connectors = loaded.connectors.len(),
        until_caught_up = options.until_caught_up,
        "nothing to run yet"
    );
    Ok(Exit::Done)
}
