//! Kafka's log is not what it was: the task stops, until somebody accepts it.

use super::*;
use sluice::pipeline::source::At;
use sluice::pipeline::source::Isolation;
use sluice::task::reset::{Plan, Subject, Wish, execute, plan};

#[tokio::test]
async fn a_decided_object_is_rebuilt_from_the_same_records_or_not_at_all() {
    let records: Vec<_> = (0..30).map(|n| (0, record("pay", &format!("{n}")))).collect();
    let (kafka_1, store) = (kafka(1, &records), Arc::new(MemoryStore::new()));
    world(&kafka_1, &store, "", "w").to_the_end().await.unwrap();
    let before = objects(&store).await;
    forget_upload(&store).await;
    world(&kafka_1, &store, "", "w").to_the_end().await.unwrap();
    assert_eq!(objects(&store).await, before);

    forget_upload(&store).await;
    let mut other = records.clone();
    other[17] = (0, record("pay", "changed"));
    let error = world(&kafka(1, &other), &store, "", "w").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::Core(CoreError::RebuildDiffers(_))), "{error}");
    assert_eq!(error.remedy(), Remedy::Damage);
    assert!(objects(&store).await.is_empty(), "nothing is uploaded");

    let error = world(&kafka(1, &records[..20]), &store, "", "w").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::KafkaLost(_)) && error.to_string().contains("ends at offset 20"), "{error}");
}

#[tokio::test]
async fn a_recreated_topic_stops_the_task() {
    let (kafka, store) = (kafka(1, &some_records()[..1]), Arc::new(MemoryStore::new()));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    kafka.delete_topic(TOPIC);
    kafka.create_topic(TOPIC, 1);
    kafka.append(TOPIC, 0, [record("a", "other"), record("a", "other")]).unwrap();
    let error = world(&kafka, &store, "", "w").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::Source(SourceError::Recreated { .. })), "{error}");
    assert_eq!(error.remedy(), Remedy::Damage);
}

#[tokio::test]
async fn retention_that_passed_the_position_stops_the_task() {
    let (kafka, store) = (kafka(1, &some_records()[..1]), Arc::new(MemoryStore::new()));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    kafka.append(TOPIC, 0, [record("a", "1"), record("a", "2"), record("a", "3")]).unwrap();
    kafka.delete_records(TOPIC, 0, 3);
    let error = world(&kafka, &store, "", "w").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::Source(SourceError::OutOfRange { offset: 1, log_start: 3, .. })), "{error}");
}

/// What `sluice offsets` does: says what it would do, then does it.
pub(super) async fn accept(kafka: &MemoryKafka, store: &Arc<MemoryStore>, wish: Wish) -> Plan {
    let subject = subject(kafka, store);
    let planned = plan(&subject, &wish).await.unwrap().unwrap();
    assert_eq!(execute(&subject, &wish).await.unwrap().unwrap(), planned);
    planned
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

fn pays(numbers: std::ops::Range<i64>) -> Vec<(i32, MemoryRecord)> {
    numbers.map(|n| (0, record("pay", &format!("{n}")))).collect()
}

#[tokio::test]
async fn an_accepted_loss_leaves_out_what_is_gone_and_nothing_else() {
    let (kafka, store, records) = half_archived(SMALL).await;
    let mark = world(&kafka, &store, SMALL, "w").state().await.least_cut()[&0];
    assert!(mark > 500);
    kafka.delete_records(TOPIC, 0, 500);
    let error = world(&kafka, &store, SMALL, "w").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::Source(SourceError::OutOfRange { offset: 0, log_start: 500, .. })), "{error}");
    let planned = accept(&kafka, &store, Wish::AcceptLoss).await;
    assert_eq!((planned.changes[0].low_before, planned.changes[0].low), (0, Some(500)));
    assert_eq!(planned.identity.incarnation, 0, "offsets mean what they meant");
    world(&kafka, &store, SMALL, "w").to_the_end().await.unwrap();
    // Files of `busy` hold everything below the mark; only `slow` was waiting.
    assert_exact(&store, &records[1..]).await;
    assert!(accept(&kafka, &store, Wish::AcceptLoss).await.changes.is_empty(), "nothing is left to accept");
}

