//! A real Kafka for tests: where it is, and the Java client that fills it and says what it holds.
//!
//! Owns: finding the services, talking to tests/oracle/KafkaOracle.java, reading a topic to its end through the door.
//! Does not own: what is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use sluice::pipeline::budget::Budget;
use sluice::pipeline::source::{At, Isolation, Kafka, ReadRequest, Reader, SourceError, SourceEvent};
use sluice::record::Record;
use tokio::sync::mpsc;

/// Long enough that only a hang reaches it.
pub const HANG: Duration = Duration::from_secs(90);

/// The address of the test cluster; `None`, with the reason printed, where there is none.
pub fn address() -> Option<String> {
    let address = std::env::var("SLUICE_TEST_KAFKA").ok();
    if address.is_none() {
        let required = std::env::var("SLUICE_TEST_REQUIRE_SERVICES").is_ok_and(|value| value == "1");
        assert!(!required, "SLUICE_TEST_KAFKA is not set and services are required");
        eprintln!("not run: SLUICE_TEST_KAFKA names no Kafka (dev/services start kafka)");
    }
    address
}

/// A topic name that no other run uses.
pub fn unique(name: &str) -> String {
    format!("{name}-{:08x}", getrandom::u32().unwrap())
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Java client, one command at a time.
pub struct Oracle {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    dir: tempfile::TempDir,
}

impl Oracle {
    pub fn start(address: &str) -> Self {
        let source = repository().join("tests/oracle/KafkaOracle.java");
        let mut child = Command::new(repository().join("dev/kafka"))
            .args(["run", &source.display().to_string(), address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut oracle = Self { child, input, output, dir: tempfile::tempdir().unwrap() };
        assert_eq!(oracle.line(), "ready");
        oracle
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        match line.trim().strip_prefix("ok") {
            Some(answer) => answer.trim().to_owned(),
            None => panic!("oracle: {line}"),
        }
    }

    pub fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.input.flush().unwrap();
        self.line()
    }

    /// Every record as the Java consumer reads it, a line each, sorted by partition and offset.
    pub fn dump(&mut self, topic: &str, isolation: Isolation) -> Vec<String> {
        let file: PathBuf = self.dir.path().join(topic);
        let isolation = match isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        };
        self.ask(&format!("dump {topic} {isolation} {}", file.display()));
        std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn hex(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "-".into(),
        Some(bytes) if bytes.len() > 100 => format!("{}#{:08x}", bytes.len(), crc32c::crc32c(bytes)),
        Some(bytes) => bytes.iter().fold("x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

/// A record as the oracle writes it.
pub fn line(record: &Record<'_>) -> String {
    let mut line = format!(
        "{:05} {:020} {} {} {}",
        record.partition,
        record.offset,
        record.timestamp_ms,
        hex(record.key),
        hex(record.value)
    );
    for (key, value) in record.headers.iter() {
        line.push_str(&format!(" {}={}", hex(Some(key)), hex(value)));
    }
    line
}

/// A read under way.
pub struct Reading {
    _reader: Reader,
    pub events: mpsc::Receiver<SourceEvent>,
    pub positions: BTreeMap<i32, i64>,
    pub lines: Vec<String>,
    /// Leader epochs of the blocks that held batches.
    pub epochs: BTreeSet<Option<i32>>,
    pub waits: usize,
}

impl Reading {
    pub fn start(kafka: &dyn Kafka, request: ReadRequest) -> Self {
        let (sender, events) = mpsc::channel(8);
        Self {
            _reader: kafka.read(request, sender),
            events,
            positions: BTreeMap::new(),
            lines: Vec::new(),
            epochs: BTreeSet::new(),
            waits: 0,
        }
    }

    /// Takes one event; a failure is returned.
    pub async fn step(&mut self) -> Option<SourceError> {
        match tokio::time::timeout(HANG, self.events.recv()).await.expect("the reader hangs").expect("the reader ended")
        {
            SourceEvent::Block(block, _permit) => {
                let before = self.positions.insert(block.partition, block.next_offset).unwrap_or(i64::MIN);
                assert!(before <= block.next_offset, "the position never goes back");
                if block.next_offset > before.max(0) {
                    self.epochs.insert(block.leader_epoch);
                }
                for record in block.records() {
                    assert!(record.offset >= before && record.offset < block.next_offset);
                    self.lines.push(line(&record));
                }
                None
            }
            SourceEvent::Waiting { .. } => {
                self.waits += 1;
                None
            }
            SourceEvent::Failed { error, .. } => Some(error),
        }
    }

    /// Reads until every position is at or past its end.
    pub async fn until(&mut self, ends: &BTreeMap<i32, i64>) {
        while ends.iter().any(|(partition, end)| self.positions.get(partition).is_none_or(|at| at < end)) {
            if let Some(error) = self.step().await {
                panic!("reading failed: {error}");
            }
        }
    }

    pub async fn failure(&mut self) -> SourceError {
        loop {
            if let Some(error) = self.step().await {
                return error;
            }
        }
    }

    pub fn sorted(&mut self) -> Vec<String> {
        let mut lines = self.lines.clone();
        lines.sort();
        lines
    }
}

/// Starts at the beginning of every partition.
pub async fn request(kafka: &dyn Kafka, topic: &str, isolation: Isolation) -> ReadRequest {
    // Any broker is asked, and one of several may not have heard of a topic that was made just now.
    let known = async {
        loop {
            match kafka.topic(topic).await.unwrap() {
                Some(info) => return info,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let info = tokio::time::timeout(Duration::from_secs(60), known).await.expect("the topic never appears");
    let mut starts = Vec::new();
    for partition in info.partitions {
        starts.push((partition, kafka.offset(topic, partition, At::Earliest, isolation).await.unwrap()));
    }
    let (seen, budget) = (Vec::new(), Budget::new(64 << 20));
    ReadRequest { topic: topic.to_owned(), topic_id: info.id, isolation, starts, seen, budget }
}

pub async fn ends(kafka: &dyn Kafka, request: &ReadRequest) -> BTreeMap<i32, i64> {
    let mut ends = BTreeMap::new();
    for &(partition, start) in &request.starts {
        let end = kafka.offset(&request.topic, partition, At::Latest, request.isolation).await.unwrap();
        if end > start {
            ends.insert(partition, end);
        }
    }
    ends
}

/// Reads a topic from its start to its end.
pub async fn read_all(kafka: &dyn Kafka, topic: &str, isolation: Isolation) -> Vec<String> {
    let request = request(kafka, topic, isolation).await;
    let ends = ends(kafka, &request).await;
    let mut reading = Reading::start(kafka, request);
    reading.until(&ends).await;
    assert_eq!(reading.positions.iter().filter(|(partition, _)| ends.contains_key(partition)).count(), ends.len());
    reading.sorted()
}

/// Connections of this process to a port of this machine.
pub fn sockets_to(port: u16) -> usize {
    let mine: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned))
        .collect();
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| {
            fields.len() > 9 && fields[2].ends_with(&remote) && mine.iter().any(|inode| inode == fields[9])
        })
        .count()
}
