//! docs/metrics.md is written from the list that the program itself describes its metrics with.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use sluice::api::metrics::METRICS;

/// `WRITE_GOLDEN=1 cargo test --test metrics_doc` writes it anew.
#[test]
fn the_reference_is_in_step() {
    let file = "docs/metrics.md";
    let reference = reference();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(file, &reference).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), reference, "WRITE_GOLDEN=1 cargo test --test metrics_doc");
}

#[test]
fn names_follow_prometheus() {
    let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len(), "a name stands twice");
    for metric in METRICS {
        assert!(metric.name.starts_with("sluice_") || metric.name.starts_with("process_"), "{}", metric.name);
        assert_eq!(metric.kind.name() == "counter", metric.name.ends_with("_total"), "{}", metric.name);
        // The values of these have no limit.
        assert!(
            !metric.labels.iter().any(|label| ["app", "app_id", "key", "object"].contains(label)),
            "{}",
            metric.name
        );
        let in_unit = |unit: &str| metric.name.trim_end_matches("_total").ends_with(unit) || metric.name.contains(unit);
        if metric.unit == "bytes" {
            assert!(in_unit("bytes"), "{}", metric.name);
        }
        if metric.unit.starts_with("seconds") {
            assert!(in_unit("seconds"), "{}", metric.name);
        }
    }
}

fn reference() -> String {
    let mut out = include_str!("fixtures/metrics-intro.md").to_owned();
    for metric in METRICS {
        let labels = match metric.labels {
            [] => "no labels".to_owned(),
            labels => labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" "),
        };
        let _ = write!(
            out,
            "\n- **`{}`** ({}, {}; {labels})  \n  {}. *{}*",
            metric.name,
            metric.kind.name(),
            metric.unit,
            metric.help,
            metric.tells
        );
    }
    out.push('\n');
    out
}
