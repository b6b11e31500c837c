//! The connectors of a worker, and how they change while it runs.
//!
//! ```text
//!  files (reload) ---+
//!                    +--> wanted (pure) --> one keeper per connector --> connector::run
//!  kept (HTTP) ------+
//! ```
//!
//! Owns: which connectors there are, one change at a time, who hears of it. Does not own: what runs in a connector
//! ([`super::connector`]), where changes come from ([`crate::api::connect`], [`reload`]).
//!
//! A change is kept before it takes effect: what was answered as done survives a kill. Everything that follows is derived from
//! the files and the kept document by [`Connectors::reconcile`], whoever changed them.

pub mod keeper;
pub mod kept;
pub mod reload;
pub mod wanted;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::keeper::{Idle, Order};
use self::kept::{KeepError, Keeping, Kept, MAX_CONNECTORS, Restart, RestartOf, Target};
use self::wanted::{FromFile, Origin, Wanted};
use super::Shared;
use crate::cli::Exit;
use crate::config::flat::FlatConfig;
use crate::config::{ConnectorConfig, Problems, allow, load_connector_flat};
use crate::task::status::TaskState;

/// How often a worker of a group looks for changes that others made.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    NotFound(String),
    /// It does not fit what is there.
    #[error("{0}")]
    Conflict(String),
    /// What was sent is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It may pass.
    #[error("{0}")]
    Away(String),
    #[error("{0}")]
    Broken(String),
}

impl From<KeepError> for Refusal {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Outdated(_) => Self::Conflict(error.to_string()),
            KeepError::Away(message) => Self::Away(message),
            KeepError::Damaged(message) => Self::Broken(message),
        }
    }
}

/// A connector as others see it.
#[derive(Clone, Debug)]
pub struct View {
    pub name: String,
    pub flat: FlatConfig,
    pub origin: Origin,
    pub target: Target,
    /// `None`: its settings can't be used.
    pub config: Option<Arc<ConnectorConfig>>,
    /// Nothing of it runs in this worker.
    pub idle: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Connectors {
    pub shared: Arc<Shared>,
    stop: CancellationToken,
    keeping: Keeping,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<String, FromFile>,
    kept: Kept,
    keepers: BTreeMap<String, Keeper>,
    running: JoinSet<Exit>,
}

/// A connector's keeper, and what it was told last.
#[derive(Debug)]
struct Keeper {
    order: watch::Sender<Order>,
    idle: Idle,
    wanted: Wanted,
}

impl Connectors {
    /// Starts the connectors of the files and those that were kept.
    ///
    /// # Errors
    /// What was kept is damaged.
    pub async fn start(
        shared: Arc<Shared>,
        keeping: Keeping,
        files: Vec<FromFile>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, KeepError> {
        let mut kept = keeping.load()?;
        match keeping.follow(&kept).await {
            Ok(newer) => kept = newer.unwrap_or(kept),
            Err(error @ KeepError::Damaged(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, "this machine's copy of the connectors made over HTTP is used"),
        }
        let files = files.into_iter().map(|file| (file.config.name.clone(), file)).collect();
        let inner = Mutex::new(Inner { files, kept, ..Inner::default() });
        let connectors = Arc::new(Self { shared, stop, keeping, changing: tokio::sync::Mutex::default(), inner });
        connectors.reconcile();
        Ok(connectors)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change of it is whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of all connectors, which the stop brings, or in a job the end of its work; the worst of their ends.
    pub async fn ended(&self) -> Exit {
        if !self.shared.options.until_caught_up {
            self.stop.cancelled().await;
        }
        let mut running = std::mem::take(&mut self.lock().running);
        let mut worst = Exit::Done;
        while let Some(ended) = running.join_next().await {
            let exit = ended.unwrap_or_else(|error| {
                tracing::error!(%error, "a connector panicked; this is a bug");
                Exit::Damaged
            });
            worst = if exit as u8 > worst as u8 { exit } else { worst };
        }
        worst
    }

    /// Names of all connectors, in order.
    pub fn names(&self) -> Vec<String> {
        let inner = self.lock();
        wanted::names(&inner.files, &inner.kept)
    }

    /// # Errors
    /// There is none of this name.
    pub fn view(&self, name: &str) -> Result<View, Refusal> {
        let inner = self.lock();
        let Some(Keeper { wanted: Wanted::Kept(found), idle, .. }) = inner.keepers.get(name) else {
            return Err(Refusal::NotFound(format!("connector {name} not found")));
        };
        Ok(View {
            name: name.to_owned(),
            flat: found.flat.clone(),
            origin: found.origin.clone(),
            target: found.target,
            config: found.config.as_ref().ok().cloned(),
            idle: idle.is_so(),
        })
    }

    /// Makes a connector.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn create(&self, name: &str, flat: FlatConfig, target: Target) -> Result<View, Refusal> {
        let _one = self.changing.lock().await;
        if self.names().iter().any(|known| known == name) {
            return Err(Refusal::Conflict(format!("connector {name} already exists")));
        }
        self.keep(name, flat, Some(target)).await?;
        self.view(name)
    }

    /// Makes a connector or gives it other settings; true: it was made.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn put(&self, name: &str, flat: FlatConfig) -> Result<(View, bool), Refusal> {
        let _one = self.changing.lock().await;
        let made = !self.names().iter().any(|known| known == name);
        self.keep(name, flat, None).await?;
        Ok((self.view(name)?, made))
    }

    /// Changes some of a connector's settings; `None` takes one out.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn patch(&self, name: &str, changes: BTreeMap<String, Option<String>>) -> Result<View, Refusal> {
        let _one = self.changing.lock().await;
        let mut flat = self.view(name)?.flat;
        for (key, value) in changes {
            match value {
                Some(value) => flat.insert(key, value),
                None => flat.remove(&key),
            };
        }
        self.keep(name, flat, None).await?;
        self.view(name)
    }

