use std::num::NonZeroUsize;

use super::*;
use crate::archive::key::KeyTemplate;
use crate::config::{Credentials, CredentialsFrom, Flavor, Sse};

pub(super) fn sink(flavor: Flavor, endpoint: Option<&str>) -> SinkConfig {
    SinkConfig {
        url: SinkUrl::S3 { bucket: "logs".to_owned(), prefix: "prod".to_owned() },
        key: KeyTemplate::default(),
        endpoint: endpoint.map(ToOwned::to_owned),
        region: None,
        flavor,
        storage_class: None,
        sse: Sse::default(),
        tags: Vec::new(),
        part_bytes: 5 << 20,
        max_uploads: NonZeroUsize::MIN,
        ca_file: None,
        credentials: Credentials {
            from: CredentialsFrom::Static,
            role_arn: None,
            profile: None,
            key_file: None,
            secret_file: None,
            token_file: None,
            endpoint: None,
        },
    }
}

#[test]
fn content_ranges_are_read() {
    assert_eq!(parse_content_range("bytes 0-9/100"), Some((0, 100)));
    assert_eq!(parse_content_range("bytes 5-5/6"), Some((5, 6)));
    for bad in ["", "bytes */100", "bytes 0-9/*", "0-9/100", "bytes x-9/100"] {
        assert_eq!(parse_content_range(bad), None, "{bad}");
    }
}

#[tokio::test]
async fn the_asked_part_of_a_longer_body_is_taken() {
    let body = || ByteStream::from_static(b"0123456789");
    assert_eq!(collect(body(), 0, 10, 10).await.unwrap(), "0123456789");
    assert_eq!(collect(body(), 3, 4, 10).await.unwrap(), "3456");
    assert_eq!(collect(body(), 10, 0, 10).await.unwrap(), "");
    assert!(collect(body(), 0, 11, 11).await.unwrap_err().contains("1 bytes early"));
}

#[tokio::test]
async fn wrong_settings_are_refused_with_their_name() {
    let error = S3Store::open(&sink(Flavor::Minio, Some("http://127.0.0.1:1"))).await.unwrap_err();
    assert_eq!(error.fault, Fault::Invalid);
    assert!(error.message.contains("key_file"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink(Flavor::Minio, Some("http://127.0.0.1:1"));
    for text in ["", "no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, text).unwrap();
        sink.ca_file = Some(path);
        let error = S3Store::open(&sink).await.unwrap_err();
        assert!(error.message.contains("ca_file"), "{error}");
    }
}
