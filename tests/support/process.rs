//! The real program as a child process, against real services.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rskafka::chrono::DateTime;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use sluice::clock::{Clock as _, SystemClock};

/// A variable that `make test` sets. Without it the test says that it does not run, and fails where services are required.
pub fn service(name: &str) -> Option<String> {
    let found = std::env::var(name).ok().filter(|value| !value.is_empty());
    if found.is_none() {
        println!("not run: {name} is not set; `make test` starts the services and sets it");
        assert_ne!(std::env::var("SLUICE_TEST_REQUIRE_SERVICES").as_deref(), Ok("1"), "{name} is required");
    }
    found
}

/// A tool of the system that was started, or `None` where it is not installed and nobody requires it.
pub fn installed<T>(tool: &str, started: std::io::Result<T>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(error) => {
            println!("not run: {tool} can't be started: {error}");
            assert_ne!(std::env::var("SLUICE_TEST_REQUIRE_SERVICES").as_deref(), Ok("1"), "{tool} is required");
            None
        }
    }
}

/// Where a test archives to.
#[derive(Clone, Debug)]
pub enum Sink {
    File,
    Minio { endpoint: String, bucket: String, key: String, secret: String },
}

/// A folder with the settings of one worker and one connector.
#[derive(Debug)]
pub struct Setup {
    dir: tempfile::TempDir,
    sink: Sink,
    topic: String,
}

impl Setup {
    /// `more` are lines of the connector's YAML.
    pub fn new(kafka: &str, topic: &str, sink: &Sink, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::create_dir_all(path.join("connectors")).unwrap();
        let setup = Self { sink: sink.clone(), dir, topic: topic.to_owned() };
        setup.write_connector(more);
        setup.write_worker(kafka, "worker-1", 0);
        setup
    }

    /// Rewrites the connector; `more` are lines of its YAML.
    pub fn write_connector(&self, more: &str) {
        let topic = &self.topic;
        let sink = match &self.sink {
            Sink::File => format!("{{ url: \"file://{}\", max_uploads: 1 }}", self.archive()),
            Sink::Minio { endpoint, .. } => {
                format!(
                    "{{ url: \"{}\", endpoint: \"{endpoint}\", flavor: minio, region: us-east-1, max_uploads: 1 }}",
                    self.archive()
                )
            }
        };
        fs::write(
            self.path("connectors/app-logs.yaml"),
            format!("topics: [{topic}]\napp_id: {{ from: json, pointer: /app_id }}\nsink: {sink}\n{more}\n"),
        )
        .unwrap();
    }

