//! Object keys.
//!
//! Owns: key templates, what makes one safe, rendering, the extension of a file.
//! Does not own: the prefix of the sink's URL, how an app id becomes a segment ([`super::app_id`]).
//!
//! Invariant: two files of one connector that begin with different records have different keys. App segments and topics are
//! text of any length, so between two of them stands a character that neither can hold. Such characters cut a key into
//! pieces with at most one text each; the numbers around it end where their digits end, since a character that is neither
//! letter nor digit stands between any two fields.

mod reading;

use std::fmt::Write;

use jiff::civil::DateTime;

use super::codec::Codec;
use super::format::Format;
use crate::config::nearest;

pub use reading::{KeyParts, KeyReader, KeySpan};

const DEFAULT: &str = "{app_id}/{date}/{time}_{topic}+{partition}+{offset}.{ext}";
const MAX_BYTES: usize = 512;
/// First segments that begin so belong to the tasks' logs.
const RESERVED: &str = "_sluice";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    AppId,
    Topic,
    Partition,
    Offset,
    Date,
    Time,
    Year,
    Month,
    Day,
    Hour,
    Connector,
    Ext,
}

const FIELDS: [(&str, Field); 12] = [
    ("app_id", Field::AppId),
    ("topic", Field::Topic),
    ("partition", Field::Partition),
    ("offset", Field::Offset),
    ("date", Field::Date),
    ("time", Field::Time),
    ("year", Field::Year),
    ("month", Field::Month),
    ("day", Field::Day),
    ("hour", Field::Hour),
    ("connector", Field::Connector),
    ("ext", Field::Ext),
];
/// Without each of these two objects could get the same key.
const REQUIRED: [Field; 4] = [Field::AppId, Field::Topic, Field::Partition, Field::Offset];

impl Field {
    fn name(self) -> &'static str {
        FIELDS.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }

    /// Text of any length: what follows can't be told from it by length or by digits.
    fn is_text(self) -> bool {
        matches!(self, Field::AppId | Field::Topic)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Field),
}

/// A checked key template: literal text and `{fields}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    text: String,
    parts: Vec<Part>,
}

/// A template that can't be used; each is fixed by writing another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTemplateError {
    #[error("must keep {{{0}}}, or two files could get the same key")]
    Missing(&'static str),
    #[error("{}", unknown_field(.name, *.nearest))]
    UnknownField { name: String, nearest: Option<&'static str> },
    #[error("has a `{0}` without its counterpart")]
    Unbalanced(char),
    #[error("is {0} bytes long, the limit is {MAX_BYTES}")]
    TooLong(usize),
    #[error("must not begin or end with `/`")]
    OuterSlash,
    #[error("has an empty segment: two `/` in a row")]
    EmptySegment,
    #[error("has the segment `{0}`, which stores and tools resolve as a folder")]
    DotSegment(String),
    #[error("begins with `{RESERVED}`, which is reserved for the tasks' logs")]
    Reserved,
    #[error("holds {0:?}; backslashes and control characters are not allowed")]
    Character(char),
    #[error("needs a character that is neither letter nor digit between {{{0}}} and {{{1}}}")]
    Adjacent(&'static str, &'static str),
    #[error(
        "needs a character between {{{0}}} and {{{1}}} that neither can hold, such as `/` or `+`: letters, digits and \
         `. _ - ~ %` occur in both, so that two files could get the same key"
    )]
    Ambiguous(&'static str, &'static str),
}

fn unknown_field(name: &str, nearest: Option<&'static str>) -> String {
    match nearest {
        Some(nearest) => format!("has the unknown field {{{name}}}; did you mean {{{nearest}}}?"),
        None => {
            let names: Vec<String> = FIELDS.iter().map(|(name, _)| format!("{{{name}}}")).collect();
            format!("has the unknown field {{{name}}}; there are {}", names.join(" "))
        }
    }
}

/// What a key is made of. Topic and connector names hold no `/`; partition and offset are not negative.
#[derive(Clone, Copy, Debug)]
pub struct KeyFields<'a> {
    /// From [`super::app_id::path_segment`], or a reserved name.
    pub app_segment: &'a str,
    pub topic: &'a str,
    /// Counts the topic's deletions and re-creations under the same name; offsets begin anew with each.
    pub incarnation: u32,
    pub connector: &'a str,
    pub partition: i32,
    /// Of the first record.
    pub offset: i64,
    /// Time of the record that opened the file, in the connector's zone.
    pub opened_at: DateTime,
    /// Start of the time bucket, in the connector's zone, where records are bucketed.
    pub bucket_start: Option<DateTime>,
    /// From [`extension`].
    pub ext: &'a str,
}

