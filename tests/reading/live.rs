//! `--live`: what is in no file yet comes from Kafka, each record once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sluice::archive::codec::Codec;
use sluice::archive::format::{Format, parse_json_line};
use sluice::clock::Environment;
use sluice::config::load_connector_str;
use sluice::kafka::memory::{MemoryKafka, MemoryRecord};
use sluice::ledger::Identity;
use sluice::reading::cat::Cat;
use sluice::reading::live::{Live, Open};
use sluice::reading::place::Place;
use sluice::reading::reader::Reader;
use sluice::reading::report::Report;
use sluice::reading::survey::Question;
use sluice::reading::times::Times;
use sluice::reading::units::By;
use sluice::store::Store;
use sluice::store::memory::MemoryStore;

use crate::support::archive::{Made, Writer};
use crate::support::kafka::unique;
use crate::support::process::{Setup, Sink, produce, service};

/// 2026-11-22 00:00 UTC.
const DAY: i64 = 1_795_305_600_000;
const DAY_MS: i64 = 86_400_000;

/// Two apps in turn; each tenth record is a day late.
fn made(partition: i32, offset: i64) -> Made {
    let app = if offset % 3 == 0 { "b" } else { "a" };
    let late = if offset % 10 == 7 { DAY_MS } else { 0 };
    let value = format!("{{\"app_id\":\"{app}\",\"n\":{offset}}}");
    Made::line(partition, offset, DAY + DAY_MS + offset * 1000 - late, &value)
}

#[tokio::test]
async fn files_and_kafka_together_have_each_record_once() {
    let kafka = MemoryKafka::new(7);
    kafka.create_topic("applogs", 2);
    for partition in 0..2 {
        let records = (0..100).map(|offset| {
            let made = made(partition, offset);
            MemoryRecord { timestamp_ms: made.timestamp_ms, value: made.value, ..MemoryRecord::default() }
        });
        kafka.append("applogs", partition, records);
    }
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut writer = Writer::new(Arc::clone(&store), Format::Raw, Codec::Lz4);
    // The lane of today has files of 0 to 39 and 60 to 79: that of 40 to 59 is decided and not uploaded yet.
    for (first, end) in [(0, 40), (60, 80)] {
        let of_today = |made: &Made| made.timestamp_ms >= DAY + DAY_MS && made.offset % 3 != 0;
        let records: Vec<Made> =
            (first..end).flat_map(|offset| [made(0, offset), made(1, offset)]).filter(of_today).collect();
        writer.put("a", &records).await;
    }
    let text = "topics: [applogs]\napp_id: { from: json, pointer: /app_id }\nsink: { url: file:///a }\n";
    let (connector, _) = load_connector_str(Path::new("app-logs.yaml"), text, &BTreeMap::new()).unwrap();
    let place = Place::of_store(Arc::clone(&store), &Environment::system());
    let connector = Arc::new(connector);
    let identity = Identity { cluster_id: None, topic_id: None, incarnation: 0 };
    // Records 7 of both partitions are in no file: low can't be above.
    let open = vec![Open { topic: "applogs".to_owned(), identity, lows: [(0, 7), (1, 5)].into() }];
    let live = Live { kafka: Arc::new(kafka.clone()), connector: Arc::clone(&connector), open };
    let reader = Reader {
        live: Some(Arc::new(live)),
        ..Reader::new(
            Place { connector: Some(connector), ..place },
            Arc::new(Report::new(|text| assert!(text.is_empty(), "{text}"))),
        )
    };
    for times in
        [Times::default(), Times { since_ms: Some(DAY + DAY_MS + 50_000), until_ms: Some(DAY + DAY_MS + 95_000) }]
    {
        for by in [By::Offset, By::Time] {
            let mut text = Vec::new();
            let question = Question { app: Some("a".to_owned()), times };
            let take = |piece: Vec<u8>| {
                text.extend(piece);
                Ok(())
            };
            reader.answer(&question, by, &Arc::new(Cat { json: true }), take).await.unwrap();
            let mut found: Vec<(i64, i32, i64)> = text
                .split_inclusive(|&byte| byte == b'\n')
                .map(|line| parse_json_line(line).unwrap())
                .map(|record| (record.timestamp_ms, record.partition, record.offset))
                .collect();
            assert!(by == By::Offset || found.is_sorted(), "{found:?}");
            found.sort_unstable();
            let all = (0..2).flat_map(|partition| (0..100).map(move |offset| made(partition, offset)));
            let mut expected: Vec<(i64, i32, i64)> = all
                .filter(|made| made.offset % 3 != 0 && times.contains(made.timestamp_ms))
                .map(|made| (made.timestamp_ms, made.partition, made.offset))
                .collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{by:?} {times:?}");
        }
    }
}

#[test]
fn what_kafka_still_has_is_what_is_archived_later() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let topic = unique("live");
    let setup = Setup::new(&kafka, &topic, &Sink::File, "");
    let produce = || produce(&kafka, &topic, 4_000, None, &setup.path("manifest.json")).wait().unwrap();
    assert!(produce().success());
    setup.archive_to_the_end();
    let (_, files, _) = setup.command(&["ls", "app-logs", "--json"]);
    let largest = files.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let largest = largest.max_by_key(|file| file["records"].as_u64()).unwrap();
    let app = largest["app"].as_str().unwrap();
    assert!(produce().success());
    let count = |more: &[&str]| {
        let (status, out, err) = setup.command(&[&["grep", "app-logs", "", "-c", "--app", app], more].concat());
        assert_eq!((status, err.as_str()), (0, ""), "{out}");
        out.trim().parse::<u64>().unwrap()
    };
    let (archived, live) = (count(&[]), count(&["--live"]));
    assert!(archived == largest["records"].as_u64().unwrap() && live > archived, "{archived} {live}");
    assert_eq!(count(&["--live", "--sort", "time"]), live);
    setup.archive_to_the_end();
    assert_eq!((count(&[]), count(&["--live"])), (live, live));
}
