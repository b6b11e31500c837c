//! Checks where a connector's files go.
//!
//! Owns: rules between the keys of `sink`. Does not own: what a store supports (found out by a probe).

use std::num::NonZeroUsize;

use super::{check, together};
use crate::archive::key::KeyTemplate;
use crate::config::reader::{Checked, Reader};
use crate::config::units::show_bytes;
use crate::config::url::check_http_url;
use crate::config::{Credentials, CredentialsFrom, Flavor, SinkConfig, SinkUrl, Sse};

/// Parts of one object, by S3 and OSS; some are left for a last frame that exceeds `rotate.max_bytes`.
const MAX_PARTS: u64 = 9_000;

/// Builds the checked sink; `None`: the reader has problems.
pub fn sink(raw: &mut Reader<'_>) -> Checked<SinkConfig> {
    let url = url(raw);
    let key = key(raw);
    let endpoint = endpoint(raw, url.as_ref());
    let region = raw.text("sink.region");
    let flavor = raw.optional_choice::<Flavor>("sink.flavor");
    let storage_class = raw.text("sink.storage_class");
    let sse = sse(raw);
    let tags = tags(raw);
    let part_bytes = raw.bytes("sink.part_bytes");
    let max_uploads = raw.integer("sink.max_uploads");
    let ca_file = raw.path("sink.ca_file");
    let credentials = credentials(raw);
    let (url, endpoint) = (url?, endpoint?);
    match url {
        SinkUrl::File { .. } => not_for_files(raw),
        SinkUrl::S3 { .. } | SinkUrl::Oss { .. } => parts(raw, part_bytes),
    }
    let flavor = flavor?.unwrap_or_else(|| default_flavor(&url, endpoint.as_deref()));
    if matches!(url, SinkUrl::Oss { .. }) && flavor != Flavor::Oss {
        let shown = raw.shown("sink.flavor");
        raw.problem("sink.flavor", format!("{shown} does not fit oss://; write oss, or an s3:// URL"));
        return None;
    }
    let credentials = credentials?;
    fits_flavor(raw, &credentials, flavor).then_some(())?;
    Some(SinkConfig {
        url,
        key: key?,
        endpoint,
        region: region?,
        flavor,
        storage_class: storage_class?,
        sse: sse?,
        tags: tags?,
        part_bytes: part_bytes?,
        max_uploads: max_uploads?.and_then(|count| NonZeroUsize::new(usize::try_from(count).ok()?))?,
        ca_file: ca_file?,
        credentials,
    })
}

/// The sink that a bare URL names, for reading: credentials are found automatically, all else is the default.
///
/// # Errors
/// In words: what of URL and endpoint is wrong.
pub fn of_url(text: &str, endpoint: Option<&str>, region: Option<&str>) -> Result<SinkConfig, String> {
    let url = SinkUrl::parse(text)?;
    match endpoint {
        Some("internal") if matches!(url, SinkUrl::Oss { .. }) => {}
        Some(endpoint) => check_http_url(endpoint).map_err(|why| format!("endpoint {endpoint} {why}"))?,
        None => {}
    }
    Ok(SinkConfig {
        key: KeyTemplate::default(),
        flavor: default_flavor(&url, endpoint),
        endpoint: endpoint.map(str::to_owned),
        region: region.map(str::to_owned),
        storage_class: None,
        sse: Sse::default(),
        tags: Vec::new(),
        part_bytes: 16 << 20,
        max_uploads: NonZeroUsize::MIN,
        ca_file: None,
        credentials: Credentials {
            from: CredentialsFrom::Auto,
            role_arn: None,
            profile: None,
            key_file: None,
            secret_file: None,
            token_file: None,
            endpoint: None,
        },
        url,
    })
}

fn url(raw: &mut Reader<'_>) -> Checked<SinkUrl> {
    let text = raw.required_text("sink.url")?;
    match SinkUrl::parse(&text) {
        Ok(url) => Some(url),
        Err(message) => {
            raw.problem("sink.url", message);
            None
        }
    }
}

