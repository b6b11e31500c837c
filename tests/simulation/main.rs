//! Histories of a task under every fault, run by the real code on virtual time, judged from outside.
//!
//! `SLUICE_SIM_HISTORIES` (1,000; dev/simulation runs more) and `SLUICE_SIM_SEED`: with a seed alone just that history runs, and
//! its trace is printed.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "this is test code")]

mod disks;
mod every_step;
mod group;
mod history;
mod kafka;
mod members;
mod mutated_store;
mod mutation;
mod oracle;
mod process;
mod redis;
mod regressions;
mod store;
mod workers;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use history::Outcome;
use mutation::Mutation;
use world::Watch;

/// What is done to a history. Each must have been done in a run of [`ENOUGH`], so that it says something.
const FAULTS: &[&str] = &[
    "Redis away",
    "Redis clock jump",
    "Redis failed over",
    "Redis flushed",
    "clock jump back",
    "clock jump forward",
    "crash",
    "freeze",
    "freeze at a step",
    "late delete",
    "late entry",
    "late object",
    "log truncated",
    "lost answer of Redis",
    "lost answer to a delete",
    "lost answer to an entry",
    "lost answer to an object",
    "entry sent twice",
    "object sent twice",
    "delete sent twice",
    "disk found again",
    "operator died half-way",
    "request to Redis came late",
    "request to Redis lost",
    "retention below low",
    "retention passed low",
    "settings deployed",
    "spool damaged",
    "spool failed",
    "store outage",
    "store refuses",
    "topic recreated",
    "work in the pool lost",
    "worker died",
    "worker without coordination",
];

/// What a worker or its successor comes through by: each must have been taken.
const RECOVERIES: &[&str] = &[
    "append met another's entry",
    "append to a log that has ended",
    "archived records read again",
    "caught up",
    "cut",
    "entry met itself",
    "failed because Kafka lost records",
    "fenced",
    "group history drained",
    "history drained",
    "history drained after a loss in Kafka",
    "history ended by a loss in Kafka",
    "history that archived records",
    "job had to be run again",
    "kafka unreachable at the opening",
    "late entry met a takeover below the cleaned ones",
    "lease found to be another's",
    "lease handed over",
    "lease of a dead worker taken",
    "lease of a sleeping worker taken",
    "lease taken again",
    "lease taken for the first time",
    "lease taken that Redis had lost",
    "log ended at a cut",
    "log ended with nothing to finish",
    "log entry cleaned",
    "loss accepted",
    "mapping change finished by another",
    "mapping changed",
    "mapping met one that was there",
    "memory over its limit",
    "new partitions",
    "object finished by a former owner",
    "object finished from the spool of a predecessor",
    "object met itself",
    "object of a predecessor found",
    "object rebuilt by a successor",
    "object that tells of skipped offsets",
    "object uploaded again",
    "old entry landed again on its cleaned number",
    "settings changed at a cut",
    "settings changed with nothing to finish",
    "sidecar met itself",
    "sidecar met that of another attempt",
    "skipped offsets as a number and a sum",
    "skipped offsets as a range",
    "snapshot with pending intents",
    "spool adopted",
    "spool over its limit",
    "stop cut short",
    "stopped",
    "takeover in the middle of a cut",
    "takeover landed late on a cleaned number",
    "takeover met another's entry",
    "takeover of a log that was cleaned",
    "takeover with pending intents",
    "truncation told by its leader epoch",
    "worker forgotten by Redis",
    "worker stopped",
    "worker with another tasks_max left behind",
];

/// Histories that must come by everything.
const ENOUGH: u64 = 5_000;

/// Between two lines of progress.
const PROGRESS: u64 = 10_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

type Counters = BTreeMap<&'static str, u64>;
type Failures = Vec<(u64, Vec<String>)>;

fn add(all: &mut Counters, more: Counters) {
    for (what, count) in more {
        *all.entry(what).or_default() += count;
    }
}

