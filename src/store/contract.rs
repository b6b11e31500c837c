//! What every store must do, as one suite of checks that each implementation runs in its tests.
//!
//! Owns: the checks. They need an empty store (or prefix) of their own and leave objects in it.
//! Does not own: faults of the network and the service, which each store tests by itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test suite that tests of other crates call")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{Body, ByteRange, Created, Depth, Fault, Page, Store};

/// Runs all checks and panics at the first that fails. `scratch` is a directory for files to upload, on the store's own file
/// system where it has one.
pub async fn run(store: Arc<dyn Store>, scratch: &Path) {
    creates_once(&*store).await;
    one_of_many_creators_wins(&store).await;
    readers_see_all_or_nothing(&store).await;
    big_files_arrive_unchanged(&store, scratch).await;
    a_wrong_length_is_refused(&*store, scratch).await;
    changed_bytes_are_refused(&*store, scratch).await;
    ranges(&*store).await;
    if_match(&*store).await;
    odd_keys(&*store).await;
    bad_keys_are_refused(&*store).await;
    listing(&*store).await;
    deletes(&*store).await;
}

fn body(text: impl Into<Vec<u8>>) -> Body {
    Body::Bytes(Bytes::from(text.into()))
}

async fn read(store: &dyn Store, key: &str) -> Option<Bytes> {
    store.get(key, ByteRange::All, None).await.unwrap().map(|got| got.bytes)
}

async fn creates_once(store: &dyn Store) {
    let key = "once/object";
    assert!(store.head(key).await.unwrap().is_none());
    assert!(store.get(key, ByteRange::All, None).await.unwrap().is_none());
    assert_eq!(store.create(key, &body("first"), Some("intent-1")).await.unwrap(), Created::New);
    let head = store.head(key).await.unwrap().unwrap();
    assert_eq!(head.size, 5);
    assert!(head.intent_id.is_none_or(|id| id == "intent-1"));

    assert_eq!(store.create(key, &body("second, longer"), Some("intent-2")).await.unwrap(), Created::Exists);
    let got = store.get(key, ByteRange::All, None).await.unwrap().unwrap();
    assert_eq!((&got.bytes[..], got.size), (&b"first"[..], 5), "a second create must leave the object as it was");
    let again = store.head(key).await.unwrap().unwrap();
    assert_eq!(got.etag, head.etag);
    assert_eq!((again.size, again.etag), (head.size, head.etag));
    assert!(again.intent_id.is_none_or(|id| id == "intent-1"));

    assert_eq!(store.create("once/empty", &body(""), None).await.unwrap(), Created::New);
    assert_eq!(store.create("once/empty", &body("x"), None).await.unwrap(), Created::Exists);
    assert_eq!(read(store, "once/empty").await.unwrap().len(), 0);
    assert_eq!(store.head("once/empty").await.unwrap().unwrap().intent_id, None);
}

async fn one_of_many_creators_wins(store: &Arc<dyn Store>) {
    for round in 0..8 {
        let key = format!("race/{round}");
        let tries = (0..16).map(|writer| {
            let (store, key) = (Arc::clone(store), key.clone());
            tokio::spawn(async move {
                // A store may answer a race with "try again"; then it is tried again.
                loop {
                    match store.create(&key, &body(format!("writer {writer}")), None).await {
                        Ok(created) => return (writer, created),
                        Err(e) if e.fault == Fault::Transient => tokio::task::yield_now().await,
                        Err(e) => panic!("writer {writer}: {e}"),
                    }
                }
            })
        });
        let mut winners = Vec::new();
        for outcome in futures::future::join_all(tries).await {
            let (writer, created) = outcome.unwrap();
            if created == Created::New {
                winners.push(writer);
            }
        }
        assert!(winners.len() <= 1, "writers {winners:?} all made {key}");
        let content = read(&**store, &key).await.unwrap();
        if let [winner] = winners[..] {
            assert_eq!(content, format!("writer {winner}"));
        }
    }
}

