//! Proving archives that tasks wrote, and finding what somebody did to them.

use super::*;
use sluice::log::journal::Journal;
use sluice::pipeline::source::Isolation;
use sluice::reading::place::Place;
use sluice::task::reset::{Subject, Wish, execute};
use sluice::verify::report::{Cause, Finding, Report};
use sluice::verify::{Logs, Options, Silent, Verifier, Witness};
use sluice::worker::layout::{self, Mapping};

pub(super) fn verifier(store: &Arc<MemoryStore>, kafka: Option<&MemoryKafka>) -> Verifier {
    let environment = Environment::system();
    let text = format!("topics: [{TOPIC}]\napp_id: {{ from: json, pointer: /app_id }}\nsink: {{ url: file:///a }}\n");
    let (connector, _) = load_connector_str(Path::new("app-logs.yaml"), &text, &BTreeMap::new()).unwrap();
    let store = Arc::clone(store) as Arc<dyn Store>;
    Verifier {
        place: Place::of_store(Arc::clone(&store), &environment),
        logs: Logs { connector: "app-logs".to_owned(), state: store, environment: environment.clone() },
        witness: kafka.map(|kafka| Witness { kafka: Arc::new(kafka.clone()), connector: Arc::new(connector) }),
        environment,
        progress: Arc::new(Silent),
    }
}

/// The worker's part that a task does not do.
pub(super) async fn share(store: &Arc<MemoryStore>) {
    let mapping = Mapping { tasks_max: 1, origin: None };
    layout::create_mapping(store.as_ref(), &Environment::system(), "app-logs", TOPIC, 1, &mapping).await.unwrap();
}

async fn verify(store: &Arc<MemoryStore>, kafka: Option<&MemoryKafka>, options: Options) -> Report {
    share(store).await;
    verifier(store, kafka).run(&options).await.unwrap()
}

async fn assert_proven(store: &Arc<MemoryStore>, kafka: Option<&MemoryKafka>, records: u64) -> Report {
    let report = verify(store, kafka, Options::default()).await;
    assert!(report.proven, "{}", report.as_text());
    let found: u64 = report.topics[0].partitions.values().map(|partition| partition.records).sum();
    assert_eq!(found, records, "{}", report.as_text());
    report
}

async fn archived(settings: &str) -> (MemoryKafka, Arc<MemoryStore>) {
    let (kafka, store) = (kafka(3, &some_records()), Arc::new(MemoryStore::new()));
    world(&kafka, &store, settings, "w").to_the_end().await.unwrap();
    (kafka, store)
}

async fn bytes(store: &MemoryStore, key: &str) -> Vec<u8> {
    store.get(key, ByteRange::All, None).await.unwrap().unwrap().bytes.to_vec()
}

async fn put(store: &MemoryStore, key: &str, bytes: Vec<u8>) {
    store.delete(key).await.unwrap();
    store.create(key, &Body::Bytes(bytes.into()), None).await.unwrap();
}

/// The key of an object of `app3`: its records lie among those of all others.
async fn victim(store: &MemoryStore) -> String {
    objects(store).await.into_keys().find(|key| key.starts_with("app3/")).unwrap()
}

fn kinds(report: &Report) -> Vec<&'static str> {
    let kind = |finding: &Finding| match finding {
        Finding::Damaged { .. } => "damaged",
        Finding::Foreign { .. } => "foreign",
        Finding::Misnamed { .. } => "misnamed",
        Finding::Undecided { .. } => "undecided",
        Finding::Missing { .. } => "missing",
        Finding::Gap { .. } => "gap",
        Finding::Overlap { .. } => "overlap",
        Finding::Unsettled { .. } => "unsettled",
        Finding::Differs { .. } => "differs",
    };
    let mut kinds: Vec<_> = report.findings.iter().map(kind).collect();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn an_archive_is_proven_by_its_indexes() {
    for settings in ["", "format: json\ncompression: { codec: zstd }\n", "compression: { codec: gzip }\n"] {
        let (_, store) = archived(settings).await;
        let report = assert_proven(&store, None, 200).await;
        assert_eq!((report.cost.objects, report.findings.len()), (7, 0));
        let text = report.as_text();
        assert!(
            text.contains("proven: each of 200 offsets") && text.ends_with("connector app-logs: proven\n"),
            "{text}"
        );
    }
    // Plain files have their index beside them.
    let (_, store) = archived("compression: { codec: none }\n").await;
    assert_proven(&store, None, 200).await;
}

