//! Whether systemd's watchdog may be fed: only while every loop goes round.
//!
//! Owns: the decision. Does not own: the loops, when it is asked, the datagram ([`super::notify`]).
//!
//! It needs no clock: systemd counts the time since the last feeding, and a loop that stands still since then stops the feeding.

use std::collections::BTreeMap;

/// Connector, topic, task.
pub type LoopName = (String, String, u32);

/// What was seen when the watchdog was fed last.
#[derive(Debug, Default)]
pub struct Watchdog {
    fed: BTreeMap<LoopName, u64>,
}

impl Watchdog {
    /// `turns`: how often each loop that runs now has gone round. A loop that was not there at the last feeding counts as moving.
    ///
    /// # Errors
    /// The loops that have stood still since the last feeding: nothing is fed, and they have to turn before the next.
    pub fn feed(&mut self, turns: BTreeMap<LoopName, u64>) -> Result<(), Vec<LoopName>> {
        let still = |(name, turn): (&LoopName, &u64)| (self.fed.get(name) == Some(turn)).then(|| name.clone());
        let standing: Vec<LoopName> = turns.iter().filter_map(still).collect();
        if standing.is_empty() {
            self.fed = turns;
            return Ok(());
        }
        Err(standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(all: &[(u32, u64)]) -> BTreeMap<LoopName, u64> {
        all.iter().map(|&(task, turn)| (("app-logs".to_owned(), "applogs".to_owned(), task), turn)).collect()
    }

    #[test]
    fn without_loops_it_is_fed() {
        let mut watchdog = Watchdog::default();
        assert!((0..3).all(|_| watchdog.feed(BTreeMap::new()).is_ok()));
    }

    #[test]
    fn one_loop_that_stands_still_is_enough() {
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.feed(turns(&[(0, 1), (1, 1)])), Ok(()));
        let standing = watchdog.feed(turns(&[(0, 2), (1, 1)])).unwrap_err();
        assert_eq!(standing, [("app-logs".to_owned(), "applogs".to_owned(), 1)]);
        // The other one alone does not bring it back; it is compared with the last feeding, not with the last question.
        assert!(watchdog.feed(turns(&[(0, 3), (1, 1)])).is_err());
        assert_eq!(watchdog.feed(turns(&[(0, 3), (1, 2)])), Ok(()));
    }

    #[test]
    fn loops_that_begin_and_end_are_no_trouble() {
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.feed(turns(&[(0, 7)])), Ok(()));
        // Begun since then.
        assert_eq!(watchdog.feed(turns(&[(0, 8), (1, 0)])), Ok(()));
        // Ended while it stood.
        assert!(watchdog.feed(turns(&[(0, 9), (1, 0)])).is_err());
        assert_eq!(watchdog.feed(turns(&[(0, 9)])), Ok(()));
        // A loop that was started anew has turned more often than before, or less.
        assert_eq!(watchdog.feed(turns(&[(0, 2)])), Ok(()));
    }
}
