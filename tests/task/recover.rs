//! Logs that are lost, and rebuilt from what they decided.

use super::verify::{share, verifier};
use super::*;
use sluice::reading::place::Place;
use sluice::recover::report::{Action, Report};
use sluice::recover::{RecoverError, Recoverer};
use sluice::verify::{Options, Silent};

fn recoverer(kafka: &MemoryKafka, store: &Arc<MemoryStore>, settings: &str) -> Recoverer {
    let environment = Environment::system();
    let store_dyn = Arc::clone(store) as Arc<dyn Store>;
    Recoverer {
        connector: Arc::clone(&world(kafka, store, settings, "w").context.connector),
        place: Place::of_store(Arc::clone(&store_dyn), &environment),
        store: store_dyn,
        state: None,
        kafka: Arc::new(kafka.clone()),
        environment,
        by: "operator".to_owned(),
        progress: Arc::new(Silent),
    }
}

async fn recover(kafka: &MemoryKafka, store: &Arc<MemoryStore>, settings: &str) -> Report {
    let recoverer = recoverer(kafka, store, settings);
    let planned = recoverer.run(false).await.unwrap();
    let done = recoverer.run(true).await.unwrap();
    assert_eq!(Report { executed: true, ..planned }, done);
    done
}

/// Everything below `_sluice/` is deleted.
async fn lose_log(store: &MemoryStore) {
    let page = store.list("_sluice/", Depth::All, None, 1000).await.unwrap();
    for object in page.objects {
        store.delete(&object.key).await.unwrap();
    }
}

async fn assert_goes_on(
    kafka: &MemoryKafka,
    store: &Arc<MemoryStore>,
    settings: &str,
    records: &[(i32, MemoryRecord)],
) {
    world(kafka, store, settings, "w").to_the_end().await.unwrap();
    assert_exact(store, records).await;
    let report = verifier(store, None).run(&Options::default()).await.unwrap();
    assert!(report.proven, "{}", report.as_text());
}

#[tokio::test]
async fn a_lost_log_is_rebuilt_and_each_further_record_is_archived_once() {
    let (kafka, store) = (kafka(3, &some_records()), Arc::new(MemoryStore::new()));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    let before = world(&kafka, &store, "", "w").state().await;
    let objects_before = objects(&store).await;
    lose_log(&store).await;
    let report = recover(&kafka, &store, "").await;
    assert_eq!((report.topics[0].objects, report.topics[0].tasks.len()), (7, 1));
    assert!(
        report.as_text().contains("its log is gone") && report.as_text().contains("done; start"),
        "{}",
        report.as_text()
    );
    let state = world(&kafka, &store, "", "w").state().await;
    let lows = |state: &sluice::ledger::State| state.lows.iter().map(|(p, low)| (*p, low.offset)).collect::<Vec<_>>();
    assert_eq!(lows(&state), lows(&before), "low goes on to the end of what the objects hold");
    assert_eq!(state.begins, before.begins);
    assert!(state.marks.is_empty() && state.intents.is_empty());
    // A restart finds nothing to do; then more comes.
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    assert_eq!(objects(&store).await, objects_before);
    let mut all = some_records();
    for n in 0..50 {
        let more = (1, record("app1", &format!("later {n}")));
        kafka.append(TOPIC, 1, [more.1.clone()]).unwrap();
        all.push(more);
    }
    assert_goes_on(&kafka, &store, "", &all).await;
    // What is whole is left alone.
    let report = recover(&kafka, &store, "").await;
    assert_eq!(report.topics[0].tasks[0].action, Action::Nothing, "{}", report.as_text());
}

#[tokio::test]
async fn objects_above_low_are_not_doubled() {
    let (kafka, store, records) = half_archived(SMALL).await;
    let before = world(&kafka, &store, SMALL, "w").state().await;
    lose_log(&store).await;
    let report = recover(&kafka, &store, SMALL).await;
    let found = &report.topics[0].tasks[0].partitions[&0];
    assert_eq!((found.low, found.low_before, found.highest_mark), (0, None, before.least_cut()[&0]));
    assert_eq!(world(&kafka, &store, SMALL, "w").state().await.marks, before.marks);
    assert_goes_on(&kafka, &store, SMALL, &records).await;
}

