//! The workers of a history: ownerships of one task, run by the real code.
//!
//! Owns: starting, freezing, crashing and stopping them, what their ends mean.
//! Does not own: what happens when (the history's).

use std::cell::RefCell;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use sluice::api::metrics::TaskMetrics;
use sluice::archive::codec::Codec;
use sluice::archive::format::Format;
use sluice::archive::key::KeyTemplate;
use sluice::clock::Environment;
use sluice::config::{
    AppIdFrom, AppIdRule, Bucket, Compression, ConnectorConfig, Credentials, CredentialsFrom, DeadLetter, Flavor,
    MissingAppId, OnError, Rotate, SinkConfig, SinkUrl, Sse, StartFrom, TimeFrom, TimeRule, TopicSelection,
};
use sluice::ledger::State;
use sluice::log::LogDoor;
use sluice::log::journal::LogError;
use sluice::log::store_log::StoreLog;
use sluice::pipeline::budget::Budget;
use sluice::pipeline::compress::{CompressError, CompressPool, Encoders, Job, Worked};
use sluice::pipeline::source::{Isolation, SourceError, TopicInfo};
use sluice::pipeline::spool::{Spool, SpoolError};
use sluice::store::Store;
use sluice::task::core::CoreError;
use sluice::task::reset::{self, Subject, Wish};
use sluice::task::status::TaskStatus;
use sluice::task::{self, End, TaskContext, TaskError};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::disks::spool;
use crate::kafka::{SimKafka, TOPIC};
use crate::mutation::{Mutated, Mutation};
use crate::process::Process;
use crate::store::SimStore;
use crate::world::{Rng, SimClock, SimRandom, World};

pub const CONNECTOR: &str = "sim";
/// Where everything of the topic lies that is no data.
pub const TOPIC_FOLDER: &str = "_sluice/sim/applogs/";
pub const LOG_PATH: &str = "_sluice/sim/applogs/1/0";

/// What a history's workers have in common.
#[derive(Debug)]
pub struct Plan {
    pub connector: Arc<ConnectorConfig>,
    pub mutation: Mutation,
    pub has_metadata: bool,
    pub snapshot_every: u64,
    pub budget_bytes: u64,
    pub spool_bytes: u64,
    pub spool_fails: bool,
}

impl Plan {
    pub fn new(rng: &mut Rng, mutation: Mutation) -> Self {
        // Contexts of the others take longer to set up than all the rest of a history.
        let codec = match rng.below(20) {
            0 => Codec::Gzip,
            1 => Codec::Zstd,
            2..=4 => Codec::None,
            _ => Codec::Lz4,
        };
        let mut connector = ConnectorConfig {
            name: CONNECTOR.to_owned(),
            file: PathBuf::new(),
            topics: TopicSelection::List(vec![TOPIC.to_owned()]),
            partitions: None,
            tasks_max: NonZeroU32::MIN,
            start_from: if rng.chance(40) { StartFrom::Latest } else { StartFrom::Earliest },
            isolation: Isolation::ReadCommitted,
            app_id: AppIdRule {
                from: AppIdFrom::Json { pointer: "/app_id".to_owned() },
                missing: MissingAppId::Name("_unknown".to_owned()),
            },
            time: TimeRule {
                from: TimeFrom::Record,
                zone: jiff::tz::TimeZone::UTC,
                bucket: rng.pick(&[Bucket::None, Bucket::None, Bucket::Hour]),
            },
            rotate: Rotate {
                max_bytes: rng.pick(&[150, 600, 3_000, 1 << 20]),
                max_interval: Duration::from_secs(rng.pick(&[3, 10, 30, 120])),
            },
            format: rng.pick(&[Format::Raw, Format::Json]),
            compression: Compression { codec, level: None, frame_bytes: rng.pick(&[40, 120, 500, 4_000]) },
            sink: sink(),
            on_error: rng.pick(&[OnError::DeadLetter, OnError::Skip]),
            dead_letter: DeadLetter { topic: None, path: "_dead".to_owned() },
        };
        if mutation.is_about_late_takeovers() {
            connector.rotate.max_interval = Duration::from_secs(3);
        }
        Self {
            connector: Arc::new(connector),
            mutation,
            has_metadata: rng.chance(60),
            snapshot_every: if mutation.is_about_late_takeovers() { 3 } else { rng.pick(&[3, 5, 9, 20, 128]) },
            budget_bytes: rng.pick(&[12_000, 40_000, 1 << 20, 1 << 24]),
            spool_bytes: rng.pick(&[1_500, 20_000, 1 << 24, 1 << 24]),
            spool_fails: rng.chance(5),
        }
    }
}

