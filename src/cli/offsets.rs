//! `sluice offsets`: what a connector's logs say, and the explicit way to change it.
//!
//! Owns: arguments, how offsets are shown. Does not own: reading and changing them ([`crate::worker::offsets`]).

use std::io::{self, Write};
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{Exit, SettingsArgs, complain};
use crate::config::WorkerConfig;
use crate::kafka;
use crate::pipeline::source::At;
use crate::task::reset::Wish;
use crate::worker::offsets::{Failure, Place, Reset, Task};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct OffsetsArgs {
    #[command(subcommand)]
    change: Option<Change>,
    /// The connector to show
    #[arg(required = true)]
    connector: Option<String>,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Let a partition go on at an offset
    Set {
        /// The connector whose task it is
        connector: String,
        /// The topic of the partition
        #[arg(long)]
        topic: String,
        /// The partition's number
        #[arg(long)]
        partition: i32,
        /// The first offset to archive next
        #[arg(long, allow_negative_numbers = true)]
        offset: i64,
        #[command(flatten)]
        how: How,
    },
    /// Let all partitions of a topic begin anew
    Reset {
        /// The connector whose tasks they are
        connector: String,
        /// The topic to begin anew
        #[arg(long)]
        topic: String,
        /// earliest, latest or a time (RFC 3339)
        #[arg(long, value_name = "PLACE")]
        to: String,
        #[command(flatten)]
        how: How,
    },
    /// Go on with what Kafka still has: after retention, truncation, a topic that was made again
    AcceptLoss {
        /// The connector whose tasks stopped
        connector: String,
        /// Only this topic [default: all of the connector's]
        #[arg(long)]
        topic: Option<String>,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Args, Debug)]
struct How {
    /// Do it; without it only what would be done is shown. Stop the connector's workers before
    #[arg(long)]
    execute: bool,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &OffsetsArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    super::install_crypto();
    let name = match &args.change {
        Some(
            Change::Set { connector, .. } | Change::Reset { connector, .. } | Change::AcceptLoss { connector, .. },
        ) => connector,
        None => args.connector.as_ref().map_or("", |name| name),
    };
    let (worker, connector) = match settings.connector(name, "")? {
        Ok(found) => found,
        Err(exit) => return Ok(exit),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let place = Place::open(&worker, Arc::new(connector)).await?;
        match &args.change {
            None => show(&place, name, args.json).await,
            Some(wanted) => change(&place, &worker, wanted).await,
        }
    });
    match done {
        Ok((text, exit)) => {
            io::stdout().lock().write_all(text.as_bytes())?;
            Ok(exit)
        }
        Err(Failure(exit, message)) => {
            complain(&message);
            Ok(exit)
        }
    }
}

async fn show(place: &Place, connector: &str, json: bool) -> Result<(String, Exit), Failure> {
    let tasks = place.tasks().await?;
    let text = if json {
        let report = serde_json::json!({ "connector": connector, "tasks": tasks });
        format!("{report}\n")
    } else {
        tasks_as_text(connector, &tasks)
    };
    Ok((text, Exit::Done))
}

async fn change(place: &Place, worker: &WorkerConfig, change: &Change) -> Result<(String, Exit), Failure> {
    let (topics, wish, how) = match change {
        Change::Set { topic, partition, offset, how, .. } => {
            (vec![topic.clone()], Wish::Set { partition: *partition, offset: *offset }, how)
        }
        Change::Reset { topic, to, how, .. } => (vec![topic.clone()], Wish::To(parse_place(to)?), how),
        Change::AcceptLoss { topic: Some(topic), how, .. } => (vec![topic.clone()], Wish::AcceptLoss, how),
        Change::AcceptLoss { topic: None, how, .. } => (place.topics().await?, Wish::AcceptLoss, how),
    };
    let kafka = kafka::connect(&worker.kafka).await.map_err(Failure::unreachable)?;
    let by = format!("{} (sluice offsets)", worker.id);
    let resets = place.change(&kafka, &by, &topics, &wish, how.execute).await?;
    let text = if how.json {
        format!("{}\n", serde_json::json!({ "executed": how.execute, "resets": resets }))
    } else {
        resets_as_text(&resets, how.execute)
    };
    Ok((text, Exit::Done))
}

fn parse_place(text: &str) -> Result<At, Failure> {
    match text {
        "earliest" => Ok(At::Earliest),
        "latest" => Ok(At::Latest),
        time => match time.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(At::TimestampMs(time.as_millisecond())),
            Err(why) => Err(Failure::usage(format!("--to {time}: {why}"))),
        },
    }
}

fn tasks_as_text(connector: &str, tasks: &[Task]) -> String {
    if tasks.is_empty() {
        return format!("connector {connector} has archived nothing yet\n");
    }
    let mut rows =
        vec![["TOPIC", "TASK", "PARTITION", "LOW", "MARK", "PENDING", "INCARNATION", "OWNER"].map(str::to_owned)];
    for task in tasks {
        for partition in &task.partitions {
            rows.push([
                task.topic.clone(),
                task.task.to_string(),
                partition.partition.to_string(),
                partition.low.to_string(),
                partition.highest_mark.to_string(),
                partition.intents_pending.to_string(),
                task.incarnation.unwrap_or_default().to_string(),
                task.owner.clone().unwrap_or_default(),
            ]);
        }
    }
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            cells.join("  ").trim_end().to_owned() + "\n"
        })
        .collect()
}

fn resets_as_text(resets: &[Reset], executed: bool) -> String {
    if resets.is_empty() {
        return "there is nothing to accept: Kafka has what the logs need\n".to_owned();
    }
    let mut text = String::new();
    for reset in resets {
        for change in &reset.changes {
            let low = change.low.map_or_else(|| "removed".to_owned(), |low| low.to_string());
            text += &format!(
                "topic {} partition {}: low {} -> {low} ({})\n",
                reset.topic, change.partition, change.low_before, change.why
            );
        }
        text += &format!("topic {} task {}: incarnation {}\n", reset.topic, reset.task, reset.incarnation);
    }
    text += if executed {
        "done; start the connector's workers again\n"
    } else {
        "nothing was changed: stop the connector's workers, then repeat with --execute\n"
    };
    text
}
