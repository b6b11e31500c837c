//! Settings: what this machine is ([`WorkerConfig`], configs/worker.yaml) and what is archived ([`ConnectorConfig`],
//! one file in connectors/ each).
//!
//! Owns: parsing, merging, checking, messages with file, line and key. Raw and checked settings are two types; these are the
//! checked ones, everything in them is legal.
//! Does not own: what the settings do.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use crate::archive::codec::Codec;
use crate::archive::format::Format;
use crate::archive::key::KeyTemplate;
use crate::pipeline::source::Isolation;

/// Settings of one worker process.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    pub id: String,
    pub group: String,
    pub max_tasks: Option<NonZeroU32>,
    pub kafka: KafkaConfig,
    /// `None`: each connector's log lies beside its data.
    pub state_url: Option<SecretUrl>,
    pub coordination_url: Option<SecretUrl>,
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
    pub tls: Option<HttpTls>,
    /// Sink URL prefixes that connectors made by REST may use.
    pub allow_sinks: Vec<String>,
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

#[derive(Clone, Debug)]
pub struct HttpTls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
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

/// Settings of one connector. Its file's name is the default of `name`.
#[derive(Clone, Debug)]
pub struct ConnectorConfig {
    pub name: String,
    /// The file it was read from, for messages.
    pub file: PathBuf,
    pub topics: TopicSelection,
    /// `None`: all.
    pub partitions: Option<BTreeSet<i32>>,
    pub tasks_max: NonZeroU32,
    pub start_from: StartFrom,
    pub isolation: Isolation,
    pub app_id: AppIdRule,
    pub time: TimeRule,
    pub rotate: Rotate,
    pub format: Format,
    pub compression: Compression,
    pub sink: SinkConfig,
    pub on_error: OnError,
    pub dead_letter: DeadLetter,
}

#[derive(Clone, Debug)]
pub enum TopicSelection {
    List(Vec<String>),
    Regex(regex::Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    Earliest,
    Latest,
    TimestampMs(i64),
}

/// How a record's app id is found.
#[derive(Clone, Debug)]
pub struct AppIdRule {
    pub from: AppIdFrom,
    pub missing: MissingAppId,
}

#[derive(Clone, Debug)]
pub enum AppIdFrom {
    /// A JSON pointer (RFC 6901) into the value.
    Json {
        pointer: String,
    },
    /// The first header of this name.
    Header {
        name: String,
    },
    Key,
    Topic,
    /// One group of a pattern over the value.
    Regex {
        pattern: regex::bytes::Regex,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingAppId {
    /// A name of its own, `_unknown` by default.
    Name(String),
    DeadLetter,
}

#[derive(Clone, Debug)]
pub struct TimeRule {
    pub from: TimeFrom,
    /// IANA name, known to the bundled time zone data.
    pub zone: jiff::tz::TimeZone,
    pub bucket: Bucket,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeFrom {
    /// Kafka's timestamp of the record.
    Record,
    Json {
        pointer: String,
        format: TimeFormat,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    Rfc3339,
    UnixSeconds,
    UnixMillis,
    /// A strptime pattern.
    Pattern(String),
}

/// Records of two buckets never share a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    None,
    Day,
    Hour,
}

/// When a file is finished.
#[derive(Clone, Copy, Debug)]
pub struct Rotate {
    /// Size as stored.
    pub max_bytes: u64,
    /// Age since the first record arrived.
    pub max_interval: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Compression {
    pub codec: Codec,
    /// In the codec's own scale; `None`: its default. Always `None` for lz4.
    pub level: Option<i32>,
    /// Bytes of a frame before compression.
    pub frame_bytes: u32,
}

#[derive(Clone, Debug)]
pub struct SinkConfig {
    pub url: SinkUrl,
    pub key: KeyTemplate,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub flavor: Flavor,
    pub storage_class: Option<String>,
    pub sse: Sse,
    pub tags: Vec<(String, String)>,
    pub part_bytes: u64,
    pub max_uploads: NonZeroUsize,
    pub ca_file: Option<PathBuf>,
    pub credentials: Credentials,
}

/// Where objects go. The prefix has neither leading nor trailing `/`; it may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkUrl {
    File { dir: PathBuf },
    S3 { bucket: String, prefix: String },
    Oss { bucket: String, prefix: String },
}

impl std::fmt::Display for SinkUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { dir } => write!(f, "file://{}", dir.display()),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Oss { bucket, prefix } => write!(f, "oss://{bucket}/{prefix}"),
        }
    }
}

/// The dialect of S3 that a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    Aws,
    Oss,
    Minio,
    Generic,
}

#[derive(Clone, Debug, Default)]
pub struct Sse {
    pub mode: Option<String>,
    pub kms_key_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsFrom {
    Auto,
    Env,
    File,
    AwsChain,
    EcsRamRole,
    Oidc,
    Static,
}

#[derive(Clone, Debug)]
pub struct Credentials {
    pub from: CredentialsFrom,
    pub role_arn: Option<String>,
    pub profile: Option<String>,
    pub key_file: Option<PathBuf>,
    pub secret_file: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
}

/// What happens to a record that can't be split or formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    Fail,
    Skip,
    DeadLetter,
}

#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// A Kafka topic; `None`: a lane of its own.
    pub topic: Option<String>,
    /// First key segment of the dead letters' lane, in place of the app id.
    pub path: String,
}

/// A URL that may hold a password: printed without it.
#[derive(Clone)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL as written, password and all. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => write!(f, "{scheme}://***@{rest}"),
            _ => f.write_str(&self.0),
        }
    }
}

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
