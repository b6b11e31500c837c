//! `sluice offsets`: what a connector's logs say, and the explicit way to change it.
//!
//! Owns: arguments, which logs are looked at, how they are shown. Does not own: what a reset changes ([`crate::task::reset`]).

use std::io::{self, Write};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Exit, SettingsArgs, complain};
use crate::clock::Environment;
use crate::config::{ConnectorConfig, WorkerConfig};
use crate::kafka;
use crate::ledger::State;
use crate::log::journal::{LogError, read_state};
use crate::log::store_log::StoreLog;
use crate::pipeline::source::{At, Kafka};
use crate::store::{self, Store};
use crate::task::TaskError;
use crate::task::error::Remedy;
use crate::task::reset::{self, Plan, Subject, Wish};
use crate::worker::layout::{self, Mapping};

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
        connector: String,
        #[arg(long)]
        topic: String,
        #[arg(long)]
        partition: i32,
        #[arg(long, allow_negative_numbers = true)]
        offset: i64,
        #[command(flatten)]
        how: How,
    },
    /// Let all partitions of a topic begin anew
    Reset {
        connector: String,
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

/// Why the command ends early.
struct Failure(Exit, String);

impl Failure {
    fn usage(error: impl std::fmt::Display) -> Self {
        Self(Exit::Usage, error.to_string())
    }

    fn unreachable(error: impl std::fmt::Display) -> Self {
        Self(Exit::Unreachable, error.to_string())
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let exit = match (&error, error.remedy()) {
            (TaskError::Conflict(_), _) => Exit::Usage,
            (_, Remedy::Damage) => Exit::Damaged,
            _ => Exit::Unreachable,
        };
        Self(exit, error.to_string())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        TaskError::Log(error).into()
    }
}

pub fn run(args: &OffsetsArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    super::install_crypto();
    let name = match &args.change {
        Some(
            Change::Set { connector, .. } | Change::Reset { connector, .. } | Change::AcceptLoss { connector, .. },
        ) => connector,
        None => args.connector.as_ref().map_or("", |name| name),
    };
    let (worker, connector) = match settings.connector(name)? {
        Ok(found) => found,
        Err(exit) => return Ok(exit),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let place = Place::open(&worker, connector).await?;
        match &args.change {
            None => place.show(args.json).await,
            Some(change) => place.change(&worker, change).await,
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

/// A connector's data and state.
struct Place {
    connector: ConnectorConfig,
    store: Arc<dyn Store>,
    state: Arc<dyn Store>,
    environment: Environment,
}

/// What a task's log says.
#[derive(Serialize)]
struct Task {
    topic: String,
    mapping: u32,
    task: u32,
    /// `None`: the task never began.
    incarnation: Option<u32>,
    topic_id: Option<String>,
    cluster_id: Option<String>,
    owner: Option<String>,
    entry: u64,
    changing: bool,
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Partition {
    partition: i32,
    low: i64,
    low_since_ms: i64,
    /// The highest offset that an object or a pending one reaches.
    highest_mark: i64,
    intents_pending: usize,
}

impl Task {
    fn of(topic: &str, mapping: u32, task: u32, state: &State) -> Self {
        let marks = state.least_cut();
        let partitions = state
            .lows
            .iter()
            .map(|(&partition, low)| Partition {
                partition,
                low: low.offset,
                low_since_ms: low.since_ms,
                highest_mark: marks.get(&partition).copied().unwrap_or(low.offset),
                intents_pending: state
                    .intents
                    .values()
                    .filter(|pending| pending.intent.ranges.contains_key(&partition))
                    .count(),
            })
            .collect();
        Self {
            topic: topic.to_owned(),
            mapping,
            task,
            incarnation: state.is_started().then_some(state.identity.incarnation),
            topic_id: state.identity.topic_id.as_ref().map(|id| id.0.clone()),
            cluster_id: state.identity.cluster_id.clone(),
            owner: state.owner.as_ref().map(|owner| owner.worker.clone()),
            entry: state.tip,
            changing: state.cut.is_some() || state.closed.is_some(),
            partitions,
        }
    }
}

/// What a reset did, or would do, to one task.
#[derive(Serialize)]
struct Reset {
    topic: String,
    task: u32,
    incarnation: u32,
    changes: Vec<reset::Change>,
}

impl Place {
    async fn open(worker: &WorkerConfig, connector: ConnectorConfig) -> Result<Self, Failure> {
        let store = store::open(&connector.sink).await.map_err(Failure::usage)?;
        let state = match &worker.state_url {
            Some(url) => store::open_state(url, &connector.sink).await.map_err(Failure::usage)?,
            None => Arc::clone(&store),
        };
        // Everything later waits for a store that is away; a command says so instead.
        state.head(layout::STATE_FOLDER).await.map_err(Failure::unreachable)?;
        Ok(Self { connector, store, state, environment: Environment::system() })
    }

    async fn topics(&self) -> Result<Vec<String>, Failure> {
        let topics = layout::topics(self.state.as_ref(), &self.environment, &self.connector.name).await;
        topics.map_err(layout_failure)
    }

    async fn mapping(&self, topic: &str) -> Result<Option<(u32, Mapping)>, Failure> {
        let found = layout::find_mapping(self.state.as_ref(), &self.environment, &self.connector.name, topic).await;
        found.map_err(layout_failure)
    }

    fn log(&self, topic: &str, mapping: u32, task: u32) -> StoreLog {
        let path = layout::log_path(&self.connector.name, topic, mapping, task);
        StoreLog::new(Arc::clone(&self.state), &path)
    }

    async fn show(&self, json: bool) -> Result<(String, Exit), Failure> {
        let mut tasks = Vec::new();
        for topic in self.topics().await? {
            let Some((number, mapping)) = self.mapping(&topic).await? else { continue };
            for task in 0..mapping.tasks_max {
                let state = read_state(&self.log(&topic, number, task), &self.environment).await?;
                if state.tip > 0 {
                    tasks.push(Task::of(&topic, number, task, &state));
                }
            }
        }
        let text = if json {
            let report = serde_json::json!({ "connector": self.connector.name, "tasks": tasks });
            format!("{report}\n")
        } else {
            tasks_as_text(&self.connector.name, &tasks)
        };
        Ok((text, Exit::Done))
    }

    async fn change(&self, worker: &WorkerConfig, change: &Change) -> Result<(String, Exit), Failure> {
        let (topics, wish, how) = match change {
            Change::Set { topic, partition, offset, how, .. } => {
                (vec![topic.clone()], Wish::Set { partition: *partition, offset: *offset }, how)
            }
            Change::Reset { topic, to, how, .. } => (vec![topic.clone()], Wish::To(place(to)?), how),
            Change::AcceptLoss { topic: Some(topic), how, .. } => (vec![topic.clone()], Wish::AcceptLoss, how),
            Change::AcceptLoss { topic: None, how, .. } => (self.topics().await?, Wish::AcceptLoss, how),
        };
        let kafka = kafka::connect(&worker.kafka).await.map_err(Failure::unreachable)?;
        if how.execute {
            self.accept_cluster(&kafka, &wish).await?;
        }
        let mut resets = Vec::new();
        for topic in topics {
            let Some((number, mapping)) = self.mapping(&topic).await? else {
                return Err(Failure::usage(format!("topic {topic} was never archived by this connector")));
            };
            for task in 0..mapping.tasks_max {
                let subject = self.subject(&topic, number, task, worker, &kafka);
                let found = if how.execute {
                    reset::execute(&subject, &wish).await?
                } else {
                    reset::plan(&subject, &wish).await?
                };
                let Some(Plan { changes, identity }) = found else { continue };
                if !changes.is_empty() {
                    resets.push(Reset { topic: topic.clone(), task, incarnation: identity.incarnation, changes });
                }
            }
        }
        if resets.is_empty() && wish != Wish::AcceptLoss {
            return Err(Failure::usage("no task of this connector has that partition"));
        }
        let text = if how.json {
            format!("{}\n", serde_json::json!({ "executed": how.execute, "resets": resets }))
        } else {
            resets_as_text(&resets, how.execute)
        };
        Ok((text, Exit::Done))
    }

    /// The prefix was begun on another cluster: it is told that this one is meant too.
    async fn accept_cluster(&self, kafka: &Arc<dyn Kafka>, wish: &Wish) -> Result<(), Failure> {
        let cluster = kafka.cluster_id().await.map_err(Failure::unreachable)?;
        let (Some(cluster), Wish::AcceptLoss) = (cluster, wish) else { return Ok(()) };
        for store in [&self.store, &self.state] {
            layout::accept_cluster(store.as_ref(), &self.environment, &self.connector.name, &cluster)
                .await
                .map_err(Failure::unreachable)?;
        }
        Ok(())
    }

    fn subject(&self, topic: &str, number: u32, task: u32, worker: &WorkerConfig, kafka: &Arc<dyn Kafka>) -> Subject {
        Subject {
            topic: topic.to_owned(),
            isolation: self.connector.isolation,
            by: format!("{} (sluice offsets)", worker.id),
            kafka: Arc::clone(kafka),
            store: Arc::clone(&self.store),
            log: Arc::new(self.log(topic, number, task)),
            environment: self.environment.clone(),
        }
    }
}

fn layout_failure(error: layout::LayoutError) -> Failure {
    match error {
        layout::LayoutError::Store(error) => Failure::unreachable(error),
        layout::LayoutError::Conflict(message) => Failure(Exit::Damaged, message),
    }
}

fn place(text: &str) -> Result<At, Failure> {
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