async fn readers_see_all_or_nothing(store: &Arc<dyn Store>) {
    const LEN: usize = 1 << 20;
    for round in 0..8_u8 {
        let key = format!("whole/{round}");
        let content = Bytes::from(vec![round; LEN]);
        let writer = tokio::spawn({
            let (store, key, content) = (Arc::clone(store), key.clone(), content.clone());
            async move { store.create(&key, &Body::Bytes(content), None).await }
        });
        while !writer.is_finished() {
            if let Some(head) = store.head(&key).await.unwrap() {
                assert_eq!(head.size, LEN as u64);
            }
            if let Some(seen) = read(&**store, &key).await {
                assert_eq!(seen, content);
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(writer.await.unwrap().unwrap(), Created::New);
        assert_eq!(read(&**store, &key).await.unwrap(), content);
    }
}

/// Bytes that look random and differ everywhere.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// 12 MiB: a store with parts of 5 MiB sends two whole ones and a rest.
async fn big_files_arrive_unchanged(store: &Arc<dyn Store>, scratch: &Path) {
    let sizes = [12 * 1024 * 1024 + 7, 10 * 1024 * 1024, 5 * 1024 * 1024, 5 * 1024 * 1024 + 1, 3, 0];
    for (i, len) in sizes.into_iter().enumerate() {
        let path = scratch.join(format!("big-{i}"));
        let content = noise(len, i as u64 + 1);
        tokio::fs::write(&path, &content).await.unwrap();
        let file = Body::File { path: path.clone(), len: len as u64, crc: Some(crc32c::crc32c(&content)) };
        let key = format!("big/{i}");
        assert_eq!(store.create(&key, &file, Some("intent-big")).await.unwrap(), Created::New);
        let head = store.head(&key).await.unwrap().unwrap();
        assert_eq!(head.size, len as u64);
        assert!(head.intent_id.is_none_or(|id| id == "intent-big"));
        assert!(read(&**store, &key).await.unwrap() == content, "{len} bytes came back changed");

        tokio::fs::remove_file(&path).await.unwrap();
        let other = scratch.join(format!("other-{i}"));
        tokio::fs::write(&other, noise(len, 77)).await.unwrap();
        let file = Body::File { path: other.clone(), len: len as u64, crc: None };
        assert_eq!(store.create(&key, &file, Some("intent-other")).await.unwrap(), Created::Exists);
        tokio::fs::remove_file(&other).await.unwrap();
        assert!(read(&**store, &key).await.unwrap() == content, "{len} bytes were overwritten");
        assert_eq!(store.head(&key).await.unwrap().unwrap().etag, head.etag);
    }

    let content = noise(7 * 1024 * 1024, 99);
    let big = Body::Bytes(Bytes::from(content.clone()));
    assert_eq!(store.create("big/from-memory", &big, None).await.unwrap(), Created::New);
    assert!(read(&**store, "big/from-memory").await.unwrap() == content);
}

async fn a_wrong_length_is_refused(store: &dyn Store, scratch: &Path) {
    let path = scratch.join("wrong-length");
    for (len, announced) in [(10, 11), (10, 9), (6 << 20, (6 << 20) - 1), (6 << 20, (6 << 20) + 1)] {
        tokio::fs::write(&path, noise(len, 5)).await.unwrap();
        let file = Body::File { path: path.clone(), len: announced, crc: None };
        let error = store.create("wrong/length", &file, None).await.unwrap_err();
        assert_eq!(error.fault, Fault::Body, "{error}");
        assert!(store.head("wrong/length").await.unwrap().is_none());
    }
    tokio::fs::remove_file(&path).await.unwrap();
    let error = store.create("wrong/length", &Body::File { path, len: 10, crc: None }, None).await.unwrap_err();
    assert_eq!(error.fault, Fault::Body, "{error}");
}

/// One bit in the first part, in the last one, and in a file that is sent at once.
async fn changed_bytes_are_refused(store: &dyn Store, scratch: &Path) {
    let path = scratch.join("changed");
    for (len, at) in [(100, 99), (12 << 20, 0), (12 << 20, (12 << 20) - 1)] {
        let mut content = noise(len, 6);
        let crc = Some(crc32c::crc32c(&content));
        content[at] ^= 1;
        tokio::fs::write(&path, &content).await.unwrap();
        let file = Body::File { path: path.clone(), len: len as u64, crc };
        let error = store.create("changed/bytes", &file, None).await.unwrap_err();
        assert_eq!(error.fault, Fault::Body, "{error}");
        assert!(error.message.contains("was changed after it was written"), "{error}");
        assert!(store.head("changed/bytes").await.unwrap().is_none());
    }
    tokio::fs::remove_file(&path).await.unwrap();
}

async fn ranges(store: &dyn Store) {
    let content = noise(1000, 3);
    store.create("ranges/1000", &body(content.clone()), None).await.unwrap();
    store.create("ranges/0", &body(""), None).await.unwrap();
    let from = |start, len| ByteRange::From { start, len };
    let last = |len| ByteRange::Last { len };
    let cases = [
        (ByteRange::All, 0..1000),
        (from(0, 1000), 0..1000),
        (from(0, 1), 0..1),
        (from(10, 20), 10..30),
        (from(999, 1), 999..1000),
        (from(990, 100), 990..1000),
        (from(0, 5000), 0..1000),
        (from(1, u64::MAX), 1..1000),
        (from(1000, 1), 1000..1000),
        (from(5000, 10), 1000..1000),
        (from(u64::MAX, 10), 1000..1000),
        (from(10, 0), 10..10),
        (last(1), 999..1000),
        (last(1000), 0..1000),
        (last(5000), 0..1000),
        (last(u64::MAX), 0..1000),
        (last(0), 1000..1000),
    ];
    let etag = store.head("ranges/1000").await.unwrap().unwrap().etag;
    for (range, want) in cases {
        for if_match in [None, Some(etag.as_str())] {
            let got = store.get("ranges/1000", range, if_match).await.unwrap().unwrap();
            assert_eq!(got.bytes, content[want.clone()], "{range:?}");
            assert_eq!((got.size, &got.etag), (1000, &etag), "{range:?}");
        }
        let got = store.get("ranges/0", range, None).await.unwrap().unwrap();
        assert_eq!((got.bytes.len(), got.size), (0, 0), "{range:?} of an empty object");
        assert!(store.get("ranges/none", range, None).await.unwrap().is_none(), "{range:?} of no object");
    }
}

async fn if_match(store: &dyn Store) {
    store.create("match/a", &body("one"), None).await.unwrap();
    let old = store.head("match/a").await.unwrap().unwrap().etag;
    store.delete("match/a").await.unwrap();
    store.create("match/a", &body("another"), None).await.unwrap();
    let new = store.head("match/a").await.unwrap().unwrap().etag;
    assert_ne!(old, new);
    let beyond = ByteRange::From { start: 100, len: 5 };
    for range in [ByteRange::All, ByteRange::Last { len: 2 }, ByteRange::From { start: 1, len: 2 }, beyond] {
        let error = store.get("match/a", range, Some(&old)).await.unwrap_err();
        assert_eq!(error.fault, Fault::Changed, "{range:?}: {error}");
        assert!(store.get("match/a", range, Some(&new)).await.unwrap().is_some());
    }
    assert!(store.get("match/none", ByteRange::All, Some(&old)).await.unwrap().is_none());
}

async fn odd_keys(store: &dyn Store) {
    let mut keys = vec![
        "odd/payments/2026-11-22/031205_applogs+00003+00000000000000001042.log.lz4",
        "odd/a b",
        "odd/a+b",
        "odd/a%20b",
        "odd/a%2Bb",
        "odd/a%2Fb/c",
        "odd/100%",
        "odd/~1",
        "odd/app_id=x/dt=y",
        "odd/ü/日本/🦀",
        "odd/...",
        "odd/.hidden",
        "odd/<&>\"'",
        "odd/a?b#c",
        "odd/a;b:c,d@e!f$g(h)*",
        "odd/[x]{y}^`|\\z",
        "odd/_x",
        "odd/-",
        "odd/ lead and trail ",
    ];
    for key in &keys {
        assert_eq!(store.create(key, &body(*key), None).await.unwrap(), Created::New, "{key}");
    }
    for key in &keys {
        assert_eq!(store.create(key, &body("x"), None).await.unwrap(), Created::Exists, "{key}");
        assert_eq!(read(store, key).await.unwrap(), key.as_bytes(), "{key}");
        assert_eq!(store.head(key).await.unwrap().unwrap().size, key.len() as u64, "{key}");
        let alone = store.list(key, Depth::All, None, 10).await.unwrap();
        assert_eq!(alone.objects.first().map(|o| o.key.as_str()), Some(*key));
    }
    keys.sort_unstable();
    for limit in [1000, 4, 1] {
        assert_eq!(names(store, "odd/", Depth::All, limit).await, keys);
    }
    for key in &keys {
        store.delete(key).await.unwrap();
        assert!(store.head(key).await.unwrap().is_none(), "{key}");
    }
}

async fn bad_keys_are_refused(store: &dyn Store) {
    for key in ["", "/", "/a", "a/", "a//b", "..", "../a", "a/../../b", "a/./b", "a\nb", "a\0b"] {
        let refused = [
            store.create(key, &body("x"), None).await.err(),
            store.head(key).await.err(),
            store.get(key, ByteRange::All, None).await.err(),
            store.delete(key).await.err(),
        ];
        for error in refused {
            assert_eq!(error.unwrap_or_else(|| panic!("{key:?} was taken")).fault, Fault::Invalid);
        }
    }
    assert_eq!(store.list("../", Depth::All, None, 10).await.unwrap_err().fault, Fault::Invalid);
}

/// All entries of a listing, page by page; checks what holds for every page.
async fn names(store: &dyn Store, prefix: &str, depth: Depth, limit: usize) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(prefix, depth, after.as_deref(), limit).await.unwrap();
        let Page { objects, folders, next } = page;
        assert!(objects.len() + folders.len() <= limit, "a page over its limit of {limit}");
        assert!(depth == Depth::Folder || folders.is_empty());
        assert!(objects.is_sorted_by(|a, b| a.key < b.key) && folders.is_sorted());
        let mut entries: Vec<String> = objects.into_iter().map(|o| o.key).chain(folders).collect();
        entries.sort_unstable();
        assert!(entries.iter().all(|e| e.starts_with(prefix)));
        all.append(&mut entries);
        match next {
            None => return all,
            Some(next) => {
                assert!(after.is_none_or(|after| after < next), "a listing that does not move on");
                after = Some(next);
            }
        }
    }
}

