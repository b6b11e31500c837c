#![allow(clippy::panic, reason = "a failed expectation ends the test")]

use bytes::Bytes;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::fetch_response::{EpochEndOffset, LeaderIdAndEpoch};
use uuid::Uuid;

use super::*;
use crate::config::KafkaConfig;
use crate::kafka::contract::Reading as Read;
use crate::kafka::native;
use crate::kafka::native::fake_broker::{self, FakeCluster, Reply, TOPIC, error, partition};
use crate::pipeline::budget::Budget;
use crate::pipeline::source::Position;

fn batch(first: i64, count: usize, value_bytes: usize) -> (i64, i64, Vec<u8>) {
    fake_broker::batch(first, std::iter::repeat_n(vec![7; value_bytes], count))
}

async fn read(cluster: &FakeCluster, offset: i64) -> Read {
    read_after(cluster, offset, None).await
}

/// A read where a former one came to `seen`.
async fn read_after(cluster: &FakeCluster, offset: i64, seen: Option<Position>) -> Read {
    let kafka = native::connect(&KafkaConfig::plaintext(&cluster.address())).await.unwrap();
    let request = ReadRequest {
        topic: TOPIC.into(),
        topic_id: None,
        isolation: Isolation::ReadCommitted,
        starts: vec![(0, offset)],
        seen: seen.map(|seen| (0, seen)).into_iter().collect(),
        budget: Budget::new(64 << 20),
    };
    Read::with_request(&*kafka, request)
}

async fn offsets(reading: &mut Read, count: usize) -> Vec<i64> {
    reading.records(0, count).await.into_iter().map(|(offset, _)| offset).collect()
}

#[tokio::test]
async fn requests_after_the_first_name_only_what_changed() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.log.push(batch(0, 3, 10)));
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 3).await, [0, 1, 2]);
    let idle = |state: &mut fake_broker::State| state.fetches.iter().filter(|(_, each)| each.topics.is_empty()).count();
    while cluster.with(idle) < 3 {
        tokio::task::yield_now().await;
    }
    cluster.reply(1, |_| kafka_protocol::messages::FetchResponse::default().with_error_code(70));
    cluster.with(|state| state.log.push(batch(3, 1, 10)));
    assert_eq!(offsets(&mut reading, 1).await, [3]);
    let epochs: Vec<i32> = cluster.with(|state| state.fetches.iter().map(|(_, each)| each.session_epoch).collect());
    assert_eq!(epochs[..3], [0, 1, 2]);
    assert_eq!(
        epochs.iter().filter(|&&epoch| epoch == 0).count(),
        2,
        "{epochs:?}: a lost session is started once more"
    );
}

#[tokio::test]
async fn a_broker_without_sessions_is_read_all_the_same() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.sessions = false);
    let mut reading = read(&cluster, 0).await;
    for n in 0..5 {
        cluster.with(|state| state.log.push(batch(n, 1, 10)));
        assert_eq!(offsets(&mut reading, 1).await, [n]);
    }
}

#[tokio::test]
async fn the_oldest_kafka_is_read_by_name_and_without_ids() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| {
        state.versions = [2, 7, 4, 10];
        state.log.push(batch(0, 2, 10));
    });
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 2).await, [0, 1]);
    cluster.with(|state| {
        let topic = &state.fetches[0].1.topics[0];
        assert_eq!((topic.topic.as_str(), topic.topic_id), (TOPIC, Uuid::nil()));
        assert_eq!(topic.partitions[0].current_leader_epoch, 5);
    });
    cluster.with(|state| state.versions = [2, 7, 4, 9]);
    let mut too_old = read(&cluster, 0).await;
    let error = too_old.failure().await;
    assert!(matches!(&error, SourceError::Refused { message, .. } if message.contains("Fetch 0 to 9")), "{error}");
}

