//! Whether a Redis answers.
//!
//! Owns: the nodes of a URL, one PING to each. Does not own: coordination.

use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, RedisError};

use crate::config::SecretUrl;

const LIMIT: Duration = Duration::from_secs(5);

/// A node to ask.
pub struct Node {
    /// Without secrets.
    pub shown: String,
    /// With user and password.
    url: String,
    /// What no message may hold.
    secret: Option<String>,
}

/// The nodes that a URL names: one, or those of a cluster or of the sentinels.
pub fn nodes(url: &SecretUrl) -> Vec<Node> {
    let (scheme, rest) = url.expose().split_once("://").unwrap_or(("redis", url.expose()));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    let secret = user.map(|user| user.split_once(':').map_or(user, |(_, password)| password).to_owned());
    let node = |host: &str| {
        let url = match (scheme, user) {
            ("redis" | "rediss", _) => url.expose().to_owned(),
            // Sentinels have users of their own; the URL's are the master's.
            ("redis-sentinel", _) | (_, None) => format!("redis://{}/", with_port(scheme, host)),
            (_, Some(user)) => format!("redis://{user}@{host}/"),
        };
        Node { shown: format!("{scheme}://{host}"), url, secret: secret.clone().filter(|secret| !secret.is_empty()) }
    };
    hosts.split(',').map(node).collect()
}

fn with_port(scheme: &str, host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    if scheme == "redis-sentinel" && !has_port { format!("{host}:26379") } else { host.to_owned() }
}

/// Sends a PING.
///
/// # Errors
/// In words, without a secret.
pub async fn ping(node: &Node) -> Result<(), String> {
    let answer = tokio::time::timeout(LIMIT, ask(&node.url)).await;
    let message = match answer {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", LIMIT.as_secs()),
    };
    Err(match &node.secret {
        Some(secret) => message.replace(secret.as_str(), "***"),
        None => message,
    })
}

async fn ask(url: &str) -> Result<(), RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(LIMIT)).set_response_timeout(Some(LIMIT));
    let mut connection = Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd("PING").query_async::<String>(&mut connection).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Vec<(String, String)> {
        nodes(&SecretUrl::new(url.to_owned())).into_iter().map(|node| (node.shown, node.url)).collect()
    }

    #[test]
    fn every_node_is_asked_and_none_is_shown_with_its_password() {
        let pair = |shown: &str, url: &str| (shown.to_owned(), url.to_owned());
        assert_eq!(of("redis://u:p@h:1/2"), [pair("redis://h:1", "redis://u:p@h:1/2")]);
        assert_eq!(of("rediss://h"), [pair("rediss://h", "rediss://h")]);
        assert_eq!(
            of("redis-cluster://:p@a:1,b:2"),
            [pair("redis-cluster://a:1", "redis://:p@a:1/"), pair("redis-cluster://b:2", "redis://:p@b:2/")]
        );
        assert_eq!(
            of("redis-sentinel://:p@a,[::1]:7/master"),
            [pair("redis-sentinel://a", "redis://a:26379/"), pair("redis-sentinel://[::1]:7", "redis://[::1]:7/")]
        );
    }

    #[tokio::test]
    async fn what_does_not_answer_is_told_without_its_password() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let node = &nodes(&SecretUrl::new(format!("redis://user:planted@{address}/")))[0];
        let message = ping(node).await.unwrap_err();
        assert!(!message.contains("planted") && !node.shown.contains("planted"), "{message}");
    }
}
