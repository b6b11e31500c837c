//! The S3 store on the wire: against a server in this process that plays S3 and OSS, and against MinIO.
#![allow(clippy::unwrap_used, reason = "this is test code, also outside of a test's own function")]
#![allow(clippy::print_stdout, reason = "a test that does not run says why")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::Method;
use bytes::Bytes;
use sluice::config::{Flavor, SinkConfig};
use sluice::store::retry::Backoff;
use sluice::store::s3::{Patience, S3Options, S3Store};
use sluice::store::{Body, ByteRange, Created, Depth, Fault, Store, contract, probe};
use support::s3_server::{Fate, Play, S3Server, misery};
use support::{http_client_without_dns, impatient, sink};

const KEYS: (&str, &str) = ("access", "secret");

/// Addresses in the server's terms: names that only exist in these tests.
fn endpoint(flavor: Flavor, server: &S3Server) -> String {
    match flavor {
        Flavor::Oss => format!("http://s3.oss-cn-test.aliyuncs.com:{}", server.addr.port()),
        Flavor::Aws => format!("http://s3.test.example:{}", server.addr.port()),
        Flavor::Minio | Flavor::Generic => format!("http://{}", server.addr),
    }
}

async fn open(sink: &SinkConfig) -> S3Store {
    open_with(sink, Patience::default()).await
}

async fn open_with(sink: &SinkConfig, patience: Patience) -> S3Store {
    let options = S3Options { http_client: Some(http_client_without_dns()), patience, ..S3Options::default() };
    S3Store::open_with(sink, options).await.unwrap()
}

async fn started(flavor: Flavor, play: Play, dir: &Path) -> (S3Server, S3Store) {
    let server = S3Server::start(play).await;
    let store = open(&sink(dir, flavor, &endpoint(flavor, &server), "logs", KEYS)).await;
    (server, store)
}

fn bytes(text: &str) -> Body {
    Body::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

fn big(dir: &Path, len: usize) -> (Body, Vec<u8>) {
    let content: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
    let path = dir.join(format!("big-{len}"));
    std::fs::write(&path, &content).unwrap();
    (Body::File { path, len: len as u64, crc: Some(crc32c::crc32c(&content)) }, content)
}

async fn keeps_the_contract(flavor: Flavor, play: Play) {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(play).await;
    let sink = sink(dir.path(), flavor, &endpoint(flavor, &server), "logs", KEYS);
    let store =
        S3Store::open_with(&sink, S3Options { http_client: Some(http_client_without_dns()), ..S3Options::default() });
    contract::run(Arc::new(store.await.unwrap()), dir.path()).await;
    assert_eq!((server.open_uploads(), server.overwritten()), (0, 0));
    let seen = server.seen();
    let virtual_host = matches!(flavor, Flavor::Oss | Flavor::Aws);
    assert!(seen.iter().all(|request| request.virtual_host == virtual_host));
    assert!(seen.iter().any(|request| request.is_part()) && seen.iter().any(|request| request.is_complete()));
    let mut ranged = seen.iter().filter(|request| request.header("range").is_some());
    assert!(ranged.all(|request| request.header("x-oss-range-behavior").is_some() == (flavor == Flavor::Oss)));
    let md5 = matches!(flavor, Flavor::Oss | Flavor::Generic);
    for put in seen.iter().filter(|request| request.method == Method::PUT) {
        assert_eq!((put.header("content-md5").is_some(), put.header("x-amz-checksum-crc32c").is_some()), (md5, !md5));
    }
}

#[tokio::test]
async fn aws_keeps_the_contract() {
    keeps_the_contract(Flavor::Aws, Play::S3).await;
}

#[tokio::test]
async fn oss_keeps_the_contract() {
    keeps_the_contract(Flavor::Oss, Play::Oss).await;
}

#[tokio::test]
async fn minio_flavor_keeps_the_contract() {
    keeps_the_contract(Flavor::Minio, Play::S3).await;
}

#[tokio::test]
async fn generic_keeps_the_contract() {
    keeps_the_contract(Flavor::Generic, Play::S3).await;
}

/// What OSS refuses or ignores is never sent, and what it needs is.
#[tokio::test]
async fn nothing_that_oss_does_not_know_is_sent_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let (server, store) = started(Flavor::Oss, Play::Oss, dir.path()).await;
    let (file, _) = big(dir.path(), 6 << 20);
    store.create("app/small", &bytes("x"), None).await.unwrap();
    store.create("app/big", &file, None).await.unwrap();
    let etag = store.head("app/small").await.unwrap().unwrap().etag;
    assert_eq!(etag, etag.to_uppercase());
    assert!(store.get("app/small", ByteRange::All, Some(&etag)).await.unwrap().is_some());
    assert_eq!(store.create("app/small", &bytes("y"), None).await.unwrap(), Created::Exists);
    assert_eq!(store.create("app/big", &file, None).await.unwrap(), Created::Exists);
    store.delete("app/small").await.unwrap();
    store.delete("app/big").await.unwrap();
    let seen = server.seen();
    for request in &seen {
        let names: Vec<&str> = request.headers.keys().map(|name| name.as_str()).collect();
        assert!(!names.contains(&"if-none-match") && !names.contains(&"x-amz-trailer"), "{names:?}");
        assert!(
            !names.iter().any(|name| name.starts_with("x-amz-checksum") || *name == "x-amz-sdk-checksum-algorithm"),
            "{names:?}"
        );
        assert!(!request.query.contains_key("delete"), "objects are deleted one by one");
        let writes = request.method == Method::PUT && !request.is_part() || request.method == Method::POST;
        assert_eq!(
            request.header("x-oss-forbid-overwrite"),
            writes.then_some("true"),
            "{} {}",
            request.method,
            request.key
        );
    }
    let count = |what: &dyn Fn(&support::s3_server::Seen) -> bool| seen.iter().filter(|request| what(request)).count();
    assert_eq!(count(&|request| request.method == Method::DELETE), 2);
    assert_eq!((count(&|request| request.is_part()), count(&|request| request.is_complete())), (2, 1));
}

