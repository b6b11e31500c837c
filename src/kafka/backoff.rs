//! How long to wait before the next try.
//!
//! Owns: the growth of the waits and their jitter. Does not own: what is worth another try.

use std::time::Duration;

/// Waits that double from `first` to `max`, each shortened by up to half at random so that clients don't retry in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, tries: 0 }
    }

    /// The next wait; `random` is any number.
    pub fn next_wait(&mut self, random: u32) -> Duration {
        let full = self.first.saturating_mul(1 << self.tries.min(16)).min(self.max);
        self.tries = self.tries.saturating_add(1);
        let half = full / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Something worked: the next failure waits for the first duration again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// How many waits since the last reset.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Sleeps for the next wait.
    pub async fn wait(&mut self) {
        // Without randomness the waits are only less spread, so its failure is no failure of ours.
        let random = getrandom::u32().unwrap_or_default();
        tokio::time::sleep(self.next_wait(random)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let full: Vec<u128> = (0..6).map(|_| backoff.next_wait(u32::MAX).as_millis()).collect();
        assert_eq!(full, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next_wait(0), Duration::from_millis(50));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for _ in 0..100 {
            assert!(backoff.next_wait(7) <= Duration::from_secs(5));
        }
    }
}
