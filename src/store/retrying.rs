//! Trying a request until its outcome is known.
//!
//! Owns: which faults are worth another try. Does not own: the waits ([`super::retry`]).

use std::time::Duration;

use super::retry::Backoff;
use super::{Fault, StoreError};
use crate::api::metrics::store_retry;
use crate::clock::Environment;

/// Waits longer than this are said in the log each time, shorter ones only at first.
const NOTABLE_WAIT: Duration = Duration::from_secs(5);

/// Attempts of a request for which somebody waits at a terminal: some seconds altogether.
const BRIEF_ATTEMPTS: u32 = 7;

/// Repeats a request a few times, for commands: what is away for longer, or refuses, is said instead of waited for. The
/// request must be safe to repeat.
///
/// # Errors
/// What the last attempt met.
pub async fn retrying_briefly<T, F>(environment: &Environment, mut request: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::new();
    loop {
        let error = match request().await {
            Err(error) if matches!(error.fault, Fault::Transient | Fault::Throttled { .. }) => error,
            decided => return decided,
        };
        let wait = backoff.next(environment.random.next_u128() as u64, &error.fault);
        if backoff.failures() >= BRIEF_ATTEMPTS {
            return Err(error);
        }
        store_retry();
        tokio::time::sleep(wait).await;
    }
}

/// Repeats a request until it succeeds or can't: for ever while the store is away, throttles, or refuses us (somebody will
/// renew the credentials). The request must be safe to repeat.
///
/// # Errors
/// [`Fault::Changed`], [`Fault::Body`] and [`Fault::Invalid`]: no later try can end otherwise.
pub async fn retrying<T, F>(environment: &Environment, mut request: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::new();
    loop {
        let error = match request().await {
            Err(error) if !matches!(error.fault, Fault::Changed | Fault::Body | Fault::Invalid) => error,
            decided => return decided,
        };
        let wait = backoff.next(environment.random.next_u128() as u64, &error.fault);
        if backoff.failures() == 1 || wait >= NOTABLE_WAIT {
            tracing::warn!(%error, attempts = backoff.failures(), next_in_ms = wait.as_millis() as u64, "store request is tried again");
        }
        store_retry();
        tokio::time::sleep(wait).await;
    }
}