#[tokio::test]
async fn what_lies_above_low_is_not_complete_yet() {
    let (kafka, store, records) = half_archived(SMALL).await;
    let report = assert_proven(&store, None, 0).await;
    assert!(report.topics[0].objects_above_low > 0);
    // With low in the middle of frames.
    kafka.delete_records(TOPIC, 0, 500);
    let subject = subject(&kafka, &store);
    execute(&subject, &Wish::AcceptLoss).await.unwrap();
    world(&kafka, &store, SMALL, "w").to_the_end().await.unwrap();
    let report = assert_proven(&store, Some(&kafka), records.len() as u64 - 500).await;
    assert_eq!(report.topics[0].partitions[&0].lost, 500);
}

fn subject(kafka: &MemoryKafka, store: &Arc<MemoryStore>) -> Subject {
    Subject {
        topic: TOPIC.to_owned(),
        isolation: Isolation::ReadCommitted,
        by: "operator".to_owned(),
        kafka: Arc::new(kafka.clone()),
        store: Arc::clone(store) as Arc<dyn Store>,
        log: Arc::new(log(store)),
        environment: Environment::system(),
    }
}

#[tokio::test]
async fn offsets_that_were_set_back_are_proven_once_more() {
    let (kafka, store) = archived("").await;
    let before = objects(&store).await.len();
    execute(&subject(&kafka, &store), &Wish::Set { partition: 1, offset: 20 }).await.unwrap();
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    assert!(objects(&store).await.len() > before);
    let report = assert_proven(&store, None, 200).await;
    assert_eq!(report.topics[0].partitions[&1].start, 0);
    // An object of either incarnation is needed.
    for incarnation in ["applogs+", "applogs~1+"] {
        let key = objects(&store).await.into_keys().find(|key| key.contains(incarnation)).unwrap();
        let kept = bytes(&store, &key).await;
        store.delete(&key).await.unwrap();
        let report = verify(&store, None, Options::default()).await;
        assert_eq!((report.proven, kinds(&report)), (false, vec!["missing", "gap"]), "{}", report.as_text());
        put(&store, &key, kept).await;
    }
}

#[tokio::test]
async fn what_was_left_out_is_no_gap() {
    let mut records = some_records();
    records.insert(50, (2, MemoryRecord::value("not JSON")));
    let (kafka, store) = (kafka(3, &records), Arc::new(MemoryStore::new()));
    kafka.append_gap(TOPIC, 1, 5);
    kafka.append(TOPIC, 1, [record("app1", "behind the gap")]).unwrap();
    world(&kafka, &store, "on_error: skip\n", "w").to_the_end().await.unwrap();
    let report = assert_proven(&store, None, 201).await;
    let skipped = [1, 2].map(|partition| report.topics[0].partitions[&partition].skipped);
    assert_eq!(skipped, [5, 1]);
}

#[tokio::test]
async fn a_deleted_object_is_a_gap_with_its_name() {
    let (kafka, store) = archived("").await;
    let key = victim(&store).await;
    let lines = objects(&store).await[&key].len() as u64;
    store.delete(&key).await.unwrap();
    for window_offsets in [None, Some(7), Some(1)] {
        let options = Options { window_offsets, ..Options::default() };
        let report = verify(&store, Some(&kafka), options).await;
        assert!(!report.proven);
        assert_eq!(kinds(&report), ["missing", "gap"], "{}", report.as_text());
        assert!(report.findings.contains(&Finding::Missing {
            key: key.clone(),
            topic: TOPIC.to_owned(),
            app: "app3".to_owned()
        }));
        let gaps = report.findings.iter().filter_map(|finding| match finding {
            Finding::Gap { offsets, cause: Cause::Lost, apps, .. } => Some((offsets, apps)),
            _ => None,
        });
        let mut total = 0;
        for (offsets, apps) in gaps {
            total += offsets;
            assert_eq!(apps[..], ["app3"]);
        }
        assert_eq!(total, lines, "{}", report.as_text());
        assert!(report.as_text().contains("NOT proven"));
    }
    // Kafka has nothing of it any more, or can't be asked.
    kafka.delete_records(TOPIC, 0, 1000);
    let causes = |report: &Report| -> Vec<Cause> {
        let cause = |finding: &Finding| if let Finding::Gap { cause, .. } = finding { Some(*cause) } else { None };
        report.findings.iter().filter_map(cause).collect()
    };
    let expired = verify(&store, Some(&kafka), Options::default()).await;
    assert_eq!(causes(&expired), [Cause::Expired, Cause::Lost, Cause::Lost], "{}", expired.as_text());
    let unasked = verify(&store, None, Options::default()).await;
    assert_eq!(causes(&unasked), [Cause::Unexplained; 3]);
}

