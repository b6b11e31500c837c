//! What a task uploaded lately, and for whom.
//!
//! Owns: the newest objects, a bounded count of bytes by app. Does not own: how they are shown.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

/// Newest objects that are remembered.
const UPLOADS: usize = 50;
/// Apps that are counted one by one.
const APPS: usize = 200;

/// An uploaded object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Upload {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    pub key: String,
    pub bytes: u64,
}

/// See the module. Space-saving counting (Metwally et al., 2005): an app that is not among those counted takes the place, and the
/// count, of the least. What an app really had is at most its count; one that is large is never missed.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    uploads: VecDeque<Upload>,
    apps: BTreeMap<String, u64>,
}

impl Recent {
    pub fn add(&mut self, upload: Upload, app: Option<&str>) {
        if let Some(app) = app {
            self.count(app, upload.bytes);
        }
        if self.uploads.len() == UPLOADS {
            self.uploads.pop_back();
        }
        self.uploads.push_front(upload);
    }

    fn count(&mut self, app: &str, bytes: u64) {
        if let Some(count) = self.apps.get_mut(app) {
            *count += bytes;
            return;
        }
        let mut before = 0;
        if self.apps.len() == APPS
            && let Some(least) = self.apps.iter().min_by_key(|(_, count)| **count).map(|(app, _)| app.clone())
        {
            before = self.apps.remove(&least).unwrap_or_default();
        }
        self.apps.insert(app.to_owned(), before + bytes);
    }

    /// Newest first.
    pub fn uploads(&self) -> impl Iterator<Item = &Upload> {
        self.uploads.iter()
    }

    /// Bytes as stored since the task began here, by app, in no order.
    pub fn apps(&self) -> impl Iterator<Item = (&str, u64)> {
        self.apps.iter().map(|(app, bytes)| (app.as_str(), *bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(at_ms: i64, bytes: u64) -> Upload {
        Upload { at_ms, key: format!("k{at_ms}"), bytes }
    }

    #[test]
    fn the_newest_are_kept_and_large_apps_are_never_missed() {
        let mut recent = Recent::default();
        for round in 0..2_000 {
            recent.add(upload(round, 1), Some(&format!("small-{round}")));
            if round % 10 == 0 {
                recent.add(upload(round, 500), Some("large"));
            }
        }
        assert_eq!(recent.uploads().count(), UPLOADS);
        assert!(recent.uploads().zip(recent.uploads().skip(1)).all(|(newer, older)| newer.at_ms >= older.at_ms));
        let apps: BTreeMap<_, _> = recent.apps().collect();
        assert_eq!(apps.len(), APPS);
        assert!(apps["large"] >= 100_000);
    }
}
