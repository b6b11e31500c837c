//! How a topic's partitions are shared out to tasks now, and the change to another sharing.
//!
//! Owns: the change of `tasks_max`: every task of the old mapping is taken over, finished and closed, then the next mapping is
//! created and begins where they ended. Any worker can go on with it half-way: a closed log stays closed, and the mapping
//! is created once.
//! Does not own: how one task is finished and closed ([`crate::task::close`]), the names ([`super::layout`]).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::layout::{self, LayoutError, Mapping};
use super::supervisor::Task;
use crate::log::journal::LogError;
use crate::task::{self, End, Origin, TaskError};

/// Two workers that change the same mapping fence each other; one waits longer.
const WAIT_AFTER_FENCED: Duration = Duration::from_secs(2);

/// What a task knows of its topic's mappings.
#[derive(Debug, Default)]
pub struct Seen {
    /// One whose log is closed, though the next one was not there yet.
    pub closed: Option<u32>,
}

impl From<LayoutError> for TaskError {
    fn from(error: LayoutError) -> Self {
        match error {
            LayoutError::Store(error) => Self::Store(error),
            LayoutError::Conflict(message) => Self::Conflict(message),
        }
    }
}

/// The mapping to work with; changes it where this worker's `tasks_max` is another. `None`: stopped.
///
/// # Errors
/// [`TaskError`]: the change could not be finished and goes on with the next try, or another worker changed it while this one
/// ran with other settings.
pub async fn current(
    task: &Task,
    seen: &mut Seen,
    stop: &CancellationToken,
) -> Result<Option<(u32, Mapping)>, TaskError> {
    let connector = &task.connector;
    let environment = &connector.shared.environment;
    let (name, wanted) = (&connector.config.name, connector.config.tasks_max.get());
    loop {
        // One task of this worker at a time: the others find it changed.
        let mut fitting = task.changing_mapping.lock().await;
        let (number, mapping) =
            layout::mapping(connector.state.as_ref(), environment, name, &task.topic, wanted).await?;
        let fits = mapping.tasks_max == wanted;
        if fits && seen.closed != Some(number) {
            *fitting = Some(number);
            return Ok(Some((number, mapping)));
        }
        // Also where another task of this worker saw it: a task that comes here later must not change it back.
        if fitting.is_some_and(|fitting| fitting < number) {
            return Err(TaskError::Conflict(format!(
                "topic {} of connector {name} is shared out to {} tasks now, another worker changed it; this worker's tasks_max \
                 is {wanted}. Give all workers the same, then restart this one",
                task.topic, mapping.tasks_max
            )));
        }
        match change(task, number, &mapping, stop).await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(TaskError::Log(error @ LogError::Fenced { .. })) => {
                tracing::info!(connector = name, topic = task.topic, %error, "another worker changes tasks_max too");
                let jitter = environment.random.next_u128() as u64 % 8_000;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(None),
                    () = tokio::time::sleep(WAIT_AFTER_FENCED + Duration::from_millis(jitter)) => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Closes all logs of a mapping and creates the next one. `false`: stopped before.
async fn change(task: &Task, number: u32, mapping: &Mapping, stop: &CancellationToken) -> Result<bool, TaskError> {
    let connector = &task.connector;
    let (name, topic, wanted) = (&connector.config.name, &task.topic, connector.config.tasks_max.get());
    let next = number.saturating_add(1);
    tracing::info!(connector = name, topic, before = mapping.tasks_max, now = wanted, "tasks_max changes");
    let mut origin = mapping.origin.clone();
    for share in 0..mapping.tasks_max {
        let context = task.context(share, number, mapping);
        let state = match task::close(&context, next, stop.clone()).await? {
            End::Closed(state) => state,
            End::Stopped | End::CutShort | End::CaughtUp => return Ok(false),
        };
        if state.is_started() {
            let origin = origin.get_or_insert_with(|| Origin {
                identity: state.identity.clone(),
                lows: BTreeMap::new(),
                skipped: Vec::new(),
            });
            origin.identity = state.identity;
            // What was left out before is in its log since it began.
            origin.skipped.retain(|skipped| !context.is_share(skipped.partition));
            origin.skipped.extend(state.skips.as_slice());
            origin.lows.extend(state.lows.iter().map(|(&partition, low)| (partition, low.offset)));
        }
    }
    let mapping = Mapping { tasks_max: wanted, origin };
    let environment = &connector.shared.environment;
    layout::create_mapping(connector.state.as_ref(), environment, name, topic, next, &mapping).await?;
    tracing::info!(connector = name, topic, mapping = next, tasks_max = wanted, "tasks_max changed");
    Ok(true)
}
