//! Faults of every kind, chosen by a seed, on real processes under steady load: three brokers, MinIO, three workers over Redis,
//! and one by itself, which takes its task over at once and so can be killed at a higher rate; each archives a topic.
//! `make soak` runs it; it is no part of `make test`. The seed fixes which faults come in which order, not when.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "a fault at a random moment is a wait on nothing")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use support::group::{Group, Load, Member, OwnRedis};
use support::kafka::{Oracle, unique};
use support::own::{MINIO_KEYS, Own};
use support::process::{Running, Setup, Sink};

const PARTITIONS: u64 = 6;
const LONE_LOG: &str = "lone.log";
/// Longer than a lease.
const ZOMBIE: Duration = Duration::from_secs(12);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    LoneWorkerKilled,
    LoneWorkerKilledSpoolDeleted,
    WorkerOfGroupKilled,
    WorkerAsleepLongerThanItsLease,
    SpoolDeleted,
    RedisFlushed,
    RedisKilled,
    StoreKilled,
    StoreHung,
    BrokerKilled,
    LeadersMoved,
    SettingsChanged,
}

/// With their weights.
const FAULTS: [(Fault, u64); 12] = [
    (Fault::LoneWorkerKilled, 40),
    (Fault::LoneWorkerKilledSpoolDeleted, 30),
    (Fault::WorkerOfGroupKilled, 8),
    (Fault::WorkerAsleepLongerThanItsLease, 2),
    (Fault::SpoolDeleted, 4),
    (Fault::RedisFlushed, 3),
    (Fault::RedisKilled, 3),
    (Fault::StoreKilled, 3),
    (Fault::StoreHung, 3),
    (Fault::BrokerKilled, 2),
    (Fault::LeadersMoved, 2),
    (Fault::SettingsChanged, 2),
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn fault(&mut self) -> Fault {
        let mut at = self.below(FAULTS.iter().map(|(_, weight)| weight).sum());
        for (fault, weight) in FAULTS {
            if at < weight {
                return fault;
            }
            at -= weight;
        }
        Fault::LoneWorkerKilled
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

fn connector(tasks_max: u64, bucket: &str) -> String {
    format!(
        "tasks_max: {tasks_max}\ntime: {{ bucket: {bucket} }}\nrotate: {{ max_bytes: 64KiB, max_interval: 2s }}\n\
         compression: {{ frame_bytes: 64KiB }}\n"
    )
}

struct Soak {
    random: Random,
    kafka: Own,
    oracle: Oracle,
    topic: String,
    store: Own,
    redis: OwnRedis,
    load: Load,
    group: Group,
    members: Vec<Member>,
    alone: Setup,
    alone_load: Load,
    lone: Option<Running>,
    kills: u64,
    ended_by_themselves: u64,
}

impl Soak {
    fn start(&self, id: &str) -> Member {
        self.group.start(id, "")
    }

    /// Of the worker by itself: four in five in the middle of its work, the others while it starts.
    fn kill_lone(&mut self, more: u64, delete_spool: bool) {
        let mut running = self.lone.take().unwrap();
        if more % 5 != 4 {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !running.log().contains("task taken over") && running.child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "no takeover within a minute: {}", running.last_lines());
                std::thread::sleep(Duration::from_millis(20));
            }
            std::thread::sleep(Duration::from_millis(more / 5 % 1_500));
        }
        running.kill();
        if delete_spool {
            let _ = fs::remove_dir_all(self.alone.spool());
        }
        self.lone = Some(self.alone.start(&[], LONE_LOG));
        self.kills += 1;
    }

    /// kill -9, and a new one in its place.
    fn kill_worker(&mut self, at: usize) {
        let member = self.members.remove(at);
        member.running.kill();
        self.members.insert(at, self.start(&member.id));
        self.kills += 1;
    }

    fn cause(&mut self, fault: Fault) {
        let at = self.random.below(self.members.len() as u64) as usize;
        let more = self.random.next();
        match fault {
            Fault::LoneWorkerKilled => self.kill_lone(more, false),
            Fault::LoneWorkerKilledSpoolDeleted => self.kill_lone(more, true),
            Fault::WorkerOfGroupKilled => self.kill_worker(at),
            Fault::WorkerAsleepLongerThanItsLease => {
                self.members[at].running.signal("STOP");
                std::thread::sleep(ZOMBIE);
                self.members[at].running.signal("CONT");
            }
            Fault::SpoolDeleted => {
                let _ = fs::remove_dir_all(self.group.setup.path(&format!("spool-{}/tasks", self.members[at].id)));
            }
            Fault::RedisFlushed => drop(self.redis.run("cli", &["flushall"])),
            Fault::RedisKilled => {
                self.redis.run("kill", &[]);
                std::thread::sleep(Duration::from_millis(more % 3000));
                self.redis.run("start", &[]);
                self.kills += 1;
            }
            Fault::StoreKilled => {
                self.store.run("kill", &[]);
                std::thread::sleep(Duration::from_millis(more % 2000));
                self.store.run("start", &[]);
                self.kills += 1;
            }
            Fault::StoreHung => {
                self.store.signal("STOP");
                std::thread::sleep(Duration::from_millis(more % 4000));
                self.store.signal("CONT");
            }
            Fault::BrokerKilled => {
                let pause = (self.load.pause(), self.alone_load.pause());
                self.kafka.run("kill", &[&(1 + more % 3).to_string()]);
                std::thread::sleep(Duration::from_secs(1));
                self.kafka.run("start", &[]);
                drop(pause);
                self.kills += 1;
            }
            Fault::LeadersMoved => {
                let pause = (self.load.pause(), self.alone_load.pause());
                for partition in 0..PARTITIONS {
                    let broker = 1 + (more + partition) % 3;
                    self.oracle.ask(&format!("move {} {partition} {broker}", self.topic));
                }
                drop(pause);
            }
            Fault::SettingsChanged => {
                // All at once: nobody runs with the earlier settings any more.
                let ids: Vec<String> = self
                    .members
                    .drain(..)
                    .map(|member| {
                        member.running.kill();
                        member.id
                    })
                    .collect();
                self.kills += ids.len() as u64;
                let bucket = ["1d", "none", "1h"][(more / 7 % 3) as usize];
                self.group.setup.write_connector(&connector(1 + more % 6, bucket));
                self.members = ids.iter().map(|id| self.start(id)).collect();
            }
        }
    }

    /// A worker that ended although nobody killed it, as one does that finds its store away when it starts.
    fn start_again(&mut self) {
        let lone = self.lone.as_mut().unwrap();
        if let Some(status) = lone.child.try_wait().unwrap() {
            assert_ne!(status.code(), Some(2), "{}", lone.last_lines());
            self.lone = Some(self.alone.start(&[], LONE_LOG));
            self.ended_by_themselves += 1;
        }
        for at in 0..self.members.len() {
            if let Some(status) = self.members[at].running.child.try_wait().unwrap() {
                let running = &self.members[at].running;
                assert_ne!(status.code(), Some(2), "{}", running.last_lines());
                let id = self.members[at].id.clone();
                self.members[at] = self.start(&id);
                self.ended_by_themselves += 1;
            }
        }
    }
}

