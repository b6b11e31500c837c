//! One connection to a Redis, opened when it is needed.
//!
//! Owns: servers, sentinels and clusters behind one door, limits of time, what a failure means without its secrets.
//! Does not own: what is asked, trying again (the callers', who know what an unknown outcome means to them).
//!
//! A request makes at most one attempt to connect and one to ask. After any failure the connection is thrown away, so that the
//! next request finds the master of that moment.

use std::time::Duration;

use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, ServerErrorKind, TlsMode, Value,
};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::config::{RedisLogin, RedisUrl, Topology};

/// For finding the server and logging in.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// For one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// What the caller does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// It may pass: the network, a fail-over, a full memory.
    Away,
    /// User, password or the rights of the user.
    Denied,
}

/// A request that failed; its outcome is unknown. Holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct LinkError {
    pub fault: LinkFault,
    message: String,
}

#[derive(Clone)]
enum Connection {
    One(redis::aio::MultiplexedConnection),
    Cluster(ClusterConnection),
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// Tells a connection that failed from the one that was opened after it.
    generation: u64,
}

/// A Redis.
pub struct RedisLink {
    url: RedisUrl,
    current: Mutex<Current>,
}

impl std::fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisLink({})", self.url)
    }
}

impl RedisLink {
    pub fn new(url: RedisUrl) -> Self {
        Self { url, current: Mutex::default() }
    }

    pub fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`LinkError`]; whether the server carried the command out is unknown.
    pub async fn ask(&self, command: &Cmd) -> Result<Value, LinkError> {
        let (connection, generation) = self.connection().await?;
        let asked = async {
            match connection {
                Connection::One(mut connection) => command.query_async::<Value>(&mut connection).await,
                Connection::Cluster(mut connection) => command.query_async::<Value>(&mut connection).await,
            }
        };
        let error = match timeout(ANSWER_LIMIT, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => self.failed(&error),
            Err(_) => self.late(ANSWER_LIMIT),
        };
        let mut current = self.current.lock().await;
        if current.generation == generation {
            current.connection = None;
        }
        Err(error)
    }

    async fn connection(&self) -> Result<(Connection, u64), LinkError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((connection.clone(), current.generation));
        }
        let connection = match timeout(CONNECT_LIMIT, connect(&self.url)).await {
            Ok(connected) => connected.map_err(|error| self.failed(&error))?,
            Err(_) => return Err(self.late(CONNECT_LIMIT)),
        };
        current.generation += 1;
        current.connection = Some(connection.clone());
        Ok((connection, current.generation))
    }

    fn late(&self, limit: Duration) -> LinkError {
        let message = format!("{} gave no answer within {} s", self.url, limit.as_secs());
        LinkError { fault: LinkFault::Away, message }
    }

    fn failed(&self, error: &RedisError) -> LinkError {
        let denied =
            matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm))
                || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
        LinkError {
            fault: if denied { LinkFault::Denied } else { LinkFault::Away },
            message: format!("{}: {}", self.url, self.url.without_secrets(&error.to_string())),
        }
    }
}

/// Sends a PING to each node by itself: sentinels and members of a cluster too.
///
/// # Errors
/// In words, without a secret.
pub async fn ping(url: &RedisUrl, node: &(String, u16)) -> Result<(), String> {
    let login = if matches!(url.topology, Topology::Sentinel { .. }) { &url.sentinel_login } else { &url.login };
    let asked = async {
        let mut connection = single(url, node, login, 0).await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await.map(|_| ())
    };
    match timeout(CONNECT_LIMIT, asked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(url.without_secrets(&error.to_string())),
        Err(_) => Err(format!("no answer within {} s", CONNECT_LIMIT.as_secs())),
    }
}

fn limits() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_LIMIT)).set_response_timeout(Some(ANSWER_LIMIT))
}

fn address(url: &RedisUrl, (host, port): &(String, u16)) -> ConnectionAddr {
    let (host, port) = (host.clone(), *port);
    if url.tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

fn settings(login: &RedisLogin, db: i64) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_db(db).set_skip_set_lib_name();
    if let Some(user) = &login.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &login.password {
        settings = settings.set_password(password);
    }
    settings
}

