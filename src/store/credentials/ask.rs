//! One question over HTTP to a service that gives credentials.
//!
//! Owns: sending, limits of time and size, another try where nobody answered. Does not own: what is asked, what answers mean.
//!
//! Requests and answers hold secrets: neither is ever part of a message.

use std::time::Duration;

use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{ConfigBag, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::Limited;

use crate::store::retry::Backoff;
use crate::store::{Fault, s3};

/// More than any answer of these services has.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
const ATTEMPTS: u32 = 3;

/// What is sent.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) method: &'static str,
    /// From the path on.
    pub(super) target: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Question {
    pub(super) fn get(target: impl Into<String>) -> Self {
        Self { method: "GET", target: target.into(), headers: Vec::new(), body: String::new() }
    }
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").field("method", &self.method).finish_non_exhaustive()
    }
}

/// What came back, whatever its status.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Reply {
    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok().map(str::trim)
    }
}

/// A service at one address.
#[derive(Debug)]
pub(super) struct Service {
    name: &'static str,
    url: String,
    asks: Operation<Question, Reply, Never>,
}

impl Service {
    /// `url`: scheme and host. `attempt`: for one question and its answer.
    pub(super) fn new(name: &'static str, url: &str, http: SharedHttpClient, attempt: Duration) -> Self {
        let timeouts = TimeoutConfig::builder().connect_timeout(attempt / 2).operation_attempt_timeout(attempt);
        let asks = Operation::builder()
            .service_name(name)
            .operation_name("ask")
            .http_client(http)
            .endpoint_url(url)
            .no_auth()
            .no_retry()
            .timeout_config(timeouts.build())
            .interceptor(Limit)
            .serializer(request)
            .deserializer(|response: &HttpResponse| {
                let body = Bytes::copy_from_slice(response.body().bytes().unwrap_or_default());
                Ok(Reply { status: response.status().as_u16(), body })
            })
            .build();
        Self { name, url: url.to_owned(), asks }
    }

    /// Asks once. `Err` says why there is no answer.
    pub(super) async fn ask_once(&self, question: Question) -> Result<Reply, String> {
        let asked = self.asks.invoke(question).await;
        asked.map_err(|error| format!("{} {}: {}", self.name, self.url, s3::causes(&error)))
    }

    /// Asks again where nobody answered, or with a 5xx or 429.
    pub(super) async fn ask(&self, question: &Question) -> Result<Reply, String> {
        let mut backoff = Backoff::new();
        loop {
            let answer = self.ask_once(question.clone()).await;
            let is_worth_another = answer.as_ref().map_or(true, |reply| reply.status >= 500 || reply.status == 429);
            if !is_worth_another || backoff.failures() + 1 >= ATTEMPTS {
                return answer;
            }
            let random = getrandom::u64().unwrap_or(u64::MAX);
            tokio::time::sleep(backoff.next(random, &Fault::Transient)).await;
        }
    }

    /// An answer that can't be used; `why` holds nothing of what may be secret.
    pub(super) fn unusable(&self, status: u16, why: &str) -> String {
        format!("{} {} answered {status}: {why}", self.name, self.url)
    }
}

fn request(question: Question) -> Result<HttpRequest, BoxError> {
    let mut request = HttpRequest::new(SdkBody::from(question.body));
    request.set_method(question.method)?;
    request.set_uri(question.target)?;
    for (name, value) in question.headers {
        request.headers_mut().try_insert(name, value)?;
    }
    Ok(request)
}

/// No answer is an error of the service: the asker looks at the status.
#[derive(Debug, thiserror::Error)]
enum Never {}

/// Refuses to read an answer without an end.
#[derive(Debug)]
struct Limit;

#[dyn_dispatch_hint]
impl Intercept for Limit {
    fn name(&self) -> &'static str {
        "Limit"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let body = response.take_body();
        *response.body_mut() = SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER_BYTES));
        Ok(())
    }
}
