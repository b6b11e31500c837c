//! One partition with one hot app: a whole task, from lz4 batches in memory into files, on one core and on two.
//!
//! `cargo bench --bench one_app` runs itself under `taskset`, in turn on one core and on two, and prints how many times faster two
//! are. SLUICE_BENCH_RECORDS says how much, SLUICE_BENCH_CODECS with which codecs. Wall time: it wants a machine without other work.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

#[allow(dead_code, reason = "this uses its share")]
mod common;

use std::num::NonZeroUsize;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::{Load, TOPIC};
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
    let records = number("SLUICE_BENCH_RECORDS", 1_500_000);
    if let Ok(child) = std::env::var(CHILD) {
        let (codec, cores) = child.split_once(' ').unwrap();
        let codec = CODECS.into_iter().find(|(name, _)| *name == codec).unwrap().1;
        println!("{}", mb_per_second(records, codec, cores.parse().unwrap()));
        return;
    }
    println!("| codec | MB/s on 1 core | on 2 | times |\n|---|---|---|---|");
    let wanted = std::env::var("SLUICE_BENCH_CODECS").unwrap_or_else(|_| "lz4 zstd gzip".to_owned());
    for codec in wanted.split(' ') {
        // In turn, so that a change of the machine's load hits both.
        let (mut one, mut two) = (0.0, 0.0);
        for _ in 0..ROUNDS {
            one = f64::max(one, child(codec, 1));
            two = f64::max(two, child(codec, 2));
        }
        println!("| {codec} | {one:.0} | {two:.0} | {:.2} |", two / one);
    }
}

fn child(codec: &str, cores: usize) -> f64 {
    let cpus = if cores == 1 { "0" } else { "0,1" };
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", cpus]).arg(program).env(CHILD, format!("{codec} {cores}"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn mb_per_second(records: u64, codec: Codec, cores: usize) -> f64 {
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
    let end = runtime.block_on(async { run(&context, true, CancellationToken::new()).await }).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(end, End::CaughtUp);
    bytes as f64 / 1e6 / seconds
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
