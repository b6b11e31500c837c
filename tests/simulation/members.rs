//! The workers of a group: whole workers of the real code, with all tasks of their connector, over Redis' twin.
//!
//! Owns: starting, crashing and stopping them, the settings that each was started with, what their failed tasks mean.
//! Does not own: what happens when (the group history's).

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sluice::api::http::Board;
use sluice::archive::codec::Codec;
use sluice::archive::format::Format;
use sluice::cli::Exit;
use sluice::cluster::Coordinator;
use sluice::cluster::group::Group;
use sluice::cluster::standing::Timing;
use sluice::config::{
    AppIdFrom, Bucket, ConnectorConfig, HttpAuth, HttpConfig, KafkaConfig, LogConfig, LogFormat, OnError, SpoolConfig,
    StartFrom, WorkerConfig,
};
use sluice::pipeline::budget::Budget;
use sluice::pipeline::compress::CompressPool;
use sluice::store::Store;
use sluice::store::observed::Observed;
use sluice::task::status::TaskState;
use sluice::worker::connector::Connector;
use sluice::worker::layout;
use sluice::worker::places::Places;
use sluice::worker::{RunOptions, Shared, keep_group};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::disks::spool;
use crate::kafka::SimKafka;
use crate::mutated_store::MutatedStore;
use crate::process::Process;
use crate::redis::{Redis, SimRedis};
use crate::store::SimStore;
use crate::workers::{CONNECTOR, Limits, Plan, compress, environment, worker_id};
use crate::world::Rng;

/// How a worker is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Member,
    /// `--until-caught-up`.
    Job,
    /// Started without `coordination.url`, by mistake.
    Outsider,
}

/// One worker process.
#[derive(Debug)]
pub struct Member {
    pub process: Arc<Process>,
    pub stop: CancellationToken,
    pub ended: JoinHandle<Option<Exit>>,
    board: Arc<Board>,
}

impl Member {
    pub fn start(
        plan: &Plan,
        config: &Arc<ConnectorConfig>,
        redis: &Arc<Redis>,
        process: Arc<Process>,
        role: Role,
    ) -> Self {
        let world = Arc::clone(&process.world);
        let (skew_ms, uploads, timeout_ms, max_tasks) = {
            let mut rng = world.rng();
            let skew = if rng.chance(20) { rng.between(0, 7_200_000) as i64 - 3_600_000 } else { 0 };
            let max_tasks =
                if role == Role::Member { rng.pick(&[None, None, None, Some(1), Some(2), Some(3)]) } else { None };
            (skew, rng.between(1, 4), rng.between(0, 30_000), max_tasks)
        };
        let environment = environment(&world, skew_ms);
        let (spool, budget) = (spool(&process, plan.mutation, plan.spool_bytes), Budget::new(plan.budget_bytes));
        let (jobs, queue) = mpsc::channel(4);
        let limits = Limits::new(&spool, &budget);
        tokio::spawn(compress(Arc::clone(&process), queue, plan.spool_fails && process.faulty, limits));
        let id = worker_id(process.id);
        let job = role == Role::Job;
        let places = if role == Role::Outsider {
            Places::alone(max_tasks)
        } else {
            let redis = SimRedis { process: Arc::clone(&process), redis: Arc::clone(redis) };
            let coordinator: Arc<dyn Coordinator> = Arc::new(redis);
            let timing = Timing::default();
            let group = Group::new("sim", coordinator, environment.clone(), &id, max_tasks, job, timing);
            Places::Group(Arc::new(group))
        };
        let board = Arc::new(Board::new(&id, budget.clone(), Arc::clone(&spool), metrics(), job));
        let worker = worker_config(&id, max_tasks, Duration::from_millis(timeout_ms));
        let shared = Arc::new(Shared {
            worker,
            kafka: Arc::new(SimKafka(Arc::clone(&process))),
            pool: CompressPool::over(jobs),
            spool,
            budget,
            environment,
            board: Arc::clone(&board),
            places,
            options: RunOptions { until_caught_up: job },
            snapshot_every: plan.snapshot_every,
        });
        let store: Arc<dyn Store> =
            Arc::new(SimStore { process: Arc::clone(&process), has_metadata: plan.has_metadata });
        let store = Arc::new(Observed::new(MutatedStore::wrap(plan.mutation, store, &process, config)));
        let connector = Arc::new(Connector {
            shared,
            config: Arc::clone(config),
            state: Arc::clone(&store),
            store,
            uploads: Arc::new(Semaphore::new(uploads as usize)),
        });
        let stop = CancellationToken::new();
        world.trace(format_args!("{} starts as {role:?} with {} tasks, {:?}", process.id, config.tasks_max, max_tasks));
        let ended = tokio::spawn({
            let (process, stop) = (Arc::clone(&process), stop.clone());
            async move { process.live(life(connector, stop)).await }
        });
        Self { process, stop, ended, board }
    }

    /// kill -9, now.
    pub fn crash(&self) {
        self.process.die();
    }

    pub fn ask_to_stop(&self) {
        self.process.is_asked_to_stop();
        self.stop.cancel();
    }

