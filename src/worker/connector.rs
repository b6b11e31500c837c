//! One connector: opens its store, finds its topics, keeps its tasks running.
//!
//! Owns: the connector's prefix, which topics and partitions there are, one supervisor per task.
//! Does not own: what a task does when it fails ([`super::supervisor`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::first_start;
use super::layout::{self, LayoutError};
use super::supervisor::{self, Task};
use crate::api::metrics::TaskMetrics;
use crate::cli::Exit;
use crate::config::{ConnectorConfig, TopicSelection};
use crate::log::store_log::StoreLog;
use crate::pipeline::source::{SourceError, TopicInfo};
use crate::store::observed::Observed;
use crate::store::{Store, StoreError};
use crate::task::status::TaskStatus;

/// How often topics and partitions are looked for.
const TOPICS_EVERY: Duration = Duration::from_secs(30);

/// How often a connector that could not be set up tries again.
const SET_UP_EVERY: Duration = Duration::from_secs(5);

/// A connector that is set up: what its tasks share.
#[derive(Debug)]
pub struct Connector {
    pub shared: Arc<Shared>,
    pub config: Arc<ConnectorConfig>,
    pub store: Arc<Observed>,
    /// Where markers and logs lie: `store` itself, or the place of `state.url`.
    pub state: Arc<Observed>,
    pub uploads: Arc<Semaphore>,
}

/// A topic, and how many tasks it has.
#[derive(Debug)]
struct Topic {
    info: TopicInfo,
    /// One for each task, told one after the other.
    tasks: Vec<watch::Sender<TopicInfo>>,
    changing_mapping: Arc<Mutex<Option<u32>>>,
}

/// Runs a connector until it is stopped or has caught up; the exit status is the worst of its tasks'.
pub async fn run(shared: Arc<Shared>, config: Arc<ConnectorConfig>, stop: CancellationToken) -> Exit {
    let name = config.name.clone();
    let board = Arc::clone(&shared.board);
    let outcome = tokio::select! {
        biased;
        () = stop.cancelled() => return Exit::Done,
        outcome = set_up_patiently(&shared, &config) => outcome,
    };
    match outcome {
        Ok(connector) => {
            board.add_store(&name, Arc::clone(&connector.store));
            if !Arc::ptr_eq(&connector.store, &connector.state) {
                board.add_store(&name, Arc::clone(&connector.state));
            }
            connector.keep_tasks(stop).await
        }
        Err((exit, message)) => {
            tracing::error!(connector = name, "{message}");
            board.connector_failed(&name, &message);
            if !connector_is_waited_for(&stop, exit, &board).await { Exit::Done } else { exit }
        }
    }
}

/// A failed connector of a running worker stays on the board until the worker stops; a run to the end reports at once.
async fn connector_is_waited_for(stop: &CancellationToken, exit: Exit, board: &crate::api::http::Board) -> bool {
    if !board.until_caught_up() {
        stop.cancelled().await;
    }
    exit != Exit::Done
}

/// A service that is away for a moment must not fail a connector for good; a run to the end reports it at once.
async fn set_up_patiently(
    shared: &Arc<Shared>,
    config: &Arc<ConnectorConfig>,
) -> Result<Arc<Connector>, (Exit, String)> {
    let mut told = String::new();
    loop {
        match set_up(Arc::clone(shared), Arc::clone(config)).await {
            Err((Exit::Unreachable, message)) if !shared.options.until_caught_up => {
                if message != told {
                    tracing::warn!(connector = config.name, "{message}; trying again");
                    shared.board.connector_waits(&config.name, Some(&message));
                    told = message;
                }
                tokio::time::sleep(SET_UP_EVERY).await;
            }
            outcome => {
                shared.board.connector_waits(&config.name, None);
                return outcome;
            }
        }
    }
}

async fn set_up(shared: Arc<Shared>, config: Arc<ConnectorConfig>) -> Result<Arc<Connector>, (Exit, String)> {
    let usage = |error: StoreError| (Exit::Usage, error.to_string());
    let store = Arc::new(Observed::new(crate::store::open(&config.sink).await.map_err(usage)?));
    let apart = match &shared.worker.state_url {
        Some(url) => Some(Arc::new(Observed::new(crate::store::open_state(url, &config.sink).await.map_err(usage)?))),
        None => None,
    };
    let cluster_id = shared.kafka.cluster_id().await.map_err(|error| (Exit::Unreachable, error.to_string()))?;
    if shared.options.until_caught_up {
        // A job must not wait for a store that is away when it begins.
        store.head(layout::STATE_FOLDER).await.map_err(|error| (Exit::Unreachable, error.to_string()))?;
    }
    first_start::check(store.as_ref(), apart.as_deref().map(|state| state as &dyn Store), &shared.environment, &config)
        .await?;
    let apart_door = apart.as_deref().map(|state| state as &dyn Store);
    layout::claim(store.as_ref(), apart_door, &shared.environment, &config.name, cluster_id.as_deref()).await.map_err(
        |error| match error {
            LayoutError::Store(_) => (Exit::Unreachable, error.to_string()),
            LayoutError::Conflict(_) => (Exit::Usage, error.to_string()),
        },
    )?;
    let uploads = Arc::new(Semaphore::new(config.sink.max_uploads.get()));
    let state = apart.unwrap_or_else(|| Arc::clone(&store));
    Ok(Arc::new(Connector { shared, config, store, state, uploads }))
}

