//! A store whose requests fail by a seeded plan: for tests of those who must survive it.
//!
//! Owns: when a request fails and what of it happened nevertheless.
//! Does not own: the objects (the store inside has them).
//!
//! The same seed and the same order of requests give the same failures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Body, ByteRange, Created, Depth, Fault, Got, Head, Page, Store, StoreError};

/// How many of 100 requests meet which fate; what is left of 100 goes well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Nothing happens; the error is transient.
    pub refused: u8,
    /// Nothing happens; the store is too busy.
    pub throttled: u8,
    /// It happens, and its answer is lost.
    pub lost_answer: u8,
    /// The answer is an error; a create happens some requests later, also after its caller has died. Others are refused.
    pub late: u8,
    /// It goes well after other tasks had their turn.
    pub delayed: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    Throttled,
    LostAnswer,
    Late,
    Delayed,
    Well,
}

#[derive(Debug)]
struct Late {
    /// Requests until it lands.
    after: u64,
    key: String,
    bytes: Bytes,
    intent_id: Option<String>,
}

#[derive(Debug)]
struct Plan {
    random: u64,
    late: Vec<Late>,
}

/// A decorator around any store.
#[derive(Debug)]
pub struct Faulty<S: ?Sized> {
    inner: Arc<S>,
    rates: Rates,
    healed: AtomicBool,
    plan: Mutex<Plan>,
}

impl<S: Store + ?Sized> Faulty<S> {
    pub fn new(inner: Arc<S>, seed: u64, rates: Rates) -> Self {
        Self { inner, rates, healed: AtomicBool::new(false), plan: Mutex::new(Plan { random: seed, late: Vec::new() }) }
    }

    /// From now on nothing fails; what is late still lands.
    pub fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    /// Lets every late create land now.
    pub async fn land_all(&self) {
        let due: Vec<Late> = std::mem::take(&mut self.plan().late);
        self.land(due).await;
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fate(&self) -> (Fate, Vec<Late>) {
        let mut plan = self.plan();
        let mut due = Vec::new();
        for mut late in std::mem::take(&mut plan.late) {
            late.after = late.after.saturating_sub(1);
            if late.after == 0 { due.push(late) } else { plan.late.push(late) }
        }
        if self.healed.load(Ordering::Relaxed) {
            return (Fate::Well, due);
        }
        let mut roll = (plan.next_random() % 100) as u8;
        let rates = [
            (self.rates.refused, Fate::Refused),
            (self.rates.throttled, Fate::Throttled),
            (self.rates.lost_answer, Fate::LostAnswer),
            (self.rates.late, Fate::Late),
            (self.rates.delayed, Fate::Delayed),
        ];
        for (rate, fate) in rates {
            if roll < rate {
                return (fate, due);
            }
            roll -= rate;
        }
        (Fate::Well, due)
    }

    async fn land(&self, due: Vec<Late>) {
        for late in due {
            // Nobody waits for the outcome any more.
            let _ = self.inner.create(&late.key, &Body::Bytes(late.bytes), late.intent_id.as_deref()).await;
        }
    }

    /// Lets happen what is due, then says what becomes of this request. `Ok`: it is sent; `true`: but its answer is lost.
    async fn before(&self, op: &'static str, key: &str) -> Result<bool, StoreError> {
        let (fate, due) = self.next_fate();
        self.land(due).await;
        match fate {
            Fate::Refused | Fate::Late => Err(self.error(Fault::Transient, op, key, "injected: refused")),
            Fate::Throttled => Err(self.error(Fault::Throttled { wait: None }, op, key, "injected: too busy")),
            Fate::LostAnswer => Ok(true),
            Fate::Delayed => {
                tokio::task::yield_now().await;
                Ok(false)
            }
            Fate::Well => Ok(false),
        }
    }

    fn after<T>(
        &self,
        lost: bool,
        op: &'static str,
        key: &str,
        answer: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if lost { Err(self.error(Fault::Transient, op, key, "injected: the answer is lost")) } else { answer }
    }

    fn error(&self, fault: Fault, op: &'static str, key: &str, message: &str) -> StoreError {
        StoreError::new(fault, op, self.inner.url(), key, message)
    }

    async fn hold_back(&self, key: &str, body: &Body, intent_id: Option<&str>) {
        let bytes = match body {
            Body::Bytes(bytes) => bytes.clone(),
            // The file may be gone by then.
            Body::File { path, .. } => match tokio::fs::read(path).await {
                Ok(bytes) => Bytes::from(bytes),
                Err(_) => return,
            },
        };
        let mut plan = self.plan();
        let after = 1 + plan.next_random() % 20;
        plan.late.push(Late { after, key: key.to_owned(), bytes, intent_id: intent_id.map(ToOwned::to_owned) });
    }
}

impl Plan {
    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[async_trait]
impl<S: Store + ?Sized> Store for Faulty<S> {
    async fn create(&self, key: &str, body: &Body, intent_id: Option<&str>) -> Result<Created, StoreError> {
        let (fate, due) = self.next_fate();
        self.land(due).await;
        match fate {
            Fate::Refused => Err(self.error(Fault::Transient, "create", key, "injected: refused")),
            Fate::Throttled => Err(self.error(Fault::Throttled { wait: None }, "create", key, "injected: too busy")),
            Fate::Late => {
                self.hold_back(key, body, intent_id).await;
                Err(self.error(Fault::Transient, "create", key, "injected: no answer yet"))
            }
            Fate::LostAnswer => {
                let answer = self.inner.create(key, body, intent_id).await;
                self.after(true, "create", key, answer)
            }
            Fate::Delayed => {
                tokio::task::yield_now().await;
                self.inner.create(key, body, intent_id).await
            }
            Fate::Well => self.inner.create(key, body, intent_id).await,
        }
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let lost = self.before("head", key).await?;
        let answer = self.inner.head(key).await;
        self.after(lost, "head", key, answer)
    }

    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        let lost = self.before("get", key).await?;
        let answer = self.inner.get(key, range, if_match).await;
        self.after(lost, "get", key, answer)
    }

    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let lost = self.before("list", prefix).await?;
        let answer = self.inner.list(prefix, depth, after, limit).await;
        self.after(lost, "list", prefix, answer)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let lost = self.before("delete", key).await?;
        let answer = self.inner.delete(key).await;
        self.after(lost, "delete", key, answer)
    }

