//! Whole tasks on the native reader and a broker in the process: what becomes of a task when the reader fails it or has next to
//! no memory.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::api::metrics::TaskMetrics;
use crate::clock::Environment;
use crate::config::{KafkaConfig, load_connector_str};
use crate::kafka::native;
use crate::kafka::native::fake_broker::{FakeCluster, TOPIC, batch};
use crate::log::journal::read_state;
use crate::log::store_log::StoreLog;
use crate::pipeline::budget::Budget;
use crate::pipeline::compress::CompressPool;
use crate::pipeline::source::{SourceError, TopicInfo};
use crate::pipeline::spool::Spool;
use crate::store::memory::MemoryStore;
use crate::store::{ByteRange, Depth, Store};
use crate::task::core::SNAPSHOT_EVERY;
use crate::task::error::Remedy;
use crate::task::status::TaskStatus;
use crate::task::{End, TaskContext, TaskError, run};

const HANG: Duration = Duration::from_secs(60);
const LOG: &str = "_sluice/app-logs/t/1/0";

struct World {
    cluster: FakeCluster,
    store: Arc<MemoryStore>,
    context: TaskContext,
    _spool: tempfile::TempDir,
    _topic_info: watch::Sender<TopicInfo>,
}

impl World {
    /// Each record is a file of its own soon, not compressed.
    async fn new(budget_bytes: u64) -> Self {
        let cluster = FakeCluster::start(1).await;
        let text = format!(
            "topics: [{TOPIC}]\napp_id: {{ from: topic }}\nsink: {{ url: file:///a }}\n\
             rotate: {{ max_bytes: 64KiB, max_interval: 1s }}\ncompression: {{ codec: none, frame_bytes: 64KiB }}\n"
        );
        let (connector, _) = load_connector_str(Path::new("app-logs.yaml"), &text, &BTreeMap::new()).unwrap();
        let store = Arc::new(MemoryStore::new());
        let spool = tempfile::tempdir().unwrap();
        let info = TopicInfo { name: TOPIC.to_owned(), id: None, partitions: Vec::new() };
        let (topic_info, receiver) = watch::channel(info);
        let context = TaskContext {
            connector: Arc::new(connector),
            topic: TOPIC.to_owned(),
            task: 0,
            tasks_max: 1,
            origin: None,
            worker_id: "w".to_owned(),
            kafka: native::connect(&KafkaConfig::plaintext(&cluster.address())).await.unwrap(),
            store: Arc::clone(&store) as Arc<dyn Store>,
            log: Arc::new(StoreLog::new(Arc::clone(&store) as Arc<dyn Store>, LOG)),
            pool: CompressPool::start(NonZeroUsize::MIN).unwrap(),
            spool: Arc::new(Spool::open(spool.path(), 1 << 30).unwrap()),
            budget: Budget::new(budget_bytes),
            uploads: Arc::new(Semaphore::new(4)),
            environment: Environment::system(),
            status: Arc::new(TaskStatus::new("app-logs", TOPIC, 0)),
            metrics: Arc::new(TaskMetrics::new("app-logs", TOPIC, 0)),
            shutdown_timeout: Duration::from_secs(20),
            group: None,
            topic_info: receiver,
            snapshot_every: SNAPSHOT_EVERY,
        };
        Self { cluster, store, context, _spool: spool, _topic_info: topic_info }
    }

    /// Appends one batch of records of `bytes` each, named by their offsets.
    fn append(&self, first: i64, count: i64, bytes: usize) {
        let values = (first..first + count).map(|offset| format!("{offset:0bytes$}").into_bytes());
        self.cluster.with(|state| state.log.push(batch(first, values)));
    }

    async fn run(&self, until_caught_up: bool) -> Result<End, TaskError> {
        let ended = tokio::time::timeout(HANG, run(&self.context, until_caught_up, CancellationToken::new()));
        ended.await.expect("the task hangs")
    }

    /// Waits until everything below `low` is in finished objects.
    async fn archived(&self, low: i64) {
        let reached = async {
            let log = StoreLog::new(Arc::clone(&self.store) as Arc<dyn Store>, LOG);
            while read_state(&log, &self.context.environment).await.unwrap().lows.get(&0).map(|low| low.offset)
                != Some(low)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(HANG, reached).await.expect("low stands still");
    }

    /// The records' offsets in the archive, sorted.
    async fn offsets(&self) -> Vec<i64> {
        let page = self.store.list("", Depth::All, None, 1000).await.unwrap();
        let mut offsets = Vec::new();
        for object in page.objects.into_iter().filter(|object| object.key.ends_with(".log")) {
            if object.key.starts_with('_') || object.key.contains("/_") {
                continue;
            }
            let bytes = self.store.get(&object.key, ByteRange::All, None).await.unwrap().unwrap().bytes;
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            offsets.extend(text.lines().map(|line| line.parse::<i64>().unwrap()));
        }
        offsets.sort_unstable();
        offsets
    }
}

/// Runs a task into a panic of its reader after three records are archived, then runs it again to the end.
async fn survives(panic: impl FnOnce(), mended: impl FnOnce()) -> TaskError {
    let world = World::new(64 << 20).await;
    world.append(0, 3, 40);
    let (ended, ()) = tokio::join!(world.run(false), async {
        world.archived(3).await;
        panic();
        world.append(3, 4, 40);
    });
    mended();
    assert_eq!(world.context.budget.used_bytes(), 0, "nothing is held for a reader that is gone");
    assert_eq!(world.run(true).await.unwrap(), End::CaughtUp);
    assert_eq!(world.offsets().await, (0..7).collect::<Vec<_>>(), "each record once");
    ended.unwrap_err()
}

#[tokio::test]
async fn a_task_whose_reader_panics_is_started_again_and_loses_nothing() {
    use crate::kafka::native::reader::PANIC;
    let error = survives(|| PANIC.set(true), || PANIC.set(false)).await;
    assert!(error.to_string().contains("the reader panicked"), "{error}");
    assert_eq!(error.remedy(), Remedy::Restart);
}

#[tokio::test]
async fn a_task_whose_decoder_panics_says_where_and_loses_nothing() {
    use crate::kafka::native::decoding::tests::PANIC_IN;
    let error = survives(|| PANIC_IN.set(0), || PANIC_IN.set(-1)).await;
    assert!(
        matches!(&error, TaskError::Source(SourceError::Unreadable { partition: 0, offset: 3, message, .. }) if message.contains("panicked")),
        "{error}"
    );
    assert_eq!(error.remedy(), Remedy::Operator);
}

/// An answer, a batch, even a single record larger than the whole budget goes through alone.
#[tokio::test]
async fn a_task_with_a_budget_smaller_than_a_record_archives_everything() {
    let world = World::new(1000).await;
    for first in (0..40).step_by(4) {
        world.append(first, 4, 20_000);
    }
    assert_eq!(world.run(true).await.unwrap(), End::CaughtUp);
    assert_eq!(world.offsets().await, (0..40).collect::<Vec<_>>());
    assert_eq!(world.context.budget.used_bytes(), 0);
}
