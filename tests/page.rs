//! The status page on a real worker: what it asks, and in headless Chromium what a person sees.

#![allow(clippy::disallowed_methods, reason = "a test may wait for another process")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::http::{free_address, request};
use support::process::{Setup, Sink, produce, produce_one, service};

/// An id and a line that would be markup if they were not text.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

#[test]
fn the_page_shows_what_the_worker_does() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = format!("page-{:08x}", getrandom::u32().unwrap());
    let setup = Setup::new(&kafka, &topic, &Sink::File, "rotate: { max_interval: 1s }");
    assert!(produce(&kafka, &topic, 4_000, None, &setup.path("manifest")).wait().unwrap().success());
    let address = free_address();
    setup.write_worker(&kafka, "worker-1", address.port());
    let mut worker = setup.start(&[], "worker.log");
    worker.wait_for("http listens");
    let get = |path: &str, accept: &str| request(address, "GET", path, &[("accept", accept)], None);
    let json = |path: &str| -> Value {
        let answer = get(path, "application/json");
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.body))
    };

    // One path for people and tools.
    let page = get("/", "text/html,*/*;q=0.8");
    assert!(page.status == 200 && page.body.starts_with("<!doctype html>"), "{}", page.head);
    assert!(
        page.head.to_ascii_lowercase().contains("content-security-policy: default-src 'none'; script-src 'sha256-")
    );
    assert_eq!(json("/")["version"], env!("CARGO_PKG_VERSION"));

    let deadline = Instant::now() + Duration::from_secs(60);
    while json("/api/activity")["uploads"].as_array().is_none_or(|uploads| uploads.len() < 20)
        || json("/api/activity")["samples"].as_array().is_none_or(Vec::is_empty)
    {
        assert!(Instant::now() < deadline, "nothing is uploaded: {}", worker.last_lines());
        std::thread::sleep(Duration::from_millis(100));
    }
    let activity = json("/api/activity");
    let app = activity["apps"][0]["app"].as_str().unwrap().to_owned();
    assert!(activity["apps"][0]["bytes"].as_u64().unwrap() > 0, "{activity}");
    let found = json(&format!("/api/search?connector=app-logs&app={app}&pattern=app_id&minutes=10080"));
    let lines = found["lines"].as_array().unwrap();
    assert!(!lines.is_empty() && lines[0].as_str().unwrap().contains(&app), "{found}");
    let none = json(&format!("/api/search?connector=app-logs&app={app}&pattern=no-line-says-this&minutes=60"));
    assert_eq!(none["lines"].as_array().map(Vec::len), Some(0));
    for (query, status) in [
        ("connector=nobody&app=a&minutes=5", 404),
        ("connector=app-logs&app=a&minutes=0", 400),
        ("connector=app-logs&app=a&minutes=5&pattern=%5B", 400),
    ] {
        assert_eq!(get(&format!("/api/search?{query}"), "*/*").status, status, "{query}");
    }

    let Some(chromium) = service("SLUICE_TEST_CHROMIUM") else { return };
    let shown = browse(&chromium, &format!("http://{address}/"), setup.path("profile").as_path(), &[]);
    for wanted in ["worker-1", "1 of 1", "RUNNING", "app-logs", &topic, &app, ".log.lz4", "records archived"] {
        assert!(shown.contains(wanted), "the page does not show {wanted}: {shown}");
    }
    assert!(shown.contains(r#"<p id="trouble" role="alert" hidden=""></p>"#), "{shown}");
    if let Some(pictures) = std::env::var_os("SLUICE_WRITE_PICTURES") {
        for (name, flags) in [
            ("status-page", &[][..]),
            ("status-page-dark", &["--force-dark-mode", "--blink-settings=preferredColorScheme=0"][..]),
        ] {
            let file = Path::new(&pictures).join(format!("{name}.png"));
            let shot = format!("--screenshot={}", file.display());
            let mut flags = flags.to_vec();
            flags.push(&shot);
            browse(&chromium, &format!("http://{address}/"), setup.path("profile").as_path(), &flags);
        }
    }
    assert!(worker.terminate().success());
}

/// What is in the document after the page has asked its questions.
fn browse(chromium: &str, url: &str, profile: &Path, more: &[&str]) -> String {
    let mut command = Command::new(chromium);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,1500"]);
    command.arg(format!("--user-data-dir={}", profile.display())).arg("--virtual-time-budget=4000");
    command.args(more);
    if more.is_empty() {
        command.arg("--dump-dom");
    }
    let output = command.arg(url).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(!errors.contains("Content Security Policy"), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The script puts text in as text.
#[test]
fn hostile_ids_stay_text() {
    let (Some(kafka), Some(chromium)) = (service("SLUICE_TEST_KAFKA"), service("SLUICE_TEST_CHROMIUM")) else { return };
    let topic = format!("page-hostile-{:08x}", getrandom::u32().unwrap());
    let more = "app_id: { from: key }\nrotate: { max_interval: 1s }";
    let setup = Setup::new(&kafka, &topic, &Sink::File, "");
    let sink = setup.path("archive").display().to_string();
    std::fs::write(
        setup.path("connectors/app-logs.yaml"),
        format!("topics: [{topic}]\n{more}\nsink: {{ url: 'file://{sink}' }}\n"),
    )
    .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(produce_one(&kafka, &topic, HOSTILE, &format!("line {HOSTILE}")));
    let address = free_address();
    setup.write_worker(&kafka, "worker-1", address.port());
    let mut worker = setup.start(&[], "worker.log");
    worker.wait_for("http listens");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !request(address, "GET", "/api/activity", &[], None).body.contains("onerror") {
        assert!(Instant::now() < deadline, "{}", worker.last_lines());
        std::thread::sleep(Duration::from_millis(100));
    }
    let shown = browse(&chromium, &format!("http://{address}/"), setup.path("profile").as_path(), &[]);
    assert!(shown.contains("&lt;img src=x") && !shown.contains("<img"), "{shown}");
    assert!(worker.terminate().success());
}
