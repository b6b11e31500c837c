//! Restoring into a cluster in memory: each record once, wherever the process is killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sluice::archive::codec::Codec;
use sluice::archive::format::Format;
use sluice::clock::Environment;
use sluice::config::{Bucket, load_connector_str};
use sluice::kafka::memory::{MemoryKafka, MemoryRecord};
use sluice::kafka::partitioner::Partitioner;
use sluice::pipeline::produce::{Outgoing, ProduceError, Written};
use sluice::pipeline::source::{
    At, Isolation, Kafka, Position, ReadRequest, Reader, SourceError, SourceEvent, TopicInfo,
};
use sluice::reading::place::Place;
use sluice::reading::report::Report;
use sluice::reading::times::Times;
use sluice::restore::{Asked, End, Limits, Order, Outcome, PartitionsBy, Progress, RestoreError, Restorer};
use sluice::store::Store;
use sluice::store::memory::MemoryStore;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::support::archive::{Made, Writer, put};

const TARGET: &str = "again";
const T0: i64 = 1_795_317_125_000;
const APPS: [&str; 2] = ["pay", "ship"];

/// What a dying process got written of the records that were under way. Brokers take a partition's records in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    None,
    One,
    Half,
    /// All of the target's partition 1 and none of 0.
    SecondPartition,
    All,
    /// The operator's signal instead of a kill.
    Stop,
}

const CUTS: [Cut; 6] = [Cut::None, Cut::One, Cut::Half, Cut::SecondPartition, Cut::All, Cut::Stop];

/// Dies in its n-th write.
#[derive(Debug)]
struct Dying {
    kafka: MemoryKafka,
    kill: Option<(usize, Cut)>,
    calls: Mutex<usize>,
    killed: Notify,
    stop: CancellationToken,
}

impl Dying {
    fn new(kafka: &MemoryKafka, kill: Option<(usize, Cut)>) -> Arc<Self> {
        let (calls, killed, stop) = (Mutex::default(), Notify::new(), CancellationToken::new());
        Arc::new(Self { kafka: kafka.clone(), kill, calls, killed, stop })
    }
}

#[async_trait]
impl Kafka for Dying {
    async fn cluster_id(&self) -> Result<Option<String>, SourceError> {
        self.kafka.cluster_id().await
    }

    async fn topics(&self) -> Result<Vec<String>, SourceError> {
        self.kafka.topics().await
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>, SourceError> {
        self.kafka.topic(name).await
    }

    async fn offset(&self, topic: &str, partition: i32, at: At, isolation: Isolation) -> Result<i64, SourceError> {
        self.kafka.offset(topic, partition, at, isolation).await
    }

    async fn diverged(&self, topic: &str, partition: i32, seen: Position) -> Result<Option<Position>, SourceError> {
        self.kafka.diverged(topic, partition, seen).await
    }

    async fn produce(&self, topic: &str, records: &[Outgoing]) -> Vec<Result<Written, ProduceError>> {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls - 1
        };
        let Some((_, cut)) = self.kill.filter(|(at, _)| *at == call) else {
            return self.kafka.produce(topic, records).await;
        };
        let partition = |record: &Outgoing| Partitioner::default().partition(record, &[0, 1]);
        let written: Vec<Outgoing> = match cut {
            Cut::None => Vec::new(),
            Cut::One => records[..1].to_vec(),
            Cut::Half => records[..records.len() / 2].to_vec(),
            Cut::SecondPartition => records.iter().filter(|record| partition(record) == Some(1)).cloned().collect(),
            Cut::All => records.to_vec(),
            Cut::Stop => {
                self.stop.cancel();
                return self.kafka.produce(topic, records).await;
            }
        };
        self.kafka.produce(topic, &written).await;
        self.killed.notify_one();
        std::future::pending().await
    }

    fn read(&self, request: ReadRequest, events: mpsc::Sender<SourceEvent>) -> Reader {
        self.kafka.read(request, events)
    }
}

