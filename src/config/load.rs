//! From files and the environment to checked settings.
//!
//! Owns: the order of the steps, collecting the problems of all files. Does not own: the steps.

use std::path::{Path, PathBuf};

use super::check::connector::{Draft, connector};
use super::check::cross::{self, Member};
use super::check::worker::worker as check_worker;
use super::expand::{Environment, expand};
use super::flat::FlatConfig;
use super::problem::{Place, Problem, Problems};
use super::reader::Reader;
use super::schema::{CONNECTOR, Schema, WORKER};
use super::shape::shape;
use super::tree::{Node, Value};
use super::{ConnectorConfig, WorkerConfig, environment, files, merge, yaml};

/// What the command line says about settings.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--connectors`: directories and files.
    pub connectors: Vec<PathBuf>,
    /// The default of `worker.id`.
    pub host_name: String,
    /// A directory of connectors may be empty, or not be there: they can be made later.
    pub allow_no_connector: bool,
}

/// Settings of a worker and its connectors, all legal.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub worker: WorkerConfig,
    /// In order of their files; none only where [`LoadOptions::allow_no_connector`].
    pub connectors: Vec<ConnectorConfig>,
    /// What the files say, in the same order.
    pub flat: Vec<FlatConfig>,
    /// The worker's file first, if there is one.
    pub files_used: Vec<PathBuf>,
    pub warnings: Vec<Problem>,
}

/// Reads the worker's and all connectors' files. Reads nothing else; variables come as an argument.
///
/// # Errors
/// Every problem of every file, in order of files and lines.
pub fn load(options: &LoadOptions, environment: &Environment) -> Result<Loaded, Problems> {
    let mut findings = Findings::default();
    let worker_file = files::worker_file(options.config.as_deref());
    let worker = load_worker(worker_file.as_deref(), &options.host_name, environment, &mut findings);
    let found = files::connector_files(&options.connectors, worker_file.as_deref(), options.allow_no_connector);
    let connector_files = match found {
        Ok(files) => files,
        Err(problems) => {
            findings.problems.extend(problems);
            Vec::new()
        }
    };
    let mut drafts = Vec::new();
    for file in &connector_files {
        match files::read(file) {
            Ok(text) => drafts.extend(load_connector(file, &text, environment, &mut findings)),
            Err(problem) => findings.problems.push(problem),
        }
    }
    let members: Vec<Member<'_>> = drafts.iter().map(Drafted::member).collect();
    findings.problems.extend(cross::connectors(&members));
    if let Some(worker) = &worker {
        let (problems, warnings) = cross::worker(worker, &members);
        findings.problems.extend(problems);
        findings.warnings.extend(warnings);
    }
    let warnings = findings.finish()?;
    let flat = drafts.iter().map(|drafted| drafted.flat.clone()).collect();
    let connectors: Option<Vec<_>> = drafts.into_iter().map(|drafted| drafted.draft.config).collect();
    let files_used = worker_file.into_iter().chain(connector_files).collect();
    match (worker, connectors) {
        (Some(worker), Some(connectors)) => Ok(Loaded { worker, connectors, flat, files_used, warnings }),
        _ => Err(unexplained(Path::new("settings"))),
    }
}

/// Reads the worker's file alone, so that a slip in a connector's is no matter.
///
/// # Errors
/// Every problem of it.
pub fn load_worker_alone(options: &LoadOptions, environment: &Environment) -> Result<WorkerConfig, Problems> {
    let mut findings = Findings::default();
    let file = files::worker_file(options.config.as_deref());
    let worker = load_worker(file.as_deref(), &options.host_name, environment, &mut findings);
    findings.finish()?;
    worker.ok_or_else(|| unexplained(Path::new("settings")))
}

/// Reads one connector from text; `file` is for messages and for the default of `name`. Rules between connectors are not
/// looked at.
///
/// # Errors
/// Every problem.
pub fn load_connector_str(
    file: &Path,
    text: &str,
    environment: &Environment,
) -> Result<(ConnectorConfig, Vec<Problem>), Problems> {
    let mut findings = Findings::default();
    let drafted = load_connector(file, text, environment, &mut findings);
    finished(file, drafted, findings)
}

