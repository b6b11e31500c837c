//! The entries of a task's log.
//!
//! Owns: what an entry says. Does not own: its bytes ([`super::encoding`]), what it does to the state ([`super::state`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::archive::digest::ContentDigest;
use crate::archive::index::Skipped;
use crate::pipeline::source::{Position, TopicId};

/// Random proof of owning a task, 32 hex digits; new with each takeover.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token(pub String);

/// Random id of one append, 32 hex digits; tells whose an entry is when the answer to its creation was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepId(pub String);

/// Hash of everything an intent says, 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IntentId(pub String);

impl std::fmt::Display for IntentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stream that becomes files one after the other. The topic is the task's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lane {
    /// The app id as a safe path segment (injective, see [`crate::archive::app_id`]), or a reserved name.
    pub app: String,
    /// Start of the time bucket, seconds since the Unix epoch; `None` without buckets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bucket_start_secs: Option<i64>,
}

/// The records of one partition that an object holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub first: i64,
    pub last: i64,
    pub count: u64,
    /// Over the raw fields of the records, in offset order.
    pub digest: ContentDigest,
}

/// The decision which records an object holds, written before the upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub id: IntentId,
    /// Key below the sink's prefix; names the record that opened the object.
    pub key: String,
    pub lane: Lane,
    /// By partition; never empty.
    pub ranges: BTreeMap<i32, Range>,
    /// Hash of the settings that shape content.
    pub settings: String,
    /// What was left out before and no file tells of: this object's index does.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub skipped: Vec<Skipped>,
}

/// An intent whose object is not known to be in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Number of the entry that sealed it.
    pub log_number: u64,
    pub intent: Intent,
}

impl Intent {
    /// The id follows from all the rest.
    pub fn new(key: String, lane: Lane, ranges: BTreeMap<i32, Range>, settings: String) -> Self {
        let mut intent = Self { id: IntentId(String::new()), key, lane, ranges, settings, skipped: Vec::new() };
        intent.id = intent.compute_id();
        intent
    }

    /// The same object, whose index also tells what was left out. It is another intent by that.
    pub fn with_skipped(mut self, skipped: Vec<Skipped>) -> Self {
        self.skipped = skipped;
        self.id = self.compute_id();
        self
    }

    /// What [`Intent::id`] must be.
    pub fn compute_id(&self) -> IntentId {
        use std::fmt::Write as _;
        let mut text = String::new();
        // Lengths keep the fields apart; writing to a string can't fail.
        let _ = write!(
            text,
            "{}:{} {}:{} {:?} {}",
            self.key.len(),
            self.key,
            self.lane.app.len(),
            self.lane.app,
            self.lane.bucket_start_secs,
            self.settings
        );
        for (partition, range) in &self.ranges {
            let _ = write!(text, " {partition}:{}-{}/{}={}", range.first, range.last, range.count, range.digest);
        }
        for skipped in &self.skipped {
            let Skipped { partition, first, last, reason, incarnation, scattered } = skipped;
            let _ = write!(text, " {partition}~{incarnation}:{first}-{last} {reason:?}");
            if let Some(scattered) = scattered {
                let _ = write!(text, "/{}={:032x}", scattered.count, scattered.sum.0);
            }
        }
        IntentId(format!("{:032x}", twox_hash::XxHash3_128::oneshot(text.as_bytes())))
    }

    pub fn records(&self) -> u64 {
        self.ranges.values().map(|range| range.count).sum()
    }
}

/// The settings that shape content, as they were when written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// 32 hex digits.
    pub hash: String,
    pub content: serde_json::Value,
}

impl SettingsRecord {
    /// `content` is canonical: its maps are sorted by key.
    pub fn new(content: serde_json::Value) -> Self {
        let hash = format!("{:032x}", twox_hash::XxHash3_128::oneshot(content.to_string().as_bytes()));
        Self { hash, content }
    }
}

/// Which Kafka log the offsets belong to. Unknown where the client can't tell; adopted once it can.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub cluster_id: Option<String>,
    pub topic_id: Option<TopicId>,
    /// Counts accepted changes of the topic's identity; above 0 it shows in keys.
    pub incarnation: u32,
}

/// An intent that could not be rebuilt as it was decided, where that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    pub id: IntentId,
    /// Holds what is left; `None`: nothing.
    pub by: Option<Intent>,
}

/// Where a partition goes on after a loss that somebody accepted, or where somebody set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    pub low: i64,
    /// Records at or above it are not the ones that were archived: marks end here. `i64::MAX`: they are.
    pub marks_to: i64,
    /// Where the log left the one that was read: below it, it must stay what it is. Not above `marks_to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Position>,
}

/// Decisions and their completion, in one entry: what falls due together is written together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// New intents, in the order in which they were decided. Marks follow from them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub seal: Vec<Intent>,
    /// Intents whose records are not all there any more, and what was left of them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub replaced: Vec<Replaced>,
    /// Intents whose objects are in the store.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub done: Vec<IntentId>,
    /// Lows that moved.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub lows: BTreeMap<i32, i64>,
    /// What these lows pass and no object holds.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub skipped: Vec<Skipped>,
    /// All that earlier lows passed and no file tells of, in fewer ranges.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub joined: Vec<Skipped>,
    /// Where the highest offset of a partition that is sealed or below low lies in Kafka's history, where that is known and
    /// higher than before.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub seen: BTreeMap<i32, Position>,
    pub time_ms: i64,
}

/// What one entry says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A new owner; every later entry carries its token. Never deleted.
    Takeover { worker: String, time_ms: i64 },
    /// First start: settings, identity and resolved start offsets, written before the first fetch.
    Start {
        settings: SettingsRecord,
        identity: Identity,
        lows: BTreeMap<i32, i64>,
        /// What the mapping before left out of these partitions, and no file tells of.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        skipped: Vec<Skipped>,
        time_ms: i64,
    },
    /// Partitions that were not there before, with where they begin.
    Partitions { lows: BTreeMap<i32, i64>, time_ms: i64 },
    /// What the first start could not tell of the identity; only what was unknown may become known.
    Adopt { identity: Identity },
    /// Where the present settings or the present mapping end: what lies at or above these offsets belongs to the next ones and
    /// is not read before low has reached them all. Chosen once.
    Cut { offsets: BTreeMap<i32, i64>, time_ms: i64 },
    /// Other settings from here on; ends a cut. Below low everything is in the store, at or above it nothing was decided.
    Settings { settings: SettingsRecord, time_ms: i64 },
    /// Somebody accepted that Kafka's log is not what it was, or set the offsets. `None`: the partition is no more. Pending
    /// intents of these partitions may hold fewer records than was decided.
    Reset { identity: Identity, partitions: BTreeMap<i32, Option<Restart>>, why: String, time_ms: i64 },
    /// The topic's partitions are shared out anew, as mapping `next` says: nothing but Takeovers may follow.
    Closed { next: u32, time_ms: i64 },
    /// Seals, completions and lows.
    Commit(Commit),
    /// The whole state; entries below it may be deleted, Takeovers excepted.
    Snapshot { state: Box<super::State> },
}

impl Entry {
    /// For messages and the log's clean-up.
    pub fn is_takeover(&self) -> bool {
        matches!(self, Self::Takeover { .. })
    }

    pub fn is_snapshot(&self) -> bool {
        matches!(self, Self::Snapshot { .. })
    }
}
