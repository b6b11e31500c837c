//! Writing dead letters into their topic.
//!
//! Owns: going on until the topic has all of them. Does not own: which records these are ([`super::core`]), a single try
//! ([`Kafka::produce`]).

use std::time::Duration;

use crate::clock::Random;
use crate::kafka::backoff::Backoff;
use crate::pipeline::produce::{Outgoing, ProduceError};
use crate::pipeline::source::Kafka;

/// Returns once all in-sync replicas have all of them.
///
/// # Errors
/// The topic is not there, or does not take one: nothing else may pass it by.
pub(super) async fn write(
    kafka: &dyn Kafka,
    random: &dyn Random,
    topic: &str,
    mut letters: Vec<Outgoing>,
) -> Result<(), ProduceError> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        let outcomes = kafka.produce(topic, &letters).await;
        let mut trouble = None;
        let mut open = Vec::new();
        for (letter, outcome) in letters.into_iter().zip(outcomes) {
            match outcome {
                Ok(_) => {}
                Err(error @ ProduceError::Unreachable { .. }) => {
                    trouble = Some(error);
                    open.push(letter);
                }
                Err(error) => return Err(error),
            }
        }
        let Some(error) = trouble else { return Ok(()) };
        tracing::warn!(topic, %error, "dead letters are not written yet, trying again");
        letters = open;
        tokio::time::sleep(backoff.next_wait(random.next_u128() as u32)).await;
    }
}
