//! The logs as they landed, each folded by the real ledger.
//!
//! Owns: what an entry does to its log, the rules that hold within one log. Does not own: records, objects, other logs.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice::ledger::encoding::Stored;
use sluice::ledger::{Entry, Low, State};

use crate::world::World;

/// A task's log.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) state: State,
    /// Bytes of each entry as it first landed; index is number - 1.
    entries: Vec<Bytes>,
    /// The highest number that clean-up deleted.
    pub(super) cleaned_to: u64,
}

/// What an entry that was created is to its log.
pub(super) enum Landed {
    /// The next one; with the lows before it.
    Next(Entry, BTreeMap<i32, Low>),
    /// On a number that was cleaned: it decides nothing.
    Again(&'static str),
    /// A rule is broken.
    Broken(String),
}

impl Log {
    pub(super) fn land(&mut self, world: &World, process: u32, folder: &str, number: u64, bytes: &Bytes) -> Landed {
        let stored = match Stored::decode(number, bytes) {
            Ok(stored) => stored,
            Err(error) => return Landed::Broken(format!("log entry {number} of {folder}: {error}")),
        };
        world.trace(format_args!("{process} wrote {folder} {number}: {:?}", Short(&stored.entry)));
        if number <= self.state.tip {
            return if self.entries.get(number as usize - 1) == Some(bytes) {
                Landed::Again("old entry landed again on its cleaned number")
            } else if stored.entry.is_takeover() {
                Landed::Again("takeover landed late on a cleaned number")
            } else {
                Landed::Broken(format!("log entry {number} of {folder} exists twice, with different content"))
            };
        }
        let (before, was_cut) = (self.state.lows.clone(), self.state.cut.is_some());
        if let Err(error) = self.state.apply(&stored) {
            return Landed::Broken(format!("the log {folder} breaks: {error}"));
        }
        self.entries.push(bytes.clone());
        self.count(world, &stored.entry, was_cut);
        Landed::Next(stored.entry, before)
    }

    fn count(&self, world: &World, entry: &Entry, was_cut: bool) {
        match entry {
            Entry::Commit(_) => {}
            Entry::Takeover { .. } => {
                world.count("takeover");
                if !self.state.intents.is_empty() {
                    world.count("takeover with pending intents");
                }
                if self.cleaned_to > 0 {
                    world.count("takeover of a log that was cleaned");
                }
                if was_cut {
                    world.count("takeover in the middle of a cut");
                }
            }
            Entry::Snapshot { state } => {
                world.count("snapshot");
                if !state.intents.is_empty() {
                    world.count("snapshot with pending intents");
                }
            }
            Entry::Start { .. } => world.count("first start"),
            Entry::Partitions { .. } => world.count("new partitions"),
            Entry::Adopt { .. } => world.count("identity adopted"),
            Entry::Cut { .. } => world.count("cut"),
            Entry::Settings { .. } => {
                world.count(if was_cut {
                    "settings changed at a cut"
                } else {
                    "settings changed with nothing to finish"
                });
            }
            Entry::Reset { .. } => world.count("loss accepted"),
            Entry::Closed { .. } => {
                world.count(if was_cut { "log ended at a cut" } else { "log ended with nothing to finish" });
            }
        }
    }
}

/// Entries in a trace.
struct Short<'a>(&'a Entry);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Entry::Takeover { .. } => f.write_str("takeover"),
            Entry::Snapshot { .. } => f.write_str("snapshot"),
            Entry::Start { lows, .. } => write!(f, "start {lows:?}"),
            Entry::Partitions { lows, .. } => write!(f, "partitions {lows:?}"),
            Entry::Adopt { identity } => write!(f, "adopt {identity:?}"),
            Entry::Cut { offsets, .. } => write!(f, "cut {offsets:?}"),
            Entry::Settings { settings, .. } => write!(f, "settings {}", settings.hash),
            Entry::Reset { partitions, .. } => write!(f, "reset {partitions:?}"),
            Entry::Closed { next, .. } => write!(f, "closed for {next}"),
            Entry::Commit(commit) => {
                f.write_str("commit")?;
                for intent in &commit.seal {
                    let ranges: Vec<_> = intent.ranges.iter().map(|(p, r)| (*p, r.first, r.last, r.count)).collect();
                    write!(f, " seal {} {} {ranges:?}", &intent.id.0[..6], intent.key)?;
                }
                for id in &commit.done {
                    write!(f, " done {}", &id.0[..6])?;
                }
                let left_out: Vec<_> =
                    commit.skipped.iter().map(|s| (s.partition, s.first, s.last, s.reason, s.count())).collect();
                write!(f, " lows {:?} skipped {left_out:?}", commit.lows)
            }
        }
    }
}
