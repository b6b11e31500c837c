//! Trying out a store with an object of its own.
//!
//! Owns: which abilities are tried and how a missing one is told.
//! Does not own: what follows from it (the caller's).

use std::fmt;

use bytes::Bytes;

use super::{Body, ByteRange, Created, Depth, Store, StoreError};

/// What became of each step, in the order they were tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    pub url: String,
    pub steps: Vec<ProbeStep>,
    /// Whether the store refuses to overwrite: the main condition of exactly once. `None`: it could not be found out.
    pub create_only: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStep {
    /// `write`, `read`, `read a range`, `head`, `list`, `create only`, `delete`.
    pub name: &'static str,
    pub outcome: ProbeOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    Passed,
    /// The reason in words.
    Failed(String),
    /// An earlier step failed that this one needs.
    NotTried,
}

/// Name of the step that decides whether a store can hold a log.
pub const CREATE_ONLY: &str = "create only";

const OVERWRITES: &str = "the store let a second writer overwrite an object, so it can't hold a task's log: switch the bucket's \
                          versioning off (OSS), or keep the log elsewhere with state.url";

impl ProbeReport {
    /// Whether the store does everything that is asked of it.
    pub fn passed(&self) -> bool {
        self.steps.iter().all(|step| step.outcome == ProbeOutcome::Passed)
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)?;
        for step in &self.steps {
            match &step.outcome {
                ProbeOutcome::Passed => write!(f, "\n  {:<13} ok", step.name)?,
                ProbeOutcome::Failed(why) => write!(f, "\n  {:<13} FAILED: {why}", step.name)?,
                ProbeOutcome::NotTried => write!(f, "\n  {:<13} not tried", step.name)?,
            }
        }
        Ok(())
    }
}

/// Writes, reads, lists and deletes `_sluice/probe-<random>`, and proves that a second create with other content is refused.
/// Tries each request once.
pub async fn probe(store: &dyn Store) -> ProbeReport {
    let names = ["write", "read", "read a range", "head", "list", CREATE_ONLY, "delete"];
    let mut steps: Vec<ProbeStep> =
        names.into_iter().map(|name| ProbeStep { name, outcome: ProbeOutcome::NotTried }).collect();
    let mut outcomes = Vec::new();
    let create_only = match getrandom::u64() {
        Ok(random) => tries(store, &format!("_sluice/probe-{random:016x}"), &mut outcomes).await,
        Err(e) => {
            outcomes.push(Err(format!("no randomness: {e}")));
            None
        }
    };
    for (step, outcome) in steps.iter_mut().zip(outcomes) {
        step.outcome = match outcome {
            Ok(()) => ProbeOutcome::Passed,
            Err(why) => ProbeOutcome::Failed(why),
        };
    }
    ProbeReport { url: store.url().to_owned(), steps, create_only }
}

/// Adds the outcome of each step; returns whether the store refuses to overwrite, where that was found out.
async fn tries(store: &dyn Store, key: &str, outcomes: &mut Vec<Result<(), String>>) -> Option<bool> {
    let content = Bytes::from_static(b"sluice was here to find out what this store can do");
    let written = write(store, key, &content).await;
    let stop = written.is_err();
    outcomes.push(written);
    if stop {
        // The outcome may be unknown.
        let _ = store.delete(key).await;
        return None;
    }
    outcomes.push(read(store, key, &content, ByteRange::All).await);
    let ranges =
        [ByteRange::From { start: 7, len: 3 }, ByteRange::Last { len: 4 }, ByteRange::From { start: 1000, len: 5 }];
    let mut ranged = Ok(());
    for range in ranges {
        ranged = ranged.and(read(store, key, &content, range).await);
    }
    outcomes.push(ranged);
    outcomes.push(head(store, key, content.len()).await);
    outcomes.push(list(store, key).await);
    let refuses = create_only(store, key, &content).await;
    outcomes.push(match &refuses {
        Ok(true) => Ok(()),
        Ok(false) => Err(OVERWRITES.to_owned()),
        Err(why) => Err(why.clone()),
    });
    outcomes.push(delete(store, key).await);
    refuses.ok()
}

