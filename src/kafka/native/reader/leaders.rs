//! Who leads which partition, and whether the topic is still the same.
//!
//! Owns: when metadata are asked for, what they change. Does not own: asking ([`crate::kafka::native::cluster`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Reading;
use crate::kafka::native::cluster::topic_id;
use crate::kafka::native::messages::metadata::TopicMetadata;
use crate::kafka::native::partition::Status;
use crate::pipeline::source::SourceError;

pub(super) const METADATA_AGE: Duration = Duration::from_secs(60);
/// A topic that was just made is not known to every broker at once.
const MISSING_LIMIT: Duration = Duration::from_secs(5);

impl Reading {
    pub(super) fn start_metadata(&mut self, now: Instant) {
        if self.metadata.is_some() || self.metadata_at > now {
            return;
        }
        let (cluster, topic) = (Arc::clone(&self.cluster), self.request.topic.clone());
        self.metadata = Some(Box::pin(async move { cluster.topic(&topic).await }));
    }

    /// Asks for metadata soon, and later the more often nothing came of it.
    pub(super) fn want_metadata(&mut self) {
        let wait = self.metadata_backoff.next_wait(getrandom::u32().unwrap_or_default());
        self.metadata_at = self.metadata_at.min(Instant::now() + wait);
    }

    pub(super) fn on_metadata(&mut self, answer: Result<Option<TopicMetadata>, SourceError>) {
        let now = Instant::now();
        self.metadata_at = now + METADATA_AGE;
        let topic = match answer {
            Ok(topic) => topic,
            Err(error @ SourceError::Unreachable { .. }) => {
                self.tell_waiting(&error.to_string(), |partition| partition.status == Status::Homeless);
                return self.want_metadata();
            }
            Err(error) => return self.fail_all(&error),
        };
        if let Some(topic) = &topic
            && !self.same_topic(topic.id)
        {
            return;
        }
        let metadata = topic.map(|topic| topic.partitions).unwrap_or_default();
        let (mut missing, mut homeless) = (None, false);
        for partition in self.partitions.values_mut().filter(|partition| partition.status != Status::Ended) {
            let Some(found) = metadata.iter().find(|found| found.partition == partition.partition) else {
                missing = Some(partition.partition);
                continue;
            };
            // Brokers learn of an election one after the other: an older epoch is old news.
            if found.leader_epoch >= 0 && found.leader_epoch < partition.leader_epoch {
                homeless |= partition.status == Status::Homeless;
                continue;
            }
            if found.leader < 0 || self.cluster.address(found.leader).is_none() {
                partition.status = match partition.status {
                    Status::Reading => Status::Homeless,
                    status => status,
                };
                homeless = true;
                continue;
            }
            partition.follow(found.leader, found.leader_epoch);
        }
        match missing {
            None => self.missing_since = None,
            Some(_) if self.missing_since.is_none_or(|since| now < since + MISSING_LIMIT) => {
                self.missing_since.get_or_insert(now);
            }
            Some(_) => {
                let topic = self.request.topic.clone();
                return self.fail_all(&SourceError::NoTopic { topic });
            }
        }
        if missing.is_some() || homeless {
            self.tell_waiting("it has no leader", |partition| partition.status == Status::Homeless);
            self.want_metadata();
        }
    }

    /// Says once what can't be told apart on old brokers.
    pub(super) fn tell_no_ids(&mut self, message: &str) {
        if !self.told_no_ids {
            self.told_no_ids = true;
            tracing::warn!(topic = self.request.topic, "{message}");
        }
    }

    /// Checks the id against the one that the positions belong to; all fails where it is another.
    pub(super) fn same_topic(&mut self, found: [u8; 16]) -> bool {
        let Some(found_id) = topic_id(found) else {
            self.tell_no_ids(
                "Kafka before 2.8 knows no topic ids: a topic that is deleted and made again is not noticed",
            );
            return true;
        };
        let adopted = self.topic_id.and_then(topic_id);
        let expected = self.request.topic_id.clone().or(adopted);
        match expected {
            Some(expected) if expected != found_id => {
                let topic = self.request.topic.clone();
                self.fail_all(&SourceError::Recreated { topic, expected: expected.0, found: found_id.0 });
                false
            }
            _ => {
                self.topic_id = Some(found);
                true
            }
        }
    }
}
