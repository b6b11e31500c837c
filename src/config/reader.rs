//! Takes typed values out of merged settings, collecting every problem on the way.
//!
//! Owns: what a scalar of each kind looks like, ranges. Does not own: rules between keys.
//!
//! `Checked<T>` is `None` where a problem was reported, so that checking goes on and nothing is built from the pieces.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Place, Problem};
use super::schema::{Kind, Named, Schema, names};
use super::suggest::nearest;
use super::tree::{Node, Text, Value};
use super::units::{parse_bytes, parse_duration, show_bytes, show_duration};

/// `None`: a problem was reported.
pub type Checked<T> = Option<T>;

#[derive(Debug)]
pub struct Reader<'a> {
    schema: &'static Schema,
    root: &'a Node,
    reported: BTreeSet<String>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// `reported`: keys that were found wrong before and are not to be called missing.
    pub fn new(schema: &'static Schema, root: &'a Node, reported: BTreeSet<String>) -> Self {
        Self { schema, root, reported, problems: Vec::new(), warnings: Vec::new() }
    }

    /// Where a key is written, else its section, else the file.
    pub fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            match (self.root.at(path), path.rsplit_once('.')) {
                (Some(node), None) => return node.place.clone(),
                (Some(node), Some(_)) if node.place != self.root.place => return node.place.clone(),
                (_, Some((section, _))) => path = section,
                (None, None) => return self.root.place.clone(),
            }
        }
    }

    pub fn problem(&mut self, path: &str, message: impl Into<String>) {
        let problem = Problem::new(self.place(path), path, message);
        self.problems.push(problem);
    }

    pub fn warning(&mut self, path: &str, message: impl Into<String>) {
        let problem = Problem::new(self.place(path), path, message);
        self.warnings.push(problem);
    }

    /// Whether something was written that is not the default.
    pub fn is_set(&self, path: &str) -> bool {
        let default = self.schema.key(path).and_then(|key| key.default);
        match self.root.at(path).map(|node| &node.value) {
            None | Some(Value::Null) => false,
            Some(Value::Text(text)) => default != Some(text.text.as_str()),
            Some(Value::List(items)) => !items.is_empty(),
            Some(Value::Map(entries)) => entries.iter().any(|entry| !matches!(entry.node.value, Value::Null)),
        }
    }

    fn scalar(&self, path: &str) -> Option<&'a Text> {
        match self.root.at(path).map(|node| &node.value) {
            Some(Value::Text(text)) => Some(text),
            None | Some(Value::Null | Value::List(_) | Value::Map(_)) => None,
        }
    }

    /// The value for a message.
    pub fn shown(&self, path: &str) -> String {
        match (self.schema.key(path).map(|key| &key.kind), self.scalar(path)) {
            (Some(Kind::Url), _) => "the URL".to_owned(),
            (_, Some(text)) => text.shown(),
            (_, None) => "the value".to_owned(),
        }
    }

    /// Whether a key that is a section holds a word in its place.
    pub fn is_word(&self, path: &str) -> bool {
        self.scalar(path).is_some()
    }

    /// A scalar that may be `null`. An empty one is a problem.
    pub fn text(&mut self, path: &str) -> Checked<Option<String>> {
        match self.text_or_empty(path)? {
            Some(text) if text.is_empty() => {
                self.problem(path, "is empty; leave the key out or write null");
                None
            }
            text => Some(text),
        }
    }

    /// A scalar that may be `null` or empty.
    pub fn text_or_empty(&mut self, path: &str) -> Checked<Option<String>> {
        match self.scalar(path) {
            None if self.reported.contains(path) => None,
            None => Some(None),
            Some(text) if text.text.chars().any(char::is_control) => {
                self.problem(path, "holds a control character");
                None
            }
            Some(text) => Some(Some(text.text.clone())),
        }
    }

    /// A scalar that must be there.
    pub fn required_text(&mut self, path: &str) -> Checked<String> {
        match self.text(path)? {
            Some(text) => Some(text),
            None => {
                let doc = self.schema.key(path).map(|key| key.doc).unwrap_or_default();
                self.problem(path, format!("is missing: {doc}"));
                None
            }
        }
    }

    pub fn path(&mut self, path: &str) -> Checked<Option<PathBuf>> {
        Some(self.text(path)?.map(PathBuf::from))
    }

    pub fn bool(&mut self, path: &str) -> Checked<bool> {
        match self.required_text(path)?.as_str() {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => {
                let shown = self.shown(path);
                self.problem(path, format!("{shown} is neither true nor false"));
                None
            }
        }
    }

    pub fn integer(&mut self, path: &str) -> Checked<Option<i64>> {
        let Some(text) = self.text(path)? else { return Some(None) };
        let Some(Kind::Integer { min, max }) = self.schema.key(path).map(|key| &key.kind) else { return None };
        let message = match parse_integer(&text) {
            Some(value) if (*min..=*max).contains(&value) => return Some(Some(value)),
            Some(_) => format!("is not between {min} and {max}"),
            None => "is not a whole number".to_owned(),
        };
        let shown = self.shown(path);
        self.problem(path, format!("{shown} {message}"));
        None
    }

    pub fn bytes(&mut self, path: &str) -> Checked<u64> {
        let text = self.required_text(path)?;
        let Some(Kind::Bytes { min, max }) = self.schema.key(path).map(|key| &key.kind) else { return None };
        let message = match parse_bytes(&text) {
            Ok(value) if (*min..=*max).contains(&value) => return Some(value),
            Ok(_) => format!("is not between {} and {}", show_bytes(*min), show_bytes(*max)),
            Err(message) => message.to_owned(),
        };
        let shown = self.shown(path);
        self.problem(path, format!("{shown} {message}"));
        None
    }

    /// A scalar as it is, for rules between keys.
    pub fn peek(&self, path: &str) -> Option<&'a str> {
        Some(self.scalar(path)?.text.as_str())
    }

    /// A size without a word about it, for rules between sections; whoever owns the key reports it.
    pub fn peek_bytes(&self, path: &str) -> Option<u64> {
        parse_bytes(&self.scalar(path)?.text).ok()
    }

    pub fn duration(&mut self, path: &str) -> Checked<Duration> {
        let text = self.required_text(path)?;
        let Some(Kind::Duration { min, max }) = self.schema.key(path).map(|key| &key.kind) else { return None };
        let message = match parse_duration(&text) {
            Ok(value) if (*min..=*max).contains(&value) => return Some(value),
            Ok(_) => format!("is not between {} and {}", show_duration(*min), show_duration(*max)),
            Err(message) => message.to_owned(),
        };
        let shown = self.shown(path);
        self.problem(path, format!("{shown} {message}"));
        None
    }

    /// One word of several; `null` where the key allows it.
    pub fn optional_choice<T: Named>(&mut self, path: &str) -> Checked<Option<T>> {
        let Some(text) = self.text(path)? else { return Some(None) };
        self.word(path, &text).map(Some)
    }

    pub fn choice<T: Named>(&mut self, path: &str) -> Checked<T> {
        let text = self.required_text(path)?;
        self.word(path, &text)
    }

    fn word<T: Named>(&mut self, path: &str, text: &str) -> Checked<T> {
        if let Some((_, value)) = T::NAMES.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let shown = self.shown(path);
        let names = names::<T>();
        let hint = match nearest(text, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("write one of {}", names.join(", ")),
        };
        self.problem(path, format!("{shown} is not known; {hint}"));
        None
    }

    /// The scalars of a list with their places; `None` inside: the key is `null`.
    pub fn list(&mut self, path: &str) -> Checked<Option<Vec<(Place, &'a Text)>>> {
        match self.root.at(path).map(|node| &node.value) {
            Some(Value::List(items)) => {
                let texts = items.iter().filter_map(|item| match &item.value {
                    Value::Text(text) => Some((item.place.clone(), text)),
                    Value::Null | Value::List(_) | Value::Map(_) => None,
                });
                Some(Some(texts.collect()))
            }
            _ if self.reported.contains(path) => None,
            _ => Some(None),
        }
    }

    /// The pairs of a map, in order of keys.
    pub fn map(&mut self, path: &str) -> Checked<Vec<(String, String)>> {
        match self.root.at(path).map(|node| &node.value) {
            Some(Value::Map(entries)) => Some(
                entries
                    .iter()
                    .filter_map(|entry| match &entry.node.value {
                        Value::Text(text) => Some((entry.key.clone(), text.text.clone())),
                        Value::Null | Value::List(_) | Value::Map(_) => None,
                    })
                    .collect(),
            ),
            _ if self.reported.contains(path) => None,
            _ => Some(Vec::new()),
        }
    }
}

/// Decimal, `0x` or `0o`, as YAML's core schema writes whole numbers.
pub fn parse_integer(text: &str) -> Option<i64> {
    let digits = |text: &str, radix| {
        text.starts_with(|char: char| char.is_ascii_alphanumeric()).then(|| i64::from_str_radix(text, radix).ok())?
    };
    match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(hex), _) => digits(hex, 16),
        (_, Some(octal)) => digits(octal, 8),
        (None, None) => text.parse().ok(),
    }
}
