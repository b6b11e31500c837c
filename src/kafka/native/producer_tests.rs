//! On a broker that does what a test says; what a real one does is in the contract.

use super::*;
use crate::config::KafkaConfig;
use crate::kafka::native;
use crate::kafka::native::fake_broker::{FakeCluster, TOPIC, WriteReply};

fn records(values: &[&str]) -> Vec<Outgoing> {
    values.iter().map(|value| Outgoing { value: Some(value.as_bytes().to_vec()), ..Outgoing::default() }).collect()
}

async fn write(cluster: &FakeCluster, values: &[&str]) -> Vec<Outcome> {
    let kafka = native::connect(&KafkaConfig::plaintext(&cluster.address())).await.unwrap();
    kafka.produce(TOPIC, &records(values)).await
}

fn at(offset: i64) -> Outcome {
    Ok(Written { partition: 0, offset })
}

fn written(cluster: &FakeCluster) -> Vec<Vec<String>> {
    let text = |value: &Vec<u8>| String::from_utf8(value.clone()).unwrap();
    cluster.with(|state| state.written.iter().map(|batch| batch.iter().map(text).collect()).collect())
}

#[tokio::test]
async fn what_is_not_taken_now_is_written_later_in_its_order() {
    let cluster = FakeCluster::start(1).await;
    // Not the leader, timed out, too few replicas (before and after they have it), no leader yet, a disk, what nobody knows.
    let codes = [6, 7, 19, 20, 5, 56, -1];
    cluster.with(|state| state.write_replies.extend(codes.map(WriteReply::Error)));
    assert_eq!(write(&cluster, &["a", "b"]).await, [at(0), at(1)]);
    assert_eq!(written(&cluster), [["a", "b"]]);
}

#[tokio::test]
async fn a_leader_that_moves_is_followed() {
    let cluster = FakeCluster::start(2).await;
    cluster.with(|state| state.leader = 2);
    assert_eq!(write(&cluster, &["a"]).await, [at(0)]);
    cluster.with(|state| state.leader = 1);
    assert_eq!(write(&cluster, &["b"]).await, [at(1)]);
}

#[tokio::test]
async fn a_batch_whose_answer_is_lost_is_written_again() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.write_replies.push_back(WriteReply::Lost));
    assert_eq!(write(&cluster, &["a", "b"]).await, [at(2), at(3)]);
    assert_eq!(written(&cluster), [["a", "b"], ["a", "b"]]);
}

#[tokio::test]
async fn the_one_record_that_is_refused_is_found_among_the_others() {
    for (code, expected) in [(10, "too large"), (18, "too large"), (87, "INVALID_RECORD"), (32, "INVALID_TIMESTAMP")] {
        let cluster = FakeCluster::start(1).await;
        cluster.with(|state| state.refused_value = Some((b"bad".to_vec(), code)));
        let outcomes = write(&cluster, &["a", "b", "c", "bad", "d", "e", "f"]).await;
        let error = outcomes[3].clone().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let others: Vec<_> = outcomes.iter().filter(|outcome| outcome.is_ok()).cloned().collect();
        assert_eq!(others, (0..6).map(at).collect::<Vec<_>>());
        assert_eq!(written(&cluster).concat(), ["a", "b", "c", "d", "e", "f"]);
    }
}

#[tokio::test]
async fn a_refusal_is_told_at_once() {
    let cluster = FakeCluster::start(1).await;
    cluster.with(|state| state.write_replies.push_back(WriteReply::Error(29)));
    let outcomes = write(&cluster, &["a", "b"]).await;
    let refused = |outcome: &Outcome| matches!(outcome, Err(ProduceError::Refused { message, .. }) if message == "TOPIC_AUTHORIZATION_FAILED (29)");
    assert!(outcomes.iter().all(refused), "{outcomes:?}");
    assert!(written(&cluster).is_empty());
}