/// A connector's file as it is read again by a running worker.
#[derive(Debug)]
pub struct ConnectorFile {
    pub file: PathBuf,
    /// What it says, for showing.
    pub flat: FlatConfig,
    /// Rules between connectors are not looked at, see [`beside_others`].
    pub outcome: Result<(ConnectorConfig, Vec<Problem>), Problems>,
}

/// Reads the connectors' files again, each by itself.
///
/// # Errors
/// The files can't be listed.
pub fn connector_files(options: &LoadOptions, environment: &Environment) -> Result<Vec<ConnectorFile>, Problems> {
    let worker_file = files::worker_file(options.config.as_deref());
    let files = files::connector_files(&options.connectors, worker_file.as_deref(), options.allow_no_connector);
    let read = |file: PathBuf| {
        let mut findings = Findings::default();
        let drafted = match files::read(&file) {
            Ok(text) => load_connector(&file, &text, environment, &mut findings),
            Err(problem) => {
                findings.problems.push(problem);
                None
            }
        };
        let flat = drafted.as_ref().map(|drafted| drafted.flat.clone()).unwrap_or_default();
        ConnectorFile { outcome: finished(&file, drafted, findings), flat, file }
    };
    Ok(files.map_err(Problems)?.into_iter().map(read).collect())
}

/// The worker's file and the connectors', as far as they can be listed.
pub fn settings_files(options: &LoadOptions) -> (Option<PathBuf>, Vec<PathBuf>) {
    let worker_file = files::worker_file(options.config.as_deref());
    let connectors = files::connector_files(&options.connectors, worker_file.as_deref(), true).unwrap_or_default();
    (worker_file, connectors)
}

/// Reads one connector from a flat map, whose `name` is set to `name`. Rules between connectors are not looked at.
///
/// # Errors
/// Every problem; their place is the connector, not a file.
pub fn load_connector_flat(name: &str, flat: &FlatConfig) -> Result<(ConnectorConfig, Vec<Problem>), Problems> {
    let file = PathBuf::from(format!("connector {name}"));
    let mut findings = Findings::default();
    let mut problems = Vec::new();
    let mut flat = flat.clone();
    flat.insert("name".to_owned(), name.to_owned());
    let root = super::flat::tree(&file, &flat, &mut problems);
    let drafted = drafted(&file, Parsed { root, problems }, flat, &mut findings);
    finished(&file, drafted, findings)
}

/// What speaks against a connector beside others of the same worker: a name or a place that is taken, a place that is the
/// worker's.
pub fn beside_others(candidate: &ConnectorConfig, others: &[&ConnectorConfig], worker: &WorkerConfig) -> Vec<Problem> {
    fn as_member(config: &ConnectorConfig) -> Member<'_> {
        let place = Place::file(&config.file);
        Member {
            name: Some(config.name.as_str()),
            name_place: place.clone(),
            url: Some(&config.sink.url),
            url_place: place,
            config: Some(config),
        }
    }
    // Others were checked before: only what is about the candidate, which comes last, is new.
    let mut problems: Vec<Problem> =
        others.iter().flat_map(|other| cross::connectors(&[as_member(other), as_member(candidate)])).collect();
    problems.extend(cross::worker(worker, &[as_member(candidate)]).0);
    problems
}

fn finished(
    file: &Path,
    drafted: Option<Drafted>,
    findings: Findings,
) -> Result<(ConnectorConfig, Vec<Problem>), Problems> {
    let warnings = findings.finish()?;
    let config = drafted.and_then(|drafted| drafted.draft.config);
    config.map(|config| (config, warnings)).ok_or_else(|| unexplained(file))
}

/// A check gave nothing and did not say why: nothing may be left out in silence.
fn unexplained(file: &Path) -> Problems {
    Problems(vec![Problem::new(Place::file(file), "", "was refused without a reason, which is a bug")])
}

