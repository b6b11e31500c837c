//! `sluice check --probe`: whether what the settings name is there and does what is asked of it.
//!
//! Owns: which services are tried in which order, what their answers mean to the operator, the exit status. Does not own: what
//! a store must be able to do ([`crate::store::probe`]), how steps are shown (`check`).
//!
//! Nothing is archived and nothing is left behind: Kafka is only asked, a store gets one small object that is deleted again.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Exit;
use crate::cli::rotation;
use crate::cluster;
use crate::config::units::show_duration;
use crate::config::{ConnectorConfig, Loaded, RedisUrl, TopicSelection};
use crate::kafka;
use crate::pipeline::source::{At, Kafka, TopicInfo};
use crate::redis_link;
use crate::store::probe::ProbeOutcome;
use crate::store::{self, Store, StoreError};

/// For one question to Kafka: a worker waits longer, somebody who looks on does not.
const KAFKA_LIMIT: Duration = Duration::from_secs(10);
/// For all steps of one store.
const STORE_LIMIT: Duration = Duration::from_secs(60);

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub what: String,
    pub outcome: Outcome,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Ok,
    /// Worth knowing; the worker can run.
    Note,
    Failed,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Note => "note",
            Outcome::Failed => "FAILED",
        };
        write!(f, "{outcome:<6}  {}: {}", self.what, self.detail)
    }
}

/// Shows a step as soon as its outcome is known.
pub type Tell<'a> = dyn FnMut(&Step) -> io::Result<()> + 'a;

/// The steps so far.
struct Steps<'a> {
    tell: &'a mut Tell<'a>,
    worst: Exit,
}

impl Steps<'_> {
    fn add(&mut self, outcome: Outcome, what: impl Into<String>, detail: impl Into<String>) -> io::Result<()> {
        (self.tell)(&Step { what: what.into(), outcome, detail: detail.into() })
    }

    fn fail(&mut self, exit: Exit, what: impl Into<String>, detail: impl Into<String>) -> io::Result<()> {
        self.worst = if exit as u8 > self.worst as u8 { exit } else { self.worst };
        self.add(Outcome::Failed, what, detail)
    }
}

/// Tries everything; the answer is [`Exit::Unreachable`] where something could not be reached, else [`Exit::NotSo`] where a
/// store that needs it has no create-only write.
pub fn run<'a>(loaded: &Loaded, tell: &'a mut Tell<'a>) -> io::Result<Exit> {
    super::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut steps = Steps { tell, worst: Exit::Done };
    runtime.block_on(all(loaded, &mut steps))?;
    // What hangs in a client's background task is not waited for.
    runtime.shutdown_background();
    Ok(steps.worst)
}

async fn all(loaded: &Loaded, steps: &mut Steps<'_>) -> io::Result<()> {
    let worker = &loaded.worker;
    let name = format!("kafka {}", worker.kafka.bootstrap_servers.join(","));
    match limited(kafka::connect(&worker.kafka)).await {
        Ok(kafka) => {
            steps.add(Outcome::Ok, name, "connected")?;
            for connector in &loaded.connectors {
                topics(kafka.as_ref(), connector, steps).await?;
            }
        }
        Err(why) => steps.fail(Exit::Unreachable, name, why)?,
    }
    for connector in &loaded.connectors {
        let opened = store::open(&connector.sink).await;
        let holds_log = worker.state_url.is_none();
        try_store(&format!("connector {}: sink", connector.name), opened, holds_log, steps).await?;
        if let Some(url) = &worker.state_url {
            let opened = store::open_state(url, &connector.sink).await;
            try_store(&format!("connector {}: state", connector.name), opened, true, steps).await?;
        }
    }
    if let Some(url) = &worker.coordination_url {
        coordination(url, &worker.group, steps).await?;
    }
    Ok(())
}

/// Each node by itself, then what coordination does.
async fn coordination(url: &RedisUrl, group: &str, steps: &mut Steps<'_>) -> io::Result<()> {
    for node in &url.nodes {
        let host = if node.0.contains(':') { format!("[{}]", node.0) } else { node.0.clone() };
        let name = format!("redis {}:{}", host, node.1);
        match redis_link::ping(url, node).await {
            Ok(()) => steps.add(Outcome::Ok, name, "answers PING")?,
            Err(why) => steps.fail(Exit::Unreachable, name, why)?,
        }
    }
    let what = format!("coordination {url}");
    match cluster::redis::probe(url, group).await {
        Ok(members) => {
            let there = if members == 0 { "nobody is there".to_owned() } else { format!("{members} are there") };
            steps.add(Outcome::Ok, what, format!("takes and releases a lease; of group {group} {there}"))
        }
        Err(why) => steps.fail(Exit::Unreachable, what, why.to_string()),
    }
}

