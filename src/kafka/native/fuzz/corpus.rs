//! What a real Kafka answered, as files: tests/fuzz_corpus/answers/<request>-v<version>-<what>.bin, each an answer without
//! its length. Batches and compressed payloads are taken out of the fetched ones.
//!
//! Owns: reading the files, recording them. Does not own: what they are used for.

use std::path::PathBuf;

use bytes::Bytes;

use crate::config::KafkaConfig;
use crate::kafka::contract_services::address;
use crate::kafka::native::batch::{self, Batch, Next};
use crate::kafka::native::connection::{ANSWER_LIMIT, Connection, read_frame};
use crate::kafka::native::messages::Request;
use crate::kafka::native::messages::api_versions::ApiVersions;
use crate::kafka::native::messages::describe_configs::DescribeConfigs;
use crate::kafka::native::messages::fetch::{BY_TOPIC_ID, Fetch, FetchPartition};
use crate::kafka::native::messages::group::{FindCoordinator, OffsetCommit};
use crate::kafka::native::messages::list_offsets::{LATEST, ListOffsets};
use crate::kafka::native::messages::metadata::Metadata;
use crate::kafka::native::messages::offset_for_leader_epoch::OffsetForLeaderEpoch;
use crate::kafka::native::messages::sasl::SaslHandshake;
use crate::kafka::native::security::Security;
use crate::kafka::native::stream::Address;

/// Larger answers are no better seeds.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

fn dir(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_corpus").join(name)
}

/// Files of a folder in the order of their names.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(dir(folder))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Inputs that once failed.
pub(super) fn found(target: &str) -> Vec<Vec<u8>> {
    files("found").into_iter().filter(|(name, _)| name.starts_with(&format!("{target}-"))).map(|file| file.1).collect()
}

/// Answers to a request, with their versions.
pub(super) fn answers(request: &str) -> Vec<(i16, Vec<u8>)> {
    files("answers")
        .into_iter()
        .filter_map(|(name, bytes)| {
            let rest = name.strip_prefix(&format!("{request}-v"))?;
            Some((rest.split('-').next()?.parse().unwrap(), bytes))
        })
        .collect()
}

/// The records of each fetched partition.
pub(super) fn records() -> Vec<Bytes> {
    let answers = answers(Fetch::API.name).into_iter();
    let fetched = answers.map(|(version, bytes)| read_frame::<Fetch>(bytes.into(), version).unwrap());
    let partitions = fetched.flat_map(|answer| answer.topics).flat_map(|topic| topic.partitions);
    partitions.map(|partition| partition.records).filter(|records| !records.is_empty()).collect()
}

/// Every whole batch of the fetched partitions.
pub(super) fn batches() -> Vec<Batch> {
    let mut batches = Vec::new();
    for mut rest in records() {
        while let Ok(Next::Batch(batch)) = batch::take(&mut rest) {
            batches.push(batch);
        }
    }
    batches
}

/// Sends a request and keeps the answer.
async fn keep<R: Request>(connection: &mut Connection, request: &R, version: i16, what: &str) -> R::Answer {
    connection.send(request, version).await.unwrap();
    let length = connection.answer_length(R::API.name, ANSWER_LIMIT).await.unwrap();
    let frame = connection.answer_body(R::API.name, length).await.unwrap();
    if frame.len() <= ANSWER_MAX_BYTES {
        std::fs::create_dir_all(dir("answers")).unwrap();
        std::fs::write(dir("answers").join(format!("{}-v{version}-{what}.bin", R::API.name)), &frame).unwrap();
    }
    read_frame::<R>(frame, version).unwrap()
}

/// First, last and one version between, as far as the broker speaks them.
fn versions(connection: &Connection, api: crate::kafka::native::messages::Api) -> Vec<i16> {
    let newest = connection.version(api).unwrap();
    let mut versions = vec![api.versions.0, api.flexible.min(newest), newest];
    versions.dedup();
    versions
}

