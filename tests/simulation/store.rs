//! The object store's twin: create-only objects behind a network that delays, loses and repeats.
//!
//! Owns: the objects, the fate of each request and of its answer.
//! Does not own: what the objects mean (the oracle's).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sluice::store::{Body, ByteRange, Created, Depth, Fault, Got, Head, Listed, Page, Store, StoreError};
use tokio::time::sleep;

use crate::oracle::{Place, is_state};
use crate::process::Process;
use crate::world::World;

const URL: &str = "sim:";

#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Bytes,
    pub etag: u64,
    pub intent_id: Option<String>,
    /// Of a data object.
    pub records: Arc<Vec<Place>>,
}

#[derive(Debug, Default)]
pub struct Objects {
    pub by_key: BTreeMap<String, Object>,
    written: u64,
}

/// One worker's way to the store.
#[derive(Debug)]
pub struct SimStore {
    pub process: Arc<Process>,
    /// Whether the store keeps the intent id beside the object.
    pub has_metadata: bool,
}

/// Requests that change something.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Entry,
    Object,
    Delete,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// Until it lands; `None`: never.
    lands: Option<u64>,
    /// It lands a second time, so long after the first.
    again: Option<u64>,
    /// How long the caller waits for the answer, and whether it gets it.
    answer: Result<u64, (u64, Fault)>,
}

impl SimStore {
    /// Its fate; `kind` counts what changes something.
    fn fate(&self, kind: Option<Kind>) -> Fate {
        let world = &self.process.world;
        let outage = world.elapsed_ms() < world.outage_until_ms.load(Ordering::Relaxed);
        let mut rng = world.rng();
        let lands = rng.between(1, 30);
        let back = rng.between(1, 30);
        let normal = Fate { lands: Some(lands), again: None, answer: Ok(back) };
        if !self.process.faulty {
            return normal;
        }
        if outage {
            return Fate { lands: None, again: None, answer: Err((lands, Fault::Transient)) };
        }
        let late = match rng.below(4) {
            0 => rng.between(100, 3_000),
            1 | 2 => rng.between(1_000, 60_000),
            _ => rng.between(10_000, 400_000),
        };
        let timeout = rng.between(50, 5_000);
        let count = |kinds: [&'static str; 3]| {
            if let Some(kind) = kind {
                world.count(kinds[kind as usize]);
            }
        };
        match rng.below(100) {
            0..=1 => Fate { lands: None, again: None, answer: Err((lands, Fault::Throttled { wait: None })) },
            2..=3 => Fate { lands: None, answer: Err((timeout, Fault::Transient)), ..normal },
            4..=6 => {
                count(["lost answer to an entry", "lost answer to an object", "lost answer to a delete"]);
                Fate { answer: Err((lands + timeout, Fault::Transient)), ..normal }
            }
            7..=10 => {
                count(["late entry", "late object", "late delete"]);
                Fate { lands: Some(late), answer: Err((timeout, Fault::Transient)), ..normal }
            }
            11..=12 => {
                count(["entry sent twice", "object sent twice", "delete sent twice"]);
                Fate { again: Some(late), ..normal }
            }
            13..=15 => Fate { lands: Some(timeout), ..normal },
            16 if rng.chance(10) => {
                world.count("store refuses");
                Fate { lands: None, again: None, answer: Err((lands, Fault::Denied)) }
            }
            _ => normal,
        }
    }

    fn error(&self, fault: Fault, op: &'static str, key: &str) -> StoreError {
        StoreError { fault, op, url: URL.to_owned(), key: key.to_owned(), message: "simulated".to_owned() }
    }

    /// A request that changes something: it lands also when its sender is gone.
    async fn send<T: Send + 'static>(
        &self,
        op: &'static str,
        key: &str,
        effect: impl Fn(&World) -> T + Clone + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        self.process.cross().await;
        let kind = match (op, is_state(key)) {
            ("delete", _) => Kind::Delete,
            (_, true) => Kind::Entry,
            _ => Kind::Object,
        };
        let fate = self.fate(Some(kind));
        let world = &self.process.world;
        let (sender, landed) = tokio::sync::oneshot::channel();
        if let Some(lands) = fate.lands {
            let (world, effect, dead) = (Arc::clone(world), effect, self.process.dead.clone());
            let delay = Duration::from_millis(lands);
            let late = Duration::from_millis(world.late_after_death_ms.load(Ordering::Relaxed));
            world.under_way(delay + late + Duration::from_millis(fate.again.unwrap_or(0)));
            tokio::spawn(async move {
                sleep(delay).await;
                if dead.is_cancelled() {
                    sleep(late).await;
                }
                // Nobody may be waiting any more.
                let _ = sender.send(effect(&world));
                if let Some(again) = fate.again {
                    sleep(Duration::from_millis(again)).await;
                    effect(&world);
                }
            });
        }
        match fate.answer {
            Ok(back) => {
                let answer = landed.await.map_err(|_| self.error(Fault::Transient, op, key))?;
                sleep(Duration::from_millis(back)).await;
                self.process.cross().await;
                Ok(answer)
            }
            Err((after, fault)) => {
                sleep(Duration::from_millis(after)).await;
                self.process.cross().await;
                Err(self.error(fault, op, key))
            }
        }
    }

    /// A request that changes nothing.
    async fn ask<T>(&self, op: &'static str, key: &str, answer: impl FnOnce(&Objects) -> T) -> Result<T, StoreError> {
        self.process.cross().await;
        let fate = self.fate(None);
        let lands = fate.lands.unwrap_or(1).min(5_000);
        sleep(Duration::from_millis(lands)).await;
        let answer = answer(&self.process.world.objects());
        match fate.answer {
            Ok(back) => {
                sleep(Duration::from_millis(back)).await;
                self.process.cross().await;
                Ok(answer)
            }
            Err((after, fault)) => {
                sleep(Duration::from_millis(after)).await;
                self.process.cross().await;
                Err(self.error(fault, op, key))
            }
        }
    }
}

