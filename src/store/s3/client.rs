//! The SDK's client for one bucket.
//!
//! Owns: endpoint, region, credentials, TLS, timeouts of the client as a whole.
//! Does not own: what a flavor's rules are (`dialect`), requests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::endpoint::{Endpoint, EndpointFuture, Params, ResolveEndpoint};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    AppName, BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder as HttpBuilder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::S3Options;
use super::dialect::{self, Address, Checksum, Dialect};
use super::errors::Throttling;
use crate::clock::Environment;
use crate::config::SinkConfig;
use crate::store::credentials::{self, Source, Surroundings};

/// How long requests may take, and how often one is sent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub connect: Duration,
    /// For one attempt of a request without a body.
    pub request: Duration,
    /// A body gets the time that this rate takes on top.
    pub min_bytes_per_sec: u64,
    /// The SDK sends a request at most this often within one call.
    pub attempts: u32,
    /// A part of a multipart upload is sent again this often before the whole is given up.
    pub part_rounds: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(30),
            min_bytes_per_sec: 64 * 1024,
            attempts: 3,
            part_rounds: 4,
        }
    }
}

impl Patience {
    /// For one attempt that moves `len` bytes.
    pub(super) fn attempt(&self, len: u64) -> Duration {
        self.request + Duration::from_secs(len / self.min_bytes_per_sec.max(1))
    }

    pub(super) fn timeouts(&self, len: u64) -> TimeoutConfig {
        let attempt = self.attempt(len);
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .operation_attempt_timeout(attempt)
            .operation_timeout(attempt.saturating_mul(self.attempts.max(1)) + self.request)
            .build()
    }
}

/// An HTTP client with rustls and ring, that trusts the system's authorities and those of `ca_file`.
pub(super) async fn http_client(ca_file: Option<&Path>) -> Result<SharedHttpClient, String> {
    let mut trust = TrustStore::default();
    if let Some(path) = ca_file {
        let refuse = |why: String| format!("sink.ca_file {}: {why}", path.display());
        let pem = tokio::fs::read(path).await.map_err(|e| refuse(e.to_string()))?;
        check_pem(&pem).map_err(refuse)?;
        trust.add_pem_certificate(pem);
    }
    let tls = TlsContext::builder().with_trust_store(trust).build().map_err(|e| e.to_string())?;
    Ok(HttpBuilder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https())
}

/// The client panics on a bad certificate: it must not see one.
fn check_pem(pem: &[u8]) -> Result<(), String> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem) {
        roots.add(cert.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(()) }
}

/// Makes the client. `Err` is what is wrong with the settings.
pub(super) async fn client(
    sink: &SinkConfig,
    bucket: &str,
    dialect: &Dialect,
    http: SharedHttpClient,
    options: &S3Options,
) -> Result<Client, String> {
    let (address, region) = dialect::address(sink, bucket)?;
    let region = match region {
        Some(region) => Region::new(region),
        None => aws_region(sink, http.clone()).await?,
    };
    let aws = {
        let (http, region) = (http.clone(), region.clone());
        move || ProviderConfig::default().with_http_client(http.clone()).with_region(Some(region.clone()))
    };
    let around = Surroundings {
        flavor: sink.flavor,
        region: region.to_string(),
        internal: dialect::is_internal(sink),
        http: http.clone(),
        aws: Arc::new(aws),
        environment: options.environment.clone().unwrap_or_else(Environment::system),
    };
    let variable = |name: &str| match &options.variables {
        Some(variables) => variables.get(name).cloned(),
        None => std::env::var(name).ok(),
    };
    let source = credentials::source(&sink.credentials, &around, variable)?;
    let patience = &options.patience;

    let stalls = StalledStreamProtectionConfig::enabled()
        // It takes a slow uplink for a dead one.
        .upload_enabled(false)
        .grace_period(patience.request)
        .build();
    let mut config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(region)
        .http_client(http)
        .identity_cache(IdentityCache::no_cache())
        .retry_classifier(Throttling)
        .timeout_config(patience.timeouts(0))
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(patience.attempts.max(1))
                .with_initial_backoff(Duration::from_millis(100))
                .with_max_backoff(Duration::from_secs(2)),
        )
        .stalled_stream_protection(stalls);
    config = match source {
        Source::Each(provider) => config.credentials_provider(provider),
        Source::Renewed(renewed) => config.credentials_provider(renewed.clone()).retry_classifier(renewed),
    };
    if let Ok(name) = AppName::new("sluice") {
        config = config.app_name(name);
    }
    if dialect.checksum() == Checksum::Md5 {
        config = config
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    config = match address {
        Address::Region => config,
        Address::Path(url) => config.endpoint_url(url).force_path_style(true),
        Address::VirtualHost(url) => config.endpoint_url(url),
        Address::Custom(url) => config.endpoint_resolver(AsIs { url }),
    };
    Ok(Client::from_conf(config.build()))
}

/// The region that the environment, the AWS profile or the machine itself names.
async fn aws_region(sink: &SinkConfig, http: SharedHttpClient) -> Result<Region, String> {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http).no_credentials();
    if let Some(profile) = &sink.credentials.profile {
        loader = loader.profile_name(profile);
    }
    let found = loader.load().await.region().cloned();
    found.ok_or_else(|| "sink.region is not set and neither environment nor AWS profile names one".to_owned())
}

/// An endpoint that is the bucket's own name.
#[derive(Debug)]
struct AsIs {
    url: String,
}

impl ResolveEndpoint for AsIs {
    fn resolve_endpoint<'a>(&'a self, _params: &'a Params) -> EndpointFuture<'a> {
        EndpointFuture::ready(Ok(Endpoint::builder().url(self.url.clone()).build()))
    }
}

/// The raw answer of the SDK, in short.
pub(super) type SdkError<E> = aws_sdk_s3::error::SdkError<E, HttpResponse>;