#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Findings {
    /// The warnings, if nothing is wrong.
    fn finish(mut self) -> Result<Vec<Problem>, Problems> {
        if self.problems.is_empty() {
            return Ok(self.warnings);
        }
        // Files stay in the order in which they were read; sorting by place alone would mix `a/x` between others.
        let mut files: Vec<PathBuf> = Vec::new();
        for problem in &self.problems {
            let file = file_of(&problem.place);
            if !files.contains(&file) {
                files.push(file);
            }
        }
        self.problems.sort_by_key(|problem| {
            let file = file_of(&problem.place);
            (files.iter().position(|known| *known == file), problem.place.clone())
        });
        Err(Problems(self.problems))
    }
}

fn file_of(place: &Place) -> PathBuf {
    match place {
        Place::File(file) | Place::Line { file, .. } => file.to_path_buf(),
        Place::Variable(_) => PathBuf::new(),
    }
}

fn load_worker(
    file: Option<&Path>,
    host_name: &str,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<WorkerConfig> {
    let from_environment = environment::read(&WORKER, environment);
    findings.warnings.extend(from_environment.warnings);
    let root = match file {
        Some(file) => match files::read(file) {
            Ok(text) => tree(file, &text, environment, findings),
            Err(problem) => {
                findings.problems.push(problem);
                None
            }
        },
        None => {
            let place = Place::file(Path::new(&format!("no worker file ({})", files::worker_places())));
            let root = Node { place, value: Value::Map(Vec::new()) };
            Some(Parsed { root, problems: Vec::new() })
        }
    };
    findings.problems.extend(from_environment.problems);
    checked(&WORKER, root?, Some(&from_environment.root), findings, |raw| check_worker(raw, host_name))?
}

/// A connector's draft and where its name and URL stand.
struct Drafted {
    draft: Draft,
    name_place: Place,
    url_place: Place,
    /// What was written.
    flat: FlatConfig,
}

impl Drafted {
    fn member(&self) -> Member<'_> {
        Member {
            name: self.draft.name.as_deref(),
            name_place: self.name_place.clone(),
            url: self.draft.sink_url.as_ref(),
            url_place: self.url_place.clone(),
            config: self.draft.config.as_ref(),
        }
    }
}

fn load_connector(file: &Path, text: &str, environment: &Environment, findings: &mut Findings) -> Option<Drafted> {
    let parsed = tree(file, text, environment, findings)?;
    let flat = super::flat::flatten(&parsed.root);
    drafted(file, parsed, flat, findings)
}

fn drafted(file: &Path, parsed: Parsed, flat: FlatConfig, findings: &mut Findings) -> Option<Drafted> {
    checked(&CONNECTOR, parsed, None, findings, |raw| {
        let draft = connector(raw, file);
        (draft, raw.place("name"), raw.place("sink.url"))
    })
    .map(|(draft, name_place, url_place)| Drafted { draft, name_place, url_place, flat })
}

/// Parses and puts variables in.
fn tree(file: &Path, text: &str, environment: &Environment, findings: &mut Findings) -> Option<Parsed> {
    let (root, mut problems) = yaml::parse(file, text);
    let Some(mut root) = root else {
        findings.problems.extend(problems);
        return None;
    };
    expand(&mut root, environment, "", &mut problems);
    Some(Parsed { root, problems })
}

/// A file's tree and what was found wrong in it so far.
struct Parsed {
    root: Node,
    problems: Vec<Problem>,
}

/// Merges the layers and lets `check` read them.
fn checked<T>(
    schema: &'static Schema,
    parsed: Parsed,
    environment: Option<&Node>,
    findings: &mut Findings,
    check: impl FnOnce(&mut Reader<'_>) -> T,
) -> Option<T> {
    let mut problems = parsed.problems;
    let shaped = shape(schema, parsed.root, &mut problems);
    findings.problems.extend(problems);
    match merge::merge(schema, &shaped.root, environment) {
        Ok(root) => {
            let mut raw = Reader::new(schema, &root, shaped.reported);
            let result = check(&mut raw);
            findings.problems.extend(raw.problems);
            findings.warnings.extend(raw.warnings);
            Some(result)
        }
        Err(problem) => {
            findings.problems.push(problem);
            None
        }
    }
}
