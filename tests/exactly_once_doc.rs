//! The failure table of docs/exactly-once.md names tests that exist.
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of the table below "What happens when", cell by cell.
fn rows(text: &str) -> Vec<Vec<String>> {
    let section = text.split("\n## ").find(|section| section.starts_with("What happens when")).unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What stands in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Names of all functions that tests are made of.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            names.extend(text.lines().filter_map(|line| {
                let (_, rest) = line.split_once("fn ")?;
                Some(rest.split_once(['(', '<'])?.0.to_owned())
            }));
        }
    }
}

/// Whether there is what a quoted name means: a test, a file, a room of the code, a command.
fn exists(name: &str, functions: &BTreeSet<String>) -> bool {
    if let Some(start) = name.strip_suffix('…') {
        return functions.iter().any(|function| function.starts_with(start));
    }
    if let Some(target) = name.strip_prefix("make ") {
        return fs::read_to_string(root().join("Makefile")).unwrap().contains(&format!("\n{target}:"));
    }
    if name.contains('/') {
        return root().join(name).exists();
    }
    if name.contains("::") {
        let path = root().join("src").join(name.replace("::", "/"));
        return path.exists() || path.with_extension("rs").exists();
    }
    functions.contains(name)
}

#[test]
fn every_row_of_the_failure_table_has_a_test_that_exists() {
    let text = fs::read_to_string(root().join("docs/exactly-once.md")).unwrap();
    let mut names = BTreeSet::new();
    for folder in ["src", "tests"] {
        functions(&root().join(folder), &mut names);
    }
    let rows = rows(&text);
    assert!(rows.len() > 40, "{} rows: the table is not where it was", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let [what, _, test] = row.as_slice() else { panic!("a row of {} cells: {row:?}", row.len()) };
        let quoted = quoted(test);
        wrong.extend(
            quoted.iter().filter(|name| !exists(name, &names)).map(|name| format!("{what}: there is no `{name}`")),
        );
        // "the same" stands for the row above.
        if quoted.is_empty() && !test.contains("*simulation*") && !test.starts_with("the same") {
            wrong.push(format!("{what}: no test"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_name_that_is_not_there_is_noticed() {
    let names = BTreeSet::from(["a_test_that_is_there".to_owned()]);
    assert!(exists("a_test_that_is_there", &names) && exists("a_test_…", &names) && exists("src/lib.rs", &names));
    assert!(
        !exists("a_test_that_was_renamed", &names) && !exists("src/gone.rs", &names) && !exists("no::room", &names)
    );
}
