//! Whether an object is what its key and its index say, and whether it is of this archive.
//!
//! Owns: the intent that an index implies, the reasons why an object does not belong. Does not own: what it holds of the
//! offsets to be proven ([`super::scope`]).

use std::collections::BTreeMap;

use super::scope::Scope;
use crate::archive::index::{FileFacts, Index};
use crate::ledger::{Intent, Lane, Range};

/// What an object is to a topic's proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of the archive as it is now.
    Present,
    /// Of a topic or cluster that this one took the place of, as somebody accepted: nothing in it counts.
    Earlier,
    /// It does not belong here.
    Foreign(String),
}

/// The intent that the object carries out, as its key and its index say; the index is wrong where they do not go together. The
/// id of an intent is the hash of all that it says: an object under another key, or with other frames, has another one.
///
/// # Errors
/// In words: what does not go together.
pub fn intent_of(key: &str, index: &Index) -> Result<Intent, String> {
    let FileFacts { app, bucket_start_secs, intent_id, settings_hash, digests, .. } = &index.facts;
    let mut ranges: BTreeMap<i32, Range> = BTreeMap::new();
    for run in index.frames.iter().flat_map(|frame| &frame.partitions) {
        let Some(&digest) = digests.get(&run.partition) else {
            return Err(format!("its index has no digest of partition {}", run.partition));
        };
        let range = ranges.entry(run.partition).or_insert(Range { first: run.first, last: run.last, count: 0, digest });
        range.first = range.first.min(run.first);
        range.last = range.last.max(run.last);
        range.count = range.count.saturating_add(run.count);
    }
    let lane = Lane { app: app.clone(), bucket_start_secs: *bucket_start_secs };
    let intent = Intent::new(key.to_owned(), lane, ranges, settings_hash.clone());
    let intent = intent.with_skipped(index.facts.skipped.clone());
    if intent.id.0 == *intent_id {
        return Ok(intent);
    }
    Err(format!(
        "it was written by intent {intent_id} under another key, or its index was changed: with this key it would be {}",
        intent.id
    ))
}

/// Whether the object belongs to the connector's archive of the topic.
pub fn kind(connector: &str, scope: &Scope, facts: &FileFacts, partitions: impl Iterator<Item = i32>) -> Kind {
    if facts.connector != connector {
        return Kind::Foreign(format!("it is of connector {}", facts.connector));
    }
    let newest = partitions
        .filter_map(|partition| scope.partitions.get(&partition))
        .map(|extent| extent.incarnation)
        .max()
        .unwrap_or(scope.identity.incarnation);
    let differs = |known: Option<&str>, found: Option<&str>| matches!((known, found), (Some(k), Some(f)) if k != f);
    let topic_id = scope.identity.topic_id.as_ref().map(|id| id.0.as_str());
    let other = if differs(scope.identity.cluster_id.as_deref(), facts.cluster_id.as_deref()) {
        Some(format!("it is of cluster {}", facts.cluster_id.as_deref().unwrap_or_default()))
    } else if differs(topic_id, facts.topic_id.as_deref()) {
        Some(format!("it is of topic id {}", facts.topic_id.as_deref().unwrap_or_default()))
    } else {
        None
    };
    match other {
        _ if facts.incarnation > newest => {
            Kind::Foreign(format!("it is of incarnation {}, the log is at {newest}", facts.incarnation))
        }
        Some(_) if facts.incarnation < newest => Kind::Earlier,
        Some(why) => Kind::Foreign(why),
        None => Kind::Present,
    }
}
