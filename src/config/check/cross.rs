//! Rules between files: connectors among each other, connectors and the worker.
//!
//! Owns: these rules. Does not own: rules inside one file.

use std::path::Path;

use crate::config::problem::{Place, Problem};
use crate::config::units::show_bytes;
use crate::config::{ConnectorConfig, Flavor, SinkUrl, StateUrl, WorkerConfig};

/// What one connector shows to the others.
#[derive(Debug)]
pub struct Member<'a> {
    pub name: Option<&'a str>,
    pub name_place: Place,
    pub url: Option<&'a SinkUrl>,
    pub url_place: Place,
    pub config: Option<&'a ConnectorConfig>,
}

/// Names and prefixes that two connectors would share.
pub fn connectors(members: &[Member<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, later) in members.iter().enumerate() {
        let earlier = members.get(..index).unwrap_or_default();
        if let Some(other) = earlier.iter().find(|other| other.name.is_some() && other.name == later.name) {
            let name = later.name.unwrap_or_default();
            let message = format!("`{name}` is taken by the connector at {}", other.name_place);
            problems.push(Problem::new(later.name_place.clone(), "name", message));
        }
        for other in earlier {
            if let (Some(left), Some(right)) = (later.url, other.url)
                && share(later, other, left, right)
            {
                let how = if left == right { "is" } else { "lies in, or around," };
                let message =
                    format!("{how} the place of the connector at {} ({right}); each needs its own", other.url_place);
                problems.push(Problem::new(later.url_place.clone(), "sink.url", message));
            }
        }
    }
    problems
}

/// Whether one URL is the other or lies below it, in the same store.
fn share(left_member: &Member<'_>, right_member: &Member<'_>, left: &SinkUrl, right: &SinkUrl) -> bool {
    match (left, right) {
        (SinkUrl::File { dir: left }, SinkUrl::File { dir: right }) => overlap(left, right),
        (
            SinkUrl::S3 { bucket: left_bucket, prefix: left } | SinkUrl::Oss { bucket: left_bucket, prefix: left },
            SinkUrl::S3 { bucket: right_bucket, prefix: right } | SinkUrl::Oss { bucket: right_bucket, prefix: right },
        ) => {
            left_bucket == right_bucket
                && store(left_member) == store(right_member)
                && overlap(Path::new(left), Path::new(right))
        }
        _ => false,
    }
}

/// Names of buckets are unique within OSS, within AWS, and at each other address.
fn store(member: &Member<'_>) -> String {
    let Some(config) = member.config else { return String::new() };
    match config.sink.flavor {
        Flavor::Oss => "oss".to_owned(),
        Flavor::Aws => "aws".to_owned(),
        Flavor::Minio | Flavor::Generic => {
            config.sink.endpoint.as_deref().unwrap_or_default().trim_end_matches('/').to_ascii_lowercase()
        }
    }
}

/// What a connector asks of the machine.
pub fn worker(worker: &WorkerConfig, members: &[Member<'_>]) -> (Vec<Problem>, Vec<Problem>) {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let spool = &worker.spool;
    for member in members {
        if let Some(SinkUrl::File { dir }) = member.url
            && overlap(dir, &spool.dir)
        {
            let message =
                format!("lies in, or around, spool.dir ({}); each needs its own directory", spool.dir.display());
            problems.push(Problem::new(member.url_place.clone(), "sink.url", message));
        }
        if let (Some(state), Some(url)) = (&worker.state_url, member.url)
            && let Some(message) = state_problem(state, url)
        {
            problems.push(Problem::new(member.url_place.clone(), "sink.url", message));
        }
        let Some(config) = member.config else { continue };
        if config.rotate.max_bytes > spool.max_bytes {
            let message = format!(
                "{} is more than spool.max_bytes ({}): files are finished before they reach it",
                show_bytes(config.rotate.max_bytes),
                show_bytes(spool.max_bytes)
            );
            warnings.push(Problem::new(member.name_place.clone(), "rotate.max_bytes", message));
        }
    }
    (problems, warnings)
}

/// The log is opened with the sink's endpoint and credentials, and apart from the data.
fn state_problem(state: &StateUrl, sink: &SinkUrl) -> Option<String> {
    let StateUrl::Store(state) = state else { return None };
    let shared = match (state, sink) {
        (SinkUrl::File { dir: state }, SinkUrl::File { dir: sink }) => overlap(state, sink),
        (SinkUrl::File { .. }, SinkUrl::S3 { .. } | SinkUrl::Oss { .. }) => false,
        (SinkUrl::S3 { bucket: state_bucket, prefix: state }, SinkUrl::S3 { bucket: sink_bucket, prefix: sink })
        | (SinkUrl::Oss { bucket: state_bucket, prefix: state }, SinkUrl::Oss { bucket: sink_bucket, prefix: sink }) => {
            state_bucket == sink_bucket && overlap(Path::new(state), Path::new(sink))
        }
        (SinkUrl::S3 { .. }, _) | (SinkUrl::Oss { .. }, _) => {
            return Some(format!(
                "is of another kind than state.url ({state}), which takes its endpoint and credentials from the sink; write \
                 state.url of the same kind, or file://"
            ));
        }
    };
    shared.then(|| format!("lies in, or around, state.url ({state}); each needs its own place"))
}

/// Whether a directory lies in another or is the same.
pub fn overlap(left: &Path, right: &Path) -> bool {
    left.starts_with(right) || right.starts_with(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaps(left: &str, right: &str) -> bool {
        overlap(Path::new(left), Path::new(right))
    }

    #[test]
    fn prefixes_nest_by_segments_not_by_letters() {
        assert!(overlaps("a", "a"));
        assert!(overlaps("a", "a/b"));
        assert!(overlaps("a/b", "a"));
        assert!(overlaps("", "a"));
        assert!(!overlaps("a", "ab"));
        assert!(!overlaps("a/b", "a/c"));
    }
}
