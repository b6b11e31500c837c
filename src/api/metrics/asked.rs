//! Series that are read when somebody asks: states of what runs now, and the process.
//!
//! Owns: their text. Does not own: what is counted as it happens, which the recorder holds ([`super`]). A recorder never forgets
//! a series; what is written here is gone with its task or connector.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::list::{CONNECTOR_FAILED, METRICS, MISSING_TOPICS, STORE_TROUBLE, TASK_STATE};
use super::process;
use crate::api::http::ConnectorReport;
use crate::task::status::{TaskReport, TaskState};

/// Text in Prometheus' format, to be appended to the recorder's.
pub fn render(tasks: &[TaskReport], connectors: &BTreeMap<String, ConnectorReport>) -> String {
    let mut out = String::new();
    let flag = |set: bool| if set { 1.0 } else { 0.0 };
    let states = tasks.iter().flat_map(|task| {
        let number = task.task.to_string();
        TaskState::ALL.into_iter().map(move |state| {
            let labels = labels(&[
                ("connector", &task.connector),
                ("topic", &task.topic),
                ("task", &number),
                ("state", state.name()),
            ]);
            (labels, flag(state == task.state))
        })
    });
    write_family(&mut out, TASK_STATE, states.collect());
    let of_connectors = |value: &dyn Fn(&ConnectorReport) -> f64| {
        connectors.iter().map(|(name, report)| (labels(&[("connector", name)]), value(report))).collect()
    };
    write_family(
        &mut out,
        CONNECTOR_FAILED,
        of_connectors(&|report| flag(report.failed.is_some() || report.waiting.is_some())),
    );
    write_family(&mut out, STORE_TROUBLE, of_connectors(&|report| flag(report.store_trouble.is_some())));
    write_family(&mut out, MISSING_TOPICS, of_connectors(&|report| report.missing_topics.len() as f64));
    for (name, value) in process::read() {
        write_family(&mut out, name, vec![(String::new(), value)]);
    }
    out
}

fn write_family(out: &mut String, name: &str, series: Vec<(String, f64)>) {
    let Some(metric) = METRICS.iter().find(|metric| metric.name == name) else { return };
    if series.is_empty() {
        return;
    }
    let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", metric.help, metric.kind.name());
    for (labels, value) in series {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
    out.push('\n');
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::from("{");
    for (name, value) in pairs {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{}{name}=\"{escaped}\"", if out.len() > 1 { "," } else { "" });
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::status::TaskStatus;

    #[test]
    fn a_task_is_in_one_state_and_a_topic_can_break_no_line() {
        let status = TaskStatus::new("a", "t\"\\\n", 3);
        status.set_state(TaskState::Failed, None, None);
        let out = render(&[status.report()], &BTreeMap::new());
        let states: Vec<&str> = out.lines().filter(|line| line.starts_with("sluice_task_state{")).collect();
        assert_eq!(states.len(), TaskState::ALL.len());
        let set: Vec<&&str> = states.iter().filter(|line| line.ends_with(" 1")).collect();
        assert_eq!(set, [&"sluice_task_state{connector=\"a\",topic=\"t\\\"\\\\\\n\",task=\"3\",state=\"FAILED\"} 1"]);
    }

    #[test]
    fn what_a_connector_meets_is_shown_and_gone_with_it() {
        let report = ConnectorReport {
            store_trouble: Some("away".to_owned()),
            missing_topics: vec!["a".to_owned(), "b".to_owned()],
            ..ConnectorReport::default()
        };
        let out = render(&[], &BTreeMap::from([("a".to_owned(), report)]));
        assert!(out.contains("\nsluice_store_trouble{connector=\"a\"} 1\n"), "{out}");
        assert!(out.contains("\nsluice_connector_failed{connector=\"a\"} 0\n"), "{out}");
        assert!(out.contains("\nsluice_missing_topics{connector=\"a\"} 2\n"), "{out}");
        assert!(!render(&[], &BTreeMap::new()).contains("connector="));
    }
}