    /// What a connector of these settings would be refused for, by key; nothing is changed.
    pub fn check(&self, name: &str, flat: &FlatConfig) -> Result<(), Problems> {
        let (config, _) = load_connector_flat(name, flat)?;
        let inner = self.lock();
        let others = wanted::others(&inner.files, &inner.kept, name);
        let others: Vec<&ConnectorConfig> = others.iter().map(Arc::as_ref).collect();
        let mut problems = crate::config::beside_others(&config, &others, &self.shared.worker);
        if let Err(message) = allow::allowed(&config, &self.shared.worker) {
            let (key, message) = message.split_once(": ").unwrap_or(("", message.as_str()));
            problems.push(crate::config::Problem::new(crate::config::Place::file(&config.file), key, message));
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    async fn keep(&self, name: &str, mut flat: FlatConfig, target: Option<Target>) -> Result<(), Refusal> {
        self.refuse_file(name)?;
        if flat.get("name").is_some_and(|inside| inside != name) {
            return Err(Refusal::Invalid(format!("the configuration's name is not {name}, the connector's")));
        }
        flat.insert("name".to_owned(), name.to_owned());
        self.check(name, &flat).map_err(|problems| Refusal::Invalid(explained(&problems)))?;
        self.change(|kept| {
            if kept.connectors.len() >= MAX_CONNECTORS && !kept.connectors.contains_key(name) {
                return Err(Refusal::Conflict(format!("there are {MAX_CONNECTORS} connectors already")));
            }
            let connector = kept.connectors.entry(name.to_owned()).or_default();
            connector.config = Some(flat);
            connector.target = target.unwrap_or(connector.target);
            Ok(())
        })
        .await
    }

    /// Removes a connector; what it archived stays.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn remove(&self, name: &str) -> Result<(), Refusal> {
        let _one = self.changing.lock().await;
        self.view(name)?;
        self.refuse_file(name)?;
        self.change(|kept| {
            kept.connectors.remove(name);
            Ok(())
        })
        .await
    }

    /// Lets a connector run, pause or stop.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn set_target(&self, name: &str, target: Target) -> Result<(), Refusal> {
        let _one = self.changing.lock().await;
        if self.view(name)?.target == target {
            return Ok(());
        }
        self.change(|kept| {
            kept.connectors.entry(name.to_owned()).or_default().target = target;
            Ok(())
        })
        .await
    }

    /// Starts a connector or its tasks anew.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn restart(&self, name: &str, what: RestartOf) -> Result<(), Refusal> {
        let _one = self.changing.lock().await;
        if self.view(name)?.target == Target::Stopped {
            return Err(Refusal::Conflict(format!("connector {name} is stopped: resume it")));
        }
        self.change(|kept| {
            let connector = kept.connectors.entry(name.to_owned()).or_default();
            let serial = connector.restart.as_ref().map_or(1, |restart| restart.serial + 1);
            connector.restart = Some(Restart { serial, what });
            Ok(())
        })
        .await
    }

    /// Holds a connector still that is stopped, for changes of its offsets.
    ///
    /// # Errors
    /// It is not stopped, or not yet.
    pub async fn hold_stopped(&self, name: &str) -> Result<(View, impl Drop + '_), Refusal> {
        let one = self.changing.lock().await;
        let view = self.view(name)?;
        if view.target != Target::Stopped {
            let message = format!("connector {name} must be in the STOPPED state before its offsets can be modified");
            return Err(Refusal::Invalid(message));
        }
        if !view.idle {
            return Err(Refusal::Conflict(format!("connector {name} is stopping; try again in a moment")));
        }
        if let Some(worker) = self.shared.places.group().and_then(|group| group.holder_of(name)) {
            return Err(Refusal::Conflict(format!(
                "connector {name} is stopping on worker {worker}; try again in a moment"
            )));
        }
        Ok((view, one))
    }

    fn refuse_file(&self, name: &str) -> Result<(), Refusal> {
        match self.lock().files.get(name) {
            None => Ok(()),
            Some(FromFile { config, .. }) => Err(Refusal::Conflict(format!(
                "connector {name} is from the file {}: change or remove that file",
                config.file.display()
            ))),
        }
    }

