//! Histories of a task under every fault, run by the real code on virtual time, judged from outside.
//!
//! `SLUICE_SIM_HISTORIES` (1,000; dev/simulation runs more) and `SLUICE_SIM_SEED`: with a seed alone just that history runs, and
//! its trace is printed.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "this is test code")]

mod every_step;
mod history;
mod kafka;
mod mutation;
mod oracle;
mod process;
mod regressions;
mod store;
mod workers;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use history::Outcome;
use mutation::Mutation;

/// What must have happened in a run, so that it says something.
const PATHS: &[&str] = &[
    "append met another's entry",
    "archived records read again",
    "caught up",
    "clock jump back",
    "clock jump forward",
    "crash",
    "entry met itself",
    "entry sent twice",
    "failed because Kafka lost records",
    "fenced",
    "freeze",
    "freeze at a step",
    "history drained",
    "history ended by a loss in Kafka",
    "history that archived records",
    "kafka unreachable at the opening",
    "late delete",
    "late entry",
    "late entry met a takeover below the cleaned ones",
    "late object",
    "log entry cleaned",
    "lost answer to a delete",
    "lost answer to an entry",
    "lost answer to an object",
    "memory over its limit",
    "new partitions",
    "object finished by a former owner",
    "object met itself",
    "object of a predecessor found",
    "object rebuilt by a successor",
    "object sent twice",
    "object that tells of skipped offsets",
    "object uploaded again",
    "old entry landed again on its cleaned number",
    "retention passed low",
    "sidecar met itself",
    "sidecar met that of another attempt",
    "skipped offsets as a number and a sum",
    "skipped offsets as a range",
    "snapshot with pending intents",
    "snapshot",
    "spool failed",
    "spool over its limit",
    "stop cut short",
    "stopped",
    "store outage",
    "store refuses",
    "takeover landed late on a cleaned number",
    "takeover met another's entry",
    "takeover of a log that was cleaned",
    "takeover with pending intents",
    "work in the pool lost",
];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

type Failures = Vec<(u64, Vec<String>)>;

/// Runs `histories` seeds from `first` on every core, until there are enough failures.
fn run_all(
    first: u64,
    histories: u64,
    mutation: Mutation,
    enough: impl Fn(&Failures) -> bool + Sync,
) -> (BTreeMap<&'static str, u64>, Failures) {
    let next = AtomicU64::new(first);
    let counters: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let failures: Mutex<Failures> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own: BTreeMap<&'static str, u64> = BTreeMap::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + histories || enough(&failures.lock().unwrap()) {
                        break;
                    }
                    let Outcome { violations, counters, .. } = history::run(seed, mutation, false);
                    for (what, count) in counters {
                        *own.entry(what).or_default() += count;
                    }
                    if !violations.is_empty() {
                        failures.lock().unwrap().push((seed, violations));
                    }
                }
                let mut all = counters.lock().unwrap();
                for (what, count) in own {
                    *all.entry(what).or_default() += count;
                }
            });
        }
    });
    (counters.into_inner().unwrap(), failures.into_inner().unwrap())
}

#[test]
fn every_record_is_in_exactly_one_object_whatever_happens() {
    let seed = variable("SLUICE_SIM_SEED");
    let histories = variable("SLUICE_SIM_HISTORIES");
    if let (Some(seed), None) = (seed, histories) {
        let outcome = history::run(seed, Mutation::None, true);
        for line in &outcome.trace {
            println!("{line}");
        }
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
        return;
    }
    let (first, histories) = (seed.unwrap_or(1), histories.unwrap_or(1_000));
    let (counters, failures) = run_all(first, histories, Mutation::None, |failures| failures.len() >= 10);
    println!("{histories} histories from seed {first}: {counters:#?}");
    for (seed, violations) in &failures {
        println!("seed {seed} fails: {violations:#?}");
    }
    if let Some((seed, _)) = failures.first() {
        panic!("{} histories failed, replay one with dev/simulation replay {seed}", failures.len());
    }
    let missed: Vec<&str> = PATHS.iter().copied().filter(|path| !counters.contains_key(path)).collect();
    assert!(histories < 5_000 || missed.is_empty(), "never happened: {missed:?}");
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 1..40 {
        let (a, b) = (history::run(seed, Mutation::None, false), history::run(seed, Mutation::None, false));
        assert_eq!(a.trace_hash, b.trace_hash, "seed {seed}");
    }
}

/// Histories within which a broken rule must show.
const MUTATED_HISTORIES: u64 = 5_000;

/// The oracle can fail: each rule of the design, broken, loses or doubles records.
#[test]
fn every_rule_is_needed() {
    let (_, failures) = run_all(1, 500, Mutation::Control, |failures| !failures.is_empty());
    assert_eq!(failures, [], "what breaks the rules does harm by itself");
    let mut harmless = Vec::new();
    for mutation in mutation::ALL {
        let is_harm = |(_, violations): &(u64, Vec<String>)| {
            violations.iter().any(|what| what.starts_with("record (") && what.contains(mutation.harm()))
        };
        let (_, failures) = run_all(1, MUTATED_HISTORIES, mutation, |failures| failures.iter().any(is_harm));
        match failures.iter().find(|failure| is_harm(failure)) {
            Some((seed, violations)) => println!("{mutation:?}: seed {seed}: {}", violations[0]),
            None => harmless.push(mutation),
        }
    }
    assert!(harmless.is_empty(), "{harmless:?} do no harm in {MUTATED_HISTORIES} histories");
}