fn key(raw: &mut Reader<'_>) -> Checked<KeyTemplate> {
    let text = raw.required_text("sink.key")?;
    let message = match KeyTemplate::parse(&text) {
        Ok(_) if text.split('/').any(|segment| segment == "_sluice") => {
            "has the segment `_sluice`, which is reserved for the tasks' logs".to_owned()
        }
        Ok(key) => return Some(key),
        Err(error) => error.to_string(),
    };
    let shown = raw.shown("sink.key");
    raw.problem("sink.key", format!("{shown}: {message}"));
    None
}

fn endpoint(raw: &mut Reader<'_>, url: Option<&SinkUrl>) -> Checked<Option<String>> {
    let endpoint = raw.text("sink.endpoint")?;
    match endpoint.as_deref() {
        None => {}
        Some("internal") if matches!(url, Some(SinkUrl::Oss { .. }) | None) => {}
        Some("internal") => {
            raw.problem("sink.endpoint", "`internal` is for oss:// only; write https://host:port");
            return None;
        }
        Some(text) => check(raw, "sink.endpoint", text, check_http_url).then_some(())?,
    }
    Some(endpoint)
}

/// The dialect where none is written: the doc of `sink.flavor`.
fn default_flavor(url: &SinkUrl, endpoint: Option<&str>) -> Flavor {
    let domain = |domain: &str| endpoint.is_some_and(|endpoint| endpoint.to_ascii_lowercase().contains(domain));
    match url {
        SinkUrl::File { .. } => Flavor::Generic,
        SinkUrl::Oss { .. } => Flavor::Oss,
        SinkUrl::S3 { .. } if domain(".aliyuncs.com") => Flavor::Oss,
        SinkUrl::S3 { .. } if endpoint.is_none() || domain(".amazonaws.com") => Flavor::Aws,
        SinkUrl::S3 { .. } => Flavor::Generic,
    }
}

/// A full file must not have more parts than a store takes.
fn parts(raw: &mut Reader<'_>, part_bytes: Checked<u64>) {
    if let (Some(part_bytes), Some(max_bytes)) = (part_bytes, raw.peek_bytes("rotate.max_bytes"))
        && max_bytes / part_bytes > MAX_PARTS
    {
        let needed = show_bytes(max_bytes.div_ceil(MAX_PARTS).next_multiple_of(1 << 20));
        let message =
            format!("is too small for rotate.max_bytes: a file has at most {MAX_PARTS} parts; write {needed} or more");
        let shown = raw.shown("sink.part_bytes");
        raw.problem("sink.part_bytes", format!("{shown} {message}"));
    }
}

fn sse(raw: &mut Reader<'_>) -> Checked<Sse> {
    let mode = raw.text("sink.sse.mode");
    let kms_key_id = raw.text("sink.sse.kms_key_id");
    if let (Some(mode), Some(Some(_))) = (&mode, &kms_key_id)
        && !mode.as_deref().is_some_and(|mode| mode.to_ascii_lowercase().contains("kms"))
    {
        raw.problem("sink.sse.kms_key_id", "needs a KMS mode in sink.sse.mode");
        return None;
    }
    Some(Sse { mode: mode?, kms_key_id: kms_key_id? })
}

fn tags(raw: &mut Reader<'_>) -> Checked<Vec<(String, String)>> {
    // The limits of S3 and OSS.
    const MAX_TAGS: usize = 10;
    const MAX_KEY_CHARS: usize = 128;
    const MAX_VALUE_CHARS: usize = 256;
    let tags = raw.map("sink.tags")?;
    if tags.len() > MAX_TAGS {
        raw.problem("sink.tags", format!("holds {} tags; a store takes at most {MAX_TAGS}", tags.len()));
        return None;
    }
    let too_long = tags.iter().find(|(key, value)| {
        key.is_empty() || key.chars().count() > MAX_KEY_CHARS || value.chars().count() > MAX_VALUE_CHARS
    });
    if too_long.is_some() {
        let message =
            format!("holds a tag beyond 1 to {MAX_KEY_CHARS} characters of key or {MAX_VALUE_CHARS} of value");
        raw.problem("sink.tags", message);
        return None;
    }
    Some(tags)
}

