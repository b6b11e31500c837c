//! Coordination on a Redis.
//!
//! Owns: the two keys of a group, the scripts. Does not own: connections ([`crate::redis_link`]), what follows from an answer.
//!
//! `{sluice:<group>}:members` and `{sluice:<group>}:leases` are hashes whose values begin with the time, by Redis' own clock, at
//! which they end: `<milliseconds>:<card or instance>`. A script looks at the clock, drops what has ended and does one thing, whole
//! or not at all. The tag in braces puts both on one shard of a cluster; every key is named in KEYS and used as it is there,
//! which proxies of managed clusters insist on. That is why the leases are fields with a time and not keys that expire.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value, cmd};

use super::{Card, CoordinationAway, Coordinator, Instance, LEASE, TaskName, View};
use crate::clock::{Random as _, SystemRandom};
use crate::config::RedisUrl;
use crate::redis_link::RedisLink;

/// What every script begins with: `now`, and `left(value)`: how long an entry lasts, and what it says.
const CLOCK: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, lease = ARGV[1], tonumber(ARGV[2])
local ends = string.format('%.0f:', now + lease)
local function left(value)
  if not value then return 0 end
  local at, says = string.match(value, '^(%d+):(.*)$')
  return (tonumber(at) or 0) - now, says
end
";

/// ARGV: me, lease, card, held tasks. An entry is written again when a quarter of its time is over. One that claims more than a
/// whole lease is from a clock that was ahead; it is cut down.
const SYNC: &str = "
local function stale(ms) return ms <= lease * 3 / 4 or ms > lease end
local wrote = false
local ms, says = left(redis.call('HGET', KEYS[1], me))
local known = 0
if ms > 0 then known = 1 end
if stale(ms) or says ~= ARGV[3] then
  redis.call('HSET', KEYS[1], me, ends .. ARGV[3])
  wrote = true
end
for i = 4, #ARGV do
  local ms, holder = left(redis.call('HGET', KEYS[2], ARGV[i]))
  if ms <= 0 or (holder == me and stale(ms)) then
    redis.call('HSET', KEYS[2], ARGV[i], ends .. me)
    wrote = true
  end
