//! Exactly once through real kills: the worker is killed with SIGKILL again and again under steady load, every second time
//! its spool is deleted too; then the archive is counted from outside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "a kill at a random moment is a wait on nothing")]

mod support;

use std::any::Any;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use support::group::Load;
use support::holding_proxy::HoldingProxy;
use support::process::{BlockedFolders, Running, Setup, Sink, produce, service};
use tokio::runtime::Handle;

const KILLS: u64 = 20;
/// These find decided objects that cannot be uploaded. A fast disk leaves a random kill hardly a moment between the two.
const JAMMED: [u64; 2] = [7, 14];
/// Small files, short ages and one upload at a time: a kill finds frames, seals, uploads and Dones under way.
const SETTINGS: &str = "rotate: { max_bytes: 64KiB, max_interval: 1s }\ncompression: { frame_bytes: 64KiB }\n";

fn name(prefix: &str) -> String {
    format!("{prefix}-{:012x}", getrandom::u64().unwrap() >> 16)
}

fn survives_kills(kafka: &str, sink: &Sink, jam: &dyn Jam) {
    let topic = name("kill");
    let setup = Setup::new(kafka, &topic, sink, SETTINGS);
    // It comes until the last kill: uploads are due at each of them, however long they take.
    let load = Load::start(kafka, &topic, 4, 8_000);
    for kill in 0..KILLS {
        let mut running = setup.start(&[], "killed.log");
        // One in five dies while it starts; the others at a random moment of their work.
        if kill % 5 != 4 || JAMMED.contains(&kill) {
            running.wait_for("task taken over");
        }
        let jammed = JAMMED.contains(&kill).then(|| jam.jam(&setup, &mut running));
        if jammed.is_none() {
            std::thread::sleep(Duration::from_millis(getrandom::u64().unwrap() % 3000));
        }
        running.kill();
        drop(jammed);
        if kill % 2 == 1 {
            fs::remove_dir_all(setup.spool()).unwrap();
        }
    }
    let records = load.end();
    setup.archive_to_the_end();
    setup.verify_records(records, 4);
    let found = Takeovers::of(&fs::read_to_string(setup.path("killed.log")).unwrap());
    println!("{KILLS} kills: {found:?}");
    let jams = JAMMED.len() as u64;
    assert!(found.all >= KILLS / 5 * 4 && found.with_missing >= jams, "{KILLS} kills: {found:?}");
    // Nothing to do: the same once more.
    setup.archive_to_the_end();
    setup.verify_records(records, 4);
}

/// Makes uploads of data impossible while the log can still be written.
trait Jam {
    /// Returns when an upload was decided and held up; uploads are possible again when the answer is dropped.
    fn jam(&self, setup: &Setup, running: &mut Running) -> Box<dyn Any>;
}

/// Puts a link to nowhere where each app's folder was.
struct FolderJam;

impl Jam for FolderJam {
    fn jam(&self, setup: &Setup, running: &mut Running) -> Box<dyn Any> {
        let archive = setup.path("archive");
        running.wait_until("an app's folder", || fs::read_dir(&archive).is_ok_and(|folders| folders.count() > 1));
        running.signal("STOP");
        let blocked = BlockedFolders::of(&archive);
        running.signal("CONT");
        running.wait_for("store request is tried again");
        Box::new(blocked)
    }
}

/// A proxy between the worker and the store.
struct ProxyJam(Arc<HoldingProxy>, Handle);

struct Held(Arc<HoldingProxy>);

impl Jam for ProxyJam {
    fn jam(&self, _setup: &Setup, _running: &mut Running) -> Box<dyn Any> {
        self.1.block_on(self.0.hold());
        Box::new(Held(Arc::clone(&self.0)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release();
    }
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
    survives_kills(&kafka, &Sink::File, &FolderJam);
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_survives_kills() {
    let (Some(kafka), Some(endpoint)) = (service("SLUICE_TEST_KAFKA"), service("SLUICE_TEST_MINIO")) else { return };
    let (key, secret) = (service("SLUICE_TEST_MINIO_KEY").unwrap(), service("SLUICE_TEST_MINIO_SECRET").unwrap());
    let bucket = name("kill");
    support::make_bucket(&endpoint, &bucket, &key, &secret).await;
    let proxy = Arc::new(HoldingProxy::before(&endpoint).await);
    let sink = Sink::Minio { endpoint: proxy.endpoint.clone(), bucket, key, secret };
    let jam = ProxyJam(proxy, Handle::current());
    tokio::task::spawn_blocking(move || survives_kills(&kafka, &sink, &jam)).await.unwrap();
}

/// `tasks_max` and settings that shape content change again and again under load, each second time by a worker that is killed
/// while it changes them.
#[test]
fn changes_of_tasks_max_and_settings_survive_kills() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = name("change");
    let setup = Setup::new(&kafka, &topic, &Sink::File, SETTINGS);
    let manifest = setup.path("manifest.json");
    let mut producer = produce(&kafka, &topic, 120_000, Some(8_000), &manifest);
    let settings =
        |tasks_max: u32, bucket: &str| format!("{SETTINGS}tasks_max: {tasks_max}\ntime: {{ bucket: {bucket} }}\n");
    let changes = [(1, "1d"), (3, "1d"), (2, "none"), (2, "1h"), (4, "1h"), (1, "none"), (3, "none"), (2, "1d")];
    for (round, (tasks_max, bucket)) in changes.into_iter().enumerate() {
        setup.write_connector(&settings(tasks_max, bucket));
        let mut running = setup.start(&[], "changed.log");
        if round % 2 == 0 && round > 0 {
            running.wait_for("tasks_max changed");
        } else {
            running.wait_for("task taken over");
        }
        std::thread::sleep(Duration::from_millis(getrandom::u64().unwrap() % 1500));
        running.kill();
    }
    assert!(producer.wait().unwrap().success());
    setup.write_connector(&settings(1, "1d"));
    setup.archive_to_the_end();
    setup.verify(&manifest);
    let log = fs::read_to_string(setup.path("changed.log")).unwrap();
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    println!("{} changes of tasks_max, {} of settings", count("tasks_max changed"), count("settings changed"));
    assert!(count("tasks_max changed") >= 3, "{log}");
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
