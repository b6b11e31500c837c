//! How far a restore came, in a file.
//!
//! Owns: what is known to be written, the file, that only one restore uses it at a time. Does not own: when it is saved.
//!
//! The file is written after acknowledgements only: what it says is written, is. What is written may be more; the target's
//! tail, from `ends` on, tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RestoreError;
use crate::reading::survey::{Emitted, Stream};
use crate::reading::times::Times;

/// Another version's file is not gone on with.
const VERSION: u32 = 1;

/// Which partition of the target a record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum PartitionsBy {
    /// The one it came from
    Keep,
    /// By its key, as Kafka's Java producer chooses; in turn where it has none
    Key,
}

/// What somebody asked for, in their words: the same words go on, others are another restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub connector: String,
    pub apps: Vec<String>,
    pub target: String,
    pub since: Option<String>,
    pub until: Option<String>,
    pub partitions: PartitionsBy,
}

/// What is asked for, and how far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    version: u32,
    pub asked: Asked,
    /// Names this restore in the headers of what it writes.
    pub restore: String,
    /// The segments of the apps, one restored after the other, and what `since` and `until` meant at first.
    pub apps: Vec<String>,
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
    pub target_id: Option<String>,
    /// The app that is at hand; those before it are done.
    pub app: usize,
    done: Vec<Done>,
    /// Per partition of the target: all that this restore wrote below it is in `done`.
    pub ends: BTreeMap<i32, i64>,
    /// Nothing was under way when this was saved.
    pub settled: bool,
    pub finished: bool,
    /// Something could not be read, and is not in the target.
    pub left_out: bool,
    /// Records that were written, by all runs.
    pub records: u64,
}

/// What is written of one partition of the app at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    topic: String,
    incarnation: u32,
    partition: i32,
    /// All up to here; -1: nothing yet.
    last: i64,
    /// And these above it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    ahead: BTreeSet<i64>,
}

impl Done {
    fn is(&self, stream: &Stream) -> bool {
        *self.topic == *stream.topic && (self.incarnation, self.partition) == (stream.incarnation, stream.partition)
    }
}

impl Position {
    /// Nothing is written yet.
    pub fn new(asked: Asked, restore: String, apps: Vec<String>, times: Times) -> Self {
        Self {
            version: VERSION,
            asked,
            restore,
            apps,
            since_ms: times.since_ms,
            until_ms: times.until_ms,
            target_id: None,
            app: 0,
            done: Vec::new(),
            ends: BTreeMap::new(),
            settled: true,
            finished: false,
            left_out: false,
            records: 0,
        }
    }

    pub fn times(&self) -> Times {
        Times { since_ms: self.since_ms, until_ms: self.until_ms }
    }

    /// Whether this record of the app at hand is in the target.
    pub fn has(&self, stream: &Stream, offset: i64) -> bool {
        let done = self.done.iter().find(|done| done.is(stream));
        done.is_some_and(|done| offset <= done.last || done.ahead.contains(&offset))
    }

    /// All offsets of the stream up to this one are written, or need not be.
    pub fn reached(&mut self, stream: &Stream, offset: i64) {
        let done = self.of(stream);
        done.last = done.last.max(offset);
        done.ahead = done.ahead.split_off(&done.last.saturating_add(1));
    }

    /// This one is written; those below it may not be.
    pub fn wrote(&mut self, stream: &Stream, offset: i64) {
        let done = self.of(stream);
        if offset > done.last && done.ahead.insert(offset) {
            self.records += 1;
        }
    }

    fn of(&mut self, stream: &Stream) -> &mut Done {
        let known = self.done.iter().position(|done| done.is(stream));
        let at = known.unwrap_or_else(|| {
            let (topic, incarnation, partition) = (stream.topic.to_string(), stream.incarnation, stream.partition);
            self.done.push(Done { topic, incarnation, partition, last: -1, ahead: BTreeSet::new() });
            self.done.len() - 1
        });
        &mut self.done[at]
    }

    /// All of the app at hand is written.
    pub fn next_app(&mut self) {
        self.app += 1;
        self.done.clear();
    }

    /// What need not be read again of the app at hand.
    pub fn emitted(&self) -> Emitted {
        let stream = |done: &Done| {
            let (incarnation, partition) = (done.incarnation, done.partition);
            (Stream { topic: done.topic.as_str().into(), incarnation, partition }, done.last)
        };
        self.done.iter().map(stream).collect()
    }
}

/// The file of a position. Held by one restore at a time.
#[derive(Debug)]
pub struct PositionFile {
    path: PathBuf,
    _lock: File,
}

