//! What differs between the stores that speak S3.
//!
//! Owns: header names, addressing, which checksum, where a flavor's endpoint is.
//! Does not own: requests.
//!
//! OSS speaks S3 with its own rules: buckets in the host name only, no aws-chunked bodies, Content-MD5 as the check of what
//! arrived, its own headers for create-only writes, storage class, encryption and tags (the x-amz- ones are ignored or 501).

use crate::config::{Flavor, SinkConfig, Sse};

/// Carries the intent id in an object's metadata.
pub(super) const INTENT_KEY: &str = "sluice-intent";
const INTENT_HEADER: &str = "x-amz-meta-sluice-intent";

/// Below this the log and other bookkeeping lie. A storage class may freeze objects and lifecycle rules go by tags: neither
/// may happen to these.
const BOOKKEEPING: &str = "_sluice/";

pub(super) type Headers = Vec<(&'static str, String)>;

/// The end-to-end check that is sent with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32c,
    Md5,
}

#[derive(Clone, Debug)]
pub(super) struct Dialect {
    pub(super) flavor: Flavor,
    storage_class: Option<String>,
    sse: Sse,
    /// Encoded as in a query string.
    tags: Option<String>,
}

impl Dialect {
    /// Fails with the reason where a setting can't be sent as a header.
    pub(super) fn new(sink: &SinkConfig) -> Result<Self, String> {
        let pairs: Vec<String> =
            sink.tags.iter().map(|(k, v)| format!("{}={}", query_encode(k), query_encode(v))).collect();
        let tags = (!pairs.is_empty()).then(|| pairs.join("&"));
        let texts = [
            ("storage_class", &sink.storage_class),
            ("sse.mode", &sink.sse.mode),
            ("sse.kms_key_id", &sink.sse.kms_key_id),
        ];
        for (name, text) in texts {
            if let Some(text) = text
                && !is_header_text(text)
            {
                return Err(format!("{name} {text:?} holds characters that no header can carry"));
            }
        }
        Ok(Self { flavor: sink.flavor, storage_class: sink.storage_class.clone(), sse: sink.sse.clone(), tags })
    }

    /// What makes a write create-only: on PutObject, CompleteMultipartUpload and, for OSS, CreateMultipartUpload.
    pub(super) fn create_only(&self) -> (&'static str, String) {
        match self.flavor {
            Flavor::Oss => ("x-oss-forbid-overwrite", "true".to_owned()),
            Flavor::Aws | Flavor::Minio | Flavor::Generic => ("if-none-match", "*".to_owned()),
        }
    }

    /// Whether an existing object is refused already when a multipart upload begins.
    pub(super) fn forbids_at_start(&self) -> bool {
        self.flavor == Flavor::Oss
    }

    /// What an object is made with: on PutObject and CreateMultipartUpload. `key` is relative to the sink's prefix.
    pub(super) fn attributes(&self, key: &str, intent_id: Option<&str>) -> Headers {
        let oss = self.flavor == Flavor::Oss;
        let named = |amz: &'static str, oss_name: &'static str| if oss { oss_name } else { amz };
        let mut headers = Headers::new();
        if let Some(id) = intent_id {
            headers.push((INTENT_HEADER, id.to_owned()));
        }
        if !key.starts_with(BOOKKEEPING) {
            if let Some(class) = &self.storage_class {
                headers.push((named("x-amz-storage-class", "x-oss-storage-class"), class.clone()));
            }
            if let Some(tags) = &self.tags {
                headers.push((named("x-amz-tagging", "x-oss-tagging"), tags.clone()));
            }
        }
        if let Some(mode) = &self.sse.mode {
            headers.push((named("x-amz-server-side-encryption", "x-oss-server-side-encryption"), mode.clone()));
        }
        if let Some(id) = &self.sse.kms_key_id {
            let name = named("x-amz-server-side-encryption-aws-kms-key-id", "x-oss-server-side-encryption-key-id");
            headers.push((name, id.clone()));
        }
        headers
    }

    /// What goes with a GET by range. Without it OSS answers a range beyond the end with the whole object.
    pub(super) fn on_range(&self) -> Headers {
        match self.flavor {
            Flavor::Oss => vec![("x-oss-range-behavior", "standard".to_owned())],
            Flavor::Aws | Flavor::Minio | Flavor::Generic => Headers::new(),
        }
    }

