//! What a task knows of its connector: settings, names, keys.
//!
//! Owns: turning settings and a sealed lane into a key, facts for the index, the check of a rebuild.
//! Does not own: parsing of settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::core::RebuildDiffers;
use crate::archive::digest;
use crate::archive::index::FileFacts;
use crate::archive::key::{KeyFields, extension};
use crate::config::{ConnectorConfig, MissingAppId};
use crate::ledger::{Identity, Intent, Lane, Range, SettingsRecord};
use crate::pipeline::event_time::bucket_end_secs;
use crate::pipeline::lane::{Opener, Ranges, ReservedNames};

/// Settings of one task.
#[derive(Clone, Debug)]
pub struct TaskSettings {
    pub connector: Arc<ConnectorConfig>,
    pub topic: String,
    /// Which task of the topic.
    pub task: u32,
    /// Seed of the offset hashes of this topic.
    pub topic_seed: u64,
    /// What shapes content, and its hash.
    pub record: SettingsRecord,
}

impl TaskSettings {
    pub fn new(connector: Arc<ConnectorConfig>, topic: &str, task: u32) -> Self {
        let record = SettingsRecord::new(connector.content_settings());
        Self { topic_seed: digest::topic_seed(topic), topic: topic.to_owned(), task, record, connector }
    }

    pub fn frame_bytes(&self) -> usize {
        self.connector.compression.frame_bytes as usize
    }

    /// Key segments that stand in place of an app id.
    pub fn reserved_names(&self) -> ReservedNames {
        let missing = match &self.connector.app_id.missing {
            MissingAppId::Name(name) => name.clone(),
            // Records without an id go to the dead letters; this lane stays empty.
            MissingAppId::DeadLetter => "_unknown".to_owned(),
        };
        ReservedNames { missing, dead_letter: self.connector.dead_letter.path.clone() }
    }

    pub fn bucket_end_secs(&self, start_secs: i64) -> i64 {
        bucket_end_secs(start_secs, self.connector.time.bucket, &self.connector.time.zone)
    }

    /// The object's key below the sink's prefix. Pure: the opener and the settings say it all.
    pub fn key(&self, lane: &Lane, opener: &Opener, incarnation: u32) -> String {
        let connector = &self.connector;
        let zone = &connector.time.zone;
        // Event times are within 1970 to 2200, so both conversions succeed; the epoch stands in if they did not.
        let at = |ms: i64| {
            jiff::Timestamp::from_millisecond(ms)
                .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
                .to_zoned_datetime(zone.clone())
                .datetime()
        };
        connector.sink.key.render(&KeyFields {
            app_segment: &lane.app,
            topic: &self.topic,
            incarnation,
            connector: &connector.name,
            partition: opener.partition,
            offset: opener.offset,
            opened_at: at(opener.time_ms),
            bucket_start: lane.bucket_start_secs.map(|secs| at(secs.saturating_mul(1000))),
            ext: extension(connector.format, connector.compression.codec),
        })
    }

    /// What the index says of the file as a whole.
    pub fn facts(&self, intent: &Intent, log_number: u64, identity: &Identity, lows: BTreeMap<i32, i64>) -> FileFacts {
        FileFacts {
            connector: self.connector.name.clone(),
            cluster_id: identity.cluster_id.clone(),
            topic: self.topic.clone(),
            topic_id: identity.topic_id.as_ref().map(|id| id.0.clone()),
            incarnation: identity.incarnation,
            app: intent.lane.app.clone(),
            bucket_start_secs: intent.lane.bucket_start_secs,
            intent_id: intent.id.0.clone(),
            digests: intent.ranges.iter().map(|(&partition, range)| (partition, range.digest)).collect(),
            log_number,
            settings_hash: intent.settings.clone(),
            lows,
            format: self.connector.format,
            codec: self.connector.compression.codec,
            skipped: intent.skipped.clone(),
        }
    }

    /// A rebuilt object must hold exactly what was decided.
    ///
    /// # Errors
    /// Names the first partition that differs.
    pub fn check_rebuild(&self, intent: &Intent, found: &Ranges) -> Result<(), Box<RebuildDiffers>> {
        for (&partition, expected) in &intent.ranges {
            let range: Option<&Range> = found.get(partition);
            if range != Some(expected) {
                return Err(Box::new(RebuildDiffers {
                    key: intent.key.clone(),
                    topic: self.topic.clone(),
                    partition,
                    first: expected.first,
                    last: expected.last,
                    expected: expected.count,
                    expected_digest: expected.digest.to_string(),
                    found: range.map_or(0, |range| range.count),
                    found_digest: range.map_or_else(|| "none".to_owned(), |range| range.digest.to_string()),
                }));
            }
        }
        Ok(())
    }
}
