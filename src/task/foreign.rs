//! An object under a key of ours that holds another intent.
//!
//! Owns: telling damage from an owner that has lost its task. Does not own: finding such objects ([`crate::pipeline::upload`]).
//!
//! After a loss in Kafka was accepted, what is left of a decided object's records is another intent under the same key. An owner that was
//! fenced and does not know yet meets the object that the next one uploaded for it.

use super::driver::TaskContext;
use super::error::TaskError;
use crate::log::journal::{LogError, read_state};
use crate::pipeline::upload::UploadError;

/// The error that a task ends with: that it was fenced, where the log no longer waits for the intent whose key is taken.
pub async fn explain(context: &TaskContext, error: TaskError) -> TaskError {
    let TaskError::Upload(UploadError::Foreign { expected, .. }) = &error else { return error };
    match read_state(context.log.as_ref(), &context.environment).await {
        Ok(state) if !state.intents.keys().any(|id| id.0 == *expected) => {
            let by = state.owner.map_or_else(|| "unknown".to_owned(), |owner| owner.worker);
            TaskError::Log(LogError::Fenced { by, number: state.tip, place: context.log.place() })
        }
        // It is still to be uploaded, or nobody can tell.
        Ok(_) | Err(_) => error,
    }
}
