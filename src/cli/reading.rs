//! What `ls`, `cat` and `grep` share.
//!
//! Owns: which archive, which apps and which time the arguments mean; what is said on stderr; the exit status.
//! Does not own: reading ([`crate::reading`]).

use std::io::{self, Write as _};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::{Exit, SettingsArgs, complain};
use crate::archive::app_id::app_id_of_segment;
use crate::archive::key::KeyTemplate;
use crate::clock::Environment;
use crate::config::{ConnectorConfig, SinkUrl, WorkerConfig, sink_of_url};
use crate::kafka;
use crate::log::journal::LogError;
use crate::pipeline::source::SourceError;
use crate::reading::ReadError;
use crate::reading::counted::Counters;
use crate::reading::live::{Live, LiveError};
use crate::reading::place::Place;
use crate::reading::reader::{AnswerError, Reader};
use crate::reading::report::{Report, Worst};
use crate::reading::survey::matching_apps;
use crate::reading::times::{Times, parse_time};
use crate::store::{self, Fault, StoreError};
use crate::worker::layout::LayoutError;

/// Where an archive is.
#[derive(Args, Debug)]
pub struct PlaceArgs {
    /// A connector's name, or where its files are: file:///dir, s3://bucket/prefix, oss://bucket/prefix
    #[arg(value_name = "CONNECTOR|URL")]
    archive: String,
    /// With a URL: the key template of its files [default: that of sink.key]
    #[arg(long, value_name = "TEMPLATE", display_order = 90)]
    key: Option<String>,
    /// With a URL: the address of the store [default: AWS_ENDPOINT_URL for s3://]
    #[arg(long, value_name = "URL", display_order = 90)]
    endpoint: Option<String>,
    /// With a URL: the region of the bucket
    #[arg(long, display_order = 90)]
    region: Option<String>,
    /// Say on stderr what it cost: requests, bytes fetched, bytes decompressed
    #[arg(long, display_order = 91)]
    stats: bool,
}

/// Which time.
#[derive(Args, Debug)]
pub struct TimeArgs {
    /// From this time on: RFC 3339, a date, or a time ago such as -90m, -2h, -1d
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub(super) since: Option<String>,
    /// Up to this time, without it
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub(super) until: Option<String>,
}

/// Whether Kafka is read too.
#[derive(Args, Debug)]
pub struct LiveArgs {
    /// Read from Kafka what is in no file yet, each record once; needs a connector, its log and Kafka
    #[arg(long)]
    live: bool,
}

/// Another order than that of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// All records by their time; those of one time by topic, partition and offset
    Time,
}

/// Why the command ends early.
pub struct Failure(pub Exit, pub String);