async fn limited<T, E: fmt::Display>(asked: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(KAFKA_LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", KAFKA_LIMIT.as_secs())),
    }
}

async fn topics(kafka: &dyn Kafka, connector: &ConnectorConfig, steps: &mut Steps<'_>) -> io::Result<()> {
    let names = match &connector.topics {
        TopicSelection::List(names) => names.clone(),
        TopicSelection::Regex(pattern) => {
            let what = format!("connector {}: topics that match {pattern}", connector.name);
            match limited(kafka.topics()).await {
                Ok(all) => {
                    let found: Vec<String> = all.into_iter().filter(|name| pattern.is_match(name)).collect();
                    let outcome = if found.is_empty() { Outcome::Note } else { Outcome::Ok };
                    steps.add(outcome, what, format!("{} found", found.len()))?;
                    found
                }
                Err(why) => return steps.fail(Exit::Unreachable, what, why),
            }
        }
    };
    for topic in names {
        let what = format!("connector {}: topic {topic}", connector.name);
        match limited(kafka.topic(&topic)).await {
            Ok(Some(info)) => try_topic(kafka, connector, &info, &what, steps).await?,
            Ok(None) => steps.fail(Exit::Unreachable, what, "does not exist; a running worker waits for it")?,
            Err(why) => steps.fail(Exit::Unreachable, what, why)?,
        }
    }
    Ok(())
}

async fn try_topic(
    kafka: &dyn Kafka,
    connector: &ConnectorConfig,
    info: &TopicInfo,
    what: &str,
    steps: &mut Steps<'_>,
) -> io::Result<()> {
    let wanted = |partition: &&i32| connector.partitions.as_ref().is_none_or(|listed| listed.contains(partition));
    let partitions: Vec<i32> = info.partitions.iter().filter(wanted).copied().collect();
    let Some(first) = partitions.first() else {
        return steps.add(Outcome::Note, what, "has none of the partitions of this connector");
    };
    match limited(kafka.offset(&info.name, *first, At::Earliest, connector.isolation)).await {
        Ok(offset) => {
            let count = format!("{} of {} partitions are read", partitions.len(), info.partitions.len());
            steps.add(Outcome::Ok, what, format!("{count}; partition {first} begins at offset {offset}"))?;
        }
        Err(why) => return steps.fail(Exit::Unreachable, what, why),
    }
    match limited(kafka.retention(&info.name)).await {
        Ok(Some(retention)) => {
            let warning = rotation::retention_warning(connector, &info.name, retention);
            let outcome = if warning.is_some() { Outcome::Note } else { Outcome::Ok };
            let detail = warning.unwrap_or_else(|| format!("keeps records for {}", show_duration(retention)));
            steps.add(outcome, what, detail)
        }
        Ok(None) => steps.add(Outcome::Ok, what, "deletes no records for their age"),
        // Archiving needs no right to see settings.
        Err(why) => {
            let interval = show_duration(connector.rotate.max_interval);
            let detail = format!(
                "how long it keeps records is not told ({why}); it should be several times {interval} (rotate.max_interval)"
            );
            steps.add(Outcome::Note, what, detail)
        }
    }
}