struct Quiet;

impl Progress for Quiet {
    fn start(&self, _done: u64, _all: u64) {}
    fn written(&self, _records: u64) {}
    fn end(&self) {}
}

/// An archive of two apps, a topic to restore to, and a place for the position.
struct World {
    store: Arc<MemoryStore>,
    kafka: MemoryKafka,
    dir: tempfile::TempDir,
    records: BTreeMap<&'static str, Vec<Made>>,
    limits: Limits,
    said: Arc<Mutex<Vec<String>>>,
}

impl World {
    async fn new(format: Format) -> Self {
        let store = Arc::new(MemoryStore::new());
        let mut writer = Writer::new(Arc::clone(&store) as Arc<dyn Store>, format, Codec::Zstd);
        writer.frame_records = 4;
        let mut records = BTreeMap::new();
        for (number, app) in (0..).zip(APPS) {
            let of_app: Vec<Made> = (0..14).map(|n| made(n * 2 + number)).collect();
            for file in of_app.chunks(7) {
                writer.put(app, file).await;
            }
            records.insert(app, of_app);
        }
        let kafka = MemoryKafka::new(3);
        kafka.create_topic(TARGET, 2);
        // Somebody else's records lie in the target too.
        kafka.append(TARGET, 0, [MemoryRecord::value("other")]).unwrap();
        let settle = Duration::ZERO;
        let limits = Limits { chunk_bytes: 4 << 20, chunk_records: 3, save_every: Duration::from_secs(3600), settle };
        // Positions are synced to disk hundreds of times: in memory, where there is such a place.
        let shared = Path::new("/dev/shm");
        let dir = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap();
        Self { store, kafka, dir, records, limits, said: Arc::default() }
    }