    /// Rewrites worker.yaml; port 0 lets the system choose.
    pub fn write_worker(&self, kafka: &str, id: &str, http_port: u16) {
        let spool = self.spool();
        let kafka = kafka.replace(',', "\", \"");
        fs::write(
            self.path("worker.yaml"),
            format!(
                "worker: {{ id: {id} }}\nkafka: {{ bootstrap_servers: [\"{kafka}\"] }}\nspool: {{ dir: \"{}\" }}\n\
                 http: {{ listen: \"127.0.0.1:{http_port}\" }}\nshutdown_timeout: 20s\n",
                spool.display()
            ),
        )
        .unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn spool(&self) -> PathBuf {
        self.path("spool")
    }

    /// As dev/verify-archive takes it.
    pub fn archive(&self) -> String {
        match &self.sink {
            Sink::File => self.path("archive").display().to_string(),
            Sink::Minio { bucket, .. } => format!("s3://{bucket}/archive"),
        }
    }

    /// Starts the worker; its log goes to `log`.
    pub fn start(&self, arguments: &[&str], log: &str) -> Running {
        self.start_with("worker.yaml", arguments, log)
    }

    /// The same with other settings of the worker.
    pub fn start_with(&self, settings: &str, arguments: &[&str], log: &str) -> Running {
        self.start_under(&[], settings, arguments, log)
    }

    /// The same, started by another program.
    pub fn start_under(&self, starter: &[&str], settings: &str, arguments: &[&str], log: &str) -> Running {
        self.start_program(Path::new(env!("CARGO_BIN_EXE_sluice")), starter, settings, arguments, log)
    }

    /// The same of another build.
    pub fn start_program(
        &self,
        program: &Path,
        starter: &[&str],
        settings: &str,
        arguments: &[&str],
        log: &str,
    ) -> Running {
        let log = self.path(log);
        let before = fs::metadata(&log).map_or(0, |found| found.len());
        let out = fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let mut command = Command::new(starter.first().map_or(program, Path::new));
        if let [_, more @ ..] = starter {
            command.args(more).arg(program);
        }
        command.arg("run").args(arguments).arg("--config").arg(self.path(settings));
        command.arg("--connectors").arg(self.path("connectors"));
        if let Sink::Minio { key, secret, .. } = &self.sink {
            command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).spawn().unwrap();
        Running { child, log, before }
    }

    /// Another command with these settings: exit status, stdout, stderr.
    pub fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.args(arguments).arg("--config").arg(self.path("worker.yaml"));
        command.arg("--connectors").arg(self.path("connectors")).env("NO_COLOR", "1");
        if let Sink::Minio { key, secret, .. } = &self.sink {
            command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Archives up to the present end and stops; panics with the worker's log if it does not end well.
    pub fn archive_to_the_end(&self) {
        let mut running = self.start(&["--until-caught-up"], "to-the-end.log");
        let status = running.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", running.last_lines());
    }

    /// The outside check: lists, decompresses with the lz4 tool, counts.
    pub fn verify(&self, manifest: &Path) {
        self.verify_against(&["--manifest", &manifest.display().to_string()]);
    }

    /// The same for the first so many records, whoever produced them.
    pub fn verify_records(&self, records: u64, partitions: u64) {
        self.verify_against(&["--records", &records.to_string(), "--partitions", &partitions.to_string()]);
    }

    fn verify_against(&self, expected: &[&str]) {
        let mut command = Command::new(tool("dev/verify-archive"));
        if let Sink::Minio { endpoint, key, secret, .. } = &self.sink {
            command.env("SLUICE_TEST_MINIO", endpoint);
            command.env("SLUICE_TEST_MINIO_KEY", key).env("SLUICE_TEST_MINIO_SECRET", secret);
        }
        let output = command.arg(self.archive()).args(expected).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        println!("{text}");
        assert!(output.status.success(), "the archive is not exact: {text}");
    }
}

/// Folders of apps that are put aside, each with a link to nowhere in its place: nothing can be uploaded. Back when dropped.
#[derive(Debug)]
pub struct BlockedFolders(Vec<(PathBuf, PathBuf)>);

impl BlockedFolders {
    /// The archive is a folder with at least one app. The worker is stopped meanwhile, so that it makes no folder anew.
    pub fn of(archive: &Path) -> Self {
        let mut moved = Vec::new();
        for entry in fs::read_dir(archive).unwrap() {
            let folder = entry.unwrap().path();
            if folder.file_name().unwrap() == "_sluice" {
                continue;
            }
            let aside = archive.with_file_name("aside").join(folder.file_name().unwrap());
            fs::create_dir_all(aside.parent().unwrap()).unwrap();
            fs::rename(&folder, &aside).unwrap();
            symlink("nowhere", &folder).unwrap();
            moved.push((folder, aside));
        }
        assert!(!moved.is_empty());
        Self(moved)
    }
}

impl Drop for BlockedFolders {
    fn drop(&mut self) {
        for (folder, aside) in &self.0 {
            fs::remove_file(folder).unwrap();
            fs::rename(aside, folder).unwrap();
        }
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    log: PathBuf,
    /// Length of the log when this worker started.
    before: u64,
}

impl Running {
    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// kill -TERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    /// Sends a signal by its name without SIG.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -s {name}: {status}");
    }

    /// Waits until this worker's log says `text`; panics when it ends before, or after a minute.
    pub fn wait_for(&mut self, text: &str) {
        let (log, before) = (self.log.clone(), self.before);
        self.wait_until(text, || log_from(&log, before).contains(text));
    }

    /// Waits until something is so while this worker runs; panics when it ends before, or after a minute.
    pub fn wait_until(&mut self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !so() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the worker ended ({ended:?}) before {what:?}: {}", self.last_lines());
            assert!(std::time::Instant::now() < deadline, "no {what:?} within a minute: {}", self.last_lines());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// What this worker logged.
    pub fn log(&self) -> String {
        log_from(&self.log, self.before)
    }

    pub fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_from(log: &Path, before: u64) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let from = usize::try_from(before).unwrap().min(bytes.len());
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}

fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The tool that fills topics. Cargo builds the examples of a package for its tests, beside them.
pub fn loadgen() -> Command {
    let tests = std::env::current_exe().unwrap();
    let loadgen = tests.parent().and_then(Path::parent).unwrap().join("examples/loadgen");
    assert!(loadgen.exists(), "{} is not built", loadgen.display());
    Command::new(loadgen)
}

/// Produces records in the background; `manifest` says afterwards which.
pub fn produce(kafka: &str, topic: &str, records: u64, rate: Option<u64>, manifest: &Path) -> Child {
    let mut command = loadgen();
    command.args([
        "--bootstrap",
        kafka,
        "--topic",
        topic,
        "--apps",
        "40",
        "--partitions",
        "4",
        "--batch-records",
        "500",
    ]);
    command.args(["--records", &records.to_string()]).arg("--manifest").arg(manifest);
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// Makes a topic of one partition and one record.
pub async fn produce_one(kafka: &str, topic: &str, key: &str, value: &str) {
    let client = ClientBuilder::new(vec![kafka.to_owned()]).build().await.unwrap();
    client.controller_client().unwrap().create_topic(topic, 1, 1, 30_000).await.unwrap();
    let partition = client.partition_client(topic, 0, UnknownTopicHandling::Retry).await.unwrap();
    let record = Record {
        key: Some(key.into()),
        value: Some(value.into()),
        headers: BTreeMap::new(),
        timestamp: DateTime::from_timestamp_millis(SystemClock.now_ms()).unwrap(),
    };
    partition.produce(vec![record], Compression::NoCompression).await.unwrap();
}
