//! Offsets below low that no file tells of yet.
//!
//! Owns: what was left out and waits for the next file to take it along, and the rules of that.
//! Does not own: noticing it, joining what is too much ([`crate::task::core`]).
//!
//! Low passes an offset that no object holds only in the entry that adds it here; a seal takes it out into its intent. Below
//! low nothing is read again, at or above it nothing is here: so nothing is told twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::archive::index::{SkipReason, Skipped};

/// In the order in which low passed them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Skips(Vec<Skipped>);

/// Partition, incarnation and reason: what is added up together.
type Stream = (i32, u32, SkipReason);

impl Skips {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_slice(&self) -> &[Skipped] {
        &self.0
    }

    /// Neighbours become one.
    pub fn add(&mut self, skipped: Skipped) {
        let like = self.0.iter_mut().rev().find(|known| known.is_like(&skipped));
        if !like.is_some_and(|known| known.extend(&skipped)) {
            self.0.push(skipped);
        }
    }

    /// A file takes these along.
    ///
    /// # Errors
    /// One is not here.
    pub fn take(&mut self, taken: &[Skipped]) -> Result<(), String> {
        let before = self.0.len();
        self.0.retain(|known| !taken.contains(known));
        if self.0.len() + taken.len() == before {
            return Ok(());
        }
        Err("takes offsets along that were not left out".to_owned())
    }

    /// The same in fewer ranges.
    ///
    /// # Errors
    /// It is not the same, as far as numbers tell.
    pub fn replace(&mut self, joined: &[Skipped]) -> Result<(), String> {
        if totals(&self.0) != totals(joined) || joined.iter().any(|skipped| !skipped.is_sound()) {
            return Err("offsets that were left out are joined to others".to_owned());
        }
        joined.clone_into(&mut self.0);
        Ok(())
    }

    /// A partition goes on at `low` in the same incarnation: what lies above it will be seen again.
    pub fn go_back(&mut self, partition: i32, incarnation: u32, low: i64) {
        self.0.retain(|known| (known.partition, known.incarnation) != (partition, incarnation) || known.last < low);
    }
}

/// By stream: how many, the first and the last.
fn totals(all: &[Skipped]) -> BTreeMap<Stream, (u64, i64, i64)> {
    let mut totals: BTreeMap<Stream, (u64, i64, i64)> = BTreeMap::new();
    for skipped in all {
        let stream = (skipped.partition, skipped.incarnation, skipped.reason);
        let (count, first, last) = totals.entry(stream).or_insert((0, i64::MAX, i64::MIN));
        *count = count.saturating_add(skipped.count());
        *first = skipped.first.min(*first);
        *last = skipped.last.max(*last);
    }
    totals
}