end
local members, leases = {}, {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local ms, says = left(all[i + 1])
  if ms <= 0 then
    redis.call('HDEL', KEYS[1], all[i])
  else
    if ms > lease then redis.call('HSET', KEYS[1], all[i], ends .. says) end
    members[#members + 1] = all[i]
    members[#members + 1] = says
  end
end
all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  local ms, holder = left(all[i + 1])
  if ms <= 0 then
    redis.call('HDEL', KEYS[2], all[i])
  else
    if ms > lease then redis.call('HSET', KEYS[2], all[i], ends .. holder) end
    leases[#leases + 1] = all[i]
    leases[#leases + 1] = holder
  end
end
if wrote then
  redis.call('PEXPIRE', KEYS[1], lease * 1000)
  redis.call('PEXPIRE', KEYS[2], lease * 1000)
end
return {known, members, leases}";

/// ARGV: me, lease, tasks. Answers with those that are mine now.
const ACQUIRE: &str = "
local mine = {}
for i = 3, #ARGV do
  local ms, holder = left(redis.call('HGET', KEYS[2], ARGV[i]))
  if ms <= 0 or holder == me then
    redis.call('HSET', KEYS[2], ARGV[i], ends .. me)
    mine[#mine + 1] = ARGV[i]
  end
end
redis.call('PEXPIRE', KEYS[2], lease * 1000)
return mine";

/// ARGV: me, lease, tasks.
const RELEASE: &str = "
for i = 3, #ARGV do
  local ms, holder = left(redis.call('HGET', KEYS[2], ARGV[i]))
  if holder == me then redis.call('HDEL', KEYS[2], ARGV[i]) end
end
return 1";

/// ARGV: me, lease.
const LEAVE: &str = "
redis.call('HDEL', KEYS[1], me)
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  local ms, holder = left(all[i + 1])
  if holder == me then redis.call('HDEL', KEYS[2], all[i]) end
end
return 1";

/// A group on a Redis.
#[derive(Debug)]
pub struct RedisCoordinator {
    link: RedisLink,
    group: String,
    lease_ms: u64,
}

impl RedisCoordinator {
    /// Sends nothing yet.
    pub fn new(url: &RedisUrl, group: &str, lease: Duration) -> Self {
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        Self { link: RedisLink::new(url.clone()), group: group.to_owned(), lease_ms }
    }

    /// The text of a script each time: a server that was restarted knows none.
    fn script(&self, body: &str, me: &Instance) -> Cmd {
        let mut command = cmd("EVAL");
        command
            .arg(format!("{CLOCK}{body}"))
            .arg(2)
            .arg(format!("{{sluice:{}}}:members", self.group))
            .arg(format!("{{sluice:{}}}:leases", self.group))
            .arg(&me.0)
            .arg(self.lease_ms);
        command
    }

    async fn ask(&self, command: &Cmd) -> Result<Value, CoordinationAway> {
        self.link.ask(command).await.map_err(|error| CoordinationAway(error.to_string()))
    }

    fn odd(&self) -> CoordinationAway {
        CoordinationAway(format!(
            "{}: an answer is not what the script gives; is it a Redis of version 5 or later?",
            self.place()
        ))
    }

    fn names(&self, answer: &Value) -> Result<Vec<String>, CoordinationAway> {
        let Value::Array(items) = answer else { return Err(self.odd()) };
        let text = |item: &Value| match item {
            Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
            Value::SimpleString(text) => Some(text.clone()),
            _ => None,
        };
        items.iter().map(|item| text(item).ok_or_else(|| self.odd())).collect()
    }
}

#[async_trait]
impl Coordinator for RedisCoordinator {
    async fn sync(&self, me: &Instance, card: &Card, held: &[TaskName]) -> Result<View, CoordinationAway> {
        let said = serde_json::to_string(card).map_err(|error| CoordinationAway(error.to_string()))?;
        let mut command = self.script(SYNC, me);
        command.arg(said);
        for task in held {
            command.arg(task.to_string());
        }
        let answer = self.ask(&command).await?;
        let Value::Array(parts) = &answer else { return Err(self.odd()) };
        let [Value::Int(known), members, leases] = &parts[..] else { return Err(self.odd()) };
        let (members, leases) = (self.names(members)?, self.names(leases)?);
        // What a newer version says and this one can't read belongs to nobody that this one knows.
        let members = members
            .chunks_exact(2)
            .filter_map(|pair| Some((Instance(pair[0].clone()), serde_json::from_str(&pair[1]).ok()?)));
        let leases =
            leases.chunks_exact(2).filter_map(|pair| Some((TaskName::parse(&pair[0])?, Instance(pair[1].clone()))));
        Ok(View { known: *known == 1, members: members.collect(), leases: leases.collect() })
    }

    async fn acquire(&self, me: &Instance, tasks: &[TaskName]) -> Result<Vec<TaskName>, CoordinationAway> {
        let mut command = self.script(ACQUIRE, me);
        for task in tasks {
            command.arg(task.to_string());
        }
        let names = self.names(&self.ask(&command).await?)?;
        Ok(names.iter().filter_map(|name| TaskName::parse(name)).collect())
    }

    async fn release(&self, me: &Instance, tasks: &[TaskName]) -> Result<(), CoordinationAway> {
        let mut command = self.script(RELEASE, me);
        for task in tasks {
            command.arg(task.to_string());
        }
        self.ask(&command).await.map(|_| ())
    }

    async fn leave(&self, me: &Instance) -> Result<(), CoordinationAway> {
        self.ask(&self.script(LEAVE, me)).await.map(|_| ())
    }

    fn place(&self) -> String {
        self.link.url().to_string()
    }
}

/// Takes and frees a lease beside a group, then counts the workers of the group.
///
/// # Errors
/// Redis can't be asked, or does not do what the scripts ask of it.
pub async fn probe(url: &RedisUrl, group: &str) -> Result<usize, CoordinationAway> {
    let me = Instance(format!("probe-{:032x}", SystemRandom.next_u128()));
    let beside = RedisCoordinator::new(url, &format!("{group}:probe"), LEASE);
    let task = TaskName::new("probe", &me.0, 0);
    let acquired = beside.acquire(&me, std::slice::from_ref(&task)).await?;
    beside.release(&me, std::slice::from_ref(&task)).await?;
    if acquired != [task] {
        return Err(beside.odd());
    }
    RedisCoordinator::new(url, group, LEASE).members().await
}

impl RedisCoordinator {
    /// How many workers the group has, those that died within the last lease among them.
    async fn members(&self) -> Result<usize, CoordinationAway> {
        let mut command = cmd("HLEN");
        command.arg(format!("{{sluice:{}}}:members", self.group));
        match self.ask(&command).await? {
            Value::Int(count) => Ok(usize::try_from(count).unwrap_or_default()),
            _ => Err(self.odd()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::contract;
    use super::*;
    use crate::redis_link::tests::test_redis;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        let Some(url) = test_redis() else { return };
        let (run, groups) = (SystemRandom.next_u128(), AtomicU32::new(0));
        contract::run(|lease| {
            let group = format!("contract-{run:x}-{}", groups.fetch_add(1, Ordering::Relaxed));
            let open = || Arc::new(RedisCoordinator::new(&url, &group, lease)) as Arc<dyn Coordinator>;
            (open(), open())
        })
        .await;
    }

    #[tokio::test]
    async fn a_probe_leaves_nothing_behind() {
        let Some(url) = test_redis() else { return };
        let group = format!("probe-{:x}", SystemRandom.next_u128());
        assert_eq!(probe(&url, &group).await.unwrap(), 0);
        let keys = RedisLink::new(url).ask(cmd("KEYS").arg(format!("*{group}*"))).await.unwrap();
        assert_eq!(keys, Value::Array(Vec::new()));
    }
}
