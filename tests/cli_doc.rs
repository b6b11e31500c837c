//! docs/cli.md is what the program itself says with `--help`.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fmt::Write as _;
use std::process::{Command, Stdio};

/// `WRITE_GOLDEN=1 cargo test --test cli_doc` writes it anew.
#[test]
fn the_reference_is_in_step() {
    let file = "docs/cli.md";
    let reference = reference();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(file, &reference).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), reference, "WRITE_GOLDEN=1 cargo test --test cli_doc");
}

fn reference() -> String {
    let mut out = include_str!("fixtures/cli-intro.md").to_owned();
    let top = help(&["--help"]);
    let _ = write!(out, "\n## sluice\n\n```\n{top}```\n");
    let all = commands(&top);
    assert!(all.len() > 3, "{top}");
    for command in all {
        let text = help(&[command, "--help"]);
        let _ = write!(out, "\n## sluice {command}\n\n```\n{text}```\n");
        for below in commands(&text) {
            let text = help(&[command, below, "--help"]);
            let _ = write!(out, "\n### sluice {command} {below}\n\n```\n{text}```\n");
        }
    }
    out
}

/// Without a terminal the width is always the same.
fn help(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let output = command.args(args).env_clear().stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // The usage is clap's own.
    let fits = |line: &str| line.len() <= 100 || line.starts_with("Usage: ");
    assert!(text.lines().all(fits), "{args:?} has a line that is too long:\n{text}");
    text
}

fn commands(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<_> =
        lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next()).collect();
    names.into_iter().filter(|name| *name != "help").collect()
}
