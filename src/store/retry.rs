//! How long to wait before trying a store again.
//!
//! Owns: the waits.
//! Does not own: the clock, the randomness, whether to try again.

use std::time::Duration;

use super::Fault;

const QUICK: Steps = Steps { first: Duration::from_millis(100), most: Duration::from_secs(30) };
const SLOW: Steps = Steps { first: Duration::from_secs(60), most: Duration::from_secs(300) };

/// Ceilings that double from `first` to `most`.
#[derive(Clone, Copy, Debug)]
struct Steps {
    first: Duration,
    most: Duration,
}

/// Waits between attempts of one request: growing, and spread so that many writers do not come back at once.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    slow: bool,
}

impl Backoff {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many failures in a row were of the present kind.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The wait after a failure. `random` is any 64 random bits.
    ///
    /// Transient and throttled: anywhere between nothing and a ceiling that doubles from 100 ms to 30 s, on top of what the
    /// store asked for. What someone has to repair first: between half of a ceiling and the ceiling, 30 s to 5 min.
    pub fn next(&mut self, random: u64, fault: &Fault) -> Duration {
        let slow = !matches!(fault, Fault::Transient | Fault::Throttled { .. });
        if slow != self.slow {
            *self = Self { failures: 0, slow };
        }
        let steps = if slow { SLOW } else { QUICK };
        let ceiling = steps.first.saturating_mul(1 << self.failures.min(16)).min(steps.most);
        self.failures = self.failures.saturating_add(1);
        match fault {
            Fault::Throttled { wait } => wait.unwrap_or_default() + share(ceiling, random),
            _ if slow => ceiling / 2 + share(ceiling / 2, random),
            _ => share(ceiling, random),
        }
    }
}

/// The share of `whole` that `random` is of all 64-bit numbers.
fn share(whole: Duration, random: u64) -> Duration {
    let ns = (whole.as_nanos() * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(fault: Fault, random: u64, count: usize) -> Vec<u128> {
        let mut backoff = Backoff::new();
        (0..count).map(|_| backoff.next(random, &fault).as_millis()).collect()
    }

    #[test]
    fn transient_failures_are_tried_soon_then_less_often() {
        let most = waits(Fault::Transient, u64::MAX, 12);
        assert_eq!(most[..3], [99, 199, 399]);
        assert_eq!(most[9..], [29_999; 3]);
        assert_eq!(waits(Fault::Transient, 0, 3), [0; 3]);
        assert_eq!(waits(Fault::Transient, 1 << 63, 3), [50, 100, 200]);
    }

    #[test]
    fn a_throttling_store_is_not_asked_before_the_time_it_named() {
        let wait = Some(Duration::from_secs(7));
        assert_eq!(waits(Fault::Throttled { wait }, 0, 2), [7000; 2]);
        assert_eq!(waits(Fault::Throttled { wait }, 1 << 63, 2), [7050, 7100]);
        assert_eq!(waits(Fault::Throttled { wait: None }, 1 << 63, 2), [50, 100]);
    }

    #[test]
    fn what_needs_repair_is_tried_slowly_and_a_change_of_kind_starts_anew() {
        for fault in [Fault::Denied, Fault::NoBucket, Fault::Invalid] {
            assert_eq!(waits(fault, 0, 5), [30_000, 60_000, 120_000, 150_000, 150_000]);
            assert_eq!(waits(fault, u64::MAX, 5).last(), Some(&299_999));
        }
        let mut backoff = Backoff::new();
        backoff.next(0, &Fault::Transient);
        backoff.next(0, &Fault::Transient);
        backoff.next(0, &Fault::Denied);
        assert_eq!(backoff.failures(), 1);
        for _ in 0..100 {
            assert!(backoff.next(u64::MAX, &Fault::Transient) <= Duration::from_secs(30));
        }
    }
}
