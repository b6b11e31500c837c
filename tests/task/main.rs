//! Whole tasks with Kafka and the store in memory: what they do with records, settings and faults.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]
#![allow(clippy::print_stdout, reason = "a test that does not run says why")]

mod cuts;
mod group_offsets;
mod losses;
mod poison;
mod readers;
mod recover;
mod skips;
mod store_faults;
#[path = "../support/mod.rs"]
mod support;
mod verify;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice::api::metrics::TaskMetrics;
use sluice::archive::codec::{Codec, decode_frame};
use sluice::archive::index::{IndexRead, codec_of_key, is_sidecar, read_index};
use sluice::clock::Environment;
use sluice::config::load_connector_str;
use sluice::kafka::memory::{MemoryKafka, MemoryRecord};
use sluice::log::LogDoor;
use sluice::log::journal::{LogError, read_state};
use sluice::log::store_log::StoreLog;
use sluice::pipeline::budget::Budget;
use sluice::pipeline::compress::CompressPool;
use sluice::pipeline::source::{Kafka, SourceError, TopicInfo};
use sluice::pipeline::spool::Spool;
use sluice::pipeline::upload::UploadError;
use sluice::store::memory::MemoryStore;
use sluice::store::{Body, ByteRange, Depth, Store};
use sluice::task::core::{CoreError, SNAPSHOT_EVERY};
use sluice::task::error::Remedy;
use sluice::task::status::TaskStatus;
use sluice::task::{End, Origin, TaskContext, TaskError, close, run};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "applogs";
const LOG: &str = "_sluice/app-logs/applogs/1/0";

/// One worker's share of the world; the store outlives it.
struct World {
    kafka: MemoryKafka,
    store: Arc<MemoryStore>,
    topic_info: watch::Sender<TopicInfo>,
    _spool: tempfile::TempDir,
    context: Arc<TaskContext>,
}

/// How most tests split.
const BY_APP_ID: &str = "app_id: { from: json, pointer: /app_id }\n";

fn world(kafka: &MemoryKafka, store: &Arc<MemoryStore>, settings: &str, worker: &str) -> World {
    world_of(kafka, store, &format!("{BY_APP_ID}{settings}"), worker)
}

fn world_of(kafka: &MemoryKafka, store: &Arc<MemoryStore>, settings: &str, worker: &str) -> World {
    let (topic_info, receiver) = topic_info();
    let (dir, context) = context_with(kafka, Arc::clone(store) as Arc<dyn Store>, settings, worker, receiver);
    World { kafka: kafka.clone(), store: Arc::clone(store), topic_info, _spool: dir, context }
}

fn topic_info() -> (watch::Sender<TopicInfo>, watch::Receiver<TopicInfo>) {
    watch::channel(TopicInfo { name: TOPIC.to_owned(), id: None, partitions: Vec::new() })
}

/// For any store; no news of the topic come.
fn context(
    kafka: &MemoryKafka,
    store: Arc<dyn Store>,
    settings: &str,
    worker: &str,
) -> (tempfile::TempDir, Arc<TaskContext>) {
    context_with(kafka, store, &format!("{BY_APP_ID}{settings}"), worker, topic_info().1)
}