    /// With its checksum any S3 takes Content-MD5; CRC32C costs a fraction of it but is known to newer ones only.
    pub(super) fn checksum(&self) -> Checksum {
        match self.flavor {
            Flavor::Aws | Flavor::Minio => Checksum::Crc32c,
            Flavor::Oss | Flavor::Generic => Checksum::Md5,
        }
    }
}

/// Where to send requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// AWS's own endpoint of the region.
    Region,
    /// `{endpoint}/{bucket}/{key}`.
    Path(String),
    /// `{bucket}.{endpoint}/{key}`.
    VirtualHost(String),
    /// `{endpoint}/{key}`: the endpoint is the bucket's own name.
    Custom(String),
}

/// Finds the address and the region; `Err` is what to set.
pub(super) fn address(sink: &SinkConfig, bucket: &str) -> Result<(Address, Option<String>), String> {
    let region = sink.region.clone();
    let endpoint = sink.endpoint.as_deref().filter(|e| *e != "internal").map(with_scheme);
    let internal = sink.endpoint.as_deref() == Some("internal");
    match (sink.flavor, endpoint) {
        (Flavor::Oss, endpoint) => {
            let named = endpoint.as_deref().and_then(oss_region).map(ToOwned::to_owned);
            let region = region.map(|r| r.trim_start_matches("oss-").to_owned()).or(named);
            let Some(region) = region else {
                return Err(
                    "sink.region is not set and the endpoint does not name it (for example cn-hangzhou)".to_owned()
                );
            };
            let address = match endpoint {
                None if internal => Address::VirtualHost(format!("https://s3.oss-{region}-internal.aliyuncs.com")),
                None => Address::VirtualHost(format!("https://s3.oss-{region}.aliyuncs.com")),
                Some(endpoint) if holds_bucket(&endpoint, bucket) => Address::Custom(endpoint),
                Some(endpoint) => Address::VirtualHost(endpoint),
            };
            Ok((address, Some(region)))
        }
        (_, _) if internal => Err("sink.endpoint `internal` is known for flavor oss only".to_owned()),
        (Flavor::Aws, None) => Ok((Address::Region, region)),
        (Flavor::Aws, Some(endpoint)) => Ok((Address::VirtualHost(endpoint), region)),
        (Flavor::Minio | Flavor::Generic, Some(endpoint)) => {
            Ok((Address::Path(endpoint), Some(region.unwrap_or_else(|| "us-east-1".to_owned()))))
        }
        (Flavor::Minio | Flavor::Generic, None) => {
            Err("sink.endpoint is not set; this flavor has no endpoint of its own".to_owned())
        }
    }
}

/// Whether OSS is reached by its address within Alibaba's network.
pub(super) fn is_internal(sink: &SinkConfig) -> bool {
    let by_name = |endpoint: &str| {
        host(endpoint).split('.').any(|label| label.starts_with("oss-") && label.ends_with("-internal"))
    };
    sink.endpoint.as_deref().is_some_and(|endpoint| endpoint == "internal" || by_name(endpoint))
}

fn with_scheme(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}") }
}

