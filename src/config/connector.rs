//! The checked settings of one connector: what is archived.
//!
//! Owns: the types. Everything in them is legal. Does not own: how they are read and checked.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::SinkUrl;
use crate::archive::codec::Codec;
use crate::archive::format::Format;
use crate::archive::key::KeyTemplate;
use crate::pipeline::source::Isolation;

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

impl TopicSelection {
    pub fn includes(&self, topic: &str) -> bool {
        match self {
            Self::List(names) => names.iter().any(|name| name == topic),
            Self::Regex(pattern) => pattern.is_match(topic),
        }
    }
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
    /// Of the service that gives credentials.
    pub endpoint: Option<String>,
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

/// The word of `app_id.from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppIdKind {
    Json,
    Header,
    Key,
    Topic,
    Regex,
}

/// The word of `time.from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeKind {
    Record,
    Json,
}
