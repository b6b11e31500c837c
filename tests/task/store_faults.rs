//! A whole archive on a store that fails three of ten requests, each in another way.

use std::sync::Mutex;

use sluice::config::{Flavor, SinkConfig};
use sluice::store::s3::{S3Options, S3Store};

use super::*;
use crate::support::s3_server::{MISERIES, Play, S3Server, misery};
use crate::support::{http_client_without_dns, impatient, sink};

/// Parts need 5 MiB, and each file of `big` has two.
const SETTINGS: &str = "rotate: { max_bytes: 6MiB }\ncompression: { frame_bytes: 256KiB }\n";

/// 30 small apps and one whose records do not compress.
fn records() -> Vec<(i32, MemoryRecord)> {
    let mut noise = 7u64;
    let mut bytes = |len: usize| -> String {
        let hex = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + 3 + (noise >> 40) as u8 % 88)
        });
        hex.filter(|c| *c != '\\').take(len).collect()
    };
    let small = (0..3000).map(|n| (n % 3, record(&format!("app{}", n % 30), &format!("record {n}"))));
    let big = (0..220).map(|n| (n % 3, record("big", &bytes(64 << 10)))).collect::<Vec<_>>();
    small.chain(big).collect()
}

async fn open(sink: &SinkConfig) -> S3Store {
    let http_client = Some(http_client_without_dns());
    S3Store::open_with(sink, S3Options { http_client, patience: impatient(), ..S3Options::default() }).await.unwrap()
}

async fn is_exact_on(flavor: Flavor, play: Play, host: &str) {
    let server = S3Server::start(play).await;
    let dir = tempfile::tempdir().unwrap();
    let mut sink =
        sink(dir.path(), flavor, &format!("http://{host}:{}", server.addr.port()), "logs", ("key", "secret"));
    sink.part_bytes = 5 << 20;
    let store = open(&sink).await;
    let records = records();
    let kafka = kafka(3, &records);
    let taken = Arc::new(Mutex::new(BTreeMap::new()));
    server.script(misery(5, 30, Arc::clone(&taken)));
    // One that is stopped in the middle, then to the end, then once more.
    let (_spool, context) = context(&kafka, Arc::new(store.clone()), SETTINGS, "first");
    let stop = CancellationToken::new();
    let (first, stopped) = (Arc::clone(&context), stop.clone());
    let running = tokio::spawn(async move { run(&first, false, stopped).await });
    let is_big = |key: &str| key.contains("/big/");
    let uploaded = async {
        while !server.seen().iter().any(|seen| seen.is_complete() && is_big(&seen.key)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), uploaded).await.unwrap();
    stop.cancel();
    assert_eq!(running.await.unwrap().unwrap(), End::Stopped);
    for worker in ["second", "third"] {
        let (_spool, context) = self::context(&kafka, Arc::new(store.clone()), SETTINGS, worker);
        assert_eq!(run(&context, true, CancellationToken::new()).await.unwrap(), End::CaughtUp);
    }
    server.heal();
    let found = sorted(objects_of(&store).await.into_values().flatten());
    assert!(found == sorted(records.iter().map(|(_, record)| text(record))), "{} records", found.len());
    assert_eq!((server.overwritten(), server.open_uploads()), (0, 0));
    let taken = taken.lock().unwrap();
    assert_eq!(taken.len(), MISERIES, "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miserable_oss_gets_each_record_once() {
    is_exact_on(Flavor::Oss, Play::Oss, "s3.oss-cn-test.aliyuncs.com").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miserable_s3_gets_each_record_once() {
    is_exact_on(Flavor::Minio, Play::S3, "127.0.0.1").await;
}
