//! A topic as librdkafka reads it: an oracle that shares no code with Kafka's Java client or with us.
//!
//! Owns: reading a topic to its end with librdkafka. Does not own: what is expected, making topics (librdkafka is asked
//! to make none).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders, Timestamp};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sluice::pipeline::source::Isolation;

use super::kafka::{HANG, hex};

/// Who set the records' timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
    /// The record has no time.
    None,
}

/// What librdkafka shows of a topic.
pub struct Seen {
    /// A line each as [`super::kafka::line`] writes it, sorted.
    pub lines: Vec<String>,
    pub timestamp_types: BTreeSet<TimestampType>,
}

/// Reads from the start to the end that librdkafka itself finds: the last stable offset with read_committed.
pub fn read(address: &str, topic: &str, isolation: Isolation) -> Seen {
    let isolation = match isolation {
        Isolation::ReadCommitted => "read_committed",
        Isolation::ReadUncommitted => "read_uncommitted",
    };
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "oracle")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        // The end is only told after this wait.
        .set("fetch.wait.max.ms", "10")
        .set("isolation.level", isolation)
        .set("log_level", "3")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), HANG).unwrap();
    let mut open: BTreeSet<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    let mut assignment = TopicPartitionList::new();
    for &partition in &open {
        // A fixed offset instead of `Beginning`, so that a reset is an error and not a surprise.
        let (start, _) = consumer.fetch_watermarks(topic, partition, HANG).unwrap();
        assignment.add_partition_offset(topic, partition, Offset::Offset(start)).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut seen = Seen { lines: Vec::new(), timestamp_types: BTreeSet::new() };
    let mut moved = Instant::now();
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            None => assert!(moved.elapsed() < HANG, "librdkafka hangs on {topic}, partitions {open:?}"),
            Some(Ok(message)) => {
                moved = Instant::now();
                seen.take(&message);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => eprintln!("librdkafka: {error}"),
        }
    }
    seen.lines.sort();
    seen
}

impl Seen {
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let (kind, timestamp) = match message.timestamp() {
            Timestamp::NotAvailable => (TimestampType::None, -1),
            Timestamp::CreateTime(at) => (TimestampType::CreateTime, at),
            Timestamp::LogAppendTime(at) => (TimestampType::LogAppendTime, at),
        };
        self.timestamp_types.insert(kind);
        let mut line = format!(
            "{:05} {:020} {timestamp} {} {}",
            message.partition(),
            message.offset(),
            hex(message.key()),
            hex(message.payload())
        );
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            line.push_str(&format!(" {}={}", hex(Some(header.key.as_bytes())), hex(header.value)));
        }
        self.lines.push(line);
    }
}

/// Produces records to partition 0, every third one with headers.
pub fn produce(address: &str, topic: &str, codec: &str, count: usize) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("compression.codec", codec)
        .set("linger.ms", "5")
        .create()
        .unwrap();
    for n in 0..count {
        let (key, value) = (format!("k{n}"), format!("{{\"n\":{n},\"text\":\"{}\"}}", "abc".repeat(n % 70)));
        let mut record = BaseRecord::to(topic).partition(0).key(&key).payload(&value);
        if n % 3 == 0 {
            let headers = OwnedHeaders::new()
                .insert(Header { key: "h", value: Some("1") })
                .insert(Header { key: "h", value: None::<&str> });
            record = record.headers(headers);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(HANG).unwrap();
}
