//! What is known of a cluster, and a connection to each broker for everything but fetches.
//!
//! Owns: finding a broker that answers, metadata, questions to one broker. Does not own: the reading of records, which has
//! connections of its own since a broker answers one request of a connection at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use crate::config::KafkaConfig;
use crate::kafka::native::connection::Connection;
use crate::kafka::native::errors;
use crate::kafka::native::messages::Request;
use crate::kafka::native::messages::metadata::{Metadata, MetadataAnswer, TopicMetadata};
use crate::kafka::native::security::Security;
use crate::kafka::native::stream::Address;
use crate::pipeline::source::{SourceError, TopicId};

/// A broker's address and the connection for questions to it.
#[derive(Debug)]
struct Node {
    address: Address,
    connection: AsyncMutex<Option<Connection>>,
    /// Failures in a row.
    failures: AtomicU32,
}

impl Node {
    fn new(address: Address) -> Arc<Self> {
        Arc::new(Self { address, connection: AsyncMutex::new(None), failures: AtomicU32::new(0) })
    }

    async fn ask<R: Request>(&self, security: &Security, request: &R) -> Result<R::Answer, SourceError> {
        let answer = self.try_ask(security, request).await;
        match answer {
            Ok(_) => self.failures.store(0, Ordering::Relaxed),
            Err(_) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        answer
    }

    async fn try_ask<R: Request>(&self, security: &Security, request: &R) -> Result<R::Answer, SourceError> {
        let mut slot = self.connection.lock().await;
        if let Some(mut connection) = slot.take().filter(Connection::is_usable) {
            match connection.ask(request).await {
                Ok(answer) => {
                    *slot = Some(connection);
                    return Ok(answer);
                }
                // Brokers close connections that were idle: that alone is no failure.
                Err(SourceError::Unreachable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut connection = Connection::open(&self.address, security).await?;
        let answer = connection.ask(request).await?;
        *slot = Some(connection);
        Ok(answer)
    }
}

/// A cluster; shared by everything that talks to it.
#[derive(Debug)]
pub struct Cluster {
    security: Security,
    client_rack: Option<String>,
    bootstrap: Vec<Arc<Node>>,
    known: Mutex<BTreeMap<i32, Arc<Node>>>,
}

impl Cluster {
    /// # Errors
    /// [`SourceError::Refused`]: an address that is none.
    pub fn new(config: &KafkaConfig) -> Result<Self, SourceError> {
        let node = |text: &String| {
            Address::parse(text).map(Node::new).ok_or_else(|| SourceError::Refused {
                what: "bootstrap_servers".into(),
                message: format!("{text} is no host:port"),
            })
        };
        Ok(Self {
            security: Security::new(&config.security),
            client_rack: config.client_rack.clone(),
            bootstrap: config.bootstrap_servers.iter().map(node).collect::<Result<_, _>>()?,
            known: Mutex::default(),
        })
    }

    pub fn client_rack(&self) -> Option<&str> {
        self.client_rack.as_deref()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, Arc<Node>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of a broker that metadata named.
    pub fn address(&self, broker: i32) -> Option<Address> {
        self.known().get(&broker).map(|node| node.address.clone())
    }

    /// A new connection to a broker, for fetches.
    ///
    /// # Errors
    /// As [`Connection::open`]; also a broker that metadata never named.
    pub async fn connect(&self, broker: i32) -> Result<Connection, SourceError> {
        let address = self.address(broker).ok_or_else(|| unknown_broker(broker))?;
        Connection::open(&address, &self.security).await
    }

    /// Asks one broker.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub async fn ask<R: Request>(&self, broker: i32, request: &R) -> Result<R::Answer, SourceError> {
        let node = self.known().get(&broker).cloned().ok_or_else(|| unknown_broker(broker))?;
        node.ask(&self.security, request).await
    }

    /// Asks one broker after the other until one answers: those that failed least, known ones before bootstrap servers.
    ///
    /// # Errors
    /// What the last one said; a refusal ends the search.
    pub async fn ask_any<R: Request>(&self, request: &R) -> Result<R::Answer, SourceError> {
        let mut nodes: Vec<Arc<Node>> = self.known().values().chain(&self.bootstrap).cloned().collect();
        // A machine that is gone costs its whole time limit, so it is asked last from now on.
        nodes.sort_by_key(|node| node.failures.load(Ordering::Relaxed));
        let mut failures = Vec::new();
        for node in &nodes {
            match node.ask(&self.security, request).await {
                Ok(answer) => return Ok(answer),
                Err(SourceError::Unreachable { message, .. }) => {
                    let failure = format!("{}: {message}", node.address);
                    if !failures.contains(&failure) {
                        failures.push(failure);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(SourceError::Unreachable { what: "cluster".into(), message: failures.join("; ") })
    }

    /// Asks for topics (`None`: all) and remembers the brokers.
    ///
    /// # Errors
    /// As [`Self::ask_any`].
    pub async fn metadata(&self, topics: Option<Vec<String>>) -> Result<MetadataAnswer, SourceError> {
        let answer = self.ask_any(&Metadata { topics }).await?;
        if errors::is_refusal(answer.error) {
            return Err(SourceError::Refused { what: "metadata".into(), message: errors::name(answer.error) });
        }
        let mut known = self.known();
        let mut now = BTreeMap::new();
        for broker in &answer.brokers {
            let Some(address) = Address::from_parts(&broker.host, broker.port) else { continue };
            // A bootstrap server named as it is configured keeps its connection.
            let mut before = known.get(&broker.id).into_iter().chain(&self.bootstrap);
            let same = before.find(|node| node.address == address).cloned();
            now.insert(broker.id, same.unwrap_or_else(|| Node::new(address)));
        }
        // An answer without brokers comes from one that just started; what was known still helps.
        if !now.is_empty() {
            *known = now;
            self.leave_bootstrap(&known);
        }
        drop(known);
        Ok(answer)
    }

    /// Closes the connections to addresses that were only the way in, like a load balancer's.
    fn leave_bootstrap(&self, known: &BTreeMap<i32, Arc<Node>>) {
        for node in &self.bootstrap {
            if !known.values().any(|known| Arc::ptr_eq(known, node))
                && let Ok(mut connection) = node.connection.try_lock()
            {
                *connection = None;
            }
        }
    }

    /// Asks for one topic; `None`: there is none.
    ///
    /// # Errors
    /// As [`Self::ask_any`]; [`SourceError::Refused`] for a topic that must not be seen.
    pub async fn topic(&self, name: &str) -> Result<Option<TopicMetadata>, SourceError> {
        let answer = self.metadata(Some(vec![name.to_owned()])).await?;
        let topic = answer.topics.into_iter().find(|topic| topic.name.as_deref() == Some(name));
        match topic {
            None => Ok(None),
            Some(topic) if topic.error == errors::UNKNOWN_TOPIC_OR_PARTITION => Ok(None),
            Some(topic) if errors::is_refusal(topic.error) => {
                Err(SourceError::Refused { what: format!("topic {name}"), message: errors::name(topic.error) })
            }
            // A topic whose leaders are not elected yet has an error and partitions all the same.
            Some(topic) if topic.error != errors::NONE && topic.partitions.is_empty() => {
                Err(SourceError::Unreachable { what: format!("topic {name}"), message: errors::name(topic.error) })
            }
            Some(topic) => Ok(Some(topic)),
        }
    }
}

fn unknown_broker(broker: i32) -> SourceError {
    SourceError::Unreachable { what: format!("broker {broker}"), message: "its address is not known".into() }
}

/// A topic id as the door shows it; brokers before 2.8 have none.
pub fn topic_id(id: [u8; 16]) -> Option<TopicId> {
    (id != [0; 16]).then(|| TopicId(id.iter().map(|byte| format!("{byte:02x}")).collect()))
}
