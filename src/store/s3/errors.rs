//! What a failed request to an S3 store means.
//!
//! Owns: turning the SDK's errors into what the caller does about it, and into words.
//! Does not own: outcomes that are no failures, such as "exists" (the requests').

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_types::retry::ErrorKind;

use crate::store::Fault;
use crate::store::credentials::is_refusal;

const OSS_WAIT: &str = "x-oss-qos-delay-time";

/// What a store, or the way to it, answered in place of success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// `None`: no answer came.
    pub(super) status: Option<u16>,
    pub(super) code: Option<String>,
    /// The store's own words, or the cause that there was no answer.
    pub(super) text: String,
    request_id: Option<String>,
    /// How long the store asked to wait.
    wait: Option<Duration>,
    /// Where the store says the bucket is.
    region: Option<String>,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cause {
    #[default]
    Answered,
    /// Network, timeout, an answer that is none.
    Unclear,
    NoCredentials,
    /// The request could not even be built.
    Unsendable,
}

impl Answer {
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let cause = match error {
            SdkError::ConstructionFailure(_) => Cause::Unsendable,
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => Cause::Unclear,
            SdkError::DispatchFailure(failure) if failure.is_user() => Cause::Unsendable,
            SdkError::ServiceError(_) => Cause::Answered,
            _ => Cause::Unclear,
        };
        let cause = if caused_by_credentials(error) { Cause::NoCredentials } else { cause };
        let response = error.raw_response();
        let header = |name: &str| response.and_then(|r| r.headers().get(name)).map(|v| clip(v, 128));
        let code = error.code().or_else(|| response.and_then(|r| r.headers().get("x-minio-error-code")));
        Self {
            status: response.map(|r| r.status().as_u16()),
            code: code.map(|code| clip(code, 128)),
            text: match (cause, error.message()) {
                (Cause::Answered, Some(message)) => clip(message, 500),
                (Cause::Answered, None) => String::new(),
                _ => clip(&causes(error), 500),
            },
            request_id: header("x-amz-request-id").or_else(|| header("x-oss-request-id")),
            wait: wait(header(OSS_WAIT), header("retry-after")),
            region: header("x-amz-bucket-region"),
            cause,
        }
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// An object of this key exists: the refusal of a create-only write.
    pub(super) fn says_exists(&self) -> bool {
        self.status == Some(412)
            || (self.status == Some(409) && (self.is("FileAlreadyExists") || self.is("ObjectAlreadyExists")))
    }

    pub(super) fn fault(&self) -> Fault {
        let code = self.code.as_deref().unwrap_or_default();
        match self.cause {
            Cause::Unclear => return Fault::Transient,
            Cause::NoCredentials => return Fault::Denied,
            Cause::Unsendable => return Fault::Invalid,
            Cause::Answered => {}
        }
        if is_throttling(code) || self.status == Some(429) || self.wait.is_some() {
            return Fault::Throttled { wait: self.wait };
        }
        match (self.status.unwrap_or(0), code) {
            (_, "NoSuchBucket") => Fault::NoBucket,
            (_, "SecondLevelDomainForbidden" | "InvalidObjectState") => Fault::Invalid,
            (_, "SignatureDoesNotMatch") => Fault::Denied,
            (_, code) if is_refusal(code) => Fault::Denied,
            (_, code) if code.starts_with("KMS.") => Fault::Denied,
            // What arrived was not what was sent: send it again.
            (
                _,
                "BadDigest"
                | "InvalidDigest"
                | "XAmzContentChecksumMismatch"
                | "XAmzContentSHA256Mismatch"
                | "IncompleteBody",
            ) => Fault::Transient,
            (
                _,
                "RequestTimeout" | "OperationAborted" | "ConditionalRequestConflict" | "NoSuchUpload" | "InvalidPart",
            ) => Fault::Transient,
            (401 | 403, _) => Fault::Denied,
            (412, _) => Fault::Changed,
            (408 | 409, _) => Fault::Transient,
            // No S3 error in it: something between us and the store answered.
            (404, "") => Fault::Transient,
            (501, _) => Fault::Invalid,
            (200..=299 | 500..=599, _) => Fault::Transient,
            _ => Fault::Invalid,
        }
    }

