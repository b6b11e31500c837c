//! Small objects in a Redis: where logs and markers lie when `state.url` says so.
//!
//! Owns: their keys in Redis, create-only by one script. Does not own: connections, trying again, how durable that Redis is.
//!
//! Two keys hold everything of one address: `{sluice:state}:objects`, a hash of keys to contents, and `{sluice:state}:names`, a
//! sorted set of the same keys, for listings. The tag in braces puts both on one shard of a cluster.

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Value, cmd};

use super::key::{check_key, check_prefix};
use super::page::{Entry, clamp_limit, folder_of, is_after, page_of};
use super::{Body, ByteRange, Created, Depth, Fault, Got, Head, Listed, Page, Store, StoreError};
use crate::config::RedisUrl;
use crate::redis_link::{LinkError, LinkFault, RedisLink};

const TAG: &str = "sluice:state";
/// Data has no business here.
const MAX_BYTES: u64 = 64 << 20;

const CREATE: &str = "
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1";

const DELETE: &str = "
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1";

/// Names from a bound on, each with its length.
const LIST: &str = "
local answer = {}
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  answer[#answer + 1] = name
  answer[#answer + 1] = redis.call('HSTRLEN', KEYS[1], name)
end
return answer";

/// A store of small objects.
#[derive(Debug)]
pub struct RedisStore {
    link: RedisLink,
    url: String,
    objects: String,
    names: String,
}

impl RedisStore {
    /// Sends nothing yet.
    pub fn open(url: &RedisUrl) -> Self {
        Self::tagged(url, TAG)
    }

    fn tagged(url: &RedisUrl, tag: &str) -> Self {
        Self {
            url: url.to_string(),
            link: RedisLink::new(url.clone()),
            objects: format!("{{{tag}}}:objects"),
            names: format!("{{{tag}}}:names"),
        }
    }

    /// The text each time: a server that was restarted knows no script, and these are short.
    fn script(&self, text: &str) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(text).arg(2).arg(&self.objects).arg(&self.names);
        command
    }

    fn error(&self, fault: Fault, op: &'static str, key: &str, message: impl Into<String>) -> StoreError {
        StoreError::new(fault, op, &self.url, key, message)
    }

    async fn ask(&self, op: &'static str, key: &str, command: &Cmd) -> Result<Value, StoreError> {
        self.link.ask(command).await.map_err(|error: LinkError| {
            let fault = match error.fault {
                LinkFault::Away => Fault::Transient,
                LinkFault::Denied => Fault::Denied,
            };
            self.error(fault, op, key, error.to_string())
        })
    }

    fn odd(&self, op: &'static str, key: &str, answer: &Value) -> StoreError {
        let kind = match answer {
            Value::Nil => "nothing",
            Value::Int(_) => "a number",
            Value::BulkString(_) => "bytes",
            Value::Array(_) => "a list",
            _ => "something",
        };
        self.error(Fault::Invalid, op, key, format!("Redis answered {kind} where it must not; is it one?"))
    }

    async fn content(&self, op: &'static str, key: &str) -> Result<Option<Bytes>, StoreError> {
        check_key(key).map_err(|message| self.error(Fault::Invalid, op, key, message))?;
        match self.ask(op, key, cmd("HGET").arg(&self.objects).arg(key)).await? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(Bytes::from(bytes))),
            answer => Err(self.odd(op, key, &answer)),
        }
    }

    /// Entries from `bound` on, in order, at most `limit`.
    async fn names(&self, prefix: &str, bound: &[u8], limit: usize) -> Result<Vec<Listed>, StoreError> {
        let answer = self.ask("list", prefix, self.script(LIST).arg(bound).arg(limit)).await?;
        let Value::Array(items) = &answer else { return Err(self.odd("list", prefix, &answer)) };
        let mut listed = Vec::with_capacity(items.len() / 2);
        for pair in items.chunks_exact(2) {
            let [Value::BulkString(name), Value::Int(size)] = pair else {
                return Err(self.odd("list", prefix, &answer));
            };
            let Ok(key) = String::from_utf8(name.clone()) else { return Err(self.odd("list", prefix, &answer)) };
            listed.push(Listed { key, size: size.unsigned_abs() });
        }
        Ok(listed)
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{:032x}\"", twox_hash::XxHash3_128::oneshot(bytes))
}

