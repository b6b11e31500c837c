//! What verify and recover take for many objects. `SLUICE_TEST_MANY_OBJECTS=100000 cargo test --test verify_many -- --nocapture`
//! shows it for as many as the guide tells of.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods, reason = "test code")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sluice::archive::codec::{Codec, Encoder};
use sluice::archive::digest::topic_seed;
use sluice::archive::frame::FrameBuffer;
use sluice::archive::index::{append_frame, write_tail};
use sluice::clock::Environment;
use sluice::config::load_connector_str;
use sluice::kafka::memory::MemoryKafka;
use sluice::ledger::{Commit, Entry, Identity, Intent, Lane};
use sluice::log::journal::Journal;
use sluice::log::store_log::StoreLog;
use sluice::pipeline::lane::{Opener, Ranges};
use sluice::pipeline::source::Kafka as _;
use sluice::reading::place::Place;
use sluice::record::{Headers, Record};
use sluice::recover::Recoverer;
use sluice::store::local::LocalStore;
use sluice::store::{Body, Store};
use sluice::task::settings::TaskSettings;
use sluice::verify::{Logs, Options, Silent, Verifier};
use sluice::worker::layout::{self, Mapping};

const TOPIC: &str = "applogs";
const PARTITIONS: i32 = 8;
const APPS: i64 = 100;
/// Records of an object in each partition.
const RECORDS: i64 = 5;

/// Writes the object of an app in a round: its records lie among those of all other apps.
async fn write(store: &dyn Store, settings: &TaskSettings, identity: &Identity, round: i64, app: i64) -> String {
    let lane = Lane { app: format!("app{app:03}"), bucket_start_secs: Some(0) };
    let low = round * APPS * RECORDS;
    let opener = Opener { partition: 0, offset: low + app, time_ms: round * 1000 };
    let (mut buffer, mut ranges) = (FrameBuffer::default(), Ranges::default());
    for partition in 0..PARTITIONS {
        for number in 0..RECORDS {
            let offset = low + app + number * APPS;
            let value = format!("{{\"app_id\":\"app{app:03}\",\"text\":\"partition {partition} offset {offset}\"}}");
            let value = Some(value.as_bytes());
            let headers = Headers::default();
            let record = Record { partition, offset, timestamp_ms: opener.time_ms, key: None, value, headers };
            ranges.push(&record);
            buffer.push(settings.connector.format, TOPIC, settings.topic_seed, &record, opener.time_ms);
        }
    }
    let key = settings.key(&lane, &opener, 0);
    let intent = Intent::new(key.clone(), lane, ranges.into_map(), settings.record.hash.clone());
    let (mut file, mut entries) = (Vec::new(), Vec::new());
    let meta = buffer.encode(&mut Encoder::new(Codec::Lz4, None).unwrap(), &mut file).unwrap();
    append_frame(&mut entries, 0, &meta);
    let lows = (0..PARTITIONS).map(|partition| (partition, low)).collect();
    let facts = settings.facts(&intent, 3 + round.unsigned_abs(), identity, lows);
    let len = file.len() as u64;
    write_tail(Codec::Lz4, &facts, &entries, len, &mut file).unwrap();
    store.create(&key, &Body::Bytes(file.into()), Some(&intent.id.0)).await.unwrap();
    key
}

