//! `sluice check`.
//!
//! Owns: how settings, problems and what they lead to are shown. Does not own: the checks, what `--probe` tries.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::rotation::Rotation;
use super::{Exit, SettingsArgs, probe};
use crate::config::schema::Named as _;
use crate::config::units::{show_bytes, show_duration};
use crate::config::{
    AppIdFrom, ConnectorConfig, Loaded, MissingAppId, Problem, Problems, TopicSelection, WorkerConfig,
};

#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Write one JSON object
    #[arg(long)]
    json: bool,
    /// Also try Kafka, Redis and each connector's store, with an object that is deleted again
    #[arg(long)]
    probe: bool,
}

pub fn run(args: CheckArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    match (settings.load(), args.json) {
        (Ok(loaded), false) => {
            print_warnings(&mut io::stderr().lock(), &loaded.warnings)?;
            let mut out = io::stdout().lock();
            print(&mut out, &loaded)?;
            if !args.probe {
                return Ok(Exit::Done);
            }
            writeln!(out)?;
            probe::run(&loaded, &mut |step| writeln!(out, "{step}"))
        }
        (Ok(loaded), true) => {
            let mut report = to_json(&loaded);
            let mut exit = Exit::Done;
            if args.probe {
                let mut steps = Vec::new();
                exit = probe::run(&loaded, &mut |step| {
                    steps.push(step.clone());
                    Ok(())
                })?;
                report["probe"] = json!(steps);
            }
            report["ok"] = json!(exit == Exit::Done);
            writeln!(io::stdout().lock(), "{report}")?;
            Ok(exit)
        }
        (Err(problems), false) => {
            print_problems(&mut io::stderr().lock(), &problems)?;
            Ok(Exit::Usage)
        }
        (Err(problems), true) => {
            let problems: Vec<_> = problems.0.iter().map(problem_to_json).collect();
            writeln!(io::stdout().lock(), "{}", json!({ "ok": false, "problems": problems }))?;
            Ok(Exit::Usage)
        }
    }
}

/// One line for each problem, and how many there are.
pub fn print_problems(out: &mut impl Write, problems: &Problems) -> io::Result<()> {
    let count = problems.0.len();
    writeln!(out, "{problems}")?;
    writeln!(out, "sluice: {count} problem{} in the settings", if count == 1 { "" } else { "s" })
}

fn print_warnings(out: &mut impl Write, warnings: &[Problem]) -> io::Result<()> {
    warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}

fn print(out: &mut impl Write, loaded: &Loaded) -> io::Result<()> {
    writeln!(out, "files used:")?;
    for file in &loaded.files_used {
        writeln!(out, "  {}", file.display())?;
    }
    print_worker(out, &loaded.worker)?;
    loaded.connectors.iter().try_for_each(|connector| print_connector(out, connector))?;
    writeln!(out, "\nthe settings are fine")
}

fn print_worker(out: &mut impl Write, worker: &WorkerConfig) -> io::Result<()> {
    let state = worker.state_url.as_ref().map_or_else(|| "beside the data".to_owned(), ToString::to_string);
    let none = || "none, this is the only worker".to_owned();
    let coordination = worker.coordination_url.as_ref().map_or_else(none, ToString::to_string);
    writeln!(out, "\nworker {} of group {}", worker.id, worker.group)?;
    let protocol = worker.kafka.security.protocol.name();
    writeln!(out, "  kafka: {} ({protocol})", worker.kafka.bootstrap_servers.join(", "))?;
    writeln!(out, "  state: {state}")?;
    writeln!(out, "  coordination: {coordination}")?;
    writeln!(out, "  spool: {}, at most {}", worker.spool.dir.display(), show_bytes(worker.spool.max_bytes))?;
    let threads = worker.compression_threads.map_or_else(|| "all cores".to_owned(), |count| format!("{count} threads"));
    writeln!(out, "  memory: at most {} for records; compression on {threads}", show_bytes(worker.memory_max_bytes))?;
    writeln!(out, "  http: {}", worker.http.listen)
}

fn print_connector(out: &mut impl Write, connector: &ConnectorConfig) -> io::Result<()> {
    writeln!(out, "\nconnector {} ({})", connector.name, connector.file.display())?;
    let partitions = connector.partitions.as_ref().map(|partitions| {
        let list: Vec<_> = partitions.iter().map(ToString::to_string).collect();
        format!(", only partitions {}", list.join(", "))
    });
    writeln!(out, "  reads {}{}", topics(&connector.topics), partitions.unwrap_or_default())?;
    let missing = match &connector.app_id.missing {
        MissingAppId::Name(name) => name,
        MissingAppId::DeadLetter => "the dead letters",
    };
    writeln!(out, "  app id from {}; without one: {missing}", app_id(&connector.app_id.from))?;
    let (format, codec) = (connector.format.name(), connector.compression.codec.name());
    writeln!(out, "  writes {format}, {codec}, to {} as {}", connector.sink.url, connector.sink.key)?;
    let rotate = &connector.rotate;
    let (size, age) = (show_bytes(rotate.max_bytes), show_duration(rotate.max_interval));
    writeln!(out, "  finishes a file at {size} or after {age}; bucket {}", connector.time.bucket.name())?;
    Rotation::of(connector).lines(connector).iter().try_for_each(|line| writeln!(out, "  {line}"))
}

fn topics(topics: &TopicSelection) -> String {
    match topics {
        TopicSelection::List(names) => names.join(", "),
        TopicSelection::Regex(regex) => format!("topics that match {regex}"),
    }
}

fn app_id(from: &AppIdFrom) -> String {
    match from {
        AppIdFrom::Json { pointer } => format!("the value's {pointer}"),
        AppIdFrom::Header { name } => format!("the header {name}"),
        AppIdFrom::Key => "the key".to_owned(),
        AppIdFrom::Topic => "the topic".to_owned(),
        AppIdFrom::Regex { pattern } => format!("the value by {pattern}"),
    }
}

fn to_json(loaded: &Loaded) -> serde_json::Value {
    let connectors: Vec<_> = loaded
        .connectors
        .iter()
        .map(|connector| {
            json!({
                "name": connector.name,
                "file": connector.file,
                "topics": topics(&connector.topics),
                "sink": connector.sink.url.to_string(),
                "rotation": Rotation::of(connector),
                "content_settings": connector.content_settings(),
            })
        })
        .collect();
    json!({
        "files_used": loaded.files_used,
        "worker": loaded.worker.id,
        "connectors": connectors,
        "warnings": loaded.warnings.iter().map(problem_to_json).collect::<Vec<_>>(),
    })
}

fn problem_to_json(problem: &Problem) -> serde_json::Value {
    json!({
        "place": problem.place.to_string(),
        "line": problem.place.line(),
        "key": problem.key,
        "message": problem.message,
    })
}
