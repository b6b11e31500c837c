//! The local disk fails under a running worker: full, gone, unusable, with other bytes than were written. The task says so, is
//! started again by itself, and the archive ends exact, counted from outside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "a test may wait for another process")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::group::{Load, Member, wait_until};
use support::kafka::unique;
use support::process::{BlockedFolders, Setup, Sink, service};

/// Nothing is due before a file has 96 KiB.
const LARGE: &str = "rotate: { max_bytes: 96KiB, max_interval: 10m }\ncompression: { frame_bytes: 64KiB }\n";
/// Objects come all the time.
const OFTEN: &str = "rotate: { max_bytes: 64KiB, max_interval: 1s }\ncompression: { frame_bytes: 64KiB }\n";

/// Files of data in a spool, with their sizes.
fn data(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(data(&path));
        } else if path.extension().is_some_and(|extension| extension == "data") {
            // It may be gone by now.
            found.extend(entry.metadata().map(|metadata| (path, metadata.len())));
        }
    }
    found
}

fn objects(setup: &Setup) -> usize {
    let apps = fs::read_dir(setup.path("archive")).into_iter().flatten().flatten();
    apps.filter(|app| app.file_name() != "_sluice").count()
}

/// Waits until the status of the only task has a state and a trace.
fn wait_for_status(member: &Member, state: &str, text: &str) {
    let mut seen = serde_json::Value::Null;
    let mut is_told = || {
        seen = member.status().unwrap_or_default()["tasks"][0].clone();
        seen["state"] == state && seen.to_string().contains(text)
    };
    wait_until(&mut is_told, || format!("{state} {text:?}: {}", member.running.last_lines()));
}

fn finish(setup: &Setup, load: Load, mut member: Member) {
    let records = load.end();
    let status = member.running.terminate();
    assert!(status.success(), "{status}: {}", member.running.last_lines());
    setup.archive_to_the_end();
    setup.verify_records(records, 2);
}

fn member(setup: &Setup) -> Member {
    Member { id: "worker-1".to_owned(), running: setup.start(&[], "worker.log") }
}

/// A write beyond 32 KiB fails, as on a full disk: with EFBIG, since the signal that would end the worker is ignored.
#[test]
fn a_full_disk_is_told_and_waited_out() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = unique("full");
    let load = Load::start(&kafka, &topic, 2, 4_000);
    let setup = Setup::new(&kafka, &topic, &Sink::File, LARGE);
    // Its own log goes through a process without the limit.
    let limited = r#"exec 2> >(exec cat >&2); trap '' XFSZ; ulimit -S -f 32; exec "$@""#;
    let running = setup.start_under(&["bash", "-c", limited, "limited"], "worker.yaml", &[], "worker.log");
    let member = Member { id: "worker-1".to_owned(), running };
    wait_for_status(&member, "RESTARTING", "can't be written");
    wait_until(|| member.takeovers()[&0] > 1, || "a start by itself".to_owned());
    assert!(member.running.log().contains("File too large"));
    assert_eq!(objects(&setup), 0, "nothing was large enough");
    let pid = member.running.child.id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:unlimited"]).status().unwrap().success());
    wait_until(|| objects(&setup) > 0, || member.running.last_lines());
    wait_for_status(&member, "RUNNING", "");
    finish(&setup, load, member);
}

#[test]
fn a_spool_that_is_deleted_is_read_again() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = unique("deleted");
    let load = Load::start(&kafka, &topic, 2, 4_000);
    let setup = Setup::new(&kafka, &topic, &Sink::File, LARGE);
    let member = member(&setup);
    wait_until(|| !data(&setup.spool()).is_empty(), || member.running.last_lines());
    let takeovers = member.takeovers()[&0];
    member.running.signal("STOP");
    fs::remove_dir_all(setup.spool()).unwrap();
    member.running.signal("CONT");
    wait_until(|| member.takeovers()[&0] > takeovers, || member.running.last_lines());
    assert!(member.running.log().contains("task failed: spool "), "{}", member.running.last_lines());
    wait_until(|| objects(&setup) > 0, || member.running.last_lines());
    finish(&setup, load, member);
}

/// In its place lies a file, then a link to nowhere.
#[test]
fn a_spool_that_can_not_be_used_is_told_until_it_can() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = unique("unusable");
    let load = Load::start(&kafka, &topic, 2, 4_000);
    let setup = Setup::new(&kafka, &topic, &Sink::File, LARGE);
    let member = member(&setup);
    let make_a_file = |path: &Path| fs::write(path, "not a folder").unwrap();
    let make_a_link = |path: &Path| symlink("nowhere/at/all", path).unwrap();
    for spoil in [&make_a_file as &dyn Fn(&Path), &make_a_link] {
        wait_until(|| !data(&setup.spool()).is_empty(), || member.running.last_lines());
        let before = objects(&setup);
        member.running.signal("STOP");
        fs::remove_dir_all(setup.spool()).unwrap();
        spoil(&setup.spool());
        member.running.signal("CONT");
        wait_for_status(&member, "RESTARTING", "can't be created");
        assert_eq!(objects(&setup), before);
        fs::remove_file(setup.spool()).unwrap();
        wait_for_status(&member, "RUNNING", "");
    }
    finish(&setup, load, member);
}