impl Connector {
    /// Keeps the tasks of all topics running until it is stopped or has caught up; the exit status is the worst of theirs.
    pub async fn keep_tasks(self: Arc<Self>, stop: CancellationToken) -> Exit {
        let mut topics: BTreeMap<String, Topic> = BTreeMap::new();
        let mut missing: BTreeSet<String> = BTreeSet::new();
        let mut tasks: JoinSet<Exit> = JoinSet::new();
        let mut worst = Exit::Done;
        loop {
            let found = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                found = self.find_topics() => found,
            };
            match found {
                Ok(found) => {
                    self.report_missing(&found, &mut missing);
                    for info in found {
                        let topic = topics.entry(info.name.clone()).or_insert_with(|| Topic {
                            info: info.clone(),
                            tasks: Vec::new(),
                            changing_mapping: Arc::default(),
                        });
                        if topic.info != info {
                            for task in &topic.tasks {
                                task.send_replace(info.clone());
                            }
                            topic.info = info;
                        }
                        self.start_tasks(topic, &mut tasks, &stop);
                    }
                }
                Err(error) => {
                    tracing::warn!(connector = self.config.name, %error, "topics can't be looked up");
                    if self.shared.options.until_caught_up {
                        return Exit::Unreachable;
                    }
                }
            }
            if self.shared.options.until_caught_up {
                if !missing.is_empty() {
                    worst = Exit::Unreachable;
                }
                break;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(TOPICS_EVERY) => {}
            }
        }
        while let Some(ended) = tasks.join_next().await {
            let exit = ended.unwrap_or_else(|error| {
                tracing::error!(connector = self.config.name, %error, "a task panicked; this is a bug");
                Exit::Damaged
            });
            worst = if exit as u8 > worst as u8 { exit } else { worst };
        }
        worst
    }

    async fn find_topics(&self) -> Result<Vec<TopicInfo>, SourceError> {
        let kafka = &self.shared.kafka;
        let names = match &self.config.topics {
            TopicSelection::List(names) => names.clone(),
            TopicSelection::Regex(pattern) => {
                kafka.topics().await?.into_iter().filter(|name| pattern.is_match(name)).collect()
            }
        };
        let mut found = Vec::new();
        for name in names {
            found.extend(kafka.topic(&name).await?);
        }
        Ok(found)
    }

    /// A topic that is named and does not exist is waited for, and said once.
    fn report_missing(&self, found: &[TopicInfo], missing: &mut BTreeSet<String>) {
        let TopicSelection::List(names) = &self.config.topics else { return };
        for name in names {
            if found.iter().any(|info| info.name == *name) {
                missing.remove(name);
                self.shared.board.topic_found(&self.config.name, name);
            } else if missing.insert(name.clone()) {
                tracing::warn!(
                    connector = self.config.name,
                    topic = name,
                    "the topic does not exist; it is waited for"
                );
                self.shared.board.topic_missing(&self.config.name, name);
            }
        }
    }

    /// A topic has at most as many tasks as partitions, the others would have nothing to read; when it grows it gets more.
    fn start_tasks(self: &Arc<Self>, topic: &mut Topic, tasks: &mut JoinSet<Exit>, stop: &CancellationToken) {
        let info = topic.info.clone();
        let highest = info.partitions.iter().max().map_or(0, |p| p.unsigned_abs() + 1);
        let wanted = self.config.tasks_max.get().min(highest);
        for task in u32::try_from(topic.tasks.len()).unwrap_or(wanted)..wanted {
            let (told, topic_info) = watch::channel(info.clone());
            topic.tasks.push(told);
            let status = Arc::new(TaskStatus::new(&self.config.name, &info.name, task));
            self.shared.board.add_task(Arc::clone(&status));
            let metrics = Arc::new(TaskMetrics::new(&self.config.name, &info.name, task));
            let task = Task {
                connector: Arc::clone(self),
                topic: info.name.clone(),
                task,
                status,
                metrics,
                topic_info,
                changing_mapping: Arc::clone(&topic.changing_mapping),
            };
            tasks.spawn(supervisor::keep(task, stop.clone()));
        }
    }

    /// The log of a task.
    pub fn log(&self, topic: &str, mapping: u32, task: u32) -> StoreLog {
        let path = layout::log_path(&self.config.name, topic, mapping, task);
        StoreLog::new(Arc::clone(&self.state) as Arc<dyn Store>, &path)
    }
}
