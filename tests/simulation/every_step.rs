//! Small histories in which a process dies at each of its steps, one history a step.
//!
//! Owns: which histories these are. Does not own: what a step is (the process's).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice::task::End;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::kafka::{Partition, Produced};
use crate::workers::{Plan, Worker, judge};
use crate::world::{Watch, World};

/// When what the dead process had sent lands: at once, while its successor opens the log, when that one is done.
const LATE_MS: [u64; 3] = [0, 250, 600_000];

/// Records of a first and a second time.
fn produce(world: &World, count: usize) {
    let mut rng = world.rng();
    let mut topic = world.kafka();
    for partition in &mut topic.partitions {
        for _ in 0..count {
            let app = rng.below(2) as u8;
            partition.records.push(Some(Produced { app, bad: rng.chance(3), ..Produced::some() }));
        }
    }
}

/// What came of one history.
struct Outcome {
    /// Steps of the first and the second owner.
    steps: [u64; 2],
    violations: Vec<String>,
    counters: BTreeMap<&'static str, u64>,
    trace: Vec<String>,
}

/// The first owner dies at step `first`, the second at step `second`; the third finishes. Without a number they live on.
fn history(seed: u64, first: Option<u64>, second: Option<u64>, late_ms: u64, watch: Watch) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, watch);
        world.late_after_death_ms.store(late_ms, Ordering::Relaxed);
        let plan = Plan::of_small_files(&mut world.rng());
        world.kafka().partitions.extend([Partition::default(), Partition::default()]);
        produce(&world, 6);
        let mut steps = [0; 2];
        for (id, dies_at) in (1..).zip([first, second]) {
            let mut worker = Worker::start(&world, &plan, id, false, false);
            if let Some(at) = dies_at {
                worker.process.crash_after(at);
            }
            sleep(Duration::from_secs(2)).await;
            produce(&world, 4);
            // The first lives long enough for files by age; then it is asked to stop.
            let deadline = Instant::now() + Duration::from_secs(8);
            tokio::select! {
                () = worker.process.dead.cancelled() => {}
                () = sleep_until(deadline) => worker.ask_to_stop(),
            }
            let ended = timeout(Duration::from_secs(3_600), &mut worker.ended).await.unwrap().unwrap();
            steps[id as usize - 1] = worker.process.steps();
            judge(&world, id, ended, false);
        }
        let last = Worker::start(&world, &plan, 3, true, false);
        match timeout(Duration::from_secs(3_600), last.ended).await {
            Ok(ended) => {
                let ended = ended.unwrap();
                if !matches!(ended, Some(Ok(End::CaughtUp))) {
                    world.violation(format!("the last owner ends with {ended:?}"));
                }
            }
            Err(_) => world.violation("the last owner does not finish".to_owned()),
        }
        sleep_until(world.landed_by().max(Instant::now()) + Duration::from_secs(1)).await;
        world.oracle().from_earliest = true;
        world.oracle().check_conservation(&world);
        Outcome { steps, violations: world.violations(), counters: world.counters(), trace: world.trace_lines() }
    })
}

/// What a death at some step must have led to.
const PATHS: &[&str] = &[
    "crash",
    "history that archived records",
    "object finished by a former owner",
    "object of a predecessor found",
    "object rebuilt by a successor",
    "takeover of a log that was cleaned",
    "takeover with pending intents",
    "work in the pool lost",
];

/// `SLUICE_SIM_HISTORIES` has more of them than the few that run by themselves.
#[test]
fn a_death_at_every_step_loses_and_doubles_nothing() {
    let plans = (crate::variable("SLUICE_SIM_HISTORIES").unwrap_or(0) / 2_000).clamp(2, 500);
    // Ranges of seeds that do not overlap have plans of their own here too.
    let first = crate::variable("SLUICE_SIM_SEED").unwrap_or(1).div_ceil(2_000);
    let deaths: Vec<(u64, u64)> = (first..first + plans)
        .flat_map(|seed| (0..history(seed, None, None, 0, Watch::Nothing).steps[0]).map(move |at| (seed, at)))
        .collect();
    let next = AtomicU64::new(0);
    let all: std::sync::Mutex<BTreeMap<&str, u64>> = std::sync::Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&(seed, at)) = deaths.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    for late_ms in LATE_MS {
                        // The second dies somewhere too, each time elsewhere.
                        let second = (at * 7 + late_ms) % 200;
                        let outcome = history(seed, Some(at), Some(second), late_ms, Watch::Nothing);
                        if !outcome.violations.is_empty() {
                            let trace = history(seed, Some(at), Some(second), late_ms, Watch::Lines).trace;
                            panic!(
                                "seed {seed}, deaths at {at} and {second}, late by {late_ms} ms: {:#?}\n{}",
                                outcome.violations,
                                trace.join("\n")
                            );
                        }
                        crate::add(&mut all.lock().unwrap(), outcome.counters);
                    }
                }
            });
        }
    });
    let counters = all.into_inner().unwrap();
    println!(
        "simulation: a death at each of {} steps of {plans} plans from {first} on, {} histories, violations: 0",
        deaths.len(),
        deaths.len() * LATE_MS.len()
    );
    let missed: Vec<&str> = PATHS.iter().copied().filter(|path| !counters.contains_key(path)).collect();
    assert!(missed.is_empty(), "never happened: {missed:?}");
}
