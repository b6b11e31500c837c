//! docs/configure.md is written from the tables that the program itself reads.

use std::fmt::Write as _;

use sluice::config::schema::{CONNECTOR, Key, Kind, Schema, WORKER, variable};
use sluice::config::units::{show_bytes, show_duration};

/// `WRITE_GOLDEN=1 cargo test --test configure_doc` writes it anew.
#[test]
fn the_reference_is_in_step() {
    let file = "docs/configure.md";
    let reference = reference();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(file, &reference).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), reference, "WRITE_GOLDEN=1 cargo test --test configure_doc");
}

fn reference() -> String {
    let mut out = include_str!("fixtures/configure-intro.md").to_owned();
    out.push_str("\n## The worker: configs/worker.yaml\n");
    write_keys(&mut out, &WORKER, true);
    out.push_str("\n## A connector: connectors/NAME.yaml\n");
    write_keys(&mut out, &CONNECTOR, false);
    out
}

fn write_keys(out: &mut String, schema: &Schema, is_worker: bool) {
    let mut section = None;
    for key in schema.keys {
        let top = key.path.split_once('.').map(|(top, _)| top);
        let group = top.or_else(|| schema.below(key.path).next().map(|_| key.path)).unwrap_or("");
        if section != Some(group) {
            section = Some(group);
            let _ = match group {
                "" => writeln!(out, "\n### Single keys\n"),
                _ => writeln!(out, "\n### {group}\n"),
            };
        }
        write_key(out, key, is_worker);
    }
}

fn write_key(out: &mut String, key: &Key, is_worker: bool) {
    let kind = match &key.kind {
        Kind::Text => "text".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::Url => "URL".to_owned(),
        Kind::Bool => "`true` or `false`".to_owned(),
        Kind::Integer { min, max } => format!("{min} to {max}"),
        Kind::Bytes { min, max } => format!("size, {} to {}", show_bytes(*min), show_bytes(*max)),
        Kind::Duration { min, max } => format!("time, {} to {}", show_duration(*min), show_duration(*max)),
        Kind::Choice(names) => names().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" | "),
        Kind::List => "list".to_owned(),
        Kind::Map => "map".to_owned(),
        Kind::SectionOr(word) => format!("section, or `{word}`"),
    };
    let default = key.default.map_or("must be written".to_owned(), |default| format!("default `{default}`"));
    let mut first = key.doc.chars();
    let doc: String = first.next().into_iter().flat_map(char::to_uppercase).chain(first).collect();
    let _ = write!(out, "- **`{}`** ({kind}; {default})  \n  {doc}.", key.path);
    if !key.cost.is_empty() {
        let _ = write!(out, " *{}*", key.cost);
    }
    if is_worker {
        let _ = write!(out, "  \n  `{}`", variable(key.path));
    }
    out.push('\n');
}
