//! Rules between workers that are broken on purpose: a store that does not keep, or tells wrongly, what a log says.
//!
//! Owns: a door in front of the store of one worker. Does not own: which mutations there are ([`crate::mutation`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use sluice::config::ConnectorConfig;
use sluice::ledger::encoding::Stored;
use sluice::ledger::{Entry, SettingsRecord, StepId};
use sluice::store::{Body, ByteRange, Created, Depth, Got, Head, Page, Store, StoreError};
use sluice::task::settings::TaskSettings;

use crate::kafka::TOPIC;
use crate::mutation::Mutation;
use crate::oracle::entry_of;
use crate::process::Process;

/// A store that breaks one rule.
#[derive(Debug)]
pub struct MutatedStore {
    mutation: Mutation,
    store: Arc<dyn Store>,
    process: Arc<Process>,
    settings: SettingsRecord,
    told: Mutex<Told>,
}

/// What the worker was told, by log.
#[derive(Debug, Default)]
struct Told {
    /// It was taken over and does not know.
    unfenced: BTreeSet<String>,
    /// Its Takeover, which waits for what comes next.
    held_back: BTreeMap<String, (String, Bytes)>,
    /// The tip, as a snapshot that leaves something out.
    tips: BTreeMap<String, (String, Bytes)>,
}

impl MutatedStore {
    pub fn wrap(
        mutation: Mutation,
        store: Arc<dyn Store>,
        process: &Arc<Process>,
        config: &Arc<ConnectorConfig>,
    ) -> Arc<dyn Store> {
        if mutation == Mutation::None {
            return store;
        }
        let settings = TaskSettings::new(Arc::clone(config), TOPIC, 0).record.clone();
        Arc::new(Self { mutation, store, process: Arc::clone(process), settings, told: Mutex::default() })
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    async fn put(&self, key: &str, bytes: &Bytes) -> Result<Created, StoreError> {
        self.store.create(key, &Body::Bytes(bytes.clone()), None).await
    }

    /// The owner does not learn that its number is another's: it goes on as long as it has its lease.
    async fn put_without_fencing(
        &self,
        key: &str,
        folder: &str,
        mine: Stored,
        bytes: &Bytes,
    ) -> Result<Created, StoreError> {
        if self.told().unfenced.contains(folder) {
            return Ok(Created::New);
        }
        let created = self.put(key, bytes).await?;
        if created == Created::New || mine.entry.is_takeover() {
            return Ok(created);
        }
        let found = self.store.get(key, ByteRange::All, None).await?;
        let found = found.and_then(|got| Stored::decode(mine.number, &got.bytes).ok());
        if found.is_some_and(|found| found.token == mine.token) {
            return Ok(created);
        }
        self.told().unfenced.insert(folder.to_owned());
        Ok(Created::New)
    }

    /// A Takeover that is followed by the end of the log does not reach it, and the end does not either.
    async fn put_without_takeover(
        &self,
        key: &str,
        folder: &str,
        mine: Stored,
        bytes: &Bytes,
    ) -> Result<Created, StoreError> {
        if mine.entry.is_takeover() {
            self.told().held_back.insert(folder.to_owned(), (key.to_owned(), bytes.clone()));
            return Ok(Created::New);
        }
        let held = self.told().held_back.get(folder).cloned();
        if let Some((takeover_key, takeover)) = held {
            if matches!(mine.entry, Entry::Closed { .. }) {
                return Ok(Created::New);
            }
            let created = self.put(&takeover_key, &takeover).await?;
            if created == Created::Exists {
                let found = self.store.get(&takeover_key, ByteRange::All, None).await?;
                if found.is_none_or(|got| got.bytes != takeover) {
                    return Ok(Created::Exists);
                }
            }
            self.told().held_back.remove(folder);
        }
        self.put(key, bytes).await
    }

    /// The tip of a log, as a snapshot with this worker's settings in it.
    fn tell(&self, folder: &str, tip_key: &str) {
        let world = &self.process.world;
        let oracle = world.oracle();
        let (Some(state), Some((_, tip))) = (oracle.log(folder), entry_of(tip_key)) else { return };
        let Some(owner) = state.owner.clone().filter(|_| state.tip == tip && state.is_started()) else { return };
        let mut state = state.clone();
        if self.mutation == Mutation::NoCut && state.closed.is_none() {
            state.settings = Some(self.settings.clone());
            state.cut = None;
        }
        let entry = Entry::Snapshot { state: Box::new(state) };
        let stored = Stored { number: tip, token: owner.token, step: StepId(String::new()), entry };
        let bytes = stored.encode().unwrap().into();
        self.told().tips.insert(folder.to_owned(), (tip_key.to_owned(), bytes));
    }
}

#[async_trait]
impl Store for MutatedStore {
    async fn create(&self, key: &str, body: &Body, intent_id: Option<&str>) -> Result<Created, StoreError> {
        let (Some((folder, number)), Body::Bytes(bytes)) = (entry_of(key), body) else {
            return self.store.create(key, body, intent_id).await;
        };
        let mine = Stored::decode(number, bytes).unwrap();
        match self.mutation {
            Mutation::LeaseInsteadOfFencing => self.put_without_fencing(key, folder, mine, bytes).await,
            Mutation::MappingWithoutTakeover => self.put_without_takeover(key, folder, mine, bytes).await,
            Mutation::ClosedStaysOpen if matches!(mine.entry, Entry::Closed { .. }) => Ok(Created::New),
            _ => self.put(key, bytes).await,
        }
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.store.head(key).await
    }

    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        if let Some((folder, _)) = entry_of(key) {
            let told = self.told().tips.get(folder).filter(|(tip, _)| tip == key).map(|(_, bytes)| bytes.clone());
            if let Some(bytes) = told {
                let size = bytes.len() as u64;
                return Ok(Some(Got { bytes, etag: String::new(), size }));
            }
        }
        self.store.get(key, range, if_match).await
    }

    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let page = self.store.list(prefix, depth, after, limit).await?;
        // A log that is opened is listed from its first entry on.
        if matches!(self.mutation, Mutation::NoCut | Mutation::GroupControl)
            && let Some((folder, 0)) = after.and_then(entry_of)
        {
            self.told().tips.remove(folder);
            if let Some(last) = page.objects.last() {
                self.tell(folder, &last.key);
            }
        }
        Ok(page)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.store.delete(key).await
    }

    fn url(&self) -> &str {
        self.store.url()
    }
}
