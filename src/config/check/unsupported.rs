//! What the settings can say and this version does not do.
//!
//! Owns: these refusals and warnings, in one place. Does not own: whether a value is legal otherwise.
//!
//! Refused is what someone relies on when it is written (who can listen in); what only goes without is a warning.

use crate::config::reader::Reader;

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
