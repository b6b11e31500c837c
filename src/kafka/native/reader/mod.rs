//! A running read of one topic: one connection per broker that leads some of its partitions, one fetch under way on each.
//!
//! Owns: the loop, which partitions are fetched from which broker next, failures. Does not own: what answers
//! ([`answers`]) and metadata ([`leaders`]) mean, whether the log is the same ([`proofs`]), a fetch itself ([`super::fetching`]), decoding ([`super::decoding`]).
//!
//! Everything is decided in one task: questions are futures that it polls, so there are no locks and no order to get wrong.
//! A partition's answers are decoded in the order they came; the next fetch goes out while the last answer is decoded.

mod answers;
mod leaders;
mod proofs;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kafka::backoff::Backoff;
use crate::kafka::native::cluster::Cluster;
use crate::kafka::native::connection::Connection;
use crate::kafka::native::decoding::{self, Decoded, Job, panic_text};
use crate::kafka::native::errors;
use crate::kafka::native::fetching::{self, Done};
use crate::kafka::native::messages::fetch::{Fetch, FetchPartition};
use crate::kafka::native::messages::metadata::TopicMetadata;
use crate::kafka::native::partition::{Partition, Status};
use crate::kafka::native::reader::leaders::METADATA_AGE;
use crate::kafka::native::reader::proofs::Proof;
use crate::kafka::native::session::Session;
use crate::pipeline::source::{Isolation, ReadRequest, SourceError, SourceEvent};

/// How long a broker may hold a fetch for which it has nothing: an idle worker asks once in it. The first record ends the wait.
const MAX_WAIT_MS: i32 = 1000;
/// The same while a partition could be fetched soon that the request leaves out.
const SHORT_WAIT_MS: i32 = 10;
const PARTITION_BYTES: i32 = 1024 * 1024;
/// Of the budget, what one answer may take.
const ANSWER_SHARE: u64 = 16;
/// Larger ones leave the processor's cache between the socket and the decoder, which costs about a fifth more CPU.
const ANSWER_BYTES: std::ops::RangeInclusive<u64> = 256 * 1024..=2 * 1024 * 1024;
/// Of the budget, what may wait to be decoded.
const UNDECODED_SHARE: u64 = 4;
/// More than this is no help to the decoders, and grows cold.
const UNDECODED_MAX_BYTES: u64 = 8 * 1024 * 1024;
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
    proofs: FuturesUnordered<BoxFuture<'static, Proof>>,
    told_no_epochs: bool,
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
        let seen = |wanted| request.seen.iter().find(|(partition, _)| *partition == wanted).map(|(_, seen)| *seen);
        let partition = |&(partition, offset): &(i32, i64)| {
            let mut new = Partition::new(partition, offset, BACKOFF, PARTITION_BYTES);
            new.seen = seen(partition).and_then(|seen| Some((seen.offset, seen.leader_epoch?)));
            (partition, new)
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
            proofs: FuturesUnordered::new(),
            told_no_epochs: false,
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

    /// Reads until nobody listens or every partition failed; a mistake of ours is a failure of every partition.
    pub async fn run_to_the_end(self) {
        let events = self.events.clone();
        let (topic, starts) = (self.request.topic.clone(), self.request.starts.clone());
        let Err(panic) = AssertUnwindSafe(self.run()).catch_unwind().await else { return };
        let message = format!("the reader panicked: {}", panic_text(&*panic));
        for (partition, offset) in starts {
            let what = format!("topic {topic} partition {partition}");
            let error = SourceError::Unreachable { what, message: message.clone() };
            if events.send(SourceEvent::Failed { partition, offset, error }).await.is_err() {
                return;
            }
        }
    }

    async fn run(mut self) {
        while self.partitions.values().any(|partition| partition.status != Status::Ended) {
            let now = Instant::now();
            self.check_decoders();
            self.start_metadata(now);
            self.start_proofs();
            self.start_fetches(now);
            let wake = self.next_wake(now);
            tokio::select! {
                () = self.events.closed() => return,
                Some(done) = self.fetches.next() => self.on_fetch(done),
                Some(decoded) = self.decoded.recv() => self.on_decoded(decoded),
                Some((partition, ends)) = self.ends.next() => self.on_ends(partition, ends),
                Some(proof) = self.proofs.next() => self.on_proof(proof),
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

    fn start_fetches(&mut self, now: Instant) {
        let budget_bytes = self.request.budget.max_bytes();
        let most = (budget_bytes / UNDECODED_SHARE).min(UNDECODED_MAX_BYTES);
        let room = self.undecoded_bytes == 0 || self.undecoded_bytes < most;
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

    fn on_decoded(&mut self, decoded: Decoded) {
        self.undecoded_bytes = self.undecoded_bytes.saturating_sub(decoded.bytes);
        if let Some(partition) = self.partitions.get_mut(&decoded.partition) {
            partition.undecoded = partition.undecoded.saturating_sub(1);
            if decoded.failed {
                partition.status = Status::Ended;
            }
        }
    }

    fn decoder(&self, partition: i32) -> usize {
        usize::try_from(partition).unwrap_or(0) % self.jobs.len().max(1)
    }

    fn job(&self, partition: i32, job: Job) {
        // A decoder that is gone saw that nobody listens, or is found by `check_decoders`.
        let _ = self.jobs.get(self.decoder(partition)).map(|jobs| jobs.send(job));
    }

    /// A decoder ends when nobody listens; one that ended before is a mistake of ours, and nothing of its partitions would
    /// ever come again.
    fn check_decoders(&mut self) {
        let ended: Vec<bool> = self.jobs.iter().map(mpsc::UnboundedSender::is_closed).collect();
        if !ended.contains(&true) || self.events.is_closed() {
            return;
        }
        let of_ended: Vec<i32> = self.partitions.keys().copied().filter(|&id| ended[self.decoder(id)]).collect();
        for partition in self.partitions.values_mut().filter(|each| of_ended.contains(&each.partition)) {
            if partition.status == Status::Ended {
                continue;
            }
            partition.status = Status::Ended;
            let (id, offset) = (partition.partition, partition.position);
            let what = format!("topic {} partition {id}", self.request.topic);
            let error = SourceError::Unreachable { what, message: "the task that decodes it ended".into() };
            let (events, event) = (self.events.clone(), SourceEvent::Failed { partition: id, offset, error });
            tokio::spawn(async move { events.send(event).await });
        }
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
pub(in crate::kafka::native) use answers::tests::PANIC;
#[cfg(test)]
mod tests;
