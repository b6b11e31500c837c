//! The wall clock and randomness, as doors: everything else gets times and random numbers as arguments, so that it can be
//! replayed.

use std::sync::Arc;

/// Reads the wall clock.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
}

/// Makes tokens and step ids, and the jitter of retries.
pub trait Random: Send + Sync + std::fmt::Debug {
    fn next_u128(&self) -> u128;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now_ms(&self) -> i64 {
        // A clock before 1970 reads as 0; beyond the year 292 million it saturates.
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Microseconds of `CLOCK_MONOTONIC`, the one that systemd compares with.
pub fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(now.tv_sec).saturating_mul(1_000_000).saturating_add(part(now.tv_nsec) / 1_000)
}

/// The operating system's random numbers.
#[derive(Debug)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn next_u128(&self) -> u128 {
        let mut bytes = [0; 16];
        // Without randomness no token is safe: nothing sensible can go on.
        if let Err(error) = getrandom::fill(&mut bytes) {
            tracing::error!(%error, "the operating system gives no random numbers");
            std::process::abort();
        }
        u128::from_ne_bytes(bytes)
    }
}

/// The doors of a running worker.
#[derive(Clone, Debug)]
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

impl Environment {
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) }
    }
}
