//! The address of a Redis.
//!
//! Owns: what `redis://`, `rediss://`, `redis-sentinel://` and `redis-cluster://` may say, and how it is shown without secrets.
//! Does not own: connecting ([`crate::redis_link`]).
//!
//! ```text
//!  redis://[user:password@]host[:6379][/db]                             one server; rediss: with TLS
//!  redis-sentinel://[user:password@]host[:26379][,host..]/master[/db]   ?tls=true, ?sentinel_user=..&sentinel_password=..
//!  redis-cluster://[user:password@]host[:6379][,host..]                 ?tls=true
//! ```
//!
//! Characters of a user or password that mean something in a URL are written as `%40`.

use super::SecretUrl;
use super::url::check_redis_url;

/// How the servers behind an address belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    Single,
    /// The nodes are sentinels, which know where the master of this name is.
    Sentinel {
        master: String,
    },
    Cluster,
}

/// Who asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RedisLogin {
    pub user: Option<String>,
    pub password: Option<String>,
}

impl std::fmt::Debug for RedisLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.password.is_some() { "***" } else { "nobody" })
    }
}

/// A checked address. Shown without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    shown: String,
    pub topology: Topology,
    /// Host (an IPv6 address without brackets) and port, at least one.
    pub nodes: Vec<(String, u16)>,
    pub tls: bool,
    pub db: i64,
    pub login: RedisLogin,
    pub sentinel_login: RedisLogin,
}

impl std::fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl RedisUrl {
    /// # Errors
    /// In words that follow "the URL", without a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        check_redis_url(text)?;
        let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
        if rest.contains('#') {
            return Err("has `#`".to_owned());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (login_of(login)?, hosts),
            None => (RedisLogin::default(), authority),
        };
        let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (topology, db) = match (scheme, &path[..]) {
            ("redis-sentinel", [master, db @ ..]) => (Topology::Sentinel { master: decoded(master)? }, db),
            ("redis-sentinel", []) => return Err("names no master: write redis-sentinel://host/master".to_owned()),
            ("redis-cluster", db) => (Topology::Cluster, db),
            (_, db) => (Topology::Single, db),
        };
        let db = match db {
            [] => 0,
            [_, ..] if topology == Topology::Cluster => {
                return Err("names a database; a cluster has only one".to_owned());
            }
            [db] => db.parse::<u16>().map_err(|_| "has a path that is no database number")?,
            _ => return Err("has a path of more than a database number".to_owned()),
        };
        let port = if scheme == "redis-sentinel" { 26379 } else { 6379 };
        let nodes = hosts.split(',').map(|host| node(host, port)).collect::<Result<Vec<_>, _>>()?;
        if topology == Topology::Single && nodes.len() > 1 {
            return Err("names several hosts; write redis-sentinel:// or redis-cluster://".to_owned());
        }
        let mut url = Self {
            shown: SecretUrl::new(format!("{scheme}://{hosts}{}", shown_path(&path))).to_string(),
            tls: scheme == "rediss",
            db: i64::from(db),
            sentinel_login: RedisLogin::default(),
            topology,
            nodes,
            login,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            url.set(pair)?;
        }
        Ok(url)
    }

    fn set(&mut self, pair: &str) -> Result<(), String> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let sentinel = matches!(self.topology, Topology::Sentinel { .. });
        match (name, value) {
            ("tls", "true") if self.topology != Topology::Single => self.tls = true,
            ("tls", "false") if self.topology != Topology::Single => {}
            ("sentinel_user", user) if sentinel => self.sentinel_login.user = Some(decoded(user)?),
            ("sentinel_password", password) if sentinel => self.sentinel_login.password = Some(decoded(password)?),
            // The name alone: where a password was not escaped this may be a part of it.
            _ => {
                return Err(
                    "has something behind `?` that is not known; tls=true, sentinel_user and sentinel_password are, \
                             where they fit the scheme"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// Replaces passwords in a message that others made.
    pub fn without_secrets(&self, message: &str) -> String {
        let secrets = [&self.login.password, &self.sentinel_login.password];
        let secrets = secrets.into_iter().flatten().filter(|secret| !secret.is_empty());
        secrets.fold(message.to_owned(), |message, secret| message.replace(secret.as_str(), "***"))
    }
}

fn shown_path(path: &[&str]) -> String {
    path.iter().map(|part| format!("/{part}")).collect()
}

fn node(host: &str, port: u16) -> Result<(String, u16), String> {
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| "has no port")?),
        _ => (host, port),
    };
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

