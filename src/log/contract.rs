//! What every place for a log must do, as one suite that each implementation runs in its tests.
//!
//! Owns: the checks. They need an empty log and leave entries in it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test suite that tests of other crates call")]

use std::sync::Arc;

use bytes::Bytes;

use super::LogDoor;
use super::journal::{Journal, LogError, read_state};
use crate::clock::Environment;
use crate::ledger::{Commit, Entry, Identity, SettingsRecord};
use crate::store::Created;

/// Runs all checks and panics at the first that fails. `open` gives a new, empty log each time.
pub async fn run(open: impl Fn() -> Arc<dyn LogDoor>) {
    each_number_has_one_winner(open()).await;
    entries_are_listed_and_read(open()).await;
    a_takeover_fences_the_old_owner(open()).await;
    a_snapshot_lets_entries_go_but_no_takeover(open()).await;
    a_late_append_on_a_cleaned_number_decides_nothing(open()).await;
    damage_and_holes_stop_the_opening(open()).await;
}

fn start() -> Entry {
    Entry::Start {
        settings: SettingsRecord::new(serde_json::json!({})),
        identity: Identity::default(),
        lows: [(0, 0)].into(),
        skipped: Vec::new(),
        time_ms: 1,
    }
}

fn low(offset: i64) -> Entry {
    Entry::Commit(Commit { lows: [(0, offset)].into(), time_ms: offset, ..Commit::default() })
}

async fn own(door: &Arc<dyn LogDoor>, worker: &str) -> (Journal, crate::ledger::State) {
    Journal::take_over(Arc::clone(door), Environment::system(), worker).await.unwrap()
}

async fn each_number_has_one_winner(door: Arc<dyn LogDoor>) {
    for number in 1..=10 {
        let writers = (0..16).map(|writer| {
            let door = Arc::clone(&door);
            tokio::spawn(async move {
                // Where a store answers a race with "try again", it is tried again.
                loop {
                    if let Ok(created) = door.create(number, Bytes::from(format!("writer {writer}"))).await {
                        return (writer, created);
                    }
                }
            })
        });
        let outcomes = futures::future::join_all(writers).await;
        let winners: Vec<i32> =
            outcomes.into_iter().map(|o| o.unwrap()).filter(|(_, c)| *c == Created::New).map(|(w, _)| w).collect();
        assert_eq!(winners.len(), 1, "number {number}");
        assert_eq!(door.read(number).await.unwrap().unwrap(), format!("writer {}", winners[0]));
    }
}

async fn entries_are_listed_and_read(door: Arc<dyn LogDoor>) {
    assert_eq!(door.numbers(0).await.unwrap(), Vec::<u64>::new());
    assert_eq!(door.read(1).await.unwrap(), None);
    for number in [1, 2, 9, 10, 11, 1_000_000] {
        door.create(number, Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(door.numbers(0).await.unwrap(), [1, 2, 9, 10, 11, 1_000_000]);
    assert_eq!(door.numbers(9).await.unwrap(), [10, 11, 1_000_000]);
    door.delete(10).await.unwrap();
    door.delete(10).await.unwrap();
    assert_eq!(door.numbers(9).await.unwrap(), [11, 1_000_000]);
}

async fn a_takeover_fences_the_old_owner(door: Arc<dyn LogDoor>) {
    let (mut old, state) = own(&door, "old").await;
    assert_eq!(state.tip, 1);
    old.append(start()).await.unwrap();
    old.append(low(5)).await.unwrap();
    let (mut new, state) = own(&door, "new").await;
    assert_eq!((state.tip, state.low(0)), (4, Some(5)));
    let error = old.append(low(6)).await.unwrap_err();
    assert!(matches!(&error, LogError::Fenced { by, .. } if by == "new"), "{error}");
    new.append(low(7)).await.unwrap();
    assert_eq!(read_state(door.as_ref(), &Environment::system()).await.unwrap().low(0), Some(7));
}

async fn a_snapshot_lets_entries_go_but_no_takeover(door: Arc<dyn LogDoor>) {
    let (mut journal, _) = own(&door, "first").await;
    journal.append(start()).await.unwrap();
    let (mut journal, mut state) = own(&door, "second").await;
    for offset in 1..6 {
        state.apply(&journal.append(low(offset)).await.unwrap()).unwrap();
    }
    let snapshot = Entry::Snapshot { state: Box::new(state.pruned()) };
    let snapshot = journal.append(snapshot).await.unwrap();
    assert_eq!(journal.clean_up().await.unwrap(), 6);
    assert_eq!(door.numbers(0).await.unwrap(), [1, 3, snapshot.number]);
    state.apply(&snapshot).unwrap();
    state.apply(&journal.append(low(9)).await.unwrap()).unwrap();
    let read = read_state(door.as_ref(), &Environment::system()).await.unwrap();
    assert_eq!(read, state);
    assert_eq!((read.takeovers, read.tip), (vec![1, 3], 10));
}

/// A request of an owner that was long thought lost arrives after clean-up has freed its number.
async fn a_late_append_on_a_cleaned_number_decides_nothing(door: Arc<dyn LogDoor>) {
    let (mut journal, mut state) = own(&door, "live").await;
    state.apply(&journal.append(start()).await.unwrap()).unwrap();
    state.apply(&journal.append(low(1)).await.unwrap()).unwrap();
    let (mut journal, mut state) = own(&door, "next").await;
    let snapshot = Entry::Snapshot { state: Box::new(state.pruned()) };
    state.apply(&journal.append(snapshot).await.unwrap()).unwrap();
    journal.clean_up().await.unwrap();
    assert_eq!(door.numbers(0).await.unwrap(), [1, 4, 5]);
    // A Takeover that was computed before entry 2 existed.
    let late = crate::ledger::encoding::Stored {
        number: 2,
        token: crate::ledger::Token("late".to_owned()),
        step: crate::ledger::StepId("late".to_owned()),
        entry: Entry::Takeover { worker: "late".to_owned(), time_ms: 0 },
    };
    assert_eq!(door.create(2, late.encode().unwrap().into()).await.unwrap(), Created::New);
    assert_eq!(read_state(door.as_ref(), &Environment::system()).await.unwrap(), state);
    let next = journal.append(low(2)).await.unwrap();
    assert_eq!(next.number, 6, "the owner goes on");
}

async fn damage_and_holes_stop_the_opening(door: Arc<dyn LogDoor>) {
    let (mut journal, _) = own(&door, "w").await;
    journal.append(start()).await.unwrap();
    for offset in 1..4 {
        journal.append(low(offset)).await.unwrap();
    }
    let good = door.read(3).await.unwrap().unwrap();
    door.delete(3).await.unwrap();
    let error = read_state(door.as_ref(), &Environment::system()).await.unwrap_err();
    assert!(matches!(&error, LogError::Damaged { number: 3, why, .. } if why.contains("missing")), "{error}");
    door.create(3, good.slice(..good.len() - 2)).await.unwrap();
    let error = read_state(door.as_ref(), &Environment::system()).await.unwrap_err();
    assert!(matches!(&error, LogError::Damaged { number: 3, why, .. } if why.contains("cut off")), "{error}");
    door.delete(3).await.unwrap();
    door.create(3, good).await.unwrap();
    read_state(door.as_ref(), &Environment::system()).await.unwrap();
}
