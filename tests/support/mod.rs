//! What several integration tests share.
#![allow(dead_code, unreachable_pub, reason = "each test uses its share")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is test code, though not in a test's own function"
)]
#![allow(clippy::disallowed_methods, reason = "a test may wait for another process")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test says why it does not run, and what it saw")]

pub mod archive;
pub mod brokers;
pub mod cloud_server;
pub mod group;
pub mod holding_proxy;
pub mod http;
pub mod kafka;
pub mod librdkafka;
pub mod own;
pub mod process;
pub mod s3_server;

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use sluice::archive::key::KeyTemplate;
use sluice::config::{Credentials, CredentialsFrom, Flavor, SinkConfig, SinkUrl, Sse};
use sluice::store::s3::Patience;

/// A sink in the bucket `bucket` below `prefix`, with keys from files that it writes to `dir`.
pub fn sink(dir: &Path, flavor: Flavor, endpoint: &str, bucket: &str, keys: (&str, &str)) -> SinkConfig {
    let (key_file, secret_file) = (dir.join("access-key"), dir.join("secret-key"));
    std::fs::write(&key_file, keys.0).unwrap();
    std::fs::write(&secret_file, keys.1).unwrap();
    SinkConfig {
        url: SinkUrl::S3 { bucket: bucket.to_owned(), prefix: "pre/fix".to_owned() },
        key: KeyTemplate::default(),
        endpoint: Some(endpoint.to_owned()),
        region: Some("us-east-1".to_owned()),
        flavor,
        storage_class: None,
        sse: Sse::default(),
        tags: Vec::new(),
        part_bytes: 5 << 20,
        max_uploads: NonZeroUsize::new(4).unwrap(),
        ca_file: None,
        credentials: Credentials {
            from: CredentialsFrom::Static,
            role_arn: None,
            profile: None,
            key_file: Some(key_file),
            secret_file: Some(secret_file),
            token_file: None,
            endpoint: None,
        },
    }
}

/// Finds every host on this machine.
#[derive(Clone, Debug)]
struct AllHere;

impl ResolveDns for AllHere {
    fn resolve_dns<'a>(&'a self, _name: &'a str) -> DnsFuture<'a> {
        DnsFuture::ready(Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]))
    }
}

/// An HTTP client for host names that exist nowhere.
pub fn http_client_without_dns() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_with_resolver(AllHere)
}

/// For tests where requests hang on purpose.
pub fn impatient() -> Patience {
    Patience { request: Duration::from_millis(400), min_bytes_per_sec: 16 << 20, ..Patience::default() }
}

/// Makes a bucket, which the store itself never does.
pub async fn make_bucket(endpoint: &str, bucket: &str, key: &str, secret: &str) {
    s3_client(endpoint, key, secret).create_bucket().bucket(bucket).send().await.unwrap();
}

/// The SDK itself, for what a store does not do.
pub fn s3_client(endpoint: &str, key: &str, secret: &str) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12())
        .region(aws_sdk_s3::config::Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .http_client(Builder::new().build_http())
        .credentials_provider(aws_credential_types::Credentials::new(key, secret, None, None, "test"))
        .build();
    aws_sdk_s3::Client::from_conf(config)
}