/// `holds_log`: without create-only nothing keeps two workers from deciding the same.
async fn try_store(
    what: &str,
    opened: Result<Arc<dyn Store>, StoreError>,
    holds_log: bool,
    steps: &mut Steps<'_>,
) -> io::Result<()> {
    let store = match opened {
        Ok(store) => store,
        Err(error) => return steps.fail(Exit::Unreachable, what, error.to_string()),
    };
    let what = format!("{what} {}", store.url());
    let Ok(report) = tokio::time::timeout(STORE_LIMIT, store::probe(store.as_ref())).await else {
        let detail = format!("no answer within {} s", STORE_LIMIT.as_secs());
        return steps.fail(Exit::Unreachable, what, detail);
    };
    let mut works = Vec::new();
    let mut failed = Vec::new();
    for step in &report.steps {
        match &step.outcome {
            ProbeOutcome::Passed => works.push(step.name),
            ProbeOutcome::Failed(why) => failed.push((step.name, why)),
            ProbeOutcome::NotTried => {}
        }
    }
    if !works.is_empty() {
        steps.add(Outcome::Ok, &what, works.join(", "))?;
    }
    for (name, why) in failed {
        let detail = format!("{name}: {why}");
        match (name, report.create_only) {
            (store::probe::CREATE_ONLY, Some(false)) if !holds_log => {
                steps.add(
                    Outcome::Note,
                    &what,
                    "create only: does not work here; the log lies elsewhere (state.url)",
                )?;
            }
            (store::probe::CREATE_ONLY, Some(false)) => steps.fail(Exit::NotSo, &what, detail)?,
            _ => steps.fail(Exit::Unreachable, &what, detail)?,
        }
    }
    // Without its first object there is nothing to ask a bucket about.
    if works.is_empty() {
        return Ok(());
    }
    match tokio::time::timeout(STORE_LIMIT, store.bucket()).await {
        Ok(None) => Ok(()),
        Ok(Some(bucket)) => bucket.remarks().into_iter().try_for_each(|remark| steps.add(Outcome::Note, &what, remark)),
        Err(_) => {
            steps.add(Outcome::Note, &what, "the bucket's versioning and lifecycle rules could not be read in time")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, load_connector_str};
    use crate::kafka::memory::{MemoryKafka, MemoryRecord};
    use crate::store::memory::MemoryStore;
    use crate::store::overwriting::Overwriting;

    fn connector(topics: &str) -> ConnectorConfig {
        let text = format!("{{ {topics}, app_id: {{ from: key }}, sink: {{ url: s3://logs }} }}");
        load_connector_str(Path::new("c.yaml"), &text, &Environment::new()).unwrap().0
    }

    /// Lines and exit status of what `tries` adds.
    async fn told(tries: impl AsyncFnOnce(&mut Steps<'_>) -> io::Result<()>) -> (Vec<String>, Exit) {
        let mut lines = Vec::new();
        let mut tell = |step: &Step| {
            lines.push(step.to_string());
            Ok(())
        };
        let mut steps = Steps { tell: &mut tell, worst: Exit::Done };
        tries(&mut steps).await.unwrap();
        let worst = steps.worst;
        (lines, worst)
    }

    #[tokio::test]
    async fn topics_are_looked_up_and_their_leader_is_asked() {
        let kafka = MemoryKafka::new(10);
        kafka.create_topic("a", 3);
        kafka.append("a", 1, [MemoryRecord::value("x"), MemoryRecord::value("y")]);
        kafka.delete_records("a", 1, 1);
        let (lines, exit) =
            told(async |steps| topics(&kafka, &connector("topics: [a], partitions: [1]"), steps).await).await;
        assert_eq!(
            lines[0],
            "ok      connector c: topic a: 1 of 3 partitions are read; partition 1 begins at offset 1"
        );
        assert_eq!(lines[1], "ok      connector c: topic a: deletes no records for their age");
        assert_eq!((lines.len(), exit), (2, Exit::Done));
        let (lines, exit) = told(async |steps| topics(&kafka, &connector("topics: [gone]"), steps).await).await;
        assert_eq!(lines, ["FAILED  connector c: topic gone: does not exist; a running worker waits for it"]);
        assert_eq!(exit, Exit::Unreachable);
        let (lines, exit) = told(async |steps| topics(&kafka, &connector("topics_regex: '^b'"), steps).await).await;
        assert_eq!(lines, ["note    connector c: topics that match ^b: 0 found"]);
        assert_eq!(exit, Exit::Done);
    }

    #[tokio::test]
    async fn a_store_that_overwrites_fails_where_it_holds_the_log() {
        let store = |store: Arc<dyn Store>, holds_log| {
            told(async move |steps: &mut Steps<'_>| try_store("s", Ok(store), holds_log, steps).await)
        };
        let (lines, exit) = store(Arc::new(MemoryStore::new()), true).await;
        assert!(lines.len() == 1 && lines[0].contains("create only, delete"), "{lines:?}");
        assert_eq!(exit, Exit::Done);
        let (lines, exit) = store(Arc::new(Overwriting::default()), true).await;
        assert!(lines[1].starts_with("FAILED") && lines[1].contains("create only: the store let"), "{lines:?}");
        assert_eq!(exit, Exit::NotSo);
        let (lines, exit) = store(Arc::new(Overwriting::default()), false).await;
        assert!(lines[1].starts_with("note") && lines[1].contains("state.url"), "{lines:?}");
        assert_eq!(exit, Exit::Done);
    }
}
