//! `sluice restore` as a process on a real Kafka: what comes back is what was archived, also through kills.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "a kill at a random moment is a wait on nothing")]

mod support;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rskafka::client::ClientBuilder;
use sluice::config::KafkaConfig;
use sluice::kafka;
use sluice::kafka::stretch::{self, Stretch};
use sluice::pipeline::produce::{HeaderList, Outgoing};
use sluice::pipeline::source::{At, Isolation, Kafka};
use support::kafka::unique;
use support::process::{Setup, Sink, service};

const PARTITIONS: i32 = 3;
const APPS: [&str; 2] = ["pay", "ship"];
const RECORDS: i64 = 6000;
/// 2026-11-22 03:12 UTC.
const T0: i64 = 1_795_317_125_000;

type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A record by its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
}

async fn create(address: &str, topic: &str, partitions: i32) {
    let client = ClientBuilder::new(vec![address.to_owned()]).build().await.unwrap();
    client.controller_client().unwrap().create_topic(topic, partitions, 1, 30_000).await.unwrap();
}

/// Every kind of key, value and header.
fn outgoing(number: i64) -> Outgoing {
    let app = APPS[usize::try_from(number % 2).unwrap()];
    let text = if number % 7 == 0 { "two\\nlines \u{1f9ea}" } else { "one" };
    let mut headers = HeaderList::default();
    if number % 3 == 0 {
        headers.push(b"trace", Some(&[0xff, 0, 1]));
        headers.push(b"none", None);
    }
    Outgoing {
        partition: Some(i32::try_from(number % i64::from(PARTITIONS)).unwrap()),
        key: (number % 5 > 0).then(|| format!("k{number}").into_bytes()),
        value: Some(format!("{{\"app_id\": \"{app}\",  \"n\":{number}, \"text\":\"{text}\"}}").into_bytes()),
        headers,
        timestamp_ms: T0 + number,
    }
}

/// All records of a topic: partition, offset, record.
async fn dump(kafka: &dyn Kafka, topic: &str) -> Vec<(i32, i64, Seen)> {
    let mut found = Vec::new();
    for partition in kafka.topic(topic).await.unwrap().unwrap().partitions {
        let end = kafka.offset(topic, partition, At::Latest, Isolation::ReadCommitted).await.unwrap();
        let isolation = Isolation::ReadCommitted;
        let stretch = Stretch { topic, topic_id: None, isolation, partition, first: 0, end };
        stretch::read(kafka, stretch, |record| {
            let headers = record.headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            let seen = Seen {
                timestamp_ms: record.timestamp_ms,
                key: owned(record.key),
                value: owned(record.value),
                headers: headers.collect(),
            };
            found.push((partition, record.offset, seen));
        })
        .await
        .unwrap();
    }
    found
}

/// Origin and record, as it was; each origin once, in order.
fn originals(target: Vec<(i32, i64, Seen)>) -> BTreeMap<(i32, i64), Seen> {
    let mut found = BTreeMap::new();
    let mut last = BTreeMap::new();
    for (partition, _, mut seen) in target {
        let origin = seen.headers.split_off(seen.headers.len() - 4);
        let text = |at: usize| String::from_utf8(origin[at].1.clone().unwrap()).unwrap();
        let (from, offset): (i32, i64) = (text(1).parse().unwrap(), text(2).parse().unwrap());
        assert_eq!(from, partition);
        let app = seen.value.clone().unwrap().windows(5).any(|text| text == b"\"pay\"");
        let before: Option<i64> = last.insert((from, app), offset);
        assert!(before.is_none_or(|before| before < offset), "partition {from} offset {offset} after {before:?}");
        assert!(found.insert((from, offset), seen).is_none(), "partition {from} offset {offset} twice");
    }
    found
}

fn start(setup: &Setup, target: &str, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["restore", "app-logs", "--app", "pay", "--app", "ship", "--to-topic", target]).args(more);
    command.arg("--config").arg(setup.path("worker.yaml")).arg("--connectors").arg(setup.path("connectors"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn written(kafka: &dyn Kafka, topic: &str) -> i64 {
    let mut all = 0;
    for partition in 0..PARTITIONS {
        all += kafka.offset(topic, partition, At::Latest, Isolation::ReadCommitted).await.unwrap();
    }
    all
}

/// Waits until the target holds so many records.
async fn until_written(kafka: &dyn Kafka, topic: &str, records: i64) {
    let wait = async {
        while written(kafka, topic).await < records {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_is_what_was_archived_through_kills_and_a_signal() {
    let Some(address) = service("SLUICE_TEST_KAFKA") else { return };
    let (topic, target) = (unique("restored"), unique("again"));
    create(&address, &topic, PARTITIONS).await;
    create(&address, &target, PARTITIONS).await;
    let kafka = kafka::connect(&KafkaConfig::plaintext(&address)).await.unwrap();
    let records: Vec<Outgoing> = (0..RECORDS).map(outgoing).collect();
    assert!(kafka.produce(&topic, &records).await.iter().all(Result::is_ok));
    let settings = "format: json\ncompression: { codec: zstd, frame_bytes: 64KiB }\nrotate: { max_bytes: 64KiB }\n";
    let setup = Setup::new(&address, &topic, &Sink::File, settings);
    setup.archive_to_the_end();

    // Killed in the middle, twice, at the full rate and at a slow one; then stopped by a signal.
    let mut killed = start(&setup, &target, &["--rate", "4000"]);
    until_written(kafka.as_ref(), &target, 500).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let before = written(kafka.as_ref(), &target).await;
    assert!(before < RECORDS, "it was done before it was killed");
    let mut killed = start(&setup, &target, &["--rate", "2000"]);
    until_written(kafka.as_ref(), &target, before + 400).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let before = written(kafka.as_ref(), &target).await;
    let stopped = start(&setup, &target, &["--rate", "2000"]);
    until_written(kafka.as_ref(), &target, before + 400).await;
    Command::new("kill").args(["-INT", &stopped.id().to_string()]).status().unwrap();
    let (status, out, err) = end(stopped);
    assert!(status == Some(130) && out.contains("The same command goes on"), "{status:?} {out} {err}");
    let (status, out, err) = end(start(&setup, &target, &[]));
    assert!(status == Some(0) && out.contains("all of them"), "{status:?} {out} {err}");

    let mut expected = BTreeMap::new();
    for (partition, offset, seen) in dump(kafka.as_ref(), &topic).await {
        expected.insert((partition, offset), seen);
    }
    assert_eq!(expected.len() as i64, RECORDS);
    let found = originals(dump(kafka.as_ref(), &target).await);
    assert_eq!(found.len(), expected.len());
    for (origin, seen) in &expected {
        assert_eq!(found.get(origin), Some(seen), "{origin:?}");
    }
    let (status, out, _) = end(start(&setup, &target, &["--json"]));
    let outcome: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &outcome["end"]), (Some(0), &"finished_before".into()));
    assert_eq!(outcome["records_in_all"], RECORDS);
}
