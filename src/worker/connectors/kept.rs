//! What is kept of connectors beside their files: those made over HTTP, and which are paused or stopped.
//!
//! Owns: the document, where it lies (a file, in a group also Redis), which of two is newer. Does not own: what follows.
//!
//! In a group Redis has the document that all workers follow, each with a copy in a file: after a flush the newest copy is put
//! back. One rule decides everything: a document replaces another only with a higher revision.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redis::{Value, cmd};
use serde::{Deserialize, Serialize};

use crate::config::RedisUrl;
use crate::config::flat::FlatConfig;
use crate::redis_link::RedisLink;

/// More is a mistake, or an attack.
pub const MAX_CONNECTORS: usize = 1_000;
const MAX_BYTES: usize = 32 << 20;

/// What an operator wants of a connector, by Kafka Connect's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Target {
    #[default]
    Running,
    Paused,
    Stopped,
}

/// A restart that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// A worker carries out a restart that it has not seen yet.
    pub serial: u64,
    pub what: RestartOf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartOf {
    /// What finds topics, if it failed.
    Connector,
    /// The connector and all tasks.
    All,
    /// The connector if it failed, and the tasks that failed.
    Failed,
    Task {
        topic: String,
        task: u32,
    },
}

/// What is kept of one connector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptConnector {
    /// As it was sent; `None`: its settings are in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<FlatConfig>,
    #[serde(default)]
    pub target: Target,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
}

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// 0: nothing was ever kept.
    pub revision: u64,
    pub connectors: BTreeMap<String, KeptConnector>,
}

/// Why the document can't be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// Somebody must look at it.
    #[error("{0}")]
    Damaged(String),
    /// It may pass.
    #[error("{0}")]
    Away(String),
    /// Another worker was first: this is what it wrote.
    #[error("another worker of the group changed the connectors at the same time; try again")]
    Outdated(Box<Kept>),
}

/// Where the document lies.
#[derive(Debug)]
pub struct Keeping {
    file: PathBuf,
    group: Option<Shelf>,
}

/// Its place in Redis.
#[derive(Debug)]
struct Shelf {
    link: RedisLink,
    key: String,
}

/// KEYS: the document. ARGV: revision, document. Writes what is newer and answers with what is there then.
const PUT: &str = "
local now = tonumber(redis.call('HGET', KEYS[1], 'revision') or '-1')
if now < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'revision', ARGV[1], 'document', ARGV[2])
  return ARGV[2]
end
return redis.call('HGET', KEYS[1], 'document')";

impl Keeping {
    /// `group`: the Redis of a group and its name.
    pub fn new(spool: &Path, group: Option<(&RedisUrl, &str)>) -> Self {
        let mut file = spool.as_os_str().to_owned();
        file.push(".connectors.json");
        let shelf = |(url, name): (&RedisUrl, &str)| Shelf {
            link: RedisLink::new(url.clone()),
            key: format!("{{sluice:{name}}}:connectors"),
        };
        Self { file: PathBuf::from(file), group: group.map(shelf) }
    }

    /// Whether other workers change the document too.
    pub fn is_shared(&self) -> bool {
        self.group.is_some()
    }

    /// This machine's copy.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub fn load(&self) -> Result<Kept, KeepError> {
        let file = self.file.display();
        match std::fs::read(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
            Err(error) => Err(KeepError::Damaged(format!("{file} can't be read: {error}"))),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let advice = "put back a copy, or delete it: the connectors made over HTTP are then to be made again";
                KeepError::Damaged(format!("{file} is damaged ({error}): {advice}"))
            }),
        }
    }

    /// Keeps a document whose revision is one higher than that of the document it was made from.
    ///
    /// # Errors
    /// [`KeepError`]; nothing was kept, except that after `Away` Redis may have it.
    pub async fn store(&self, kept: &Kept) -> Result<(), KeepError> {
        let body = encode(kept)?;
        if let Some(shelf) = &self.group {
            let there = shelf.put(kept.revision, &body).await?;
            if there != *kept {
                return Err(KeepError::Outdated(Box::new(there)));
            }
        }
        self.copy(body).await
    }

    /// What the group has, if it is another document than `mine`: newer, or older where Redis forgot it, which is mended.
    ///
    /// # Errors
    /// [`KeepError`].
    pub async fn follow(&self, mine: &Kept) -> Result<Option<Kept>, KeepError> {
        let Some(shelf) = &self.group else { return Ok(None) };
        let revision = shelf.revision().await?;
        let there = match revision {
            Some(revision) if revision == mine.revision => return Ok(None),
            None if mine.revision == 0 => return Ok(None),
            // Whoever has the higher revision wins, whichever way that is.
            _ => shelf.put(mine.revision, &encode(mine)?).await?,
        };
        if there == *mine {
            return Ok(None);
        }
        self.copy(encode(&there)?).await?;
        Ok(Some(there))
    }

    async fn copy(&self, body: Vec<u8>) -> Result<(), KeepError> {
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || write(&file, &body)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|error| KeepError::Away(format!("{} can't be written: {error}", self.file.display())))
    }
}

