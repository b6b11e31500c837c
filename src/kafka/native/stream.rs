//! The way to a broker: address, TCP, and TLS where the settings ask for it.
//!
//! Owns: names to addresses, each with its own time limit. Does not own: what is said on the way.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::pipeline::source::SourceError;

/// Per address; a name may have several.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const RESOLVE_LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 9092;

/// Bytes both ways, plain or encrypted.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Host and port of a broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; a listener's name in front (`PLAINTEXT://`) is left out.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.rsplit_once("://").map_or(text, |(_, rest)| rest).trim();
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                (host, rest.strip_prefix(':'))
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                _ => (text, None),
            },
        };
        let port = port.map_or(Some(PORT), |port| port.parse().ok())?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }

    pub fn from_parts(host: &str, port: i32) -> Option<Self> {
        let port = u16::try_from(port).ok()?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }

    /// Connects to the first of the name's addresses that answers.
    pub(super) async fn connect(&self) -> Result<TcpStream, SourceError> {
        let unreachable = |message: String| SourceError::Unreachable { what: format!("broker {self}"), message };
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        let addresses: Vec<SocketAddr> = tokio::time::timeout(RESOLVE_LIMIT, lookup)
            .await
            .map_err(|_| unreachable(format!("name not resolved within {} s", RESOLVE_LIMIT.as_secs())))?
            .map_err(|error| unreachable(format!("name not resolved: {error}")))?
            .collect();
        connect_any(&addresses).await.map_err(unreachable)
    }
}

/// Connects to the first address that answers, or says what each did.
async fn connect_any(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut failures = Vec::new();
    for address in addresses {
        match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are small and waited for. Without the option they are only slower.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => failures.push(format!("{}: {error}", address.ip())),
            Err(_) => failures.push(format!("{}: no connection within {} s", address.ip(), CONNECT_LIMIT.as_secs())),
        }
    }
    Err(failures.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_dead_is_passed_over() {
        let alive = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (alive_at, dead_at) = (alive.local_addr().unwrap(), dead.local_addr().unwrap());
        drop(dead);
        let stream = connect_any(&[dead_at, alive_at]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive_at);
        let failures = connect_any(&[dead_at, dead_at]).await.unwrap_err();
        assert_eq!(failures.matches("refused").count(), 2, "{failures}");
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let parsed = |text: &str| Address::parse(text).map(|address| address.to_string());
        assert_eq!(parsed("kafka").as_deref(), Some("kafka:9092"));
        assert_eq!(parsed("kafka:1").as_deref(), Some("kafka:1"));
        assert_eq!(parsed("SASL_SSL://k.example:9093").as_deref(), Some("k.example:9093"));
        assert_eq!(parsed("[::1]:7").as_deref(), Some("[::1]:7"));
        assert_eq!(parsed("::1").as_deref(), Some("[::1]:9092"));
        for bad in ["", ":9092", "kafka:x", "kafka:70000", "[::1"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
