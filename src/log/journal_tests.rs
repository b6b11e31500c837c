use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::log::store_log::StoreLog;
use crate::store::Fault;
use crate::store::memory::MemoryStore;

/// A log whose first listings are those of an earlier time.
#[derive(Debug)]
struct SlowToList {
    log: Arc<dyn LogDoor>,
    listings: Mutex<VecDeque<Vec<u64>>>,
}

#[async_trait]
impl LogDoor for SlowToList {
    async fn create(&self, number: u64, entry: Bytes) -> Result<Created, StoreError> {
        self.log.create(number, entry).await
    }
    async fn read(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        self.log.read(number).await
    }
    async fn numbers(&self, after: u64) -> Result<Vec<u64>, StoreError> {
        let listing = self.listings.lock().unwrap().pop_front();
        match listing {
            Some(listing) => Ok(listing),
            None => self.log.numbers(after).await,
        }
    }
    async fn delete(&self, number: u64) -> Result<(), StoreError> {
        self.log.delete(number).await
    }
    fn place(&self) -> String {
        self.log.place()
    }
}

/// The look above finds a snapshot in its listing that a newer one has replaced before it is read.
#[tokio::test]
async fn a_late_takeover_is_noticed_while_the_live_owner_cleans_up() {
    let environment = Environment::system();
    let log: Arc<dyn LogDoor> = Arc::new(StoreLog::new(Arc::new(MemoryStore::new()), "log"));
    let (mut live, mut state) = Journal::take_over(Arc::clone(&log), environment.clone(), "live").await.unwrap();
    for _ in 0..4 {
        state.tip = live.tip();
        let snapshot = Entry::Snapshot { state: Box::new(state.pruned()) };
        state.apply(&live.append(snapshot).await.unwrap()).unwrap();
        live.clean_up().await.unwrap();
    }
    assert_eq!(log.numbers(0).await.unwrap(), [1, 5]);
    // As it was when only entry 1 was there, and then when entry 4 was the newest snapshot.
    let listings = Mutex::new(VecDeque::from([vec![1], vec![4]]));
    let slow = Arc::new(SlowToList { log: Arc::clone(&log), listings });
    let (journal, state) = Journal::take_over(slow, environment, "late").await.unwrap();
    assert_eq!((journal.tip(), state.takeovers), (6, vec![1, 6]));
}

/// What happens to the next requests of one kind; after them all goes well.
#[derive(Debug)]
struct Trouble {
    log: Arc<dyn LogDoor>,
    /// Answers of creates that are lost.
    answers_lost: Mutex<u32>,
    /// Deletes that go well before one fails.
    deletes: Mutex<Option<u32>>,
}

impl Trouble {
    fn error() -> StoreError {
        StoreError {
            fault: Fault::Transient,
            op: "request",
            url: String::new(),
            key: String::new(),
            message: "lost".to_owned(),
        }
    }
}

#[async_trait]
impl LogDoor for Trouble {
    async fn create(&self, number: u64, entry: Bytes) -> Result<Created, StoreError> {
        let created = self.log.create(number, entry).await;
        let mut left = self.answers_lost.lock().unwrap();
        if *left == 0 {
            return created;
        }
        *left -= 1;
        Err(Self::error())
    }
    async fn read(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        self.log.read(number).await
    }
    async fn numbers(&self, after: u64) -> Result<Vec<u64>, StoreError> {
        self.log.numbers(after).await
    }
    async fn delete(&self, number: u64) -> Result<(), StoreError> {
        match &mut *self.deletes.lock().unwrap() {
            Some(0) => return Err(Self::error()),
            Some(left) => *left -= 1,
            None => {}
        }
        self.log.delete(number).await
    }
    fn place(&self) -> String {
        self.log.place()
    }
}

fn troubled() -> (Arc<Trouble>, Arc<dyn LogDoor>) {
    let log: Arc<dyn LogDoor> = Arc::new(StoreLog::new(Arc::new(MemoryStore::new()), "log"));
    let door = Trouble { log: Arc::clone(&log), answers_lost: Mutex::default(), deletes: Mutex::default() };
    (Arc::new(door), log)
}

fn start() -> Entry {
    let settings = crate::ledger::SettingsRecord::new(serde_json::json!({}));
    Entry::Start {
        settings,
        identity: crate::ledger::Identity::default(),
        lows: [(0, 0)].into(),
        skipped: Vec::new(),
        time_ms: 1,
    }
}

fn low(offset: i64) -> Entry {
    Entry::Commit(crate::ledger::Commit { lows: [(0, offset)].into(), time_ms: offset, ..Default::default() })
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_is_lost_is_asked_about() {
    let (door, log) = troubled();
    let environment = Environment::system();
    *door.answers_lost.lock().unwrap() = 1;
    let (mut journal, mut state) =
        Journal::take_over(Arc::clone(&door) as Arc<dyn LogDoor>, environment.clone(), "one").await.unwrap();
    for (lost, entry) in [(1, start()), (3, low(1)), (0, low(2))] {
        *door.answers_lost.lock().unwrap() = lost;
        state.apply(&journal.append(entry).await.unwrap()).unwrap();
    }
    assert_eq!((journal.tip(), log.numbers(0).await.unwrap()), (4, vec![1, 2, 3, 4]));
    assert_eq!(read_state(log.as_ref(), &environment).await.unwrap(), state);
    // The number is another's by the time the answer is asked for.
    let (_, other) = Journal::take_over(Arc::clone(&log), environment.clone(), "two").await.unwrap();
    *door.answers_lost.lock().unwrap() = 1;
    let error = journal.append(low(3)).await.unwrap_err();
    assert!(matches!(&error, LogError::Fenced { by, number: 5, .. } if by == "two"), "{error}");
    assert_eq!(read_state(log.as_ref(), &environment).await.unwrap(), other);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_clean_up_is_gone_on_with_by_the_next_owner() {
    let (door, log) = troubled();
    let environment = Environment::system();
    let (mut journal, mut state) =
        Journal::take_over(Arc::clone(&door) as Arc<dyn LogDoor>, environment.clone(), "one").await.unwrap();
    for entry in [start(), low(1), low(2), low(3)] {
        state.apply(&journal.append(entry).await.unwrap()).unwrap();
    }
    let snapshot = |state: &State| Entry::Snapshot { state: Box::new(state.pruned()) };
    state.apply(&journal.append(snapshot(&state)).await.unwrap()).unwrap();
    *door.deletes.lock().unwrap() = Some(2);
    journal.clean_up().await.unwrap_err();
    assert_eq!(log.numbers(0).await.unwrap(), [1, 4, 5, 6]);
    // It may also have been interrupted by a crash.
    let (mut journal, mut state) = Journal::take_over(Arc::clone(&log), environment.clone(), "two").await.unwrap();
    assert_eq!(state.low(0), Some(3));
    state.apply(&journal.append(low(9)).await.unwrap()).unwrap();
    state.apply(&journal.append(snapshot(&state)).await.unwrap()).unwrap();
    assert_eq!(journal.clean_up().await.unwrap(), 4);
    assert_eq!(log.numbers(0).await.unwrap(), [1, 7, 9]);
    assert_eq!(read_state(log.as_ref(), &environment).await.unwrap(), state);
}
