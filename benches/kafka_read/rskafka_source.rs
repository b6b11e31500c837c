//! The door to Kafka on the crate rskafka.
//!
//! Owns: connecting, asking for topics and offsets, and what rskafka's errors mean to a reader.
//! Does not own: the loop that reads a partition ([`crate::rskafka_reader`]).
//!
//! What rskafka can't do fails or is documented, it is never guessed: no TLS, no OAUTHBEARER, no topic ids, no cluster id,
//! topics with transactions (their markers fail to decode), LogAppendTime (the time of the producer is shown), duplicate
//! header names (the last one is shown). It always reads committed records only.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rskafka::BackoffConfig;
use rskafka::chrono::{DateTime, Utc};
use rskafka::client::error::{Error as ClientError, ProtocolError, RequestError};
use rskafka::client::partition::{OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::rskafka_reader;
use sluice::config::{KafkaConfig, SaslMechanism, SecurityProtocol};
use sluice::pipeline::source::{At, Isolation, Kafka, ReadRequest, Reader, SourceError, SourceEvent, TopicInfo};

/// Longest wait for an answer. rskafka retries inside for ever, also where nothing will change (a leader that moved between
/// two of its steps), so every call carries this limit.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// Connects to the first bootstrap server that answers.
///
/// # Errors
/// [`SourceError::Unreachable`] when none answers in time, [`SourceError::Refused`] for security settings that rskafka has
/// no way to follow.
pub async fn connect(config: &KafkaConfig) -> Result<Arc<dyn Kafka>, SourceError> {
    let client = build(config).await?;
    Ok(Arc::new(RskafkaSource { cluster: Arc::new(Cluster { client }) }))
}

#[derive(Debug)]
struct RskafkaSource {
    cluster: Arc<Cluster>,
}

#[derive(Debug)]
pub(super) struct Cluster {
    client: Client,
}

async fn build(config: &KafkaConfig) -> Result<Client, SourceError> {
    let what = format!("cluster {}", config.bootstrap_servers.join(","));
    let mut builder =
        ClientBuilder::new(config.bootstrap_servers.clone()).client_id("sluice").backoff_config(BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
            deadline: Some(CALL_LIMIT),
        });
    if let Some(sasl) = sasl(config)? {
        builder = builder.sasl_config(sasl);
    }
    limited(&what, builder.build()).await?.map_err(|error| explain(&what, &error))
}

fn sasl(config: &KafkaConfig) -> Result<Option<SaslConfig>, SourceError> {
    let refused = |message: String| SourceError::Refused { what: "security".into(), message };
    match config.security.protocol {
        SecurityProtocol::Plaintext => return Ok(None),
        SecurityProtocol::SaslPlaintext => {}
        SecurityProtocol::Ssl | SecurityProtocol::SaslSsl => {
            return Err(refused("this client has no TLS; use PLAINTEXT or SASL_PLAINTEXT".into()));
        }
    }
    let settings = &config.security.sasl;
    let password = match &settings.password_file {
        None => String::new(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| refused(format!("sasl.password_file {}: {error}", file.display())))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
    };
    let credentials = Credentials::new(settings.username.clone().unwrap_or_default(), password);
    match settings.mechanism {
        Some(SaslMechanism::Plain) => Ok(Some(SaslConfig::Plain(credentials))),
        Some(SaslMechanism::ScramSha256) => Ok(Some(SaslConfig::ScramSha256(credentials))),
        Some(SaslMechanism::ScramSha512) => Ok(Some(SaslConfig::ScramSha512(credentials))),
        Some(SaslMechanism::OauthBearer) => Err(refused("this client has no OAUTHBEARER".into())),
        None => Err(refused("sasl.mechanism is not set".into())),
    }
}

impl Cluster {
    /// A client of its own for one partition; the caller knows that the topic exists.
    pub(super) async fn partition(&self, topic: &str, partition: i32) -> Result<PartitionClient, SourceError> {
        let what = format!("topic {topic} partition {partition}");
        let client = self.client.partition_client(topic, partition, UnknownTopicHandling::Error);
        limited(&what, client).await?.map_err(|error| explain(&what, &error))
    }