#[tokio::test]
async fn holes_that_no_index_tells_are_explained_by_kafka() {
    let (kafka, store) = archived("").await;
    let key = victim(&store).await;
    store.delete(&key).await.unwrap();
    // As an archive of a version that did not write holes down: nothing is there, and Kafka has nothing either.
    for partition in 0..3 {
        let gone: Vec<i64> = (0..67).filter(|offset| (offset * 3 + i64::from(partition)) % 7 == 3).collect();
        kafka.compact(TOPIC, partition, &gone);
    }
    let report = assert_proven(&store, Some(&kafka), 200 - 29).await;
    let holes: u64 = report.topics[0].partitions.values().map(|partition| partition.holes).sum();
    assert_eq!(holes, 29);
    assert!(!verify(&store, None, Options::default()).await.proven);
}

#[tokio::test]
async fn a_copy_is_found_with_what_it_doubles() {
    let (_, store) = archived("").await;
    let key = victim(&store).await;
    let copy = key.replace("app3/", "app4/");
    let original = bytes(&store, &key).await;
    put(&store, &copy, original).await;
    let lines = objects(&store).await[&key].len() as u64;
    for window_offsets in [None, Some(5)] {
        let report = verify(&store, None, Options { window_offsets, ..Options::default() }).await;
        assert_eq!(kinds(&report), ["misnamed", "overlap"], "{}", report.as_text());
        assert!(matches!(&report.findings[0], Finding::Misnamed { key, .. } if *key == copy));
        let mut total = 0;
        for finding in &report.findings[1..] {
            let Finding::Overlap { keys, offsets, .. } = finding else { panic!("{finding}") };
            assert_eq!(keys[..], [key.clone(), copy.clone()]);
            total += offsets;
        }
        assert_eq!(total, lines);
    }
}

#[tokio::test]
async fn a_renamed_object_is_found() {
    let (_, store) = archived("").await;
    let key = victim(&store).await;
    // The time in the key is a second later: nothing but the intent tells.
    let renamed = key.replace("/031205_", "/031206_");
    assert_ne!(key, renamed);
    let original = bytes(&store, &key).await;
    store.delete(&key).await.unwrap();
    put(&store, &renamed, original).await;
    let report = verify(&store, None, Options::default()).await;
    assert_eq!((report.proven, kinds(&report)), (false, vec!["misnamed"]), "{}", report.as_text());
    assert!(matches!(&report.findings[0], Finding::Misnamed { key, .. } if *key == renamed));
}

#[tokio::test]
async fn a_truncated_object_and_every_flipped_byte_of_it_is_found() {
    for settings in ["", "format: json\ncompression: { codec: zstd }\n", "compression: { codec: gzip }\n"] {
        let (kafka, store) = archived(settings).await;
        let key = victim(&store).await;
        let original = bytes(&store, &key).await;
        put(&store, &key, original[..original.len() - 40].to_vec()).await;
        let report = verify(&store, Some(&kafka), Options::default()).await;
        assert_eq!(kinds(&report), ["damaged", "gap"], "{}", report.as_text());
        assert!(matches!(&report.findings[0], Finding::Damaged { key: found, .. } if *found == key));

        let codec = codec_of_key(&key);
        let Ok(IndexRead::Index(index)) = read_index(codec, original.len() as u64, &original) else {
            panic!("no index")
        };
        let data = usize::try_from(index.data_len).unwrap();
        let (mut shallow, mut deep) = (0, 0);
        for at in (0..original.len()).step_by(97).chain(original.len() - 56..original.len()) {
            let mut changed = original.clone();
            changed[at] ^= 0x10;
            put(&store, &key, changed).await;
            let report = verify(&store, None, Options::default()).await;
            shallow += usize::from(!report.proven);
            let report = verify(&store, None, Options { deep: true, ..Options::default() }).await;
            assert!(!report.proven, "{settings:?}: byte {at} of {}, data ends at {data}", original.len());
            let named = |finding: &Finding| matches!(finding, Finding::Damaged { key: found, .. } if *found == key);
            assert!(report.findings.iter().any(named), "{}", report.as_text());
            deep += 1;
        }
        assert!(shallow >= 40 && shallow < deep, "{shallow} of {deep}");
        put(&store, &key, original).await;
        assert!(verify(&store, None, Options { deep: true, ..Options::default() }).await.proven);
    }
}