impl Plan {
    /// The same plan from the end of the topic on.
    pub fn starting_at_the_latest(mut self) -> Self {
        Arc::make_mut(&mut self.connector).start_from = StartFrom::Latest;
        self
    }

    /// The same plan from the start on, with frames that reach the spool soon, uncompressed, and files that are never full.
    pub fn of_one_large_file(mut self) -> Self {
        let connector = Arc::make_mut(&mut self.connector);
        connector.start_from = StartFrom::Earliest;
        connector.rotate = Rotate { max_bytes: 1 << 30, max_interval: Duration::from_secs(3_600) };
        connector.compression = Compression { codec: Codec::None, level: None, frame_bytes: 100 };
        connector.time.bucket = Bucket::None;
        self.budget_bytes = 1 << 24;
        self
    }

    /// Files by age soon, and a disk with room for many tasks.
    pub fn of_a_group(mut self) -> Self {
        let connector = Arc::make_mut(&mut self.connector);
        connector.rotate.max_interval = connector.rotate.max_interval.min(Duration::from_secs(30));
        self.spool_bytes = self.spool_bytes.max(20_000);
        self.budget_bytes = self.budget_bytes.max(1 << 20);
        self
    }

    /// Small files by size and by age, and a snapshot now and then.
    pub fn of_small_files(rng: &mut Rng) -> Self {
        let mut plan = Self::new(rng, Mutation::None);
        let connector = Arc::make_mut(&mut plan.connector);
        connector.start_from = StartFrom::Earliest;
        connector.rotate = Rotate { max_bytes: 150, max_interval: Duration::from_secs(3) };
        connector.on_error = OnError::DeadLetter;
        plan.snapshot_every = 3;
        plan.budget_bytes = 1 << 24;
        plan.spool_bytes = 1 << 24;
        plan.spool_fails = false;
        plan
    }

    pub fn starts_from_earliest(&self) -> bool {
        self.connector.start_from == StartFrom::Earliest
    }
}

fn sink() -> SinkConfig {
    SinkConfig {
        url: SinkUrl::File { dir: PathBuf::new() },
        key: KeyTemplate::default(),
        endpoint: None,
        region: None,
        flavor: Flavor::Generic,
        storage_class: None,
        sse: Sse::default(),
        tags: Vec::new(),
        part_bytes: 5 << 20,
        max_uploads: NonZeroUsize::new(4).unwrap(),
        ca_file: None,
        credentials: Credentials {
            from: CredentialsFrom::Auto,
            role_arn: None,
            profile: None,
            key_file: None,
            secret_file: None,
            token_file: None,
            endpoint: None,
        },
    }
}

/// One ownership of the task.
#[derive(Debug)]
pub struct Worker {
    pub process: Arc<Process>,
    pub stop: CancellationToken,
    pub topic_info: watch::Sender<TopicInfo>,
    pub ended: JoinHandle<Option<Result<End, TaskError>>>,
}

impl Worker {
    pub fn start(world: &Arc<World>, plan: &Plan, id: u32, until: bool, faulty: bool) -> Self {
        let process = Process::new(id, world, faulty);
        let stop = CancellationToken::new();
        let (topic_info, receiver) = watch::channel(world.kafka().info());
        let context = context(&process, plan, receiver);
        world.trace(format_args!("{id} starts, until {until}"));
        let ended = tokio::spawn({
            let (process, stop) = (Arc::clone(&process), stop.clone());
            async move { process.live(task::run(&context, until, stop)).await }
        });
        Self { process, stop, topic_info, ended }
    }