/// What is logged on this thread, on which a test's tasks run as well.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn brokers_without_topic_ids_are_told_once() {
    for (metadata, fetch, said) in [(9, 10, Some("before 2.8")), (11, 12, Some("before 3.1")), (12, 13, None)] {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let cluster = FakeCluster::start(1).await;
        cluster.with(|state| {
            state.versions = [3, metadata, 8, fetch];
            state.log.push(batch(0, 2, 10));
        });
        let mut reading = read(&cluster, 0).await;
        assert_eq!(offsets(&mut reading, 2).await, [0, 1]);
        cluster.with(|state| state.log.push(batch(2, 1, 10)));
        assert_eq!(offsets(&mut reading, 1).await, [2]);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("is deleted and made again").count(), usize::from(said.is_some()), "{text}");
        assert!(said.is_none_or(|said| text.contains(said)), "{text}");
    }
}

#[tokio::test]
async fn a_log_that_went_another_way_is_a_truncation() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.log.push(batch(0, 10, 10)));
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 10).await.len(), 10);
    cluster.reply(1, |request| {
        let diverging = EpochEndOffset::default().with_epoch(4).with_end_offset(6);
        partition(request, error(0).with_diverging_epoch(diverging))
    });
    let failure = reading.failure().await;
    assert!(matches!(failure, SourceError::Truncated { offset: 10, end_offset: 6, .. }), "{failure}");
    let epochs: Vec<i32> = cluster.with(|state| {
        let partitions = state.fetches.iter().filter_map(|(_, each)| each.topics.first());
        partitions.map(|topic| topic.partitions[0].last_fetched_epoch).collect()
    });
    assert_eq!(epochs, [-1, 5], "the epoch of the last batch is sent once there is one");
}

fn seen(offset: i64, leader_epoch: i32) -> Option<Position> {
    Some(Position { offset, leader_epoch: Some(leader_epoch) })
}

#[tokio::test]
async fn a_log_that_went_another_way_while_nobody_read_is_a_truncation() {
    // Epoch 4 ended at 6, then the log was written on from there in epoch 5: all of it is longer than what was seen.
    for (start, before, end) in [(0, seen(10, 4), 6), (2, seen(10, 3), 0), (6, seen(11, 6), 0)] {
        let cluster = FakeCluster::start(1).await;
        cluster.with(|state| {
            state.log.push(batch(0, 20, 10));
            state.epochs = Some(vec![(4, 0), (5, 6)]);
        });
        let failure = read_after(&cluster, start, before).await.failure().await;
        let offset = before.unwrap().offset;
        assert!(
            matches!(failure, SourceError::Truncated { offset: at, end_offset, .. } if at == offset && end_offset == end),
            "{before:?}: {failure}"
        );
        assert_eq!(cluster.with(|state| state.fetches.len()), 0, "nothing was read before");
    }
}

