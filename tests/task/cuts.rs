//! Other settings, other sharing of partitions: what was decided before is finished first.

use super::*;

#[tokio::test]
async fn a_change_of_settings_is_a_cut() {
    let (kafka, store, records) = half_archived(SMALL).await;
    let before = world(&kafka, &store, SMALL, "w").state().await;
    let cut = before.least_cut()[&0];
    assert!(!before.is_settled() && cut > 1 && cut <= 8001, "{before:?}");

    let json = SMALL.replace("frame_bytes", "codec: zstd, frame_bytes") + "format: json\n";
    let after = world(&kafka, &store, &json, "w");
    assert_eq!(after.to_the_end().await.unwrap(), End::CaughtUp);
    // Below the cut under the old settings, from it on under the new ones; every record once.
    let (new, old): (BTreeMap<_, _>, BTreeMap<_, _>) =
        objects(&store).await.into_iter().partition(|(key, _)| key.ends_with(".jsonl.zst"));
    let old: Vec<String> = sorted(old.into_values().flatten());
    let expected = records[..usize::try_from(cut).unwrap()].iter().map(|(_, record)| text(record));
    assert_eq!(old, sorted(expected));
    let offsets: Vec<i64> = sorted(new.into_values().flatten().map(|line| {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line["offset"].as_i64().unwrap()
    }));
    assert_eq!(offsets, (cut..8001).collect::<Vec<_>>());
    assert!(after.state().await.cut.is_none());
}

#[tokio::test]
async fn an_interrupted_cut_is_finished_where_it_was_chosen() {
    let (kafka, store, records) = half_archived(SMALL).await;
    let hourly = format!("{SMALL}time: {{ bucket: 1h }}\n");
    let second = world(&kafka, &store, &hourly, "second");
    // What lies below the cut can't be uploaded: the cut waits.
    let no_uploads = second.context.uploads.clone().acquire_many_owned(4).await.unwrap();
    let (stop, running) = second.start();
    second.until("the cut is logged", |state| state.cut.is_some()).await;
    let cut = second.state().await.cut.unwrap();
    stop.cancel();
    drop(no_uploads);
    assert_eq!(running.await.unwrap().unwrap(), End::Stopped);
    assert_eq!(second.state().await.cut, Some(cut.clone()));
    // More records, other settings again: the cut stays.
    kafka.append(TOPIC, 0, [record("busy", "later")]).unwrap();
    let third = world(&kafka, &store, &format!("{SMALL}time: {{ bucket: none }}\n"), "third");
    assert_eq!(third.to_the_end().await.unwrap(), End::CaughtUp);
    let mut all = records;
    all.push((0, record("busy", "later")));
    assert_exact(&store, &all).await;
    let state = third.state().await;
    assert!(state.cut.is_none() && state.is_settled());
    let content = &state.settings.unwrap().content;
    assert_eq!(content["time"]["bucket"], "none");
}

#[tokio::test]
async fn partitions_that_are_left_out_keep_their_place() {
    let (kafka, store) = (kafka(3, &some_records()), Arc::new(MemoryStore::new()));
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    for partition in 0..3 {
        kafka.append(TOPIC, partition, [record("late", &format!("partition {partition}"))]).unwrap();
    }
    let narrow = world(&kafka, &store, "partitions: [1]\n", "w");
    narrow.to_the_end().await.unwrap();
    let mut all = some_records();
    all.push((1, record("late", "partition 1")));
    assert_exact(&store, &all).await;
    world(&kafka, &store, "", "w").to_the_end().await.unwrap();
    all.extend([0, 2].map(|partition| (partition, record("late", &format!("partition {partition}")))));
    assert_exact(&store, &all).await;
}

#[tokio::test]
async fn a_closed_log_is_finished_and_the_next_mapping_begins_where_it_ended() {
    let (kafka, store, records) = half_archived(SMALL).await;
    let old = world(&kafka, &store, SMALL, "w");
    let stop = CancellationToken::new();
    let End::Closed(state) = close(&old.context, 2, stop.clone()).await.unwrap() else { panic!("not closed") };
    assert!(state.is_settled() && state.closed == Some(2));
    // Again: nothing more is written. Who only wants to archive finds it closed.
    assert_eq!(close(&old.context, 2, stop).await.unwrap(), End::Closed(state.clone()));
    assert!(matches!(old.to_the_end().await.unwrap(), End::Closed(_)));

    let lows = state.lows.iter().map(|(&partition, low)| (partition, low.offset)).collect();
    let origin = Origin { identity: state.identity.clone(), lows, skipped: state.skips.as_slice().to_vec() };
    kafka.create_topic(TOPIC, 4);
    kafka.append(TOPIC, 2, [record("new", "partition")]).unwrap();
    for task in 0..2 {
        let mut next = world(&kafka, &store, "start_from: latest\n", "w");
        let context = Arc::get_mut(&mut next.context).unwrap();
        (context.task, context.tasks_max, context.origin) = (task, 2, Some(Arc::new(origin.clone())));
        context.log = Arc::new(StoreLog::new(store.clone(), &format!("_sluice/app-logs/applogs/2/{task}")));
        assert_eq!(next.to_the_end().await.unwrap(), End::CaughtUp);
    }
    let mut all = records;
    all.push((2, record("new", "partition")));
    assert_exact(&store, &all).await;
}
