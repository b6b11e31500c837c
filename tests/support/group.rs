//! Several workers of one group as child processes, with a Redis and a load of their own.
//!
//! Owns: starting them, what each says it runs, the records that were produced. Does not own: what is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::kafka::repository;
use super::process::{Running, Setup, Sink, loadgen};

/// A Redis server of this test's own.
pub struct OwnRedis {
    dir: tempfile::TempDir,
}

impl OwnRedis {
    pub fn start() -> Self {
        let redis = Self { dir: tempfile::tempdir().unwrap() };
        redis.run("start", &[]);
        redis
    }

    /// `start` after a kill brings back what it had on disk.
    pub fn run(&self, command: &str, more: &[&str]) -> String {
        let output = Command::new(repository().join("dev/redis"))
            .args([command, "--run-dir", &self.dir.path().display().to_string()])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "dev/redis {command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn url(&self) -> String {
        let line = self.run("env", &[]);
        line.trim().split_once('=').unwrap().1.to_owned()
    }

    /// Sends the server a signal by its name without SIG.
    pub fn signal(&self, name: &str) {
        let pid = fs::read_to_string(self.dir.path().join("redis/pid")).unwrap();
        let status = Command::new("kill").args(["-s", name, pid.lines().next().unwrap()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        let _ = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -CONT $(head -n 1 {}/redis/pid)", self.dir.path().display()))
            .output();
        self.run("kill", &[]);
    }
}

/// Records that come as long as a test wants them to.
pub struct Load {
    stop: Arc<AtomicBool>,
    producing: Arc<Mutex<()>>,
    thread: Option<JoinHandle<u64>>,
}

impl Load {
    /// Creates the topic first, so that workers find it when they start.
    pub fn start(kafka: &str, topic: &str, partitions: u64, rate: u64) -> Self {
        let batch = rate / 10 / partitions * partitions;
        let produce = {
            let (kafka, topic) = (kafka.to_owned(), topic.to_owned());
            move |first: u64, records: u64| {
                let status = loadgen()
                    .args([
                        "--bootstrap",
                        &kafka,
                        "--topic",
                        &topic,
                        "--apps",
                        "20",
                        "--batch-records",
                        &batch.to_string(),
                    ])
                    .args(["--partitions", &partitions.to_string(), "--first-seq", &first.to_string()])
                    .args(["--records", &records.to_string(), "--rate", &rate.to_string()])
                    .stdout(std::process::Stdio::null())
                    .status()
                    .unwrap();
                assert!(status.success(), "loadgen: {status}");
                first + records
            }
        };
        let mut produced = produce(0, partitions);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let producing = Arc::new(Mutex::new(()));
        let turns = Arc::clone(&producing);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let turn = turns.lock().unwrap();
                produced = produce(produced, batch * 20);
                drop(turn);
                // So that who waits for a pause gets it.
                std::thread::sleep(Duration::from_millis(5));
            }
            produced
        });
        Self { stop, producing, thread: Some(thread) }
    }

    /// Nothing is produced until the answer is dropped. The producer is not idempotent: what a broker that is killed did not
    /// acknowledge would be there twice.
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        self.producing.lock().unwrap()
    }

    /// How many records there are in all.
    pub fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The workers' common settings.
pub struct Group {
    pub setup: Setup,
    kafka: String,
    redis: String,
    /// More lines of worker.yaml.
    pub more: String,
}

/// One of them.
pub struct Member {
    pub id: String,
    pub running: Running,
}

impl Group {
    pub fn new(kafka: &str, topic: &str, redis: &OwnRedis, connector: &str) -> Self {
        Self::with_sink(kafka, topic, redis, &Sink::File, connector)
    }

    pub fn with_sink(kafka: &str, topic: &str, redis: &OwnRedis, sink: &Sink, connector: &str) -> Self {
        let setup = Setup::new(kafka, topic, sink, connector);
        Self { setup, kafka: kafka.to_owned(), redis: redis.url(), more: String::new() }
    }

    fn settings(&self, id: &str, more: &str) -> String {
        let (file, spool) = (format!("{id}.yaml"), self.setup.path(&format!("spool-{id}")));
        let text = format!(
            "worker: {{ id: {id}{more} }}\nkafka: {{ bootstrap_servers: [\"{}\"] }}\ncoordination: {{ url: \"{}\" }}\n\
             spool: {{ dir: \"{}\" }}\nhttp: {{ listen: \"127.0.0.1:0\" }}\nshutdown_timeout: 20s\n{}\n",
            self.kafka.replace(',', "\", \""),
            self.redis,
            spool.display(),
            self.more
        );
        fs::write(self.setup.path(&file), text).unwrap();
        file
    }