    fn url(&self) -> &str {
        self.inner.url()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn only(set: impl FnOnce(&mut Rates)) -> (Arc<MemoryStore>, Faulty<MemoryStore>) {
        let mut rates = Rates::default();
        set(&mut rates);
        let inner = Arc::new(MemoryStore::new());
        (Arc::clone(&inner), Faulty::new(inner, 7, rates))
    }

    async fn create(store: &dyn Store, key: &str) -> Result<Created, StoreError> {
        store.create(key, &Body::Bytes(Bytes::from_static(b"x")), Some("id")).await
    }

    #[tokio::test]
    async fn each_fate_does_what_it_says() {
        let (inner, store) = only(|r| r.refused = 100);
        assert_eq!(create(&store, "a").await.unwrap_err().fault, Fault::Transient);
        assert!(inner.head("a").await.unwrap().is_none());

        let (inner, store) = only(|r| r.lost_answer = 100);
        assert_eq!(create(&store, "a").await.unwrap_err().fault, Fault::Transient);
        assert!(inner.head("a").await.unwrap().is_some());
        assert!(store.delete("a").await.is_err());
        assert!(inner.head("a").await.unwrap().is_none());

        let (inner, store) = only(|r| r.late = 100);
        assert!(create(&store, "a").await.is_err());
        assert!(inner.head("a").await.unwrap().is_none());
        for _ in 0..20 {
            assert!(store.head("b").await.is_err());
        }
        assert_eq!(inner.head("a").await.unwrap().unwrap().intent_id.as_deref(), Some("id"));
        assert!(create(&store, "c").await.is_err());
        store.land_all().await;
        assert!(inner.head("c").await.unwrap().is_some());
        store.heal();
        assert_eq!(create(&store, "d").await.unwrap(), Created::New);
    }

    #[tokio::test]
    async fn a_seed_gives_the_same_story_again() {
        let story = |seed| async move {
            let rates = Rates { refused: 20, throttled: 10, lost_answer: 20, late: 10, delayed: 10 };
            let store = Faulty::new(Arc::new(MemoryStore::new()), seed, rates);
            let mut story = Vec::new();
            for n in 0..200 {
                story.push(create(&store, &format!("k/{}", n % 50)).await.map_err(|e| e.message));
            }
            story
        };
        let first = story(1).await;
        assert_eq!(first, story(1).await);
        assert_ne!(first, story(2).await);
        let failed = first.iter().filter(|outcome| outcome.is_err()).count();
        assert!((80..160).contains(&failed), "{failed} of 200 failed");
    }
}
