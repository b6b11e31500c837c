//! What recover found and wrote, as people and programs read it.
//!
//! Owns: the wording. Does not own: the figures.

use std::collections::BTreeMap;

use serde::Serialize;

use super::scan::NotTaken;

/// Logs that are named one by one: objects decided anew.
const MAX_NAMED: usize = 10;

/// What becomes of a task's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    #[default]
    Nothing,
    /// It begins anew.
    Write,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// The first offset that the archive has.
    pub begin: Option<i64>,
    /// As the log says it, where that can be read.
    pub low_before: Option<i64>,
    pub low: i64,
    /// Up to here objects reach: what lies between is read again and left out where an object has it.
    pub highest_mark: i64,
}

impl PartitionReport {
    pub(super) fn unchanged(low: i64) -> Self {
        Self { begin: None, low_before: Some(low), low, highest_mark: low }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TaskReport {
    pub task: u32,
    /// What is the matter with its log.
    pub log: String,
    pub action: Action,
    pub partitions: BTreeMap<i32, PartitionReport>,
    /// Lanes with marks above low.
    pub lanes: u64,
    /// Keys of objects that had been decided and are not there: decided anew, from the records that no object holds.
    pub decided_anew: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    pub topic: String,
    pub incarnation: u32,
    pub mapping: u32,
    /// That were taken for it.
    pub objects: u64,
    pub tasks: Vec<TaskReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub connector: String,
    pub executed: bool,
    pub topics: Vec<TopicReport>,
    pub not_taken: Vec<NotTaken>,
    pub not_taken_left_out: u64,
}

impl Report {
    pub fn writes(&self) -> bool {
        self.topics.iter().flat_map(|topic| &topic.tasks).any(|task| task.action == Action::Write)
    }

    pub fn as_text(&self) -> String {
        let mut text = String::new();
        let will = if self.executed { "" } else { "would be " };
        for topic in &self.topics {
            text += &format!(
                "topic {}: {} objects, incarnation {}, mapping {}\n",
                topic.topic, topic.objects, topic.incarnation, topic.mapping
            );
            for task in &topic.tasks {
                text += &task_as_text(task, will);
            }
        }
        for NotTaken { key, why } in &self.not_taken {
            text += &format!("not taken: {key}: {why}\n");
        }
        if self.not_taken_left_out > 0 {
            text += &format!("and {} objects more were not taken\n", self.not_taken_left_out);
        }
        text += match (self.writes(), self.executed) {
            (false, _) => "there is nothing to recover\n",
            (true, true) => "done; start the connector's workers again, and verify when they have caught up\n",
            (true, false) => "nothing was changed; stop the connector's workers, then repeat without --dry-run\n",
        };
        text
    }
}

fn task_as_text(task: &TaskReport, will: &str) -> String {
    let mut text = format!("  task {}: {}\n", task.task, task.log);
    if task.action == Action::Nothing {
        return text;
    }
    for (partition, found) in &task.partitions {
        let PartitionReport { begin, low_before, low, highest_mark } = found;
        text += &format!("    partition {partition}: low ");
        text += &match low_before {
            Some(before) if before == low => format!("stays at {low}"),
            Some(before) => format!("{will}moved from {before} to {low}"),
            None => format!("{will}{low}, which no log says now"),
        };
        if let Some(begin) = begin {
            text += &format!("; archived from {begin}");
        }
        if highest_mark > low {
            text += &format!("; objects reach to {}, those records are not archived again", highest_mark - 1);
        }
        text.push('\n');
    }
    text += &format!("    {} lanes have objects above low\n", task.lanes);
    for key in task.decided_anew.iter().take(MAX_NAMED) {
        text += &format!("    {key} {will}decided anew: its records are in no object\n");
    }
    if task.decided_anew.len() > MAX_NAMED {
        text += &format!("    and {} objects more\n", task.decided_anew.len() - MAX_NAMED);
    }
    text
}
