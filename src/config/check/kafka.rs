//! Checks how Kafka is reached.
//!
//! Owns: rules between the keys of `kafka`. Does not own: connecting.

use super::{check, together};
use crate::config::problem::Problem;
use crate::config::reader::{Checked, Reader};
use crate::config::schema::names;
use crate::config::url::{check_host_port, check_http_url};
use crate::config::{KafkaConfig, KafkaSecurity, SaslConfig, SaslMechanism, SecurityProtocol, TlsConfig};

/// Builds the checked settings of Kafka.
pub fn kafka(raw: &mut Reader<'_>) -> Checked<KafkaConfig> {
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
            let names = names::<SaslMechanism>().join(", ");
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
