//! Keeps one connector as it is wanted.
//!
//! Owns: the order of start and stop of one connector: never two runs of it at a time. Does not own: what is wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::Exit;
use crate::config::ConnectorConfig;
use crate::worker::{Shared, connector};

/// What a keeper is told.
#[derive(Clone, Debug)]
pub enum Order {
    Run(Arc<ConnectorConfig>),
    /// Its settings can't be used: why.
    Broken(String),
    /// Nothing runs, its tasks stay on the board.
    Paused,
    Stopped,
    Removed,
}

/// Whether nothing of a connector runs.
#[derive(Clone, Debug)]
pub struct Idle(Arc<AtomicBool>);

impl Idle {
    pub fn new(so: bool) -> Self {
        Self(Arc::new(AtomicBool::new(so)))
    }

    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub fn set(&self, so: bool) {
        self.0.store(so, Ordering::Release);
    }
}

/// Carries orders out until the worker stops or the sender is dropped; in a job, until it has caught up.
pub async fn keep(
    shared: Arc<Shared>,
    name: String,
    mut order: watch::Receiver<Order>,
    idle: Idle,
    stop: CancellationToken,
) -> Exit {
    let job = shared.options.until_caught_up;
    loop {
        let now = order.borrow_and_update().clone();
        if let Order::Run(config) = now {
            match run(&shared, &name, config, &mut order, &stop).await {
                Some(exit) => return exit,
                None => continue,
            }
        }
        match &now {
            Order::Run(_) => {}
            Order::Broken(why) => {
                tracing::error!(connector = name, "{why}");
                shared.board.begin(&name);
                shared.board.connector_failed(&name, why);
            }
            Order::Paused => shared.board.paused(&name),
            Order::Stopped => shared.board.begin(&name),
            Order::Removed => shared.board.forget(&name),
        }
        {
            // With the order held, no other one comes between the look and the word.
            let newest = order.borrow();
            idle.set(!matches!(*newest, Order::Run(_)));
        }
        if job {
            let broken = matches!(now, Order::Broken(_));
            if !broken {
                tracing::warn!(connector = name, "the connector is paused or stopped: nothing of it is archived");
            }
            return if broken { Exit::Usage } else { Exit::Done };
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Exit::Done,
            // The sender goes with a connector that was removed.
            changed = order.changed() => if changed.is_err() { return Exit::Done },
        }
    }
}

/// Runs the connector until the order changes; `Some`: the worker stops, or the job is done.
async fn run(
    shared: &Arc<Shared>,
    name: &str,
    config: Arc<ConnectorConfig>,
    order: &mut watch::Receiver<Order>,
    stop: &CancellationToken,
) -> Option<Exit> {
    shared.board.begin(name);
    let stop_here = stop.child_token();
    let mut running = tokio::spawn(connector::run(Arc::clone(shared), config, stop_here.clone()));
    let panicked = |error: tokio::task::JoinError| {
        tracing::error!(connector = name, %error, "the connector panicked; this is a bug");
        shared.board.connector_failed(name, "it panicked, which is a bug: see the log");
        Exit::Damaged
    };
    tokio::select! {
        biased;
        ended = &mut running => {
            let exit = ended.unwrap_or_else(panicked);
            if shared.options.until_caught_up || stop.is_cancelled() {
                return Some(exit);
            }
            // It ends by itself only after a panic; it is shown as failed until somebody restarts it.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Some(exit),
                // A sender is dropped after the last order alone.
                _ = order.changed() => order.mark_changed(),
            }
        }
        _ = order.changed() => {
            order.mark_changed();
            stop_here.cancel();
            let exit = running.await.unwrap_or_else(panicked);
            if stop.is_cancelled() {
                return Some(exit);
            }
        }
    }
    shared.places.withdraw(name);
    None
}
