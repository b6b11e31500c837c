//! Records that can't be split: none of them blocks a partition, unless `on_error: fail` says so.

use std::collections::BTreeSet;

use super::*;
use sluice::archive::index::{SkipReason, Skipped};
use sluice::pipeline::produce::ProduceError;

const LETTERS: &str = "letters";
const TO_TOPIC: &str = "dead_letter: { topic: letters }\n";

fn json(value: impl Into<Vec<u8>>) -> MemoryRecord {
    let header = (b"trace".to_vec(), Some(b"7".to_vec()));
    MemoryRecord {
        timestamp_ms: 1_795_317_125_000,
        key: Some(b"k".to_vec()),
        headers: vec![header],
        ..MemoryRecord::value(value)
    }
}

fn poisons() -> Vec<MemoryRecord> {
    let long_id = format!("{{\"app_id\":\"{}\"}}", "x".repeat(64 * 1024 + 1));
    vec![
        json("not JSON"),
        json(*b"{\"app_id\":\"\xff\xfe\"}"),
        json(*b"\xc3\x28"),
        json("{\"app_id\":{\"a\":1}}"),
        json("{\"app_id\":\"cut"),
        json(long_id),
        json("{\"other\":1}"),
    ]
}

/// Each poison with a good record before and behind it.
fn poisoned() -> (MemoryKafka, Vec<(i32, MemoryRecord)>) {
    let kafka = kafka(1, &[]);
    let mut good = Vec::new();
    for (n, poison) in poisons().into_iter().enumerate() {
        good.push((0, record("a", &format!("before {n}"))));
        kafka.append(TOPIC, 0, [good.last().unwrap().1.clone(), poison]).unwrap();
    }
    good.push((0, record("a", "last")));
    kafka.append(TOPIC, 0, [good.last().unwrap().1.clone()]).unwrap();
    kafka.create_topic(LETTERS, 1);
    (kafka, good)
}

async fn dead_letters(store: &MemoryStore) -> BTreeMap<String, Vec<String>> {
    let mut found = objects(store).await;
    found.retain(|key, _| key.starts_with("_dead_letter/"));
    found
}

fn poisoned_world(kafka: &MemoryKafka, store: &Arc<MemoryStore>, rest: &str) -> World {
    world_of(kafka, store, &format!("app_id: {{ from: json, pointer: /app_id, missing: dead_letter }}\n{rest}"), "w")
}

#[tokio::test]
async fn no_poison_blocks_what_comes_behind_it() {
    let (kafka, good) = poisoned();
    let store = Arc::new(MemoryStore::new());
    let error = poisoned_world(&kafka, &store, "on_error: fail\n").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::Core(CoreError::BadRecord { offset: 1, .. })), "{error}");

    let left_out: Vec<Skipped> = (0..poisons().len() as i64)
        .map(|n| n * 2 + 1)
        .map(|at| Skipped {
            partition: 0,
            first: at,
            last: at,
            reason: SkipReason::Rule,
            incarnation: 0,
            scattered: None,
        })
        .collect();
    for (rest, letters) in [("on_error: skip\n", 0), (TO_TOPIC, poisons().len())] {
        let store = Arc::new(MemoryStore::new());
        let world = poisoned_world(&kafka, &store, rest);
        assert_eq!(world.to_the_end().await.unwrap(), End::CaughtUp);
        assert_exact(&store, &good).await;
        assert_eq!(world.state().await.skips.as_slice(), left_out, "{rest}");
        assert_eq!(kafka.records(LETTERS, 0).len(), letters);
    }

    let store = Arc::new(MemoryStore::new());
    assert_eq!(poisoned_world(&kafka, &store, "").to_the_end().await.unwrap(), End::CaughtUp);
    let objects = dead_letters(&store).await;
    assert_eq!(objects.len(), 1, "a lane like any other");
    assert_eq!(kafka.records(LETTERS, 0).len(), poisons().len(), "nothing more");
}

