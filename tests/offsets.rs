//! `sluice offsets` as an operator uses it, on a real Kafka.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;

use support::process::{Setup, Sink, produce, service};

#[test]
fn offsets_are_shown_and_set() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = format!("offsets-{:012x}", getrandom::u64().unwrap() >> 16);
    let setup = Setup::new(&kafka, &topic, &Sink::File, "tasks_max: 2\n");
    let (code, out, _) = setup.command(&["offsets", "app-logs"]);
    assert_eq!((code, out.as_str()), (0, "connector app-logs has archived nothing yet\n"));
    let manifest = setup.path("manifest.json");
    assert!(produce(&kafka, &topic, 4_000, None, &manifest).wait().unwrap().success());
    setup.archive_to_the_end();

    let (code, out, err) = setup.command(&["offsets", "app-logs", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let tasks = report["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    let partitions: Vec<_> = tasks.iter().flat_map(|task| task["partitions"].as_array().unwrap()).collect();
    let lows: i64 = partitions.iter().map(|partition| partition["low"].as_i64().unwrap()).sum();
    assert_eq!((partitions.len(), lows), (4, 4_000));
    let (_, table, _) = setup.command(&["offsets", "app-logs"]);
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(table.starts_with("TOPIC") && table.contains("worker-1"), "{table}");

    // Nothing is lost, so there is nothing to accept; and what is only shown changes nothing.
    let (code, out, _) = setup.command(&["offsets", "accept-loss", "app-logs", "--execute"]);
    assert_eq!((code, out.as_str()), (0, "there is nothing to accept: Kafka has what the logs need\n"));
    let set = ["offsets", "set", "app-logs", "--topic", &topic, "--partition", "3", "--offset", "0"];
    let (code, out, _) = setup.command(&set);
    assert!(code == 0 && out.contains("partition 3: low ") && out.contains("repeat with --execute"), "{out}");
    assert_eq!(setup.command(&["offsets", "app-logs"]).1, table);

    let (code, out, err) = setup.command(&[&set[..], &["--execute"]].concat());
    assert!(code == 0 && out.contains("incarnation 1") && out.contains("done; start"), "{out}{err}");
    setup.archive_to_the_end();
    let (_, after, _) = setup.command(&["offsets", "app-logs", "--json"]);
    let after: serde_json::Value = serde_json::from_str(&after).unwrap();
    assert_eq!((&after["tasks"][0]["incarnation"], &after["tasks"][1]["incarnation"]), (&0.into(), &1.into()));
    assert_eq!(after["tasks"][1]["partitions"], {
        let mut expected = report["tasks"][1]["partitions"].clone();
        for (partition, found) in
            expected.as_array_mut().unwrap().iter_mut().zip(after["tasks"][1]["partitions"].as_array().unwrap())
        {
            partition["low_since_ms"] = found["low_since_ms"].clone();
        }
        expected
    });

    for (wrong, code, message) in [
        (vec!["offsets", "app-log"], 2, "there is no connector app-log"),
        (vec!["offsets", "reset", "app-logs", "--topic", &topic, "--to", "yesterday"], 2, "--to yesterday"),
        (
            vec!["offsets", "reset", "app-logs", "--topic", "other", "--to", "latest"],
            2,
            "topic other was never archived",
        ),
        ([&set[..8], &["9000"]].concat(), 2, "it can't go on at 9000"),
        (vec!["offsets", "set", "app-logs", "--topic", &topic, "--partition", "9", "--offset", "0"], 2, "no task"),
    ] {
        let (found, _, err) = setup.command(&wrong);
        assert!(found == code && err.contains(message), "{wrong:?}: {found} {err}");
    }
}
