use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use super::*;
use crate::clock::{Clock, Random};

const MINUTE: i64 = 60_000;

#[derive(Debug, Default)]
struct Hands {
    now_ms: AtomicI64,
}

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }
}

/// The middle of all jitter.
impl Random for Hands {
    fn next_u128(&self) -> u128 {
        128
    }
}

/// Gives what a test lays out: the end of the next credentials, or a failure.
#[derive(Debug, Default)]
struct Giver {
    next: Mutex<VecDeque<Option<i64>>>,
    asked: AtomicUsize,
}

impl Giver {
    fn lays_out(&self, next: &[Option<i64>]) {
        self.next.lock().unwrap().extend(next);
    }
}

#[derive(Debug)]
struct Asks(Arc<Giver>);

impl ProvideCredentials for Asks {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let asked = self.0.asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            match self.0.next.lock().unwrap().pop_front().flatten() {
                None => Err(CredentialsError::provider_error("nobody is there")),
                Some(end_ms) => {
                    let end = UNIX_EPOCH + Duration::from_millis(end_ms.cast_unsigned());
                    Ok(Credentials::new(
                        format!("key-{asked}"),
                        "planted-secret",
                        Some("planted-token".into()),
                        Some(end),
                        "t",
                    ))
                }
            }
        })
    }
}

fn world() -> (Arc<Hands>, Arc<Giver>, Arc<Refreshing>) {
    let (hands, giver) = (Arc::new(Hands::default()), Arc::new(Giver::default()));
    let environment = Environment { clock: hands.clone(), random: hands.clone() };
    let refreshing = Refreshing::new(Asks(Arc::clone(&giver)), environment);
    (hands, giver, refreshing)
}

async fn key(refreshing: &Refreshing) -> String {
    refreshing.provide().await.unwrap().access_key_id().to_owned()
}

#[tokio::test]
async fn they_are_kept_then_renewed_before_they_end() {
    let (hands, giver, refreshing) = world();
    giver.lays_out(&[Some(60 * MINUTE), Some(110 * MINUTE)]);
    for minute in [0, 20, 44] {
        hands.now_ms.store(minute * MINUTE, Ordering::Relaxed);
        assert_eq!(key(&refreshing).await, "key-0", "after {minute} minutes");
    }
    hands.now_ms.store(52 * MINUTE, Ordering::Relaxed);
    assert_eq!(key(&refreshing).await, "key-1");
    assert_eq!(key(&refreshing).await, "key-1");
    assert_eq!(giver.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn the_old_ones_serve_while_they_hold_and_nobody_gives_others() {
    let (hands, giver, refreshing) = world();
    giver.lays_out(&[Some(60 * MINUTE), None, None, Some(200 * MINUTE)]);
    key(&refreshing).await;
    hands.now_ms.store(52 * MINUTE, Ordering::Relaxed);
    assert_eq!(key(&refreshing).await, "key-0");
    assert_eq!(key(&refreshing).await, "key-0");
    assert_eq!(giver.asked.load(Ordering::Relaxed), 2, "asked again within half a minute");
    hands.now_ms.store(53 * MINUTE, Ordering::Relaxed);
    assert_eq!(key(&refreshing).await, "key-0");
    assert_eq!(giver.asked.load(Ordering::Relaxed), 3);
    hands.now_ms.store(60 * MINUTE, Ordering::Relaxed);
    assert_eq!(key(&refreshing).await, "key-3", "ended ones are of no use");
}

#[tokio::test]
async fn ended_ones_are_not_used_and_the_reason_is_told() {
    let (hands, giver, refreshing) = world();
    giver.lays_out(&[Some(60 * MINUTE)]);
    key(&refreshing).await;
    hands.now_ms.store(60 * MINUTE, Ordering::Relaxed);
    let error = refreshing.provide().await.unwrap_err();
    assert!(crate::store::s3::causes(&error).contains("nobody is there"));
}

#[tokio::test]
async fn one_asks_for_all() {
    let (hands, giver, refreshing) = world();
    giver.lays_out(&[Some(60 * MINUTE), Some(120 * MINUTE), Some(180 * MINUTE)]);
    let all = || futures::future::join_all((0..20).map(|_| key(&refreshing)));
    assert!(all().await.iter().all(|key| key == "key-0"));
    assert_eq!(giver.asked.load(Ordering::Relaxed), 1);
    // Due: one renews them, the others do not wait.
    hands.now_ms.store(55 * MINUTE, Ordering::Relaxed);
    let keys = all().await;
    assert_eq!(keys.iter().filter(|key| *key == "key-1").count(), 1, "{keys:?}");
    // Refused: all wait for the new ones.
    refreshing.refused();
    assert!(all().await.iter().all(|key| key == "key-1"), "new ones are not asked for again");
    hands.now_ms.store(56 * MINUTE, Ordering::Relaxed);
    refreshing.refused();
    assert!(all().await.iter().all(|key| key == "key-2"));
    assert_eq!(giver.asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn refused_ones_serve_when_there_are_no_others() {
    let (hands, giver, refreshing) = world();
    giver.lays_out(&[Some(60 * MINUTE), None]);
    key(&refreshing).await;
    hands.now_ms.store(MINUTE, Ordering::Relaxed);
    refreshing.refused();
    assert_eq!(key(&refreshing).await, "key-0");
    assert_eq!(giver.asked.load(Ordering::Relaxed), 2);
    assert_eq!(key(&refreshing).await, "key-0");
    assert_eq!(giver.asked.load(Ordering::Relaxed), 2, "asked again within half a minute");
}

#[tokio::test]
async fn a_clock_that_is_ahead_does_not_ask_for_each_request() {
    let (hands, giver, refreshing) = world();
    hands.now_ms.store(500 * MINUTE, Ordering::Relaxed);
    giver.lays_out(&[Some(60 * MINUTE), Some(60 * MINUTE)]);
    for _ in 0..5 {
        assert_eq!(key(&refreshing).await, "key-0");
    }
    assert_eq!(giver.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let (_, giver, refreshing) = world();
    giver.lays_out(&[Some(60 * MINUTE)]);
    key(&refreshing).await;
    let shown = format!("{refreshing:?}");
    assert!(shown.contains("key-0") && !shown.contains("planted"), "{shown}");
}
