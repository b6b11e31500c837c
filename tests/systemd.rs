//! The shipped units: systemd takes them as they are, and they call the program as it is.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::print_stderr, reason = "a test that did not run says so")]

use std::path::Path;
use std::process::Command;

const PROGRAM: &str = "/usr/bin/sluice";
const UNITS: [&str; 3] = ["sluice.service", "sluice-archive.service", "sluice-archive.timer"];

fn unit(name: &str) -> String {
    std::fs::read_to_string(Path::new("systemd").join(name)).unwrap()
}

/// Values of a key, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let files = UNITS.map(|name| {
        let file = dir.path().join(name);
        std::fs::write(&file, unit(name).replace(PROGRAM, env!("CARGO_BIN_EXE_sluice"))).unwrap();
        file
    });
    let output = match Command::new("systemd-analyze").arg("verify").args(files).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("not run: systemd-analyze can't be started: {error}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // An unknown key is only a warning to it.
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// With the paths of a machine in place of those of this repository.
#[test]
fn they_check_the_settings_that_they_run_with() {
    for name in ["sluice.service", "sluice-archive.service"] {
        let unit = unit(name);
        let (pre, run) = (values(&unit, "ExecStartPre"), values(&unit, "ExecStart"));
        assert_eq!((pre.len(), run.len()), (1, 1), "{name}");
        let settings = run[0].split_once(" --config").unwrap().1;
        assert_eq!(pre[0], format!("{PROGRAM} check --config{settings}"), "{name}");
        let args = pre[0]
            .replace("/etc/sluice/worker.yaml", "configs/worker.yaml")
            .replace("/etc/sluice/connectors", "connectors");
        let output =
            Command::new(env!("CARGO_BIN_EXE_sluice")).args(args.split(' ').skip(1)).env_clear().output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        // An argument that is unknown is told before settings that are not there.
        let run = run[0].replace("/etc/sluice", "/nowhere");
        let output =
            Command::new(env!("CARGO_BIN_EXE_sluice")).args(run.split(' ').skip(1)).env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("/nowhere/worker.yaml"), "{name}: {said}");
    }
}

#[test]
fn the_two_services_are_locked_up_alike() {
    let [worker, archive] = ["sluice.service", "sluice-archive.service"].map(|name| {
        let unit = unit(name);
        let from = unit.find("NoNewPrivileges").unwrap();
        let lines = unit[from..].lines().take_while(|line| !line.starts_with('['));
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(worker, archive);
}