fn context_with(
    kafka: &MemoryKafka,
    store: Arc<dyn Store>,
    settings: &str,
    worker: &str,
    topic_info: watch::Receiver<TopicInfo>,
) -> (tempfile::TempDir, Arc<TaskContext>) {
    let text = format!("topics: [{TOPIC}]\nsink: {{ url: file:///a }}\n{settings}");
    let (connector, _) = load_connector_str(Path::new("app-logs.yaml"), &text, &BTreeMap::new()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let context = TaskContext {
        connector: Arc::new(connector),
        topic: TOPIC.to_owned(),
        task: 0,
        tasks_max: 1,
        origin: None,
        worker_id: worker.to_owned(),
        kafka: Arc::new(kafka.clone()),
        log: Arc::new(StoreLog::new(Arc::clone(&store), LOG)),
        store,
        pool: CompressPool::start(NonZeroUsize::MIN).unwrap(),
        spool: Arc::new(Spool::open(dir.path(), 1 << 30).unwrap()),
        budget: Budget::new(64 << 20),
        uploads: Arc::new(Semaphore::new(4)),
        environment: Environment::system(),
        status: Arc::new(TaskStatus::new("app-logs", TOPIC, 0)),
        metrics: Arc::new(TaskMetrics::new("app-logs", TOPIC, 0)),
        shutdown_timeout: Duration::from_secs(20),
        group: None,
        topic_info,
        snapshot_every: SNAPSHOT_EVERY,
    };
    (dir, Arc::new(context))
}

fn log(store: &Arc<MemoryStore>) -> StoreLog {
    StoreLog::new(Arc::clone(store) as Arc<dyn Store>, LOG)
}

impl World {
    async fn to_the_end(&self) -> Result<End, TaskError> {
        run(&self.context, true, CancellationToken::new()).await
    }

    /// Runs in the background until stopped.
    fn start(&self) -> (CancellationToken, tokio::task::JoinHandle<Result<End, TaskError>>) {
        let stop = CancellationToken::new();
        let (context, stopped) = (Arc::clone(&self.context), stop.clone());
        (stop, tokio::spawn(async move { run(&context, false, stopped).await }))
    }

    async fn state(&self) -> sluice::ledger::State {
        read_state(&log(&self.store), &Environment::system()).await.unwrap()
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&sluice::ledger::State) -> bool) {
        let wait = async {
            while !condition(&self.state().await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

fn record(app: &str, text: &str) -> MemoryRecord {
    let value = format!("{{\"app_id\":\"{app}\",\"text\":\"{text}\"}}");
    MemoryRecord { timestamp_ms: 1_795_317_125_000, ..MemoryRecord::value(value) }
}

fn kafka(partitions: usize, records: &[(i32, MemoryRecord)]) -> MemoryKafka {
    let kafka = MemoryKafka::new(10);
    kafka.create_topic(TOPIC, partitions);
    for (partition, record) in records {
        kafka.append(TOPIC, *partition, [record.clone()]).unwrap();
    }
    kafka
}

fn some_records() -> Vec<(i32, MemoryRecord)> {
    (0..200).map(|n| (n % 3, record(&format!("app{}", n % 7), &format!("record {n}")))).collect()
}

/// Keys and lines of all objects that are not the log's.
async fn objects(store: &MemoryStore) -> BTreeMap<String, Vec<String>> {
    objects_of(store).await
}

async fn objects_of(store: &dyn Store) -> BTreeMap<String, Vec<String>> {
    let page = store.list("", Depth::All, None, 1000).await.unwrap();
    let mut found = BTreeMap::new();
    for object in page.objects.into_iter().filter(|object| is_data(&object.key)) {
        let bytes = store.get(&object.key, ByteRange::All, None).await.unwrap().unwrap().bytes;
        let codec = codec_of_key(&object.key);
        let lines = lines(codec, &bytes);
        found.insert(object.key, lines);
    }
    found
}

fn is_data(key: &str) -> bool {
    !key.starts_with("_sluice/") && !is_sidecar(key)
}

fn lines(codec: Codec, file: &[u8]) -> Vec<String> {
    if codec == Codec::None {
        return String::from_utf8_lossy(file).lines().map(str::to_owned).collect();
    }
    let Ok(IndexRead::Index(index)) = read_index(codec, file.len() as u64, file) else { panic!("no index") };
    let mut text = Vec::new();
    for frame in &index.frames {
        let at = usize::try_from(frame.offset).unwrap();
        let stored = &file[at..at + usize::try_from(frame.stored_len).unwrap()];
        text.extend(decode_frame(codec, stored, usize::try_from(frame.raw_len).unwrap()).unwrap());
    }
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

/// A log in which `slow` holds low at 0 while files of `busy` are done: something is left to redo.
async fn half_archived(settings: &str) -> (MemoryKafka, Arc<MemoryStore>, Vec<(i32, MemoryRecord)>) {
    let noise = |n: u64| format!("{:064x}", u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
    let mut records = vec![(0, record("slow", "waits"))];
    records.extend((0..8000).map(|n| (0, record("busy", &noise(n)))));
    let (kafka, store) = (kafka(1, &records), Arc::new(MemoryStore::new()));
    let first = world(&kafka, &store, settings, "w");
    let (stop, running) = first.start();
    first.until("a file of busy is done", |state| !state.marks.is_empty() && state.intents.is_empty()).await;
    stop.cancel();
    assert_eq!(running.await.unwrap().unwrap(), End::Stopped);
    (kafka, store, records)
}

const SMALL: &str = "rotate: { max_bytes: 64KiB }\ncompression: { frame_bytes: 64KiB }\n";

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort();
    items
}

fn text(record: &MemoryRecord) -> String {
    String::from_utf8(record.value.clone().unwrap()).unwrap()
}

async fn assert_exact(store: &MemoryStore, records: &[(i32, MemoryRecord)]) {
    let expected = sorted(records.iter().map(|(_, record)| text(record)));
    let found = sorted(objects(store).await.into_values().flatten());
    assert_eq!(found, expected);
}

#[tokio::test]
async fn each_record_once_and_again_nothing() {
    let (kafka, store) = (kafka(3, &some_records()), Arc::new(MemoryStore::new()));
    assert_eq!(world(&kafka, &store, "", "w").to_the_end().await.unwrap(), End::CaughtUp);
    assert_exact(&store, &some_records()).await;
    let before = objects(&store).await;
    assert_eq!(before.len(), 7, "one file an app: {:?}", before.keys());
    assert_eq!(world(&kafka, &store, "", "w").to_the_end().await.unwrap(), End::CaughtUp);
    assert_eq!(objects(&store).await, before);
    let more: Vec<_> = (0..50).map(|n| (1, record("app1", &format!("later {n}")))).collect();
    for (partition, record) in &more {
        kafka.append(TOPIC, *partition, [record.clone()]).unwrap();
    }
    assert_eq!(world(&kafka, &store, "", "w").to_the_end().await.unwrap(), End::CaughtUp);
    assert_exact(&store, &[some_records(), more].concat()).await;
}

#[tokio::test]
async fn an_empty_topic_and_start_from_latest_write_their_start_down() {
    let (kafka, store) = (kafka(2, &some_records()[..1]), Arc::new(MemoryStore::new()));
    let latest = world(&kafka, &store, "start_from: latest\n", "w");
    assert_eq!(latest.to_the_end().await.unwrap(), End::CaughtUp);
    assert_eq!(latest.state().await.lows.values().map(|low| low.offset).collect::<Vec<_>>(), [1, 0]);
    // What comes while nothing runs is archived, though the connector says latest.
    let later = vec![(0, record("a", "later")), (1, record("b", "later"))];
    for (partition, record) in &later {
        kafka.append(TOPIC, *partition, [record.clone()]).unwrap();
    }
    assert_eq!(world(&kafka, &store, "start_from: latest\n", "w").to_the_end().await.unwrap(), End::CaughtUp);
    assert_exact(&store, &later).await;
}

#[tokio::test]
async fn records_that_can_not_be_split_go_where_on_error_says() {
    let mut records = some_records();
    records.push((2, MemoryRecord::value("not JSON")));
    let kafka = kafka(3, &records);
    let store = Arc::new(MemoryStore::new());
    let error = world(&kafka, &store, "on_error: fail\n", "w").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::Core(CoreError::BadRecord { partition: 2, offset: 66, .. })), "{error}");
    assert_eq!(error.remedy(), Remedy::Operator);
    // The way out: `fail` let nothing pass, so any other answer may follow.
    assert_eq!(world(&kafka, &store, "on_error: skip\n", "w").to_the_end().await.unwrap(), End::CaughtUp);
    assert_exact(&store, &some_records()).await;

    let store = Arc::new(MemoryStore::new());
    assert_eq!(world(&kafka, &store, "on_error: dead_letter\n", "w").to_the_end().await.unwrap(), End::CaughtUp);
    assert_exact(&store, &records).await;
    let dead: Vec<_> = objects(&store).await.into_iter().filter(|(key, _)| key.starts_with("_dead_letter/")).collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].1, ["not JSON"]);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_never_overwritten() {
    let (kafka, store) = (kafka(1, &[(0, record("pay", "x"))]), Arc::new(MemoryStore::new()));
    let key = "pay/2026-11-22/031205_applogs+00000+00000000000000000000.log.lz4";
    store.create(key, &Body::Bytes(Bytes::from_static(b"foreign")), None).await.unwrap();
    let error = world(&kafka, &store, "", "w").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::Upload(UploadError::Foreign { key: found, .. }) if found == key), "{error}");
    assert_eq!(error.remedy(), Remedy::Damage);
    assert_eq!(store.get(key, ByteRange::All, None).await.unwrap().unwrap().bytes, "foreign");
}