async fn listing(store: &dyn Store) {
    // `-`, `.` sort before `/`, `0` after it.
    let mut keys = vec![
        "tree/a-b",
        "tree/a/b-c",
        "tree/a/b/c",
        "tree/a/z/z",
        "tree/a.b/c",
        "tree/a0",
        "tree/b",
        "tree/c/1",
        "tree/c/2",
        "tree/d/e/f/g",
        "tree/ä/x",
        "tree/~",
        "tree/Z",
    ];
    for key in keys.iter().rev() {
        store.create(key, &body(*key), None).await.unwrap();
    }
    keys.sort_unstable();
    for limit in [1, 2, 3, 5, keys.len(), 1000] {
        assert_eq!(names(store, "tree/", Depth::All, limit).await, keys, "limit {limit}");
        assert_eq!(
            names(store, "tree/", Depth::Folder, limit).await,
            [
                "tree/Z",
                "tree/a-b",
                "tree/a.b/",
                "tree/a/",
                "tree/a0",
                "tree/b",
                "tree/c/",
                "tree/d/",
                "tree/~",
                "tree/ä/"
            ],
            "limit {limit}"
        );
        assert_eq!(
            names(store, "tree/a", Depth::Folder, limit).await,
            ["tree/a-b", "tree/a.b/", "tree/a/", "tree/a0"],
            "limit {limit}"
        );
        assert_eq!(names(store, "tree/a/", Depth::Folder, limit).await, ["tree/a/b-c", "tree/a/b/", "tree/a/z/"]);
    }
    for (prefix, count) in
        [("tree/a", 6), ("tree/a/", 3), ("tree/a/b", 2), ("tree/c/1", 1), ("tree/none", 0), ("none/", 0)]
    {
        let want: Vec<&str> = keys.iter().copied().filter(|k| k.starts_with(prefix)).collect();
        assert_eq!(want.len(), count);
        assert_eq!(names(store, prefix, Depth::All, 2).await, want, "prefix {prefix}");
    }
    // Any string may be `after`, also none that exists and one outside the prefix.
    let afters = [
        "",
        "a",
        "tree/",
        "tree/a",
        "tree/a-",
        "tree/a/",
        "tree/a/b",
        "tree/a/b/",
        "tree/a/b/c",
        "tree/a/x",
        "tree/c/1",
        "tree/~",
        "zzz",
    ];
    for after in afters {
        let page = store.list("tree/", Depth::All, Some(after), 1000).await.unwrap();
        let got: Vec<&str> = page.objects.iter().map(|o| o.key.as_str()).collect();
        let want: Vec<&str> = keys.iter().copied().filter(|k| *k > after).collect();
        assert_eq!(got, want, "after {after:?}");
        assert_eq!(page.next, None);

        let page = store.list("tree/", Depth::Folder, Some(after), 1000).await.unwrap();
        let want: Vec<&str> =
            ["tree/a.b/", "tree/a/", "tree/c/", "tree/d/", "tree/ä/"].into_iter().filter(|f| *f > after).collect();
        assert_eq!(page.folders, want, "folders after {after:?}");
    }
    let page = store.list("tree/", Depth::All, None, 3).await.unwrap();
    assert!(page.objects.iter().all(|o| o.size == o.key.len() as u64));

    for n in 0..25 {
        store.create(&format!("many/{n:03}"), &body("x"), None).await.unwrap();
    }
    let exact = store.list("many/", Depth::All, None, 25).await.unwrap();
    assert_eq!((exact.objects.len(), exact.next), (25, None), "a full last page is the last page");
}

async fn deletes(store: &dyn Store) {
    store.create("gone/a/b", &body("x"), None).await.unwrap();
    store.delete("gone/a/b").await.unwrap();
    assert!(store.head("gone/a/b").await.unwrap().is_none());
    assert!(store.get("gone/a/b", ByteRange::All, None).await.unwrap().is_none());
    store.delete("gone/a/b").await.unwrap();
    store.delete("gone/never/was").await.unwrap();
    assert_eq!(names(store, "gone/", Depth::All, 10).await, Vec::<String>::new());
    assert_eq!(names(store, "gone/", Depth::Folder, 10).await, Vec::<String>::new(), "an empty folder is no folder");
    assert_eq!(store.create("gone/a/b", &body("again"), None).await.unwrap(), Created::New);
}
