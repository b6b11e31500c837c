//! The contract on a real Kafka. `SLUICE_TEST_KAFKA` names it (`host:port`); `SLUICE_TEST_REQUIRE_SERVICES=1` makes its
//! absence a failure.
//!
//! Owns: filling a real cluster through rskafka. Does not own: what is expected.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;

use crate::config::KafkaConfig;
use crate::kafka::contract::{self, Cluster};
use crate::kafka::memory::MemoryRecord;
use crate::kafka::native;
use crate::pipeline::source::Kafka;

/// The address of the test cluster; `None`, with the reason printed, where there is none.
#[allow(clippy::print_stderr, reason = "a test that did not run says so")]
pub(super) fn address() -> Option<String> {
    let address = std::env::var("SLUICE_TEST_KAFKA").ok();
    if address.is_none() {
        let required = std::env::var("SLUICE_TEST_REQUIRE_SERVICES").is_ok_and(|value| value == "1");
        assert!(!required, "SLUICE_TEST_KAFKA is not set and services are required");
        eprintln!("not run: SLUICE_TEST_KAFKA names no Kafka");
    }
    address
}

/// Keeps the topics of one run of the tests apart from those of another.
pub(super) fn prefix(name: &str) -> String {
    format!("{name}-{:08x}", getrandom::u32().unwrap())
}

pub(super) struct RealCluster {
    kafka: Arc<dyn Kafka>,
    client: Client,
}

impl RealCluster {
    pub(super) async fn new(address: &str, kafka: Arc<dyn Kafka>) -> Self {
        let servers = address.split(',').map(str::to_owned).collect();
        Self { kafka, client: ClientBuilder::new(servers).build().await.unwrap() }
    }
}

#[async_trait]
impl Cluster for RealCluster {
    fn kafka(&self) -> &dyn Kafka {
        &*self.kafka
    }

    async fn create_topic(&self, name: &str, partitions: usize) {
        let controller = self.client.controller_client().unwrap();
        controller.create_topic(name, partitions as i32, 1, 30_000).await.unwrap();
        // A broker learns of a new partition a moment after the controller made it.
        for partition in 0..partitions as i32 {
            self.client.partition_client(name, partition, UnknownTopicHandling::Retry).await.unwrap();
        }
    }

    async fn append(&self, topic: &str, partition: i32, records: Vec<MemoryRecord>) -> i64 {
        let client = self.client.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap();
        let records = records.into_iter().map(|record| Record {
            key: record.key,
            value: record.value,
            headers: record
                .headers
                .into_iter()
                .map(|(key, value)| (String::from_utf8(key).unwrap(), value.unwrap()))
                .collect::<BTreeMap<_, _>>(),
            timestamp: DateTime::from_timestamp_millis(record.timestamp_ms).unwrap(),
        });
        client.produce(records.collect(), Compression::Lz4).await.unwrap()[0]
    }

    async fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let client = self.client.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap();
        client.delete_records(offset, 30_000).await.unwrap();
    }
}

#[tokio::test]
async fn native_keeps_the_contract() {
    let Some(address) = address() else { return };
    let kafka = native::connect(&KafkaConfig::plaintext(&address)).await.unwrap();
    contract::run(&RealCluster::new(&address, kafka).await, &prefix("native")).await;
}
