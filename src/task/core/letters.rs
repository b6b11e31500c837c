//! Dead letters on their way to a Kafka topic.
//!
//! Owns: which records go there, what is written of their origin, that low waits for them.
//! Does not own: the writing (the driver's), dead letters in files (a lane like any other).
//!
//! At least once: what was read again from low is written again. The headers name the record, so that two of one can be told.

use super::*;
use crate::pipeline::produce::{HeaderList, Outgoing};

/// A record above this goes to the folder instead: a topic takes 1 MiB by default, and which way a record goes must not depend
/// on what a broker says.
const MAX_BYTES: usize = 900 * 1024;

/// Kafka Connect's names for a dead letter's origin.
const HEADER_PREFIX: &str = "__connect.errors.";

impl Core {
    /// Whether this record's dead letter is written to a topic. A pure function of record and settings.
    pub(super) fn goes_to_topic(&self, record: &Record<'_>) -> bool {
        let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        self.settings.connector.dead_letter.topic.is_some()
            && len(record.key) + len(record.value) + record.headers.as_bytes().len() <= MAX_BYTES
    }

    /// The record is written to the topic with the others of its block; low waits for it.
    pub(super) fn dead_letter(&mut self, record: &Record<'_>, why: &'static str) {
        self.counters.records_dead_lettered += 1;
        self.note(record.partition, record.offset, record.offset, SkipReason::Rule);
        self.letters.first.get_or_insert(record.offset);
        let mut headers = record.headers.into();
        self.origin_headers(&mut headers, record, why);
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        self.letters.gathered.push(Outgoing {
            partition: None,
            key: owned(record.key),
            value: owned(record.value),
            headers,
            timestamp_ms: record.timestamp_ms,
        });
    }

    fn origin_headers(&self, headers: &mut HeaderList, record: &Record<'_>, why: &str) {
        let task = &self.settings;
        for (name, value) in [
            ("topic", task.topic.as_str()),
            ("partition", &record.partition.to_string()),
            ("offset", &record.offset.to_string()),
            ("connector.name", &task.connector.name),
            ("task.id", &task.task.to_string()),
            ("stage", "TRANSFORMATION"),
            ("exception.class.name", "sluice.BadRecord"),
            ("exception.message", why),
        ] {
            headers.push(format!("{HEADER_PREFIX}{name}").as_bytes(), Some(value.as_bytes()));
        }
    }

    /// A block was split: its dead letters go out.
    pub(super) fn send_letters(&mut self, partition: i32) {
        let Some(first) = self.letters.first.take() else { return };
        let file = self.new_file();
        self.holds.hold(file, partition, first);
        self.letters.under_way.insert(file);
        let letters = std::mem::take(&mut self.letters.gathered);
        self.actions.push(Action::DeadLetter { id: file, letters });
    }

    /// All in-sync replicas of the topic have these dead letters.
    pub fn on_dead_lettered(&mut self, id: FileId, now_ms: i64) {
        if self.letters.under_way.remove(&id) {
            self.holds.release(id);
            self.low_moved_since_ms.get_or_insert(now_ms);
        }
        self.next_append(now_ms);
    }
}

/// Dead letters that nobody acknowledged.
#[derive(Debug, Default)]
pub(super) struct Letters {
    /// Of the block at hand, and the offset of the first.
    gathered: Vec<Outgoing>,
    first: Option<i64>,
    under_way: HashSet<FileId>,
}

impl Letters {
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Those that are under way.
    pub(super) fn ids(&self) -> impl Iterator<Item = FileId> {
        self.under_way.iter().copied()
    }
}