#[tokio::test]
async fn what_does_not_belong_is_foreign() {
    let (_, store) = archived("").await;
    put(&store, "app3/notes.txt", b"not ours".to_vec()).await;
    let report = verify(&store, None, Options::default()).await;
    assert_eq!((report.proven, kinds(&report)), (false, vec!["foreign"]), "{}", report.as_text());
    store.delete("app3/notes.txt").await.unwrap();

    // Of another archive: the same records, above what the log knows.
    let other_kafka = kafka(
        3,
        &some_records().into_iter().chain((0..9).map(|n| (0, record("app9", &n.to_string())))).collect::<Vec<_>>(),
    );
    let other = Arc::new(MemoryStore::new());
    world(&other_kafka, &other, "", "w").to_the_end().await.unwrap();
    let key = objects(&other).await.into_keys().find(|key| key.starts_with("app9/")).unwrap();
    put(&store, &key, bytes(&other, &key).await).await;
    let report = verify(&store, None, Options::default()).await;
    assert_eq!((report.proven, kinds(&report)), (false, vec!["undecided"]), "{}", report.as_text());

    // Of a topic that was made again: its id is another.
    let recreated = MemoryKafka::new(10);
    recreated.create_topic("before", 1);
    recreated.create_topic(TOPIC, 1);
    recreated.append(TOPIC, 0, [record("app9", "x")]).unwrap();
    let other = Arc::new(MemoryStore::new());
    world(&recreated, &other, "", "w").to_the_end().await.unwrap();
    let key_of_other = objects(&other).await.into_keys().next().unwrap();
    store.delete(&key).await.unwrap();
    put(&store, &key_of_other, bytes(&other, &key_of_other).await).await;
    let report = verify(&store, None, Options::default()).await;
    assert_eq!(kinds(&report), ["foreign"], "{}", report.as_text());
    assert!(report.as_text().contains("it is of topic id"));
}

#[tokio::test]
async fn the_archive_is_compared_with_kafka() {
    for settings in ["", "format: json\n"] {
        let (kafka_1, store) = archived(settings).await;
        let options = Options { against_kafka: true, ..Options::default() };
        let report = verify(&store, Some(&kafka_1), options.clone()).await;
        assert!(
            report.proven && report.as_text().contains("200 records were compared with Kafka"),
            "{}",
            report.as_text()
        );
        kafka_1.delete_records(TOPIC, 0, 10);
        let report = verify(&store, Some(&kafka_1), options.clone()).await;
        assert!(report.proven && report.as_text().contains("190 records were compared"), "{}", report.as_text());

        let mut others = some_records();
        others[100] = (1, record("app2", "another"));
        let report = verify(&store, Some(&kafka(3, &others)), options).await;
        let (partition, offset) = (1, 33);
        let [Finding::Differs { partition: p, offset: o, why, .. }] = &report.findings[..] else {
            panic!("{}", report.as_text())
        };
        assert_eq!((*p, *o), (partition, offset));
        assert!(why.contains("app2/"), "{why}");
    }
}

#[tokio::test]
async fn an_interrupted_verify_goes_on_where_it_was() {
    let (kafka, store) = archived("").await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kept.json");
    // Kafka can't be asked: the first pass is over by then, and kept.
    let cut = Options { resume: Some(path.clone()), against_kafka: true, ..Options::default() };
    share(&store).await;
    let interrupted = async || verifier(&store, None).run(&cut).await.unwrap_err();
    interrupted().await;
    let keys: Vec<String> = objects(&store).await.into_keys().collect();
    let kept = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&path).unwrap()).unwrap();
    let whole = kept();
    assert_eq!(whole["counting"]["last_key"], keys[6].as_str());
    // As if it had come to the third object.
    let mut rest = Vec::new();
    for key in &keys[3..] {
        rest.push((key, bytes(&store, key).await));
        store.delete(key).await.unwrap();
    }
    std::fs::remove_file(&path).unwrap();
    interrupted().await;
    assert_eq!(kept()["counting"]["last_key"], keys[2].as_str());
    for (key, bytes) in rest {
        put(&store, key, bytes).await;
    }
    // What was counted is not read again, not even that it is gone.
    store.delete(&keys[0]).await.unwrap();
    let verifier = verifier(&store, Some(&kafka));
    let options = Options { resume: Some(path.clone()), ..Options::default() };
    let report = verifier.run(&options).await.unwrap();
    assert!(report.proven && report.cost.requests < 2 * 4 + 1, "{}", report.as_text());
    assert!(!path.exists(), "the next one begins anew");
    assert!(!verifier.run(&options).await.unwrap().proven);
    std::fs::write(&path, b"{}").unwrap();
    assert!(verifier.run(&options).await.is_err());
}

#[tokio::test]
async fn a_log_that_does_not_tell_its_begin_is_believed_with_its_objects() {
    let (_, store) = archived("").await;
    // As a version wrote it that kept no begins.
    let door = Arc::new(log(&store));
    let (mut journal, state) = Journal::take_over(door, Environment::system(), "w").await.unwrap();
    let state = sluice::ledger::State { begins: BTreeMap::new(), ..state.pruned() };
    journal.append(sluice::ledger::Entry::Snapshot { state: Box::new(state) }).await.unwrap();
    let report = assert_proven(&store, None, 200).await;
    assert!(report.topics[0].partitions.values().all(|partition| partition.start == 0));
    // The first objects tell where low was: what they held is missed.
    store.delete(&victim(&store).await).await.unwrap();
    assert!(!verify(&store, None, Options::default()).await.proven);
}
