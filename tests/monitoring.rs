//! The shipped alert rules, dashboard and runbook fit each other, the list of metrics, and Prometheus' own tool.
//!
//! promtool is found by `PATH`; with `SLUICE_TEST_REQUIRE_SERVICES=1` its absence is a failure.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::print_stderr, reason = "a test that did not run says so")]

use std::collections::BTreeSet;
use std::process::Command;

use sluice::api::metrics::METRICS;

const RULES: &str = include_str!("../monitoring/alerts.yaml");
const DASHBOARD: &str = include_str!("../monitoring/dashboard.json");
const RUNBOOK: &str = include_str!("../docs/runbook.md");

fn alerts() -> Vec<&'static str> {
    RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[test]
fn rules_and_dashboard_name_metrics_that_there_are() {
    let name = regex::Regex::new(r"\b(?:sluice|process)_[a-z_]+\b").unwrap();
    let expressions = RULES.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut used = BTreeSet::new();
    for text in expressions.chain(DASHBOARD.lines()) {
        used.extend(name.find_iter(text).map(|found| found.as_str()));
    }
    let unknown: Vec<&str> =
        used.iter().copied().filter(|used| !METRICS.iter().any(|metric| metric.name == *used)).collect();
    assert!(unknown.is_empty() && used.len() > 20, "unknown: {unknown:?} of {used:?}");
}

#[test]
fn every_alert_leads_to_a_section_of_the_runbook() {
    let alerts = alerts();
    assert!(alerts.len() > 10);
    for alert in alerts {
        assert!(RUNBOOK.contains(&format!("\n## {alert}\n")), "docs/runbook.md has no section {alert}");
        let link = format!("runbook_url: docs/runbook.md#{}\n", alert.to_lowercase());
        assert!(RULES.contains(&link), "{alert} has no {link}");
    }
}

#[test]
fn promtool_takes_the_rules_and_their_tests_pass() {
    for args in [["check", "rules", "monitoring/alerts.yaml"], ["test", "rules", "monitoring/alerts_test.yaml"]] {
        let output = match Command::new("promtool").args(args).output() {
            Ok(output) => output,
            Err(error) => {
                let required = std::env::var("SLUICE_TEST_REQUIRE_SERVICES").is_ok_and(|value| value == "1");
                assert!(!required, "promtool: {error}");
                eprintln!("not run: promtool is not there ({error})");
                return;
            }
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {args:?}\n{text}");
    }
}

#[test]
fn every_alert_is_tested() {
    let tests = include_str!("../monitoring/alerts_test.yaml");
    for alert in alerts() {
        let named = |line: &&str| line.trim() == format!("alertname: {alert}");
        assert!(tests.lines().filter(named).count() >= 1, "monitoring/alerts_test.yaml does not name {alert}");
    }
}
