//! YAML text to a tree with positions.
//!
//! Owns: which YAML is accepted: one document, maps, lists, scalars of the core schema. Anchors, aliases, merge keys and tags
//! are refused with a message, so that nothing in a file expands; size, depth and count are bounded.
//! Does not own: what the keys mean.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use super::problem::{Place, Problem};
use super::tree::{Entry, Node, Text, Value};

/// A settings file larger than this is a mistake.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_DEPTH: usize = 32;
const MAX_NODES: usize = 10_000;

/// Reads one document. An empty one is an empty map.
///
/// # Errors
/// What was found up to the first damage that can't be read past; duplicate keys are all reported.
pub fn parse(file: &Path, text: &str) -> Result<Node, Vec<Problem>> {
    let mut reader = Reader {
        file: Arc::from(file),
        parser: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
        nodes: 0,
        duplicates: Vec::new(),
    };
    if text.len() as u64 > MAX_FILE_BYTES {
        let message = format!("is {} bytes long; a settings file has at most {MAX_FILE_BYTES}", text.len());
        return Err(vec![Problem::new(Place::file(file), "", message)]);
    }
    // The scanner takes NUL for the end of the text and would leave out what follows.
    if let Some(line) = text.lines().position(|line| line.contains('\0')) {
        let place = Place::Line { file: Arc::from(file), line: line + 1, column: 1 };
        return Err(vec![Problem::new(place, "", "holds a NUL character")]);
    }
    match reader.document() {
        Ok(node) if reader.duplicates.is_empty() => Ok(node),
        Ok(_) => Err(reader.duplicates),
        Err(problem) => {
            reader.duplicates.push(problem);
            Err(reader.duplicates)
        }
    }
}

struct Reader<'a> {
    file: Arc<Path>,
    parser: Parser<'a, StrInput<'a>>,
    nodes: usize,
    duplicates: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, Problem> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::Nothing | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(self.problem(span.start, "a second document begins here; a settings file holds one"));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, 0, "")?);
                }
                _ => return Err(self.problem(span.start, "is not a YAML document")),
            }
        }
        let start = Place::Line { file: Arc::clone(&self.file), line: 1, column: 1 };
        match root {
            None => Ok(Node { place: start, value: Value::Map(Vec::new()) }),
            Some(Node { place, value: Value::Null }) => Ok(Node { place, value: Value::Map(Vec::new()) }),
            Some(node @ Node { value: Value::Map(_), .. }) => Ok(node),
            Some(node) => Err(Problem::new(node.place, "", "is not a map: write `key: value` lines")),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize, path: &str) -> Result<Node, Problem> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            let what =
                if depth > MAX_DEPTH { format!("{MAX_DEPTH} levels deep") } else { format!("{MAX_NODES} values") };
            return Err(self.problem(span.start, format!("more than {what}; no settings need that")));
        }
        let place = self.place(span.start);
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_anchor(anchor, span)?;
                self.scalar(text, style, tag.as_deref(), span)?
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_anchor(anchor, span)?;
                self.refuse_tag(tag.as_deref(), span)?;
                self.list(depth, path)?
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_anchor(anchor, span)?;
                self.refuse_tag(tag.as_deref(), span)?;
                self.map(depth, path)?
            }
            Event::Alias(_) => {
                return Err(self.problem(span.start, "aliases (`*name`) are not supported; write the value out"));
            }
            _ => return Err(self.problem(span.start, "is not a value")),
        };
        Ok(Node { place, value })
    }

    fn scalar(&self, text: Cow<'a, str>, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Value, Problem> {
        let is_string = match tag {
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => true,
            Some(_) => return Err(self.tag_problem(span)),
            None => style != ScalarStyle::Plain,
        };
        if !is_string && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL") {
            return Ok(Value::Null);
        }
        Ok(Value::Text(Text::new(text)))
    }

    fn list(&mut self, depth: usize, path: &str) -> Result<Value, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1, path)?),
            }
        }
    }

    fn map(&mut self, depth: usize, path: &str) -> Result<Value, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, style, anchor, tag) => {
                    self.refuse_anchor(anchor, span)?;
                    self.refuse_tag(tag.as_deref(), span)?;
                    if style == ScalarStyle::Plain && text == "<<" {
                        return Err(self.problem(span.start, "merge keys (`<<`) are not supported; write the keys out"));
                    }
                    text.into_owned()
                }
                Event::Alias(_) => {
                    return Err(self.problem(span.start, "aliases (`*name`) are not supported; write the key out"));
                }
                _ => return Err(self.problem(span.start, "a key is a plain word, not a list or a map")),
            };
            let key_place = self.place(span.start);
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1, &below)?;
            match entries.iter().find(|entry| entry.key == key) {
                Some(first) => {
                    let line = first.key_place.line().unwrap_or_default();
                    let message = format!("is written twice, first in line {line}");
                    self.duplicates.push(Problem::new(key_place, below, message));
                }
                None => entries.push(Entry { key, key_place, node }),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.problem(*error.marker(), format!("is not YAML: {}", error.info()))),
            None => Err(Problem::new(Place::File(Arc::clone(&self.file)), "", "is not YAML: it ends too early")),
        }
    }

    fn refuse_anchor(&self, anchor: usize, span: Span) -> Result<(), Problem> {
        match anchor {
            0 => Ok(()),
            _ => {
                Err(self
                    .problem(span.start, "anchors (`&name`) are not supported; write the value out where it is used"))
            }
        }
    }

    fn refuse_tag(&self, tag: Option<&Tag>, span: Span) -> Result<(), Problem> {
        tag.map_or(Ok(()), |_| Err(self.tag_problem(span)))
    }

    fn tag_problem(&self, span: Span) -> Problem {
        self.problem(span.start, "tags (`!name`) are not supported; each key knows its type")
    }

    fn place(&self, marker: Marker) -> Place {
        Place::Line { file: Arc::clone(&self.file), line: marker.line(), column: marker.col() + 1 }
    }

    fn problem(&self, marker: Marker, message: impl Into<String>) -> Problem {
        Problem::new(self.place(marker), "", message)
    }
}