    fn order(&self, apps: &[&str], partitions: PartitionsBy) -> Order {
        let apps: Vec<String> = apps.iter().map(|&app| app.to_owned()).collect();
        Order {
            asked: Asked {
                connector: "app-logs".to_owned(),
                apps: apps.clone(),
                target: TARGET.to_owned(),
                since: None,
                until: None,
                partitions,
            },
            apps,
            times: Times::default(),
            rate: None,
            position_file: self.path("position.json"),
            into_archived_topic: false,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn restorer(&self, kafka: Arc<dyn Kafka>, stop: CancellationToken) -> Restorer {
        let environment = Environment::system();
        let text = "topics: [applogs]\napp_id: { from: key }\nsink: { url: file:///a }\n";
        let (connector, _) = load_connector_str(Path::new("app-logs.yaml"), text, &BTreeMap::new()).unwrap();
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        let place = Place {
            connector: Some(Arc::new(connector)),
            bucket: Some(Bucket::Day),
            ..Place::of_store(store, &environment)
        };
        let said = Arc::clone(&self.said);
        let report = Arc::new(Report::new(move |text| said.lock().unwrap().push(text.to_owned())));
        Restorer { place, report, kafka, environment, progress: Arc::new(Quiet), stop, limits: self.limits }
    }

    /// Runs until it ends, or is killed: then `None`.
    async fn run(&self, order: &Order, kill: Option<(usize, Cut)>) -> Option<Result<Outcome, RestoreError>> {
        let dying = Dying::new(&self.kafka, kill);
        let restorer = self.restorer(Arc::clone(&dying) as Arc<dyn Kafka>, dying.stop.clone());
        tokio::select! {
            outcome = restorer.run(order) => Some(outcome),
            () = dying.killed.notified() => None,
        }
    }

    async fn finish(&self, order: &Order) -> Outcome {
        self.run(order, None).await.unwrap().unwrap()
    }

    /// The target holds exactly these apps' records, as they were.
    fn assert_exact(&self, apps: &[&str], by: PartitionsBy, context: &str) {
        let mut found = Vec::new();
        for partition in 0..2 {
            let mut last = BTreeMap::new();
            for (_, record) in self.kafka.records(TARGET, partition) {
                if record.value.as_deref() == Some(b"other") {
                    continue;
                }
                let made = as_made(record);
                if by == PartitionsBy::Keep {
                    assert_eq!(made.partition, partition, "{context}");
                }
                // Apps come one after the other.
                let app = made.offset % 2;
                let before: Option<i64> = last.insert((made.partition, app), made.offset);
                assert!(before.is_none_or(|before| before < made.offset) || by == PartitionsBy::Key, "{context}");
                found.push(made);
            }
        }
        let mut expected: Vec<Made> = apps.iter().flat_map(|app| self.records[app].clone()).collect();
        let place = |made: &Made| (made.partition, made.offset);
        found.sort_by_key(place);
        expected.sort_by_key(place);
        assert_eq!(found, expected, "{context}");
    }
}

/// Every kind of key, value and header; two partitions.
fn made(offset: i64) -> Made {
    let partition = i32::from(offset % 3 == 0);
    let value = match offset % 5 {
        0 => None,
        1 => Some(b"{\"n\":1}".to_vec()),
        2 => Some(b"two\nlines".to_vec()),
        3 => Some(vec![0xff, 0, b'\n']),
        _ => Some(format!("line {offset}").into_bytes()),
    };
    let headers = match offset % 4 {
        0 => vec![(b"h".to_vec(), None), (b"h".to_vec(), Some(vec![0xfe]))],
        1 => vec![(b"sluice.offset".to_vec(), Some(b"1".to_vec()))],
        _ => Vec::new(),
    };
    let key = Some(format!("k{offset}").into_bytes());
    Made { partition, offset, timestamp_ms: T0 + offset * 1000, key, value, headers }
}

/// A record of the target as it was: the last four headers name its origin.
fn as_made(mut record: MemoryRecord) -> Made {
    let origin = record.headers.split_off(record.headers.len() - 4);
    let names: Vec<_> = origin.iter().map(|(name, _)| String::from_utf8(name.clone()).unwrap()).collect();
    assert_eq!(names, ["sluice.topic", "sluice.partition", "sluice.offset", "sluice.restore"]);
    let text = |at: usize| String::from_utf8(origin[at].1.clone().unwrap()).unwrap();
    assert_eq!(text(0), "applogs");
    Made {
        partition: text(1).parse().unwrap(),
        offset: text(2).parse().unwrap(),
        timestamp_ms: record.timestamp_ms,
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}

/// Every place of the first kill; then a second one early in the next run.
#[tokio::test]
async fn each_record_comes_back_once_wherever_the_process_is_killed() {
    let mut runs = 0;
    let never = Duration::from_secs(3600);
    for (by, saves) in [(PartitionsBy::Keep, &[Duration::ZERO, never][..]), (PartitionsBy::Key, &[never])] {
        for &save_every in saves {
            // 14 records of an app by 3: five writes each, so that the tenth call is beyond the last.
            for at in 0..=10 {
                for cut in CUTS {
                    let second = [None, Some((0, cut)), Some((1, Cut::Half)), Some((0, Cut::Stop))];
                    for second in &second[..if cut == Cut::Half { 4 } else { 1 }] {
                        let mut world = World::new(Format::Json).await;
                        world.limits.save_every = save_every;
                        let order = world.order(&APPS, by);
                        let context = format!("{by:?} {save_every:?} {at} {cut:?} {second:?}");
                        let first = world.run(&order, Some((at, cut))).await;
                        match first.map(|outcome| outcome.unwrap().end) {
                            None => assert!(at < 10 && cut != Cut::Stop, "{context}"),
                            Some(End::Stopped) => assert_eq!(cut, Cut::Stop, "{context}"),
                            Some(end) => assert!(at == 10 && end == End::Finished, "{context}: {end:?}"),
                        }
                        if second.is_some() {
                            world.run(&order, *second).await;
                        }
                        let outcome = world.finish(&order).await;
                        assert_eq!(outcome.records_in_all, 28, "{context}");
                        world.assert_exact(&APPS, by, &context);
                        runs += 1;
                        assert_eq!(world.finish(&order).await.end, End::FinishedBefore, "{context}");
                        world.assert_exact(&APPS, by, &context);
                    }
                }
            }
        }
    }
    assert!(runs > 250, "{runs}");
}

#[tokio::test]
async fn another_restore_into_the_same_topic_is_told_from_this_one() {
    let world = World::new(Format::Json).await;
    let order = world.order(&["pay"], PartitionsBy::Keep);
    assert!(world.run(&order, Some((2, Cut::One))).await.is_none());
    // The same records, by another restore.
    let mut other = order.clone();
    other.position_file = world.path("other.json");
    assert!(world.run(&other, Some((4, Cut::Half))).await.is_none());
    world.finish(&order).await;
    world.finish(&other).await;
    let counts: Vec<_> = (0..2).map(|partition| world.kafka.records(TARGET, partition).len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 1 + 2 * 14);
}

#[tokio::test]
async fn raw_files_give_values_and_times_and_say_what_is_lost() {
    let mut world = World::new(Format::Raw).await;
    let order = world.order(&["ship"], PartitionsBy::Keep);
    world.finish(&order).await;
    for made in world.records.get_mut("ship").unwrap() {
        (made.key, made.headers) = (None, Vec::new());
    }
    world.assert_exact(&["ship"], PartitionsBy::Keep, "raw");
    let said = world.said.lock().unwrap().join("\n");
    assert!(said.contains("2 of 2 files are of the format raw"), "{said}");
}

#[tokio::test]
async fn a_range_of_time_is_restored_and_a_plan_writes_nothing() {
    let mut world = World::new(Format::Json).await;
    let mut order = world.order(&["pay"], PartitionsBy::Keep);
    order.times = Times { since_ms: Some(T0 + 5000), until_ms: Some(T0 + 21_000) };
    let restorer = world.restorer(Arc::new(world.kafka.clone()), CancellationToken::new());
    let planned = restorer.plan(&order).await.unwrap();
    assert_eq!((planned.end, planned.records, planned.plan.raw_files), (End::Planned, 0, 0));
    assert!((8..14).contains(&planned.plan.records), "{planned:?}");
    assert!(!order.position_file.exists());
    world.finish(&order).await;
    world.records.get_mut("pay").unwrap().retain(|made| order.times.contains(made.timestamp_ms));
    assert_eq!(world.records["pay"].len(), 8);
    world.assert_exact(&["pay"], PartitionsBy::Keep, "a range");
}

#[tokio::test]
async fn what_can_not_be_restored_is_refused() {
    let world = World::new(Format::Json).await;
    let order = world.order(&["pay"], PartitionsBy::Keep);
    let refused = async |order: &Order, why: &str| {
        let error = world.run(order, None).await.unwrap().unwrap_err();
        assert!(matches!(&error, RestoreError::Usage(text) if text.contains(why)), "{error}");
    };
    let to = |target: &str| {
        let mut order = order.clone();
        order.asked.target = target.to_owned();
        order.position_file = world.path(&format!("{target}.json"));
        order
    };
    refused(&to("missing"), "topic missing does not exist: make it first").await;
    world.kafka.create_topic("narrow", 1);
    refused(&to("narrow"), "--partitions key").await;
    world.kafka.create_topic("applogs", 2);
    refused(&to("applogs"), "connector app-logs archives topic applogs").await;
    let mut nobody = order.clone();
    (nobody.apps, nobody.position_file) = (vec!["nobody".to_owned()], world.path("nobody.json"));
    assert_eq!(world.finish(&nobody).await.end, End::Nothing);
    assert!(!nobody.position_file.exists());
    let mut into = to("applogs");
    into.into_archived_topic = true;
    assert_eq!(world.finish(&into).await.records, 14);
    // Begun, and the topic made again.
    assert!(world.run(&order, Some((1, Cut::Half))).await.is_none());
    let mut other = order.clone();
    other.asked.apps = vec!["ship".to_owned()];
    refused(&other, "it belongs to another restore: app-logs --app pay --to-topic again --partitions keep").await;
    world.kafka.delete_topic(TARGET);
    world.kafka.create_topic(TARGET, 2);
    refused(&order, "was made again since this restore began").await;
}

#[tokio::test]
async fn a_record_that_is_not_taken_is_named_and_the_others_are_not_doubled() {
    let mut world = World::new(Format::Json).await;
    // The refused one and the one after it are under way together.
    world.limits.chunk_records = 4;
    let mut writer = Writer::new(Arc::clone(&world.store) as Arc<dyn Store>, Format::Json, Codec::Zstd);
    let huge = Made { value: Some(vec![b'x'; 2 << 20]), ..made(28) };
    writer.put("pay", &[huge, made(30)]).await;
    let order = world.order(&["pay"], PartitionsBy::Keep);
    for _ in 0..2 {
        let error = world.run(&order, None).await.unwrap().unwrap_err().to_string();
        assert!(error.starts_with("topic applogs partition 0 offset 28: a record of 2097"), "{error}");
        assert!(error.ends_with("is too large for topic again: raise its max.message.bytes"), "{error}");
    }
    // One after it was written all the same, and once.
    world.records.get_mut("pay").unwrap().push(made(30));
    world.assert_exact(&["pay"], PartitionsBy::Keep, "too large");
}

#[tokio::test]
async fn what_is_damaged_is_left_out_and_that_is_not_forgotten() {
    let mut world = World::new(Format::Json).await;
    (world.limits.chunk_records, world.limits.save_every) = (1, Duration::ZERO);
    let mut writer = Writer::new(Arc::clone(&world.store) as Arc<dyn Store>, Format::Json, Codec::Zstd);
    writer.frame_records = 4;
    let more: Vec<Made> = (14..22).map(|n| made(n * 2)).collect();
    let (key, mut data, _) = writer.file("pay", &more);
    data[20] ^= 1;
    put(world.store.as_ref(), &key, data).await;
    let order = world.order(&["pay"], PartitionsBy::Keep);
    // The next run begins behind the damaged frame.
    assert!(world.run(&order, Some((17, Cut::None))).await.is_none());
    assert!(world.said.lock().unwrap().join("").contains("is damaged"));
    let outcome = world.finish(&order).await;
    assert!(outcome.left_out && outcome.end == End::Finished, "{outcome:?}");
    world.records.get_mut("pay").unwrap().extend_from_slice(&more[4..]);
    world.assert_exact(&["pay"], PartitionsBy::Keep, "damage");
}

#[tokio::test]
async fn an_outage_ends_it_and_the_same_order_goes_on() {
    let world = World::new(Format::Json).await;
    let order = world.order(&APPS, PartitionsBy::Keep);
    for _ in 0..3 {
        world.kafka.refuse_once(ProduceError::Unreachable { topic: TARGET.to_owned(), message: "away".to_owned() });
        let error = world.run(&order, None).await.unwrap().unwrap_err();
        assert!(matches!(error, RestoreError::Record { error: ProduceError::Unreachable { .. }, .. }), "{error}");
    }
    world.finish(&order).await;
    world.assert_exact(&APPS, PartitionsBy::Keep, "an outage");
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept() {
    let world = World::new(Format::Json).await;
    let mut order = world.order(&APPS, PartitionsBy::Keep);
    order.rate = Some(2);
    let before = tokio::time::Instant::now();
    world.finish(&order).await;
    let took = before.elapsed();
    // 28 records; what comes last is not waited for.
    assert!((Duration::from_secs(13)..Duration::from_secs(15)).contains(&took), "{took:?}");
    world.assert_exact(&APPS, PartitionsBy::Keep, "a rate");
}
