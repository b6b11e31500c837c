//! Which files hold the settings.
//!
//! Owns: defaults of --config and --connectors, which files of a directory count. Does not own: what is in them.

use std::path::{Path, PathBuf};

use super::problem::{Place, Problem};
use super::yaml::MAX_FILE_BYTES;

const HERE: &str = "configs/worker.yaml";
const SYSTEM: &str = "/etc/sluice/worker.yaml";
const SYSTEM_CONNECTORS: &str = "/etc/sluice/connectors";

/// The worker's file: the one asked for, else the first that exists. `None`: there is none.
pub fn worker_file(asked: Option<&Path>) -> Option<PathBuf> {
    match asked {
        Some(path) => Some(path.to_owned()),
        None => [HERE, SYSTEM].into_iter().map(PathBuf::from).find(|path| path.is_file()),
    }
}

/// Where a worker's file is looked for, for messages.
pub fn worker_places() -> String {
    format!("./{HERE}, {SYSTEM}")
}

/// The connectors' files in order of names; hidden ones and other than `*.yaml`, `*.yml` are left out of directories.
///
/// # Errors
/// A path that can't be read, or, without `allow_none`, that there is no connector at all.
pub fn connector_files(
    asked: &[PathBuf],
    worker_file: Option<&Path>,
    allow_none: bool,
) -> Result<Vec<PathBuf>, Vec<Problem>> {
    let default;
    let sources = if asked.is_empty() {
        default = match default_directory(worker_file) {
            Ok(directory) => [directory],
            Err(_) if allow_none => return Ok(Vec::new()),
            Err(problems) => return Err(problems),
        };
        default.as_slice()
    } else {
        asked
    };
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for source in sources {
        let found = if source.is_dir() { in_directory(source) } else { Ok(vec![source.clone()]) };
        match found {
            // A file may be named beside its directory.
            Ok(found) => found.into_iter().for_each(|file| {
                if !files.contains(&file) {
                    files.push(file)
                }
            }),
            Err(error) => problems.push(Problem::new(Place::file(source), "", format!("can't be read: {error}"))),
        }
    }
    if files.is_empty() && problems.is_empty() && !allow_none {
        let places = sources.iter().map(|source| source.display().to_string()).collect::<Vec<_>>().join(", ");
        let message = format!(
            "no connector in {places}: write one file NAME.yaml for each, or name another place with --connectors"
        );
        let place = sources.first().map_or(Path::new(""), PathBuf::as_path);
        problems.push(Problem::new(Place::file(place), "", message));
    }
    if problems.is_empty() { Ok(files) } else { Err(problems) }
}

/// `connectors/` beside configs/ or beside the worker's file, else the system's.
fn default_directory(worker_file: Option<&Path>) -> Result<PathBuf, Vec<Problem>> {
    let folder = worker_file.and_then(Path::parent).unwrap_or(Path::new(""));
    let mut places = Vec::new();
    if worker_file.is_none() {
        places.push(PathBuf::from("connectors"));
    } else if folder.file_name().is_some_and(|name| name == "configs") {
        places.push(folder.parent().unwrap_or(Path::new("")).join("connectors"));
    } else {
        places.push(folder.join("connectors"));
    }
    places.push(PathBuf::from(SYSTEM_CONNECTORS));
    places.dedup();
    if let Some(found) = places.iter().find(|place| place.is_dir()) {
        return Ok(found.clone());
    }
    let list = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ");
    let place = Place::file(places.first().map_or(Path::new(""), PathBuf::as_path));
    let message = format!("there is no directory of connectors (looked for {list}); name one with --connectors");
    Err(vec![Problem::new(place, "", message)])
}

fn in_directory(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        // Kubernetes mounts each key of a ConfigMap as a link; is_file follows it.
        if yaml && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a settings file, bounded, as UTF-8.
///
/// # Errors
/// As a problem of that file.
pub fn read(file: &Path) -> Result<String, Problem> {
    use std::io::Read as _;
    let problem = |message: String| Problem::new(Place::file(file), "", message);
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| problem(format!("can't be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(problem(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        problem(format!("is not UTF-8 from byte {byte} on"))
    })
}
