//! Fetch sessions (KIP-227): a broker remembers what was asked, so that a request names only what changed.
//!
//! Owns: what the broker remembers of one connection. Does not own: which partitions are wanted.

use std::collections::BTreeMap;

use crate::kafka::native::messages::fetch::FetchPartition;

/// The session of one connection; a new connection starts a new one.
#[derive(Debug, Default)]
pub struct Session {
    /// 0: none, the next request asks for one.
    id: i32,
    epoch: i32,
    known: BTreeMap<i32, FetchPartition>,
}

/// A request's part of the session.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    pub session_id: i32,
    pub session_epoch: i32,
    pub partitions: Vec<FetchPartition>,
    pub forgotten: Vec<i32>,
}

impl Session {
    /// What to send so that the broker fetches `wanted`, in this order where it has no session yet.
    pub fn changes(&mut self, wanted: &[FetchPartition]) -> Changes {
        let (session_id, session_epoch) = (self.id, self.epoch);
        let now: BTreeMap<i32, FetchPartition> = wanted.iter().map(|each| (each.partition, *each)).collect();
        let before = std::mem::replace(&mut self.known, now);
        if session_id == 0 {
            return Changes { session_id, session_epoch, partitions: wanted.to_vec(), forgotten: Vec::new() };
        }
        let changed = wanted.iter().filter(|each| before.get(&each.partition) != Some(each));
        let forgotten = before.keys().filter(|partition| !self.known.contains_key(partition));
        Changes {
            session_id,
            session_epoch,
            partitions: changed.copied().collect(),
            forgotten: forgotten.copied().collect(),
        }
    }

    /// An answer came, with this session.
    pub fn answered(&mut self, session_id: i32) {
        if session_id == 0 {
            // The broker keeps no session for now.
            *self = Self::default();
        } else {
            self.id = session_id;
            self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        }
    }

    /// The broker and this side no longer agree.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32, offset: i64) -> FetchPartition {
        FetchPartition { partition, leader_epoch: 0, offset, last_fetched_epoch: -1, max_bytes: 10 }
    }

    #[test]
    fn only_changes_are_sent_once_there_is_a_session() {
        let mut session = Session::default();
        let first = session.changes(&[at(1, 0), at(0, 0)]);
        let partitions = vec![at(1, 0), at(0, 0)];
        assert_eq!(first, Changes { session_id: 0, session_epoch: 0, partitions, forgotten: vec![] });
        session.answered(77);
        let idle = session.changes(&[at(0, 0), at(1, 0)]);
        assert_eq!(idle, Changes { session_id: 77, session_epoch: 1, partitions: vec![], forgotten: vec![] });
        session.answered(77);
        let moved = session.changes(&[at(0, 5), at(2, 0)]);
        let partitions = vec![at(0, 5), at(2, 0)];
        assert_eq!(moved, Changes { session_id: 77, session_epoch: 2, partitions, forgotten: vec![1] });
        session.reset();
        assert_eq!(session.changes(&[at(0, 5)]).session_epoch, 0);
    }

    #[test]
    fn a_broker_without_room_for_sessions_gets_whole_requests() {
        let mut session = Session::default();
        for _ in 0..2 {
            let changes = session.changes(&[at(0, 0)]);
            assert_eq!((changes.session_id, changes.session_epoch, changes.partitions.len()), (0, 0, 1));
            session.answered(0);
        }
    }
}
