//! Reads partitions through rskafka: one task, one connection per partition.
//!
//! Owns: the position of a running read, retries, the watch over a stall. Does not own: what rskafka's errors mean.

use std::sync::Arc;
use std::time::Duration;

use rskafka::client::error::{Error as ClientError, ProtocolError};
use rskafka::client::partition::PartitionClient;
use rskafka::record::RecordAndOffset;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::rskafka_source::{Cluster, ask_offset, explain, is_undecodable, limited};
use sluice::kafka::backoff::Backoff;
use sluice::pipeline::budget::Budget;
use sluice::pipeline::source::{At, ReadRequest, SourceError, SourceEvent};
use sluice::record::{Block, BlockBuilder, write_header};

/// How long Kafka holds a fetch for which it has nothing.
const MAX_WAIT_MS: i32 = 500;
/// rskafka shows a batch that lost its last records to compaction as an empty answer, for ever.
const STALL_LIMIT: Duration = Duration::from_secs(30);
const FETCH_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=1024 * 1024;

/// Starts one task per partition; each ends with `stop`, with a closed receiver, or after [`SourceEvent::Failed`].
pub(super) fn start(
    cluster: &Arc<Cluster>,
    request: &ReadRequest,
    events: &mpsc::Sender<SourceEvent>,
    stop: &CancellationToken,
) {
    // Every partition may hold a fetch at once, and half of the budget is left for what the fetches turn into.
    let share = request.budget.max_bytes() / 2 / (request.starts.len().max(1) as u64);
    let fetch_bytes = share.clamp(*FETCH_BYTES.start(), *FETCH_BYTES.end());
    for &(partition, offset) in &request.starts {
        let reading = PartitionReading {
            cluster: Arc::clone(cluster),
            topic: request.topic.clone(),
            partition,
            offset,
            end_offset: -1,
            budget: request.budget.clone(),
            fetch_bytes,
            events: events.clone(),
        };
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(reading.run()).await });
    }
}

struct PartitionReading {
    cluster: Arc<Cluster>,
    topic: String,
    partition: i32,
    offset: i64,
    end_offset: i64,
    budget: Budget,
    fetch_bytes: u64,
    events: mpsc::Sender<SourceEvent>,
}

impl PartitionReading {
    async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            let error = match self.read_from_leader(&mut backoff).await {
                Ok(()) => return,
                Err(error) => error,
            };
            let (partition, offset) = (self.partition, self.offset);
            let transient = matches!(error, SourceError::Unreachable { .. });
            let event = if transient {
                SourceEvent::Waiting { partition, offset, reason: error.to_string() }
            } else {
                SourceEvent::Failed { partition, offset, error }
            };
            if self.events.send(event).await.is_err() || !transient {
                return;
            }
            backoff.wait().await;
        }
    }

    /// Fetches until an error, or until nobody listens (`Ok`).
    async fn read_from_leader(&mut self, backoff: &mut Backoff) -> Result<(), SourceError> {
        if self.cluster.find(&self.topic).await?.is_none() {
            return Err(SourceError::NoTopic { topic: self.topic.clone() });
        }
        let client = self.cluster.partition(&self.topic, self.partition).await?;
        let what = format!("fetch of topic {} partition {}", self.topic, self.partition);
        let mut progress = Instant::now();
        loop {
            let Some(mut permit) = self.unless_closed(self.budget.reserve(self.fetch_bytes)).await else {
                return Ok(());
            };
            let bytes = 1..i32::try_from(self.fetch_bytes).unwrap_or(i32::MAX);
            let fetch = limited(&what, client.fetch_records(self.offset, bytes, MAX_WAIT_MS));
            let Some(answer) = self.unless_closed(fetch).await else { return Ok(()) };
            let (records, high_watermark) = match answer? {
                Ok(answer) => answer,
                Err(error) => return Err(self.explain_fetch(&client, &what, &error).await),
            };
            backoff.reset();
            let moved = !records.is_empty();
            if moved || high_watermark <= self.offset {
                progress = Instant::now();
            } else if progress.elapsed() >= STALL_LIMIT {
                self.check_stall(&client, high_watermark).await?;
                progress = Instant::now();
            }
            if !moved && high_watermark == self.end_offset {
                continue;
            }
            self.end_offset = high_watermark;
            let block = self.block(records, high_watermark)?;
            self.offset = block.next_offset;
            permit.resize(block.memory_bytes());
            if self.events.send(SourceEvent::Block(block, permit)).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn unless_closed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.events.closed() => None,
            done = work => Some(done),
        }
    }

    fn block(&self, records: Vec<RecordAndOffset>, high_watermark: i64) -> Result<Block, SourceError> {
        let mut block = BlockBuilder::default();
        let mut next_offset = self.offset;
        for RecordAndOffset { record, offset } in &records {
            next_offset = offset + 1;
            block
                .push(
                    *offset,
                    record.timestamp.timestamp_millis(),
                    record.key.as_deref(),
                    record.value.as_deref(),
                    |out| {
                        for (key, value) in &record.headers {
                            write_header(out, key.as_bytes(), Some(value));
                        }
                        record.headers.len() as u32
                    },
                )
                .map_err(|error| self.unreadable(error.to_string()))?;
        }
        Ok(block.finish(self.partition, next_offset, high_watermark))
    }

    fn unreadable(&self, message: String) -> SourceError {
        SourceError::Unreadable { topic: self.topic.clone(), partition: self.partition, offset: self.offset, message }
    }

    /// An open transaction also stands still below the high watermark, but not below the last stable offset.
    async fn check_stall(&self, client: &PartitionClient, high_watermark: i64) -> Result<(), SourceError> {
        let end = ask_offset(client, At::Latest).await?;
        if end <= self.offset {
            return Ok(());
        }
        Err(self.unreadable(format!(
            "no record came for {} s although the log goes on to {high_watermark}; this client can't read past a batch whose last \
             records were removed by compaction",
            STALL_LIMIT.as_secs()
        )))
    }

    async fn explain_fetch(&self, client: &PartitionClient, what: &str, error: &ClientError) -> SourceError {
        let ClientError::ServerError { protocol_error, .. } = error else {
            return if is_undecodable(error) {
                self.unreadable(format!("this client can't decode what lies there: {error}"))
            } else {
                explain(what, error)
            };
        };
        match protocol_error {
            ProtocolError::OffsetOutOfRange => {
                let log_start = ask_offset(client, At::Earliest).await;
                let log_end = ask_offset(client, At::Latest).await;
                match (log_start, log_end) {
                    (Ok(log_start), Ok(log_end)) => SourceError::OutOfRange {
                        topic: self.topic.clone(),
                        partition: self.partition,
                        offset: self.offset,
                        log_start,
                        log_end,
                    },
                    (Err(error), _) | (_, Err(error)) => error,
                }
            }
            ProtocolError::CorruptMessage => self.unreadable(error.to_string()),
            _ => explain(what, error),
        }
    }
}
