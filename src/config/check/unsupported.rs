//! What the settings can say and this version does not do.
//!
//! Owns: these refusals and warnings, in one place. Does not own: whether a value is legal otherwise.
//!
//! Refused is what someone relies on when it is written (who can listen in, whose rights are used); what
//! only goes without is a warning.

use crate::config::CredentialsFrom;
use crate::config::reader::Reader;
use crate::config::schema::Named as _;

const ROLES: [CredentialsFrom; 2] = [CredentialsFrom::EcsRamRole, CredentialsFrom::Oidc];

/// Of the worker's settings.
pub fn worker(raw: &mut Reader<'_>) {
    if let Some(path) = ["http.tls.cert_file", "http.tls.key_file"].into_iter().find(|path| raw.is_set(path)) {
        refuse(
            raw,
            path,
            "HTTPS is not in this version; leave http.tls out and put a proxy with TLS before http.listen",
        );
    }
    warn(raw, "http.allow_sinks", "is not used by this version: connectors are files");
}

/// Of a connector's settings.
pub fn connector(raw: &mut Reader<'_>) {
    credentials(raw);
}

fn credentials(raw: &mut Reader<'_>) {
    const FROM: &str = "sink.credentials.from";
    const ROLE: &str = "sink.credentials.role_arn";
    if ROLES.iter().any(|from| raw.peek(FROM) == Some(from.name())) {
        let names: Vec<_> =
            CredentialsFrom::NAMES.iter().filter(|(_, from)| !ROLES.contains(from)).map(|(name, _)| *name).collect();
        let message = format!("{} is not in this version; write one of {}", raw.shown(FROM), names.join(", "));
        refuse(raw, FROM, &message);
    } else if raw.is_set(ROLE) {
        refuse(
            raw,
            ROLE,
            "taking on a role is not in this version; leave it out and give credentials of the role itself",
        );
    }
}

/// One problem a key is enough: where the value is wrong anyway, that is said first.
fn refuse(raw: &mut Reader<'_>, path: &str, message: &str) {
    if !raw.problems.iter().any(|problem| problem.key == path) {
        raw.problem(path, message);
    }
}

fn warn(raw: &mut Reader<'_>, path: &str, message: &str) {
    if raw.is_set(path) {
        raw.warning(path, message);
    }
}