/// A short wait that a store names is kept within the call, by a part as by everything else; a long one is the caller's.
#[tokio::test]
async fn the_wait_that_oss_names_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (server, store) = started(Flavor::Oss, Play::Oss, dir.path()).await;
    let (file, _) = big(dir.path(), 6 << 20);
    for (status, code) in [(429, "QpsLimitExceeded"), (503, "UploadQpsLimitExceeded")] {
        let times = Arc::new(Mutex::new(Vec::new()));
        let refused = Arc::clone(&times);
        server.script(move |request| {
            if request.query.get("partNumber").is_none_or(|part| part != "1") {
                return Fate::Well;
            }
            let mut times = refused.lock().unwrap();
            times.push(Instant::now());
            if times.len() == 1 {
                Fate::Refused(status, code, Some(("x-oss-qos-delay-time", "700")))
            } else {
                Fate::Well
            }
        });
        assert_eq!(store.create(code, &file, None).await.unwrap(), Created::New);
        let times = times.lock().unwrap().clone();
        assert!(times.len() == 2 && times[1] - times[0] >= Duration::from_millis(700), "{times:?}");

        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        server.script(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Fate::Refused(status, code, Some(("x-oss-qos-delay-time", "90000")))
        });
        let error = store.head("a").await.unwrap_err();
        assert_eq!(error.fault, Fault::Throttled { wait: Some(Duration::from_secs(90)) });
        assert_eq!(asked.load(Ordering::Relaxed), 1, "not asked again before its time");
    }
}

