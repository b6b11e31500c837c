//! Going on with what the last owner left in this machine's spool.
//!
//! Owns: finding it, asking Kafka whether its log is still the one that was read, making the files this task's own.
//! Does not own: the rules ([`super::adoption`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::adoption::{Adoption, plan};
use super::context::TaskContext;
use super::error::TaskError;
use crate::ledger::{IntentId, State};
use crate::pipeline::lane::FileId;
use crate::pipeline::spool::journal::Begin;
use crate::pipeline::spool::{Left, SpoolFile, TaskSpool};

/// Partitions that Kafka is asked about at a time.
const PARALLEL: usize = 16;

/// A task's spool that was left by its last owner, made ours.
#[derive(Debug)]
pub struct Adopted {
    pub adoption: Adoption,
    pub spool: TaskSpool,
    pub files: HashMap<FileId, Arc<SpoolFile>>,
}

/// What a task that was just taken over knows.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// After our Takeover.
    pub state: &'a State,
    /// Those that are read.
    pub partitions: &'a [i32],
    /// Pending intents whose objects the store does not have.
    pub missing: &'a HashSet<IntentId>,
    pub live_ends: &'a BTreeMap<i32, i64>,
}

/// Makes what the last owner left this task's own; `None`: there is nothing, or it can't be used, and reading begins at low.
///
/// # Errors
/// Kafka can't be asked, or the disk is broken.
pub async fn adopt(
    context: &TaskContext,
    begin: &Begin,
    predecessor: Option<&str>,
    known: Known<'_>,
) -> Result<Option<Adopted>, TaskError> {
    let (connector, topic, task) = (context.connector.name.as_str(), context.topic.as_str(), context.task);
    let left = match predecessor {
        Some(token) => blocking(|| context.spool.left(connector, topic, task, token)),
        None => None,
    };
    let adopted = match &left {
        None => None,
        Some(left) => match take(context, begin, left, known).await? {
            Ok(adopted) => Some(adopted),
            Err(why) => {
                tracing::info!(connector, topic, task, why, "what the spool held is not used, reading begins at low");
                None
            }
        },
    };
    blocking(|| context.spool.forget_left(connector, topic, task));
    if let Some(Adopted { adoption, .. }) = &adopted {
        let (open, decided, bytes) = (adoption.open.len(), adoption.decided.len(), adoption.bytes());
        tracing::info!(connector, topic, task, open, decided, bytes, "the spool is adopted");
    }
    Ok(adopted)
}

async fn take(
    context: &TaskContext,
    begin: &Begin,
    left: &Left,
    known: Known<'_>,
) -> Result<Result<Adopted, String>, TaskError> {
    let adoption = match plan(&left.journal, known.state, known.partitions, known.missing, known.live_ends) {
        Ok(adoption) => adoption,
        Err(why) => return Ok(Err(why)),
    };
    let questions: Vec<_> = adoption
        .seen
        .iter()
        .map(|(&partition, &seen)| async move {
            let diverged = context.kafka.diverged(&context.topic, partition, seen).await?;
            Ok::<_, TaskError>(diverged.map(|_| partition))
        })
        .collect();
    let diverged: Vec<Option<i32>> = stream::iter(questions).buffered(PARALLEL).try_collect().await?;
    if let Some(partition) = diverged.into_iter().flatten().next() {
        return Ok(Err(format!("partition {partition} is another log than the one that was read")));
    }
    let files: Vec<FileId> = adoption.all().map(|file| file.file).collect();
    let place = (context.connector.name.as_str(), context.topic.as_str(), context.task);
    let bytes = adoption.bytes();
    tracing::info!(connector = place.0, topic = place.1, task = place.2, bytes, "what the spool holds is checked");
    let made = blocking(|| context.spool.adopt(left, &files, place, begin.clone(), adoption.floor.clone()));
    Ok(made.map(|made| Adopted { adoption, spool: made.spool, files: made.files }))
}

/// The disk is read through once: the runtime's other threads go on meanwhile, where there are any.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