#[tokio::test]
async fn what_is_left_of_a_decided_object_is_archived_once_the_loss_is_accepted() {
    // Of an uncompressed file the sidecar may have come, which tells of the whole object.
    for settings in ["", "compression: { codec: none }\n"] {
        for lost in [1, 20, 30] {
            let (kafka, store) = (kafka(1, &pays(0..30)), Arc::new(MemoryStore::new()));
            world(&kafka, &store, settings, "w").to_the_end().await.unwrap();
            forget_upload(&store).await;
            kafka.append(TOPIC, 0, [record("pay", "30")]).unwrap();
            kafka.delete_records(TOPIC, 0, lost);
            assert_eq!(world(&kafka, &store, settings, "w").to_the_end().await.unwrap_err().remedy(), Remedy::Damage);
            accept(&kafka, &store, Wish::AcceptLoss).await;
            let after = world(&kafka, &store, settings, "w");
            after.to_the_end().await.unwrap();
            assert_exact(&store, &pays(lost..31)).await;
            let state = after.state().await;
            assert!(state.is_settled() && state.short.is_empty(), "{state:?}");
        }
    }
}

#[tokio::test]
async fn records_after_an_accepted_truncation_get_keys_of_their_own() {
    let (kafka, store) = (kafka(1, &pays(0..30)), Arc::new(MemoryStore::new()));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    kafka.truncate(TOPIC, 0, 20);
    kafka.append(TOPIC, 0, [record("pay", "other 20"), record("pay", "other 21")]).unwrap();
    let error = world(&kafka, &store, "", "w").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::KafkaLost(_)), "{error}");
    let planned = accept(&kafka, &store, Wish::AcceptLoss).await;
    assert_eq!((planned.changes[0].low, planned.identity.incarnation), (Some(20), 1));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    let mut all = pays(0..30);
    all.extend([(0, record("pay", "other 20")), (0, record("pay", "other 21"))]);
    assert_exact(&store, &all).await;
    let keys: Vec<String> = objects(&store).await.into_keys().collect();
    assert!(keys.iter().any(|key| key.contains("_applogs~1+00000+00000000000000000020.")), "{keys:?}");
}

#[tokio::test]
async fn a_log_that_was_truncated_and_grew_again_is_noticed_by_its_leader_epoch() {
    let (kafka, store) = (kafka(1, &pays(0..30)), Arc::new(MemoryStore::new()));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    // Nobody was looking; it is longer than before.
    kafka.truncate(TOPIC, 0, 20);
    kafka.append(TOPIC, 0, (20..50).map(|n| record("pay", &format!("other {n}")))).unwrap();
    let error = world(&kafka, &store, "", "w").to_the_end().await.unwrap_err();
    assert!(matches!(&error, TaskError::Source(SourceError::Truncated { offset: 30, end_offset: 20, .. })), "{error}");
    assert_exact(&store, &pays(0..30)).await;
    let planned = accept(&kafka, &store, Wish::AcceptLoss).await;
    assert_eq!((planned.changes[0].low, planned.identity.incarnation), (Some(20), 1));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    let mut all = pays(0..30);
    all.extend((20..50).map(|n| (0, record("pay", &format!("other {n}")))));
    assert_exact(&store, &all).await;
}