/// The topics that tests/kafka_topics.rs makes, as far as they are there, by the beginning of their names.
const TOPICS: [&str; 12] = [
    "codec-none",
    "codec-gzip",
    "codec-snappy",
    "codec-lz4",
    "codec-zstd",
    "librdkafka-snappy",
    "librdkafka-lz4",
    "log-append-time",
    "transactions",
    "aborted",
    "compacted-transactional",
    "cases",
];

/// Recording starts with a Kafka on which tests/kafka_topics.rs ran.
#[tokio::test]
#[ignore = "writes the corpus anew"]
async fn record() {
    let Some(address) = address() else { return };
    let settings = KafkaConfig::plaintext(&address);
    let address = Address::parse(&settings.bootstrap_servers[0]).unwrap();
    let mut connection = Connection::open(&address, &Security::new(&settings.security)).await.unwrap();
    let connection = &mut connection;
    for version in [0, 3] {
        keep(connection, &ApiVersions, version, "all").await;
    }
    let known = connection.ask(&Metadata { topics: None }).await.unwrap();
    for prefix in TOPICS {
        let topic = known.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|name| name.starts_with(prefix)));
        let topic = topic.unwrap_or_else(|| panic!("no topic {prefix}-.. here"));
        let name = topic.name.clone().unwrap();
        // The records are the same in every version.
        let older = if prefix == "aborted" { 0 } else { 2 };
        for version in versions(connection, Fetch::API).into_iter().skip(older) {
            let request = Fetch {
                max_wait_ms: 0,
                max_bytes: 8000,
                read_committed: true,
                session_id: 0,
                session_epoch: -1,
                topic: name.clone(),
                topic_id: if version >= BY_TOPIC_ID { topic.id } else { [0; 16] },
                partitions: vec![FetchPartition {
                    partition: 0,
                    leader_epoch: -1,
                    offset: 0,
                    last_fetched_epoch: -1,
                    max_bytes: 8000,
                }],
                forgotten: Vec::new(),
                rack: String::new(),
            };
            keep(connection, &request, version, prefix).await;
        }
    }
    let topic = known.topics.iter().find(|topic| topic.name.as_ref().is_some_and(|name| name.starts_with("trans")));
    let topic = topic.and_then(|topic| topic.name.clone()).unwrap();
    for (version, name, what) in [(7, topic.clone(), "one"), (9, topic.clone(), "one"), (12, "no-such".into(), "none")]
    {
        keep(connection, &Metadata { topics: Some(vec![name]) }, version, what).await;
    }
    for version in versions(connection, ListOffsets::API) {
        let (topic, partition) = (topic.clone(), 0);
        let asked = ListOffsets { topic, partition, leader_epoch: 0, timestamp: LATEST, read_committed: true };
        keep(connection, &asked, version, "latest").await;
    }
    for version in versions(connection, OffsetForLeaderEpoch::API) {
        let (topic, partition) = (topic.clone(), 0);
        let asked = OffsetForLeaderEpoch { topic, partition, current_leader_epoch: 0, leader_epoch: 0 };
        keep(connection, &asked, version, "zero").await;
    }
    for version in versions(connection, DescribeConfigs::API) {
        let keys = vec!["retention.ms".into(), "cleanup.policy".into()];
        keep(connection, &DescribeConfigs { topic: topic.clone(), keys }, version, "retention").await;
    }
    for version in versions(connection, FindCoordinator::API) {
        keep(connection, &FindCoordinator { group: "fuzz".into() }, version, "group").await;
    }
    for version in versions(connection, OffsetCommit::API) {
        let asked = OffsetCommit { group: "fuzz".into(), topic: topic.clone(), offsets: vec![(0, 1), (9999, 1)] };
        keep(connection, &asked, version, "two").await;
    }
    // The last one: a listener without SASL says so and closes the connection.
    keep(connection, &SaslHandshake { mechanism: "PLAIN" }, 1, "refused").await;
}