/// Takes the object and the entries after its Seal away: a worker that died between Seal and upload.
async fn forget_upload(store: &Arc<MemoryStore>) -> String {
    let objects = objects(store).await;
    let key = objects.into_keys().next().unwrap();
    store.delete(&key).await.unwrap();
    let door = log(store);
    let numbers = door.numbers(0).await.unwrap();
    // Takeover, Start, Seal, then the Done.
    for number in &numbers[3..] {
        door.delete(*number).await.unwrap();
    }
    key
}

#[tokio::test]
async fn a_second_worker_takes_over_and_the_first_stops_naming_it() {
    let (kafka, store) = (kafka(3, &some_records()), Arc::new(MemoryStore::new()));
    let first = world(&kafka, &store, "rotate: { max_interval: 1s }\n", "first");
    let (_stop, running) = first.start();
    first.until("the first owns the task", |state| state.is_started()).await;
    let second = world(&kafka, &store, "rotate: { max_interval: 1s }\n", "second");
    second.to_the_end().await.unwrap();
    // The first learns it at its next append, for which it needs a reason.
    kafka.append(TOPIC, 0, [record("app0", "one more")]).unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(&error, TaskError::Log(LogError::Fenced { by, .. }) if by == "second"), "{error}");
    assert_eq!(error.remedy(), Remedy::Leave);
    second.to_the_end().await.unwrap();
    let mut all = some_records();
    all.push((0, record("app0", "one more")));
    assert_exact(&store, &all).await;
}

