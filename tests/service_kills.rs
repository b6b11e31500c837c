//! The services that a worker needs are killed, hang, refuse or lose answers while it archives; the archive ends exact, counted
//! from outside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "a test may wait for another process")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::group::{Load, Member, wait_until};
use support::holding_proxy::HoldingProxy;
use support::kafka::{Oracle, unique};
use support::own::{MINIO_KEYS, Own};
use support::process::{Setup, Sink, service};
use support::s3_server::{BUCKET, Fate, Play, S3Server, Seen};
use tokio::task::block_in_place;

const OFTEN: &str = "rotate: { max_bytes: 64KiB, max_interval: 1s }\ncompression: { frame_bytes: 64KiB }\n";

fn member(setup: &Setup) -> Member {
    Member { id: "worker-1".to_owned(), running: setup.start(&[], "worker.log") }
}

fn task(member: &Member) -> serde_json::Value {
    member.status().unwrap_or_default()["tasks"][0].clone()
}

/// Waits until objects were added.
fn wait_for_objects(member: &Member) {
    let before = task(member)["objects"].as_u64().unwrap_or(0);
    wait_until(|| task(member)["objects"].as_u64() > Some(before), || member.running.last_lines());
}

fn wait_for_log(member: &Member, text: &str) {
    wait_until(|| member.running.log().contains(text), || format!("{text:?}: {}", member.running.last_lines()));
}

fn finish(setup: &Setup, load: Load, mut member: Member, partitions: u64) {
    let records = load.end();
    let status = member.running.terminate();
    assert!(status.success(), "{status}: {}", member.running.last_lines());
    setup.archive_to_the_end();
    setup.verify_records(records, partitions);
}

fn minio(endpoint: String, bucket: &str) -> Sink {
    let (key, secret) = (MINIO_KEYS.0.to_owned(), MINIO_KEYS.1.to_owned());
    Sink::Minio { endpoint, bucket: bucket.to_owned(), key, secret }
}

