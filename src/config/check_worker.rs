//! Checks one worker's settings.
//!
//! Owns: rules between the worker's keys. Does not own: single values (the reader's), rules between files.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;

use super::names::check_name;
use super::problem::Problem;
use super::reader::{Checked, Reader};
use super::suggest::nearest;
use super::tree::show;
use super::url::{REDIS_SCHEMES, SINK_SCHEMES, check_host_port, check_http_url, check_redis_url, is_loopback};
use super::{
    HttpAuth, HttpConfig, HttpTls, KafkaConfig, KafkaSecurity, LogConfig, SaslConfig, SaslMechanism, SecretUrl,
    SecurityProtocol, SinkUrl, SpoolConfig, TlsConfig, WorkerConfig,
};

/// Builds the checked settings; `None`: the reader has problems.
pub fn worker(raw: &mut Reader<'_>, host_name: &str) -> Checked<WorkerConfig> {
    let id = id(raw, host_name);
    let group = raw.required_text("worker.group").filter(|name| check(raw, "worker.group", name, check_name));
    let max_tasks = raw.integer("worker.max_tasks");
    let kafka = kafka(raw);
    let state_url = state_url(raw);
    let coordination_url = raw.text("coordination.url").and_then(|url| match url {
        Some(url) => check(raw, "coordination.url", &url, check_redis_url).then(|| Some(SecretUrl::new(url))),
        None => Some(None),
    });
    let spool_dir = raw.path("spool.dir").map(Option::unwrap_or_default);
    let spool_bytes = raw.bytes("spool.max_bytes");
    let memory_max_bytes = raw.bytes("memory_max_bytes");
    let compression_threads = raw.integer("compression_threads");
    let http = http(raw);
    let shutdown_timeout = raw.duration("shutdown_timeout");
    let log_format = raw.choice("log.format");
    let log_level = raw.required_text("log.level").filter(|level| check(raw, "log.level", level, check_filter));
    Some(WorkerConfig {
        id: id?,
        group: group?,
        max_tasks: max_tasks?.and_then(|count| NonZeroU32::new(u32::try_from(count).ok()?)),
        kafka: kafka?,
        state_url: state_url?,
        coordination_url: coordination_url?,
        spool: SpoolConfig { dir: spool_dir?, max_bytes: spool_bytes? },
        memory_max_bytes: memory_max_bytes?,
        compression_threads: compression_threads?.and_then(|count| NonZeroUsize::new(usize::try_from(count).ok()?)),
        http: http?,
        shutdown_timeout: shutdown_timeout?,
        log: LogConfig { format: log_format?, level: log_level? },
    })
}

/// Reports what a rule says of a value; true: it is legal.
pub fn check(raw: &mut Reader<'_>, path: &str, value: &str, rule: impl FnOnce(&str) -> Result<(), String>) -> bool {
    match rule(value) {
        Ok(()) => true,
        Err(message) => {
            let shown = raw.shown(path);
            raw.problem(path, format!("{shown} {message}"));
            false
        }
    }
}

fn id(raw: &mut Reader<'_>, host_name: &str) -> Checked<String> {
    const MAX_BYTES: usize = 255;
    let id = raw.text("worker.id")?.unwrap_or_else(|| host_name.to_owned());
    if id.len() > MAX_BYTES {
        raw.problem("worker.id", format!("has {} bytes; at most {MAX_BYTES} are allowed", id.len()));
        return None;
    }
    Some(id)
}

fn kafka(raw: &mut Reader<'_>) -> Checked<KafkaConfig> {
    let bootstrap_servers = bootstrap_servers(raw);
    let security = security(raw);
    let client_rack = raw.text("kafka.client_rack");
    let group_offsets = raw.bool("kafka.group_offsets");
    Some(KafkaConfig {
        bootstrap_servers: bootstrap_servers?,
        security: security?,
        client_rack: client_rack?,
        group_offsets: group_offsets?,
    })
}

