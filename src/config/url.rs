//! URLs and addresses in the settings.
//!
//! Owns: their syntax, how they are printed without secrets. Does not own: connecting.

use std::net::IpAddr;
use std::path::PathBuf;

use super::RedisUrl;

/// Where objects go. The prefix has neither leading nor trailing `/`; it may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkUrl {
    File { dir: PathBuf },
    S3 { bucket: String, prefix: String },
    Oss { bucket: String, prefix: String },
}

impl std::fmt::Display for SinkUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { dir } => write!(f, "file://{}", dir.display()),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Oss { bucket, prefix } => write!(f, "oss://{bucket}/{prefix}"),
        }
    }
}

/// Where tasks' logs lie, apart from the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateUrl {
    /// Endpoint and credentials are the sink's.
    Store(SinkUrl),
    Redis(RedisUrl),
}

impl std::fmt::Display for StateUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(url) => std::fmt::Display::fmt(url, f),
            Self::Redis(url) => std::fmt::Display::fmt(url, f),
        }
    }
}

/// A URL that may hold a password: printed without user, password and query.
#[derive(Clone)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL as written, password and all. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, rest) = self.0.split_once("://").map_or((None, self.0.as_str()), |(s, rest)| (Some(s), rest));
        if let Some(scheme) = scheme {
            write!(f, "{scheme}://")?;
        }
        // A password may itself hold `@`, `/` or `?` where someone forgot to escape it: the last `@` counts.
        let host = match rest.rsplit_once('@') {
            Some((_, host)) => {
                f.write_str("***@")?;
                host
            }
            None => rest,
        };
        match host.split_once('?') {
            Some((host, _)) => write!(f, "{host}?***"),
            None => f.write_str(host),
        }
    }
}

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Schemes of [`SinkUrl`].
pub const SINK_SCHEMES: [&str; 3] = ["file", "s3", "oss"];
/// Schemes under which a Redis is reached.
pub const REDIS_SCHEMES: [&str; 4] = ["redis", "rediss", "redis-sentinel", "redis-cluster"];

impl SinkUrl {
    /// Reads `oss://bucket/prefix`, `s3://bucket/prefix` or `file:///dir`; a trailing `/` makes no difference.
    ///
    /// # Errors
    /// In words, without the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(text, &SINK_SCHEMES)?;
        if rest.contains(['?', '#']) {
            return Err("has `?` or `#`; settings of a store are keys of their own".to_owned());
        }
        if scheme == "file" {
            return Ok(Self::File { dir: file_dir(rest)? });
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains('@') {
            return Err("holds a user or password; credentials belong in sink.credentials".to_owned());
        }
        if bucket.contains(':') {
            return Err("has a port; the address of a store belongs in sink.endpoint".to_owned());
        }
        check_bucket(bucket)?;
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        check_prefix(prefix)?;
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(if scheme == "s3" { Self::S3 { bucket, prefix } } else { Self::Oss { bucket, prefix } })
    }
}

fn file_dir(rest: &str) -> Result<PathBuf, String> {
    let Some(path) = rest.strip_prefix('/') else {
        return Err("needs an absolute directory with three slashes: file:///var/lib/archive".to_owned());
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Err("names the root of the file system; name a directory: file:///var/lib/archive".to_owned());
    }
    if path.contains('%') {
        return Err("holds `%`; write the path as it is, without escapes".to_owned());
    }
    check_prefix(path)?;
    Ok(PathBuf::from(format!("/{path}")))
}

/// Names that S3 and OSS both allow.
fn check_bucket(bucket: &str) -> Result<(), String> {
    let legal = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '-' | '.');
    let edge = |char: Option<char>| char.is_some_and(|char| char.is_ascii_lowercase() || char.is_ascii_digit());
    if bucket.is_empty() {
        return Err("names no bucket: write s3://bucket/prefix".to_owned());
    }
    if !(3..=63).contains(&bucket.len()) {
        return Err(format!("has a bucket name of {} characters; 3 to 63 are allowed", bucket.len()));
    }
    if !bucket.chars().all(legal) || !edge(bucket.chars().next()) || !edge(bucket.chars().next_back()) {
        return Err("has a bucket name with other than lower-case letters, digits, `-` and `.` inside".to_owned());
    }
    if bucket.contains("..") {
        return Err("has a bucket name with `..`".to_owned());
    }
    Ok(())
}

