//! One partition of a running read.
//!
//! Owns: its position, its leader, and what an answer's batches mean for both. Does not own: connections, decoding.

use bytes::Bytes;
use tokio::time::Instant;

use crate::kafka::backoff::Backoff;
use crate::kafka::native::batch::{self, Next};

/// Answers of one partition that wait to be decoded while the next one is fetched.
pub const AHEAD: usize = 2;

/// Where a partition is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its leader is asked for.
    Homeless,
    /// Whether the leader's log is still the one that was read is to be asked.
    Unproven,
    /// It is being asked.
    Proving,
    Reading,
    /// The ends of its log are asked for, since the position is in neither.
    OutOfRange,
    /// Its failure was sent, or the decoder meets it in what was fetched already.
    Ended,
}

#[derive(Debug)]
pub struct Partition {
    pub partition: i32,
    /// Next offset to fetch: past everything that was handed to the decoder.
    pub position: i64,
    pub leader: i32,
    pub leader_epoch: i32,
    /// Epoch of the last batch below the position; -1: unknown.
    pub last_fetched_epoch: i32,
    /// Where a former reader came to, and the epoch of the last batch below.
    pub seen: Option<(i64, i32)>,
    /// The leader and epoch whose log is known to be the one that was read.
    pub proven: Option<(i32, i32)>,
    /// A replica nearby that the leader named, and until when it is read from.
    pub replica: Option<(i32, Instant)>,
    pub status: Status,
    /// Answers handed to the decoder and not decoded yet.
    pub undecoded: usize,
    /// Bytes to ask for; grows to a batch that was cut off.
    pub max_bytes: i32,
    /// Number of the last answer that held data: who waited longest is served first.
    pub served: u64,
    pub retry_at: Option<Instant>,
    pub backoff: Backoff,
    /// The end that was told last.
    pub told_end: i64,
    /// Answers in a row whose batches all lie below the position.
    pub stuck: u32,
    /// Answers in a row that call the position out of range although it is not.
    pub misplaced: u32,
}

impl Partition {
    pub fn new(partition: i32, position: i64, backoff: Backoff, max_bytes: i32) -> Self {
        Self {
            partition,
            position,
            leader: -1,
            leader_epoch: -1,
            last_fetched_epoch: -1,
            seen: None,
            proven: None,
            replica: None,
            status: Status::Homeless,
            undecoded: 0,
            max_bytes,
            served: 0,
            retry_at: None,
            backoff,
            told_end: -1,
            stuck: 0,
            misplaced: 0,
        }
    }

    /// The highest offset up to which the log is known, and the epoch of the last batch below it.
    pub fn known(&self) -> Option<(i64, i32)> {
        let read = (self.position, self.last_fetched_epoch);
        [Some(read), self.seen].into_iter().flatten().filter(|&(_, epoch)| epoch >= 0).max()
    }

    /// Takes a leader; reading goes on once its log is known to be the one that was read.
    pub fn follow(&mut self, leader: i32, leader_epoch: i32) {
        if (leader, leader_epoch) != (self.leader, self.leader_epoch) {
            self.replica = None;
            (self.leader, self.leader_epoch) = (leader, leader_epoch);
        }
        let is_proven = self.known().is_none() || self.proven == Some((leader, leader_epoch));
        match self.status {
            Status::Homeless | Status::Reading if is_proven => self.status = Status::Reading,
            Status::Homeless | Status::Reading => self.status = Status::Unproven,
            Status::Unproven | Status::Proving | Status::OutOfRange | Status::Ended => {}
        }
    }

    /// The broker to fetch from.
    pub fn broker(&self, now: Instant) -> i32 {
        match self.replica {
            Some((replica, until)) if now < until => replica,
            _ => self.leader,
        }
    }

    /// It could be fetched, but for the decoder that is behind.
    pub fn is_held_back(&self) -> bool {
        self.status == Status::Reading && self.undecoded >= AHEAD
    }

    pub fn is_ready(&self, now: Instant) -> bool {
        self.status == Status::Reading && self.undecoded < AHEAD && self.retry_at.is_none_or(|at| at <= now)
    }
}

/// What the batch headers of an answer say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    pub next_offset: i64,
    /// -1: no batch.
    pub last_epoch: i32,
    /// Size of the batch that the answer's end cut off, where it tells.
    pub cut_off: Option<usize>,
    /// Something is there that is no batch; the decoder says what.
    pub damaged: bool,
}

/// Walks over the batches without looking into them.
pub fn walk(position: i64, records: &Bytes) -> Walked {
    let mut walked = Walked { next_offset: position, last_epoch: -1, cut_off: None, damaged: false };
    let mut rest = records.clone();
    loop {
        match batch::take(&mut rest) {
            Ok(Next::Batch(batch)) => {
                walked.next_offset = walked.next_offset.max(batch.next_offset());
                walked.last_epoch = batch.leader_epoch;
            }
            Ok(Next::CutOff(size)) => {
                walked.cut_off = size;
                return walked;
            }
            Ok(Next::End) => return walked,
            Err(_) => {
                walked.damaged = true;
                return walked;
            }
        }
    }
}