#[tokio::test]
async fn encryption_is_asked_for_in_the_flavors_words() {
    let dir = tempfile::tempdir().unwrap();
    for (flavor, play, mode, header) in [
        (Flavor::Oss, Play::Oss, "KMS", "x-oss-server-side-encryption"),
        (Flavor::Aws, Play::S3, "aws:kms", "x-amz-server-side-encryption"),
        (Flavor::Generic, Play::S3, "AES256", "x-amz-server-side-encryption"),
    ] {
        let server = S3Server::start(play).await;
        let mut sink = sink(dir.path(), flavor, &endpoint(flavor, &server), "logs", KEYS);
        sink.sse.mode = Some(mode.to_owned());
        let store = open(&sink).await;
        store.create("_sluice/log", &bytes("x"), None).await.unwrap();
        let made = server.object("pre/fix/_sluice/log").unwrap().made_with;
        assert_eq!(made.get(header).unwrap(), mode);
    }
}

#[tokio::test]
async fn attributes_go_with_the_data_and_not_with_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = big(dir.path(), 6 << 20);
    for (flavor, play, class, tags) in [
        (Flavor::Oss, Play::Oss, "x-oss-storage-class", "x-oss-tagging"),
        (Flavor::Aws, Play::S3, "x-amz-storage-class", "x-amz-tagging"),
    ] {
        let server = S3Server::start(play).await;
        let mut sink = sink(dir.path(), flavor, &endpoint(flavor, &server), "logs", KEYS);
        sink.storage_class = Some("IA".to_owned());
        sink.tags = vec![("a".to_owned(), "b c".to_owned())];
        let store = open(&sink).await;
        for (key, body) in [("app/small", &bytes("x")), ("app/big", &file), ("_sluice/log", &bytes("x"))] {
            assert_eq!(store.create(key, body, Some("id 7")).await.unwrap(), Created::New);
            let made = server.object(&format!("pre/fix/{key}")).unwrap().made_with;
            let data = key.starts_with("app/");
            assert_eq!(made.get(class).map(|v| v.to_str().unwrap()), data.then_some("IA"), "{key}");
            assert_eq!(made.get(tags).map(|v| v.to_str().unwrap()), data.then_some("a=b%20c"), "{key}");
            assert_eq!(store.head(key).await.unwrap().unwrap().intent_id.as_deref(), Some("id 7"));
        }
    }
}

