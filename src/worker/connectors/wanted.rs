//! What is wanted of each connector, purely.
//!
//! Owns: files and kept document to one list; what a change of it means. Does not own: doing it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::keeper::Order;
use super::kept::{Kept, Restart, RestartOf, Target};
use crate::config::flat::FlatConfig;
use crate::config::{ConnectorConfig, WorkerConfig, beside_others, load_connector_flat};

/// A connector of a file.
#[derive(Clone, Debug)]
pub struct FromFile {
    pub config: Arc<ConnectorConfig>,
    /// What the file says.
    pub flat: FlatConfig,
}

/// Where a connector's settings are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    Http,
}

/// A connector that is wanted.
#[derive(Clone, Debug)]
pub struct Connector {
    pub flat: FlatConfig,
    pub origin: Origin,
    /// Or why its settings can't be used any more.
    pub config: Result<Arc<ConnectorConfig>, String>,
    pub target: Target,
    pub restart: Option<Restart>,
}

/// What a keeper was told last.
#[derive(Clone, Debug)]
pub enum Wanted {
    Kept(Connector),
    Removed,
}

/// What follows from a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// The keeper gets its new order.
    Order,
    Restart(RestartOf),
}

impl Connector {
    pub fn order(&self) -> Order {
        match (self.target, &self.config) {
            (Target::Paused, _) => Order::Paused,
            (Target::Stopped, _) => Order::Stopped,
            (Target::Running, Ok(config)) => Order::Run(Arc::clone(config)),
            (Target::Running, Err(why)) => Order::Broken(why.clone()),
        }
    }
}

/// Names of all connectors, in order.
pub fn names(files: &BTreeMap<String, FromFile>, kept: &Kept) -> Vec<String> {
    let over_http = kept.connectors.iter().filter(|(_, kept)| kept.config.is_some()).map(|(name, _)| name);
    let mut names: Vec<String> = files.keys().chain(over_http).cloned().collect();
    names.sort();
    names.dedup();
    names
}

/// The settings of all connectors but one, as far as they can be used.
pub fn others(files: &BTreeMap<String, FromFile>, kept: &Kept, but: &str) -> Vec<Arc<ConnectorConfig>> {
    let over_http = kept.connectors.iter().filter(|(name, _)| !files.contains_key(*name)).filter_map(|(name, kept)| {
        let (config, _) = load_connector_flat(name, kept.config.as_ref()?).ok()?;
        Some(Arc::new(config))
    });
    files.values().map(|file| Arc::clone(&file.config)).chain(over_http).filter(|config| config.name != but).collect()
}

/// All connectors by name. A file hides what was made over HTTP under its name.
pub fn all(files: &BTreeMap<String, FromFile>, kept: &Kept, worker: &WorkerConfig) -> BTreeMap<String, Connector> {
    let of = |name: &str| kept.connectors.get(name).cloned().unwrap_or_default();
    let from_file = |(name, file): (&String, &FromFile)| {
        let kept = of(name);
        let connector = Connector {
            flat: file.flat.clone(),
            origin: Origin::File(file.config.file.clone()),
            config: Ok(Arc::clone(&file.config)),
            target: kept.target,
            restart: kept.restart,
        };
        (name.clone(), connector)
    };
    let mut all: BTreeMap<String, Connector> = files.iter().map(from_file).collect();
    for (name, kept) in &kept.connectors {
        let Some(flat) = kept.config.as_ref().filter(|_| !files.contains_key(name)) else { continue };
        let beside: Vec<Arc<ConnectorConfig>> =
            all.values().filter_map(|one| one.config.as_ref().ok().cloned()).collect();
        let connector = Connector {
            flat: flat.clone(),
            origin: Origin::Http,
            config: usable(name, flat, &beside, worker),
            target: kept.target,
            restart: kept.restart.clone(),
        };
        all.insert(name.clone(), connector);
    }
    all
}

