//! One partition with one hot app: a whole task, from lz4 batches in memory into files, on one core and on two.
//!
//! `cargo bench --bench one_app` runs itself under `taskset`, in turn on one core and on two, and prints how many times faster two
//! are. SLUICE_BENCH_RECORDS says how much, SLUICE_BENCH_CODECS with which codecs, TMPDIR where spool and archive lie. Wall time: it wants a
//! machine without other work, and enough records that the start and the last fsync do not count.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

#[allow(dead_code, reason = "this uses its share")]
mod common;

use std::num::NonZeroUsize;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::{Load, TOPIC, cpu_seconds};
use sluice::api::metrics::TaskMetrics;
use sluice::archive::codec::Codec;
use sluice::clock::Environment;
use sluice::kafka::native::offline::{Codecs, Decoder, Pool};
use sluice::log::store_log::StoreLog;
use sluice::pipeline::budget::Budget;
use sluice::pipeline::compress::CompressPool;
use sluice::pipeline::source::{At, Isolation, Kafka, ReadRequest, Reader, SourceError, SourceEvent, TopicInfo};
use sluice::pipeline::spool::Spool;
use sluice::store::Store;
use sluice::store::local::LocalStore;
use sluice::task::core::SNAPSHOT_EVERY;
use sluice::task::status::TaskStatus;
use sluice::task::{End, TaskContext, run};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 3;
const CODECS: [(&str, Codec); 3] = [("lz4", Codec::Lz4), ("zstd", Codec::Zstd), ("gzip", Codec::Gzip)];
/// In a child: the codec, and how many cores it has.
const CHILD: &str = "SLUICE_BENCH_CHILD";

fn main() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let records = number("SLUICE_BENCH_RECORDS", 4_500_000);
    if let Ok(child) = std::env::var(CHILD) {
        let (codec, cores) = child.split_once(' ').unwrap();
        let codec = CODECS.into_iter().find(|(name, _)| *name == codec).unwrap().1;
        let Pace { mb_per_second, cpu_seconds_per_gb } = pace(records, codec, cores.parse().unwrap());
        println!("{mb_per_second} {cpu_seconds_per_gb}");
        return;
    }
    println!("| codec | MB/s on 1 core | on 2 | times | CPU s/GB on 1 | on 2 |\n|---|---|---|---|---|---|");
    let wanted = std::env::var("SLUICE_BENCH_CODECS").unwrap_or_else(|_| "lz4 zstd gzip".to_owned());
    for codec in wanted.split(' ') {
        // In turn, so that a change of the machine's load hits both.
        let (mut one, mut two) = (Pace::default(), Pace::default());
        for _ in 0..ROUNDS {
            one = one.faster(child(codec, 1));
            two = two.faster(child(codec, 2));
        }
        println!(
            "| {codec} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
            one.mb_per_second,
            two.mb_per_second,
            two.mb_per_second / one.mb_per_second,
            one.cpu_seconds_per_gb,
            two.cpu_seconds_per_gb,
        );
    }
}

/// How fast one run was.
#[derive(Clone, Copy, Default)]
struct Pace {
    mb_per_second: f64,
    cpu_seconds_per_gb: f64,
}

impl Pace {
    fn faster(self, other: Self) -> Self {
        if other.mb_per_second > self.mb_per_second { other } else { self }
    }
}

fn child(codec: &str, cores: usize) -> Pace {
    let cpus = if cores == 1 { "0" } else { "0,1" };
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", cpus]).arg(program).env(CHILD, format!("{codec} {cores}"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (mb_per_second, cpu_seconds_per_gb) = text.trim().split_once(' ').unwrap();
    Pace { mb_per_second: mb_per_second.parse().unwrap(), cpu_seconds_per_gb: cpu_seconds_per_gb.parse().unwrap() }
}

fn pace(records: u64, codec: Codec, cores: usize) -> Pace {
    let load = Load::new(records, 1, 1);
    let (dir, mut connector) = (tempfile::tempdir().unwrap(), common::connector());
    connector.compression.codec = codec;
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(dir.path().join("archive")).unwrap());
    let bytes = load.bytes;
    let info = TopicInfo { name: TOPIC.to_owned(), id: None, partitions: vec![0] };
    let cores = NonZeroUsize::new(cores).unwrap();
    let context = TaskContext {
        connector: Arc::new(connector),
        topic: TOPIC.to_owned(),
        task: 0,
        tasks_max: 1,
        origin: None,
        worker_id: "bench".to_owned(),
        kafka: Arc::new(InMemory { load: Arc::new(load), info: info.clone() }),
        log: Arc::new(StoreLog::new(Arc::clone(&store), "_sluice/bench/applogs/1/0")),
        store,
        pool: CompressPool::start(cores).unwrap(),
        spool: Arc::new(Spool::open(&dir.path().join("spool"), 10 << 30).unwrap()),
        budget: Budget::new(192 << 20),
        uploads: Arc::new(Semaphore::new(8)),
        environment: Environment::system(),
        status: Arc::new(TaskStatus::new("bench", TOPIC, 0)),
        metrics: Arc::new(TaskMetrics::new("bench", TOPIC, 0)),
        shutdown_timeout: Duration::from_secs(20),
        group: None,
        topic_info: watch::channel(info).1,
        snapshot_every: SNAPSHOT_EVERY,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores.get()).enable_all().build().unwrap();
    let began = Instant::now();
    let cpu_began = cpu_seconds();
    let end = runtime.block_on(async { run(&context, true, CancellationToken::new()).await }).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu_began;
    assert_eq!(end, End::CaughtUp);
    Pace { mb_per_second: bytes as f64 / 1e6 / seconds, cpu_seconds_per_gb: cpu * 1e9 / bytes as f64 }
}

/// A topic of one partition whose answers are there already.
#[derive(Debug)]
struct InMemory {
    load: Arc<Load>,
    info: TopicInfo,
}

#[async_trait]
impl Kafka for InMemory {
    async fn cluster_id(&self) -> Result<Option<String>, SourceError> {
        Ok(None)
    }

    async fn topics(&self) -> Result<Vec<String>, SourceError> {
        Ok(vec![self.info.name.clone()])
    }

    async fn topic(&self, _name: &str) -> Result<Option<TopicInfo>, SourceError> {
        Ok(Some(self.info.clone()))
    }

    async fn offset(&self, _: &str, _: i32, at: At, _: Isolation) -> Result<i64, SourceError> {
        Ok(if at == At::Earliest { 0 } else { self.load.records.cast_signed() })
    }

    fn read(&self, request: ReadRequest, events: mpsc::Sender<SourceEvent>) -> Reader {
        let (stop, load) = (CancellationToken::new(), Arc::clone(&self.load));
        tokio::spawn(async move {
            let (mut codecs, pool) = (Codecs::default(), Pool::default());
            for answer in &load.answers {
                for block in Decoder::new(answer.clone(), &mut codecs, &pool) {
                    let block = block.unwrap();
                    let permit = request.budget.charge(block.memory_bytes());
                    if events.send(SourceEvent::Block(block, permit)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Reader::new(stop)
    }
}