    /// rskafka asks Kafka for a topic in a way that creates a missing one, so the list of all topics is asked first.
    pub(super) async fn find(&self, name: &str) -> Result<Option<TopicInfo>, SourceError> {
        let what = "list of topics";
        let topics = limited(what, self.client.list_topics()).await?.map_err(|error| explain(what, &error))?;
        Ok(topics.into_iter().find(|topic| topic.name == name).map(|topic| TopicInfo {
            name: topic.name,
            id: None,
            partitions: topic.partitions.into_iter().collect(),
        }))
    }
}

#[async_trait]
impl Kafka for RskafkaSource {
    async fn cluster_id(&self) -> Result<Option<String>, SourceError> {
        Ok(None)
    }

    async fn topics(&self) -> Result<Vec<String>, SourceError> {
        let what = "list of topics";
        let topics = limited(what, self.cluster.client.list_topics()).await?.map_err(|error| explain(what, &error))?;
        Ok(topics.into_iter().map(|topic| topic.name).collect())
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>, SourceError> {
        self.cluster.find(name).await
    }

    async fn offset(&self, topic: &str, partition: i32, at: At, _isolation: Isolation) -> Result<i64, SourceError> {
        if self.cluster.find(topic).await?.is_none_or(|found| !found.partitions.contains(&partition)) {
            return Err(SourceError::NoTopic { topic: topic.to_owned() });
        }
        let client = self.cluster.partition(topic, partition).await?;
        ask_offset(&client, at).await
    }

    fn read(&self, request: ReadRequest, events: mpsc::Sender<SourceEvent>) -> Reader {
        let stop = CancellationToken::new();
        rskafka_reader::start(&self.cluster, &request, &events, &stop);
        Reader::new(stop)
    }
}

/// Asks the leader of a partition for an offset.
pub(super) async fn ask_offset(client: &PartitionClient, at: At) -> Result<i64, SourceError> {
    let what = format!("offsets of topic {} partition {}", client.topic(), client.partition());
    let what = &what;
    let ask = |at| async move { limited(what, client.get_offset(at)).await?.map_err(|error| explain(what, &error)) };
    let offset = match at {
        At::Earliest => return ask(OffsetAt::Earliest).await,
        At::Latest => return ask(OffsetAt::Latest).await,
        At::TimestampMs(ms) => {
            let time = DateTime::from_timestamp_millis(ms.max(0)).unwrap_or(DateTime::<Utc>::MAX_UTC);
            ask(OffsetAt::Timestamp(time)).await?
        }
    };
    // -1: no record is that young.
    if offset < 0 { ask(OffsetAt::Latest).await } else { Ok(offset) }
}

pub(super) async fn limited<T>(what: &str, call: impl Future<Output = T>) -> Result<T, SourceError> {
    tokio::time::timeout(CALL_LIMIT, call).await.map_err(|_| SourceError::Unreachable {
        what: what.to_owned(),
        message: format!("no answer within {} s", CALL_LIMIT.as_secs()),
    })
}

/// What an error means to a caller that asked for `what`.
pub(super) fn explain(what: &str, error: &ClientError) -> SourceError {
    let message = error.to_string();
    let refused = match error {
        ClientError::ServerError { protocol_error, .. } => matches!(
            protocol_error,
            ProtocolError::TopicAuthorizationFailed
                | ProtocolError::ClusterAuthorizationFailed
                | ProtocolError::SaslAuthenticationFailed
                | ProtocolError::UnsupportedSaslMechanism
        ),
        ClientError::Connection(error) => error.to_string().contains("Sasl handshake failed"),
        _ => false,
    };
    if refused {
        SourceError::Refused { what: what.to_owned(), message }
    } else {
        SourceError::Unreachable { what: what.to_owned(), message }
    }
}

/// True for an answer that arrived whole and can't be decoded: the same bytes would fail again.
pub(super) fn is_undecodable(error: &ClientError) -> bool {
    match error {
        ClientError::Request(error) => !matches!(error, RequestError::IO(_) | RequestError::Poisoned(_)),
        ClientError::InvalidResponse(message) => message.contains("imestamp"),
        _ => false,
    }
}
