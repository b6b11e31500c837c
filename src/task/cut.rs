//! The end of one way of archiving and the begin of the next: other settings, or another sharing of partitions.
//!
//! Owns: where the cut lies, what has to be finished below it and under which settings.
//! Does not own: the finishing (the task's, with the cut as its end).
//!
//! A record's lane is a pure function of the record and the settings. What was decided under the old ones is finished under
//! the old ones: up to the cut, which is chosen once and logged, and nothing at or above it is read before.

use serde_json::Value;

use super::error::TaskError;
use super::opening::apply;
use super::settings::TaskSettings;
use crate::ledger::{Entry, State};
use crate::log::journal::Journal;

/// What a task is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Archive under the present settings.
    Archive,
    /// Finish what was decided and end the log: mapping `next` takes its place.
    Close { next: u32 },
}

/// What a taken-over log asks for before its goal.
#[derive(Debug)]
pub enum Step {
    /// Nothing: the goal is reached, or archiving may go on.
    Reached,
    /// Finish what lies below the cut under these settings, then open once more.
    Finish(Box<TaskSettings>),
}

/// Brings a started log nearer to its goal.
///
/// # Errors
/// What was decided can't be finished by this binary, or the log fails.
pub async fn approach(
    goal: Goal,
    settings: &TaskSettings,
    journal: &mut Journal,
    state: &mut State,
    time_ms: i64,
) -> Result<Step, TaskError> {
    let Some(known) = state.settings.clone() else { return Ok(Step::Reached) };
    let changed = known.hash != settings.record.hash;
    if goal == Goal::Archive && !changed && state.cut.is_none() {
        return Ok(Step::Reached);
    }
    let (connector, topic) = (settings.connector.name.as_str(), settings.topic.as_str());
    if state.is_settled() {
        let entry = match goal {
            Goal::Archive => Entry::Settings { settings: settings.record.clone(), time_ms },
            Goal::Close { next } => Entry::Closed { next, time_ms },
        };
        apply(state, &journal.append(entry).await?)?;
        if changed && goal == Goal::Archive {
            let changed = changed_keys(&known.content, &settings.record.content).join(", ");
            tracing::info!(connector, topic, changed, "settings changed");
        }
        return Ok(Step::Reached);
    }
    let earlier = settings.connector.with_content_settings(&known.content).map_err(|why| {
        TaskError::Conflict(format!(
            "connector {connector} topic {topic} has records that were decided under other settings and are not all in the \
             store, and this binary can't finish them: {why}. Run the binary that wrote them once with --until-caught-up"
        ))
    })?;
    if state.cut.is_none() {
        let offsets = state.least_cut();
        tracing::info!(connector, topic, ?offsets, "finishing what was decided before, up to the cut");
        apply(state, &journal.append(Entry::Cut { offsets, time_ms }).await?)?;
    }
    Ok(Step::Finish(Box::new(TaskSettings::new(std::sync::Arc::new(earlier), topic, settings.task))))
}

fn changed_keys(before: &Value, after: &Value) -> Vec<String> {
    let keys = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (before, after) = (keys(before), keys(after));
    let mut changed: Vec<String> = before
        .keys()
        .chain(after.keys())
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| {
            let show = |value: Option<&Value>| value.map_or_else(|| "unset".to_owned(), ToString::to_string);
            format!("{key}: {} before, {} now", show(before.get(key)), show(after.get(key)))
        })
        .collect();
    changed.sort();
    changed.dedup();
    changed
}
