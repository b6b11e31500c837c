//! The shipped alert rules, dashboard and runbook fit each other, the list of metrics, and Prometheus' own tool.
//!
//! promtool and prometheus are found by `PATH`; with `SLUICE_TEST_REQUIRE_SERVICES=1` their absence is a failure.

#![allow(clippy::disallowed_methods, reason = "a test may wait for another process")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sluice::api::metrics::METRICS;
use support::group::wait_until;
use support::http::{free_address, request};
use support::process::{Setup, Sink, installed, produce, produce_one, service};

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
        let Some(output) = installed("promtool", Command::new("promtool").args(args).output()) else { return };
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

/// A Prometheus that asks one worker each second and judges at once.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// `None`: there is none on this machine, and none is required.
    fn start(setup: &Setup, worker: SocketAddr) -> Option<Self> {
        let address = free_address();
        let waits = regex::Regex::new(r"for: \d+[mh]").unwrap();
        fs::write(setup.path("alerts.yaml"), waits.replace_all(RULES, "for: 0s").as_ref()).unwrap();
        fs::write(
            setup.path("prometheus.yaml"),
            format!(
                "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\nrule_files: [alerts.yaml]\n\
                 scrape_configs: [{{ job_name: sluice, static_configs: [{{ targets: [\"{worker}\"] }}] }}]\n"
            ),
        )
        .unwrap();
        let log = fs::File::create(setup.path("prometheus.log")).unwrap();
        let started = Command::new("prometheus")
            .arg(format!("--config.file={}", setup.path("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", setup.path("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        installed("prometheus", started).map(|child| Self { child, address })
    }

    /// The alerts that fire, each with the connector or an empty word.
    fn firing(&self) -> BTreeSet<(String, String)> {
        let answer = request(self.address, "GET", "/api/v1/alerts", &[], None);
        let found: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let label = |alert: &Value, name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
        let alerts = found["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| (label(alert, "alertname"), label(alert, "connector"))).collect()
    }

    fn fires(&self, alert: &str, connector: &str) -> bool {
        self.firing().contains(&(alert.to_owned(), connector.to_owned()))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits are taken out of the rules; all else is as an operator has it.
#[test]
fn a_real_prometheus_fills_the_dashboard_and_alerts_on_a_broken_connector() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = format!("monitoring-{:08x}", getrandom::u32().unwrap());
    let setup = Setup::new(&kafka, &topic, &Sink::File, "rotate: { max_interval: 1s }");
    let worker_address = free_address();
    setup.write_worker(&kafka, "worker-1", worker_address.port());
    let mut worker = setup.start(&[], "worker.log");
    worker.wait_for("http listens");
    let Some(prometheus) = Prometheus::start(&setup, worker_address) else { return };

    // For as long as the dashboard is asked: rates need records within the last minute.
    let mut load = produce(&kafka, &topic, 20_000, Some(200), &setup.path("manifest"));
    let mut said = String::new();
    let filled = || {
        let mut asked = Command::new("python3");
        asked.args(["-B", "dev/lib/dashboard_check.py", "monitoring/dashboard.json"]);
        let output = asked.arg(format!("http://{}", prometheus.address)).output().unwrap();
        said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        output.status.success()
    };
    worker.wait_until("each query of the dashboard has an answer", filled);
    assert!(said.contains("queries have data"), "{said}");
    load.kill().unwrap();
    load.wait().unwrap();
    // A worker that has nothing to do, or just began, is no reason to wake somebody.
    assert_eq!(prometheus.firing(), BTreeSet::new());

    // A record that can't be split, and a connector that wants to hear of it.
    let broken = format!("{topic}-broken");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(produce_one(&kafka, &broken, "key", "no JSON"));
    let connector = |on_error: &str| {
        let archive = setup.path("archive-of-broken").display().to_string();
        let text = format!(
            "topics: [{broken}]\napp_id: {{ from: json, pointer: /app_id }}\non_error: {on_error}\nsink: {{ url: 'file://{archive}' }}\n"
        );
        fs::write(setup.path("connectors/broken.yaml"), text).unwrap();
    };
    connector("fail");
    worker.signal("HUP");
    wait_until(|| prometheus.fires("SluiceTaskFailed", "broken"), || format!("{:?}", prometheus.firing()));
    // As docs/runbook.md says: the status has the reason and the advice.
    let status = request(worker_address, "GET", "/status", &[], None).body;
    assert!(status.contains("on_error is fail") && status.contains("advice"), "{status}");
    connector("dead_letter");
    worker.signal("HUP");
    wait_until(|| !prometheus.fires("SluiceTaskFailed", "broken"), || format!("{:?}", prometheus.firing()));

    let paused = request(worker_address, "PUT", "/connectors/app-logs/pause", &[], None);
    assert_eq!(paused.status, 202, "{}", paused.body);
    wait_until(|| prometheus.fires("SluiceTaskPaused", "app-logs"), || format!("{:?}", prometheus.firing()));
    assert!(worker.terminate().success());
    wait_until(|| prometheus.fires("SluiceWorkerDown", ""), || format!("{:?}", prometheus.firing()));
}