/// A path of non-empty segments; keys come below it, so that it has to leave room.
fn check_prefix(prefix: &str) -> Result<(), String> {
    const MAX_BYTES: usize = 400;
    if prefix.len() > MAX_BYTES {
        return Err(format!("has a prefix of {} bytes; at most {MAX_BYTES} are allowed", prefix.len()));
    }
    if prefix.chars().any(|char| char.is_control() || char == '\\') {
        return Err("has a prefix with a control character or a backslash".to_owned());
    }
    if prefix.is_empty() {
        return Ok(());
    }
    for segment in prefix.split('/') {
        match segment {
            "" => return Err("has an empty segment (`//`)".to_owned()),
            "." | ".." => return Err(format!("has the segment `{segment}`; write the path out")),
            "_sluice" => return Err("has the segment `_sluice`, which is reserved for the tasks' logs".to_owned()),
            _ => {}
        }
    }
    Ok(())
}

/// Checks `redis://[user:password@]host[:port][,host[:port]..][/..][?..]`.
///
/// # Errors
/// In words, without the URL.
pub fn check_redis_url(text: &str) -> Result<(), String> {
    let (_, rest) = split_scheme(text, &REDIS_SCHEMES)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    hosts.split(',').try_for_each(|host| if has_port(host) { check_host_port(host) } else { check_host(host) })
}

/// Checks `http://host[:port][/path]` or `https://…`, without user, query or fragment.
///
/// # Errors
/// In words, without the URL.
pub fn check_http_url(text: &str) -> Result<(), String> {
    let (_, rest) = split_scheme(text, &["http", "https"])?;
    if rest.contains('@') {
        return Err("holds a user or password; secrets belong in files".to_owned());
    }
    if rest.contains(['?', '#']) {
        return Err("has `?` or `#`".to_owned());
    }
    let host = rest.split('/').next().unwrap_or_default();
    if has_port(host) { check_host_port(host) } else { check_host(host) }
}

fn split_scheme<'a>(text: &'a str, schemes: &[&str]) -> Result<(&'a str, &'a str), String> {
    let wanted =
        || format!("begins with none of {}", schemes.iter().map(|s| format!("{s}://")).collect::<Vec<_>>().join(", "));
    let (scheme, rest) = text.split_once("://").ok_or_else(wanted)?;
    if !schemes.contains(&scheme) {
        return Err(wanted());
    }
    if text.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return Err("holds a space or a control character".to_owned());
    }
    Ok((scheme, rest))
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'))
}

/// Checks `host:port`; an IPv6 address stands in brackets.
///
/// # Errors
/// In words, without the address.
pub fn check_host_port(text: &str) -> Result<(), String> {
    let (host, port) = text.rsplit_once(':').ok_or("has no port: write host:port")?;
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return Err("has no port between 0 and 65535: write host:port".to_owned());
    }
    check_host(host)
}

fn check_host(host: &str) -> Result<(), String> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match address.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok(()),
            Err(_) => Err("has brackets around what is not an IPv6 address".to_owned()),
        };
    }
    if host.contains(':') {
        return Err("has more than one `:`; an IPv6 address stands in brackets: [::1]:9092".to_owned());
    }
    let legal = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.' | '_');
    if host.is_empty() || host.len() > 253 || !host.chars().all(legal) {
        return Err("has no host name or address".to_owned());
    }
    Ok(())
}

