//! docs/recipes.md, run as it stands.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use sluice::archive::codec::Codec;
use sluice::archive::format::Format;
use sluice::archive::key::KeyTemplate;
use sluice::config::sink_of_url;
use sluice::store::{self, Store};

use crate::support::archive::{Made, Writer};

const RECIPES: &str = include_str!("../../docs/recipes.md");
/// 2026-11-22 03:12 UTC.
const T0: i64 = 1_795_317_125_000;
const DAY_MS: i64 = 86_400_000;

/// The first block of this kind below a heading.
fn block(heading: &str, kind: &str) -> String {
    let below = RECIPES.split(&format!("\n{heading}\n")).nth(1).unwrap();
    let block = below.split(&format!("```{kind}\n")).nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

/// An app's records of one day: every third an error.
fn records(first: i64, from_ms: i64) -> Vec<Made> {
    let made = |n: i64| {
        let level = if n % 3 == 0 { "ERROR" } else { "INFO" };
        let value = format!("{{\"level\":\"{level}\",\"message\":\"message {n}\"}}");
        Made { headers: vec![(b"h".to_vec(), Some(b"v".to_vec()))], ..Made::line(0, first + n, from_ms + n, &value) }
    };
    (0..30).map(made).collect()
}

async fn archive(dir: &Path) {
    let template = block(
        "What they read best: `format: json`, `codec: zstd`, one partition of the table in each segment of the key.",
        "yaml",
    );
    let template = template.lines().find_map(|line| line.trim().strip_prefix("key: ")).unwrap().trim_matches('"');
    let sink = sink_of_url(&format!("file://{}", dir.display()), None, None).unwrap();
    let store: Arc<dyn Store> = store::open(&sink).await.unwrap();
    let mut writer = Writer::new(store, Format::Json, Codec::Zstd);
    writer.template = KeyTemplate::parse(template).unwrap();
    writer.put("payments", &records(0, T0)).await;
    writer.put("payments", &records(30, T0 + DAY_MS)).await;
    writer.put("shipping", &records(60, T0)).await;
}

/// Runs text of the docs on this archive.
fn run(dir: &Path, program: &str, text: &str) -> String {
    assert!(text.contains("/var/lib/sluice/archive"), "{text}");
    let text = text.replace("/var/lib/sluice/archive", &dir.display().to_string());
    let output = Command::new(program).arg("-c").arg(&text).output().unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The Python that has DuckDB, polars and ClickHouse.
fn python() -> Option<String> {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/readers")).arg("python").output().unwrap();
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    assert_ne!(std::env::var("SLUICE_TEST_REQUIRE_SERVICES").as_deref(), Ok("1"), "{why}");
    println!("not run: {why}");
    None
}

#[tokio::test]
async fn each_tool_reads_what_the_recipe_says() {
    let dir = tempfile::tempdir().unwrap();
    archive(dir.path()).await;
    let errors = run(dir.path(), "sh", &block("## jq", "sh"));
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!((lines.len(), lines[1]), (10, "3 message 3"));

    let Some(python) = python() else { return };
    let duckdb = block("## DuckDB", "python");
    let rows = run(dir.path(), &python, &duckdb);
    assert_eq!(rows.trim(), "[(datetime.date(2026, 11, 22), 'ERROR', 10), (datetime.date(2026, 11, 22), 'INFO', 20)]");
    // One of three files is opened, as the recipe says.
    let explained =
        duckdb.replace("SELECT dt", "EXPLAIN ANALYZE SELECT dt").replace("rows.fetchall()", "rows.fetchall()[0][1]");
    let plan = run(dir.path(), &python, &explained);
    assert!(plan.contains("Scanning Files: 1/3"), "{plan}");

    let rows = run(dir.path(), &python, &block("## polars", "python"));
    assert_eq!(rows.trim(), "[('ERROR', 10), ('INFO', 20)]");

    let clickhouse = format!("import chdb\nprint(chdb.query(\"\"\"{}\"\"\", 'CSV'))", block("## ClickHouse", "sql"));
    let rows = run(dir.path(), &python, &clickhouse);
    assert_eq!(rows.trim(), "\"payments\",\"2026-11-22\",\"ERROR\",10\n\"payments\",\"2026-11-22\",\"INFO\",20");
}
