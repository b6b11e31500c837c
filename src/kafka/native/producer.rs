//! Writing records into a topic: each is answered for once all in-sync replicas have it.
//!
//! Owns: which records go into one batch, the way to each leader, what is tried again and how long.
//! Does not own: the bytes of a batch ([`super::batch_writer`]), what is done about a record that was not written.
//!
//! One batch of a partition is under way at a time, so retries keep the order. A batch whose answer was lost is written again:
//! at least once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use crate::kafka::backoff::Backoff;
use crate::kafka::native::batch_writer::encode;
use crate::kafka::native::cluster::Cluster;
use crate::kafka::native::errors;
use crate::kafka::native::messages::produce::{Produce, Produced};
use crate::kafka::partitioner::Partitioner;
use crate::pipeline::produce::{Outgoing, ProduceError, Written};
use crate::pipeline::source::SourceError;

/// Records of a batch before compression: what brokers and Java's producer take by default (1 MiB) with some room.
const BATCH_BYTES: usize = 900 * 1024;
const BATCH_RECORDS: usize = 10_000;
/// Batches in one request.
const REQUEST_BATCHES: usize = 8;
/// How long the leader may wait for its followers; the answer must come within the time of any other.
const ACKS_TIMEOUT_MS: i32 = 8_000;
/// No progress for this long: what is left is given back. Java's `delivery.timeout.ms` is the same.
const GIVE_UP: Duration = Duration::from_secs(120);
/// A topic may be new, and unknown to the broker that is asked.
const TOPIC_TRIES: u32 = 5;

type Outcome = Result<Written, ProduceError>;