    /// `more`: other keys of `worker`.
    pub fn start(&self, id: &str, more: &str) -> Member {
        let settings = self.settings(id, more);
        Member { id: id.to_owned(), running: self.setup.start_with(&settings, &[], &format!("{id}.log")) }
    }

    /// The same of another build.
    pub fn start_program(&self, program: &Path, id: &str, more: &str) -> Member {
        let settings = self.settings(id, more);
        let running = self.setup.start_program(program, &[], &settings, &[], &format!("{id}.log"));
        Member { id: id.to_owned(), running }
    }

    /// Archives what is left, as a job of the group, then counts.
    pub fn archive_and_verify(&self, records: u64, partitions: u64) {
        let settings = self.settings("job", "");
        let mut running = self.setup.start_with(&settings, &["--until-caught-up"], "job.log");
        let status = running.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", running.last_lines());
        self.setup.verify_records(records, partitions);
    }

    /// Files of the archive with their sizes.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::from(self.setup.archive())];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                // What is not whole has a name that begins with a dot.
                let name = entry.file_name().to_string_lossy().into_owned();
                if path.is_dir() && name != "_sluice" {
                    folders.push(path);
                } else if path.is_file() && !name.starts_with('.') {
                    found.push((path, entry.metadata().unwrap().len()));
                }
            }
        }
        found
    }

    /// Waits until the workers run so many tasks each, and every task runs once.
    pub fn wait_for_shares(&self, members: &[&Member], shares: &[usize]) -> BTreeMap<String, BTreeSet<u64>> {
        let all: usize = shares.iter().sum();
        let mut seen = BTreeMap::new();
        wait_until(
            || {
                seen = members.iter().map(|member| (member.id.clone(), member.tasks())).collect();
                let distinct: BTreeSet<u64> = seen.values().flatten().copied().collect();
                members.iter().zip(shares).all(|(member, &share)| seen[&member.id].len() == share)
                    && distinct.len() == all
            },
            || {
                let logs: Vec<String> =
                    members.iter().map(|member| format!("{}:\n{}", member.id, member.running.last_lines())).collect();
                format!("shares {shares:?}:\n{}", logs.join("\n"))
            },
        );
        seen
    }
}

impl Member {
    fn address(&self) -> Option<String> {
        let log = self.running.log();
        let line = log.lines().find(|line| line.contains("http listens"))?;
        Some(line.split("address=").nth(1)?.split_whitespace().next()?.to_owned())
    }

    /// Records that it has read since it was started.
    pub fn records_read(&self) -> u64 {
        let mut connection = TcpStream::connect(self.address().unwrap()).unwrap();
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let values = answer.lines().filter(|line| line.starts_with("sluice_records_read_total"));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    /// The worker's status; `None` while it has no address yet.
    pub fn status(&self) -> Option<serde_json::Value> {
        let address = self.address()?;
        let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["status", "--json", "--url", &format!("http://{address}")])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Tasks that it runs.
    pub fn tasks(&self) -> BTreeSet<u64> {
        let status = self.status().unwrap_or_default();
        let tasks = status["tasks"].as_array().cloned().unwrap_or_default();
        tasks.iter().filter(|task| task["state"] == "RUNNING").filter_map(|task| task["task"].as_u64()).collect()
    }

    /// How often it took each task's log over.
    pub fn takeovers(&self) -> BTreeMap<u64, usize> {
        let mut found = BTreeMap::new();
        for line in self.running.log().lines().filter(|line| line.contains("task taken over")) {
            let task = line.split(" task=").nth(1).unwrap().split_whitespace().next().unwrap();
            *found.entry(task.parse().unwrap()).or_default() += 1;
        }
        found
    }

    /// SIGTERM; it must end well.
    pub fn stop(mut self) {
        let status = self.running.terminate();
        assert!(status.success(), "{}: {status}: {}", self.id, self.running.last_lines());
    }
}

/// Waits two minutes at most.
pub fn wait_until(mut so: impl FnMut() -> bool, what: impl Fn() -> String) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "not within two minutes: {}", what());
        std::thread::sleep(Duration::from_millis(100));
    }
}
