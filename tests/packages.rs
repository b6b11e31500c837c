//! The packages: built around this test's program, installed, used and removed as an operator would.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::print_stderr, reason = "a test that did not run says so")]

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sluice");

/// Both streams of a command that has to end well.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}: {words}", output.status);
    words
}

fn made(dir: &Path, end: &str) -> PathBuf {
    let found = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    found.into_iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap()
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new(PROGRAM).arg("man").arg(dir.path()));
    let help = run(Command::new(PROGRAM).arg("--help"));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut pages = 0;
    for name in commands.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next()) {
        if name != "help" {
            let page = std::fs::read_to_string(dir.path().join(format!("sluice-{name}.1"))).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{name}");
            pages += 1;
        }
    }
    assert!(pages > 8, "{pages} pages");
    assert!(!dir.path().join("sluice-man.1").exists(), "a command of packagers is in nobody's manual");
    let nowhere = Command::new(PROGRAM).args(["man", "/nowhere"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
}

/// deploy/kubernetes against schemas and `sluice check`. The first run fetches the schemas.
#[test]
fn the_manifests_fit_their_schemas() {
    for tool in [["python3", "--version"], ["go", "version"]] {
        if let Err(error) = Command::new(tool[0]).arg(tool[1]).output() {
            eprintln!("not run: {} can't be started: {error}", tool[0]);
            assert_ne!(std::env::var("SLUICE_TEST_REQUIRE_SERVICES").as_deref(), Ok("1"), "{} is required", tool[0]);
            return;
        }
    }
    show(&run(Command::new("dev/manifests").env("SLUICE", PROGRAM)));
}

/// In an overlay of this machine, so that nothing of it is changed.
#[test]
fn the_deb_is_installed_used_and_purged() {
    let root = run(Command::new("id").arg("-u")).trim() == "0";
    let dpkg = Command::new("dpkg-deb").arg("--version").output().is_ok();
    if !root || !dpkg {
        eprintln!("not run: dev/try-deb needs root to mount an overlay, and dpkg: root {root}, dpkg {dpkg}");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let package = |version: &str| {
        let mut package = Command::new("dev/package");
        package.env("SLUICE_PACKAGE_PROGRAM", PROGRAM).env("SLUICE_VERSION_OVERRIDE", version).env("OUT", out.path());
        package.env("SLUICE_PACKAGE_KIND", "gzip").env("SLUICE_PACKAGE_LEVEL", "1");
        run(&mut package)
    };
    package("0.9.0~test");
    let listed = run(Command::new("tar").arg("tzf").arg(made(out.path(), ".tar.gz")));
    for file in [
        "bin/sluice",
        "share/man/man1/sluice-run.1.gz",
        "lib/systemd/system/sluice.service",
        "share/doc/sluice/copyright",
    ] {
        assert!(listed.lines().any(|line| line.ends_with(file)), "{file} is not in {listed}");
    }
    let loadgen = Path::new(PROGRAM).with_file_name("examples").join("loadgen");
    show(&run(Command::new("dev/try-deb").arg(made(out.path(), ".deb")).env("SLUICE_LOADGEN", loadgen)));
}

fn show(text: &str) {
    text.lines().for_each(|line| eprintln!("{line}"));
}
