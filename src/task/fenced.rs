//! Errors that look like a loss and come of having lost the task.
//!
//! Owns: telling damage from an owner that was fenced and does not know yet. Does not own: fencing ([`crate::log::journal`]).
//!
//! Who slept through a takeover finds what the next owner made of its task: an object under a key of ours that holds another intent, after
//! a loss in Kafka was accepted; a position that retention has passed, since what lay below is archived.

use super::context::TaskContext;
use super::error::TaskError;
use crate::ledger::Token;
use crate::log::journal::{LogError, read_state};
use crate::pipeline::source::SourceError;
use crate::pipeline::upload::UploadError;

/// The error that a task ends with: that it was fenced, where the log is another's by now. `ours` is of our last takeover, if there was one.
pub async fn explain(context: &TaskContext, ours: Option<&Token>, error: TaskError) -> TaskError {
    let Some(ours) = ours.filter(|_| may_come_of_it(&error)) else { return error };
    match read_state(context.log.as_ref(), &context.environment).await {
        Ok(state) if state.owner.as_ref().is_some_and(|owner| owner.token != *ours) => {
            let by = state.owner.map_or_else(|| "unknown".to_owned(), |owner| owner.worker);
            TaskError::Log(LogError::Fenced { by, number: state.tip, place: context.log.place() })
        }
        // It is still ours, or nobody can tell.
        Ok(_) | Err(_) => error,
    }
}

fn may_come_of_it(error: &TaskError) -> bool {
    match error {
        TaskError::Upload(UploadError::Foreign { .. }) | TaskError::KafkaLost(_) => true,
        TaskError::Source(error) => {
            matches!(
                error,
                SourceError::Recreated { .. } | SourceError::Truncated { .. } | SourceError::OutOfRange { .. }
            )
        }
        _ => false,
    }
}
