//! What the answers of brokers do to the partitions.
//!
//! Owns: positions after answers, and what each error means for a partition. Does not own: what is fetched next.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::leaders::METADATA_AGE;
use super::{PARTITION_BYTES, Reading, STUCK_LIMIT, is_session_error};
use crate::kafka::native::decode::Fetched;
use crate::kafka::native::decoding::Job;
use crate::kafka::native::fetching::Done;
use crate::kafka::native::messages::fetch::{BY_TOPIC_ID, FetchAnswer, FetchedPartition};
use crate::kafka::native::partition::{Status, walk};
use crate::kafka::native::{errors, offsets};
use crate::pipeline::budget::Permit;
use crate::pipeline::source::{Isolation, SourceError};

impl Reading {
    pub(super) fn on_fetch(&mut self, done: Done) {
        let now = Instant::now();
        let Some(broker) = self.brokers.get_mut(&done.broker) else { return };
        broker.busy = false;
        broker.connection = done.connection;
        broker.retry_at = None;
        let (answer, permit) = match done.result {
            Ok(answer) => answer,
            Err(error @ SourceError::Unreachable { .. }) => return self.broker_failed(done.broker, &error.to_string()),
            Err(error) => {
                let partitions: Vec<i32> = done.asked.iter().map(|asked| asked.0).collect();
                return partitions.into_iter().for_each(|partition| self.fail(partition, error.clone()));
            }
        };
        if is_session_error(answer.error) {
            return broker.session.reset();
        }
        if answer.error != errors::NONE {
            return self.broker_failed(done.broker, &format!("fetch: {}", errors::name(answer.error)));
        }
        broker.session.answered(answer.session_id);
        let by_name = done.version.is_some_and(|version| version < BY_TOPIC_ID);
        broker.backoff.reset();
        if answer.throttle_ms > 0 {
            broker.retry_at = Some(now + Duration::from_millis(answer.throttle_ms as u64));
        }
        if by_name {
            self.tell_no_ids(
                "Kafka before 3.1 takes no topic ids in fetches: a topic that is deleted and made again within a minute may not be noticed",
            );
        }
        self.on_answer(done.broker, &done.asked, answer, permit);
    }

    pub(super) fn broker_failed(&mut self, id: i32, reason: &str) {
        let now = Instant::now();
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        broker.session.reset();
        broker.retry_at = Some(now + broker.backoff.next_wait(getrandom::u32().unwrap_or_default()));
        for partition in self.partitions.values_mut().filter(|partition| partition.broker(now) == id) {
            partition.replica = None;
            if partition.status == Status::Reading {
                partition.status = Status::Homeless;
            }
        }
        self.tell_waiting(reason, |partition| partition.status == Status::Homeless);
        self.want_metadata();
    }

    pub(super) fn on_answer(&mut self, broker: i32, asked: &[(i32, i64)], answer: FetchAnswer, mut permit: Permit) {
        #[cfg(test)]
        assert!(!tests::PANIC.get(), "as the test wants");
        self.answers += 1;
        for topic in answer.topics {
            for fetched in topic.partitions {
                // An answer to another position would be out of order.
                if !asked.contains(&(fetched.partition, self.position(fetched.partition))) {
                    continue;
                }
                if fetched.error == errors::NONE && fetched.diverging.is_none() {
                    self.on_records(fetched, &mut permit);
                } else {
                    self.on_error(broker, &fetched);
                }
            }
        }
    }

    pub(super) fn position(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(-1, |partition| partition.position)
    }

    pub(super) fn on_records(&mut self, fetched: FetchedPartition, permit: &mut Permit) {
        let now = Instant::now();
        let committed = self.request.isolation == Isolation::ReadCommitted;
        let Some(partition) = self.partitions.get_mut(&fetched.partition) else { return };
        if partition.status != Status::Reading {
            return;
        }
        partition.retry_at = None;
        partition.backoff.reset();
        partition.misplaced = 0;
        self.metadata_backoff.reset();
        if fetched.preferred_read_replica >= 0 && fetched.preferred_read_replica != partition.broker(now) {
            // The answer of a leader that names a nearer replica holds no records (KIP-392).
            partition.replica = Some((fetched.preferred_read_replica, now + METADATA_AGE * 5));
            return;
        }
        let position = partition.position;
        let walked = walk(position, &fetched.records);
        let end_offset = if committed { fetched.last_stable_offset } else { fetched.high_watermark };
        let moved = walked.next_offset > position;
        if moved {
            // From here on the log read under this leader needs no other proof.
            if partition.known().is_none() {
                partition.proven = Some((partition.leader, partition.leader_epoch));
            }
            partition.last_fetched_epoch = walked.last_epoch;
        }
        if !fetched.records.is_empty() {
            partition.served = self.answers;
        }
        if moved || fetched.records.is_empty() {
            partition.stuck = 0;
            partition.max_bytes = PARTITION_BYTES;
        } else if let Some(size) = walked.cut_off {
            // A batch larger than what was asked for comes whole only as the first of an answer.
            partition.max_bytes = i32::try_from(size).unwrap_or(i32::MAX).max(PARTITION_BYTES);
            partition.served = 0;
        }
        if !moved && !walked.damaged {
            if !fetched.records.is_empty() {
                partition.stuck += 1;
                if partition.stuck >= STUCK_LIMIT {
                    let message = format!(
                        "{STUCK_LIMIT} answers in a row held no whole batch at or above the position, although the log goes on to {end_offset}"
                    );
                    let error = self.unreadable(fetched.partition, position, message);
                    return self.fail(fetched.partition, error);
                }
                return;
            }
            if partition.told_end == end_offset {
                return;
            }
        }
        partition.told_end = end_offset;
        partition.position = walked.next_offset;
        partition.undecoded += 1;
        if walked.damaged {
            partition.status = Status::Ended;
        }
        let bytes = fetched.records.len() as u64;
        // The answer's permit goes over to its parts.
        permit.resize(permit.bytes().saturating_sub(bytes));
        let part = self.request.budget.charge(bytes);
        self.undecoded_bytes += bytes;
        let job = Fetched {
            partition: fetched.partition,
            position,
            aborted: if committed { fetched.aborted } else { Vec::new() },
            end_offset,
            log_start_offset: fetched.log_start_offset,
            records: fetched.records,
        };
        self.job(fetched.partition, Job::Decode(job, part));
    }

