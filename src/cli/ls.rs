//! `sluice ls`.
//!
//! Owns: its arguments, how files are shown. Does not own: finding and opening them.

use std::io;

use clap::Args;
use futures::StreamExt;
use serde::Serialize;

use super::reading::{self, PlaceArgs, TimeArgs, app_name, write_out};
use super::{Exit, SettingsArgs};
use crate::archive::index::FileFacts;
use crate::reading::catalog::files;
use crate::reading::file::{OpenFile, open_all};
use crate::reading::times::Times;

/// Rows whose columns are made to fit each other.
const ROWS: usize = 500;
/// Partitions of a file that are shown.
const PARTITIONS: usize = 4;

#[derive(Args, Debug)]
pub struct LsArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// An app id, or a pattern of ids with * and ?; may be given several times [default: all]
    #[arg(long, value_name = "ID")]
    app: Vec<String>,
    #[command(flatten)]
    time: TimeArgs,
    /// One JSON object a file, with all that its index says of it as a whole
    #[arg(long)]
    json: bool,
}

/// A file as `--json` shows it.
#[derive(Debug, Serialize)]
struct File<'f> {
    key: &'f str,
    bytes: u64,
    app: Option<String>,
    topic: Option<&'f str>,
    records: Option<u64>,
    first_time_ms: Option<i64>,
    last_time_ms: Option<i64>,
    frames: Option<usize>,
    raw_bytes: Option<u64>,
    partitions: Vec<Partition>,
    /// `null`: the file has no index.
    facts: Option<&'f FileFacts>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: i32,
    first: i64,
    last: i64,
    records: u64,
}

pub fn run(args: &LsArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    reading::run(&args.place, settings, async |session| {
        let times = session.times(&args.time)?;
        let apps: Vec<Option<String>> = match args.app.is_empty() {
            // One listing of everything instead of one of each app.
            true => vec![None],
            false => session.apps(&args.app).await?.map_or(vec![None], |apps| apps.into_iter().map(Some).collect()),
        };
        let mut table = Table { rows: Vec::new(), widths: [0; COLUMNS], is_first: true };
        let mut is_empty = true;
        for app in apps {
            let listing = files(&session.place, app.as_deref(), &times);
            let mut opened = std::pin::pin!(open_all(&session.place, listing));
            while let Some(opened) = opened.next().await {
                let file = match opened {
                    Ok(file) => file,
                    Err((Some(_), error)) if error.is_of_one_file() => {
                        session.report.problem(&error);
                        continue;
                    }
                    Err((_, error)) => return Err(error.into()),
                };
                let Some(shown) = show(&file, app.as_deref(), &times) else { continue };
                is_empty = false;
                if args.json {
                    let mut line = serde_json::to_vec(&shown).map_err(reading::Failure::usage)?;
                    line.push(b'\n');
                    write_out(&line).map_err(reading::Stop::Out)?;
                } else {
                    table.push(&shown).map_err(reading::Stop::Out)?;
                }
            }
        }
        table.flush().map_err(reading::Stop::Out)?;
        if is_empty {
            let of = if args.app.is_empty() { String::new() } else { format!(" of app {}", args.app.join(" or ")) };
            let then = if times.is_all() { "" } else { " in that time" };
            session.report.note(&format!("there are no files{of}{then}"));
        }
        Ok(Exit::Done)
    })
}

/// `None`: the file has nothing of that app or time.
fn show<'f>(file: &'f OpenFile, app: Option<&str>, times: &Times) -> Option<File<'f>> {
    let key = file.entry.key.as_str();
    let parts = file.entry.parts.as_ref();
    let Some(index) = file.index.as_deref() else {
        return Some(File {
            key,
            bytes: file.size,
            app: parts.map(|parts| app_name(&parts.app)),
            topic: parts.map(|parts| parts.topic.as_str()),
            records: None,
            first_time_ms: None,
            last_time_ms: None,
            frames: None,
            raw_bytes: None,
            partitions: Vec::new(),
            facts: None,
        });
    };
    let fits = index.frames.iter().any(|frame| times.touches(frame.min_time_ms, frame.max_time_ms));
    if !fits || app.is_some_and(|app| app != index.facts.app) {
        return None;
    }
    let mut partitions = std::collections::BTreeMap::new();
    for held in index.frames.iter().flat_map(|frame| &frame.partitions) {
        let partition = Partition { partition: held.partition, first: held.first, last: held.last, records: 0 };
        let known = partitions.entry(held.partition).or_insert(partition);
        (known.first, known.last) = (known.first.min(held.first), known.last.max(held.last));
        known.records += held.count;
    }
    let partitions: Vec<Partition> = partitions.into_values().collect();
    Some(File {
        key,
        bytes: file.size,
        app: Some(app_name(&index.facts.app)),
        topic: Some(&index.facts.topic),
        records: Some(partitions.iter().map(|partition| partition.records).sum()),
        first_time_ms: index.frames.iter().map(|frame| frame.min_time_ms).min(),
        last_time_ms: index.frames.iter().map(|frame| frame.max_time_ms).max(),
        frames: Some(index.frames.len()),
        raw_bytes: Some(index.frames.iter().map(|frame| frame.raw_len).sum()),
        partitions,
        facts: Some(&index.facts),
    })
}

const COLUMNS: usize = 8;
const HEADS: [&str; COLUMNS] = ["APP", "TOPIC", "FROM", "TO", "RECORDS", "BYTES", "PARTITION:OFFSETS", "FILE"];

/// A table that is written as it grows: columns fit the rows seen so far.
struct Table {
    rows: Vec<[String; COLUMNS]>,
    widths: [usize; COLUMNS],
    is_first: bool,
}

impl Table {
    fn push(&mut self, file: &File<'_>) -> io::Result<()> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let mut offsets: Vec<String> = file
            .partitions
            .iter()
            .take(PARTITIONS)
            .map(|partition| format!("{}:{}-{}", partition.partition, partition.first, partition.last))
            .collect();
        if file.partitions.len() > PARTITIONS {
            offsets.push(format!("and {} more", file.partitions.len() - PARTITIONS));
        }
        self.rows.push([
            or_dash(file.app.clone()),
            or_dash(file.topic.map(str::to_owned)),
            or_dash(file.first_time_ms.map(time)),
            or_dash(file.last_time_ms.map(time)),
            or_dash(file.records.map(|records| records.to_string())),
            file.bytes.to_string(),
            if offsets.is_empty() { "no index".to_owned() } else { offsets.join(" ") },
            file.key.to_owned(),
        ]);
        if self.rows.len() >= ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.is_first) {
            self.rows.insert(0, HEADS.map(str::to_owned));
        }
        for row in &self.rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in self.rows.drain(..) {
            let cells = row.iter().zip(self.widths).enumerate().map(|(column, (cell, width))| match column {
                4 | 5 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        write_out(text.as_bytes())
    }
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
}
