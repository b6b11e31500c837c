//! The words of keys that take one of several.
//!
//! Owns: how each choice is spelled. Does not own: what it does.

use crate::archive::codec::Codec;
use crate::archive::format::Format;
use crate::config::{
    AppIdKind, Bucket, CredentialsFrom, Flavor, LogFormat, OnError, SaslMechanism, SecurityProtocol, TimeKind,
};
use crate::pipeline::source::Isolation;

/// A type whose values have words in the settings.
pub trait Named: Copy + PartialEq + 'static {
    const NAMES: &'static [(&'static str, Self)];

    /// Its word.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}

/// All words of a type.
pub fn names<T: Named>() -> Vec<&'static str> {
    T::NAMES.iter().map(|(name, _)| *name).collect()
}

impl Named for SecurityProtocol {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("PLAINTEXT", Self::Plaintext),
        ("SSL", Self::Ssl),
        ("SASL_PLAINTEXT", Self::SaslPlaintext),
        ("SASL_SSL", Self::SaslSsl),
    ];
}

impl Named for SaslMechanism {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("PLAIN", Self::Plain),
        ("SCRAM-SHA-256", Self::ScramSha256),
        ("SCRAM-SHA-512", Self::ScramSha512),
        ("OAUTHBEARER", Self::OauthBearer),
    ];
}

impl Named for LogFormat {
    const NAMES: &'static [(&'static str, Self)] =
        &[("text", Self::Text), ("json", Self::Json), ("journald", Self::Journald)];
}

impl Named for Isolation {
    const NAMES: &'static [(&'static str, Self)] =
        &[("read_committed", Self::ReadCommitted), ("read_uncommitted", Self::ReadUncommitted)];
}

impl Named for AppIdKind {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("json", Self::Json),
        ("header", Self::Header),
        ("key", Self::Key),
        ("topic", Self::Topic),
        ("regex", Self::Regex),
    ];
}

impl Named for TimeKind {
    const NAMES: &'static [(&'static str, Self)] = &[("record", Self::Record), ("json", Self::Json)];
}

impl Named for Bucket {
    const NAMES: &'static [(&'static str, Self)] = &[("none", Self::None), ("1h", Self::Hour), ("1d", Self::Day)];
}

impl Named for Format {
    const NAMES: &'static [(&'static str, Self)] = &[("raw", Self::Raw), ("json", Self::Json)];
}

impl Named for Codec {
    const NAMES: &'static [(&'static str, Self)] =
        &[("lz4", Self::Lz4), ("zstd", Self::Zstd), ("gzip", Self::Gzip), ("none", Self::None)];
}

impl Named for Flavor {
    const NAMES: &'static [(&'static str, Self)] =
        &[("aws", Self::Aws), ("oss", Self::Oss), ("minio", Self::Minio), ("generic", Self::Generic)];
}

impl Named for CredentialsFrom {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("env", Self::Env),
        ("file", Self::File),
        ("aws-chain", Self::AwsChain),
        ("ecs-ram-role", Self::EcsRamRole),
        ("oidc", Self::Oidc),
        ("static", Self::Static),
    ];
}

impl Named for OnError {
    const NAMES: &'static [(&'static str, Self)] =
        &[("fail", Self::Fail), ("skip", Self::Skip), ("dead_letter", Self::DeadLetter)];
}