/// Runs `histories` seeds from `first` on every core, until there are enough failures.
fn run_all(
    first: u64,
    histories: u64,
    mutation: Mutation,
    enough: impl Fn(&Failures) -> bool + Sync,
) -> (Counters, Failures) {
    let next = AtomicU64::new(first);
    let counters: Mutex<Counters> = Mutex::default();
    let failures: Mutex<Failures> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Counters::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + histories || enough(&failures.lock().unwrap()) {
                        break;
                    }
                    let done = seed - first;
                    if done > 0 && done.is_multiple_of(PROGRESS) {
                        let failed = failures.lock().unwrap().len();
                        println!("simulation: {done} of {histories} histories, {failed} of them with violations");
                    }
                    let Outcome { violations, counters, .. } = history::run(seed, mutation, Watch::Nothing);
                    add(&mut own, counters);
                    if !violations.is_empty() {
                        if mutation == Mutation::None {
                            println!("seed {seed} fails: {violations:#?}");
                        }
                        failures.lock().unwrap().push((seed, violations));
                    }
                }
                add(&mut counters.lock().unwrap(), own);
            });
        }
    });
    (counters.into_inner().unwrap(), failures.into_inner().unwrap())
}

/// The result as it is shown: what was done, what came of it, everything that was counted.
fn report(first: u64, histories: u64, counters: &Counters, failures: &Failures) -> String {
    let of = |what: &str| counters.get(what).copied().unwrap_or(0);
    let sum = |names: &[&'static str]| names.iter().map(|what| of(what)).sum::<u64>();
    let taken = |names: &[&'static str]| names.iter().filter(|what| of(what) > 0).count();
    let mut text = format!(
        "simulation: {histories} histories from seed {first} to {}: {} of one task, {} of groups\n  \
         {} faults of {} of {} kinds; {} recoveries, {} of {} paths taken; {} takeovers\n  \
         violations: {}\n",
        first + histories - 1,
        of("history of one task"),
        of("history of a group"),
        sum(FAULTS),
        taken(FAULTS),
        FAULTS.len(),
        sum(RECOVERIES),
        taken(RECOVERIES),
        RECOVERIES.len(),
        of("takeover"),
        failures.iter().map(|(_, violations)| violations.len()).sum::<usize>()
    );
    for (title, names) in [("faults", FAULTS), ("recoveries", RECOVERIES)] {
        let named: Vec<String> = names.iter().map(|what| format!("{what} {}", of(what))).collect();
        text.push_str(&format!("  {title}: {}\n", named.join(", ")));
    }
    text
}

#[test]
fn every_record_is_in_exactly_one_object_whatever_happens() {
    let seed = variable("SLUICE_SIM_SEED");
    let histories = variable("SLUICE_SIM_HISTORIES");
    if let (Some(seed), None) = (seed, histories) {
        let outcome = history::run(seed, Mutation::None, Watch::Lines);
        for line in &outcome.trace {
            println!("{line}");
        }
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
        return;
    }
    let (first, histories) = (seed.unwrap_or(1), histories.unwrap_or(1_000));
    let (counters, failures) = run_all(first, histories, Mutation::None, |failures| failures.len() >= 10);
    println!("{}", report(first, histories, &counters, &failures));
    if let Some((seed, _)) = failures.first() {
        panic!("{} histories failed, replay one with dev/simulation replay {seed}", failures.len());
    }
    let all = FAULTS.iter().chain(RECOVERIES);
    let missed: Vec<&str> = all.copied().filter(|path| !counters.contains_key(path)).collect();
    assert!(histories < ENOUGH || missed.is_empty(), "never happened: {missed:?}");
}

/// What each of them showed has a test of its own in regressions.rs or is told beside the code that mended it.
#[test]
fn seeds_that_failed_once_do_not_again() {
    for seed in [10_012, 63_526, 88_973, 98_345, 104_371, 127_505, 202_542, 262_719, 541_000] {
        let outcome = history::run(seed, Mutation::None, Watch::Nothing);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 1..40 {
        let [a, b] = [0; 2].map(|_| history::run(seed, Mutation::None, Watch::Hash));
        assert_eq!(a.trace_hash, b.trace_hash, "seed {seed}");
    }
}

/// Histories within which a broken rule must show.
const MUTATED_HISTORIES: u64 = 5_000;

/// The oracle can fail: each rule of the design, broken, loses or doubles records.
#[test]
fn every_rule_is_needed() {
    for control in [Mutation::Control, Mutation::GroupControl] {
        let (_, failures) = run_all(1, 300, control, |failures| !failures.is_empty());
        assert_eq!(failures, [], "what breaks the rules does harm by itself");
    }
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