#[tokio::test]
async fn a_dead_letter_tells_where_it_comes_from() {
    let (kafka, _) = poisoned();
    let store = Arc::new(MemoryStore::new());
    // Once it is not known whether they were written: then they are written again.
    kafka.refuse_once(ProduceError::Unreachable { topic: LETTERS.to_owned(), message: "away".to_owned() });
    poisoned_world(&kafka, &store, TO_TOPIC).to_the_end().await.unwrap();
    let letters = kafka.records(LETTERS, 0);
    assert_eq!(letters.len(), poisons().len());
    let (_, letter) = letters.iter().find(|(_, letter)| letter.value.as_deref() == Some(b"not JSON")).unwrap();
    let headers: Vec<(String, String)> = letter
        .headers
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().unwrap()))
        .map(|(key, value)| (String::from_utf8(key).unwrap(), String::from_utf8(value).unwrap()))
        .collect();
    let header = |name: &str, value: &str| (format!("__connect.errors.{name}"), value.to_owned());
    assert_eq!(
        headers,
        [
            ("trace".to_owned(), "7".to_owned()),
            header("topic", TOPIC),
            header("partition", "0"),
            header("offset", "1"),
            header("connector.name", "app-logs"),
            header("task.id", "0"),
            header("stage", "TRANSFORMATION"),
            header("exception.class.name", "sluice.BadRecord"),
            header("exception.message", "the value is not JSON"),
        ]
    );
    assert_eq!((letter.key.as_deref(), letter.timestamp_ms), (Some(&b"k"[..]), 1_795_317_125_000));
    // Nothing is left to do.
    poisoned_world(&kafka, &store, TO_TOPIC).to_the_end().await.unwrap();
    assert_eq!(kafka.records(LETTERS, 0).len(), poisons().len());
}

#[tokio::test]
async fn low_waits_for_the_topic_of_dead_letters() {
    let (kafka, good) = poisoned();
    let store = Arc::new(MemoryStore::new());
    for _ in 0..1000 {
        kafka.refuse_once(ProduceError::Unreachable { topic: LETTERS.to_owned(), message: "away".to_owned() });
    }
    let settings = format!("{TO_TOPIC}rotate: {{ max_interval: 1s }}\n");
    let world = poisoned_world(&kafka, &store, &settings);
    let (stop, running) = world.start();
    world.until("the lane is done", |state| !state.marks.is_empty() && state.intents.is_empty()).await;
    assert_eq!((world.state().await.low(0), kafka.records(LETTERS, 0)), (Some(1), Vec::new()));
    stop.cancel();
    assert_eq!(running.await.unwrap().unwrap(), End::Stopped);
    // The next owner writes them.
    kafka.accept_writes();
    poisoned_world(&kafka, &store, TO_TOPIC).to_the_end().await.unwrap();
    assert_eq!(kafka.records(LETTERS, 0).len(), poisons().len());
    assert_exact(&store, &good).await;
}

#[tokio::test]
async fn what_a_topic_would_not_take_goes_to_the_folder() {
    let kafka = kafka(1, &[]);
    kafka.create_topic(LETTERS, 1);
    kafka.append(TOPIC, 0, [json(vec![b'x'; 950_000]), json("small")]).unwrap();
    let store = Arc::new(MemoryStore::new());
    poisoned_world(&kafka, &store, TO_TOPIC).to_the_end().await.unwrap();
    let objects = dead_letters(&store).await;
    assert_eq!(objects.into_values().flatten().map(|line| line.len()).collect::<Vec<_>>(), [950_000]);
    assert_eq!(kafka.records(LETTERS, 0).len(), 1);
}

#[tokio::test]
async fn a_topic_that_takes_no_dead_letters_stops_the_task_and_loses_nothing() {
    let (kafka, _) = poisoned();
    let store = Arc::new(MemoryStore::new());
    let error = poisoned_world(&kafka, &store, "dead_letter: { topic: none }\n").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::DeadLetters(ProduceError::NoTopic { .. })), "{error}");
    assert!(objects(&store).await.is_empty() && store.list("", Depth::All, None, 10).await.unwrap().objects.is_empty());
    kafka.refuse_once(ProduceError::Refused { topic: LETTERS.to_owned(), message: "no".to_owned() });
    let world = poisoned_world(&kafka, &store, TO_TOPIC);
    let error = world.to_the_end().await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Operator);
    assert!(error.to_string().contains("topic letters refuses records: no"), "{error}");
    assert!(world.state().await.low(0).unwrap() <= 1);
    world.to_the_end().await.unwrap();
    // Those of another block may have been written before: their origin tells.
    let offset =
        |letter: &MemoryRecord| letter.headers.iter().find(|(key, _)| key == b"__connect.errors.offset").cloned();
    let origins: BTreeSet<_> = kafka.records(LETTERS, 0).iter().map(|(_, letter)| offset(letter)).collect();
    assert_eq!(origins.len(), poisons().len());
}