fn is_data(seen: &Seen) -> bool {
    seen.method == "PUT" && !seen.key.contains("_sluice/")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_killed_and_hangs_loses_nothing() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let store = block_in_place(Own::minio);
    let endpoint = store.address();
    support::make_bucket(&endpoint, "kills", MINIO_KEYS.0, MINIO_KEYS.1).await;
    let topic = unique("store-kills");
    let load = Load::start(&kafka, &topic, 2, 2_000);
    let setup = Setup::new(&kafka, &topic, &minio(endpoint, "kills"), OFTEN);
    let member = member(&setup);
    for _ in 0..2 {
        wait_for_objects(&member);
        store.run("kill", &[]);
        wait_for_log(&member, "store request is tried again");
        assert_eq!(task(&member)["state"], "RUNNING");
        store.run("start", &[]);
        wait_for_objects(&member);
        store.signal("STOP");
        std::thread::sleep(Duration::from_secs(2));
        store.signal("CONT");
    }
    wait_for_objects(&member);
    assert_eq!(member.takeovers()[&0], 1, "{}", member.running.last_lines());
    finish(&setup, load, member, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_brokers_and_moving_leaders_lose_nothing() {
    if service("SLUICE_TEST_KAFKA").is_none() {
        return;
    }
    let brokers = Own::kafka(3);
    let (kafka, topic) = (brokers.address(), unique("broker-kills"));
    let mut oracle = Oracle::start(&kafka);
    oracle.ask(&format!("create {topic} 3 3 min.insync.replicas=1"));
    let load = Load::start(&kafka, &topic, 3, 3_000);
    let setup = Setup::new(&kafka, &topic, &Sink::File, OFTEN);
    let member = member(&setup);
    wait_for_objects(&member);
    let pause = load.pause();
    for partition in 0..3 {
        let leader: i32 = oracle.ask(&format!("leader {topic} {partition}")).parse().unwrap();
        oracle.ask(&format!("move {topic} {partition} {}", leader % 3 + 1));
    }
    drop(pause);
    wait_for_objects(&member);
    let pause = load.pause();
    let leader = oracle.ask(&format!("leader {topic} 1"));
    brokers.run("kill", &[&leader]);
    assert_eq!(task(&member)["state"], "RUNNING");
    brokers.run("start", &[]);
    drop(pause);
    wait_for_objects(&member);
    assert_eq!(member.takeovers()[&0], 1, "{}", member.running.last_lines());
    finish(&setup, load, member, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_flight_at_sigterm_is_finished() {
    let (Some(kafka), Some(endpoint)) = (service("SLUICE_TEST_KAFKA"), service("SLUICE_TEST_MINIO")) else { return };
    let (topic, bucket) = (unique("in-flight"), unique("in-flight"));
    support::make_bucket(&endpoint, &bucket, MINIO_KEYS.0, MINIO_KEYS.1).await;
    let proxy = Arc::new(HoldingProxy::before(&endpoint).await);
    let load = Load::start(&kafka, &topic, 2, 2_000);
    let setup = Setup::new(&kafka, &topic, &minio(proxy.endpoint.clone(), &bucket), OFTEN);
    let mut member = member(&setup);
    proxy.hold().await;
    member.running.signal("TERM");
    wait_for_log(&member, "stopping: uploads in flight are finished");
    assert!(member.running.child.try_wait().unwrap().is_none());
    proxy.deliver();
    let status = block_in_place(|| member.running.child.wait().unwrap());
    assert!(status.success(), "{status}: {}", member.running.last_lines());
    let records = load.end();
    // The next owner finds that everything decided is there, and known to be.
    let mut next = setup.start(&["--until-caught-up"], "next.log");
    assert!(block_in_place(|| next.child.wait().unwrap()).success());
    let log = next.log();
    assert!(log.contains("pending=0 missing=0"), "{log}");
    setup.verify_records(records, 2);
}

fn played(server: &S3Server) -> Sink {
    minio(format!("http://{}", server.addr), BUCKET)
}

/// The answers to uploads are lost one time in two, the data is there.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_whose_answers_are_lost_are_found() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let server = S3Server::start(Play::S3).await;
    let mut count = 0;
    server.script(move |seen| {
        count += u64::from(is_data(seen));
        if is_data(seen) && count % 2 == 1 { Fate::LostAnswer } else { Fate::Well }
    });
    let topic = unique("lost-answers");
    let load = Load::start(&kafka, &topic, 2, 2_000);
    let setup = Setup::new(&kafka, &topic, &played(&server), OFTEN);
    let member = member(&setup);
    wait_for_objects(&member);
    wait_for_objects(&member);
    assert_eq!(server.overwritten(), 0);
    block_in_place(|| finish(&setup, load, member, 2));
    assert_eq!(server.overwritten(), 0);
}

/// 503 and closed connections for a while, then 403 to every upload: nothing is dropped, status says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_or_refuses_is_waited_for() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let server = S3Server::start(Play::S3).await;
    let topic = unique("refused");
    let load = Load::start(&kafka, &topic, 2, 2_000);
    let setup = Setup::new(&kafka, &topic, &played(&server), OFTEN);
    let member = member(&setup);
    wait_for_objects(&member);
    for fate in [Fate::Refused(503, "ServiceUnavailable", None), Fate::Reset] {
        let tried = member.running.log().matches("store request is tried again").count();
        server.script(move |_| fate.clone());
        let again = || member.running.log().matches("store request is tried again").count() > tried;
        wait_until(again, || member.running.last_lines());
        assert_eq!(task(&member)["state"], "RUNNING");
        server.heal();
        wait_for_objects(&member);
    }
    server.script(|seen| if is_data(seen) { Fate::Refused(403, "InvalidAccessKeyId", None) } else { Fate::Well });
    wait_for_log(&member, "InvalidAccessKeyId");
    assert_eq!(task(&member)["state"], "RUNNING");
    // Its next try would be in half a minute or more.
    member.running.kill();
    server.heal();
    let records = load.end();
    block_in_place(|| {
        setup.archive_to_the_end();
        setup.verify_records(records, 2);
    });
    assert_eq!(server.overwritten(), 0);
}

/// A store that takes a second object under the same key is not archived to.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_overwrites_is_refused_at_the_first_start() {
    let Some(kafka) = service("SLUICE_TEST_KAFKA") else { return };
    let server = S3Server::start(Play::Overwrites).await;
    let topic = unique("overwrites");
    let load = Load::start(&kafka, &topic, 2, 1_000);
    let setup = Setup::new(&kafka, &topic, &played(&server), OFTEN);
    let mut running = setup.start(&["--until-caught-up"], "refused.log");
    let status = block_in_place(|| running.child.wait().unwrap());
    load.end();
    println!("{status}: {}", running.last_lines());
    assert!(!status.success() && running.log().contains("overwr"), "{status}: {}", running.last_lines());
    assert!(!server.seen().iter().any(|seen| is_data(seen) && seen.key.contains(".lz4")), "no data was written");
}
