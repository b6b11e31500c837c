use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::archive::format::Format;
use crate::store::faults::{Faulty, Rates};
use crate::store::memory::MemoryStore;

/// The index of a plain file without frames, as its sidecar holds it.
fn sidecar(intent: &str, low: i64) -> Vec<u8> {
    let facts = index::FileFacts {
        connector: "c".to_owned(),
        cluster_id: None,
        topic: "t".to_owned(),
        topic_id: None,
        incarnation: 0,
        app: "a".to_owned(),
        bucket_start_secs: None,
        intent_id: intent.to_owned(),
        digests: BTreeMap::new(),
        log_number: 1,
        settings_hash: String::new(),
        lows: BTreeMap::from([(0, low)]),
        format: Format::Raw,
        codec: Codec::None,
        skipped: Vec::new(),
    };
    let mut bytes = Vec::new();
    index::write_tail(Codec::None, &facts, &[], 0, &mut bytes).unwrap();
    bytes
}

/// A finished file of one attempt, in a folder of its own.
struct Attempt {
    _dir: tempfile::TempDir,
    file: FinishedFile,
}

fn attempt(intent: &str, low: i64) -> Attempt {
    let dir = tempfile::tempdir().unwrap();
    let (data, idx) = (dir.path().join("data"), dir.path().join("idx"));
    std::fs::write(&data, "x\n").unwrap();
    let sidecar = sidecar(intent, low);
    std::fs::write(&idx, &sidecar).unwrap();
    let finished = |path, bytes: &[u8]| Finished { path, bytes: bytes.len() as u64, crc: crc32c::crc32c(bytes) };
    let file = FinishedFile { data: finished(data, b"x\n"), sidecar: Some(finished(idx, &sidecar)) };
    Attempt { _dir: dir, file }
}

async fn object(store: &dyn Store, key: &str) -> Bytes {
    store.get(key, ByteRange::All, None).await.unwrap().unwrap().bytes
}

#[tokio::test]
async fn the_sidecar_of_an_earlier_attempt_stays_and_serves() {
    let (store, environment) = (MemoryStore::new(), Environment::system());
    let early = sidecar("one", 1);
    // Without metadata, as a directory keeps it; the attempt died before its data.
    store.create("a/_1.log.idx", &Body::Bytes(early.clone().into()), None).await.unwrap();
    upload(&store, &environment, "a/1.log", "one", &attempt("one", 2).file).await.unwrap();
    assert_eq!(object(&store, "a/_1.log.idx").await, early);
    assert_eq!(object(&store, "a/1.log").await, "x\n");
    upload(&store, &environment, "a/1.log", "one", &attempt("one", 3).file).await.unwrap();
    assert_eq!(find(&store, &environment, "a/1.log", "one").await.unwrap(), Found::Ours);
    let error = upload(&store, &environment, "a/1.log", "two", &attempt("two", 1).file).await.unwrap_err();
    assert!(matches!(&error, UploadError::Foreign { found, .. } if found == "one"), "{error}");
    assert_eq!(object(&store, "a/_1.log.idx").await, early);
}

/// Each answer is lost now and then, so that uploads meet what they wrote themselves.
#[tokio::test(start_paused = true)]
async fn an_upload_whose_answer_is_lost_finds_its_own_object() {
    let inner = Arc::new(MemoryStore::new());
    let store = Faulty::new(Arc::clone(&inner), 7, Rates { lost_answer: 60, ..Rates::default() });
    let environment = Environment::system();
    for number in 0..50 {
        let (key, intent) = (format!("a/{number}.log"), format!("intent {number}"));
        upload(&store, &environment, &key, &intent, &attempt(&intent, 1).file).await.unwrap();
        assert_eq!(object(inner.as_ref(), &key).await, "x\n");
    }
}
