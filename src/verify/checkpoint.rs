//! How far the first pass came, in a file.
//!
//! Owns: the file. Does not own: what is in it ([`super::count`]).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::count::Counting;
use super::logs::TopicLogs;
use super::scope::Scope;
use super::{VerifyError, count};

/// Another version's file is not gone on with.
const VERSION: u32 = 1;

#[derive(Debug, Deserialize)]
pub(super) struct Kept {
    version: u32,
    connector: String,
    topic: Option<String>,
    pub scopes: BTreeMap<String, Scope>,
    pub counting: Counting,
}

#[derive(Serialize)]
struct Keeping<'a> {
    version: u32,
    connector: &'a str,
    topic: Option<&'a str>,
    scopes: BTreeMap<&'a str, &'a Scope>,
    counting: &'a Counting,
}

/// Reads what was kept; `None`: there is nothing yet.
///
/// # Errors
/// It is not what this question would have kept.
pub(super) fn load(path: &Path, connector: &str, topic: Option<&str>) -> Result<Option<Kept>, VerifyError> {
    let wrong = |why: String| VerifyError::Usage(format!("{}: {why}; name another file, or delete it", path.display()));
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let kept: Kept =
        serde_json::from_slice(&text).map_err(|error| wrong(format!("this is not how far a verify came ({error})")))?;
    if kept.version != VERSION || kept.connector != connector || kept.topic.as_deref() != topic {
        return Err(wrong("it was kept by another version, or for another connector or topic".to_owned()));
    }
    Ok(Some(kept))
}

/// Keeps how far it came: whole or not at all.
///
/// # Errors
/// The file can't be written.
pub(super) fn keep(
    path: &Path,
    connector: &str,
    topic: Option<&str>,
    topics: &BTreeMap<String, TopicLogs>,
    counting: &count::Counting,
) -> Result<(), VerifyError> {
    let failed = |error: std::io::Error| VerifyError::Usage(format!("{}: {error}", path.display()));
    let scopes = topics.iter().map(|(topic, logs)| (topic.as_str(), &logs.scope)).collect();
    let keeping = Keeping { version: VERSION, connector, topic, scopes, counting };
    let text = serde_json::to_vec(&keeping).map_err(|error| failed(error.into()))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let mut file = std::fs::File::create(&name).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&name, path).map_err(failed)
}

/// There is an answer: the next question begins anew.
///
/// # Errors
/// The file can't be deleted.
pub(super) fn done(path: &Path) -> Result<(), VerifyError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(VerifyError::Usage(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
