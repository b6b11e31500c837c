//! A running read of one topic: one connection per broker that leads some of its partitions, one fetch under way on each.
//!
//! Owns: which partitions are fetched from which broker, and what answers, errors and metadata do to that.
//! Does not own: a fetch itself ([`super::fetching`]), decoding ([`super::decoding`]), a partition's state
//! ([`super::partition`]).
//!
//! Everything is decided in one task: questions are futures that it polls, so there are no locks and no order to get wrong.
//! A partition's answers are decoded in the order they came; the next fetch goes out while the last answer is decoded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kafka::backoff::Backoff;
use crate::kafka::native::cluster::{Cluster, topic_id};
use crate::kafka::native::connection::Connection;
use crate::kafka::native::decode::Fetched;
use crate::kafka::native::decoding::{self, Decoded, Job};
use crate::kafka::native::errors;
use crate::kafka::native::fetching::{self, Done};
use crate::kafka::native::messages::fetch::{Fetch, FetchAnswer, FetchPartition, FetchedPartition};
use crate::kafka::native::messages::metadata::TopicMetadata;
use crate::kafka::native::offsets;
use crate::kafka::native::partition::{Partition, Status, walk};
use crate::kafka::native::session::Session;
use crate::pipeline::budget::Permit;
use crate::pipeline::source::{Isolation, ReadRequest, SourceError, SourceEvent};

/// How long a broker may hold a fetch for which it has nothing.
const MAX_WAIT_MS: i32 = 500;
/// The same while a partition could be fetched soon that the request leaves out.
const SHORT_WAIT_MS: i32 = 10;
const PARTITION_BYTES: i32 = 1024 * 1024;
/// Of the budget, what one answer may take.
const ANSWER_SHARE: u64 = 16;
const ANSWER_BYTES: std::ops::RangeInclusive<u64> = 256 * 1024..=8 * 1024 * 1024;
/// Of the budget, what may wait to be decoded.
const UNDECODED_SHARE: u64 = 4;
const METADATA_AGE: Duration = Duration::from_secs(60);
/// A topic that was just made is not known to every broker at once.
const MISSING_LIMIT: Duration = Duration::from_secs(5);
/// Answers in a row without any progress, before that is a failure.
const STUCK_LIMIT: u32 = 10;
/// Decoding tasks; a partition is always decoded by the same one.
const DECODERS: usize = 4;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// A broker that is fetched from.
#[derive(Debug)]
struct Broker {
    connection: Option<Connection>,
    session: Session,
    busy: bool,
    retry_at: Option<Instant>,
    backoff: Backoff,
}

/// The broker forgot the session or sees it at another point: the next request starts a new one.
fn is_session_error(code: i16) -> bool {
    matches!(
        code,
        errors::FETCH_SESSION_ID_NOT_FOUND | errors::INVALID_FETCH_SESSION_EPOCH | errors::FETCH_SESSION_TOPIC_ID_ERROR
    )
}

/// What the log's ends are, asked after a position was out of range.
type Ends = (i32, Result<(i64, i64), SourceError>);

pub struct Reading {
    cluster: Arc<Cluster>,
    request: ReadRequest,
    events: mpsc::Sender<SourceEvent>,
    /// The topic's id; adopted from the first metadata where the request names none.
    topic_id: Option<[u8; 16]>,
    told_no_ids: bool,
    partitions: BTreeMap<i32, Partition>,
    brokers: BTreeMap<i32, Broker>,
    fetches: FuturesUnordered<BoxFuture<'static, Done>>,
    ends: FuturesUnordered<BoxFuture<'static, Ends>>,
    metadata: Option<BoxFuture<'static, Result<Option<TopicMetadata>, SourceError>>>,
    metadata_at: Instant,
    metadata_backoff: Backoff,
    missing_since: Option<Instant>,
    jobs: Vec<mpsc::UnboundedSender<Job>>,
    decoded: mpsc::UnboundedReceiver<Decoded>,
    undecoded_bytes: u64,
    answers: u64,
}