/// Creates an object, once.
fn create(
    world: &World,
    process: u32,
    key: &str,
    bytes: &Bytes,
    intent_id: Option<&str>,
    records: &Arc<Vec<Place>>,
) -> Created {
    let mut found = None;
    let created = {
        let mut objects = world.objects();
        if let Some(object) = objects.by_key.get(key) {
            found = Some(object.bytes.clone());
            Created::Exists
        } else {
            objects.written += 1;
            let object = Object {
                bytes: bytes.clone(),
                etag: objects.written,
                intent_id: intent_id.map(ToOwned::to_owned),
                records: Arc::clone(records),
            };
            objects.by_key.insert(key.to_owned(), object);
            Created::New
        }
    };
    world.trace(format_args!("{process} creates {key}: {created:?}"));
    match found {
        None => world.oracle().on_created(world, process, key, bytes, records),
        Some(found) => world.oracle().on_refused(world, key, bytes, &found),
    }
    created
}

fn delete(world: &World, process: u32, key: &str) {
    world.trace(format_args!("{process} deletes {key}"));
    if world.objects().by_key.remove(key).is_some() {
        world.oracle().on_deleted(world, key);
    }
}

#[async_trait]
impl Store for SimStore {
    async fn create(&self, key: &str, body: &Body, intent_id: Option<&str>) -> Result<Created, StoreError> {
        let bytes = match body {
            Body::Bytes(bytes) => bytes.clone(),
            Body::File { path, len, .. } => {
                let bytes = std::fs::read(path).unwrap_or_default();
                if bytes.len() as u64 != *len {
                    return Err(self.error(Fault::Invalid, "create", key));
                }
                Bytes::from(bytes)
            }
        };
        let id = self.process.id;
        if self.process.world.uploads_fail.load(Ordering::Relaxed) && !is_state(key) {
            return Err(self.error(Fault::Transient, "create", key));
        }
        let records = self.process.world.oracle().on_attempt(&self.process.world, key, &bytes, intent_id);
        let intent_id = if self.has_metadata { intent_id.map(ToOwned::to_owned) } else { None };
        let owned = key.to_owned();
        self.send("create", key, move |world| create(world, id, &owned, &bytes, intent_id.as_deref(), &records)).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let found = self.ask("head", key, |objects| {
            objects.by_key.get(key).map(|object| Head {
                size: object.bytes.len() as u64,
                etag: object.etag.to_string(),
                intent_id: object.intent_id.clone(),
            })
        });
        let found = found.await?;
        if found.is_some() {
            self.process.world.oracle().on_found(&self.process.world, self.process.id, key);
        }
        Ok(found)
    }

    async fn get(&self, key: &str, range: ByteRange, _if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        self.ask("get", key, |objects| {
            objects.by_key.get(key).map(|object| {
                let size = object.bytes.len() as u64;
                let (start, end) = match range {
                    ByteRange::All => (0, size),
                    ByteRange::From { start, len } => (start.min(size), (start + len).min(size)),
                    ByteRange::Last { len } => (size.saturating_sub(len), size),
                };
                Got { bytes: object.bytes.slice(start as usize..end as usize), etag: object.etag.to_string(), size }
            })
        })
        .await
    }

    async fn list(&self, prefix: &str, _depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.ask("list", prefix, |objects| {
            let from = after.filter(|after| *after >= prefix).unwrap_or(prefix);
            let listed =
                |(key, object): (&String, &Object)| Listed { key: key.clone(), size: object.bytes.len() as u64 };
            let mut found: Vec<Listed> = objects
                .by_key
                .range(from.to_owned()..)
                .take_while(|(key, _)| key.starts_with(prefix))
                .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after))
                .take(limit + 1)
                .map(listed)
                .collect();
            let more = found.len() > limit;
            found.truncate(limit);
            let next = if more { found.last().map(|last| last.key.clone()) } else { None };
            Page { objects: found, folders: Vec::new(), next }
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let (id, owned) = (self.process.id, key.to_owned());
        self.send("delete", key, move |world| delete(world, id, &owned)).await
    }

    fn url(&self) -> &str {
        URL
    }
}