/// Whether only this machine can reach a `host:port` that is listened on.
pub fn is_loopback(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks() {
        let s3 = |bucket: &str, prefix: &str| SinkUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        assert_eq!(SinkUrl::parse("s3://logs"), Ok(s3("logs", "")));
        assert_eq!(SinkUrl::parse("s3://logs/"), Ok(s3("logs", "")));
        assert_eq!(SinkUrl::parse("s3://logs/a/b/"), Ok(s3("logs", "a/b")));
        assert_eq!(SinkUrl::parse("oss://logs/a").unwrap().to_string(), "oss://logs/a");
        assert_eq!(SinkUrl::parse("file:///var/x/"), Ok(SinkUrl::File { dir: PathBuf::from("/var/x") }));
        assert_eq!(SinkUrl::parse("file:///a b").unwrap_err(), "holds a space or a control character");
        for (text, reason) in [
            ("", "begins with none of"),
            ("/var/x", "begins with none of file://, s3://, oss://"),
            ("http://x/y", "begins with none of"),
            ("S3://logs", "begins with none of"),
            ("file://var/x", "three slashes"),
            ("file://./x", "three slashes"),
            ("file:///", "root of the file system"),
            ("file:///a/../b", "segment `..`"),
            ("file:///a//b", "empty segment"),
            ("file:///a%20b", "without escapes"),
            ("s3://", "names no bucket"),
            ("s3:///a", "names no bucket"),
            ("s3://ab", "3 to 63"),
            ("s3://Logs", "lower-case"),
            ("s3://-logs", "lower-case"),
            ("s3://lo..gs", "`..`"),
            ("s3://logs/a/./b", "segment `.`"),
            ("s3://logs//a", "empty segment"),
            ("s3://logs/_sluice", "reserved"),
            ("s3://logs/a?x=1", "keys of their own"),
            ("s3://key:secret@logs/a", "sink.credentials"),
            ("s3://localhost:9000/logs", "sink.endpoint"),
        ] {
            let message = SinkUrl::parse(text).unwrap_err();
            assert!(message.contains(reason), "{text}: {message}");
            assert!(!message.contains("secret"));
        }
        assert!(SinkUrl::parse(&format!("s3://logs/{}", "a/".repeat(300))).is_err());
    }

    #[test]
    fn redis_and_http_addresses() {
        for url in [
            "redis://localhost",
            "redis://:pa?ss@h:6379/0",
            "rediss://u:p@h:6380/1?timeout=1",
            "redis-sentinel://a:26379,b:26379/mymaster/0",
            "redis-cluster://[::1]:7000,h:7001",
        ] {
            // A `?` in a password must be escaped; it is the only one that fails.
            assert_eq!(check_redis_url(url).is_ok(), !url.contains("pa?ss"), "{url}");
        }
        for url in ["redis://", "redis://:p@", "redis://h:x", "redis://h:6379,", "http://h", "h:6379", "redis://a b"] {
            assert!(check_redis_url(url).is_err(), "{url}");
        }
        for url in ["https://s3.example.com", "http://127.0.0.1:9000", "http://[::1]:9000/minio"] {
            assert_eq!(check_http_url(url), Ok(()), "{url}");
        }
        for url in ["127.0.0.1:9000", "http://", "http://u:p@h", "https://h?x", "ftp://h", "http://h:99999"] {
            assert!(check_http_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn hosts_with_ports() {
        for text in ["a:1", "10.0.0.1:9092", "[::1]:9092", "kafka_1.svc:65535"] {
            assert_eq!(check_host_port(text), Ok(()), "{text}");
        }
        for text in ["a", "a:", ":1", "a:65536", "a:+1", "::1:9092", "[::x]:1", "a b:1", "PLAINTEXT://a:1", "a:1,b:2"] {
            assert!(check_host_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_is_what_only_this_machine_reaches() {
        for listen in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"] {
            assert!(is_loopback(listen), "{listen}");
        }
        for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "host:1", "localhost.example:1"] {
            assert!(!is_loopback(listen), "{listen}");
        }
    }

    #[test]
    fn passwords_are_never_printed() {
        for (url, shown) in [
            ("redis://h:6379/0", "redis://h:6379/0"),
            ("redis://u:secret@h/0", "redis://***@h/0"),
            ("redis://u:sec@secret/ret@h", "redis://***@h"),
            ("u:secret@h", "***@h"),
            ("redis://h/?password=secret", "redis://h/?***"),
        ] {
            let url = SecretUrl::new(url.to_owned());
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }
}
