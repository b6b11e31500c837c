//! Exactly once through real kills: the worker is killed with SIGKILL again and again under steady load, every second time
//! its spool is deleted too; then the archive is counted from outside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "a kill at a random moment is a wait on nothing")]

mod support;

use std::fs;
use std::time::Duration;

use support::process::{Setup, Sink, produce, service};

const KILLS: u64 = 20;
/// More kills than this are not needed to hit every kind of moment.
const MAX_KILLS: u64 = 60;
/// Small files, short ages and one upload at a time: a kill finds frames, seals, uploads and Dones under way.
const SETTINGS: &str = "rotate: { max_bytes: 64KiB, max_interval: 1s }\ncompression: { frame_bytes: 64KiB }\n";

fn name(prefix: &str) -> String {
    format!("{prefix}-{:012x}", getrandom::u64().unwrap() >> 16)
}

fn survives_kills(kafka: &str, sink: &Sink) {
    let topic = name("kill");
    let setup = Setup::new(kafka, &topic, sink, SETTINGS);
    let manifest = setup.path("manifest.json");
    let mut producer = produce(kafka, &topic, 300_000, Some(8_000), &manifest);
    let mut kills = 0;
    let mut found = Takeovers::default();
    // The kills must have hit what they are meant to hit: between a Seal and its uploads, and between those and their Done.
    while kills < KILLS || (kills < MAX_KILLS && (found.with_missing == 0 || found.with_pending == 0)) {
        let mut running = setup.start(&[], "killed.log");
        // One in five dies while it starts; the others at a random moment of their work.
        if kills % 5 != 4 {
            running.wait_for("task taken over");
        }
        std::thread::sleep(Duration::from_millis(getrandom::u64().unwrap() % 3000));
        running.kill();
        if kills % 2 == 1 {
            fs::remove_dir_all(setup.spool()).unwrap();
        }
        kills += 1;
        found = Takeovers::of(&fs::read_to_string(setup.path("killed.log")).unwrap());
    }
    assert!(producer.wait().unwrap().success());
    setup.archive_to_the_end();
    setup.verify(&manifest);
    println!("{kills} kills: {found:?}");
    assert!(found.all >= KILLS / 5 * 4 && found.with_pending > 0 && found.with_missing > 0, "{kills} kills: {found:?}");
    // Nothing to do: the same once more.
    setup.archive_to_the_end();
    setup.verify(&manifest);
}

/// What the workers found when they took the task over.
#[derive(Debug, Default)]
struct Takeovers {
    all: u64,
    /// Objects were decided and not known to be done.
    with_pending: u64,
    /// Some of them were not in the store: rebuilt.
    with_missing: u64,
}

impl Takeovers {
    fn of(log: &str) -> Self {
        let mut found = Self::default();
        for line in log.lines().filter(|line| line.contains("task taken over")) {
            found.all += 1;
            found.with_pending += u64::from(!line.contains("pending=0"));
            found.with_missing += u64::from(!line.contains("missing=0"));
        }
        found
    }
}

#[test]
fn a_folder_survives_kills() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    survives_kills(&kafka, &Sink::File);
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_survives_kills() {
    let (Some(kafka), Some(endpoint)) = (service("SLUICE_TEST_KAFKA"), service("SLUICE_TEST_MINIO")) else { return };
    let (key, secret) = (service("SLUICE_TEST_MINIO_KEY").unwrap(), service("SLUICE_TEST_MINIO_SECRET").unwrap());
    let bucket = name("kill");
    support::make_bucket(&endpoint, &bucket, &key, &secret).await;
    let sink = Sink::Minio { endpoint, bucket, key, secret };
    tokio::task::spawn_blocking(move || survives_kills(&kafka, &sink)).await.unwrap();
}

#[test]
fn a_stop_leaves_no_small_files_and_loses_nothing() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = name("stop");
    let setup = Setup::new(&kafka, &topic, &Sink::File, "rotate: { max_interval: 10m }\n");
    let manifest = setup.path("manifest.json");
    assert!(produce(&kafka, &topic, 40_000, None, &manifest).wait().unwrap().success());
    let mut running = setup.start(&[], "stopped.log");
    // Stopped in the middle or after it: either way nothing is due.
    std::thread::sleep(Duration::from_millis(1500));
    let status = running.terminate();
    assert!(status.success(), "{status}: {}", running.last_lines());
    let files = walk(&setup.path("archive"));
    assert!(files.is_empty(), "a stop wrote {files:?}");
    setup.archive_to_the_end();
    setup.verify(&manifest);
}

/// Files that are not the log's.
fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.ends_with("_sluice") {
            continue;
        }
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
