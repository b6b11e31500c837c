//! Asking Kafka about offsets that no object holds.
//!
//! Owns: which of them Kafka has records at, whose they are. Does not own: finding the offsets ([`super::locate`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::coverage::Coverage;
use crate::archive::app_id::path_segment;
use crate::config::ConnectorConfig;
use crate::ledger::Identity;
use crate::pipeline::budget::Budget;
use crate::pipeline::source::{At, Kafka, ReadRequest, SourceError, SourceEvent};
use crate::pipeline::split::{App, Split, Splitter};

/// Fetched at a time.
const BUDGET_BYTES: u64 = 32 << 20;
/// Without a word of the reader for so long it is taken to be unreachable.
const SILENCE: Duration = Duration::from_secs(60);
/// Where nothing is missing for so many offsets, reading begins anew behind them.
const JUMP: i64 = 100_000;
/// Apps that are named.
const MAX_APPS: usize = 10;

/// Who can be asked.
#[derive(Clone, Debug)]
pub struct Witness {
    pub kafka: Arc<dyn Kafka>,
    pub connector: Arc<ConnectorConfig>,
}

/// What Kafka says of a partition's missing offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// Offsets at which Kafka has no record either, though its log reaches over them.
    pub holes: u64,
    /// Below it Kafka has nothing any more.
    pub log_start: i64,
    pub apps: BTreeSet<String>,
}

/// Asks about everything that is missing of a partition in the window. Holes are told to `coverage`: they are not missing any more.
///
/// # Errors
/// Kafka can't be reached, or has another topic now; what was learnt until then is in `coverage`.
pub async fn explain(
    witness: &Witness,
    topic: &str,
    identity: &Identity,
    partition: i32,
    coverage: &mut Coverage,
) -> Result<Explained, SourceError> {
    let isolation = witness.connector.isolation;
    let log_start = witness.kafka.offset(topic, partition, At::Earliest, isolation).await?;
    let end = witness.kafka.offset(topic, partition, At::Latest, isolation).await?;
    let mut explained = Explained { log_start, ..Explained::default() };
    let splitter = Splitter::new(&witness.connector, topic);
    let mut position = log_start;
    while let Some(next) = coverage.next_missing(partition, position) {
        if next >= end {
            break;
        }
        position =
            read_from(witness, topic, identity, (partition, next, end), coverage, &splitter, &mut explained).await?;
    }
    Ok(explained)
}

/// Reads on from `first` as long as something is missing near; the position at which it stopped.
async fn read_from(
    witness: &Witness,
    topic: &str,
    identity: &Identity,
    (partition, first, end): (i32, i64, i64),
    coverage: &mut Coverage,
    splitter: &Splitter,
    explained: &mut Explained,
) -> Result<i64, SourceError> {
    let (events, mut answers) = mpsc::channel(4);
    let request = ReadRequest {
        topic: topic.to_owned(),
        topic_id: identity.topic_id.clone(),
        isolation: witness.connector.isolation,
        starts: vec![(partition, first)],
        seen: Vec::new(),
        budget: Budget::new(BUDGET_BYTES),
    };
    let _reader = witness.kafka.read(request, events);
    let mut position = first;
    loop {
        let answer = tokio::time::timeout(SILENCE, answers.recv()).await.unwrap_or_default();
        match answer {
            Some(SourceEvent::Block(block, _permit)) => {
                let next = block.next_offset.min(end).max(position);
                let mut holes = Holes { coverage, partition, from: position, explained };
                for record in block.records().filter(|record| (position..next).contains(&record.offset)) {
                    holes.up_to(record.offset);
                    if holes.coverage.is_missing(partition, record.offset) && holes.explained.apps.len() < MAX_APPS {
                        holes.explained.apps.extend(app_of(splitter, &record, &witness.connector));
                    }
                    holes.from = record.offset + 1;
                }
                holes.up_to(next);
                position = next;
                match coverage.next_missing(partition, position) {
                    Some(missing) if missing < end && missing - position < JUMP => {}
                    _ => return Ok(position),
                }
            }
            Some(SourceEvent::Waiting { .. }) => {}
            Some(SourceEvent::Failed { error, .. }) => return Err(error),
            None => {
                return Err(SourceError::Unreachable {
                    what: format!("topic {topic} partition {partition}"),
                    message: format!("no answer from offset {position} on"),
                });
            }
        }
    }
}

struct Holes<'a> {
    coverage: &'a mut Coverage,
    partition: i32,
    from: i64,
    explained: &'a mut Explained,
}

impl Holes<'_> {
    /// Kafka has no record from where the last one was to before `end`.
    fn up_to(&mut self, end: i64) {
        let missing: Vec<i64> =
            (self.from..end).filter(|&offset| self.coverage.is_missing(self.partition, offset)).collect();
        self.explained.holes += missing.len() as u64;
        missing.iter().for_each(|&offset| self.coverage.tell(self.partition, offset, offset));
    }
}

fn app_of(splitter: &Splitter, record: &crate::record::Record<'_>, connector: &ConnectorConfig) -> Option<String> {
    match splitter.split(record) {
        Split::App(App::Id(id)) => Some(path_segment(&id)),
        Split::App(App::Missing) => match &connector.app_id.missing {
            crate::config::MissingAppId::Name(name) => Some(name.clone()),
            crate::config::MissingAppId::DeadLetter => None,
        },
        Split::Bad { .. } => Some(connector.dead_letter.path.clone()),
    }
}
