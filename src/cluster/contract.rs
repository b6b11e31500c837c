//! What every coordinator must do, as one suite that each implementation runs in its tests.
//!
//! Owns: the checks. Each wants a group of its own, seen by two workers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test suite that tests of other crates call")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Card, Coordinator, Instance, Phase, TaskName};

type Pair = (Arc<dyn Coordinator>, Arc<dyn Coordinator>);

/// Nothing ends by itself within a check.
const LONG: Duration = Duration::from_secs(600);
/// Ends while a check waits for it.
const SHORT: Duration = Duration::from_millis(150);

/// Runs all checks and panics at the first that fails. `open` gives a new group, seen by two workers, with leases of the time
/// that it is given.
pub async fn run(open: impl Fn(Duration) -> Pair) {
    members_see_each_other(open(LONG)).await;
    a_lease_has_one_holder(open(LONG)).await;
    of_many_one_gets_it(open(LONG)).await;
    only_the_holder_frees(open(LONG)).await;
    who_leaves_frees_all(open(LONG)).await;
    held_and_free_is_asserted_held_by_another_is_not_taken(open(LONG)).await;
    what_is_not_renewed_ends(open(SHORT)).await;
    what_is_renewed_stays(open(SHORT)).await;
}

fn instance(name: &str) -> Instance {
    Instance(name.to_owned())
}

fn card(worker: &str, max_tasks: Option<u32>) -> Card {
    let offers = BTreeMap::from([("c/t".to_owned(), 3), ("c/ü".to_owned(), 1)]);
    Card { worker: worker.to_owned(), max_tasks, phase: Phase::Ready, offers }
}

fn task(number: u32) -> TaskName {
    TaskName::new("c", "t", number)
}

async fn members_see_each_other((first, second): Pair) {
    let (a, b) = (instance("a"), instance("b"));
    let view = first.sync(&a, &card("w1", None), &[]).await.unwrap();
    assert!(!view.known && view.leases.is_empty());
    assert_eq!(view.members, BTreeMap::from([(a.clone(), card("w1", None))]));
    assert!(first.sync(&a, &card("w1", None), &[]).await.unwrap().known);
    let view = second.sync(&b, &card("w2", Some(0)), &[]).await.unwrap();
    assert!(!view.known);
    assert_eq!(view.members, BTreeMap::from([(a.clone(), card("w1", None)), (b.clone(), card("w2", Some(0)))]));
    // A card that changed is seen at once.
    let leaving = Card { phase: Phase::Leaving, ..card("w1", Some(7)) };
    first.sync(&a, &leaving, &[]).await.unwrap();
    assert_eq!(second.sync(&b, &card("w2", None), &[]).await.unwrap().members[&a], leaving);
}

async fn a_lease_has_one_holder((first, second): Pair) {
    let (a, b) = (instance("a"), instance("b"));
    assert_eq!(first.acquire(&a, &[task(0), task(1)]).await.unwrap(), [task(0), task(1)]);
    assert_eq!(second.acquire(&b, &[task(1), task(2)]).await.unwrap(), [task(2)]);
    assert_eq!(first.acquire(&a, &[task(1)]).await.unwrap(), [task(1)], "again is the same");
    let leases = second.sync(&b, &card("w2", None), &[]).await.unwrap().leases;
    assert_eq!(leases, BTreeMap::from([(task(0), a.clone()), (task(1), a), (task(2), b)]));
}

async fn of_many_one_gets_it((first, second): Pair) {
    for number in 0..20 {
        let tries = (0..16).map(|worker| {
            let door = Arc::clone(if worker % 2 == 0 { &first } else { &second });
            tokio::spawn(
                async move { door.acquire(&instance(&worker.to_string()), &[task(number)]).await.unwrap().len() },
            )
        });
        let got: usize = futures::future::join_all(tries).await.into_iter().map(|got| got.unwrap()).sum();
        assert_eq!(got, 1, "task {number}");
    }
}

async fn only_the_holder_frees((first, second): Pair) {
    let (a, b) = (instance("a"), instance("b"));
    first.acquire(&a, &[task(0), task(1)]).await.unwrap();
    second.release(&b, &[task(0), task(1), task(2)]).await.unwrap();
    assert!(second.acquire(&b, &[task(0), task(1)]).await.unwrap().is_empty());
    first.release(&a, &[task(1)]).await.unwrap();
    first.release(&a, &[task(1)]).await.unwrap();
    assert_eq!(second.acquire(&b, &[task(0), task(1)]).await.unwrap(), [task(1)]);
}

async fn who_leaves_frees_all((first, second): Pair) {
    let (a, b) = (instance("a"), instance("b"));
    first.sync(&a, &card("w1", None), &[]).await.unwrap();
    first.acquire(&a, &[task(0), task(1)]).await.unwrap();
    second.acquire(&b, &[task(2)]).await.unwrap();
    first.leave(&a).await.unwrap();
    first.leave(&a).await.unwrap();
    let view = second.sync(&b, &card("w2", None), &[]).await.unwrap();
    assert_eq!(view.members.into_keys().collect::<Vec<_>>(), std::slice::from_ref(&b));
    assert_eq!(view.leases, BTreeMap::from([(task(2), b)]));
}

/// After a flush, or an hour without Redis.
async fn held_and_free_is_asserted_held_by_another_is_not_taken((first, second): Pair) {
    let (a, b) = (instance("a"), instance("b"));
    second.acquire(&b, &[task(1)]).await.unwrap();
    let view = first.sync(&a, &card("w1", None), &[task(0), task(1)]).await.unwrap();
    assert_eq!(view.leases, BTreeMap::from([(task(0), a), (task(1), b)]));
}

async fn what_is_not_renewed_ends((first, second): Pair) {
    let (a, b) = (instance("a"), instance("b"));
    first.sync(&a, &card("w1", None), &[task(0)]).await.unwrap();
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let view = second.sync(&b, &card("w2", None), &[]).await.unwrap();
        if !view.members.contains_key(&a) && view.leases.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < limit, "{view:?} does not end");
        tokio::time::sleep(SHORT / 10).await;
    }
    assert_eq!(second.acquire(&b, &[task(0)]).await.unwrap(), [task(0)]);
    assert!(!first.sync(&a, &card("w1", None), &[task(0)]).await.unwrap().known, "it was forgotten");
}

/// Of two that are renewed by the same clock and for the same time, the one that began later does not end first: seen by whether a
/// lease that is always renewed is ever another's, through several of its times. A pause of the machine that is longer than the
/// lease makes the round void.
async fn what_is_renewed_stays((first, second): Pair) {
    let (a, b) = (instance("a"), instance("b"));
    for _ in 0..100 {
        let begun = tokio::time::Instant::now();
        first.sync(&a, &card("w1", None), &[task(0)]).await.unwrap();
        let mut void = false;
        let mut renewed = begun;
        while begun.elapsed() < SHORT * 4 && !void {
            tokio::time::sleep(SHORT / 10).await;
            let view = first.sync(&a, &card("w1", None), &[task(0)]).await.unwrap();
            void = renewed.elapsed() > SHORT / 2;
            renewed = tokio::time::Instant::now();
            assert!(void || (view.known && view.leases.get(&task(0)) == Some(&a)), "{view:?}");
            let got = second.acquire(&b, &[task(0)]).await.unwrap();
            void |= renewed.elapsed() > SHORT / 2;
            assert!(void || got.is_empty(), "a renewed lease was taken");
        }
        if !void {
            return;
        }
        second.release(&b, &[task(0)]).await.unwrap();
    }
    panic!("the machine pauses all the time");
}
