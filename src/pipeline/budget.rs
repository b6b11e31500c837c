//! The memory budget of a worker: one figure for fetch buffers, lane buffers and frames in flight.
//!
//! Owns: the count of bytes in use and who waits for room. Does not own: what is done about a full budget (the task
//! compresses its fullest lanes, the source waits).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Shared by every task of a worker; clones count together.
#[derive(Clone, Debug)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    max_bytes: u64,
    used_bytes: AtomicU64,
    open_lanes: AtomicU64,
    freed: Notify,
}

/// What an open lane takes beside its buffer: what is known of it, its spool file, index entries.
const LANE_BYTES: u64 = 3 * 1024;
/// Lanes count for no more than this share of the budget, however many they are: nothing but their end frees it, and records need
/// room meanwhile.
const LANES_SHARE: u64 = 8;

impl Inner {
    fn lane_bytes(&self) -> u64 {
        self.open_lanes.load(Ordering::Relaxed).saturating_mul(LANE_BYTES).min(self.max_bytes / LANES_SHARE)
    }

    /// One holder's part of a count becomes another; who waits for room is told of less.
    fn change(&self, count: &AtomicU64, before: u64, now: u64) {
        if now >= before {
            count.fetch_add(now - before, Ordering::Relaxed);
        } else {
            count.fetch_sub(before - now, Ordering::Relaxed);
            self.freed.notify_waiters();
        }
    }
}

impl Budget {
    pub fn new(max_bytes: u64) -> Self {
        let (used_bytes, open_lanes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { inner: Arc::new(Inner { max_bytes, used_bytes, open_lanes, freed: Notify::new() }) }
    }

    pub fn max_bytes(&self) -> u64 {
        self.inner.max_bytes
    }

    /// Of everybody, with what their lanes take beside their buffers.
    pub fn used_bytes(&self) -> u64 {
        self.inner.used_bytes.load(Ordering::Relaxed) + self.inner.lane_bytes()
    }

    /// A task's open lanes: none yet.
    pub fn lanes(&self) -> LaneCount {
        LaneCount { inner: Arc::clone(&self.inner), lanes: 0 }
    }

    /// Waits until `bytes` fit, then counts them. A request above the whole budget is let through alone, when nothing
    /// else is counted, so that one huge record can't stop the worker for ever.
    pub async fn reserve(&self, bytes: u64) -> Permit {
        loop {
            let freed = self.inner.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(permit) = self.try_reserve(bytes) {
                return permit;
            }
            freed.await;
        }
    }

    pub fn try_reserve(&self, bytes: u64) -> Option<Permit> {
        let room = self.inner.max_bytes - self.inner.lane_bytes();
        let fits = |used: u64| used == 0 || used.saturating_add(bytes) <= room;
        self.inner
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| fits(used).then(|| used.saturating_add(bytes)))
            .ok()
            .map(|_| Permit { inner: Arc::clone(&self.inner), bytes })
    }

    /// Counts `bytes` that are in memory already, over the limit or not.
    pub fn charge(&self, bytes: u64) -> Permit {
        self.inner.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        Permit { inner: Arc::clone(&self.inner), bytes }
    }
}

/// Bytes counted against the budget until this is dropped.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<Inner>,
    bytes: u64,
}

impl Permit {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes the count to what is really held, more or less than was reserved.
    pub fn resize(&mut self, bytes: u64) {
        self.inner.change(&self.inner.used_bytes, self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.resize(0);
    }
}

/// The open lanes of one task, counted until this is dropped.
#[derive(Debug)]
pub struct LaneCount {
    inner: Arc<Inner>,
    lanes: u64,
}

impl LaneCount {
    pub fn set(&mut self, lanes: usize) {
        let lanes = lanes as u64;
        self.inner.change(&self.inner.open_lanes, self.lanes, lanes);
        self.lanes = lanes;
    }
}

impl Drop for LaneCount {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_of_whatever_number_leave_room_for_records() {
        let budget = Budget::new(64 << 20);
        let mut tasks: Vec<LaneCount> = (0..16).map(|_| budget.lanes()).collect();
        tasks[0].set(1_000);
        assert_eq!(budget.used_bytes(), 1_000 * LANE_BYTES);
        tasks.iter_mut().for_each(|task| task.set(100_000));
        assert_eq!(budget.used_bytes(), 8 << 20);
        let permit = budget.try_reserve(56 << 20).expect("there is room");
        assert!(budget.try_reserve(1).is_none());
        drop(permit);
        assert!(budget.try_reserve(1 << 30).is_some(), "one huge one passes alone, lanes or not");
        tasks.iter_mut().for_each(|task| task.set(0));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_reservation_waits_for_room_and_wakes_when_there_is_some() {
        let budget = Budget::new(100);
        let held = budget.reserve(80).await;
        assert!(budget.try_reserve(30).is_none());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(30).await.bytes() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        assert_eq!(waiting.await.unwrap(), 30);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn one_huge_reservation_passes_alone() {
        let budget = Budget::new(100);
        let huge = budget.reserve(500).await;
        assert!(budget.try_reserve(1).is_none());
        drop(huge);
        assert!(budget.try_reserve(1).is_some());
    }
}
