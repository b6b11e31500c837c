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

/// Reads one document; an empty one is an empty map. `None`: damaged so that nothing can be said of its keys. Of keys that
/// are written twice, which is a problem, the first is in the tree.
pub fn parse(file: &Path, text: &str) -> (Option<Node>, Vec<Problem>) {
    if text.len() as u64 > MAX_FILE_BYTES {
        let message = format!("is {} bytes long; a settings file has at most {MAX_FILE_BYTES}", text.len());
        return (None, vec![Problem::new(Place::file(file), "", message)]);
    }
    // The scanner takes NUL for the end of the text and would leave out what follows.
    if let Some(line) = text.lines().position(|line| line.contains('\0')) {
        let place = Place::Line { file: Arc::from(file), line: line + 1, column: 1 };
        return (None, vec![Problem::new(place, "", "holds a NUL character")]);
    }
    let mut reader = Reader {
        file: Arc::from(file),
        parser: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
        nodes: 0,
        duplicates: Vec::new(),
    };
    match reader.document() {
        Ok(node) => (Some(node), reader.duplicates),
        Err(problem) => {
            reader.duplicates.push(problem);
            (None, reader.duplicates)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a failed step is a failed test")]

    use proptest::prelude::*;

    use super::*;

    fn tree(text: &str) -> Node {
        let (tree, problems) = parse(Path::new("f.yaml"), text);
        assert_eq!(problems, []);
        tree.unwrap()
    }

    fn problems(text: &str) -> Vec<String> {
        parse(Path::new("f.yaml"), text).1.iter().map(ToString::to_string).collect()
    }

    fn only_problem(text: &str) -> String {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    }

    #[test]
    fn keeps_the_place_of_every_value_and_key() {
        let root = tree("# comment\na:\n  b: [x, 'y']\nc: 1\n");
        let place = |path: &str| root.at(path).unwrap().place.to_string();
        assert_eq!(place("a.b"), "f.yaml:3:6");
        assert_eq!(place("c"), "f.yaml:4:4");
        let Value::List(items) = &root.at("a.b").unwrap().value else { panic!() };
        assert_eq!(items[1].place.to_string(), "f.yaml:3:10");
        let Value::Map(entries) = &root.value else { panic!() };
        assert_eq!(entries[0].key_place.to_string(), "f.yaml:2:1");
    }

    #[test]
    fn scalars_stay_text_and_only_plain_nulls_are_null() {
        let root = tree("a: 0x10\nb: yes\nc: ~\nd: 'null'\ne:\nf: !!str null\ng: \"\"\nh: 1.50\ni: |\n  x\n  y\n");
        let text = |path: &str| match &root.at(path).unwrap().value {
            Value::Text(text) => Some(text.text.as_str()),
            Value::Null => None,
            other => panic!("{other:?}"),
        };
        assert_eq!([text("a"), text("b"), text("h")], [Some("0x10"), Some("yes"), Some("1.50")]);
        assert_eq!([text("c"), text("e")], [None, None]);
        assert_eq!([text("d"), text("f"), text("g")], [Some("null"), Some("null"), Some("")]);
        assert_eq!(text("i"), Some("x\ny\n"));
    }

    #[test]
    fn lines_may_end_as_on_windows() {
        let root = tree("a: x\r\nb:\r\n  - y\r\n");
        assert_eq!(root.at("a").unwrap().value, Value::Text(Text::new("x")));
        assert_eq!(root.at("b").unwrap().place.to_string(), "f.yaml:3:3");
    }

    #[test]
    fn empty_files_are_empty_maps() {
        for text in ["", "# nothing\n", "---\n", "---\n...\n", "\u{feff}", "~"] {
            assert_eq!(tree(text).value, Value::Map(Vec::new()), "{text:?}");
        }
    }

    #[test]
    fn a_duplicate_key_names_both_lines_and_all_are_told() {
        assert_eq!(
            problems("a: 1\nb: {c: 1, d: 2, c: 3}\na: 2\n"),
            ["f.yaml:2:17: b.c: is written twice, first in line 2", "f.yaml:3:1: a: is written twice, first in line 1"]
        );
    }

    #[test]
    fn what_expands_or_retypes_is_refused() {
        assert_eq!(
            only_problem("a: &x 1\nb: *x\n"),
            "f.yaml:1:4: anchors (`&name`) are not supported; write the value out where it is used"
        );
        assert!(only_problem("<<: {a: 1}\n").contains("merge keys (`<<`) are not supported"));
        assert!(only_problem("a: !!int 3\n").contains("tags (`!name`) are not supported"));
        assert!(only_problem("a: !Ref x\n").contains("tags"));
        assert!(only_problem("? [a, b]\n: c\n").contains("a key is a plain word"));
        assert!(only_problem("a: 1\n---\nb: 2\n").starts_with("f.yaml:2:1: a second document"));
        assert!(only_problem("- a\n").contains("is not a map"));
        assert!(only_problem("just text").contains("is not a map"));
    }

    #[test]
    fn damage_is_told_with_its_line() {
        assert!(only_problem("a: 1\nb: [1, 2\n").starts_with("f.yaml:3:1: is not YAML"));
        assert!(only_problem("a:\n\tb: 1\n").starts_with("f.yaml:2:"));
        assert_eq!(only_problem("a: 1\nb: \0\nc: 3\n"), "f.yaml:2:1: holds a NUL character");
    }

    #[test]
    fn hostile_files_end_soon() {
        let deep = |open: &str| open.repeat(100_000);
        for text in [deep("["), deep("{a: "), deep("- "), deep("? "), deep("a:\n ")] {
            assert!(!problems(&text).is_empty());
        }
        let nested: String = (0..40).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(only_problem(&nested).contains("more than 32 levels deep"));
        let many: String = (0..20_000).map(|key| format!("k{key}: 1\n")).collect();
        assert!(only_problem(&many).contains("more than 10000 values"));
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n";
        assert!(only_problem(bomb).contains("anchors"));
        let long = "a: ".to_owned() + &"x".repeat(1 << 20);
        assert!(only_problem(&long).contains("a settings file has at most 1048576"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_text_makes_it_panic(text in "[ \\n\\t\\-?:,\\[\\]{}#&*!|>'\"%@`a0\\\\~.=<\\r\u{85}\u{2028}é]{0,60}") {
            let _ = parse(Path::new("f.yaml"), &text);
        }

        #[test]
        fn scalars_come_back(keys in prop::collection::btree_map("[a-z]{1,8}", "[ -~]{0,20}", 0..8)) {
            let quoted = |value: &str| value.replace('\'', "''");
            let text: String = keys.iter().map(|(key, value)| format!("{key}: '{}'\n", quoted(value))).collect();
            let root = tree(&text);
            for (key, value) in &keys {
                prop_assert_eq!(&root.at(key).unwrap().value, &Value::Text(Text::new(value.as_str())));
            }
        }
    }
}
