//! The program as a user meets it: exit statuses, what goes to stdout and what to stderr.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::process::{Command, Output, Stdio};

fn sluice(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args).env_clear().env("NO_COLOR", "1");
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = sluice(args).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn check_says_what_the_shipped_settings_lead_to() {
    let (code, out, err) = run(&["check"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("configs/worker.yaml\n  connectors/app-logs.yaml\n"), "{out}");
    assert!(out.contains("at most 49 = 1 task x (86400 s / 1800 s + 1 at the end of the day's bucket)"), "{out}");
    assert!(out.ends_with("the settings are fine\n"), "{out}");
}

#[test]
fn an_archive_without_files_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let (code, out, err) = run(&["ls", &url, "--app", "pay"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "sluice: there are no files of app pay\n"));
}

#[test]
fn check_writes_json() {
    let (code, out, err) = run(&["check", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["connectors"][0]["rotation"]["files"], 49);
    let (code, out, _) = run(&["check", "--json", "--config", "tests/fixtures/problems/configs/worker.yaml"]);
    assert_eq!(code, 2);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["ok"], false);
    let problems = report["problems"].as_array().unwrap();
    assert!(problems.iter().any(|problem| problem["key"] == "kafka.bootstrap_server" && problem["line"] == 2));
}

#[test]
fn a_probe_says_what_can_not_be_reached_and_no_password() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let worker = format!(
        "kafka: {{ bootstrap_servers: ['{closed}'] }}\ncoordination: {{ url: 'redis://u:planted@{closed}/0' }}\n\
         state: {{ url: 'file://{0}/state' }}\nspool: {{ dir: '{0}/spool' }}\n",
        dir.path().display()
    );
    let data = dir.path().join("data");
    let connector = format!("{{ topics: [t], app_id: {{ from: key }}, sink: {{ url: 'file://{}' }} }}", data.display());
    let (worker, connector) = (write("worker.yaml", worker), write("c.yaml", connector));
    let (code, out, err) = run(&["check", "--probe", "--config", &worker, "--connectors", &connector]);
    assert_eq!(code, 3, "{out}{err}");
    assert_eq!(err, "");
    assert!(out.contains(&format!("\nFAILED  kafka {closed}: ")), "{out}");
    assert!(
        out.contains("\nok      connector c: sink file://") && out.contains("\nok      connector c: state file://"),
        "{out}"
    );
    assert!(out.contains(&format!("\nFAILED  redis {closed}: ")), "{out}");
    assert!(out.contains(&format!("\nFAILED  coordination redis://{closed}/0: ")), "{out}");
    assert!(!out.contains("planted") && !err.contains("planted"), "{out}{err}");
    // What was tried out is gone again.
    let left: Vec<_> = std::fs::read_dir(data.join("_sluice")).map(|entries| entries.collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn wrong_settings_are_told_on_stderr_with_status_2() {
    for command in ["check", "run"] {
        let (code, out, err) = run(&[command, "--config", "tests/fixtures/problems/configs/worker.yaml"]);
        assert_eq!((code, out.as_str()), (2, ""), "{command}");
        assert!(err.contains("worker.yaml:2:3: kafka.bootstrap_server: is not a key"), "{err}");
        assert!(err.lines().last().unwrap().ends_with("problems in the settings"), "{err}");
        assert!(!err.contains("planted"), "{err}");
    }
}

#[test]
fn wrong_arguments_are_told_on_stderr_with_status_2() {
    for args in [&["frobnicate"][..], &["check", "--confg", "x"], &[], &["completions", "cmd.exe"]] {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(err.contains("Usage") || err.contains("possible values"), "{err}");
    }
}

#[test]
fn version_help_and_completions_are_data() {
    let (code, out, err) = run(&["--version"]);
    assert_eq!((code, out, err.as_str()), (0, format!("sluice {}\n", env!("CARGO_PKG_VERSION")), ""));
    let (code, out, _) = run(&["--help"]);
    assert!(code == 0 && out.contains("--connectors"));
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(&["completions", shell]);
        assert!(code == 0 && out.contains("sluice"), "{shell}");
    }
}

#[test]
fn settings_are_found_by_options_before_or_after_the_command() {
    let options = ["--config", "configs/worker.yaml", "--connectors", "connectors", "connectors/app-logs.yaml"];
    let before: Vec<_> = options.into_iter().chain(["check"]).collect();
    let after: Vec<_> = ["check"].into_iter().chain(options).collect();
    assert_eq!(run(&before), run(&after));
    assert_eq!(run(&before).0, 0);
}

#[test]
fn a_reader_that_went_away_ends_it_quietly() {
    for args in [&["completions", "bash"][..], &["check"], &["check", "--json"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = sluice(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    }
}