fn encode(kept: &Kept) -> Result<Vec<u8>, KeepError> {
    let body = serde_json::to_vec(kept).map_err(|error| KeepError::Damaged(error.to_string()))?;
    if body.len() > MAX_BYTES {
        return Err(KeepError::Damaged(format!("the connectors made over HTTP take more than {MAX_BYTES} bytes")));
    }
    Ok(body)
}

/// Whole or not at all, also when the machine loses power.
fn write(file: &Path, body: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let new = file.with_extension("json.new");
    // Left over, it might be readable for others.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    out.write_all(body)?;
    out.sync_all()?;
    std::fs::rename(&new, file)?;
    std::fs::File::open(folder)?.sync_all()
}

impl Shelf {
    async fn revision(&self) -> Result<Option<u64>, KeepError> {
        match self.ask(cmd("HGET").arg(&self.key).arg("revision")).await? {
            Value::Nil => Ok(None),
            value => match text(&value).and_then(|text| text.parse().ok()) {
                Some(revision) => Ok(Some(revision)),
                None => Err(KeepError::Damaged(format!("{} holds no revision: delete the key", self.key))),
            },
        }
    }

    async fn put(&self, revision: u64, body: &[u8]) -> Result<Kept, KeepError> {
        let mut command = cmd("EVAL");
        command.arg(PUT).arg(1).arg(&self.key).arg(revision).arg(body);
        let answer = self.ask(&command).await?;
        let document = text(&answer).ok_or_else(|| KeepError::Damaged(format!("{} holds no document", self.key)))?;
        serde_json::from_str(document)
            .map_err(|error| KeepError::Damaged(format!("{} is damaged ({error}): delete the key", self.key)))
    }

    async fn ask(&self, command: &redis::Cmd) -> Result<Value, KeepError> {
        self.link.ask(command).await.map_err(|error| KeepError::Away(error.to_string()))
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(revision: u64, name: &str) -> Kept {
        let connector = KeptConnector { config: Some(FlatConfig::new()), ..KeptConnector::default() };
        Kept { revision, connectors: BTreeMap::from([(name.to_owned(), connector)]) }
    }

    #[tokio::test]
    async fn a_file_keeps_it_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let keeping = Keeping::new(&dir.path().join("spool"), None);
        assert_eq!(keeping.load().unwrap(), Kept::default());
        keeping.store(&kept(1, "a")).await.unwrap();
        keeping.store(&kept(2, "b")).await.unwrap();
        assert_eq!(keeping.load().unwrap(), kept(2, "b"));
        let file = dir.path().join("spool.connectors.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "{\"revision\":2").unwrap();
        let error = keeping.load().unwrap_err();
        assert!(matches!(&error, KeepError::Damaged(message) if message.contains("delete it")), "{error}");
    }

    #[tokio::test]
    async fn a_group_follows_the_newest_and_mends_a_flush() {
        let Some(url) = crate::redis_link::tests::test_redis() else { return };
        let dir = tempfile::tempdir().unwrap();
        let group = format!("kept-{:08x}", getrandom::u32().unwrap());
        let worker = |name: &str| Keeping::new(&dir.path().join(name), Some((&url, group.as_str())));
        let (one, two) = (worker("one"), worker("two"));
        one.store(&kept(1, "a")).await.unwrap();
        assert_eq!(two.follow(&Kept::default()).await.unwrap(), Some(kept(1, "a")));
        // Both change what they saw: the second learns of the first.
        two.store(&kept(2, "b")).await.unwrap();
        assert_eq!(one.store(&kept(2, "c")).await, Err(KeepError::Outdated(Box::new(kept(2, "b")))));
        assert_eq!(one.follow(&kept(1, "a")).await.unwrap(), Some(kept(2, "b")));
        // A flush, and the one with the older copy is first.
        let shelf = one.group.as_ref().unwrap();
        shelf.ask(cmd("DEL").arg(&shelf.key)).await.unwrap();
        assert_eq!(one.follow(&kept(1, "a")).await.unwrap(), None);
        assert_eq!(two.follow(&kept(2, "b")).await.unwrap(), None);
        assert_eq!(one.follow(&kept(1, "a")).await.unwrap(), Some(kept(2, "b")));
        assert_eq!(one.load().unwrap(), kept(2, "b"));
        shelf.ask(cmd("DEL").arg(&shelf.key)).await.unwrap();
    }
}
