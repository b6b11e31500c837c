//! How long a topic keeps its records, and which.
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
    Ok(kept(&settings(cluster, topic, &[POLICY, RETENTION]).await?))
}

/// Whether older records of a key may vanish.
///
/// # Errors
/// As [`retention`].
pub async fn is_compacted(cluster: &Cluster, topic: &str) -> Result<bool, SourceError> {
    Ok(has_policy(&settings(cluster, topic, &[POLICY]).await?, "compact"))
}

type Settings = Vec<(String, Option<String>)>;

async fn settings(cluster: &Cluster, topic: &str, keys: &[&str]) -> Result<Settings, SourceError> {
    let keys = keys.iter().map(|&key| key.to_owned()).collect();
    let request = DescribeConfigs { topic: topic.to_owned(), keys };
    let what = || format!("settings of topic {topic}");
    let answer = cluster.ask_any(&request).await?.into_iter().next();
    let answer =
        answer.ok_or_else(|| SourceError::Unreachable { what: what(), message: "the answer leaves it out".into() })?;
    match answer.error {
        errors::NONE => Ok(answer.settings),
        errors::UNKNOWN_TOPIC_OR_PARTITION => Err(SourceError::NoTopic { topic: topic.to_owned() }),
        code if errors::is_refusal(code) => Err(SourceError::Refused { what: what(), message: errors::name(code) }),
        code => Err(SourceError::Unreachable { what: what(), message: errors::name(code) }),
    }
}

fn value<'a>(settings: &'a [(String, Option<String>)], key: &str) -> Option<&'a str> {
    settings.iter().find(|(name, _)| name == key)?.1.as_deref()
}

fn has_policy(settings: &[(String, Option<String>)], policy: &str) -> bool {
    value(settings, POLICY).unwrap_or("delete").split(',').any(|each| each.trim() == policy)
}

fn kept(settings: &[(String, Option<String>)]) -> Option<Duration> {
    // -1: without end.
    let ms: u64 = value(settings, RETENTION)?.parse().ok()?;
    has_policy(settings, "delete").then_some(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_may_be_one_of_several() {
        let compacted = |policy: &str| has_policy(&[(POLICY.into(), Some(policy.into()))], "compact");
        assert!(compacted("compact") && compacted("delete, compact") && !compacted("delete"));
        assert!(!has_policy(&[], "compact"));
    }

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