    pub(super) fn on_error(&mut self, broker: i32, fetched: &FetchedPartition) {
        let now = Instant::now();
        let id = fetched.partition;
        let topic = self.request.topic.clone();
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        if partition.status != Status::Reading {
            return;
        }
        let offset = partition.position;
        if let Some((_, end_offset)) = fetched.diverging {
            return self.fail(id, SourceError::Truncated { topic, partition: id, offset, end_offset });
        }
        // A follower may be behind; the leader is asked before anything is believed.
        if partition.replica.is_some() && broker != partition.leader {
            partition.replica = None;
            return;
        }
        match fetched.error {
            errors::OFFSET_OUT_OF_RANGE => {
                partition.status = Status::OutOfRange;
                let (cluster, leader, epoch) = (Arc::clone(&self.cluster), partition.leader, partition.leader_epoch);
                self.ends.push(Box::pin(async move { (id, offsets::ends(&cluster, leader, epoch, &topic, id).await) }));
            }
            errors::CORRUPT_MESSAGE | errors::UNSUPPORTED_COMPRESSION_TYPE => {
                let message = format!("the broker says {}", errors::name(fetched.error));
                let error = self.unreadable(id, offset, message);
                self.fail(id, error);
            }
            code if errors::is_refusal(code) => {
                let error = SourceError::Refused { what: format!("topic {topic}"), message: errors::name(code) };
                self.fail(id, error);
            }
            code => {
                partition.retry_at = Some(now + partition.backoff.next_wait(getrandom::u32().unwrap_or_default()));
                let reason = errors::name(code);
                match fetched.current_leader {
                    // The broker knows the new leader: no need to ask around (KIP-951).
                    Some((leader, epoch))
                        if epoch > partition.leader_epoch && self.cluster.address(leader).is_some() =>
                    {
                        partition.follow(leader, epoch);
                        partition.retry_at = None;
                    }
                    _ => {
                        partition.status = Status::Homeless;
                        self.want_metadata();
                    }
                }
                self.tell_waiting(&reason, |partition| partition.partition == id);
            }
        }
    }

    pub(super) fn on_ends(&mut self, id: i32, ends: Result<(i64, i64), SourceError>) {
        let now = Instant::now();
        let topic = self.request.topic.clone();
        let Some(partition) = self.partitions.get_mut(&id) else { return };
        let offset = partition.position;
        partition.retry_at = Some(now + partition.backoff.next_wait(getrandom::u32().unwrap_or_default()));
        match ends {
            // What was read here is no longer there: that is more than a position that never fitted.
            Ok((_, end_offset)) if offset > end_offset && partition.last_fetched_epoch >= 0 => {
                self.fail(id, SourceError::Truncated { topic, partition: id, offset, end_offset });
            }
            Ok((log_start, log_end)) if offset < log_start || offset > log_end => {
                self.fail(id, SourceError::OutOfRange { topic, partition: id, offset, log_start, log_end });
            }
            Ok((_, end_offset)) if partition.misplaced >= STUCK_LIMIT => {
                // The epoch of the last batch read is not in the leader's log.
                self.fail(id, SourceError::Truncated { topic, partition: id, offset, end_offset });
            }
            Ok(_) => {
                partition.misplaced += 1;
                partition.status = Status::Reading;
                partition.follow(partition.leader, partition.leader_epoch);
            }
            Err(error @ SourceError::Unreachable { .. }) => {
                partition.status = Status::Homeless;
                self.want_metadata();
                self.tell_waiting(&error.to_string(), |partition| partition.partition == id);
            }
            Err(error) => self.fail(id, error),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    thread_local! {
        /// The reader of this thread is to panic.
        pub(in crate::kafka::native) static PANIC: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
}
