//! A worker's report for people.
//!
//! Owns: columns, units, colours, the list of what is wrong and what to do. Does not own: the report.

use std::io::{self, Write};

use crate::api::http::WorkerReport;
use crate::cluster::Phase;
use crate::cluster::group::{GroupReport, MemberReport};
use crate::task::error::Remedy;
use crate::task::status::{TaskReport, TaskState};

const HEAD: [&str; 11] = [
    "CONNECTOR",
    "TOPIC",
    "TASK",
    "STATE",
    "LAG",
    "OPEN LANES",
    "UPLOADING",
    "OBJECTS",
    "STORED",
    "LAST UPLOAD",
    "OLDEST OPEN",
];
/// The column that has a colour; texts stand left up to it, figures right after it.
const STATE: usize = 3;

/// Writes the report. `now_ms` is milliseconds since the Unix epoch.
pub fn print(out: &mut impl Write, url: &str, report: &WorkerReport, now_ms: i64, colour: bool) -> io::Result<()> {
    writeln!(out, "worker {} (sluice {}) at {url}", report.worker, report.version)?;
    let used = |used, max| format!("{} of {}", size(used), size(max));
    let memory = used(report.memory_used_bytes, report.memory_max_bytes);
    writeln!(out, "memory {memory}, spool {}", used(report.spool_used_bytes, report.spool_max_bytes))?;
    if let Some(group) = &report.cluster {
        print_group(out, group)?;
    }
    writeln!(out)?;
    let mut tasks: Vec<&TaskReport> = report.tasks.iter().collect();
    tasks.sort_by(|a, b| (&a.connector, &a.topic, a.task).cmp(&(&b.connector, &b.topic, b.task)));
    if tasks.is_empty() {
        writeln!(out, "no task has begun")?;
    } else {
        print_tasks(out, &tasks, now_ms, colour)?;
    }
    let problems = problems(report, &tasks, now_ms);
    if !problems.is_empty() {
        writeln!(out)?;
    }
    problems.iter().try_for_each(|line| writeln!(out, "{line}"))
}

/// Who else there is, and how many tasks each has.
fn print_group(out: &mut impl Write, group: &GroupReport) -> io::Result<()> {
    let member = |member: &MemberReport| {
        let most = member.max_tasks.map_or_else(String::new, |max| format!(" of at most {max}"));
        let phase = match member.phase {
            Phase::Ready => "",
            Phase::Joining => ", joining",
            Phase::Leaving => ", leaving",
            Phase::Job => ", until caught up",
        };
        let this = if member.this { " (this)" } else { "" };
        format!("{}{this} {}{most}{phase}", member.worker, member.tasks_held)
    };
    let members: Vec<String> = group.members.iter().map(member).collect();
    let seen = if group.away_since_ms.is_some() { ", as last seen" } else { "" };
    writeln!(out, "group {} at {}: tasks by worker{seen}: {}", group.group, group.coordination, members.join(", "))
}

