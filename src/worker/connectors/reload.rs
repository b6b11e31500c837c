//! Connectors' files that change while the worker runs.
//!
//! Owns: noticing changes (SIGHUP, a look every two seconds), which of the files are taken. Does not own: reading them
//! ([`crate::config`]), what follows.
//!
//! Looks follow links and compare times, sizes and inodes: that also sees Kubernetes swap the link under a ConfigMap, on file
//! systems that tell nobody of changes. A file that is wrong is refused by itself: what it said before goes on running.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use super::Connectors;
use super::wanted::{self, FromFile};
use crate::api::metrics;
use crate::config::{
    ConnectorConfig, ConnectorFile, Environment, LoadOptions, Problem, Problems, beside_others, connector_files,
    settings_files,
};

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where the settings are, to read them again.
#[derive(Clone, Debug)]
pub struct Sources {
    pub options: LoadOptions,
    pub environment: Environment,
}

/// Hears when a reload begins and ends.
pub type Told = Box<dyn Fn(Phase) + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Begins,
    Ends,
}

/// A file at one moment; another one says that it may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    device: u64,
    inode: u64,
}

type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// Reads changed files until `stop`, and all at each SIGHUP.
pub fn watch(
    connectors: Arc<Connectors>,
    sources: Sources,
    mut hangup: Signal,
    told: Told,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut seen = stamps(&sources).await;
        loop {
            let asked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let now = stamps(&sources).await;
            if now == seen && !asked {
                continue;
            }
            told(Phase::Begins);
            let worker_file = sources.worker_file();
            if worker_file.as_ref().is_some_and(|file| now.get(file) != seen.get(file)) {
                tracing::warn!("the worker's file changed: that takes effect at the next start");
            }
            seen = now;
            reload(&connectors, &sources).await;
            told(Phase::Ends);
        }
    })
}

impl Sources {
    fn worker_file(&self) -> Option<PathBuf> {
        settings_files(&self.options).0
    }
}