impl PositionFile {
    /// Holds the file; makes its directory.
    ///
    /// # Errors
    /// Another restore holds it, or it can't be written there.
    pub fn open(path: &Path) -> Result<Self, RestoreError> {
        let failed = |error: io::Error| {
            RestoreError::Usage(format!(
                "{}: {error}; say with --progress-file where this restore may keep how far it came",
                path.display()
            ))
        };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let lock = beside(path, ".lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => {
                Err(RestoreError::Usage(format!("{}: another restore is at work with it", path.display())))
            }
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `None`: there is nothing yet.
    ///
    /// # Errors
    /// It is not the position of what is asked for.
    pub fn load(&self, asked: &Asked) -> Result<Option<Position>, RestoreError> {
        load(&self.path, asked)
    }

    /// Whole or not at all.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save(&self, position: &Position) -> Result<(), RestoreError> {
        let failed = |error: io::Error| RestoreError::Position { file: self.path.clone(), error };
        let text = serde_json::to_vec(position).map_err(|error| failed(error.into()))?;
        let new = beside(&self.path, ".new");
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&new, &self.path).map_err(failed)?;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

/// Reads a position; `None`: there is nothing yet.
///
/// # Errors
/// It is not the position of what is asked for.
pub fn load(path: &Path, asked: &Asked) -> Result<Option<Position>, RestoreError> {
    let wrong = |why: String| RestoreError::Usage(format!("{}: {why}", path.display()));
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let other = "name another file with --progress-file; or delete this one, if that restore is to be given up";
    let position: Position = serde_json::from_slice(&text)
        .map_err(|error| wrong(format!("this does not say how far a restore came ({error}); {other}")))?;
    if position.version != VERSION {
        return Err(wrong(format!("another version of this program wrote it; {other}")));
    }
    if position.asked != *asked {
        let Asked { connector, apps, target, since, until, partitions } = &position.asked;
        let time = |name: &str, time: &Option<String>| time.as_ref().map(|time| format!(" --{name} {time}"));
        return Err(wrong(format!(
            "it belongs to another restore: {connector} --app {} --to-topic {target}{}{} --partitions {}; {other}",
            apps.join(" --app "),
            time("since", since).unwrap_or_default(),
            time("until", until).unwrap_or_default(),
            if *partitions == PartitionsBy::Keep { "keep" } else { "key" },
        )));
    }
    Ok(Some(position))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(app: &str) -> Asked {
        let (connector, apps, target) = ("app-logs".to_owned(), vec![app.to_owned()], "again".to_owned());
        Asked { connector, apps, target, since: None, until: Some("-1d".to_owned()), partitions: PartitionsBy::Keep }
    }

    fn stream(partition: i32) -> Stream {
        Stream { topic: "applogs".into(), incarnation: 0, partition }
    }

    #[test]
    fn what_is_written_is_told_from_what_is_not() {
        let mut position = Position::new(asked("a"), "r".into(), vec!["a".into()], Times::default());
        position.wrote(&stream(0), 5);
        position.wrote(&stream(0), 9);
        position.wrote(&stream(0), 9);
        assert!(position.has(&stream(0), 5) && !position.has(&stream(0), 4) && !position.has(&stream(1), 5));
        assert_eq!((position.records, position.emitted().get(&stream(0))), (2, Some(&-1)));
        position.reached(&stream(0), 7);
        assert!(position.has(&stream(0), 4) && !position.has(&stream(0), 8) && position.has(&stream(0), 9));
        position.next_app();
        assert!(!position.has(&stream(0), 5) && position.app == 1);
    }

    #[test]
    fn a_file_serves_one_restore_and_says_which() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/position.json");
        let file = PositionFile::open(&path).unwrap();
        assert!(PositionFile::open(&path).unwrap_err().to_string().contains("another restore is at work"));
        assert_eq!(file.load(&asked("a")).unwrap(), None);
        let mut position = Position::new(asked("a"), "r".into(), vec!["a".into()], Times::default());
        position.wrote(&stream(0), 5);
        position.ends.insert(0, 7);
        file.save(&position).unwrap();
        assert_eq!(file.load(&asked("a")).unwrap(), Some(position));
        let error = file.load(&asked("b")).unwrap_err().to_string();
        assert!(error.contains("app-logs --app a --to-topic again --until -1d --partitions keep"), "{error}");
        fs::write(&path, "{}").unwrap();
        assert!(file.load(&asked("a")).is_err());
        drop(file);
        PositionFile::open(&path).unwrap();
    }
}
