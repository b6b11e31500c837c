//! Credentials that end, kept while they hold and renewed before they end.
//!
//! Owns: when to ask anew, who asks, what is used while nobody answers. Does not own: where credentials come from.
//!
//! They are renewed after about four fifths of the time that is left to them, spread so that many workers do not ask at once. One
//! request at a time asks; the others go on with the old ones while these hold. So do all where the renewal fails: it is tried
//! again half a minute later.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;

use crate::clock::Environment;

/// For one renewal with all its tries.
const RENEWAL_LIMIT: Duration = Duration::from_secs(30);
/// Credentials are used this long whatever their end says: a clock that is ahead must not ask for each request.
const HOLD_MS: i64 = 30_000;
/// Where credentials name no end, as those of a file: it may have changed.
const LOOK_AGAIN_MS: i64 = 300_000;

/// The codes by which stores refuse credentials that have ended or are not known any more.
const REFUSED: [&str; 8] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "SecurityTokenExpired",
    "InvalidSecurityToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestExpired",
    "InvalidAccessKeyId",
];

/// Whether an error's code says that the credentials have to be other ones.
pub(in crate::store) fn is_refusal(code: &str) -> bool {
    REFUSED.contains(&code)
}

#[derive(Debug)]
struct Held {
    credentials: Credentials,
    fetched_ms: i64,
    renew_at_ms: i64,
    /// `None`: they name no end.
    end_ms: Option<i64>,
    /// A store refused them: nobody goes on with them while they are renewed.
    refused: bool,
}

enum Standing {
    Good(Credentials),
    /// Due for renewal, still of use.
    Due(Credentials),
    /// Of no use, or so the store says; the former may serve when there are no others.
    Bad(Option<Credentials>),
}

/// Any source of credentials, asked seldom.
#[derive(Debug)]
pub(in crate::store) struct Refreshing {
    source: SharedCredentialsProvider,
    environment: Environment,
    held: Mutex<Option<Held>>,
    renewal: tokio::sync::Mutex<()>,
}

impl Refreshing {
    pub(super) fn new(source: impl ProvideCredentials + 'static, environment: Environment) -> Arc<Self> {
        let source = SharedCredentialsProvider::new(source);
        Arc::new(Self { source, environment, held: Mutex::default(), renewal: tokio::sync::Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> Standing {
        let now = self.environment.clock.now_ms();
        match &*self.held() {
            None => Standing::Bad(None),
            Some(held) if held.end_ms.is_some_and(|end| now >= end) => Standing::Bad(None),
            Some(held) if held.refused => Standing::Bad(Some(held.credentials.clone())),
            Some(held) if now >= held.renew_at_ms => Standing::Due(held.credentials.clone()),
            Some(held) => Standing::Good(held.credentials.clone()),
        }
    }

    async fn provide(&self) -> Result<Credentials, CredentialsError> {
        match self.standing() {
            Standing::Good(credentials) => Ok(credentials),
            Standing::Due(old) => match self.renewal.try_lock() {
                Ok(_turn) => self.renew(Some(old)).await,
                Err(_) => Ok(old),
            },
            Standing::Bad(_) => {
                let _turn = self.renewal.lock().await;
                // Who had the turn before has renewed them, or could not.
                match self.standing() {
                    Standing::Good(credentials) | Standing::Due(credentials) => Ok(credentials),
                    Standing::Bad(old) => self.renew(old).await,
                }
            }
        }
    }

    async fn renew(&self, old: Option<Credentials>) -> Result<Credentials, CredentialsError> {
        let asked = tokio::time::timeout(RENEWAL_LIMIT, self.source.provide_credentials()).await;
        let answer = asked.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(RENEWAL_LIMIT)));
        let now = self.environment.clock.now_ms();
        let jitter = i64::from(self.environment.random.next_u128() as u8);
        match answer {
            Ok(credentials) => {
                *self.held() = Some(held(&credentials, now, jitter));
                Ok(credentials)
            }
            Err(error) => {
                let Some(old) = old else { return Err(error) };
                tracing::warn!(error = %crate::store::s3::causes(&error), "credentials could not be renewed; the old ones are used while they hold");
                if let Some(held) = &mut *self.held() {
                    held.refused = false;
                    held.renew_at_ms = now + HOLD_MS + jitter * HOLD_MS / 512;
                }
                Ok(old)
            }
        }
    }

    /// A store refused what it was shown. New ones are asked for unless these are new.
    fn refused(&self) {
        let now = self.environment.clock.now_ms();
        if let Some(held) = &mut *self.held()
            && now - held.fetched_ms >= HOLD_MS
        {
            // Once for each half minute.
            held.fetched_ms = now;
            held.refused = true;
        }
    }
}

/// `jitter`: 0 to 255.
fn held(credentials: &Credentials, now: i64, jitter: i64) -> Held {
    let end = credentials.expiry().and_then(|end| end.duration_since(UNIX_EPOCH).ok());
    let end_ms = end.map(|end| i64::try_from(end.as_millis()).unwrap_or(i64::MAX).max(now.saturating_add(HOLD_MS)));
    let left = end_ms.map_or(LOOK_AGAIN_MS, |end| end - now);
    // 75 % to 85 % of it.
    let wait = (left / 2560).saturating_mul(1920 + jitter).max(HOLD_MS / 2);
    Held {
        credentials: credentials.clone(),
        fetched_ms: now,
        renew_at_ms: now.saturating_add(wait),
        end_ms,
        refused: false,
    }
}

/// Shared between the client and its retries.
#[derive(Clone, Debug)]
pub(in crate::store) struct Renewed(pub(in crate::store) Arc<Refreshing>);

impl ProvideCredentials for Renewed {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.0.provide())
    }
}

/// A request whose credentials were refused is sent again with others.
impl ClassifyRetry for Renewed {
    fn name(&self) -> &'static str {
        "refused credentials"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(response) = context.response() else { return RetryAction::NoActionIndicated };
        if !matches!(response.status().as_u16(), 400 | 401 | 403) {
            return RetryAction::NoActionIndicated;
        }
        let header = response.headers().get("x-minio-error-code");
        let body = response.body().bytes().and_then(|body| std::str::from_utf8(body).ok());
        let code = header.or_else(|| body?.split_once("<Code>")?.1.split_once("</Code>").map(|(code, _)| code));
        if !code.is_some_and(is_refusal) {
            return RetryAction::NoActionIndicated;
        }
        self.0.refused();
        RetryAction::transient_error()
    }
}

#[cfg(test)]
#[path = "refreshing_tests.rs"]
mod tests;