    /// `changing` is held.
    async fn change(&self, edit: impl FnOnce(&mut Kept) -> Result<(), Refusal>) -> Result<(), Refusal> {
        if self.shared.options.until_caught_up {
            return Err(Refusal::Conflict(
                "this worker archives what is there and ends (--until-caught-up)".to_owned(),
            ));
        }
        let mut kept = self.lock().kept.clone();
        edit(&mut kept)?;
        kept.revision += 1;
        match self.keeping.store(&kept).await {
            Ok(()) => self.lock().kept = kept,
            Err(KeepError::Outdated(newer)) => {
                self.lock().kept = (*newer).clone();
                self.reconcile();
                return Err(KeepError::Outdated(newer).into());
            }
            Err(error) => return Err(error.into()),
        }
        self.reconcile();
        Ok(())
    }

    /// In a group: takes over what other workers changed, until the worker stops.
    pub async fn follow(self: Arc<Self>) {
        if !self.keeping.is_shared() {
            return;
        }
        while tokio::time::timeout(FOLLOW_EVERY, self.stop.cancelled()).await.is_err() {
            let _one = self.changing.lock().await;
            let mine = self.lock().kept.clone();
            match self.keeping.follow(&mine).await {
                Ok(None) => {}
                Ok(Some(newer)) => {
                    tracing::info!(revision = newer.revision, "another worker changed the connectors");
                    self.lock().kept = newer;
                    self.reconcile();
                }
                // That Redis is away the group says already.
                Err(error @ KeepError::Away(_)) => tracing::debug!(%error, "changes of connectors can't be looked for"),
                Err(error) => tracing::error!(%error, "changes of connectors can't be followed"),
            }
        }
    }

    /// Tells every keeper what is wanted of it now.
    fn reconcile(&self) {
        if self.stop.is_cancelled() {
            return;
        }
        let mut inner = self.lock();
        let inner = &mut *inner;
        let all = wanted::all(&inner.files, &inner.kept, &self.shared.worker);
        inner.keepers.retain(|_, keeper| !(matches!(keeper.wanted, Wanted::Removed) && keeper.idle.is_so()));
        // Those that go first: another may get their name or place.
        for (name, keeper) in &mut inner.keepers {
            if !all.contains_key(name) && !matches!(keeper.wanted, Wanted::Removed) {
                tracing::info!(connector = name, "the connector is removed; what it archived stays");
                keeper.wanted = Wanted::Removed;
                keeper.order.send_replace(Order::Removed);
            }
        }
        for (name, now) in all {
            match inner.keepers.get_mut(&name) {
                Some(keeper) => self.tell(&name, keeper, now),
                None => {
                    let order = now.order();
                    let idle = Idle::new(!matches!(order, Order::Run(_)));
                    let (sender, receiver) = watch::channel(order);
                    let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
                    inner.running.spawn(keeper::keep(shared, name.clone(), receiver, idle.clone(), stop));
                    inner.keepers.insert(name, Keeper { order: sender, idle, wanted: Wanted::Kept(now) });
                }
            }
        }
        // What ended before the worker does; of the others the end is awaited.
        while inner.running.try_join_next().is_some() {}
    }

    fn tell(&self, name: &str, keeper: &mut Keeper, now: wanted::Connector) {
        let step = wanted::step(&keeper.wanted, &now);
        let send = match step {
            wanted::Step::Nothing => false,
            wanted::Step::Order => true,
            wanted::Step::Restart(RestartOf::All) => now.target == Target::Running,
            wanted::Step::Restart(what) => self.restart_parts(name, &what) && now.target == Target::Running,
        };
        if send {
            let order = now.order();
            tracing::info!(connector = name, target = ?now.target, "the connector changes");
            if matches!(order, Order::Run(_)) {
                keeper.idle.set(false);
                // Until the keeper has ended them, nobody is to take them for those of the next run.
                for task in self.shared.board.tasks_of(name) {
                    task.set_state(TaskState::Restarting, None, None);
                }
            }
            keeper.order.send_replace(order);
        }
        keeper.wanted = Wanted::Kept(now);
    }

    /// Restarts tasks by themselves; true: the connector as a whole is to start anew.
    fn restart_parts(&self, name: &str, what: &RestartOf) -> bool {
        let board = &self.shared.board;
        for status in board.tasks_of(name) {
            let report = status.report();
            let meant = match what {
                RestartOf::Failed => report.state == TaskState::Failed,
                RestartOf::Task { topic, task } => report.topic == *topic && report.task == *task,
                RestartOf::Connector | RestartOf::All => false,
            };
            if meant {
                status.ask_restart();
            }
        }
        !matches!(what, RestartOf::Task { .. }) && board.connector(name).is_some_and(|report| report.failed.is_some())
    }
}

/// One line, as answers over HTTP have it.
pub fn explained(problems: &Problems) -> String {
    let of = |problem: &crate::config::Problem| match problem.key.as_str() {
        "" => problem.message.clone(),
        key => format!("{key}: {}", problem.message),
    };
    let lines: Vec<String> = problems.0.iter().map(of).collect();
    format!(
        "connector configuration is invalid and contains the following {} error(s): {}",
        lines.len(),
        lines.join("; ")
    )
}
