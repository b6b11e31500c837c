//! How long a topic keeps its records.
//!
//! Owns: what the topic's settings mean for that. Does not own: what follows from it.

use std::time::Duration;

use crate::kafka::native::cluster::Cluster;
use crate::kafka::native::errors;
use crate::kafka::native::messages::describe_configs::DescribeConfigs;
use crate::pipeline::source::SourceError;

const POLICY: &str = "cleanup.policy";
const RETENTION: &str = "retention.ms";

/// Asks for the topic's retention; `None`: nothing is deleted for its age.
///
/// # Errors
/// [`SourceError::Refused`] without the right to see settings; [`SourceError::NoTopic`]; [`SourceError::Unreachable`].
pub async fn retention(cluster: &Cluster, topic: &str) -> Result<Option<Duration>, SourceError> {
    let request = DescribeConfigs { topic: topic.to_owned(), keys: vec![POLICY.into(), RETENTION.into()] };
    let what = || format!("settings of topic {topic}");
    let answer = cluster.ask_any(&request).await?.into_iter().next();
    let answer =
        answer.ok_or_else(|| SourceError::Unreachable { what: what(), message: "the answer leaves it out".into() })?;
    match answer.error {
        errors::NONE => Ok(kept(&answer.settings)),
        errors::UNKNOWN_TOPIC_OR_PARTITION => Err(SourceError::NoTopic { topic: topic.to_owned() }),
        code if errors::is_refusal(code) => Err(SourceError::Refused { what: what(), message: errors::name(code) }),
        code => Err(SourceError::Unreachable { what: what(), message: errors::name(code) }),
    }
}

fn kept(settings: &[(String, Option<String>)]) -> Option<Duration> {
    let value = |key| settings.iter().find(|(name, _)| name == key)?.1.as_deref();
    let is_deleted = value(POLICY).is_none_or(|policy| policy.split(',').any(|each| each.trim() == "delete"));
    // -1: without end.
    let ms: u64 = value(RETENTION)?.parse().ok()?;
    is_deleted.then_some(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_deleted_by_age_has_a_retention() {
        let with =
            |policy: &str, ms: &str| kept(&[(POLICY.into(), Some(policy.into())), (RETENTION.into(), Some(ms.into()))]);
        assert_eq!(with("delete", "60000"), Some(Duration::from_secs(60)));
        assert_eq!(with("compact,delete", "60000"), Some(Duration::from_secs(60)));
        assert_eq!(with("compact", "60000"), None);
        assert_eq!(with("delete", "-1"), None);
        assert_eq!(kept(&[(RETENTION.into(), None)]), None);
    }
}
