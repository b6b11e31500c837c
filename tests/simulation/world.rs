//! What all twins of one history share.
//!
//! Owns: the seeded randomness, virtual time, the trace, counters, violations, requests that are still under way.
//! Does not own: what Kafka and the store hold.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sluice::clock::{Clock, Random};
use tokio::time::Instant;

use crate::disks::Disks;
use crate::kafka::Topic;
use crate::mutation::Belief;
use crate::oracle::Oracle;
use crate::store::Objects;

/// Some day in 2023.
pub const EPOCH_MS: i64 = 1_700_000_000_000;

/// splitmix64: enough for choices, and the same everywhere.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5151_5c0d_e5a1_7e00)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// What is kept of all that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    Nothing,
    /// Equal hashes are equal histories.
    Hash,
    Lines,
}

#[derive(Debug)]
struct Trace {
    hash: u64,
    lines: Vec<String>,
}

/// The world of one history.
#[derive(Debug)]
pub struct World {
    started: Instant,
    watch: Watch,
    rng: Mutex<Rng>,
    trace: Mutex<Trace>,
    counters: Mutex<BTreeMap<&'static str, u64>>,
    violations: Mutex<Vec<String>>,
    kafka: Mutex<Topic>,
    objects: Mutex<Objects>,
    oracle: Mutex<Oracle>,
    belief: Mutex<Belief>,
    disks: Mutex<Disks>,
    /// By process and partition: the least offset that it read from.
    read_from: Mutex<BTreeMap<(u32, i32), i64>>,
    /// When the last request that is under way lands.
    landed_by: Mutex<Instant>,
    clock_jump_ms: AtomicI64,
    pub outage_until_ms: AtomicU64,
    /// What a process has sent lands so much later when it is dead by then.
    pub late_after_death_ms: AtomicU64,
    /// The store takes the log's entries and no objects.
    pub uploads_fail: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl World {
    pub fn new(seed: u64, watch: Watch) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            watch,
            rng: Mutex::new(Rng::new(seed)),
            trace: Mutex::new(Trace { hash: 0, lines: Vec::new() }),
            counters: Mutex::default(),
            violations: Mutex::default(),
            kafka: Mutex::default(),
            objects: Mutex::default(),
            oracle: Mutex::default(),
            belief: Mutex::default(),
            disks: Mutex::new(Disks::new(seed)),
            read_from: Mutex::default(),
            landed_by: Mutex::new(Instant::now()),
            clock_jump_ms: AtomicI64::new(0),
            outage_until_ms: AtomicU64::new(0),
            late_after_death_ms: AtomicU64::new(0),
            uploads_fail: AtomicBool::new(false),
        })
    }

    pub fn rng(&self) -> MutexGuard<'_, Rng> {
        lock(&self.rng)
    }

    pub fn kafka(&self) -> MutexGuard<'_, Topic> {
        lock(&self.kafka)
    }

    pub fn objects(&self) -> MutexGuard<'_, Objects> {
        lock(&self.objects)
    }

    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        lock(&self.oracle)
    }

    pub fn disks(&self) -> MutexGuard<'_, Disks> {
        lock(&self.disks)
    }

    pub fn read_from(&self) -> MutexGuard<'_, BTreeMap<(u32, i32), i64>> {
        lock(&self.read_from)
    }

    /// What mutated owners believe.
    pub fn belief(&self) -> MutexGuard<'_, Belief> {
        lock(&self.belief)
    }

    /// Milliseconds of virtual time since the history began.
    pub fn elapsed_ms(&self) -> u64 {
        Instant::now().duration_since(self.started).as_millis() as u64
    }

    pub fn wall_ms(&self) -> i64 {
        EPOCH_MS + self.elapsed_ms() as i64 + self.clock_jump_ms.load(Ordering::Relaxed)
    }

    pub fn jump_clocks(&self, by_ms: i64) {
        self.clock_jump_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    pub fn count(&self, what: &'static str) {
        *lock(&self.counters).entry(what).or_default() += 1;
    }

    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counters).clone()
    }

    /// Everything that happens, in order.
    pub fn trace(&self, event: std::fmt::Arguments<'_>) {
        if self.watch == Watch::Nothing {
            return;
        }
        let line = format!("{:>9} {event}", self.elapsed_ms());
        let mut trace = lock(&self.trace);
        for byte in line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.watch == Watch::Lines {
            trace.lines.push(line);
        }
    }

    pub fn trace_hash(&self) -> u64 {
        lock(&self.trace).hash
    }

    pub fn trace_lines(&self) -> Vec<String> {
        lock(&self.trace).lines.clone()
    }

    /// A broken promise: the history fails.
    pub fn violation(&self, what: String) {
        self.trace(format_args!("VIOLATION {what}"));
        lock(&self.violations).push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// A request is under way for so long, whoever waits for it.
    pub fn under_way(&self, delay: Duration) {
        let at = Instant::now() + delay;
        let mut landed_by = lock(&self.landed_by);
        *landed_by = (*landed_by).max(at);
    }

    pub fn landed_by(&self) -> Instant {
        *lock(&self.landed_by)
    }
}

/// A worker's clock: the world's, set wrong.
#[derive(Debug)]
pub struct SimClock {
    pub world: Arc<World>,
    pub skew_ms: i64,
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.world.wall_ms() + self.skew_ms
    }
}

#[derive(Debug)]
pub struct SimRandom(pub Arc<World>);

impl Random for SimRandom {
    fn next_u128(&self) -> u128 {
        let mut rng = self.0.rng();
        u128::from(rng.next()) << 64 | u128::from(rng.next())
    }
}
