//! Missing offsets, gathered into few findings.
//!
//! Owns: what is kept of them. Does not own: finding or explaining them.

use std::collections::{BTreeMap, BTreeSet};

use super::coverage::Coverage;
use super::report::{Cause, Finding, MAX_RUNS};

/// What is missing of a topic.
#[derive(Debug, Default)]
pub struct Gaps {
    by_cause: BTreeMap<(i32, Cause), Gap>,
}

#[derive(Debug)]
struct Gap {
    offsets: u64,
    first: i64,
    last: i64,
    runs: Vec<(i64, i64)>,
    apps: BTreeSet<String>,
}

impl Gaps {
    /// Takes in what a window misses of a partition. `log_start`: where Kafka's log begins, if Kafka was asked.
    pub fn add(&mut self, coverage: &Coverage, partition: i32, log_start: Option<i64>, apps: &BTreeSet<String>) {
        for run in coverage.missing().filter(|run| run.partition == partition) {
            let Some(start) = log_start else {
                self.add_run(partition, Cause::Unexplained, run.first, run.end, &BTreeSet::new());
                continue;
            };
            self.add_run(partition, Cause::Expired, run.first, run.end.min(start), &BTreeSet::new());
            self.add_run(partition, Cause::Lost, run.first.max(start), run.end, apps);
        }
    }

    fn add_run(&mut self, partition: i32, cause: Cause, first: i64, end: i64, apps: &BTreeSet<String>) {
        if first >= end {
            return;
        }
        let gap = self.by_cause.entry((partition, cause)).or_insert_with(|| Gap {
            offsets: 0,
            first,
            last: first,
            runs: Vec::new(),
            apps: BTreeSet::new(),
        });
        gap.offsets += end.abs_diff(first);
        gap.first = gap.first.min(first);
        gap.last = gap.last.max(end - 1);
        if gap.runs.len() < MAX_RUNS {
            gap.runs.push((first, end - 1));
        }
        gap.apps.extend(apps.iter().cloned());
    }

    pub fn is_empty(&self) -> bool {
        self.by_cause.is_empty()
    }

    /// Whether any missing offset may lie from `first` to `last` of a partition.
    pub fn may_touch(&self, partition: i32, first: i64, last: i64) -> bool {
        self.by_cause.iter().any(|((gap, _), found)| *gap == partition && found.first <= last && found.last >= first)
    }

    pub fn offsets(&self, partition: i32) -> u64 {
        self.by_cause.iter().filter(|((gap, _), _)| *gap == partition).map(|(_, found)| found.offsets).sum()
    }

    pub fn into_findings(self, topic: &str) -> Vec<Finding> {
        let finding = |((partition, cause), Gap { offsets, first, last, runs, apps })| Finding::Gap {
            topic: topic.to_owned(),
            partition,
            offsets,
            first,
            last,
            runs,
            cause,
            apps: BTreeSet::into_iter(apps).collect(),
        };
        self.by_cause.into_iter().map(finding).collect()
    }
}