/// The most memory that this process took since the last call, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    kib / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn many_objects_take_few_requests_and_bounded_memory() {
    let objects: i64 = std::env::var("SLUICE_TEST_MANY_OBJECTS").map_or(1_000, |count| count.parse().unwrap());
    let rounds = objects / APPS;
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(dir.path()).unwrap());
    let environment = Environment::system();
    let text = format!(
        "topics: [{TOPIC}]\napp_id: {{ from: json, pointer: /app_id }}\nsink: {{ url: file://{} }}\n",
        dir.path().display()
    );
    let (connector, _) = load_connector_str(Path::new("app-logs.yaml"), &text, &BTreeMap::new()).unwrap();
    let connector = Arc::new(connector);
    let settings = TaskSettings::new(Arc::clone(&connector), TOPIC, 0);
    let kafka = MemoryKafka::new(10);
    kafka.create_topic(TOPIC, PARTITIONS as usize);
    let topic_id = kafka.topic(TOPIC).await.unwrap().unwrap().id;
    let identity = Identity { cluster_id: kafka.cluster_id().await.unwrap(), topic_id, incarnation: 0 };
    assert_eq!(settings.topic_seed, topic_seed(TOPIC));

    let mut keys = Vec::new();
    for round in 0..rounds {
        for app in 0..APPS {
            keys.push(write(store.as_ref(), &settings, &identity, round, app).await);
        }
    }
    let mapping = Mapping { tasks_max: 1, origin: None };
    layout::create_mapping(store.as_ref(), &environment, "app-logs", TOPIC, 1, &mapping).await.unwrap();
    let log = layout::log_path("app-logs", TOPIC, 1, 0);
    let door = Arc::new(StoreLog::new(Arc::clone(&store), &log));
    let (mut journal, _) = Journal::take_over(door, environment.clone(), "w").await.unwrap();
    let lows = |low: i64| (0..PARTITIONS).map(|partition| (partition, low)).collect::<BTreeMap<_, _>>();
    let (record, time_ms, skipped) = (settings.record.clone(), 1, Vec::new());
    let start = Entry::Start { settings: record, identity, lows: lows(0), skipped, time_ms };
    journal.append(start).await.unwrap();
    let end = rounds * APPS * RECORDS;
    journal.append(Entry::Commit(Commit { lows: lows(end), time_ms, ..Commit::default() })).await.unwrap();

    let verifier = || Verifier {
        place: Place::of_store(Arc::clone(&store), &environment),
        logs: Logs { connector: "app-logs".to_owned(), state: Arc::clone(&store), environment: environment.clone() },
        witness: None,
        environment: environment.clone(),
        progress: Arc::new(Silent),
    };
    peak_mib();
    let started = Instant::now();
    let report = verifier().run(&Options::default()).await.unwrap();
    let whole = peak_mib();
    assert!(report.proven, "{}", report.as_text());
    println!(
        "{}verify: {} objects in {:?}, peak {whole} MiB",
        report.as_text(),
        report.cost.objects,
        started.elapsed()
    );
    assert_eq!(report.cost.objects, objects.unsigned_abs());
    assert!(report.cost.requests <= 2 * report.cost.objects + 10, "{:?}", report.cost);
    // 32 small indexes at a time: what grows with their number would show at 100,000.
    assert!(whole < 150, "{whole} MiB");

    let gone = &keys[keys.len() / 2];
    std::fs::rename(dir.path().join(gone), dir.path().join("gone")).unwrap();
    std::fs::rename(dir.path().join("gone"), dir.path().with_extension("gone")).unwrap();
    let started = Instant::now();
    let report = verifier().run(&Options::default()).await.unwrap();
    let gap = peak_mib();
    assert!(!report.proven);
    let missing: u64 = report.topics[0].partitions.values().map(|partition| partition.missing).sum();
    assert_eq!(missing, u64::from(PARTITIONS.unsigned_abs()) * RECORDS.unsigned_abs());
    println!("one deleted: {} requests in {:?}, peak {gap} MiB", report.cost.requests, started.elapsed());
    assert!(gap < 250, "{gap} MiB");
    std::fs::rename(dir.path().with_extension("gone"), dir.path().join(gone)).unwrap();

    std::fs::remove_dir_all(dir.path().join("_sluice")).unwrap();
    let place = Place::of_store(Arc::clone(&store), &environment);
    let recoverer = Recoverer {
        connector,
        place: place.clone(),
        store: Arc::clone(&store),
        state: None,
        kafka: Arc::new(kafka),
        environment: environment.clone(),
        by: "operator".to_owned(),
        progress: Arc::new(Silent),
    };
    let started = Instant::now();
    let report = recoverer.run(true).await.unwrap();
    let recovered = peak_mib();
    let found: Vec<i64> = report.topics[0].tasks[0].partitions.values().map(|partition| partition.low).collect();
    assert_eq!(found, vec![end; PARTITIONS as usize]);
    let requests = sluice::reading::counted::Counters::get(&place.counters.gets);
    println!("recover: {requests} requests in {:?}, peak {recovered} MiB", started.elapsed());
    assert!(recovered < 250, "{recovered} MiB");
    assert!(verifier().run(&Options::default()).await.unwrap().proven);
}