fn print_tasks(out: &mut impl Write, tasks: &[&TaskReport], now_ms: i64, colour: bool) -> io::Result<()> {
    let rows: Vec<[String; HEAD.len()]> = tasks.iter().map(|task| row(task, now_ms)).collect();
    let widths: [usize; HEAD.len()] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or_default()
    });
    let line = |cells: &[String], state: Option<TaskState>| {
        let padded = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| match (column, state) {
            (STATE, Some(state)) if colour => format!("{}{cell:<width$}\x1b[0m", code(state)),
            (0..=STATE, _) => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    writeln!(out, "{}", line(&HEAD.map(str::to_owned), None))?;
    tasks.iter().zip(&rows).try_for_each(|(task, row)| writeln!(out, "{}", line(row, Some(task.state))))
}

fn row(task: &TaskReport, now_ms: i64) -> [String; HEAD.len()] {
    let since = |at: Option<i64>| at.map_or("-".to_owned(), |at| ago(now_ms.saturating_sub(at)));
    [
        task.connector.clone(),
        task.topic.clone(),
        task.task.to_string(),
        task.state.name().to_owned(),
        // Nobody counts any more.
        if task.state == TaskState::Failed { "-".to_owned() } else { thousands(task.lag_records.unsigned_abs()) },
        thousands(task.open_lanes as u64),
        thousands((task.files_in_upload.max(task.intents_pending)) as u64),
        thousands(task.objects),
        size(task.bytes_stored),
        since(task.last_upload_ms),
        since(task.oldest_unsealed_ms),
    ]
}

/// Everything that keeps records from their store, with what to do about it.
fn problems(report: &WorkerReport, tasks: &[&TaskReport], now_ms: i64) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(group) = &report.cluster {
        if let (Some(since), Some(why)) = (group.away_since_ms, &group.away_why) {
            let since = ago(now_ms.saturating_sub(since));
            lines.push(format!("group {}: coordination is away since {since}: {why}", group.group));
            lines.push("  running tasks go on; none is taken over or moved until it is back".to_owned());
        } else if group.tasks_free > 0 && group.phase == Phase::Ready {
            lines.push(format!("group {}: {} tasks have no worker", group.group, group.tasks_free));
        }
    }
    let other_workers_run_it =
        |task: &TaskReport| report.cluster.is_some() && task.state == TaskState::Unassigned && task.advice.is_none();
    for (name, connector) in &report.connectors {
        if let Some(why) = &connector.failed {
            lines.push(format!("{name}: FAILED: {why}"));
            lines.push(format!("  to do: {}", Remedy::Operator.advice()));
        }
        if let Some(why) = &connector.waiting {
            // Of a store's report what failed.
            let said: Vec<&str> = why.lines().map(str::trim).filter(|line| !line.ends_with("not tried")).collect();
            lines.push(format!("{name}: has not begun yet: {}", said.join(" ")));
            lines.push("  it is tried again every few seconds".to_owned());
        }
        for topic in &connector.missing_topics {
            lines.push(format!("{name}: topic {topic} does not exist; it is waited for"));
        }
        if let Some(trouble) = &connector.store_trouble {
            lines.push(format!("{name}: the store refuses or is away: {trouble}"));
        }
    }
    for task in tasks {
        let name = format!("{}/{}/{}", task.connector, task.topic, task.task);
        if let Some(message) = task.message.as_ref().filter(|_| !other_workers_run_it(task)) {
            lines.push(format!("{name}: {}: {message}", task.state.name()));
        }
        lines.extend(task.advice.iter().map(|advice| format!("  to do: {advice}")));
        for (partition, seen) in &task.partitions {
            lines.extend(seen.waiting.iter().map(|why| format!("{name}: partition {partition} waits: {why}")));
        }
    }
    lines
}

/// Green goes, red needs somebody, yellow is between.
fn code(state: TaskState) -> &'static str {
    match state {
        TaskState::Running => "\x1b[32m",
        TaskState::Failed => "\x1b[31m",
        TaskState::Unassigned | TaskState::Paused | TaskState::Stopped | TaskState::Restarting => "\x1b[33m",
    }
}

/// `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size to read, not to calculate with: `1.2GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let places = usize::from(unit > 0 && value < 10.0);
    format!("{value:.places$}{}", UNITS[unit])
}

