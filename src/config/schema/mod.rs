//! Every key there is: path, type, default, what it does and what more and less of it costs.
//!
//! Owns: the two tables ([`WORKER`], [`CONNECTOR`]) that drive defaults, unknown-key messages, the environment and
//! docs/configure.md. Does not own: checks that need more than one key.

use std::time::Duration;

use super::suggest::nearest;
use super::tree::{Text, Value};

mod connector;
mod names;
mod worker;

pub use connector::CONNECTOR;
pub use names::{Named, names};
pub use worker::WORKER;

/// All keys of one kind of file.
#[derive(Debug)]
pub struct Schema {
    /// Every section's keys stand together, in the order in which a reader wants to meet them.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// With dots: `spool.max_bytes`.
    pub path: &'static str,
    pub kind: Kind,
    /// As one would write it; `None`: the key must be written.
    pub default: Option<&'static str>,
    /// What it is, for the operator; begins lowercase, may hold Markdown.
    pub doc: &'static str,
    /// What more and less of it costs; empty where there is no more or less.
    pub cost: &'static str,
}

/// What a key takes. Every scalar may also be written in quotes.
#[derive(Debug)]
pub enum Kind {
    Text,
    /// A file or directory of this machine.
    Path,
    /// May hold a password, so it is never printed whole.
    Url,
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    /// A size.
    Bytes {
        min: u64,
        max: u64,
    },
    Duration {
        min: Duration,
        max: Duration,
    },
    /// One word of several.
    Choice(fn() -> Vec<&'static str>),
    /// A list of scalars.
    List,
    /// Free keys with scalars.
    Map,
    /// A section whose keys follow, or this word in its place.
    SectionOr(&'static str),
}

/// What a path leads to.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    Key(&'static Key),
    Section,
    Nothing,
}

impl Key {
    /// The default as a raw value.
    pub fn default_value(&self) -> Value {
        match (self.default, &self.kind) {
            (None | Some("null"), _) => Value::Null,
            (Some(_), Kind::List) => Value::List(Vec::new()),
            (Some(_), Kind::Map | Kind::SectionOr(_)) => Value::Map(Vec::new()),
            (Some(text), _) => Value::Text(Text::new(text)),
        }
    }
}

impl Schema {
    pub fn key(&self, path: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.path == path)
    }

    pub fn find(&self, path: &str) -> Found {
        match self.key(path) {
            Some(key) => Found::Key(key),
            None if self.below(path).next().is_some() => Found::Section,
            None => Found::Nothing,
        }
    }

    /// Names of the keys and sections directly below a section (`""` is the file), each once.
    pub fn below(&self, section: &str) -> impl Iterator<Item = &'static str> {
        let mut last = "";
        self.keys.iter().filter_map(move |key| {
            let rest = match section {
                "" => key.path,
                _ => key.path.strip_prefix(section)?.strip_prefix('.')?,
            };
            let name = rest.split('.').next()?;
            (std::mem::replace(&mut last, name) != name).then_some(name)
        })
    }

    /// The path that was meant by an unknown key of a section.
    pub fn nearest(&self, section: &str, key: &str) -> Option<String> {
        let join = |name: &str| if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        if let Some(name) = nearest(key, self.below(section)) {
            return Some(join(name));
        }
        // The right name in the wrong place, then the whole path mistyped.
        let last = key.rsplit('.').next().unwrap_or(key);
        let paths = || self.keys.iter().map(|key| key.path);
        paths()
            .find(|path| path.rsplit('.').next() == Some(last))
            .or_else(|| nearest(&join(key), paths()))
            .map(str::to_owned)
    }
}

/// The environment variable that sets a key of the worker: `SLUICE_SPOOL__MAX_BYTES`.
pub fn variable(path: &str) -> String {
    format!("SLUICE_{}", path.replace('.', "__").to_ascii_uppercase())
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_stand_together_and_paths_are_unique() {
        for schema in [&WORKER, &CONNECTOR] {
            let mut paths: Vec<_> = schema.keys.iter().map(|key| key.path).collect();
            paths.sort_unstable();
            paths.dedup();
            assert_eq!(paths.len(), schema.keys.len());
            for section in ["", "kafka", "kafka.security", "sink", "http"] {
                let mut names: Vec<_> = schema.below(section).collect();
                let count = names.len();
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), count, "{section}");
            }
        }
    }

    #[test]
    fn suggests_siblings_then_keys_elsewhere() {
        let nearest = |section, key| CONNECTOR.nearest(section, key);
        assert_eq!(nearest("rotate", "max_byte").as_deref(), Some("rotate.max_bytes"));
        assert_eq!(nearest("", "tasks.max").as_deref(), Some("tasks_max"));
        assert_eq!(nearest("", "max_interval").as_deref(), Some("rotate.max_interval"));
        assert_eq!(nearest("", "codec").as_deref(), Some("compression.codec"));
        assert_eq!(nearest("", "Rotates").as_deref(), Some("rotate"));
        assert_eq!(nearest("", "zzzzzz"), None);
    }

    #[test]
    fn every_choice_default_is_a_choice() {
        for key in WORKER.keys.iter().chain(CONNECTOR.keys) {
            if let (Kind::Choice(names), Some(default)) = (&key.kind, key.default) {
                assert!(default == "null" || names().contains(&default), "{}", key.path);
            }
        }
    }
}