#[tokio::test]
async fn a_log_that_is_not_read_can_be_asked_whether_it_is_the_same() {
    for (before, end) in
        [(seen(10, 4), Some((6, Some(4)))), (seen(10, 3), Some((0, Some(3)))), (seen(6, 4), None), (seen(20, 5), None)]
    {
        let cluster = FakeCluster::start(1).await;
        cluster.with(|state| {
            state.log.push(batch(0, 20, 10));
            state.epochs = Some(vec![(4, 0), (5, 6)]);
        });
        let kafka = native::connect(&KafkaConfig::plaintext(&cluster.address())).await.unwrap();
        let found = kafka.diverged(TOPIC, 0, before.unwrap()).await.unwrap();
        assert_eq!(found.map(|found| (found.offset, found.leader_epoch)), end, "{before:?}");
        let unknown = Position { offset: 99, leader_epoch: None };
        assert_eq!(kafka.diverged(TOPIC, 0, unknown).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_log_that_is_the_same_is_read_on() {
    for before in [seen(6, 4), seen(20, 5), seen(3, 4), Some(Position { offset: 99, leader_epoch: None }), None] {
        let cluster = FakeCluster::start(1).await;
        cluster.with(|state| {
            state.log.push(batch(0, 20, 10));
            state.epochs = Some(vec![(4, 0), (5, 6)]);
        });
        let mut reading = read_after(&cluster, 1, before).await;
        assert_eq!(offsets(&mut reading, 19).await.len(), 19);
        let asked = before.and_then(|seen| seen.leader_epoch).map(|epoch| (1, 5, epoch));
        assert_eq!(cluster.with(|state| state.epochs_asked.clone()), Vec::from_iter(asked), "{before:?}");
    }
}

#[tokio::test]
async fn each_new_leader_is_asked_before_it_is_read() {
    let cluster = FakeCluster::start(2).await;
    cluster.with(|state| {
        state.log.push(batch(0, 2, 10));
        state.epochs = Some(vec![(5, 0)]);
        // The oldest fetches say nothing of epochs themselves.
        state.versions[3] = 10;
    });
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 2).await, [0, 1]);
    cluster.with(|state| {
        (state.leader, state.leader_epoch) = (2, 6);
        state.log.push(batch(2, 1, 10));
        state.epochs = Some(vec![(5, 0), (6, 2)]);
    });
    cluster.reply(1, |request| partition(request, error(6)));
    assert_eq!(offsets(&mut reading, 1).await, [2]);
    assert_eq!(cluster.with(|state| state.epochs_asked.clone()), [(2, 6, 5)]);
    cluster.with(|state| {
        (state.leader, state.leader_epoch) = (1, 7);
        state.log.push(batch(3, 9, 10));
        state.epochs = Some(vec![(5, 0), (7, 1)]);
    });
    cluster.reply(2, |request| partition(request, error(6)));
    let failure = reading.failure().await;
    assert!(matches!(failure, SourceError::Truncated { offset: 3, end_offset: 1, .. }), "{failure}");
}

#[tokio::test]
async fn brokers_that_know_no_epochs_are_read_all_the_same() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.log.push(batch(0, 5, 10)));
    let mut reading = read_after(&cluster, 1, seen(5, 5)).await;
    assert_eq!(offsets(&mut reading, 4).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_fenced_fetch_follows_the_leader_that_the_broker_names() {
    let cluster = FakeCluster::start(2).await;
    cluster.with(|state| state.log.push(batch(0, 2, 10)));
    cluster.reply(1, |request| {
        let leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(2)).with_leader_epoch(6);
        partition(request, error(74).with_current_leader(leader))
    });
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 2).await, [0, 1]);
    let (broker, request) = cluster.with(|state| state.fetches[1].clone());
    assert_eq!((broker, request.topics[0].partitions[0].current_leader_epoch), (2, 6));
}

#[tokio::test]
async fn a_moved_leader_is_found_by_metadata_and_old_news_are_ignored() {
    let cluster = FakeCluster::start(2).await;
    cluster.with(|state| {
        state.log.push(batch(0, 2, 10));
        (state.leader, state.leader_epoch) = (2, 6);
    });
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 2).await, [0, 1]);
    // Broker 2 is no leader any more, but metadata are older than what is known, for a while.
    cluster.with(|state| (state.leader, state.leader_epoch) = (1, 5));
    cluster.reply(2, |request| partition(request, error(6)));
    let asked = cluster.with(|state| state.metadata_asked);
    while cluster.with(|state| state.metadata_asked < asked + 3) {
        tokio::task::yield_now().await;
    }
    cluster.with(|state| {
        (state.leader, state.leader_epoch) = (1, 7);
        state.log.push(batch(2, 1, 10));
    });
    assert_eq!(offsets(&mut reading, 1).await, [2]);
    let epochs = cluster.with(|state| {
        let topics = state.fetches.iter().filter_map(|(broker, each)| Some((*broker, each.topics.first()?)));
        topics.map(|(broker, topic)| (broker, topic.partitions[0].current_leader_epoch)).collect::<Vec<_>>()
    });
    assert!(epochs.iter().all(|each| [(2, 6), (1, 7)].contains(each)), "{epochs:?}");
}