fn info(url: &RedisUrl, node: &(String, u16), login: &RedisLogin, db: i64) -> Result<ConnectionInfo, RedisError> {
    Ok(address(url, node).into_connection_info()?.set_redis_settings(settings(login, db)))
}

async fn single(
    url: &RedisUrl,
    node: &(String, u16),
    login: &RedisLogin,
    db: i64,
) -> Result<redis::aio::MultiplexedConnection, RedisError> {
    Client::open(info(url, node, login, db)?)?.get_multiplexed_async_connection_with_config(&limits()).await
}

async fn connect(url: &RedisUrl) -> Result<Connection, RedisError> {
    let tls = url.tls.then_some(TlsMode::Secure);
    match &url.topology {
        Topology::Single => {
            let Some(node) = url.nodes.first() else { return Err(no_node()) };
            Ok(Connection::One(single(url, node, &url.login, url.db).await?))
        }
        Topology::Sentinel { master } => {
            let nodes = url.nodes.iter().map(|node| address(url, node));
            let mut builder =
                SentinelClientBuilder::new(nodes, master, SentinelServerType::Master)?.set_client_to_redis_db(url.db);
            if let Some(tls) = tls {
                builder = builder.set_client_to_redis_tls_mode(tls).set_client_to_sentinel_tls_mode(tls);
            }
            if let Some(user) = &url.login.user {
                builder = builder.set_client_to_redis_username(user);
            }
            if let Some(password) = &url.login.password {
                builder = builder.set_client_to_redis_password(password);
            }
            if let Some(user) = &url.sentinel_login.user {
                builder = builder.set_client_to_sentinel_username(user);
            }
            if let Some(password) = &url.sentinel_login.password {
                builder = builder.set_client_to_sentinel_password(password);
            }
            Ok(Connection::One(builder.build()?.get_async_connection_with_config(&limits()).await?))
        }
        Topology::Cluster => {
            let nodes = url.nodes.iter().map(|node| info(url, node, &url.login, 0)).collect::<Result<Vec<_>, _>>()?;
            let mut builder = ClusterClientBuilder::new(nodes)
                .connection_timeout(CONNECT_LIMIT)
                .response_timeout(ANSWER_LIMIT)
                .retries(2);
            if let Some(tls) = tls {
                builder = builder.tls(tls);
            }
            if let Some(user) = &url.login.user {
                builder = builder.username(user);
            }
            if let Some(password) = &url.login.password {
                builder = builder.password(password);
            }
            Ok(Connection::Cluster(builder.build()?.get_async_connection().await?))
        }
    }
}

fn no_node() -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "the address names no node"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The test server, which other tests use too.
    pub(crate) fn test_redis() -> Option<RedisUrl> {
        let Some(url) = std::env::var("SLUICE_TEST_REDIS").ok().filter(|url| !url.is_empty()) else {
            #[allow(clippy::print_stdout, reason = "a test says why it does not run")]
            {
                println!("not run: SLUICE_TEST_REDIS is not set; `make test` starts the services and sets it");
            }
            assert_ne!(
                std::env::var("SLUICE_TEST_REQUIRE_SERVICES").as_deref(),
                Ok("1"),
                "SLUICE_TEST_REDIS is required"
            );
            return None;
        };
        Some(RedisUrl::parse(&url).unwrap())
    }

    #[tokio::test]
    async fn what_does_not_answer_is_told_without_its_password() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let url = RedisUrl::parse(&format!("redis://user:planted@{address}/")).unwrap();
        let message = ping(&url, &url.nodes[0]).await.unwrap_err();
        assert!(!message.contains("planted"), "{message}");
        let error = RedisLink::new(url).ask(&redis::cmd("PING")).await.unwrap_err();
        assert_eq!(error.fault, LinkFault::Away);
        let message = format!("{error} {error:?}");
        assert!(message.contains(&format!("redis://{address}")) && !message.contains("planted"), "{message}");
    }
}