/// Lines of all workers' logs that say `text`.
fn count(group: &Group, alone: &Setup, text: &str) -> usize {
    let files = ["w1.log", "w2.log", "w3.log"].map(|name| group.setup.path(name));
    let files = files.into_iter().chain([alone.path(LONE_LOG)]);
    let logs: Vec<String> = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains(text)).count()
}

#[test]
#[ignore = "minutes of random faults: `make soak`"]
fn the_archive_is_exact_after_random_faults() {
    let (wanted, seed) = (number("SOAK_KILLS", 200), number("SOAK_SEED", getrandom::u64().unwrap() >> 32));
    let begun = Instant::now();
    println!("soak: seed {seed}, {wanted} kills");
    let (kafka, store, redis) = (Own::kafka(3), Own::minio(), OwnRedis::start());
    let (address, topic) = (kafka.address(), unique("soak"));
    let mut oracle = Oracle::start(&address);
    oracle.ask(&format!("create {topic} {PARTITIONS} 3 min.insync.replicas=1"));
    let rate = number("SOAK_RATE", 1_200);
    let load = Load::start(&address, &topic, PARTITIONS, rate);
    let (endpoint, (key, secret)) = (store.address(), MINIO_KEYS);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(support::make_bucket(&endpoint, "soak", key, secret));
    let sink = Sink::Minio { endpoint, bucket: "soak".to_owned(), key: key.to_owned(), secret: secret.to_owned() };
    let group = Group::with_sink(&address, &topic, &redis, &sink, &connector(6, "1d"));
    let members = ["w1", "w2", "w3"].map(|id| group.start(id, "")).into();
    let Sink::Minio { endpoint, .. } = &sink else { panic!("a MinIO") };
    runtime.block_on(support::make_bucket(endpoint, "alone", key, secret));
    let alone_sink = Sink::Minio {
        endpoint: endpoint.clone(),
        bucket: "alone".to_owned(),
        key: key.to_owned(),
        secret: secret.to_owned(),
    };
    let alone_topic = unique("alone");
    oracle.ask(&format!("create {alone_topic} {PARTITIONS} 3 min.insync.replicas=1"));
    let alone_load = Load::start(&address, &alone_topic, PARTITIONS, rate);
    let alone = Setup::new(&address, &alone_topic, &alone_sink, &connector(1, "1d"));
    let lone = Some(alone.start(&[], LONE_LOG));
    let random = Random(seed);
    let mut soak = Soak {
        random,
        kafka,
        oracle,
        topic,
        store,
        redis,
        load,
        group,
        members,
        alone,
        alone_load,
        lone,
        kills: 0,
        ended_by_themselves: 0,
    };

    let mut seen: BTreeMap<Fault, u64> = BTreeMap::new();
    let mut said = 0;
    while soak.kills < wanted {
        // Each kind once, then as they come.
        let first = FAULTS.get(seen.values().sum::<u64>() as usize).map(|(fault, _)| *fault);
        let fault = first.unwrap_or_else(|| soak.random.fault());
        let wait = soak.random.below(300);
        std::thread::sleep(Duration::from_millis(wait));
        soak.start_again();
        soak.cause(fault);
        *seen.entry(fault).or_default() += 1;
        if soak.kills >= said + 20 {
            said = soak.kills;
            println!("soak: {said} kills after {} s", begun.elapsed().as_secs());
        }
    }

    let Soak { load, group, members, alone, alone_load, lone, kills, ended_by_themselves, .. } = soak;
    let (records, alone_records) = (load.end(), alone_load.end());
    for mut member in members {
        // Some may be in the middle of a start, or have a task that was taken from them: how they end says nothing.
        let _ = member.running.terminate();
    }
    lone.unwrap().kill();
    println!(
        "soak: seed {seed}, {kills} processes killed in {} s, {} records",
        begun.elapsed().as_secs(),
        records + alone_records
    );
    for (fault, times) in &seen {
        println!("  {fault:?}: {times}");
    }
    println!("  workers that ended by themselves: {ended_by_themselves}");
    for text in [
        "task taken over",
        "missing=0",
        "task failed",
        "has taken this task over",
        "another worker's now",
        "tasks_max changed",
        "settings changed",
        "store request is tried again",
    ] {
        println!("  log lines {text:?}: {}", count(&group, &alone, text));
    }
    let takeovers = count(&group, &alone, "task taken over") as u64;
    assert!(takeovers > kills / 2, "the workers did hardly run: {takeovers} takeovers");
    // Outside the group: those that were killed may hold leases for a while.
    group.setup.archive_to_the_end();
    group.setup.verify_records(records, PARTITIONS);
    alone.archive_to_the_end();
    alone.verify_records(alone_records, PARTITIONS);
    println!("soak: exact, seed {seed}");
}