#[tokio::test]
async fn a_nearer_replica_is_read_until_it_is_behind() {
    let cluster = FakeCluster::start(2).await;
    cluster.with(|state| state.log.push(batch(0, 2, 10)));
    cluster.reply(1, |request| {
        partition(request, error(0).with_preferred_read_replica(BrokerId(2)).with_last_stable_offset(2))
    });
    cluster.reply(2, |request| partition(request, error(1)));
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 2).await, [0, 1]);
    let brokers: Vec<i32> = cluster.with(|state| state.fetches.iter().map(|fetch| fetch.0).take(3).collect());
    assert_eq!(brokers, [1, 2, 1], "the leader is asked before the follower is believed");
}

#[tokio::test]
async fn damaged_answers_are_asked_for_again() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| {
        state.log.push(batch(0, 2, 10));
        let raw = [
            vec![],
            vec![0x7f, 0xff, 0xff, 0xff],
            vec![0xff, 0xff, 0xff, 0xff],
            vec![0, 0, 0, 8, 9, 9, 9, 9, 9, 9, 9, 9],
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        ];
        state.replies.entry(1).or_default().extend(raw.map(Reply::Raw));
    });
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 2).await, [0, 1]);
}

#[tokio::test]
async fn a_position_below_the_log_is_told_with_its_ends() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| {
        state.log.push(batch(20, 5, 10));
        state.log_start = 20;
    });
    cluster.reply(1, |request| partition(request, error(1)));
    let failure = read(&cluster, 3).await.failure().await;
    assert!(matches!(failure, SourceError::OutOfRange { offset: 3, log_start: 20, log_end: 25, .. }), "{failure}");
}

#[tokio::test]
async fn a_position_that_only_one_answer_calls_out_of_range_is_read_on() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.log.push(batch(0, 5, 10)));
    cluster.reply(1, |request| partition(request, error(1)));
    let mut reading = read(&cluster, 2).await;
    assert_eq!(offsets(&mut reading, 3).await, [2, 3, 4]);
}

#[tokio::test]
async fn answers_without_progress_are_a_failure_and_no_endless_loop() {
    let cluster = FakeCluster::start(1).await;
    for _ in 0..STUCK_LIMIT {
        cluster.reply(1, |request| {
            let records = Some(Bytes::from(batch(0, 2, 10).2));
            partition(request, error(0).with_last_stable_offset(9).with_records(records))
        });
    }
    let failure = read(&cluster, 7).await.failure().await;
    assert!(matches!(failure, SourceError::Unreadable { offset: 7, .. }), "{failure}");
}

#[tokio::test]
async fn a_batch_that_is_cut_off_is_asked_for_whole() {
    let cluster = FakeCluster::start(1).await;
    let large = batch(0, 1, 3_000_000);
    let part = large.2[..1_000_000].to_vec();
    cluster.with(|state| state.log.push(large));
    cluster.reply(1, move |request| {
        partition(request, error(0).with_last_stable_offset(1).with_records(Some(part.into())))
    });
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 1).await, [0]);
    let sizes: Vec<i32> = cluster.with(|state| {
        let topics = state.fetches.iter().filter_map(|(_, each)| each.topics.first());
        topics.map(|topic| topic.partitions[0].partition_max_bytes).collect()
    });
    assert!(sizes[0] == PARTITION_BYTES && sizes[1] > 3_000_000, "{sizes:?}");
}

#[tokio::test]
async fn records_before_a_damaged_batch_are_shown() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| {
        let mut damaged = batch(2, 1, 10);
        damaged.2[40] ^= 1;
        state.log.extend([batch(0, 2, 10), damaged]);
    });
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 2).await, [0, 1]);
    let failure = reading.failure().await;
    assert!(
        matches!(&failure, SourceError::Unreadable { offset: 2, message, .. } if message.contains("checksum")),
        "{failure}"
    );
}