    /// Tasks that failed and wait for somebody, where nothing that happened explains it.
    pub fn judge(&self) {
        let world = &self.process.world;
        for report in self.board.reports() {
            let message = report.message.unwrap_or_default();
            if report.state != TaskState::Failed {
                continue;
            }
            // This worker has other settings than the one that changed the mapping.
            if message.contains("another worker changed it") {
                world.count("worker with another tasks_max left behind");
            } else {
                world.trace(format_args!("{} task {} fails: {message}", self.process.id, report.task));
                world.oracle().rule(world, format!("worker {} task {} fails: {message}", self.process.id, report.task));
            }
        }
    }
}

/// As `worker::run` and `worker::connector::run` do it, with stores that are open already.
async fn life(connector: Arc<Connector>, stop: CancellationToken) -> Exit {
    let shared = Arc::clone(&connector.shared);
    let group = shared.places.group().map(|group| keep_group(group, &shared.board, &stop));
    let claimed = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        claimed = layout::claim(connector.store.as_ref(), None, &shared.environment, CONNECTOR, Some("cluster")) => claimed,
    };
    let exit = match claimed {
        Ok(()) => connector.keep_tasks(stop.clone()).await,
        Err(_) => Exit::Usage,
    };
    stop.cancel();
    if let (Some(group), Some(running)) = (shared.places.group(), group) {
        group.left();
        let _ = running.await;
    }
    exit
}

fn metrics() -> PrometheusHandle {
    thread_local! {
        static METRICS: PrometheusHandle = PrometheusBuilder::new().build_recorder().handle();
    }
    METRICS.with(Clone::clone)
}

fn worker_config(id: &str, max_tasks: Option<u32>, shutdown_timeout: Duration) -> WorkerConfig {
    WorkerConfig {
        id: id.to_owned(),
        group: "sim".to_owned(),
        max_tasks,
        kafka: KafkaConfig::plaintext("sim:9092"),
        state_url: None,
        coordination_url: None,
        spool: SpoolConfig { dir: PathBuf::new(), max_bytes: 0 },
        memory_max_bytes: 0,
        compression_threads: None,
        http: HttpConfig {
            listen: String::new(),
            metrics_listen: None,
            auth: HttpAuth::None,
            tls: None,
            allow_sinks: Vec::new(),
        },
        shutdown_timeout,
        log: LogConfig { format: LogFormat::Text, level: String::new() },
    }
}

/// The connector's settings of a history, changed now and then.
#[derive(Debug)]
pub struct Settings {
    /// The newest is the last.
    versions: Vec<Arc<ConnectorConfig>>,
    pub on_error_changed: bool,
}

impl Settings {
    pub fn new(plan: &Plan, rng: &mut Rng) -> Self {
        let mut config = ConnectorConfig::clone(&plan.connector);
        config.tasks_max = tasks(rng);
        Self { versions: vec![Arc::new(config)], on_error_changed: false }
    }

    pub fn newest(&self) -> &Arc<ConnectorConfig> {
        &self.versions[self.versions.len() - 1]
    }

    /// Mostly the newest; a host that was forgotten has older ones.
    pub fn some(&self, rng: &mut Rng) -> &Arc<ConnectorConfig> {
        let back = if rng.chance(10) { rng.below(3) as usize } else { 0 };
        &self.versions[self.versions.len().saturating_sub(1 + back)]
    }

    pub fn starts_from_earliest(&self) -> bool {
        self.newest().start_from == StartFrom::Earliest
    }

    pub fn change_tasks(&mut self, rng: &mut Rng) {
        let mut config = ConnectorConfig::clone(self.newest());
        let before = config.tasks_max;
        while config.tasks_max == before {
            config.tasks_max = tasks(rng);
        }
        self.versions.push(Arc::new(config));
    }

    /// Other lanes, other bytes, or other borders of files.
    pub fn change_content(&mut self, rng: &mut Rng) {
        let mut config = ConnectorConfig::clone(self.newest());
        match rng.below(7) {
            0 => config.format = if config.format == Format::Raw { Format::Json } else { Format::Raw },
            1 | 2 => {
                let is_other = matches!(&config.app_id.from, AppIdFrom::Json { pointer } if pointer == "/other");
                let pointer = if is_other { "/app_id" } else { "/other" }.to_owned();
                config.app_id.from = AppIdFrom::Json { pointer };
            }
            3 => config.time.bucket = if config.time.bucket == Bucket::None { Bucket::Hour } else { Bucket::None },
            4 => {
                let codecs = [Codec::Lz4, Codec::None, Codec::Lz4];
                let place = codecs.iter().position(|codec| *codec == config.compression.codec).unwrap_or(0);
                config.compression.codec = codecs[(place + 1) % codecs.len()];
            }
            5 => {
                config.on_error = if config.on_error == OnError::Skip { OnError::DeadLetter } else { OnError::Skip };
                self.on_error_changed = true;
            }
            _ => {
                config.rotate.max_bytes = rng.pick(&[150, 600, 3_000]);
                config.compression.frame_bytes = rng.pick(&[40, 120, 500]);
            }
        }
        self.versions.push(Arc::new(config));
    }

    /// Part of the partitions is left out until the next change; the last settings have all again.
    pub fn leave_partitions_out(&mut self, partitions: Option<BTreeSet<i32>>) {
        let mut config = ConnectorConfig::clone(self.newest());
        config.partitions = partitions;
        self.versions.push(Arc::new(config));
    }
}

fn tasks(rng: &mut Rng) -> NonZeroU32 {
    NonZeroU32::new(rng.between(1, 4) as u32).unwrap_or(NonZeroU32::MIN)
}