/// Writes records; one answer for each, in their order.
pub async fn produce(cluster: &Cluster, partitioner: &Partitioner, topic: &str, records: &[Outgoing]) -> Vec<Outcome> {
    let mut sending = Sending::new(topic, records);
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut give_up = Instant::now() + GIVE_UP;
    let mut unknown = 0;
    while sending.is_open() {
        let trouble = match leaders(cluster, topic).await {
            Ok(Some(leaders)) => {
                sending.share_out(partitioner, &leaders);
                let before = sending.open;
                let trouble = sending.round(cluster, &leaders).await;
                if sending.open < before {
                    backoff.reset();
                    give_up = Instant::now() + GIVE_UP;
                    unknown = 0;
                }
                trouble
            }
            Ok(None) if unknown < TOPIC_TRIES => {
                unknown += 1;
                Some("no such topic".to_owned())
            }
            Ok(None) => return sending.end(&ProduceError::NoTopic { topic: topic.to_owned() }),
            Err(SourceError::Refused { message, .. }) => {
                return sending.end(&ProduceError::Refused { topic: topic.to_owned(), message });
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(message) = trouble {
            if Instant::now() >= give_up {
                return sending.end(&ProduceError::Unreachable { topic: topic.to_owned(), message });
            }
            backoff.wait().await;
        }
    }
    sending.end(&ProduceError::NoTopic { topic: topic.to_owned() })
}

/// Partitions with their leaders (-1: none now); `None`: no such topic.
async fn leaders(cluster: &Cluster, topic: &str) -> Result<Option<BTreeMap<i32, i32>>, SourceError> {
    let found = cluster.topic(topic).await?.filter(|topic| !topic.partitions.is_empty());
    Ok(found.map(|topic| topic.partitions.iter().map(|found| (found.partition, found.leader)).collect()))
}

/// Records on their way, by partition.
struct Sending<'a> {
    topic: &'a str,
    records: &'a [Outgoing],
    outcomes: Vec<Option<Outcome>>,
    /// Records without an outcome.
    open: usize,
    shared_out: bool,
    queues: BTreeMap<i32, Queue>,
}

/// Records of a partition that are not written, by their number, in order.
#[derive(Default)]
struct Queue {
    numbers: VecDeque<usize>,
    /// Most records of the next batch: fewer after a refusal, so that the record it is about is found.
    most: usize,
}

impl<'a> Sending<'a> {
    fn new(topic: &'a str, records: &'a [Outgoing]) -> Self {
        let outcomes = vec![None; records.len()];
        Self { topic, records, outcomes, open: records.len(), shared_out: false, queues: BTreeMap::new() }
    }

    fn is_open(&self) -> bool {
        self.open > 0
    }

    fn settle(&mut self, number: usize, outcome: Outcome) {
        if let Some(slot) = self.outcomes.get_mut(number).filter(|slot| slot.is_none()) {
            *slot = Some(outcome);
            self.open -= 1;
        }
    }

    /// What is not settled ends so.
    fn end(self, error: &ProduceError) -> Vec<Outcome> {
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(error.clone()))).collect()
    }

    /// Once: a record stays in its partition whatever the topic does meanwhile.
    fn share_out(&mut self, partitioner: &Partitioner, leaders: &BTreeMap<i32, i32>) {
        if std::mem::replace(&mut self.shared_out, true) {
            return;
        }
        let partitions: Vec<i32> = leaders.keys().copied().collect();
        let records = self.records;
        for (number, record) in records.iter().enumerate() {
            match partitioner.partition(record, &partitions) {
                Some(partition) => {
                    let queue = self.queues.entry(partition).or_default();
                    queue.most = BATCH_RECORDS;
                    queue.numbers.push_back(number);
                }
                None => self.settle(number, Err(ProduceError::NoTopic { topic: self.topic.to_owned() })),
            }
        }
    }

    /// The next batch of each partition to its leader, all leaders at once. Returns what has to be waited for.
    async fn round(&mut self, cluster: &Cluster, leaders: &BTreeMap<i32, i32>) -> Option<String> {
        let mut trouble = None;
        let mut requests: BTreeMap<i32, Produce> = BTreeMap::new();
        let mut under_way: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (&partition, queue) in self.queues.iter().filter(|(_, queue)| !queue.numbers.is_empty()) {
            let leader = leaders.get(&partition).copied().unwrap_or(-1);
            if leader < 0 {
                trouble = Some(format!("partition {partition} has no leader"));
                continue;
            }
            let request = requests.entry(leader).or_insert_with(|| Produce {
                timeout_ms: ACKS_TIMEOUT_MS,
                topic: self.topic.to_owned(),
                batches: Vec::new(),
            });
            if request.batches.len() < REQUEST_BATCHES {
                let numbers = self.next_batch(queue);
                let batch: Vec<&Outgoing> = numbers.iter().filter_map(|&number| self.records.get(number)).collect();
                request.batches.push((partition, encode(&batch)));
                under_way.insert(partition, numbers);
            }
        }
        let asked = requests.iter().map(|(&leader, request)| cluster.ask(leader, request));
        for answer in join_all(asked).await {
            let answers = match answer {
                Ok(answers) => answers,
                Err(SourceError::Refused { message, .. }) => {
                    return self.refuse_all(&message);
                }
                Err(error) => {
                    trouble = Some(error.to_string());
                    continue;
                }
            };
            for produced in answers {
                if let Some(numbers) = under_way.remove(&produced.partition) {
                    trouble = self.take(&produced, &numbers).or(trouble);
                }
            }
        }
        let unanswered = under_way.keys().next().map(|partition| format!("no answer for partition {partition}"));
        trouble.or(unanswered)
    }

    fn next_batch(&self, queue: &Queue) -> Vec<usize> {
        let mut bytes = 0;
        let fits = |&number: &usize| {
            let first = bytes == 0;
            bytes += self.records.get(number).map_or(0, Outgoing::bytes);
            first || bytes <= BATCH_BYTES
        };
        queue.numbers.iter().copied().take(queue.most).take_while(fits).collect()
    }

    /// What became of a batch.
    fn take(&mut self, produced: &Produced, numbers: &[usize]) -> Option<String> {
        let Produced { partition, error, base_offset, .. } = *produced;
        let what = match &produced.message {
            Some(message) => format!("{}: {message}", errors::name(error)),
            None => errors::name(error),
        };
        let refused = || ProduceError::Refused { topic: self.topic.to_owned(), message: what.clone() };
        let failure = match error {
            errors::NONE => {
                for (number, delta) in numbers.iter().zip(0..) {
                    let offset = if base_offset < 0 { -1 } else { base_offset.saturating_add(delta) };
                    self.settle(*number, Ok(Written { partition, offset }));
                }
                self.forget(partition, numbers.len());
                return None;
            }
            errors::MESSAGE_TOO_LARGE | errors::RECORD_LIST_TOO_LARGE => {
                let bytes = numbers.first().and_then(|&number| self.records.get(number)).map_or(0, Outgoing::bytes);
                ProduceError::TooLarge { topic: self.topic.to_owned(), bytes }
            }
            errors::INVALID_TIMESTAMP | errors::INVALID_RECORD => refused(),
            code if errors::is_refusal(code) => {
                let error = refused();
                numbers.iter().for_each(|&number| self.settle(number, Err(error.clone())));
                self.forget(partition, numbers.len());
                return None;
            }
            _ => return Some(format!("partition {partition}: {what}")),
        };
        // The batch as a whole was refused for one of its records: halved until that one is alone.
        if let [number] = *numbers {
            self.settle(number, Err(failure));
            self.forget(partition, 1);
        } else if let Some(queue) = self.queues.get_mut(&partition) {
            queue.most = numbers.len() / 2;
        }
        None
    }

    fn forget(&mut self, partition: i32, count: usize) {
        if let Some(queue) = self.queues.get_mut(&partition) {
            queue.numbers.drain(..count.min(queue.numbers.len()));
            queue.most = queue.most.saturating_mul(2).min(BATCH_RECORDS);
        }
    }

    fn refuse_all(&mut self, message: &str) -> Option<String> {
        let error = ProduceError::Refused { topic: self.topic.to_owned(), message: message.to_owned() };
        for number in 0..self.records.len() {
            self.settle(number, Err(error.clone()));
        }
        None
    }
}

#[cfg(test)]
#[path = "producer_tests.rs"]
mod tests;
