//! What is in no object is told: by an object's index, and until there is one by the log.

use super::*;
use sluice::archive::index::{SkipReason, Skipped};
use sluice::task::reset::Wish;

fn skipped(first: i64, last: i64, reason: SkipReason) -> Skipped {
    Skipped { partition: 0, first, last, reason, incarnation: 0, scattered: None }
}

/// What the objects tell, in the order of their keys.
async fn told(store: &MemoryStore) -> Vec<Skipped> {
    let mut told = Vec::new();
    for key in objects(store).await.keys() {
        let bytes = store.get(key, ByteRange::All, None).await.unwrap().unwrap().bytes;
        let Ok(IndexRead::Index(index)) = read_index(Codec::Lz4, bytes.len() as u64, &bytes) else {
            panic!("no index")
        };
        told.extend(index.facts.skipped);
    }
    told
}

async fn waiting(world: &World) -> Vec<Skipped> {
    world.state().await.skips.as_slice().to_vec()
}

const SKIP: &str = "on_error: skip\n";

/// Offsets 0 and 4 are records, 1 is none that can be split, 2, 3 and 5 are holes; all of it was read.
async fn with_holes() -> (MemoryKafka, Arc<MemoryStore>, Vec<Skipped>) {
    let (kafka, store) = (kafka(1, &[(0, record("a", "0")), (0, MemoryRecord::value("not JSON"))]), MemoryStore::new());
    let store = Arc::new(store);
    kafka.append_gap(TOPIC, 0, 2);
    kafka.append(TOPIC, 0, [record("a", "4")]).unwrap();
    kafka.append_gap(TOPIC, 0, 1);
    let world = world(&kafka, &store, SKIP, "w");
    world.to_the_end().await.unwrap();
    let left_out =
        vec![skipped(1, 1, SkipReason::Rule), skipped(2, 3, SkipReason::Hole), skipped(5, 5, SkipReason::Hole)];
    assert_eq!((world.state().await.low(0), waiting(&world).await), (Some(6), left_out.clone()));
    (kafka, store, left_out)
}

#[tokio::test]
async fn what_was_left_out_is_told_by_the_next_object() {
    let (kafka, store, left_out) = with_holes().await;
    assert_eq!(told(&store).await, [], "low had not passed it");
    kafka.append(TOPIC, 0, [record("b", "6")]).unwrap();
    let world = world(&kafka, &store, SKIP, "w");
    world.to_the_end().await.unwrap();
    assert_eq!((told(&store).await, waiting(&world).await), (left_out, Vec::new()));
    // Whoever has the objects alone can account for all below.
    let key = objects(&store).await.into_keys().next_back().unwrap();
    let bytes = store.get(&key, ByteRange::All, None).await.unwrap().unwrap().bytes;
    let Ok(IndexRead::Index(index)) = read_index(Codec::Lz4, bytes.len() as u64, &bytes) else { panic!("no index") };
    assert_eq!(index.facts.lows, [(0, 6)].into());
}

#[tokio::test]
async fn a_rebuilt_object_tells_the_same() {
    let (kafka, store, left_out) = with_holes().await;
    kafka.append(TOPIC, 0, [record("b", "6")]).unwrap();
    let world = world(&kafka, &store, SKIP, "w");
    world.to_the_end().await.unwrap();
    let before = objects(&store).await;
    // As if the worker had died between the seal and the upload.
    let key = before.keys().next_back().unwrap().clone();
    store.delete(&key).await.unwrap();
    let door = log(&store);
    let numbers = door.numbers(0).await.unwrap();
    door.delete(*numbers.last().unwrap()).await.unwrap();
    assert_eq!(world.state().await.intents.len(), 1);
    world.to_the_end().await.unwrap();
    assert_eq!((objects(&store).await, told(&store).await, waiting(&world).await), (before, left_out, Vec::new()));
}

#[tokio::test]
async fn a_partition_without_records_moves_on_and_the_log_tells() {
    let (kafka, store) = (kafka(1, &[]), Arc::new(MemoryStore::new()));
    for n in 0..5 {
        kafka.append_gap(TOPIC, 0, 10);
        let world = world(&kafka, &store, SKIP, "w");
        world.to_the_end().await.unwrap();
        assert_eq!(waiting(&world).await, [skipped(0, n * 10 + 9, SkipReason::Hole)], "neighbours are one");
    }
    assert!(objects(&store).await.is_empty());
}

#[tokio::test]
async fn the_next_mapping_tells_what_the_one_before_left_out() {
    let (kafka, store, left_out) = with_holes().await;
    let old = world(&kafka, &store, SKIP, "w");
    let closed = close(&old.context, 2, CancellationToken::new()).await.unwrap();
    let End::Closed(state) = closed else { panic!("not closed") };
    let origin =
        Origin { identity: state.identity.clone(), lows: [(0, 6)].into(), skipped: state.skips.as_slice().to_vec() };
    kafka.append(TOPIC, 0, [record("b", "6")]).unwrap();
    for task in 0..2 {
        let mut next = world(&kafka, &store, SKIP, "w");
        let context = Arc::get_mut(&mut next.context).unwrap();
        (context.task, context.tasks_max, context.origin) = (task, 2, Some(Arc::new(origin.clone())));
        context.log = Arc::new(StoreLog::new(store.clone(), &format!("_sluice/app-logs/applogs/2/{task}")));
        next.to_the_end().await.unwrap();
        let state = read_state(next.context.log.as_ref(), &Environment::system()).await.unwrap();
        assert!(state.skips.is_empty());
    }
    assert_eq!(told(&store).await, left_out);
}

#[tokio::test]
async fn an_accepted_loss_is_told() {
    let (kafka, store, mut left_out) = with_holes().await;
    kafka.append(TOPIC, 0, [record("a", "gone"), record("a", "gone"), record("b", "8")]).unwrap();
    kafka.delete_records(TOPIC, 0, 8);
    losses::accept(&kafka, &store, Wish::AcceptLoss).await;
    left_out.push(skipped(6, 7, SkipReason::Lost));
    let world = world(&kafka, &store, SKIP, "w");
    assert_eq!(waiting(&world).await, left_out);
    world.to_the_end().await.unwrap();
    assert_eq!((told(&store).await, waiting(&world).await), (left_out, Vec::new()));
}
