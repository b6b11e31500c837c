//! `sluice verify` and `sluice recover` as an operator uses them, on a real Kafka.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::process::{Setup, Sink, produce, service};

const SETTINGS: &str = "tasks_max: 2\nrotate: { max_interval: 1s }\n";

fn setup(kafka: &str) -> Setup {
    let topic = format!("verify-{:012x}", getrandom::u64().unwrap() >> 16);
    Setup::new(kafka, &topic, &Sink::File, SETTINGS)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("_sluice") => {}
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

#[test]
fn an_archive_is_verified_and_what_was_done_to_it_is_named() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let setup = setup(&kafka);
    let manifest = setup.path("manifest.json");
    assert!(produce(&kafka, &topic_of(&setup), 4_000, None, &manifest).wait().unwrap().success());
    setup.archive_to_the_end();
    let (code, out, err) = setup.command(&["verify", "app-logs"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("proven: each of 4000 offsets") && out.ends_with("connector app-logs: proven\n"), "{out}");
    let (code, out, err) = setup.command(&["verify", "app-logs", "--against-kafka", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["proven"], &report["findings"]), (&true.into(), &serde_json::json!([])));
    assert!(report["notes"][0].as_str().unwrap().contains("4000 records were compared with Kafka"), "{out}");

    let file = files(Path::new(&setup.archive())).swap_remove(3);
    let bytes = fs::read(&file).unwrap();
    let mut changed = bytes.clone();
    changed[20] ^= 1;
    fs::write(&file, changed).unwrap();
    assert_eq!(setup.command(&["verify", "app-logs"]).0, 0, "data is not read");
    let (code, out, _) = setup.command(&["verify", "app-logs", "--deep"]);
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(code == 1 && out.contains("damaged: ") && out.contains(name), "{out}");
    fs::remove_file(&file).unwrap();
    let (code, out, _) = setup.command(&["verify", "app-logs"]);
    assert!(code == 1 && out.contains("gap: topic") && out.contains("Kafka has records there"), "{out}");
    assert!(out.contains("missing: ") && out.contains(name), "{out}");
    fs::write(&file, bytes).unwrap();
    assert_eq!(setup.command(&["verify", "app-logs"]).0, 0);
    // Other tasks have other logs, which begin where these ended.
    setup.write_connector("tasks_max: 3\n");
    assert!(produce(&kafka, &topic_of(&setup), 1_000, None, &manifest).wait().unwrap().success());
    setup.archive_to_the_end();
    let (code, out, err) = setup.command(&["verify", "app-logs"]);
    assert!(code == 0 && out.contains("proven: each of 5000 offsets"), "{out}{err}");
    for (wrong, code, message) in [
        (vec!["verify", "app-log"], 2, "there is no connector app-log"),
        (vec!["verify", "app-logs", "--topic", "other"], 2, "has no log of topic other"),
        (vec!["recover", "app-log"], 2, "there is no connector app-log"),
    ] {
        let (found, _, err) = setup.command(&wrong);
        assert!(found == code && err.contains(message), "{wrong:?}: {found} {err}");
    }
}

#[test]
fn a_lost_log_is_recovered_after_a_kill_under_load() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let setup = setup(&kafka);
    let topic = topic_of(&setup);
    let manifest = setup.path("manifest.json");
    let mut load = produce(&kafka, &topic, 6_000, Some(1_500), &manifest);
    let mut worker = setup.start(&[], "worker.log");
    let archive = PathBuf::from(setup.archive());
    worker.wait_until("files of each app", || archive.is_dir() && files(&archive).len() > 60);
    worker.kill();
    fs::remove_dir_all(archive.join("_sluice")).unwrap();
    let (code, _, err) = setup.command(&["run", "--until-caught-up"]);
    assert!(
        code == 4 && err.contains("no state of connector app-logs") && err.contains("sluice recover app-logs"),
        "{err}"
    );
    let (code, planned, err) = setup.command(&["recover", "app-logs", "--dry-run"]);
    assert_eq!(code, 0, "{planned}{err}");
    assert!(planned.contains("its log is gone") && planned.contains("nothing was changed"), "{planned}");
    assert!(!archive.join("_sluice/app-logs").exists());
    let (code, done, err) = setup.command(&["recover", "app-logs", "--json"]);
    assert_eq!(code, 0, "{done}{err}");
    let report: serde_json::Value = serde_json::from_str(&done).unwrap();
    assert_eq!((&report["executed"], report["topics"][0]["tasks"].as_array().unwrap().len()), (&true.into(), 2));
    assert!(load.wait().unwrap().success());
    setup.archive_to_the_end();
    setup.verify(&manifest);
    let (code, out, err) = setup.command(&["verify", "app-logs", "--against-kafka"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, _) = setup.command(&["recover", "app-logs"]);
    assert!(code == 0 && out.ends_with("there is nothing to recover\n"), "{out}");
}

fn topic_of(setup: &Setup) -> String {
    let text = fs::read_to_string(setup.path("connectors/app-logs.yaml")).unwrap();
    let list = text.strip_prefix("topics: [").unwrap();
    list[..list.find(']').unwrap()].to_owned()
}