async fn stamps(sources: &Sources) -> Stamps {
    let options = sources.options.clone();
    let look = move || {
        let (worker, connectors) = settings_files(&options);
        worker.into_iter().chain(connectors).map(|file| (file.clone(), stamp(&file))).collect()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

fn stamp(file: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(file).ok()?;
    Some(Stamp {
        modified: (found.mtime(), found.mtime_nsec()),
        bytes: found.len(),
        device: found.dev(),
        inode: found.ino(),
    })
}

async fn reload(connectors: &Arc<Connectors>, sources: &Sources) {
    let read = sources.clone();
    let found = tokio::task::spawn_blocking(move || connector_files(&read.options, &read.environment)).await;
    let problems = match found {
        Ok(Ok(files)) => connectors.take_files(files).await,
        Ok(Err(problems)) => vec![problems],
        Err(error) => {
            tracing::error!(%error, "reading the settings again panicked; this is a bug");
            metrics::reloaded(false);
            return;
        }
    };
    for problem in problems.iter().flat_map(|problems| &problems.0) {
        tracing::error!("not taken, what was there before goes on: {problem}");
    }
    if problems.is_empty() {
        tracing::info!("settings of connectors read again");
    }
    metrics::reloaded(problems.is_empty());
}

impl Connectors {
    /// Takes what can be taken of the files as they are now; the answer is what is wrong with the others.
    pub async fn take_files(&self, found: Vec<ConnectorFile>) -> Vec<Problems> {
        let _one = self.changing.lock().await;
        let mut inner = self.lock();
        let nothing = BTreeMap::new();
        let over_http = wanted::others(&nothing, &inner.kept, "");
        let (files, refused) = choose(found, &inner.files, &over_http, &self.shared.worker);
        inner.files = files;
        drop(inner);
        self.reconcile();
        refused
    }
}

/// Which files count now: those that are in order, and of the others what they said before.
fn choose(
    found: Vec<ConnectorFile>,
    before: &BTreeMap<String, FromFile>,
    over_http: &[Arc<ConnectorConfig>],
    worker: &crate::config::WorkerConfig,
) -> (BTreeMap<String, FromFile>, Vec<Problems>) {
    let earlier = |file: &Path| before.values().find(|known| known.config.file == *file).cloned();
    let mut chosen: BTreeMap<String, FromFile> = BTreeMap::new();
    let mut refused = Vec::new();
    let mut fine = Vec::new();
    for ConnectorFile { file, flat, outcome } in found {
        match outcome {
            Ok((config, warnings)) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                fine.push(FromFile { config: Arc::new(config), flat });
            }
            Err(problems) => {
                refused.push(problems);
                chosen.extend(earlier(&file).map(|known| (known.config.name.clone(), known)));
            }
        }
    }
    for candidate in fine {
        let others: Vec<&ConnectorConfig> =
            chosen.values().map(|known| &*known.config).chain(over_http.iter().map(Arc::as_ref)).collect();
        let problems: Vec<Problem> = beside_others(&candidate.config, &others, worker);
        if problems.is_empty() {
            chosen.insert(candidate.config.name.clone(), candidate);
            continue;
        }
        refused.push(Problems(problems));
        // What it said before may have been taken by another one meanwhile.
        if let Some(known) = earlier(&candidate.config.file)
            && beside_others(&known.config, &others, worker).is_empty()
        {
            chosen.insert(known.config.name.clone(), known);
        }
    }
    (chosen, refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_connector_str;

    fn read(name: &str, place: &str) -> ConnectorFile {
        let file = PathBuf::from(format!("/etc/sluice/connectors/{name}.yaml"));
        let text = format!("topics: [t]\napp_id: {{ from: key }}\nsink: {{ url: 'file://{place}' }}\n");
        let outcome = load_connector_str(&file, &text, &Environment::new());
        ConnectorFile { file, flat: [("sink.url".to_owned(), place.to_owned())].into(), outcome }
    }

    fn places(files: &BTreeMap<String, FromFile>) -> Vec<(String, String)> {
        files.iter().map(|(name, file)| (name.clone(), file.config.sink.url.to_string())).collect()
    }

    #[test]
    fn a_wrong_file_keeps_what_it_said_and_others_go_on() {
        let worker = crate::config::allow::tests::worker("127.0.0.1:8083", &[]);
        let take = |found, before: &BTreeMap<String, FromFile>| choose(found, before, &[], &worker);
        let (before, refused) = take(vec![read("a", "/data/a"), read("b", "/data/b")], &BTreeMap::new());
        assert_eq!((before.len(), refused.len()), (2, 0));
        // a is wrong, b changes, c is new and in a's place, d is new.
        let wrong = read("a", "relative");
        assert!(wrong.outcome.is_err());
        let found = vec![wrong, read("b", "/data/b2"), read("c", "/data/a/below"), read("d", "/data/d")];
        let (now, refused) = take(found, &before);
        let want = [("a", "file:///data/a"), ("b", "file:///data/b2"), ("d", "file:///data/d")];
        assert_eq!(places(&now), want.map(|(name, url)| (name.to_owned(), url.to_owned())));
        assert_eq!(refused.len(), 2);
        // b's file is gone, a's is in order again.
        let (now, refused) = take(vec![read("a", "/data/a2"), read("d", "/data/d")], &now);
        assert_eq!((places(&now)[0].1.as_str(), now.len(), refused.len()), ("file:///data/a2", 2, 0));
    }

    #[test]
    fn a_place_that_a_connector_over_http_has_is_refused() {
        let worker = crate::config::allow::tests::worker("127.0.0.1:8083", &[]);
        let (theirs, _) = read("x", "/data/x").outcome.unwrap();
        let (now, refused) = choose(vec![read("x", "/data/x2")], &BTreeMap::new(), &[Arc::new(theirs)], &worker);
        assert!(now.is_empty() && refused[0].to_string().contains("is taken by"), "{refused:?}");
    }
}