/// `user:password`, `:password`, or a password alone as some write it.
fn login_of(text: &str) -> Result<RedisLogin, String> {
    let (user, password) = text.split_once(':').unwrap_or(("", text));
    let filled = |text: &str| Ok::<_, String>(Some(decoded(text)?).filter(|text| !text.is_empty()));
    Ok(RedisLogin { user: filled(user)?, password: filled(password)? })
}

/// Undoes `%40`.
fn decoded(text: &str) -> Result<String, String> {
    const BAD: &str = "has a `%` that is not followed by two hexadecimal digits; write it as %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next()).ok_or(BAD)?, digit(rest.next()).ok_or(BAD)?);
            bytes.push(u8::try_from(high * 16 + low).map_err(|_| BAD)?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| "has escapes that are not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: Option<&str>, password: Option<&str>) -> RedisLogin {
        RedisLogin { user: user.map(str::to_owned), password: password.map(str::to_owned) }
    }

    fn node(host: &str, port: u16) -> (String, u16) {
        (host.to_owned(), port)
    }

    #[test]
    fn every_kind_of_address() {
        let url = RedisUrl::parse("redis://h").unwrap();
        assert_eq!((&url.nodes[..], url.tls, url.db), (&[node("h", 6379)][..], false, 0));
        let url = RedisUrl::parse("rediss://u:p%40%3A@[::1]:7/3").unwrap();
        assert_eq!((&url.nodes[..], url.tls, url.db), (&[node("::1", 7)][..], true, 3));
        assert_eq!((&url.login, url.to_string().as_str()), (&login(Some("u"), Some("p@:")), "rediss://[::1]:7/3"));
        let url = RedisUrl::parse("redis-sentinel://:p@a,b:1/mine/2?tls=true&sentinel_password=s%21").unwrap();
        assert_eq!(url.topology, Topology::Sentinel { master: "mine".to_owned() });
        assert_eq!((&url.nodes[..], url.tls, url.db), (&[node("a", 26379), node("b", 1)][..], true, 2));
        assert_eq!((url.login, url.sentinel_login), (login(None, Some("p")), login(None, Some("s!"))));
        let url = RedisUrl::parse("redis-cluster://p@a:1,b").unwrap();
        assert_eq!((url.topology, url.login), (Topology::Cluster, login(None, Some("p"))));
        assert_eq!(url.nodes, [node("a", 1), node("b", 6379)]);
    }

    #[test]
    fn what_can_not_be_meant_is_refused_without_its_secrets() {
        for (text, why) in [
            ("redis-sentinel://a", "names no master"),
            ("redis://a,b", "several hosts"),
            ("redis://a/x", "no database number"),
            ("redis://a/1/2", "more than a database"),
            ("redis-cluster://a/1", "a cluster has only one"),
            ("redis://a?tls=true", "not known"),
            ("redis-cluster://a?planted=planted", "not known"),
            ("redis-cluster://a?sentinel_password=planted", "where they fit"),
            ("redis://u:planted%4@a", "hexadecimal"),
            ("redis://u:planted%ff@a", "not UTF-8"),
            ("redis://a#insecure", "`#`"),
            ("http://a", "begins with none of"),
        ] {
            let message = RedisUrl::parse(text).unwrap_err();
            assert!(message.contains(why) && !message.contains("planted"), "{text}: {message}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let url = RedisUrl::parse("redis-sentinel://u:planted%40@h/m?sentinel_password=second").unwrap();
        assert_eq!(url.to_string(), "redis-sentinel://h/m");
        for shown in [format!("{url:?}"), format!("{:?}", url.login), url.without_secrets("no planted@ and no second")]
        {
            assert!(!shown.contains("planted") && !shown.contains("second"), "{shown}");
        }
    }
}
