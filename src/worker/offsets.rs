//! What a connector's logs say of its offsets, and the explicit way to change it.
//!
//! Owns: which logs are looked at, for the command line and for HTTP alike. Does not own: what a reset changes
//! ([`crate::task::reset`]), how it is shown.

use std::sync::Arc;

use serde::Serialize;

use super::layout::{self, Mapping};
use crate::cli::Exit;
use crate::clock::Environment;
use crate::config::{ConnectorConfig, WorkerConfig};
use crate::ledger::State;
use crate::log::journal::{LogError, read_state};
use crate::log::store_log::StoreLog;
use crate::pipeline::source::Kafka;
use crate::store::{self, Store};
use crate::task::TaskError;
use crate::task::error::Remedy;
use crate::task::reset::{self, Plan, Subject, Wish};

/// Why it can't be told or changed, and how a command ends that asked for it.
#[derive(Debug)]
pub struct Failure(pub Exit, pub String);

impl Failure {
    pub fn usage(error: impl std::fmt::Display) -> Self {
        Self(Exit::Usage, error.to_string())
    }

    pub fn unreachable(error: impl std::fmt::Display) -> Self {
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

/// A connector's data and state.
#[derive(Debug)]
pub struct Place {
    connector: Arc<ConnectorConfig>,
    store: Arc<dyn Store>,
    state: Arc<dyn Store>,
    environment: Environment,
}

/// What a task's log says.
#[derive(Debug, Serialize)]
pub struct Task {
    pub topic: String,
    pub mapping: u32,
    pub task: u32,
    /// `None`: the task never began.
    pub incarnation: Option<u32>,
    pub topic_id: Option<String>,
    pub cluster_id: Option<String>,
    pub owner: Option<String>,
    pub entry: u64,
    pub changing: bool,
    pub partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
pub struct Partition {
    pub partition: i32,
    pub low: i64,
    pub low_since_ms: i64,
    /// The highest offset that an object or a pending one reaches.
    pub highest_mark: i64,
    pub intents_pending: usize,
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
#[derive(Debug, Serialize)]
pub struct Reset {
    pub topic: String,
    pub task: u32,
    pub incarnation: u32,
    pub changes: Vec<reset::Change>,
}

impl Place {
    /// Opens a connector's place, which need not have begun.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn open(worker: &WorkerConfig, connector: Arc<ConnectorConfig>) -> Result<Self, Failure> {
        let store = store::open(&connector.sink).await.map_err(Failure::usage)?;
        let state = match &worker.state_url {
            Some(url) => store::open_state(url, &connector.sink).await.map_err(Failure::usage)?,
            None => Arc::clone(&store),
        };
        // Everything later waits for a store that is away; a command says so instead.
        state.head(layout::STATE_FOLDER).await.map_err(Failure::unreachable)?;
        Ok(Self { connector, store, state, environment: Environment::system() })
    }

    /// Topics that were ever archived.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn topics(&self) -> Result<Vec<String>, Failure> {
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

    /// What the logs say of all tasks that have begun.
    ///
    /// # Errors
    /// A log can't be read.
    pub async fn tasks(&self) -> Result<Vec<Task>, Failure> {
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
        Ok(tasks)
    }

    /// Changes where topics go on, or with `execute` false says what would change.
    ///
    /// # Errors
    /// Kafka or the store can't be asked, or there is nothing that could be changed so.
    pub async fn change(
        &self,
        kafka: &Arc<dyn Kafka>,
        by: &str,
        topics: &[String],
        wish: &Wish,
        execute: bool,
    ) -> Result<Vec<Reset>, Failure> {
        if execute {
            self.accept_cluster(kafka, wish).await?;
        }
        let mut resets = Vec::new();
        for topic in topics {
            let Some((number, mapping)) = self.mapping(topic).await? else {
                return Err(Failure::usage(format!("topic {topic} was never archived by this connector")));
            };
            for task in 0..mapping.tasks_max {
                let subject = self.subject(topic, number, task, by, kafka);
                let found =
                    if execute { reset::execute(&subject, wish).await? } else { reset::plan(&subject, wish).await? };
                let Some(Plan { changes, identity }) = found else { continue };
                if !changes.is_empty() {
                    resets.push(Reset { topic: topic.clone(), task, incarnation: identity.incarnation, changes });
                }
            }
        }
        if resets.is_empty() && *wish != Wish::AcceptLoss {
            return Err(Failure::usage("no task of this connector has that partition"));
        }
        Ok(resets)
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

    fn subject(&self, topic: &str, number: u32, task: u32, by: &str, kafka: &Arc<dyn Kafka>) -> Subject {
        Subject {
            topic: topic.to_owned(),
            isolation: self.connector.isolation,
            by: by.to_owned(),
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