impl Reading {
    pub fn new(
        cluster: Arc<Cluster>,
        request: ReadRequest,
        events: mpsc::Sender<SourceEvent>,
        stop: &CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let (done, decoded) = mpsc::unbounded_channel();
        let decoders = std::thread::available_parallelism().map_or(1, usize::from).min(DECODERS);
        let jobs = (0..decoders.min(request.starts.len().max(1)))
            .map(|_| {
                let (sender, receiver) = mpsc::unbounded_channel();
                let (topic, budget) = (request.topic.clone(), request.budget.clone());
                let decoding = decoding::run(topic, budget, receiver, events.clone(), done.clone());
                let stop = stop.clone();
                tokio::spawn(async move { stop.run_until_cancelled(decoding).await });
                sender
            })
            .collect();
        let partition = |&(partition, offset): &(i32, i64)| {
            (partition, Partition::new(partition, offset, BACKOFF, PARTITION_BYTES))
        };
        Self {
            partitions: request.starts.iter().map(partition).collect(),
            cluster,
            request,
            events,
            topic_id: None,
            told_no_ids: false,
            brokers: BTreeMap::new(),
            fetches: FuturesUnordered::new(),
            ends: FuturesUnordered::new(),
            metadata: None,
            metadata_at: now,
            metadata_backoff: BACKOFF,
            missing_since: None,
            jobs,
            decoded,
            undecoded_bytes: 0,
            answers: 0,
        }
    }