fn host(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// The region in OSS's own host names: `s3.oss-cn-hangzhou-internal.aliyuncs.com`.
fn oss_region(endpoint: &str) -> Option<&str> {
    let label = host(endpoint).split('.').find_map(|label| label.strip_prefix("oss-"))?;
    Some(label.trim_end_matches("-internal"))
}

/// A custom domain (CNAME) stands for one bucket; it, and a host that begins with the bucket's name, takes no bucket in front.
/// OSS's own names, also of private clouds, have a label `oss-<region>`.
fn holds_bucket(endpoint: &str, bucket: &str) -> bool {
    let host = host(endpoint);
    let in_front = host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.'));
    in_front || !host.split('.').any(|label| label.starts_with("oss-") || label == "oss")
}

pub(super) fn is_header_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

pub(in crate::store) fn query_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Undoes the `encoding-type=url` of a listing: `%XX`, and `+` for a blank.
pub(super) fn query_decode(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut hex = || char::from(bytes.next()?).to_digit(16);
                let (Some(high), Some(low)) = (hex(), hex()) else {
                    return Err(format!("the listing holds the broken escape in {text:?}"));
                };
                out.push((high * 16 + low) as u8);
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).map_err(|_| format!("the listing holds a key that is not UTF-8: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::sink;
    use super::*;

    #[test]
    fn each_flavor_finds_its_address() {
        let find = |flavor, endpoint: Option<&str>, region: Option<&str>| {
            let mut sink = sink(flavor, endpoint);
            sink.region = region.map(ToOwned::to_owned);
            address(&sink, "logs")
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(find(Flavor::Aws, None, Some("eu-west-1")), Ok((Address::Region, some("eu-west-1"))));
        assert_eq!(
            find(Flavor::Minio, Some("http://127.0.0.1:9000/"), None),
            Ok((Address::Path("http://127.0.0.1:9000".to_owned()), some("us-east-1")))
        );
        let oss = |url: &str| Ok((Address::VirtualHost(url.to_owned()), some("cn-hangzhou")));
        assert_eq!(find(Flavor::Oss, None, Some("cn-hangzhou")), oss("https://s3.oss-cn-hangzhou.aliyuncs.com"));
        assert_eq!(find(Flavor::Oss, None, Some("oss-cn-hangzhou")), oss("https://s3.oss-cn-hangzhou.aliyuncs.com"));
        assert_eq!(
            find(Flavor::Oss, Some("internal"), Some("cn-hangzhou")),
            oss("https://s3.oss-cn-hangzhou-internal.aliyuncs.com")
        );
        assert_eq!(
            find(Flavor::Oss, Some("oss-cn-hangzhou.aliyuncs.com"), None),
            oss("https://oss-cn-hangzhou.aliyuncs.com")
        );
        assert_eq!(
            find(Flavor::Oss, Some("https://logs.example.com"), Some("cn-hangzhou")),
            Ok((Address::Custom("https://logs.example.com".to_owned()), some("cn-hangzhou")))
        );
        assert_eq!(
            find(Flavor::Oss, Some("http://logs.oss-cn-hangzhou-internal.aliyuncs.com"), None),
            Ok((Address::Custom("http://logs.oss-cn-hangzhou-internal.aliyuncs.com".to_owned()), some("cn-hangzhou")))
        );
        assert!(find(Flavor::Oss, None, None).is_err());
        assert!(find(Flavor::Oss, Some("https://logs.example.com"), None).is_err());
        assert!(find(Flavor::Minio, None, None).is_err());
        assert!(find(Flavor::Aws, Some("internal"), Some("x")).is_err());
    }

    #[test]
    fn attributes_are_spelled_in_the_flavors_own_headers() {
        let mut sink = sink(Flavor::Oss, None);
        sink.storage_class = Some("IA".to_owned());
        sink.sse = Sse { mode: Some("KMS".to_owned()), kms_key_id: Some("key".to_owned()) };
        sink.tags = vec![("team".to_owned(), "a b&c".to_owned())];
        let names = |sink: &SinkConfig, key: &str| {
            let headers = Dialect::new(sink).unwrap().attributes(key, Some("id"));
            headers.into_iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        };
        let oss = [
            "x-amz-meta-sluice-intent: id",
            "x-oss-storage-class: IA",
            "x-oss-tagging: team=a%20b%26c",
            "x-oss-server-side-encryption: KMS",
            "x-oss-server-side-encryption-key-id: key",
        ];
        assert_eq!(names(&sink, "app/x"), oss);
        assert_eq!(names(&sink, "_sluice/x"), [oss[0], oss[3], oss[4]], "the log must not be frozen");
        sink.flavor = Flavor::Aws;
        assert!(names(&sink, "app/x").iter().all(|h| h.starts_with("x-amz-")));
        sink.storage_class = Some("IA\r\nx: y".to_owned());
        assert!(Dialect::new(&sink).is_err());
    }

    #[test]
    fn listed_keys_are_decoded() {
        assert_eq!(query_decode("a%2Bb+c%20d/%E6%97%A5~").unwrap(), "a+b c d/日~");
        for broken in ["%", "%4", "%zz", "%ff"] {
            assert!(query_decode(broken).is_err());
        }
    }
}