fn told<T>(result: Result<T, StoreError>) -> Result<T, String> {
    result.map_err(|e| e.message)
}

async fn write(store: &dyn Store, key: &str, content: &Bytes) -> Result<(), String> {
    match told(store.create(key, &Body::Bytes(content.clone()), Some("probe")).await)? {
        Created::New => Ok(()),
        Created::Exists => Err("the store says that an object of a random name exists".to_owned()),
    }
}

async fn read(store: &dyn Store, key: &str, content: &Bytes, range: ByteRange) -> Result<(), String> {
    let got = told(store.get(key, range, None).await)?.ok_or("what was just written is not there")?;
    let (start, end) = range.bounds(content.len() as u64);
    let same = got.bytes[..] == content[start as usize..end as usize] && got.size == content.len() as u64;
    if same { Ok(()) } else { Err(format!("{} bytes of {} came back for {range:?}", got.bytes.len(), got.size)) }
}

async fn head(store: &dyn Store, key: &str, len: usize) -> Result<(), String> {
    let head = told(store.head(key).await)?.ok_or("what was just written is not there")?;
    if head.size != len as u64 {
        return Err(format!("it says {} bytes, {len} were written", head.size));
    }
    match head.intent_id.as_deref() {
        None | Some("probe") => Ok(()),
        Some(other) => Err(format!("the metadata came back as {other:?}")),
    }
}

async fn list(store: &dyn Store, key: &str) -> Result<(), String> {
    let page = told(store.list(key, Depth::All, None, 10).await)?;
    let there = page.objects.iter().any(|object| object.key == key);
    if there { Ok(()) } else { Err("what was just written is not in the listing".to_owned()) }
}

async fn create_only(store: &dyn Store, key: &str, content: &Bytes) -> Result<bool, String> {
    let other = Body::Bytes(Bytes::from_static(b"another content"));
    let second = told(store.create(key, &other, Some("probe-2")).await)?;
    let now = told(store.get(key, ByteRange::All, None).await)?;
    Ok(second == Created::Exists && now.is_some_and(|got| got.bytes == content))
}

async fn delete(store: &dyn Store, key: &str) -> Result<(), String> {
    told(store.delete(key).await)?;
    match told(store.head(key).await)? {
        None => Ok(()),
        Some(_) => Err("it is still there after its deletion".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::faults::{Faulty, Rates};
    use crate::store::memory::MemoryStore;
    use crate::store::overwriting::Overwriting;
    use crate::store::{Fault, Page};

    #[tokio::test]
    async fn a_good_store_passes_and_is_left_clean() {
        let store = MemoryStore::new();
        let report = probe(&store).await;
        assert!(report.passed(), "{report}");
        assert_eq!(report.create_only, Some(true));
        assert_eq!(store.list("", Depth::All, None, 10).await.unwrap(), Page::default());
    }

    #[tokio::test]
    async fn a_store_that_overwrites_is_found_out() {
        let report = probe(&Overwriting::default()).await;
        assert_eq!(report.create_only, Some(false));
        assert!(report.to_string().contains("create only   FAILED: the store let a second writer"), "{report}");
        let failed = report.steps.iter().filter(|step| step.outcome != ProbeOutcome::Passed).count();
        assert_eq!(failed, 1);
    }

    #[tokio::test]
    async fn a_store_that_refuses_is_told_in_its_words() {
        let store = Faulty::new(Arc::new(MemoryStore::new()), 1, Rates { refused: 100, ..Rates::default() });
        let report = probe(&store).await;
        assert_eq!(report.steps[0].outcome, ProbeOutcome::Failed("injected: refused".to_owned()));
        assert_eq!(report.create_only, None);
        assert!(matches!(store.delete("a").await.unwrap_err().fault, Fault::Transient));
    }
}