#[tokio::test]
async fn an_object_that_was_decided_and_is_not_there_is_decided_anew() {
    let (kafka, store, mut records) = half_archived(SMALL).await;
    for n in 0..12_000 {
        let more = (0, record("busy", &format!("{:064x}", u128::MAX / (n + 7))));
        kafka.append(TOPIC, 0, [more.1.clone()]).unwrap();
        records.push(more);
    }
    let next = world(&kafka, &store, SMALL, "w");
    let (stop, running) = next.start();
    next.until("most of busy is done", |state| state.least_cut()[&0] > 14_000 && state.intents.is_empty()).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    // One between others of its lane, and the first.
    for skip in [1, 0] {
        let keys: Vec<String> = objects(&store).await.into_keys().collect();
        assert!(keys.len() > 2, "{keys:?}");
        store.delete(&keys[skip]).await.unwrap();
        lose_log(&store).await;
        let report = recover(&kafka, &store, SMALL).await;
        assert_eq!(report.topics[0].tasks[0].decided_anew, [keys[skip].clone()], "{}", report.as_text());
        let state = world(&kafka, &store, SMALL, "w").state().await;
        assert_eq!(state.intents.len(), 1);
        assert!(state.intents.values().all(|pending| pending.log_number == state.tip));
    }
    assert_goes_on(&kafka, &store, SMALL, &records).await;
}

#[tokio::test]
async fn a_log_that_lost_its_snapshot_goes_on_behind_what_is_left() {
    let (kafka, store, records) = half_archived(SMALL).await;
    share(&store).await;
    let door = log(&store);
    let numbers = door.numbers(0).await.unwrap();
    door.delete(numbers[1]).await.unwrap();
    assert!(read_state(&door, &Environment::system()).await.is_err());
    let report = recover(&kafka, &store, SMALL).await;
    assert!(report.as_text().contains("its log is damaged: entry 2: it is missing"), "{}", report.as_text());
    assert_eq!(door.numbers(0).await.unwrap().last().unwrap() - numbers.last().unwrap(), 2, "Takeover and Snapshot");
    assert_goes_on(&kafka, &store, SMALL, &records).await;
}

#[tokio::test]
async fn a_worker_that_still_runs_is_fenced_even_where_nothing_of_its_log_is_left() {
    let (kafka, store, mut records) = half_archived(SMALL).await;
    let running = world(&kafka, &store, "rotate: { max_interval: 1s }\n", "old");
    // The old owner comes to its end of what is there before its log vanishes.
    let settled = world(&kafka, &store, SMALL, "w");
    settled.to_the_end().await.unwrap();
    let (_stop, task) = running.start();
    running
        .until("the old owner owns the task", |state| {
            state.owner.as_ref().is_some_and(|owner| owner.worker == "old") && state.cut.is_none()
        })
        .await;
    lose_log(&store).await;
    recover(&kafka, &store, "rotate: { max_interval: 1s }\n").await;
    let more = (0, record("busy", "one more"));
    kafka.append(TOPIC, 0, [more.1.clone()]).unwrap();
    records.push(more);
    let ended =
        tokio::time::timeout(Duration::from_secs(60), task).await.unwrap_or_else(|_| panic!("the old owner goes on"));
    let error = ended.unwrap().unwrap_err();
    assert!(matches!(&error, TaskError::Log(LogError::Fenced { by, .. }) if by == "operator"), "{error}");
    assert_goes_on(&kafka, &store, "rotate: { max_interval: 1s }\n", &records).await;
}

#[tokio::test]
async fn objects_of_another_topic_are_not_taken_and_never_met() {
    let (kafka, store) = (kafka(1, &some_records()[..1]), Arc::new(MemoryStore::new()));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    lose_log(&store).await;
    kafka.delete_topic(TOPIC);
    kafka.create_topic(TOPIC, 1);
    kafka.append(TOPIC, 0, [record("app0", "record 0"), record("app0", "other")]).unwrap();
    let report = recover(&kafka, &store, "").await;
    assert!(report.topics.is_empty() && report.as_text().contains("it is of topic id"), "{}", report.as_text());
    assert!(!report.writes());
}

#[tokio::test]
async fn settings_that_split_otherwise_are_refused_above_low() {
    let (kafka, store, records) = half_archived(SMALL).await;
    lose_log(&store).await;
    let error = recoverer(&kafka, &store, "format: json\n").run(true).await.unwrap_err();
    assert!(
        matches!(&error, RecoverError::Refused(why) if why.contains("was written under other settings")),
        "{error}"
    );
    recover(&kafka, &store, SMALL).await;
    assert_goes_on(&kafka, &store, SMALL, &records).await;
}

#[tokio::test]
async fn what_was_left_out_before_stays_left_out() {
    let mut records = some_records();
    records.insert(50, (2, MemoryRecord::value("not JSON")));
    let (kafka, store) = (kafka(3, &records), Arc::new(MemoryStore::new()));
    kafka.append_gap(TOPIC, 1, 5);
    records.push((1, record("app1", "behind the gap")));
    kafka.append(TOPIC, 1, [records[201].1.clone()]).unwrap();
    world(&kafka, &store, "on_error: skip\n", "w").to_the_end().await.unwrap();
    lose_log(&store).await;
    recover(&kafka, &store, "on_error: skip\n").await;
    records.remove(50);
    assert_goes_on(&kafka, &store, "on_error: skip\n", &records).await;
}
