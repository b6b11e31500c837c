//! What verify found, as people and programs read it.
//!
//! Owns: findings, their wording, how many are kept. Does not own: finding them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Findings that are told one by one; more are counted.
pub const MAX_FINDINGS: usize = 1000;
/// Runs of offsets that a finding lists.
pub const MAX_RUNS: usize = 20;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// An object that is not what was written.
    Damaged { key: String, why: String },
    /// An object that is not of this archive.
    Foreign { key: String, why: String },
    /// An object whose key and index do not go together: renamed, copied or changed.
    Misnamed { key: String, why: String },
    /// An object above low that no entry of the log decided.
    Undecided { key: String, topic: String, intent_id: String },
    /// An object that the log decided, that was finished, and is not there.
    Missing { key: String, topic: String, app: String },
    /// Offsets that no object holds.
    Gap {
        topic: String,
        partition: i32,
        /// How many; they lie from `first` to `last`.
        offsets: u64,
        first: i64,
        last: i64,
        /// The first runs of them, each with its first and last offset.
        runs: Vec<(i64, i64)>,
        cause: Cause,
        /// Apps whose records they are, as far as Kafka or the log tell.
        apps: Vec<String>,
    },
    /// Offsets that several objects hold.
    Overlap { topic: String, partition: i32, offsets: u64, first: i64, last: i64, keys: Vec<String> },
    /// The numbers do not fit, and looking at each offset did not tell why: objects appeared or vanished meanwhile.
    Unsettled { topic: String, why: String },
    /// A record that is not the one that Kafka has.
    Differs { topic: String, partition: i32, offset: i64, why: String },
}

/// What Kafka says of offsets that no object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It has records there: they are lost from the archive.
    Lost,
    /// It has nothing any more below its log start.
    Expired,
    /// It was not asked, or did not answer.
    Unexplained,
}

/// Findings, so many of them as are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    pub listed: Vec<Finding>,
    pub left_out: u64,
}

impl Findings {
    pub fn push(&mut self, finding: Finding) {
        if self.listed.len() < MAX_FINDINGS {
            self.listed.push(finding);
        } else {
            self.left_out += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.left_out == 0
    }
}

/// What is known of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// First offset to be proven.
    pub start: i64,
    /// The one after the last.
    pub low: i64,
    /// In objects.
    pub records: u64,
    /// Left out by rule or known to be holes.
    pub skipped: u64,
    /// Accepted as lost.
    pub lost: u64,
    /// Not in any object, and Kafka has no record there either: transactions, compaction.
    pub holes: u64,
    pub missing: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    pub topic: String,
    pub incarnation: u32,
    pub proven: bool,
    pub partitions: BTreeMap<i32, PartitionReport>,
    /// Objects that reach low or lie above it: not complete yet.
    pub objects_above_low: u64,
}

/// What it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    pub objects: u64,
    pub requests: u64,
    pub listings: u64,
    pub fetched_bytes: u64,
    pub milliseconds: u64,
}

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub connector: String,
    pub proven: bool,
    pub deep: bool,
    pub against_kafka: bool,
    pub topics: Vec<TopicReport>,
    pub findings: Vec<Finding>,
    pub findings_left_out: u64,
    pub notes: Vec<String>,
    pub cost: Cost,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged { key, why } => write!(f, "damaged: {key}: {why}"),
            Self::Foreign { key, why } => write!(f, "foreign: {key}: {why}"),
            Self::Misnamed { key, why } => write!(f, "renamed or changed: {key}: {why}"),
            Self::Undecided { key, topic, intent_id } => {
                write!(f, "undecided: {key}: the log of topic {topic} knows no intent {intent_id}")
            }
            Self::Missing { key, topic, app } => {
                write!(f, "missing: {key}: the log of topic {topic} decided it, app {app}, and it is not there")
            }
            Self::Gap { topic, partition, offsets, first, last, runs, cause, apps } => {
                write!(f, "gap: topic {topic} partition {partition}: ")?;
                if runs.len() == 1 {
                    write!(f, "{offsets} offsets are in no object, {first} to {last}")?;
                } else {
                    let shown: Vec<String> = runs.iter().map(|&run| run_as_text(run)).collect();
                    let shown = shown.join(", ");
                    write!(f, "{offsets} offsets from {first} to {last} are in no object: {shown}")?;
                    if runs.len() == MAX_RUNS {
                        f.write_str(", and so on")?;
                    }
                }
                f.write_str(match cause {
                    Cause::Lost => "; Kafka has records there",
                    Cause::Expired => "; Kafka has nothing there any more: unexplained",
                    Cause::Unexplained => "; unexplained",
                })?;
                if apps.is_empty() { Ok(()) } else { write!(f, "; of app {}", apps.join(", ")) }
            }
            Self::Overlap { topic, partition, offsets, first, last, keys } => {
                let keys = keys.join(" and ");
                write!(
                    f,
                    "overlap: topic {topic} partition {partition}: {offsets} offsets from {first} to {last} are in {keys}"
                )
            }
            Self::Unsettled { topic, why } => write!(f, "unsettled: topic {topic}: {why}"),
            Self::Differs { topic, partition, offset, why } => {
                write!(f, "differs: topic {topic} partition {partition} offset {offset}: {why}")
            }
        }
    }
}

fn run_as_text((first, last): (i64, i64)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

impl Report {
    pub fn as_text(&self) -> String {
        let mut text = String::new();
        for topic in &self.topics {
            let offsets: u64 = topic.partitions.values().map(|partition| partition.low.abs_diff(partition.start)).sum();
            let sum = |what: fn(&PartitionReport) -> u64| topic.partitions.values().map(what).sum::<u64>();
            text += &format!("topic {}: ", topic.topic);
            text += &if topic.proven {
                format!("proven: each of {offsets} offsets below low is in exactly one object or was left out\n")
            } else {
                format!("NOT proven: {offsets} offsets below low were looked at\n")
            };
            for (partition, found) in &topic.partitions {
                let PartitionReport { start, low, records, skipped, lost, holes, missing } = found;
                text += &format!("  partition {partition}: {start} to before {low}: {records} records");
                for (count, what) in
                    [(skipped, "left out"), (lost, "accepted as lost"), (holes, "holes of Kafka"), (missing, "missing")]
                {
                    if *count > 0 {
                        text += &format!(", {count} {what}");
                    }
                }
                text.push('\n');
            }
            let (records, above) = (sum(|partition| partition.records), topic.objects_above_low);
            text += &format!("  {records} records; {above} objects reach above low: not complete yet\n");
        }
        for finding in &self.findings {
            text += &format!("{finding}\n");
        }
        if self.findings_left_out > 0 {
            text += &format!("and {} findings more\n", self.findings_left_out);
        }
        for note in &self.notes {
            text += &format!("note: {note}\n");
        }
        let Cost { objects, requests, listings, fetched_bytes, milliseconds } = self.cost;
        text += &format!(
            "{objects} objects, {requests} requests and {listings} listings, {fetched_bytes} bytes fetched in {:.1} s\n",
            milliseconds as f64 / 1000.0
        );
        let verdict = if self.proven { "proven" } else { "NOT proven" };
        text + &format!("connector {}: {verdict}\n", self.connector)
    }
}