#[tokio::test]
async fn a_new_topic_id_is_a_recreated_topic() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.log.push(batch(0, 2, 10)));
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 2).await, [0, 1]);
    cluster.with(|state| state.topic_id = Uuid::from_bytes([2; 16]));
    cluster.reply(1, |request| partition(request, error(100)));
    let failure = reading.failure().await;
    assert!(matches!(&failure, SourceError::Recreated { found, .. } if found == &"02".repeat(16)), "{failure}");
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_left_for_a_new_connection() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| {
        state.log.push(batch(0, 3, 10));
        state.replies.entry(1).or_default().push_back(Reply::Hang);
    });
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 3).await, [0, 1, 2]);
    let epochs: Vec<i32> = cluster.with(|state| state.fetches.iter().map(|(_, each)| each.session_epoch).collect());
    assert_eq!(epochs[..2], [0, 0], "each connection has a session of its own");
}

#[tokio::test]
async fn a_slow_broker_is_waited_for() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| {
        state.log.push(batch(0, 3, 10_000));
        state.replies.entry(1).or_default().push_back(Reply::Slow(Duration::from_millis(2600)));
    });
    // Longer in all than any limit, but never silent for so long.
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 3).await, [0, 1, 2]);
    assert_eq!(cluster.with(|state| state.fetches[0].1.session_epoch), 0);
    assert!(
        cluster.with(|state| state.fetches.iter().skip(1).all(|(_, each)| each.session_epoch > 0)),
        "one connection"
    );
}

#[tokio::test]
async fn a_throttled_client_keeps_quiet() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.log.push(batch(0, 3, 10)));
    cluster.reply(1, |request| {
        let end = error(0).with_last_stable_offset(0).with_high_watermark(0);
        partition(request, end).with_throttle_time_ms(700).with_session_id(9)
    });
    let mut reading = read(&cluster, 0).await;
    assert_eq!(offsets(&mut reading, 3).await, [0, 1, 2]);
    let at = cluster.with(|state| state.fetched_at.clone());
    assert!(at[1] - at[0] >= Duration::from_millis(700), "{:?}", at[1] - at[0]);
}

#[tokio::test]
async fn a_decoder_that_panics_is_a_failure_with_its_place() {
    use crate::kafka::native::decoding::tests::PANIC_IN;
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.log.push(batch(0, 3, 10)));
    let mut reading = read(&cluster, 1).await;
    assert_eq!(offsets(&mut reading, 2).await, [1, 2]);
    PANIC_IN.set(0);
    cluster.with(|state| state.log.push(batch(3, 2, 10)));
    let failure = reading.failure().await;
    assert!(
        matches!(&failure, SourceError::Unreadable { offset: 3, message, .. } if message.contains("as the test wants")),
        "{failure}"
    );
}

#[tokio::test]
async fn a_reader_that_panics_fails_every_partition() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.log.push(batch(0, 3, 10)));
    // This one answer is taken apart in the reader's own task.
    super::answers::tests::PANIC.set(true);
    let failure = read(&cluster, 1).await.failure().await;
    assert!(
        matches!(&failure, SourceError::Unreachable { what, message } if what.contains("partition 0") && message.contains("panicked")),
        "{failure}"
    );
}

#[tokio::test]
async fn a_decoder_that_is_gone_is_noticed() {
    let cluster = FakeCluster::start(1).await;
    let kafka = Arc::new(Cluster::new(&KafkaConfig::plaintext(&cluster.address())).unwrap());
    let request = ReadRequest {
        topic: TOPIC.into(),
        topic_id: None,
        isolation: Isolation::ReadCommitted,
        starts: vec![(0, 0)],
        seen: Vec::new(),
        budget: Budget::new(64 << 20),
    };
    let (sender, mut events) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let mut reading = Reading::new(kafka, request, sender, &stop);
    reading.jobs = vec![mpsc::unbounded_channel().0];
    tokio::spawn(reading.run_to_the_end());
    let event = events.recv().await;
    assert!(matches!(&event, Some(SourceEvent::Failed { partition: 0, .. })), "{event:?}");
}