    /// `503 SlowDown: Please reduce your request rate (request id ..); what to do`.
    pub(super) fn words(&self) -> String {
        let mut out = match (self.status, &self.code) {
            (Some(status), Some(code)) => format!("{status} {code}"),
            (Some(status), None) => format!("{status}"),
            (None, _) => String::new(),
        };
        if !self.text.is_empty() {
            let gap = if out.is_empty() { "" } else { ": " };
            out.push_str(gap);
            out.push_str(&self.text);
        }
        if let Some(id) = &self.request_id {
            out.push_str(&format!(" (request id {id})"));
        }
        if let Some(hint) = self.hint() {
            out.push_str("; ");
            out.push_str(&hint);
        }
        out
    }

    /// The reason behind a code, and what to do.
    fn hint(&self) -> Option<String> {
        if self.cause == Cause::NoCredentials {
            return Some("no usable credentials: see sink.credentials".to_owned());
        }
        let elsewhere = self.region.as_ref().map(|region| format!("the bucket is in region {region}: set sink.region"));
        let hint = match self.code.as_deref().unwrap_or_default() {
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException" => {
                return elsewhere
                    .or_else(|| Some("the bucket is in another region: set sink.region and sink.endpoint".to_owned()));
            }
            "SecondLevelDomainForbidden" => {
                "this store takes the bucket in the host name only: set sink.flavor to oss, and an endpoint with a host name"
            }
            "RequestTimeTooSkewed" => "this machine's clock is more than 15 minutes off: start time synchronisation",
            "SignatureDoesNotMatch" => "the secret does not belong to the access key",
            "InvalidAccessKeyId" => "the store does not know the access key",
            "NoSuchBucket" => "create the bucket, or correct sink.url",
            "InvalidObjectState" => "the object is archived in a cold storage class and must be restored first",
            "EntityTooSmall" => "sink.part_bytes is below what the store takes",
            "NotImplemented" => "the store does not know a header of this request: see sink.flavor",
            "InvalidStorageClass" => "the store does not know sink.storage_class",
            "UserDisable" | "UnderServiceStop" => "the account is suspended, often for payment",
            code if is_refusal(code) => "the security token has expired or is not one of this store",
            _ => match (self.status, elsewhere) {
                (Some(301 | 307), Some(elsewhere)) => return Some(elsewhere),
                (Some(301 | 307), None) => "the bucket is in another region: set sink.region and sink.endpoint",
                (Some(403), _) => {
                    "the credentials lack a permission: list the bucket, read, write and delete below the prefix"
                }
                (Some(404), _) if self.code.is_none() => "this does not look like an object store: see sink.endpoint",
                _ => return None,
            },
        };
        Some(hint.to_owned())
    }
}

fn is_throttling(code: &str) -> bool {
    code.starts_with("SlowDown")
        || code.ends_with("RateLimitExceeded")
        || code.ends_with("QpsLimitExceeded")
        || code.ends_with("BandwidthLimitExceeded")
        || code.starts_with("Throttl")
        || matches!(code, "RequestLimitExceeded" | "TooManyRequests" | "TooManyRequestsException")
}

/// OSS gives milliseconds, HTTP seconds. More than five minutes is not believed.
fn wait(oss_ms: Option<String>, http_secs: Option<String>) -> Option<Duration> {
    let oss = oss_ms.and_then(|ms| ms.trim().parse().ok()).map(Duration::from_millis);
    let http = http_secs.and_then(|secs| secs.trim().parse().ok()).map(Duration::from_secs);
    oss.or(http).map(|wait| wait.min(Duration::from_secs(300)))
}

/// Longer than this one call does not wait: its caller does, who can be stopped meanwhile.
const WAITED_IN_CALL: Duration = Duration::from_secs(2);

/// Throttling as the SDK does not know it: 429, and the time that OSS asks for.
#[derive(Debug)]
pub(super) struct Throttling;

impl ClassifyRetry for Throttling {
    fn name(&self) -> &'static str {
        "throttling"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(response) = context.response() else { return RetryAction::NoActionIndicated };
        let header = |name: &str| response.headers().get(name).map(ToOwned::to_owned);
        match wait(header(OSS_WAIT), header("retry-after")) {
            Some(wait) if wait > WAITED_IN_CALL => RetryAction::RetryForbidden,
            Some(wait) => RetryAction::retryable_error_with_explicit_delay(ErrorKind::ThrottlingError, wait),
            None if response.status().as_u16() == 429 => RetryAction::throttling_error(),
            None => RetryAction::NoActionIndicated,
        }
    }
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e| (*e).source())
}