fn bootstrap_servers(raw: &mut Reader<'_>) -> Checked<Vec<String>> {
    const PATH: &str = "kafka.bootstrap_servers";
    let servers = raw.list(PATH)?.unwrap_or_default();
    if servers.is_empty() {
        raw.problem(PATH, "is missing: write the brokers, [host:9092, ..]");
        return None;
    }
    let mut legal = true;
    for (place, text) in &servers {
        if let Err(message) = check_host_port(&text.text) {
            raw.problems.push(Problem::new(place.clone(), PATH, format!("{} {message}", text.shown())));
            legal = false;
        }
    }
    legal.then(|| servers.into_iter().map(|(_, text)| text.text.clone()).collect())
}

fn security(raw: &mut Reader<'_>) -> Checked<KafkaSecurity> {
    let protocol = raw.choice::<SecurityProtocol>("kafka.security.protocol");
    let mechanism = raw.optional_choice::<SaslMechanism>("kafka.security.sasl.mechanism");
    let username = raw.text("kafka.security.sasl.username");
    let password_file = raw.path("kafka.security.sasl.password_file");
    let token_endpoint = raw.text("kafka.security.sasl.token_endpoint");
    let client_id = raw.text("kafka.security.sasl.client_id");
    let client_secret_file = raw.path("kafka.security.sasl.client_secret_file");
    let scope = raw.text("kafka.security.sasl.scope");
    let tls = tls(raw);
    if let Some(Some(url)) = &token_endpoint {
        check(raw, "kafka.security.sasl.token_endpoint", url, check_http_url);
    }
    let (protocol, mechanism) = (protocol?, mechanism?);
    check_sasl(raw, protocol, mechanism);
    plaintext_only(raw, protocol);
    let sasl = SaslConfig {
        mechanism,
        username: username?,
        password_file: password_file?,
        token_endpoint: token_endpoint?,
        client_id: client_id?,
        client_secret_file: client_secret_file?,
        scope: scope?,
    };
    Some(KafkaSecurity { protocol, sasl, tls: tls? })
}

/// The reader behind the Kafka door speaks neither TLS nor SASL. Goes away with it.
fn plaintext_only(raw: &mut Reader<'_>, protocol: SecurityProtocol) {
    if protocol != SecurityProtocol::Plaintext {
        let shown = raw.shown("kafka.security.protocol");
        raw.problem("kafka.security.protocol", format!("{shown}: this version reads over PLAINTEXT only"));
    }
}

fn check_sasl(raw: &mut Reader<'_>, protocol: SecurityProtocol, mechanism: Option<SaslMechanism>) {
    const MECHANISM: &str = "kafka.security.sasl.mechanism";
    if !matches!(protocol, SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl) {
        if mechanism.is_some() {
            raw.warning(MECHANISM, "is not used without SASL_PLAINTEXT or SASL_SSL in kafka.security.protocol");
        }
        return;
    }
    let needed: &[&str] = match mechanism {
        None => {
            let names = super::schema::names::<SaslMechanism>().join(", ");
            raw.problem(MECHANISM, format!("is missing: write one of {names}"));
            return;
        }
        Some(SaslMechanism::OauthBearer) => &["token_endpoint", "client_id", "client_secret_file"],
        Some(SaslMechanism::Plain | SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512) => {
            &["username", "password_file"]
        }
    };
    for name in needed {
        let path = format!("kafka.security.sasl.{name}");
        if !raw.is_set(&path) {
            let mechanism = raw.shown(MECHANISM);
            raw.problem(&path, format!("is missing: {mechanism} needs it"));
        }
    }
}

fn tls(raw: &mut Reader<'_>) -> Checked<TlsConfig> {
    let ca_file = raw.path("kafka.security.tls.ca_file");
    let cert_file = raw.path("kafka.security.tls.cert_file");
    let key_file = raw.path("kafka.security.tls.key_file");
    let verify_hostname = raw.bool("kafka.security.tls.verify_hostname");
    together(raw, "kafka.security.tls.cert_file", "kafka.security.tls.key_file");
    Some(TlsConfig { ca_file: ca_file?, cert_file: cert_file?, key_file: key_file?, verify_hostname: verify_hostname? })
}

/// Reports one of two keys that make sense only together.
pub fn together(raw: &mut Reader<'_>, first: &str, second: &str) {
    for (set, missing) in [(first, second), (second, first)] {
        if raw.is_set(set) && !raw.is_set(missing) {
            raw.problem(set, format!("needs {missing} too"));
        }
    }
}