    /// kill -9, now.
    pub fn crash(&self) {
        self.process.die();
    }

    pub fn ask_to_stop(&self) {
        self.process.is_asked_to_stop();
        self.stop.cancel();
    }
}

/// What a worker's task works with.
pub fn context(process: &Arc<Process>, plan: &Plan, topic_info: watch::Receiver<TopicInfo>) -> TaskContext {
    let world = &process.world;
    let store: Arc<dyn Store> = Arc::new(SimStore { process: Arc::clone(process), has_metadata: plan.has_metadata });
    let log: Arc<dyn LogDoor> = Arc::new(StoreLog::new(Arc::clone(&store), LOG_PATH));
    let log = Mutated::wrap(plan.mutation, log, process);
    let (jobs, queue) = mpsc::channel(4);
    let (spool, budget) = (spool(process, plan.mutation, plan.spool_bytes), Budget::new(plan.budget_bytes));
    let limits = Limits::new(&spool, &budget);
    tokio::spawn(compress(Arc::clone(process), queue, plan.spool_fails && process.faulty, limits));
    let (skew_ms, uploads, timeout) = {
        let mut rng = world.rng();
        let skew = if rng.chance(20) { rng.between(0, 7_200_000) as i64 - 3_600_000 } else { 0 };
        (skew, rng.between(1, 4), rng.between(0, 30_000))
    };
    TaskContext {
        connector: Arc::clone(&plan.connector),
        topic: TOPIC.to_owned(),
        task: 0,
        tasks_max: 1,
        origin: None,
        worker_id: worker_id(process.id),
        kafka: Arc::new(SimKafka(Arc::clone(process))),
        store,
        log,
        pool: CompressPool::over(jobs),
        spool,
        budget,
        uploads: Arc::new(Semaphore::new(uploads as usize)),
        environment: environment(world, skew_ms),
        status: Arc::new(TaskStatus::new(CONNECTOR, TOPIC, 0)),
        metrics: Arc::new(TaskMetrics::new(CONNECTOR, TOPIC, 0)),
        shutdown_timeout: Duration::from_millis(timeout),
        group: None,
        topic_info,
        snapshot_every: plan.snapshot_every,
    }
}

/// The doors of a process whose clock is wrong by so much.
pub fn environment(world: &Arc<World>, skew_ms: i64) -> Environment {
    let clock = Arc::new(SimClock { world: Arc::clone(world), skew_ms });
    Environment { clock, random: Arc::new(SimRandom(Arc::clone(world))) }
}

/// An operator runs `sluice offsets accept-loss --execute`. `false`: it did not come to its end.
pub async fn accept_loss(world: &Arc<World>, plan: &Plan, id: u32, dies_after: Option<u64>) -> bool {
    let process = Process::new(id, world, false);
    if let Some(steps) = dies_after {
        process.crash_after(steps);
    }
    let store: Arc<dyn Store> = Arc::new(SimStore { process: Arc::clone(&process), has_metadata: plan.has_metadata });
    let subject = Subject {
        topic: TOPIC.to_owned(),
        isolation: plan.connector.isolation,
        by: worker_id(id),
        kafka: Arc::new(SimKafka(Arc::clone(&process))),
        log: Arc::new(StoreLog::new(Arc::clone(&store), LOG_PATH)),
        store,
        environment: environment(world, 0),
    };
    match process.live(reset::execute(&subject, &Wish::AcceptLoss)).await {
        Some(Ok(plan)) => {
            world.trace(format_args!("{id} accepts the loss: {plan:?}"));
            true
        }
        Some(Err(error)) => {
            world.trace(format_args!("{id} can't accept the loss: {error}"));
            // Others take the log over at the same time.
            let fenced = matches!(error, TaskError::Log(LogError::Fenced { .. }));
            if !fenced {
                world.oracle().rule(world, format!("operator {id} can't accept a loss: {error}"));
            }
            false
        }
        None => {
            world.count("operator died half-way");
            false
        }
    }
}