fn credentials(raw: &mut Reader<'_>) -> Checked<Credentials> {
    const KEY_FILE: &str = "sink.credentials.key_file";
    const ENDPOINT: &str = "sink.credentials.endpoint";
    const ROLE: &str = "sink.credentials.role_arn";
    let from = raw.choice::<CredentialsFrom>("sink.credentials.from");
    let role_arn = raw.text(ROLE);
    let profile = raw.text("sink.credentials.profile");
    let key_file = raw.path(KEY_FILE);
    let secret_file = raw.path("sink.credentials.secret_file");
    let token_file = raw.path("sink.credentials.token_file");
    let endpoint = raw.text(ENDPOINT);
    together(raw, KEY_FILE, "sink.credentials.secret_file");
    let from = from?;
    let missing = match from {
        CredentialsFrom::Static => (!raw.is_set(KEY_FILE)).then_some("needs key_file and secret_file"),
        CredentialsFrom::File => {
            let set = raw.is_set(KEY_FILE) || raw.is_set("sink.credentials.profile");
            (!set).then_some("needs key_file and secret_file, or a profile")
        }
        CredentialsFrom::Auto
        | CredentialsFrom::Env
        | CredentialsFrom::AwsChain
        | CredentialsFrom::EcsRamRole
        | CredentialsFrom::Oidc => None,
    };
    if let Some(message) = missing {
        let shown = raw.shown("sink.credentials.from");
        raw.problem("sink.credentials.from", format!("{shown} {message}"));
        return None;
    }
    if raw.is_set(ROLE) && from != CredentialsFrom::Oidc {
        raw.problem(ROLE, "is for `oidc`; leave it out and give credentials of the role itself");
        return None;
    }
    let endpoint = endpoint?;
    if let Some(text) = &endpoint {
        if !matches!(from, CredentialsFrom::Oidc | CredentialsFrom::EcsRamRole) {
            raw.problem(ENDPOINT, "is for `oidc` and `ecs-ram-role`; the store's own is sink.endpoint");
            return None;
        }
        check(raw, ENDPOINT, text, check_http_url).then_some(())?;
    }
    Some(Credentials {
        from,
        role_arn: role_arn?,
        profile: profile?,
        key_file: key_file?,
        secret_file: secret_file?,
        token_file: token_file?,
        endpoint,
    })
}

/// Who gives such credentials, and to which stores.
fn fits_flavor(raw: &mut Reader<'_>, credentials: &Credentials, flavor: Flavor) -> bool {
    let stores = match (credentials.from, flavor) {
        (CredentialsFrom::EcsRamRole, Flavor::Aws | Flavor::Minio | Flavor::Generic) => "flavor oss",
        (CredentialsFrom::Oidc, Flavor::Minio | Flavor::Generic) => "flavors oss and aws",
        (CredentialsFrom::Oidc, Flavor::Aws) if credentials.endpoint.is_some() => {
            raw.problem("sink.credentials.endpoint", "is for flavor oss; AWS's STS is found by its region");
            return false;
        }
        _ => return true,
    };
    let shown = raw.shown("sink.credentials.from");
    raw.problem("sink.credentials.from", format!("{shown} is for {stores}"));
    false
}

/// A local directory has no endpoint; and it must not be believed to encrypt.
fn not_for_files(raw: &mut Reader<'_>) {
    if raw.is_set("sink.sse.mode") {
        raw.problem("sink.sse.mode", "is for s3:// and oss://; a file:// sink does not encrypt");
    }
    for path in [
        "sink.endpoint",
        "sink.region",
        "sink.flavor",
        "sink.storage_class",
        "sink.tags",
        "sink.ca_file",
        "sink.credentials.from",
    ] {
        if raw.is_set(path) {
            raw.warning(path, "is not used with a file:// sink");
        }
    }
}