#[tokio::test]
async fn a_topic_that_was_made_again_is_archived_beside_the_old_one_once_accepted() {
    let (kafka, store) = (kafka(2, &some_records()[..2]), Arc::new(MemoryStore::new()));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    forget_upload(&store).await;
    let left: Vec<String> = objects(&store).await.into_values().flatten().collect();
    kafka.delete_topic(TOPIC);
    kafka.create_topic(TOPIC, 1);
    kafka.append(TOPIC, 0, [record("app0", "other"), record("b", "other")]).unwrap();
    assert_eq!(world(&kafka, &store, "", "w").to_the_end().await.unwrap_err().remedy(), Remedy::Damage);
    let planned = accept(&kafka, &store, Wish::AcceptLoss).await;
    assert_eq!(planned.changes.iter().map(|change| change.low).collect::<Vec<_>>(), [Some(0), None]);
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    let new = [record("app0", "other"), record("b", "other")];
    let expected = sorted(left.into_iter().chain(new.iter().map(text)));
    assert_eq!(sorted(objects(&store).await.into_values().flatten()), expected);
}

#[tokio::test]
async fn offsets_that_are_set_archive_again_under_new_keys() {
    let (kafka, store) = (kafka(1, &pays(0..30)), Arc::new(MemoryStore::new()));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    let outside = subject(&kafka, &store);
    for offset in [-1, 31] {
        let wish = Wish::Set { partition: 0, offset };
        let error = execute(&outside, &wish).await.unwrap_err();
        assert!(error.to_string().contains("offsets 0 to 30"), "{error}");
    }
    accept(&kafka, &store, Wish::Set { partition: 0, offset: 10 }).await;
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    assert_exact(&store, &[pays(0..30), pays(10..30)].concat()).await;
    accept(&kafka, &store, Wish::To(At::Latest)).await;
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    accept(&kafka, &store, Wish::To(At::Earliest)).await;
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    assert_exact(&store, &[pays(0..30), pays(10..30), pays(0..30)].concat()).await;
}

#[tokio::test]
async fn a_reset_fences_a_running_owner() {
    let (kafka, store) = (kafka(1, &pays(0..3)), Arc::new(MemoryStore::new()));
    let first = world(&kafka, &store, "rotate: { max_interval: 1s }\n", "first");
    let (_stop, running) = first.start();
    first.until("the records are archived", |state| state.low(0) == Some(3)).await;
    accept(&kafka, &store, Wish::Set { partition: 0, offset: 1 }).await;
    kafka.append(TOPIC, 0, [record("pay", "3")]).unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(&error, TaskError::Log(LogError::Fenced { by, .. }) if by == "operator"), "{error}");
}

#[tokio::test]
async fn what_was_read_is_archived_before_a_task_fails_for_good() {
    let (kafka, store) = (kafka(3, &some_records()), Arc::new(MemoryStore::new()));
    let world = world(&kafka, &store, "", "w");
    let (_stop, running) = world.start();
    let read = || world.context.status.report().partitions.values().map(|p| p.position).sum::<i64>();
    let wait = async {
        while read() < 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    assert!(objects(&store).await.is_empty(), "nothing is due");
    kafka.delete_topic(TOPIC);
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(&error, TaskError::Source(SourceError::NoTopic { .. })), "{error}");
    // Nobody could ever read them again.
    assert_exact(&store, &some_records()).await;
}

#[tokio::test]
async fn a_compacted_topic_may_give_a_decided_object_fewer_records() {
    for gone in [vec![0, 4, 17], (0..30).collect()] {
        let (kafka, store) = (kafka(1, &pays(0..30)), Arc::new(MemoryStore::new()));
        world(&kafka, &store, "", "w").to_the_end().await.unwrap();
        forget_upload(&store).await;
        kafka.append(TOPIC, 0, [record("pay", "30")]).unwrap();
        kafka.compact(TOPIC, 0, &gone);
        world(&kafka, &store, "", "w").to_the_end().await.unwrap();
        let left: Vec<_> = (0..31).filter(|n| !gone.contains(n)).map(|n| (0, record("pay", &format!("{n}")))).collect();
        assert_exact(&store, &left).await;
    }
}