impl Failure {
    pub fn usage(error: impl std::fmt::Display) -> Self {
        Self(Exit::Usage, error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = if error.fault == Fault::Invalid { Exit::Usage } else { Exit::Unreachable };
        Self(exit, error.to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Damaged { .. } => Self(Exit::Damaged, error.to_string()),
            _ => Self(Exit::Unreachable, error.to_string()),
        }
    }
}

impl From<LiveError> for Failure {
    fn from(error: LiveError) -> Self {
        let exit = match &error {
            LiveError::Log(LogError::Damaged { .. }) | LiveError::Layout(LayoutError::Conflict(_)) => Exit::Damaged,
            LiveError::Kafka(SourceError::Unreachable { .. } | SourceError::Refused { .. }) => Exit::Unreachable,
            LiveError::Kafka(_) => Exit::Damaged,
            _ => Exit::Unreachable,
        };
        Self(exit, format!("--live: {error}"))
    }
}

/// An archive to read, and whom to tell.
pub struct Session {
    /// The worker's settings, where a connector was named.
    pub worker: Option<WorkerConfig>,
    pub place: Place,
    pub report: Arc<Report>,
    pub environment: Environment,
}

/// Runs a command on an archive, and turns what happened into the exit status. `Err`: the output can't be written.
pub fn run<F>(args: &PlaceArgs, settings: &SettingsArgs, command: impl FnOnce(Session) -> F) -> io::Result<Exit>
where
    F: Future<Output = Result<Exit, Stop>>,
{
    super::install_crypto();
    let connector = match find_connector(args, settings)? {
        Ok(connector) => connector,
        Err(exit) => return Ok(exit),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = Arc::new(Report::new(complain));
    let environment = Environment::system();
    let outcome = runtime.block_on(async {
        let (worker, place) = match connector {
            Some((worker, connector)) => {
                (Some(worker), Place::of_connector(connector, &environment).await.map_err(Failure::from)?)
            }
            None => (None, of_url(args, &environment).await?),
        };
        let counters = Arc::clone(&place.counters);
        let outcome =
            command(Session { worker, place, report: Arc::clone(&report), environment: environment.clone() }).await;
        if args.stats {
            say_stats(&counters);
        }
        outcome
    });
    // Fetches that nobody waits for any more are not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(exit) => Ok(match report.worst() {
            Worst::Damaged => Exit::Damaged,
            Worst::Unread => Exit::Unreachable,
            Worst::Fine => exit,
        }),
        Err(Stop::Out(error)) => Err(error),
        Err(Stop::Failure(Failure(exit, message))) => {
            complain(&message);
            Ok(exit)
        }
    }
}

/// Why a command stops.
pub enum Stop {
    /// The output can't be written, or nobody reads it any more.
    Out(io::Error),
    Failure(Failure),
}

impl<E: Into<Failure>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failure(error.into())
    }
}

impl From<AnswerError> for Stop {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Out(error) => Self::Out(error),
            AnswerError::Live(error) => Self::Failure(error.into()),
            AnswerError::Read(error) => Self::Failure(error.into()),
        }
    }
}

type Found = Result<Option<(WorkerConfig, ConnectorConfig)>, Exit>;

/// The connector that was named; `None`: a URL was.
fn find_connector(args: &PlaceArgs, settings: &SettingsArgs) -> io::Result<Found> {
    if args.archive.contains("://") {
        return Ok(Ok(None));
    }
    if args.key.is_some() || args.endpoint.is_some() || args.region.is_some() {
        complain("--key, --endpoint and --region are for a URL; a connector has them in its settings");
        return Ok(Err(Exit::Usage));
    }
    let found = settings.connector(&args.archive, ". A URL has `://`, such as file:///dir")?;
    Ok(found.map(Some))
}

async fn of_url(args: &PlaceArgs, environment: &Environment) -> Result<Place, Failure> {
    let is_s3 = matches!(SinkUrl::parse(&args.archive), Ok(SinkUrl::S3 { .. }));
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let from_environment = || variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let endpoint = args.endpoint.clone().or_else(|| if is_s3 { from_environment() } else { None });
    let mut sink = sink_of_url(&args.archive, endpoint.as_deref(), args.region.as_deref())
        .map_err(|why| Failure::usage(format!("{}: {why}", args.archive)))?;
    if let Some(key) = &args.key {
        sink.key = KeyTemplate::parse(key).map_err(|why| Failure::usage(format!("--key {key} {why}")))?;
    }
    Ok(Place::of_sink(&sink, environment).await?)
}

fn say_stats(counters: &Counters) {
    let of = Counters::get;
    complain(&format!(
        "{} list and {} get requests, {} bytes fetched, {} bytes decompressed, {} files opened, {} frames",
        of(&counters.lists),
        of(&counters.gets),
        of(&counters.fetched_bytes),
        of(&counters.decompressed_bytes),
        of(&counters.files),
        of(&counters.frames)
    ));
}