fn state_url(raw: &mut Reader<'_>) -> Checked<Option<SecretUrl>> {
    let Some(url) = raw.text("state.url")? else { return Some(None) };
    let legal = check(raw, "state.url", &url, |url| match url.split_once("://") {
        Some((scheme, _)) if REDIS_SCHEMES.contains(&scheme) => check_redis_url(url),
        Some((scheme, _)) if SINK_SCHEMES.contains(&scheme) => SinkUrl::parse(url).map(|_| ()),
        _ => {
            let schemes: Vec<_> = SINK_SCHEMES.iter().chain(&REDIS_SCHEMES).map(|s| format!("{s}://")).collect();
            Err(format!("begins with none of {}", schemes.join(", ")))
        }
    });
    legal.then(|| Some(SecretUrl::new(url)))
}

fn http(raw: &mut Reader<'_>) -> Checked<HttpConfig> {
    let listen = raw.required_text("http.listen").filter(|text| check(raw, "http.listen", text, check_host_port));
    let metrics_listen = raw.text("http.metrics_listen").filter(|text| match text {
        Some(text) => check(raw, "http.metrics_listen", text, check_host_port),
        None => true,
    });
    let auth = auth(raw);
    let cert_file = raw.path("http.tls.cert_file");
    let key_file = raw.path("http.tls.key_file");
    together(raw, "http.tls.cert_file", "http.tls.key_file");
    let allow_sinks = allow_sinks(raw);
    if let (Some(listen), Some(HttpAuth::Unset)) = (&listen, &auth)
        && !is_loopback(listen)
    {
        let shown = raw.shown("http.listen");
        raw.problem(
            "http.listen",
            format!("{shown} can be reached from other machines: set http.auth, or write `auth: none` if everyone may use it"),
        );
    }
    let tls = match (cert_file?, key_file?) {
        (Some(cert_file), Some(key_file)) => Some(HttpTls { cert_file, key_file }),
        _ => None,
    };
    Some(HttpConfig { listen: listen?, metrics_listen: metrics_listen?, auth: auth?, tls, allow_sinks: allow_sinks? })
}

fn auth(raw: &mut Reader<'_>) -> Checked<HttpAuth> {
    // The shape leaves a map, or the word `none`.
    if raw.is_word("http.auth") {
        return Some(HttpAuth::None);
    }
    let bearer = raw.path("http.auth.bearer_token_file");
    let basic = raw.path("http.auth.basic_file");
    match (bearer?, basic?) {
        (None, None) => Some(HttpAuth::Unset),
        (Some(file), None) => Some(HttpAuth::BearerTokenFile(file)),
        (None, Some(file)) => Some(HttpAuth::BasicFile(file)),
        (Some(_), Some(_)) => {
            raw.problem("http.auth.basic_file", "stands beside bearer_token_file; write one of them");
            None
        }
    }
}

fn allow_sinks(raw: &mut Reader<'_>) -> Checked<Vec<String>> {
    const PATH: &str = "http.allow_sinks";
    let urls = raw.list(PATH)?.unwrap_or_default();
    let mut legal = true;
    for (place, text) in &urls {
        if let Err(message) = SinkUrl::parse(&text.text) {
            raw.problems.push(Problem::new(place.clone(), PATH, format!("{} {message}", text.shown())));
            legal = false;
        }
    }
    legal.then(|| urls.into_iter().map(|(_, text)| text.text.clone()).collect())
}

/// A tracing filter: `info`, `info,sluice::log=debug`. A mistyped level alone would be taken for a part of the program.
fn check_filter(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in text.split(',') {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            let hint = match nearest(level, LEVELS) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("write one of {}, or part=level", LEVELS.join(", ")),
            };
            return Err(format!("has the unknown level {}; {hint}", show(level)));
        }
    }
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("is not a filter: {error}")),
    }
}

/// Whether a directory lies in another or is the same.
pub fn overlap(left: &Path, right: &Path) -> bool {
    left.starts_with(right) || right.starts_with(left)
}