/// It was usable when it was made; since then the program or the files may have changed.
fn usable(
    name: &str,
    flat: &FlatConfig,
    beside: &[Arc<ConnectorConfig>],
    worker: &WorkerConfig,
) -> Result<Arc<ConnectorConfig>, String> {
    let (config, _) = load_connector_flat(name, flat).map_err(|problems| super::explained(&problems))?;
    let beside: Vec<&ConnectorConfig> = beside.iter().map(Arc::as_ref).collect();
    let problems = beside_others(&config, &beside, worker);
    if problems.is_empty() { Ok(Arc::new(config)) } else { Err(super::explained(&crate::config::Problems(problems))) }
}

/// What is to be done when `now` follows `before`.
pub fn step(before: &Wanted, now: &Connector) -> Step {
    let Wanted::Kept(before) = before else { return Step::Order };
    let usable = |connector: &Connector| connector.config.as_ref().map(|_| ()).map_err(Clone::clone);
    if before.flat != now.flat || before.target != now.target || usable(before) != usable(now) {
        return Step::Order;
    }
    match &now.restart {
        Some(restart) if before.restart.as_ref().is_none_or(|seen| seen.serial < restart.serial) => {
            Step::Restart(restart.what.clone())
        }
        _ => Step::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept::KeptConnector;
    use super::*;

    fn flat(url: &str) -> FlatConfig {
        [("topics", "t"), ("app_id.from", "key"), ("sink.url", url)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn file(name: &str, url: &str) -> (String, FromFile) {
        let (config, _) = load_connector_flat(name, &flat(url)).unwrap();
        (name.to_owned(), FromFile { config: Arc::new(config), flat: flat(url) })
    }

    fn worker() -> WorkerConfig {
        crate::config::allow::tests::worker("127.0.0.1:8083", &[])
    }

    fn kept(connectors: &[(&str, KeptConnector)]) -> Kept {
        let connectors = connectors.iter().map(|(name, kept)| ((*name).to_owned(), kept.clone())).collect();
        Kept { revision: 1, connectors }
    }

    fn over_http(url: &str) -> KeptConnector {
        KeptConnector { config: Some(flat(url)), ..KeptConnector::default() }
    }

    #[test]
    fn files_hide_names_and_keep_their_places() {
        let files = BTreeMap::from([file("a", "file:///data/a")]);
        let kept = kept(&[
            ("a", over_http("file:///data/x")),
            ("b", over_http("file:///data/b")),
            ("c", over_http("file:///data/a/below")),
            ("gone", KeptConnector { target: Target::Paused, ..KeptConnector::default() }),
        ]);
        assert_eq!(names(&files, &kept), ["a", "b", "c"]);
        let all = all(&files, &kept, &worker());
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(matches!(&all["a"].origin, Origin::File(_)) && all["a"].flat == flat("file:///data/a"));
        assert!(all["b"].config.is_ok() && all["b"].origin == Origin::Http);
        let why = all["c"].config.as_ref().unwrap_err();
        assert!(why.contains("sink.url"), "{why}");
    }

    #[test]
    fn steps() {
        let files = BTreeMap::from([file("a", "file:///data/a")]);
        let with = |target, restart: Option<(u64, RestartOf)>| {
            let restart = restart.map(|(serial, what)| Restart { serial, what });
            let kept = kept(&[("a", KeptConnector { config: None, target, restart })]);
            all(&files, &kept, &worker()).remove("a").unwrap()
        };
        let running = Wanted::Kept(with(Target::Running, None));
        assert_eq!(step(&running, &with(Target::Running, None)), Step::Nothing);
        assert_eq!(step(&running, &with(Target::Paused, None)), Step::Order);
        assert_eq!(step(&Wanted::Removed, &with(Target::Running, None)), Step::Order);
        let restarted = with(Target::Running, Some((1, RestartOf::All)));
        assert_eq!(step(&running, &restarted), Step::Restart(RestartOf::All));
        // The same one again is not carried out twice.
        assert_eq!(step(&Wanted::Kept(restarted.clone()), &restarted), Step::Nothing);
        let again = with(Target::Running, Some((2, RestartOf::Failed)));
        assert_eq!(step(&Wanted::Kept(restarted), &again), Step::Restart(RestartOf::Failed));
    }
}