#[async_trait]
impl Store for RedisStore {
    async fn create(&self, key: &str, body: &Body, _intent_id: Option<&str>) -> Result<Created, StoreError> {
        let invalid = |message: String| self.error(Fault::Invalid, "create", key, message);
        check_key(key).map_err(invalid)?;
        if body.len() > MAX_BYTES {
            return Err(invalid(format!("{} bytes are too many for Redis; at most {MAX_BYTES}", body.len())));
        }
        let bytes = body.read().await.map_err(|why| self.error(Fault::Body, "create", key, why))?;
        match self.ask("create", key, self.script(CREATE).arg(key).arg(&bytes[..])).await? {
            Value::Int(1) => Ok(Created::New),
            Value::Int(0) => Ok(Created::Exists),
            answer => Err(self.odd("create", key, &answer)),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let content = self.content("head", key).await?;
        Ok(content.map(|bytes| Head { size: bytes.len() as u64, etag: etag(&bytes), intent_id: None }))
    }

    async fn get(&self, key: &str, range: ByteRange, if_match: Option<&str>) -> Result<Option<Got>, StoreError> {
        let Some(bytes) = self.content("get", key).await? else { return Ok(None) };
        let etag = etag(&bytes);
        if if_match.is_some_and(|wanted| wanted != etag) {
            return Err(self.error(Fault::Changed, "get", key, format!("its etag is now {etag}")));
        }
        let size = bytes.len() as u64;
        let (start, end) = range.bounds(size);
        let bytes = bytes.slice(start as usize..end as usize);
        Ok(Some(Got { bytes, etag, size }))
    }

    async fn list(&self, prefix: &str, depth: Depth, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        check_prefix(prefix).map_err(|message| self.error(Fault::Invalid, "list", prefix, message))?;
        let limit = clamp_limit(limit);
        let mut bound = match after {
            Some(after) if after >= prefix => [b"(", after.as_bytes()].concat(),
            _ => [b"[", prefix.as_bytes()].concat(),
        };
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            // One more than asked for tells whether there is another page.
            let names = self.names(prefix, &bound, limit + 1).await?;
            let mut more = names.len() > limit;
            for listed in names {
                if !listed.key.starts_with(prefix) || entries.len() > limit {
                    return Ok(page_of(entries, limit, false));
                }
                let Some(folder) = folder_of(&listed.key, prefix).filter(|_| depth == Depth::Folder) else {
                    bound = [b"(", listed.key.as_bytes()].concat();
                    entries.push(Entry::Object(listed));
                    continue;
                };
                // The rest of the folder is passed over: `0` is the byte after `/`.
                bound = [b"[", folder.trim_end_matches('/').as_bytes(), b"0"].concat();
                if is_after(folder, after) {
                    entries.push(Entry::Folder(folder.to_owned()));
                }
                more = true;
                break;
            }
            if !more {
                return Ok(page_of(entries, limit, false));
            }
        }
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key).map_err(|message| self.error(Fault::Invalid, "delete", key, message))?;
        self.ask("delete", key, self.script(DELETE).arg(key)).await.map(|_| ())
    }

    fn url(&self) -> &str {
        &self.url
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clock::{Random as _, SystemRandom};
    use crate::log::LogDoor;
    use crate::log::store_log::StoreLog;
    use crate::redis_link::tests::test_redis;

    fn own_tag() -> String {
        format!("sluice:test-{:x}", SystemRandom.next_u128())
    }

    async fn delete(url: &RedisUrl, tag: &str) {
        let link = RedisLink::new(url.clone());
        link.ask(cmd("DEL").arg(format!("{{{tag}}}:objects")).arg(format!("{{{tag}}}:names"))).await.unwrap();
    }

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let Some(url) = test_redis() else { return };
        let (scratch, tag) = (tempfile::tempdir().unwrap(), own_tag());
        crate::store::contract::run(Arc::new(RedisStore::tagged(&url, &tag)), scratch.path()).await;
        delete(&url, &tag).await;
    }

    #[tokio::test]
    async fn a_log_on_redis_keeps_the_contract() {
        let Some(url) = test_redis() else { return };
        let (logs, tag) = (AtomicU32::new(0), own_tag());
        crate::log::contract::run(|| {
            let number = logs.fetch_add(1, Ordering::Relaxed);
            let store = Arc::new(RedisStore::tagged(&url, &tag));
            Arc::new(StoreLog::new(store, &format!("_sluice/c/t/1/{number}"))) as Arc<dyn LogDoor>
        })
        .await;
        delete(&url, &tag).await;
    }
}