#[tokio::test]
async fn new_partitions_are_logged_and_read_from_their_beginning() {
    let (kafka, store) = (kafka(1, &[(0, record("a", "old"))]), Arc::new(MemoryStore::new()));
    let world = world(&kafka, &store, "rotate: { max_interval: 1s }\n", "w");
    let (stop, running) = world.start();
    world.until("the task runs", |state| state.is_started()).await;
    world.kafka.create_topic(TOPIC, 2);
    world.kafka.append(TOPIC, 1, [record("b", "new")]).unwrap();
    world.topic_info.send(world.kafka.topic(TOPIC).await.unwrap().unwrap()).unwrap();
    world
        .until("both partitions are archived", |state| {
            state.lows.values().map(|low| low.offset).collect::<Vec<_>>() == [1, 1]
        })
        .await;
    stop.cancel();
    assert_eq!(running.await.unwrap().unwrap(), End::Stopped);
    assert_exact(&store, &[(0, record("a", "old")), (1, record("b", "new"))]).await;
}

#[tokio::test]
async fn an_open_transaction_at_the_end_is_not_waited_for() {
    let (kafka, store) = (kafka(1, &some_records()[..1]), Arc::new(MemoryStore::new()));
    kafka.append(TOPIC, 0, [record("a", "open")]).unwrap();
    kafka.set_stable_end(TOPIC, 0, Some(1));
    assert_eq!(world(&kafka, &store, "", "w").to_the_end().await.unwrap(), End::CaughtUp);
    assert_exact(&store, &some_records()[..1]).await;
    kafka.set_stable_end(TOPIC, 0, None);
    assert_eq!(world(&kafka, &store, "", "w").to_the_end().await.unwrap(), End::CaughtUp);
    assert_exact(&store, &[some_records()[0].clone(), (0, record("a", "open"))]).await;
}

/// What the watchdog of systemd goes by.
#[tokio::test]
async fn a_tasks_loop_turns_also_when_nothing_comes_and_ends_with_the_task() {
    let (kafka, store) = (kafka(1, &[]), Arc::new(MemoryStore::new()));
    let world = world(&kafka, &store, "", "w");
    let turns = || world.context.status.turns();
    assert_eq!(turns(), None);
    let (stop, running) = world.start();
    let until = async |least: u64| {
        let wait = async {
            while turns().is_none_or(|found| found < least) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    };
    world.until("the task runs", sluice::ledger::State::is_started).await;
    until(1).await;
    let seen = turns().unwrap();
    until(seen + 3).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(turns(), None);
}