/// What a worker's memory and disk are held to.
pub struct Limits {
    spool: Weak<Spool>,
    budget: Budget,
}

impl Limits {
    pub fn new(spool: &Arc<Spool>, budget: &Budget) -> Self {
        Self { spool: Arc::downgrade(spool), budget: budget.clone() }
    }

    fn count(&self, world: &World) {
        if self.spool.upgrade().is_some_and(|spool| spool.used_bytes() > spool.max_bytes()) {
            world.count("spool over its limit");
        }
        if self.budget.used_bytes() > self.budget.max_bytes() {
            world.count("memory over its limit");
        }
    }
}

/// Runs the jobs of a worker's pool, each after a time of its own, so that frames get ready out of order.
pub async fn compress(process: Arc<Process>, mut jobs: mpsc::Receiver<Job>, fails: bool, limits: Limits) {
    thread_local! {
        static ENCODERS: RefCell<Encoders> = RefCell::default();
    }
    while let Some(job) = jobs.recv().await {
        let (delay, fails) = {
            let mut rng = process.world.rng();
            let delay = if rng.chance(5) { rng.between(100, 3_000) } else { rng.between(0, 10) };
            (delay, fails && rng.chance(5))
        };
        let process = Arc::clone(&process);
        limits.count(&process.world);
        tokio::spawn(async move {
            sleep(Duration::from_millis(delay)).await;
            if process.dead.is_cancelled() {
                process.world.count("work in the pool lost");
                return;
            }
            if fails {
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
                let error = SpoolError { path: PathBuf::from("spool"), what: "simulated", source };
                let _ = job.done.send(Worked { file: job.file, outcome: Err(CompressError::Spool(error)) });
            } else {
                ENCODERS.with_borrow_mut(|encoders| job.run(encoders));
            }
        });
    }
}

pub fn worker_id(id: u32) -> String {
    format!("worker-{id}")
}

/// Counts how a worker ended; an end that nothing explains is a violation.
pub fn judge(world: &World, id: u32, ended: Option<Result<End, TaskError>>, kafka_lost: bool) {
    // A zombie may stand at what its successor archived and retention deleted since.
    let owner = |state: &State| state.owner.as_ref().is_some_and(|owner| owner.worker != worker_id(id));
    let kafka_lost = kafka_lost || world.oracle().log(LOG_PATH).is_some_and(owner);
    let what = match &ended {
        None => "crash",
        Some(Ok(End::CaughtUp)) => "caught up",
        Some(Ok(End::Stopped)) => "stopped",
        Some(Ok(End::Closed(_))) => "closed",
        Some(Ok(End::CutShort)) => "stop cut short",
        Some(Err(TaskError::Log(LogError::Fenced { .. }))) => "fenced",
        Some(Err(TaskError::Source(SourceError::Unreachable { .. }))) => "kafka unreachable at the opening",
        Some(Err(TaskError::Spool(_) | TaskError::Compress(CompressError::Spool(_)))) => "spool failed",
        Some(Err(error)) if is_kafka_lost(error) && kafka_lost => "failed because Kafka lost records",
        Some(Err(_)) => "failed",
    };
    world.count(what);
    world.trace(format_args!("{id} ends: {what}"));
    if let (Some(Err(error)), "failed") = (&ended, what) {
        world.trace(format_args!("{id} fails: {error}"));
        world.oracle().rule(world, format!("worker {id} fails: {error}"));
    }
}

pub fn is_kafka_lost(error: &TaskError) -> bool {
    matches!(
        error,
        TaskError::KafkaLost(_)
            | TaskError::Source(
                SourceError::OutOfRange { .. } | SourceError::Recreated { .. } | SourceError::Truncated { .. }
            )
            | TaskError::Core(CoreError::RebuildDiffers(_))
    )
}

/// Freezes a worker for a while from now.
pub fn freeze(worker: &Worker, ms: u64) {
    worker.process.freeze_until(Instant::now() + Duration::from_millis(ms));
}