impl Session {
    /// A reader of the archive; with `--live` of Kafka too.
    pub async fn reader(&self, args: &LiveArgs) -> Result<Reader, Failure> {
        let reader = Reader::new(self.place.clone(), Arc::clone(&self.report));
        if !args.live {
            return Ok(reader);
        }
        let (Some(worker), Some(connector)) = (&self.worker, &self.place.connector) else {
            return Err(Failure::usage("--live needs a connector's name: a URL does not say which Kafka"));
        };
        let state = match &worker.state_url {
            Some(url) => store::open_state(url, &connector.sink).await?,
            None => Arc::clone(&self.place.store),
        };
        let kafka = kafka::connect(&worker.kafka).await.map_err(LiveError::from)?;
        let live = Live::open(kafka, Arc::clone(connector), &state, &self.environment).await?;
        Ok(Reader { live: Some(Arc::new(live)), ..reader })
    }

    pub fn times(&self, args: &TimeArgs) -> Result<Times, Failure> {
        let now_ms = self.environment.clock.now_ms();
        let at = |name: &str, text: &Option<String>| {
            let at = text.as_ref().map(|text| parse_time(text, now_ms, &self.place.zone));
            at.transpose().map_err(|why| Failure::usage(format!("{name}: {why}")))
        };
        let times = Times { since_ms: at("--since", &args.since)?, until_ms: at("--until", &args.until)? };
        match (times.since_ms, times.until_ms) {
            (Some(since), Some(until)) if since >= until => {
                Err(Failure::usage("--since is not before --until: nothing can lie between them"))
            }
            _ => Ok(times),
        }
    }

    /// The segments of the apps that ids and patterns (`*`, `?`) mean, each once. `None`: all, and they have no folders of
    /// their own.
    pub async fn apps(&self, asked: &[String]) -> Result<Option<Vec<String>>, Failure> {
        let mut segments = Vec::new();
        let all = ["*".to_owned()];
        for app in if asked.is_empty() { &all } else { asked } {
            if !is_pattern(app) {
                segments.push(self.place.app_segment(app));
                continue;
            }
            let pattern = glob(app).map_err(|why| Failure::usage(format!("--app {app}: {why}")))?;
            match matching_apps(&self.place, |segment| pattern.is_match(&app_name(segment))).await? {
                Some(found) => segments.extend(found),
                None if asked.is_empty() => return Ok(None),
                None => {
                    return Err(Failure::usage(format!(
                        "--app {app}: keys of the form {} have no folder for each app; name the app ids",
                        self.place.key
                    )));
                }
            }
        }
        let mut seen = std::collections::HashSet::new();
        segments.retain(|segment| seen.insert(segment.clone()));
        Ok(Some(segments))
    }
}

/// Whether `--app` stands for more than one app.
pub fn is_pattern(app: &str) -> bool {
    app.contains(['*', '?'])
}

fn glob(pattern: &str) -> Result<regex::Regex, regex::Error> {
    let escaped = regex::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
    regex::Regex::new(&format!("(?s)^{escaped}$"))
}

/// An app's id as it is shown: control characters of a strange one must not reach a terminal.
pub fn app_name(segment: &str) -> String {
    match app_id_of_segment(segment).and_then(|id| String::from_utf8(id).ok()) {
        Some(id) if !id.is_empty() && !id.chars().any(char::is_control) => id,
        _ => segment.to_owned(),
    }
}

/// Writes data to stdout; terminals and pipes see each piece at once.
pub fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_apps() {
        let matches = |pattern: &str, app: &str| glob(pattern).unwrap().is_match(app);
        assert!(matches("pay*", "payments") && matches("*", "") && matches("a?c", "abc") && matches("a.*", "a.b"));
        assert!(!matches("pay*", "repay") && !matches("a?c", "ac") && !matches("a.*", "ab"));
        assert!(!is_pattern("a.b+c"));
    }

    #[test]
    fn names_of_apps() {
        assert_eq!(app_name("a%2Fb"), "a/b");
        assert_eq!(app_name("_unknown"), "_unknown");
        assert_eq!(app_name("%1B%5B0m"), "%1B%5B0m");
        assert_eq!(app_name("%empty"), "%empty");
    }
}
