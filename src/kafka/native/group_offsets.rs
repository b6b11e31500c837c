//! Offsets of a group without members, for lag tools.
//!
//! Owns: finding the group's coordinator and committing to it. Does not own: which offsets, when.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::kafka::backoff::Backoff;
use crate::kafka::native::cluster::Cluster;
use crate::kafka::native::errors;
use crate::kafka::native::messages::group::{FindCoordinator, OffsetCommit};
use crate::pipeline::source::SourceError;

/// Tries before the commit is given up; the next one carries newer offsets anyway.
const TRIES: u32 = 5;

/// Coordinators by group, as they were last found.
#[derive(Debug, Default)]
pub struct Coordinators {
    found: Mutex<BTreeMap<String, i32>>,
}

impl Coordinators {
    /// Commits offsets of a topic's partitions.
    ///
    /// # Errors
    /// [`SourceError::Refused`] without the right to, or where the group has live members; [`SourceError::Unreachable`].
    pub async fn commit(
        &self,
        cluster: &Cluster,
        group: &str,
        topic: &str,
        offsets: &[(i32, i64)],
    ) -> Result<(), SourceError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            match self.try_commit(cluster, group, topic, offsets).await {
                Err(error @ SourceError::Unreachable { .. }) => {
                    self.found.lock().await.remove(group);
                    if backoff.tries() + 1 >= TRIES {
                        return Err(error);
                    }
                    backoff.wait().await;
                }
                done => return done,
            }
        }
    }

    async fn try_commit(
        &self,
        cluster: &Cluster,
        group: &str,
        topic: &str,
        offsets: &[(i32, i64)],
    ) -> Result<(), SourceError> {
        let coordinator = self.coordinator(cluster, group).await?;
        let request = OffsetCommit { group: group.to_owned(), topic: topic.to_owned(), offsets: offsets.to_vec() };
        let answer = cluster.ask(coordinator, &request).await?;
        match answer.iter().map(|&(_, error)| error).find(|&error| error != errors::NONE) {
            None if answer.len() == offsets.len() => Ok(()),
            None => Err(unreachable(group, "the answer leaves partitions out".into())),
            Some(errors::UNKNOWN_MEMBER_ID | errors::ILLEGAL_GENERATION) => {
                Err(refused(group, "the group has live members; its name must be used by nothing else".into()))
            }
            Some(code) if errors::is_refusal(code) => Err(refused(group, errors::name(code))),
            Some(code) => Err(unreachable(group, errors::name(code))),
        }
    }

    async fn coordinator(&self, cluster: &Cluster, group: &str) -> Result<i32, SourceError> {
        let mut found = self.found.lock().await;
        if let Some(coordinator) = found.get(group) {
            return Ok(*coordinator);
        }
        let answer = cluster.ask_any(&FindCoordinator { group: group.to_owned() }).await?;
        match answer.error {
            errors::NONE => {}
            code if errors::is_refusal(code) => return Err(refused(group, errors::name(code))),
            code => return Err(unreachable(group, errors::name(code))),
        }
        if cluster.address(answer.node).is_none() {
            // A broker that came after the last look at the cluster.
            cluster.metadata(Some(Vec::new())).await?;
        }
        found.insert(group.to_owned(), answer.node);
        Ok(answer.node)
    }
}

fn unreachable(group: &str, message: String) -> SourceError {
    SourceError::Unreachable { what: format!("offsets of group {group}"), message }
}

fn refused(group: &str, message: String) -> SourceError {
    SourceError::Refused { what: format!("offsets of group {group}"), message }
}
