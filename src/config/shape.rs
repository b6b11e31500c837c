//! Whether a tree has the shape of its schema: known keys, scalars, lists and maps where they belong.
//!
//! Owns: unknown keys and wrong shapes, with the nearest valid key. Does not own: whether a scalar is a legal value.

use std::collections::BTreeSet;

use super::problem::{Place, Problem};
use super::schema::{Found, Key, Kind, Schema};
use super::tree::{Entry, Node, Value};

/// A tree that fits its schema: what did not fit was reported and left out, so was `null`, which means the default.
#[derive(Debug)]
pub struct Shaped {
    pub root: Node,
    /// Keys that were reported; they are not missing.
    pub reported: BTreeSet<String>,
}

/// Reports what does not fit; what `problems` holds already is about the same tree.
pub fn shape(schema: &Schema, root: Node, problems: &mut Vec<Problem>) -> Shaped {
    let before = problems.iter().map(|problem| problem.key.split('[').next().unwrap_or_default().to_owned());
    let reported = before.collect();
    let mut walk = Walk { schema, problems, reported };
    let root = walk.section(root, "");
    Shaped { root, reported: walk.reported }
}

struct Walk<'a> {
    schema: &'a Schema,
    problems: &'a mut Vec<Problem>,
    reported: BTreeSet<String>,
}

/// What an unknown key is answered with.
struct Unknown {
    message: String,
    /// The key that was meant; it is not missing then.
    meant: Option<String>,
}

impl Walk<'_> {
    fn section(&mut self, mut node: Node, section: &str) -> Node {
        if let Value::Map(entries) = node.value {
            node.value = Value::Map(entries.into_iter().filter_map(|entry| self.entry(entry, section)).collect());
        }
        node
    }

    fn entry(&mut self, entry: Entry, section: &str) -> Option<Entry> {
        let path = if section.is_empty() { entry.key.clone() } else { format!("{section}.{}", entry.key) };
        let Entry { key, key_place, node } = entry;
        // A key with dots in it would be found like a nested one.
        let found = if key.contains('.') { Found::Nothing } else { self.schema.find(&path) };
        let node = match (found, &node.value) {
            (Found::Nothing, _) => {
                let unknown = self.unknown(section, &key);
                self.report(key_place, path, unknown.message);
                self.reported.extend(unknown.meant);
                return None;
            }
            (_, Value::Null) => return None,
            (Found::Section, Value::Map(_)) => self.section(node, &path),
            (Found::Section, _) => {
                let names: Vec<_> = self.schema.below(&path).collect();
                let message = format!("is a section: write its keys below it ({})", names.join(", "));
                self.report(node.place, path, message);
                return None;
            }
            (Found::Key(found), _) => self.value(found, node)?,
        };
        Some(Entry { key, key_place, node })
    }

    fn value(&mut self, key: &Key, node: Node) -> Option<Node> {
        let message = match (&key.kind, &node.value) {
            (_, Value::Null) => return None,
            (Kind::SectionOr(_), Value::Map(_)) => return Some(self.section(node, key.path)),
            (Kind::SectionOr(word), Value::Text(text)) if text.text == *word => return Some(node),
            (Kind::SectionOr(word), _) => {
                let names: Vec<_> = self.schema.below(key.path).collect();
                format!("is the word `{word}`, or a section with the keys {}", names.join(", "))
            }
            (Kind::List, Value::List(items)) => match items.iter().find(|item| !matches!(item.value, Value::Text(_))) {
                None => return Some(node),
                Some(item) => {
                    self.report(
                        item.place.clone(),
                        key.path.to_owned(),
                        "holds something that is not a plain value".to_owned(),
                    );
                    return None;
                }
            },
            (Kind::List, Value::Text(text)) => {
                format!("is a list: write [{}]", text.shown().trim_matches('`'))
            }
            (Kind::List, Value::Map(_)) => "is a list: write [one, two]".to_owned(),
            (Kind::Map, Value::Map(entries)) => {
                match entries.iter().find(|entry| !matches!(entry.node.value, Value::Text(_))) {
                    None => return Some(node),
                    Some(entry) => {
                        let path = format!("{}.{}", key.path, entry.key);
                        self.report(entry.key_place.clone(), path, "takes a plain value".to_owned());
                        return None;
                    }
                }
            }
            (Kind::Map, _) => "is a map: write {name: value}".to_owned(),
            (_, Value::Text(_)) => return Some(node),
            (_, Value::List(_)) => "takes one value, not a list".to_owned(),
            (_, Value::Map(_)) => "takes one value, it has no keys below it".to_owned(),
        };
        self.report(node.place, key.path.to_owned(), message);
        None
    }

    fn unknown(&self, section: &str, key: &str) -> Unknown {
        let joined = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        if key.contains('.') && !matches!(self.schema.find(&joined), Found::Nothing) {
            let opened = key.replace('.', ": { ");
            let closed = " }".repeat(key.matches('.').count());
            let message = format!("is not a key: write it nested, `{opened}: …{closed}`");
            return Unknown { message, meant: Some(joined) };
        }
        match self.schema.nearest(section, key) {
            Some(nearest) => {
                Unknown { message: format!("is not a key; did you mean {nearest}?"), meant: Some(nearest) }
            }
            None => {
                let names: Vec<_> = self.schema.below(section).collect();
                Unknown { message: format!("is not a key; there are {}", names.join(", ")), meant: None }
            }
        }
    }

    fn report(&mut self, place: Place, path: String, message: String) {
        self.problems.push(Problem::new(place, path.clone(), message));
        self.reported.insert(path);
    }
}
