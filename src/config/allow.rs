//! What a connector that comes over HTTP may reach: `http.allow_sinks`.
//!
//! Owns: this rule. Does not own: whether the settings are legal otherwise.
//!
//! Whoever may make connectors makes this process write to places, open addresses and read files. Where anybody but this
//! machine's users can ask, nothing is allowed that is not named.

use std::path::Path;

use super::check::cross::overlap;
use super::{ConnectorConfig, HttpConfig, SinkUrl, WorkerConfig};

/// # Errors
/// In words: what the connector may not, and what to write into the worker's settings.
pub fn allowed(config: &ConnectorConfig, worker: &WorkerConfig) -> Result<(), String> {
    let http = &worker.http;
    if http.allow_sinks.is_empty() {
        return if http.is_local() { Ok(()) } else { Err(nothing(http)) };
    }
    let sink = &config.sink;
    let refuse = |key: &str, what: &dyn std::fmt::Display| {
        Err(format!(
            "{key}: {what} is not under one of http.allow_sinks ({}) of the worker",
            http.allow_sinks.join(", ")
        ))
    };
    if !http.allow_sinks.iter().filter_map(|url| SinkUrl::parse(url).ok()).any(|url| holds(&url, &sink.url)) {
        return refuse("sink.url", &sink.url);
    }
    let endpoints = [("sink.endpoint", &sink.endpoint), ("sink.credentials.endpoint", &sink.credentials.endpoint)];
    for (key, endpoint) in endpoints {
        if let Some(endpoint) = endpoint.as_deref().filter(|endpoint| *endpoint != "internal")
            && !http.allow_sinks.iter().any(|allowed| same_address(allowed, endpoint))
        {
            return refuse(key, &super::flat::without_password(endpoint));
        }
    }
    let credentials = &sink.credentials;
    let files = [
        ("sink.ca_file", &sink.ca_file),
        ("sink.credentials.key_file", &credentials.key_file),
        ("sink.credentials.secret_file", &credentials.secret_file),
        ("sink.credentials.token_file", &credentials.token_file),
    ];
    for (key, file) in files {
        if let Some(file) = file
            && !http.allow_sinks.iter().any(|allowed| holds_file(allowed, file))
        {
            return refuse(key, &file.display());
        }
    }
    Ok(())
}

fn nothing(http: &HttpConfig) -> String {
    format!(
        "http.allow_sinks of the worker is empty and {} can be reached from other machines: name there the places (s3://, oss://, \
         file://), addresses (https://) and folders of secrets (file://) that connectors made over HTTP may use",
        http.listen
    )
}

/// Whether `url` is `place` or lies below it.
fn holds(place: &SinkUrl, url: &SinkUrl) -> bool {
    let below = |prefix: &Path, path: &Path| path.starts_with(prefix) && overlap(prefix, path);
    match (place, url) {
        (SinkUrl::File { dir: place }, SinkUrl::File { dir }) => below(place, dir),
        (SinkUrl::S3 { bucket: at, prefix: place }, SinkUrl::S3 { bucket, prefix })
        | (SinkUrl::Oss { bucket: at, prefix: place }, SinkUrl::Oss { bucket, prefix }) => {
            at == bucket && below(Path::new(place), Path::new(prefix))
        }
        _ => false,
    }
}

fn same_address(allowed: &str, endpoint: &str) -> bool {
    let plain = |text: &str| text.trim_end_matches('/').to_ascii_lowercase();
    allowed.starts_with("http") && plain(allowed) == plain(endpoint)
}

fn holds_file(allowed: &str, file: &Path) -> bool {
    let normal = file.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    matches!(SinkUrl::parse(allowed), Ok(SinkUrl::File { dir }) if normal && file.starts_with(&dir))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::flat::FlatConfig;
    use crate::config::{Environment, HttpAuth, LoadOptions, load, load_connector_flat};

    pub(crate) fn worker(listen: &str, allow: &[&str]) -> WorkerConfig {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("worker.yaml");
        std::fs::write(&file, "kafka: { bootstrap_servers: [k:9092] }\n").unwrap();
        let options = LoadOptions { config: Some(file), allow_no_connector: true, ..LoadOptions::default() };
        let mut worker = load(&options, &Environment::new()).unwrap().worker;
        worker.http.listen = listen.to_owned();
        worker.http.auth = HttpAuth::None;
        worker.http.allow_sinks = allow.iter().map(|&text| text.to_owned()).collect();
        worker
    }

    fn connector(pairs: &[(&str, &str)]) -> ConnectorConfig {
        let mut flat: FlatConfig = [("topics", "t"), ("app_id.from", "key")].map(|(k, v)| (k.into(), v.into())).into();
        flat.extend(pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())));
        load_connector_flat("c", &flat).unwrap().0
    }

    #[test]
    fn an_empty_list_is_enough_on_this_machine_only() {
        let file = connector(&[("sink.url", "file:///data/a")]);
        assert_eq!(allowed(&file, &worker("127.0.0.1:8083", &[])), Ok(()));
        let message = allowed(&file, &worker("0.0.0.0:8083", &[])).unwrap_err();
        assert!(message.contains("http.allow_sinks"), "{message}");
    }

    #[test]
    fn places_addresses_and_files_are_held_to_the_list() {
        let here = worker("0.0.0.0:8083", &["s3://logs/a", "https://minio:9000", "file:///etc/sluice/secrets"]);
        let s3 = |more: &[(&str, &str)]| {
            let mut pairs = vec![("sink.url", "s3://logs/a/b"), ("sink.region", "r")];
            pairs.extend_from_slice(more);
            allowed(&connector(&pairs), &here)
        };
        assert_eq!(s3(&[]), Ok(()));
        assert_eq!(s3(&[("sink.endpoint", "https://minio:9000/")]), Ok(()));
        let credentials = |file: &'static str| {
            s3(&[
                ("sink.credentials.from", "static"),
                ("sink.credentials.key_file", "/etc/sluice/secrets/key"),
                ("sink.credentials.secret_file", file),
            ])
        };
        assert_eq!(credentials("/etc/sluice/secrets/secret"), Ok(()));
        assert!(credentials("/etc/shadow").unwrap_err().starts_with("sink.credentials.secret_file"));
        assert!(credentials("/etc/sluice/secrets/../../shadow").is_err());
        assert!(s3(&[("sink.endpoint", "http://169.254.169.254")]).unwrap_err().starts_with("sink.endpoint"));
        assert!(s3(&[("sink.url", "s3://logs/ab")]).unwrap_err().starts_with("sink.url"));
        assert!(s3(&[("sink.url", "file:///data")]).is_err());
    }
}
