//! The checked settings of one worker: this machine.
//!
//! Owns: the types. Everything in them is legal. Does not own: how they are read and checked.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::{RedisUrl, StateUrl};

/// Settings of one worker process.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    pub id: String,
    pub group: String,
    /// `None`: as many as there are. 0: a worker that only looks on; needs `coordination_url`.
    pub max_tasks: Option<u32>,
    pub kafka: KafkaConfig,
    /// `None`: each connector's log lies beside its data.
    pub state_url: Option<StateUrl>,
    /// `None`: this is the only worker.
    pub coordination_url: Option<RedisUrl>,
    pub spool: SpoolConfig,
    pub memory_max_bytes: u64,
    /// `None`: all cores.
    pub compression_threads: Option<NonZeroUsize>,
    pub http: HttpConfig,
    pub shutdown_timeout: Duration,
    pub log: LogConfig,
}

#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `host:port` each, at least one.
    pub bootstrap_servers: Vec<String>,
    pub security: KafkaSecurity,
    pub client_rack: Option<String>,
    pub group_offsets: bool,
}

impl KafkaConfig {
    /// Brokers (`host:port`, separated by commas) without TLS and SASL, everything else left out.
    pub fn plaintext(bootstrap_servers: &str) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.split(',').map(str::to_owned).collect(),
            security: KafkaSecurity {
                protocol: SecurityProtocol::Plaintext,
                sasl: SaslConfig::default(),
                tls: TlsConfig { ca_file: None, cert_file: None, key_file: None, verify_hostname: true },
            },
            client_rack: None,
            group_offsets: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
    OauthBearer,
}

#[derive(Clone, Debug)]
pub struct KafkaSecurity {
    pub protocol: SecurityProtocol,
    pub sasl: SaslConfig,
    pub tls: TlsConfig,
}

/// Which fields are set follows from the mechanism; checked.
#[derive(Clone, Debug, Default)]
pub struct SaslConfig {
    pub mechanism: Option<SaslMechanism>,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    pub token_endpoint: Option<String>,
    pub client_id: Option<String>,
    pub client_secret_file: Option<PathBuf>,
    pub scope: Option<String>,
}

#[derive(Clone, Debug)]
pub struct TlsConfig {
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub verify_hostname: bool,
}

#[derive(Clone, Debug)]
pub struct SpoolConfig {
    pub dir: PathBuf,
    pub max_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// `host:port`.
    pub listen: String,
    /// A second address for /metrics and /health alone.
    pub metrics_listen: Option<String>,
    pub auth: HttpAuth,
    /// `None`: plain HTTP.
    pub tls: Option<HttpTls>,
    /// What connectors made over HTTP may use, see [`super::allow`].
    pub allow_sinks: Vec<String>,
}

impl HttpConfig {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        super::url::is_loopback(&self.listen)
    }
}

/// The certificate that the worker shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAuth {
    /// Nothing written; only a loopback address may be listened on.
    Unset,
    /// `auth: none`: open to everyone, on purpose.
    None,
    BearerTokenFile(PathBuf),
    BasicFile(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
    Journald,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub format: LogFormat,
    /// A tracing filter: `info`, `sluice=debug,info`.
    pub level: String,
}