    /// Reads until nobody listens or every partition failed.
    pub async fn run(mut self) {
        while self.partitions.values().any(|partition| partition.status != Status::Ended) {
            let now = Instant::now();
            self.start_metadata(now);
            self.start_fetches(now);
            let wake = self.next_wake(now);
            tokio::select! {
                () = self.events.closed() => return,
                Some(done) = self.fetches.next() => self.on_fetch(done),
                Some(decoded) = self.decoded.recv() => self.on_decoded(decoded),
                Some((partition, ends)) = self.ends.next() => self.on_ends(partition, ends),
                answer = async { match &mut self.metadata { Some(asked) => asked.await, None => std::future::pending().await } } => {
                    self.metadata = None;
                    self.on_metadata(answer);
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn next_wake(&self, now: Instant) -> Instant {
        let partitions = self.partitions.values().filter_map(|partition| partition.retry_at);
        let brokers = self.brokers.values().filter(|broker| !broker.busy).filter_map(|broker| broker.retry_at);
        let metadata = self.metadata.is_none().then_some(self.metadata_at);
        let next = partitions.chain(brokers).filter(|at| *at > now).chain(metadata).min();
        next.unwrap_or(now + METADATA_AGE).max(now + Duration::from_millis(1))
    }

    // --- metadata ---------------------------------------------------------------------------------------------------

    fn start_metadata(&mut self, now: Instant) {
        if self.metadata.is_some() || self.metadata_at > now {
            return;
        }
        let (cluster, topic) = (Arc::clone(&self.cluster), self.request.topic.clone());
        self.metadata = Some(Box::pin(async move { cluster.topic(&topic).await }));
    }

    /// Asks for metadata soon, and later the more often nothing came of it.
    fn want_metadata(&mut self) {
        let wait = self.metadata_backoff.next_wait(getrandom::u32().unwrap_or_default());
        self.metadata_at = self.metadata_at.min(Instant::now() + wait);
    }

    fn on_metadata(&mut self, answer: Result<Option<TopicMetadata>, SourceError>) {
        let now = Instant::now();
        self.metadata_at = now + METADATA_AGE;
        let topic = match answer {
            Ok(topic) => topic,
            Err(error @ SourceError::Unreachable { .. }) => {
                self.tell_waiting(&error.to_string(), |partition| partition.status == Status::Homeless);
                return self.want_metadata();
            }
            Err(error) => return self.fail_all(&error),
        };
        if let Some(topic) = &topic
            && !self.same_topic(topic.id)
        {
            return;
        }
        let metadata = topic.map(|topic| topic.partitions).unwrap_or_default();
        let (mut missing, mut homeless) = (None, false);
        for partition in self.partitions.values_mut().filter(|partition| partition.status != Status::Ended) {
            let Some(found) = metadata.iter().find(|found| found.partition == partition.partition) else {
                missing = Some(partition.partition);
                continue;
            };
            // Brokers learn of an election one after the other: an older epoch is old news.
            if found.leader_epoch >= 0 && found.leader_epoch < partition.leader_epoch {
                homeless |= partition.status == Status::Homeless;
                continue;
            }
            if found.leader < 0 || self.cluster.address(found.leader).is_none() {
                partition.status = match partition.status {
                    Status::Reading => Status::Homeless,
                    status => status,
                };
                homeless = true;
                continue;
            }
            if found.leader != partition.leader || found.leader_epoch != partition.leader_epoch {
                partition.replica = None;
            }
            (partition.leader, partition.leader_epoch) = (found.leader, found.leader_epoch);
            if partition.status == Status::Homeless {
                partition.status = Status::Reading;
            }
        }
        match missing {
            None => self.missing_since = None,
            Some(_) if self.missing_since.is_none_or(|since| now < since + MISSING_LIMIT) => {
                self.missing_since.get_or_insert(now);
            }
            Some(_) => {
                let topic = self.request.topic.clone();
                return self.fail_all(&SourceError::NoTopic { topic });
            }
        }
        if missing.is_some() || homeless {
            self.tell_waiting("it has no leader", |partition| partition.status == Status::Homeless);
            self.want_metadata();
        }
    }

    /// Checks the id against the one that the positions belong to; all fails where it is another.
    fn same_topic(&mut self, found: [u8; 16]) -> bool {
        let Some(found_id) = topic_id(found) else {
            if !self.told_no_ids {
                self.told_no_ids = true;
                tracing::warn!(
                    topic = self.request.topic,
                    "the brokers tell no topic ids (Kafka before 2.8): a topic that is deleted and made again is not noticed"
                );
            }
            return true;
        };
        let adopted = self.topic_id.and_then(topic_id);
        let expected = self.request.topic_id.clone().or(adopted);
        match expected {
            Some(expected) if expected != found_id => {
                let topic = self.request.topic.clone();
                self.fail_all(&SourceError::Recreated { topic, expected: expected.0, found: found_id.0 });
                false
            }
            _ => {
                self.topic_id = Some(found);
                true
            }
        }
    }

    // --- fetches ----------------------------------------------------------------------------------------------------

    fn start_fetches(&mut self, now: Instant) {
        let budget_bytes = self.request.budget.max_bytes();
        let room = self.undecoded_bytes == 0 || self.undecoded_bytes < budget_bytes / UNDECODED_SHARE;
        if !room {
            return;
        }
        let mut ready: BTreeMap<i32, Vec<&Partition>> = BTreeMap::new();
        let mut held_back: Vec<i32> = Vec::new();
        for partition in self.partitions.values() {
            if partition.is_ready(now) {
                ready.entry(partition.broker(now)).or_default().push(partition);
            } else if partition.is_held_back() {
                held_back.push(partition.broker(now));
            }
        }
        for (id, mut partitions) in ready {
            let broker = self.brokers.entry(id).or_insert_with(|| Broker {
                connection: None,
                session: Session::default(),
                busy: false,
                retry_at: None,
                backoff: BACKOFF,
            });
            if broker.busy || broker.retry_at.is_some_and(|at| at > now) {
                continue;
            }
            broker.busy = true;
            partitions.sort_by_key(|partition| partition.served);
            let max_bytes = (budget_bytes / ANSWER_SHARE).clamp(*ANSWER_BYTES.start(), *ANSWER_BYTES.end()) as i32;
            let fetch_partition = |partition: &&Partition| FetchPartition {
                partition: partition.partition,
                leader_epoch: partition.leader_epoch,
                offset: partition.position,
                last_fetched_epoch: partition.last_fetched_epoch,
                max_bytes: partition.max_bytes,
            };
            let wanted: Vec<FetchPartition> = partitions.iter().map(fetch_partition).collect();
            let connection = broker.connection.take().filter(Connection::is_usable);
            if connection.is_none() {
                broker.session.reset();
            }
            let changes = broker.session.changes(&wanted);
            let request = Fetch {
                max_wait_ms: if held_back.contains(&id) { SHORT_WAIT_MS } else { MAX_WAIT_MS },
                max_bytes,
                read_committed: self.request.isolation == Isolation::ReadCommitted,
                session_id: changes.session_id,
                session_epoch: changes.session_epoch,
                topic: self.request.topic.clone(),
                topic_id: self.topic_id.unwrap_or_default(),
                partitions: changes.partitions,
                forgotten: changes.forgotten,
                rack: self.cluster.client_rack().unwrap_or_default().to_owned(),
            };
            let asked = wanted.iter().map(|each| (each.partition, each.offset)).collect();
            let (cluster, budget) = (Arc::clone(&self.cluster), self.request.budget.clone());
            self.fetches.push(Box::pin(fetching::fetch(cluster, id, connection, request, asked, budget)));
        }
    }

    fn on_fetch(&mut self, done: Done) {
        let now = Instant::now();
        let Some(broker) = self.brokers.get_mut(&done.broker) else { return };
        broker.busy = false;
        broker.connection = done.connection;
        broker.retry_at = None;
        let (answer, permit) = match done.result {
            Ok(answer) => answer,
            Err(error @ SourceError::Unreachable { .. }) => return self.broker_failed(done.broker, &error.to_string()),
            Err(error) => {
                let partitions: Vec<i32> = done.asked.iter().map(|asked| asked.0).collect();
                return partitions.into_iter().for_each(|partition| self.fail(partition, error.clone()));
            }
        };
        if is_session_error(answer.error) {
            return broker.session.reset();
        }
        if answer.error != errors::NONE {
            return self.broker_failed(done.broker, &format!("fetch: {}", errors::name(answer.error)));
        }
        broker.session.answered(answer.session_id);
        broker.backoff.reset();
        if answer.throttle_ms > 0 {
            broker.retry_at = Some(now + Duration::from_millis(answer.throttle_ms as u64));
        }
        self.on_answer(done.broker, &done.asked, answer, permit);
    }

    fn broker_failed(&mut self, id: i32, reason: &str) {
        let now = Instant::now();
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        broker.session.reset();
        broker.retry_at = Some(now + broker.backoff.next_wait(getrandom::u32().unwrap_or_default()));
        for partition in self.partitions.values_mut().filter(|partition| partition.broker(now) == id) {
            partition.replica = None;
            if partition.status == Status::Reading {
                partition.status = Status::Homeless;
            }
        }
        self.tell_waiting(reason, |partition| partition.status == Status::Homeless);
        self.want_metadata();
    }

    fn on_answer(&mut self, broker: i32, asked: &[(i32, i64)], answer: FetchAnswer, mut permit: Permit) {
        self.answers += 1;
        for topic in answer.topics {
            for fetched in topic.partitions {
                // An answer to another position would be out of order.
                if !asked.contains(&(fetched.partition, self.position(fetched.partition))) {
                    continue;
                }
                if fetched.error == errors::NONE && fetched.diverging.is_none() {
                    self.on_records(fetched, &mut permit);
                } else {
                    self.on_error(broker, &fetched);
                }
            }
        }
    }

    fn position(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(-1, |partition| partition.position)
    }

    fn on_records(&mut self, fetched: FetchedPartition, permit: &mut Permit) {
        let now = Instant::now();
        let committed = self.request.isolation == Isolation::ReadCommitted;
        let Some(partition) = self.partitions.get_mut(&fetched.partition) else { return };
        if partition.status != Status::Reading {
            return;
        }
        partition.retry_at = None;
        partition.backoff.reset();
        partition.misplaced = 0;
        self.metadata_backoff.reset();
        if fetched.preferred_read_replica >= 0 && fetched.preferred_read_replica != partition.broker(now) {
            // The answer of a leader that names a nearer replica holds no records (KIP-392).
            partition.replica = Some((fetched.preferred_read_replica, now + METADATA_AGE * 5));
            return;
        }
        let position = partition.position;
        let walked = walk(position, &fetched.records);
        let end_offset = if committed { fetched.last_stable_offset } else { fetched.high_watermark };
        if walked.last_epoch >= 0 {
            partition.last_fetched_epoch = walked.last_epoch;
        }
        let moved = walked.next_offset > position;
        if !fetched.records.is_empty() {
            partition.served = self.answers;
        }
        if moved || fetched.records.is_empty() {
            partition.stuck = 0;
            partition.max_bytes = PARTITION_BYTES;
        } else if let Some(size) = walked.cut_off {
            // A batch larger than what was asked for comes whole only as the first of an answer.
            partition.max_bytes = i32::try_from(size).unwrap_or(i32::MAX).max(PARTITION_BYTES);
            partition.served = 0;
        }
        if !moved && !walked.damaged {
            if !fetched.records.is_empty() {
                partition.stuck += 1;
                if partition.stuck >= STUCK_LIMIT {
                    let message = format!(
                        "{STUCK_LIMIT} answers in a row held no whole batch at or above the position, although the log goes on to {end_offset}"
                    );
                    let error = self.unreadable(fetched.partition, position, message);
                    return self.fail(fetched.partition, error);
                }
                return;
            }
            if partition.told_end == end_offset {
                return;
            }
        }
        partition.told_end = end_offset;
        partition.position = walked.next_offset;
        partition.undecoded += 1;
        if walked.damaged {
            partition.status = Status::Ended;
        }
        let bytes = fetched.records.len() as u64;
        // The answer's permit goes over to its parts.
        permit.resize(permit.bytes().saturating_sub(bytes));
        let part = self.request.budget.charge(bytes);
        self.undecoded_bytes += bytes;
        let job = Fetched {
            partition: fetched.partition,
            position,
            aborted: if committed { fetched.aborted } else { Vec::new() },
            end_offset,
            log_start_offset: fetched.log_start_offset,
            records: fetched.records,
        };
        self.job(fetched.partition, Job::Decode(job, part));
    }

    fn on_error(&mut self, broker: i32, fetched: &FetchedPartition) {
        let now = Instant::now();
        let id = fetched.partition;
        let topic = self.request.topic.clone();
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if partition.status != Status::Reading {
            return;
        }
        let offset = partition.position;
        if let Some((_, end_offset)) = fetched.diverging {
            return self.fail(id, SourceError::Truncated { topic, partition: id, offset, end_offset });
        }
        // A follower may be behind; the leader is asked before anything is believed.
        if partition.replica.is_some() && broker != partition.leader {
            partition.replica = None;
            return;
        }
        match fetched.error {
            errors::OFFSET_OUT_OF_RANGE => {
                partition.status = Status::OutOfRange;
                let (cluster, leader, epoch) = (Arc::clone(&self.cluster), partition.leader, partition.leader_epoch);
                self.ends.push(Box::pin(async move { (id, offsets::ends(&cluster, leader, epoch, &topic, id).await) }));
            }
            errors::CORRUPT_MESSAGE | errors::UNSUPPORTED_COMPRESSION_TYPE => {
                let message = format!("the broker says {}", errors::name(fetched.error));
                let error = self.unreadable(id, offset, message);
                self.fail(id, error);
            }
            code if errors::is_refusal(code) => {
                let error = SourceError::Refused { what: format!("topic {topic}"), message: errors::name(code) };
                self.fail(id, error);
            }
            code => {
                partition.retry_at = Some(now + partition.backoff.next_wait(getrandom::u32().unwrap_or_default()));
                let reason = errors::name(code);
                match fetched.current_leader {
                    // The broker knows the new leader: no need to ask around (KIP-951).
                    Some((leader, epoch))
                        if epoch > partition.leader_epoch && self.cluster.address(leader).is_some() =>
                    {
                        (partition.leader, partition.leader_epoch) = (leader, epoch);
                        partition.retry_at = None;
                    }
                    _ => {
                        partition.status = Status::Homeless;
                        self.want_metadata();
                    }
                }
                self.tell_waiting(&reason, |partition| partition.partition == id);
            }
        }
    }

    fn on_ends(&mut self, id: i32, ends: Result<(i64, i64), SourceError>) {
        let now = Instant::now();
        let topic = self.request.topic.clone();
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let offset = partition.position;
        partition.retry_at = Some(now + partition.backoff.next_wait(getrandom::u32().unwrap_or_default()));
        match ends {
            Ok((log_start, log_end)) if offset < log_start || offset > log_end => {
                self.fail(id, SourceError::OutOfRange { topic, partition: id, offset, log_start, log_end });
            }
            Ok((_, end_offset)) if partition.misplaced >= STUCK_LIMIT => {
                // The epoch of the last batch read is not in the leader's log.
                self.fail(id, SourceError::Truncated { topic, partition: id, offset, end_offset });
            }
            Ok(_) => {
                partition.misplaced += 1;
                partition.status = Status::Reading;
            }
            Err(error @ SourceError::Unreachable { .. }) => {
                partition.status = Status::Homeless;
                self.want_metadata();
                self.tell_waiting(&error.to_string(), |partition| partition.partition == id);
            }
            Err(error) => self.fail(id, error),
        }
    }

    // --- decoding and events ----------------------------------------------------------------------------------------

    fn on_decoded(&mut self, decoded: Decoded) {
        self.undecoded_bytes = self.undecoded_bytes.saturating_sub(decoded.bytes);
        if let Some(partition) = self.partitions.get_mut(&decoded.partition) {
            partition.undecoded = partition.undecoded.saturating_sub(1);
            if decoded.failed {
                partition.status = Status::Ended;
            }
        }
    }

    fn job(&self, partition: i32, job: Job) {
        let index = usize::try_from(partition).unwrap_or(0) % self.jobs.len().max(1);
        // A decoder that is gone saw that nobody listens; so will this task.
        let _ = self.jobs.get(index).map(|jobs| jobs.send(job));
    }

    /// Ends a partition; its failure comes after all that was fetched before.
    fn fail(&mut self, id: i32, error: SourceError) {
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if partition.status == Status::Ended {
            return;
        }
        partition.status = Status::Ended;
        let offset = partition.position;
        self.job(id, Job::Fail { partition: id, offset, error });
    }

    fn fail_all(&mut self, error: &SourceError) {
        let partitions: Vec<i32> = self.partitions.keys().copied().collect();
        partitions.into_iter().for_each(|partition| self.fail(partition, error.clone()));
    }

    fn unreadable(&self, partition: i32, offset: i64, message: String) -> SourceError {
        SourceError::Unreadable { topic: self.request.topic.clone(), partition, offset, message }
    }

    /// Tells of a retry; dropped where the receiver is busy, it is for the status only.
    fn tell_waiting(&self, reason: &str, which: impl Fn(&Partition) -> bool) {
        for partition in self.partitions.values().filter(|partition| which(partition)) {
            let (partition, offset) = (partition.partition, partition.position);
            let _ = self.events.try_send(SourceEvent::Waiting { partition, offset, reason: reason.to_owned() });
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