/// One bit of each file is another one while uploads are held up.
#[test]
fn bytes_that_changed_in_the_spool_never_become_an_object() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = unique("changed");
    let load = Load::start(&kafka, &topic, 2, 4_000);
    let setup = Setup::new(&kafka, &topic, &Sink::File, OFTEN);
    let mut member = member(&setup);
    wait_until(|| objects(&setup) > 0, || member.running.last_lines());
    member.running.signal("STOP");
    let blocked = BlockedFolders::of(&setup.path("archive"));
    member.running.signal("CONT");
    member.running.wait_for("store request is tried again");
    member.running.signal("STOP");
    // The worker may have been stopped between making a file and writing to it.
    let spooled: Vec<_> = data(&setup.spool()).into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    assert!(!spooled.is_empty());
    for (path, bytes) in spooled {
        let mut content = fs::read(&path).unwrap();
        content[usize::try_from(bytes / 2).unwrap()] ^= 1;
        fs::write(&path, content).unwrap();
    }
    drop(blocked);
    let takeovers = member.takeovers()[&0];
    member.running.signal("CONT");
    wait_until(|| member.takeovers()[&0] > takeovers, || member.running.last_lines());
    let log = member.running.log();
    assert!(log.contains("task failed") && log.contains("was changed after it was written"), "{log}");
    finish(&setup, load, member);
}

/// The journals of a spool, as text.
fn journals(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all += &journals(&path);
        } else if path.ends_with("journal") {
            all += &String::from_utf8_lossy(&fs::read(path).unwrap_or_default());
        }
    }
    all
}

/// After a stop nothing that was open is read again, after kill -9 what had not reached the spool.
#[test]
fn a_restart_goes_on_with_what_the_spool_holds() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = unique("adopted");
    let load = Load::start(&kafka, &topic, 2, 4_000);
    let large = LARGE.replace("96KiB", "64MiB");
    let setup = Setup::new(&kafka, &topic, &Sink::File, &large);
    let mut first = member(&setup);
    wait_until(|| !data(&setup.spool()).is_empty(), || first.running.last_lines());
    let held_up = load.pause();
    let read = |member: &Member| {
        let status = member.status().unwrap_or_default();
        let mut partitions = ["0", "1"].into_iter().map(|partition| &status["tasks"][0]["partitions"][partition]);
        partitions.all(|partition| {
            partition["position"] == partition["end"]
                && partition["position"].as_i64().is_some_and(|position| position > 0)
        })
    };
    wait_until(|| read(&first), || first.running.last_lines());
    assert!(first.running.terminate().success());
    assert_eq!(objects(&setup), 0, "nothing was due");
    let mut second = member(&setup);
    second.running.wait_for("the spool is adopted");
    wait_until(|| read(&second), || second.running.last_lines());
    let status = second.status().unwrap();
    assert_eq!(status["tasks"][0]["partitions"]["0"]["low"], 0, "{status}");
    assert_eq!(second.records_read(), 0, "all of it was in the spool");
    drop(held_up);
    let floors = || journals(&setup.spool()).matches("{\"floor\"").count();
    let before = floors();
    wait_until(|| floors() > before + 1, || second.running.last_lines());
    second.running.kill();
    let mut third = member(&setup);
    third.running.wait_for("the spool is adopted");
    finish(&setup, load, third);
}

#[test]
fn what_a_dead_process_left_is_taken_or_deleted_and_nothing_else() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = unique("leftovers");
    let load = Load::start(&kafka, &topic, 2, 4_000);
    let setup = Setup::new(&kafka, &topic, &Sink::File, LARGE);
    let killed = member(&setup);
    wait_until(|| !data(&setup.spool()).is_empty(), || killed.running.last_lines());
    killed.running.signal("STOP");
    let left = data(&setup.spool());
    killed.running.kill();
    assert!(!left.is_empty() && left.iter().all(|(path, _)| path.exists()));
    fs::write(setup.spool().join("somebody's"), "not ours").unwrap();
    let mut member = member(&setup);
    member.running.wait_for("task taken over");
    assert!(left.iter().all(|(path, _)| !path.exists()), "{left:?}");
    assert_eq!(fs::read(setup.spool().join("somebody's")).unwrap(), b"not ours");
    finish(&setup, load, member);
}