/// `12s ago`: one unit is enough.
fn ago(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "m"),
        7_200..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{count}{unit} ago")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::http::ConnectorReport;
    use crate::task::status::{PartitionReport, TaskStatus};

    const NOW_MS: i64 = 1_800_000_000_000;

    fn task(topic: &str, number: u32, change: impl FnOnce(&mut TaskReport)) -> TaskReport {
        let status = TaskStatus::new("app-logs", topic, number);
        status.update(change);
        status.report()
    }

    fn report() -> WorkerReport {
        let failed = |task: &mut TaskReport| {
            task.state = TaskState::Failed;
            task.message = Some("records are gone".to_owned());
            task.advice = Some("look into it".to_owned());
        };
        let running = |task: &mut TaskReport| {
            task.state = TaskState::Running;
            task.lag_records = 1_234_567;
            task.open_lanes = 35;
            task.objects = 1_204;
            task.bytes_stored = 1_300_000_000;
            task.last_upload_ms = Some(NOW_MS - 12_999);
            task.oldest_unsealed_ms = Some(NOW_MS - 240_000);
            let waiting = PartitionReport { waiting: Some("no leader".to_owned()), ..PartitionReport::default() };
            task.partitions.insert(3, waiting);
        };
        let waiting = ConnectorReport {
            waiting: Some("s3://b can't be used yet:\n  write  FAILED: 403\n  read   not tried".to_owned()),
            ..ConnectorReport::default()
        };
        let missing = ConnectorReport { missing_topics: vec!["gone".to_owned()], ..ConnectorReport::default() };
        let broken = ConnectorReport {
            failed: Some("the prefix is another's".to_owned()),
            store_trouble: Some("create s3://b/k: 503".to_owned()),
            ..ConnectorReport::default()
        };
        WorkerReport {
            version: "0.1.0".to_owned(),
            worker: "host-7".to_owned(),
            memory_used_bytes: 12 << 20,
            memory_max_bytes: 192 << 20,
            spool_used_bytes: 0,
            spool_max_bytes: 20 << 30,
            connectors: BTreeMap::from([
                ("app-logs".to_owned(), missing),
                ("broken".to_owned(), broken),
                ("early".to_owned(), waiting),
            ]),
            tasks: vec![task("orders", 0, failed), task("applogs", 0, running)],
            cluster: None,
        }
    }

    fn printed(colour: bool) -> String {
        let mut out = Vec::new();
        print(&mut out, "http://127.0.0.1:8083", &report(), NOW_MS, colour).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_in_columns_and_what_to_do_below() {
        let expected = "\
worker host-7 (sluice 0.1.0) at http://127.0.0.1:8083
memory 12MiB of 192MiB, spool 0B of 20GiB

CONNECTOR  TOPIC    TASK  STATE          LAG  OPEN LANES  UPLOADING  OBJECTS  STORED  LAST UPLOAD  OLDEST OPEN
app-logs   applogs  0     RUNNING  1,234,567          35          0    1,204  1.2GiB      12s ago       4m ago
app-logs   orders   0     FAILED           -           0          0        0      0B            -            -

app-logs: topic gone does not exist; it is waited for
broken: FAILED: the prefix is another's
  to do: correct the cause, then restart it over REST or with the worker (a changed connector file is enough); nothing is lost
broken: the store refuses or is away: create s3://b/k: 503
early: has not begun yet: s3://b can't be used yet: write  FAILED: 403
  it is tried again every few seconds
app-logs/applogs/0: partition 3 waits: no leader
app-logs/orders/0: FAILED: records are gone
  to do: look into it
";
        assert_eq!(printed(false), expected);
    }

    #[test]
    fn a_group_shows_who_has_how_much() {
        let member = |worker: &str, phase, tasks_held, max_tasks| MemberReport {
            worker: worker.to_owned(),
            phase,
            max_tasks,
            tasks_held,
            this: worker == "host-7",
        };
        let group = GroupReport {
            group: "default".to_owned(),
            coordination: "redis://h:6379".to_owned(),
            phase: Phase::Ready,
            away_since_ms: Some(NOW_MS - 61_000),
            away_why: Some("connection refused".to_owned()),
            tasks_held: 2,
            members: vec![member("host-7", Phase::Ready, 2, None), member("host-8", Phase::Joining, 0, Some(3))],
            tasks_free: 1,
        };
        let elsewhere = task("applogs", 0, |task| task.message = Some("worker host-8 of the group runs it".to_owned()));
        let mut report = WorkerReport { cluster: Some(group), connectors: BTreeMap::new(), ..report() };
        report.tasks = vec![elsewhere];
        let shown = |report: &WorkerReport| {
            let mut out = Vec::new();
            print(&mut out, "http://127.0.0.1:8083", report, NOW_MS, false).unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = shown(&report);
        let line = "group default at redis://h:6379: tasks by worker, as last seen: host-7 (this) 2, host-8 0 of at most 3, joining\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("coordination is away since 61s ago: connection refused"), "{text}");
        assert!(!text.contains("runs it"), "{text}");
        if let Some(group) = &mut report.cluster {
            group.away_since_ms = None;
        }
        assert!(shown(&report).contains("group default: 1 tasks have no worker"));
    }

    #[test]
    fn colour_changes_nothing_but_the_colour() {
        let coloured = printed(true);
        assert!(
            coloured.contains("\x1b[31mFAILED \x1b[0m") && coloured.contains("\x1b[32mRUNNING\x1b[0m"),
            "{coloured}"
        );
        let plain = ["\x1b[31m", "\x1b[32m", "\x1b[0m"].iter().fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(plain, printed(false));
    }

    #[test]
    fn figures_to_read() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1024, 10 << 20, u64::MAX].map(size), ["0B", "1023B", "1.0KiB", "10MiB", "16384PiB"]);
        let ages = [-5, 119_999, 120_000, 7_200_000, 172_800_000];
        assert_eq!(ages.map(ago), ["0s ago", "119s ago", "2m ago", "2h ago", "2d ago"]);
    }
}