fn caused_by_credentials(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|e| e.is::<CredentialsError>())
}

/// The chain of causes in one line. The SDK's own text of the outermost error says nothing.
pub(in crate::store) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

/// Text from outside, made fit for one line of a log.
fn clip(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> Answer {
        let code = (!code.is_empty()).then(|| code.to_owned());
        Answer { status: Some(status), code, ..Answer::default() }
    }

    #[test]
    fn codes_become_what_the_caller_does() {
        let throttled = Fault::Throttled { wait: None };
        let cases = [
            (500, "InternalError", Fault::Transient),
            (503, "ServiceUnavailable", Fault::Transient),
            (503, "", Fault::Transient),
            (503, "SlowDown", throttled),
            (503, "SlowDownWrite", throttled),
            (503, "UploadQpsLimitExceeded", throttled),
            (503, "DownloadTrafficRateLimitExceeded", throttled),
            (429, "", throttled),
            (429, "QpsLimitExceeded", throttled),
            (403, "AccessDenied", Fault::Denied),
            (403, "", Fault::Denied),
            (403, "RequestTimeTooSkewed", Fault::Denied),
            (400, "ExpiredToken", Fault::Denied),
            (403, "SecondLevelDomainForbidden", Fault::Invalid),
            (404, "NoSuchBucket", Fault::NoBucket),
            (404, "NoSuchUpload", Fault::Transient),
            (404, "", Fault::Transient),
            (409, "ConditionalRequestConflict", Fault::Transient),
            (412, "PreconditionFailed", Fault::Changed),
            (400, "BadDigest", Fault::Transient),
            (400, "RequestTimeout", Fault::Transient),
            (400, "AuthorizationHeaderMalformed", Fault::Invalid),
            (301, "PermanentRedirect", Fault::Invalid),
            (501, "NotImplemented", Fault::Invalid),
            (200, "InternalError", Fault::Transient),
        ];
        for (status, code, fault) in cases {
            assert_eq!(answer(status, code).fault(), fault, "{status} {code}");
        }
        assert!(answer(412, "PreconditionFailed").says_exists());
        assert!(answer(409, "FileAlreadyExists").says_exists());
        assert!(!answer(409, "ConditionalRequestConflict").says_exists());
        let lost = Answer { cause: Cause::Unclear, ..Answer::default() };
        assert_eq!(lost.fault(), Fault::Transient);
    }

    #[test]
    fn the_wait_that_a_store_asks_for_is_taken_within_reason() {
        let text = |s: &str| Some(s.to_owned());
        assert_eq!(wait(text("250"), None), Some(Duration::from_millis(250)));
        assert_eq!(wait(None, text("3")), Some(Duration::from_secs(3)));
        assert_eq!(wait(None, text("999999999")), Some(Duration::from_secs(300)));
        assert_eq!(wait(text("soon"), None), None);
        let told = Answer { wait: Some(Duration::from_secs(2)), ..answer(503, "ServiceUnavailable") };
        assert_eq!(told.fault(), Fault::Throttled { wait: Some(Duration::from_secs(2)) });
    }

    #[test]
    fn words_name_code_request_and_remedy() {
        let moved = Answer {
            text: "expecting 'eu-west-1'".to_owned(),
            request_id: Some("R1".to_owned()),
            region: Some("eu-west-1".to_owned()),
            ..answer(400, "AuthorizationHeaderMalformed")
        };
        assert_eq!(
            moved.words(),
            "400 AuthorizationHeaderMalformed: expecting 'eu-west-1' (request id R1); the bucket is in region eu-west-1: set sink.region"
        );
        assert!(answer(403, "RequestTimeTooSkewed").words().contains("clock"));
        assert!(answer(403, "SecondLevelDomainForbidden").words().contains("flavor"));
        assert!(answer(403, "AccessDenied").words().contains("permission"));
        assert_eq!(clip("a\nb\u{1b}[31m", 99), "a b [31m");
    }
}