/// As every caller does: retries what may be retried, without waiting.
async fn persist<T, F>(mut request: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, sluice::store::StoreError>>,
{
    let mut backoff = Backoff::new();
    loop {
        match request().await {
            Ok(done) => return done,
            Err(error) => {
                assert!(matches!(error.fault, Fault::Transient | Fault::Throttled { .. }), "{error}");
                assert!(backoff.failures() < 1000, "{error}");
                backoff.next(0, &error.fault);
            }
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_three_in_ten_requests_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (flavor, play) in [(Flavor::Oss, Play::Oss), (Flavor::Minio, Play::S3)] {
        // Requests that hang are given up soon; one that is only slow is then a failure more.
        let server = S3Server::start(play).await;
        let sink = sink(dir.path(), flavor, &endpoint(flavor, &server), "logs", KEYS);
        let store = open_with(&sink, impatient()).await;
        server.script(misery(11, 30, Arc::default()));
        let (file, content) = big(dir.path(), 11 << 20);
        let store = &store;
        let writes = (0..40).map(|n| {
            let (key, id) = (format!("app/{n:03}"), format!("intent-{n}"));
            let body = if n % 10 == 0 { file.clone() } else { bytes(&format!("content {n}")) };
            async move {
                let created = persist(|| store.create(&key, &body, Some(&id))).await;
                let head = persist(|| store.head(&key)).await.unwrap();
                assert_eq!((head.size, head.intent_id.as_deref()), (body.len(), Some(id.as_str())), "{created:?}");
            }
        });
        futures::future::join_all(writes).await;
        let mut listed = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = persist(|| store.list("", Depth::All, after.as_deref(), 7)).await;
            listed.extend(page.objects.into_iter().map(|o| o.key));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(listed, (0..40).map(|n| format!("app/{n:03}")).collect::<Vec<_>>());
        for (n, key) in listed.iter().enumerate() {
            let got = persist(|| store.get(key, ByteRange::All, None)).await.unwrap().bytes;
            let want = if n % 10 == 0 { Bytes::from(content.clone()) } else { Bytes::from(format!("content {n}")) };
            assert!(got == want, "{key} came back changed");
        }
        assert_eq!((server.object_count(), server.overwritten()), (40, 0));
        persist(|| store.delete("app/000")).await;
        assert_eq!(server.object_count(), 39);
    }
}

#[tokio::test]
async fn a_complete_whose_answer_is_lost_is_found_to_exist() {
    let dir = tempfile::tempdir().unwrap();
    for (flavor, play) in [(Flavor::Oss, Play::Oss), (Flavor::Minio, Play::S3)] {
        let (server, store) = started(flavor, play, dir.path()).await;
        let mut completes = 0;
        server.script(move |request| {
            completes += usize::from(request.is_complete());
            if request.is_complete() && completes == 1 { Fate::LostAnswer } else { Fate::Well }
        });
        let (file, content) = big(dir.path(), 6 << 20);
        assert_eq!(store.create("a", &file, Some("id")).await.unwrap(), Created::Exists);
        assert!(server.object("pre/fix/a").unwrap().bytes == content);
        assert_eq!(server.overwritten(), 0);
    }
}

#[tokio::test]
async fn an_upload_that_is_given_up_is_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let (server, store) = started(Flavor::Minio, Play::S3, dir.path()).await;
    let (file, _) = big(dir.path(), 11 << 20);
    let fail_third = |request: &support::s3_server::Seen| match request.query.get("partNumber").map(String::as_str) {
        Some("3") => Fate::Refused(403, "AccessDenied", None),
        _ => Fate::Well,
    };
    server.script(fail_third);
    let error = store.create("a", &file, None).await.unwrap_err();
    assert_eq!(error.fault, Fault::Denied);
    assert!(error.message.contains("403 AccessDenied") && error.message.contains("R0"), "{error}");
    assert_eq!((server.open_uploads(), server.object_count()), (0, 0));

    // The caller goes away in the middle.
    let parts = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&parts);
    server.script(move |request| {
        if !request.is_part() {
            return Fate::Well;
        }
        asked.fetch_add(1, Ordering::Relaxed);
        Fate::Hang
    });
    let writer = tokio::spawn({
        let (store, file) = (store.clone(), file.clone());
        async move { store.create("a", &file, None).await }
    });
    // A part names the upload: whoever sends one knows what to abort.
    until(|| parts.load(Ordering::Relaxed) > 0).await;
    assert_eq!(server.open_uploads(), 1);
    writer.abort();
    until(|| server.open_uploads() == 0).await;
    server.heal();
    assert_eq!(store.create("a", &file, None).await.unwrap(), Created::New);
}

async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

#[tokio::test]
async fn refusals_are_told_by_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (server, store) = started(Flavor::Minio, Play::S3, dir.path()).await;
    let denied = Fault::Denied;
    let cases = [
        (403, "AccessDenied", None, denied, "lack a permission"),
        (403, "RequestTimeTooSkewed", None, denied, "clock"),
        (403, "SignatureDoesNotMatch", None, denied, "secret does not belong"),
        (400, "ExpiredToken", None, denied, "expired"),
        (301, "PermanentRedirect", Some(("x-amz-bucket-region", "eu-west-1")), Fault::Invalid, "region eu-west-1"),
        (400, "AuthorizationHeaderMalformed", None, Fault::Invalid, "sink.region"),
        (501, "NotImplemented", None, Fault::Invalid, "flavor"),
        (
            429,
            "TooManyRequests",
            Some(("retry-after", "2")),
            Fault::Throttled { wait: Some(Duration::from_secs(2)) },
            "429",
        ),
    ];
    for (status, code, header, fault, words) in cases {
        server.script(move |_| Fate::Refused(status, code, header));
        let error = store.create("a", &bytes("x"), None).await.unwrap_err();
        assert_eq!(error.fault, fault, "{error}");
        assert!(error.message.contains(words) && error.message.contains(code), "{error}");
        assert_eq!(store.list("", Depth::All, None, 1).await.unwrap_err().fault, fault);
    }
    server.heal();
    let elsewhere = open(&sink(dir.path(), Flavor::Minio, &format!("http://{}", server.addr), "nowhere", KEYS)).await;
    for error in [
        elsewhere.create("a", &bytes("x"), None).await.unwrap_err(),
        elsewhere.get("a", ByteRange::All, None).await.unwrap_err(),
        elsewhere.list("", Depth::All, None, 1).await.unwrap_err(),
    ] {
        assert_eq!(error.fault, Fault::NoBucket, "{error}");
    }
    let (_oss, path_style) = started(Flavor::Minio, Play::Oss, dir.path()).await;
    let error = path_style.create("a", &bytes("x"), None).await.unwrap_err();
    assert_eq!(error.fault, Fault::Invalid);
    assert!(error.message.contains("sink.flavor to oss"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_worth_another_try_and_no_keys_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = sink(dir.path(), Flavor::Minio, &format!("http://{unused}"), "logs", KEYS);
    let error = open(&settings).await.head("a").await.unwrap_err();
    assert_eq!(error.fault, Fault::Transient);
    assert!(error.message.contains("refused"), "{error}");
    std::fs::remove_file(dir.path().join("secret-key")).unwrap();
    let error = open(&settings).await.head("a").await.unwrap_err();
    assert_eq!(error.fault, Fault::Denied);
    assert!(error.message.contains("secret-key") && error.message.contains("sink.credentials"), "{error}");
}

#[tokio::test]
async fn a_probe_finds_out_a_bucket_that_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let (server, store) = started(Flavor::Oss, Play::Oss, dir.path()).await;
    let report = probe(&store).await;
    assert!(report.passed(), "{report}");
    assert_eq!(server.object_count(), 0);
    let (_server, store) = started(Flavor::Oss, Play::OssVersioned, dir.path()).await;
    let report = probe(&store).await;
    assert_eq!(report.create_only, Some(false), "{report}");
    assert!(report.to_string().contains("versioning"));
}

/// MinIO checks what the server above does not: signatures, real listings, real races.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minio_keeps_the_contract() {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(endpoint) = var("SLUICE_TEST_MINIO") else {
        println!("not run: SLUICE_TEST_MINIO (the address of a MinIO) is not set; `make test` starts one");
        assert_ne!(var("SLUICE_TEST_REQUIRE_SERVICES").as_deref(), Some("1"), "MinIO is required and not there");
        return;
    };
    let default = || "minioadmin".to_owned();
    let key = var("SLUICE_TEST_MINIO_KEY").unwrap_or_else(default);
    let secret = var("SLUICE_TEST_MINIO_SECRET").unwrap_or_else(default);
    let dir = tempfile::tempdir().unwrap();
    let bucket = format!("contract-{:016x}", getrandom::u64().unwrap());
    let sink = sink(dir.path(), Flavor::Minio, &endpoint, &bucket, (&key, &secret));

    let store = sluice::store::open(&sink).await.unwrap();
    let error = store.create("a", &bytes("x"), None).await.unwrap_err();
    assert_eq!(error.fault, Fault::NoBucket, "{error}");
    support::make_bucket(&endpoint, &bucket, &key, &secret).await;
    let report = probe(&*store).await;
    assert!(report.passed(), "{report}");
    contract::run(Arc::clone(&store), dir.path()).await;

    let mut wrong = sink.clone();
    let secret_file = dir.path().join("wrong-secret");
    std::fs::write(&secret_file, "wrong").unwrap();
    wrong.credentials.secret_file = Some(secret_file);
    let wrong = sluice::store::open(&wrong).await.unwrap();
    let error = wrong.create("a", &bytes("x"), None).await.unwrap_err();
    assert_eq!(error.fault, Fault::Denied, "{error}");
    assert!(error.message.contains("SignatureDoesNotMatch"), "{error}");
}