impl KeyTemplate {
    /// # Errors
    /// The template can't be read, names no place below a prefix, or could give two files the same key.
    pub fn parse(text: &str) -> Result<Self, KeyTemplateError> {
        if text.len() > MAX_BYTES {
            return Err(KeyTemplateError::TooLong(text.len()));
        }
        if let Some(char) = text.chars().find(|&char| char == '\\' || char.is_control()) {
            return Err(KeyTemplateError::Character(char));
        }
        let parts = split(text)?;
        check_segments(text)?;
        for field in REQUIRED {
            if !parts.contains(&Part::Field(field)) {
                return Err(KeyTemplateError::Missing(field.name()));
            }
        }
        check_separators(&parts)?;
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The key of a file, below the sink's prefix. Date, year, month, day and hour are the bucket's where there is one, the
    /// time is always that of the record that opened the file.
    pub fn render(&self, fields: &KeyFields<'_>) -> String {
        let mut key = String::with_capacity(self.text.len() + fields.app_segment.len() + fields.topic.len() + 32);
        for part in &self.parts {
            // Writing to a string does not fail.
            let _ = match part {
                Part::Literal(text) => key.write_str(text),
                Part::Field(field) => render_field(*field, fields, &mut key),
            };
        }
        key
    }

    /// The longest text with which all keys of an app begin, to list no more than needed; keys of other apps may begin with
    /// it too. `None` where keys begin with something else than literal text or the app id.
    pub fn listing_prefix(&self, app_segment: &str) -> Option<String> {
        let mut prefix = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => prefix.push_str(text),
                Part::Field(Field::AppId) => prefix.push_str(app_segment),
                Part::Field(_) => break,
            }
        }
        (!prefix.is_empty()).then_some(prefix)
    }
}

fn render_field(field: Field, fields: &KeyFields<'_>, key: &mut String) -> std::fmt::Result {
    let opened = fields.opened_at;
    let day = fields.bucket_start.unwrap_or(opened);
    match field {
        Field::AppId => key.write_str(fields.app_segment),
        Field::Topic if fields.incarnation == 0 => key.write_str(fields.topic),
        // No topic name holds `~`.
        Field::Topic => write!(key, "{}~{}", fields.topic, fields.incarnation),
        Field::Partition => write!(key, "{:05}", fields.partition),
        Field::Offset => write!(key, "{:020}", fields.offset),
        Field::Date => write!(key, "{:04}-{:02}-{:02}", day.year(), day.month(), day.day()),
        Field::Time => write!(key, "{:02}{:02}{:02}", opened.hour(), opened.minute(), opened.second()),
        Field::Year => write!(key, "{:04}", day.year()),
        Field::Month => write!(key, "{:02}", day.month()),
        Field::Day => write!(key, "{:02}", day.day()),
        Field::Hour => write!(key, "{:02}", day.hour()),
        Field::Connector => key.write_str(fields.connector),
        Field::Ext => key.write_str(fields.ext),
    }
}

fn split(text: &str) -> Result<Vec<Part>, KeyTemplateError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['{', '}']) {
        let (literal, field) = rest.split_at(start);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        let field = field.strip_prefix('{').ok_or(KeyTemplateError::Unbalanced('}'))?;
        let (name, after) = field.split_once('}').ok_or(KeyTemplateError::Unbalanced('{'))?;
        if name.contains('{') {
            return Err(KeyTemplateError::Unbalanced('{'));
        }
        let known = FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field);
        parts.push(Part::Field(known.ok_or_else(|| KeyTemplateError::UnknownField {
            name: name.to_owned(),
            nearest: nearest(name, FIELDS.map(|(known, _)| known)),
        })?));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    Ok(parts)
}

/// Fields are never empty and never render to `.` or `..`, so that segments can be judged as they are written.
fn check_segments(text: &str) -> Result<(), KeyTemplateError> {
    if text.starts_with('/') || text.ends_with('/') {
        return Err(KeyTemplateError::OuterSlash);
    }
    if text.starts_with(RESERVED) {
        return Err(KeyTemplateError::Reserved);
    }
    for segment in text.split('/') {
        match segment {
            "" if !text.is_empty() => return Err(KeyTemplateError::EmptySegment),
            "." | ".." => return Err(KeyTemplateError::DotSegment(segment.to_owned())),
            _ => {}
        }
    }
    Ok(())
}

fn check_separators(parts: &[Part]) -> Result<(), KeyTemplateError> {
    // The last field and the last text, with what stands between them and here.
    let mut last: Option<(Field, bool)> = None;
    let mut last_text: Option<(Field, bool)> = None;
    for part in parts {
        match part {
            Part::Literal(text) => {
                if let Some((_, separated)) = &mut last {
                    *separated |= text.contains(|char: char| !char.is_alphanumeric());
                }
                if let Some((_, separated)) = &mut last_text {
                    *separated |= text.contains(|char| !may_be_in_text(char));
                }
            }
            Part::Field(field) => {
                if let Some((before, false)) = last {
                    return Err(KeyTemplateError::Adjacent(before.name(), field.name()));
                }
                last = Some((*field, false));
                if field.is_text() {
                    if let Some((before, false)) = last_text {
                        return Err(KeyTemplateError::Ambiguous(before.name(), field.name()));
                    }
                    last_text = Some((*field, false));
                }
            }
        }
    }
    Ok(())
}

/// Whether an app segment or a topic with its incarnation can hold the character.
fn may_be_in_text(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-' | '~' | '%')
}

impl std::fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Default for KeyTemplate {
    fn default() -> Self {
        Self { text: DEFAULT.to_owned(), parts: split(DEFAULT).unwrap_or_default() }
    }
}

/// The extension of a file, without the dot before it.
pub fn extension(format: Format, codec: Codec) -> &'static str {
    match (format, codec) {
        (Format::Raw, Codec::Lz4) => "log.lz4",
        (Format::Raw, Codec::Zstd) => "log.zst",
        (Format::Raw, Codec::Gzip) => "log.gz",
        (Format::Raw, Codec::None) => "log",
        (Format::Json, Codec::Lz4) => "jsonl.lz4",
        (Format::Json, Codec::Zstd) => "jsonl.zst",
        (Format::Json, Codec::Gzip) => "jsonl.gz",
        (Format::Json, Codec::None) => "jsonl",
    }
}

#[cfg(test)]
mod tests;
