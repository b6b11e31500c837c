//! A connector's settings as a flat map with dots, as Kafka Connect's REST API has them.
//!
//! Owns: from the map to the raw tree and back, Connect's own names of keys. Does not own: what the settings mean.
//!
//! Variables (`${NAME}`) are not put in: who may make connectors over HTTP may not read this process' environment by them.

use std::collections::BTreeMap;
use std::path::Path;

use super::problem::{Place, Problem};
use super::schema::{CONNECTOR, Found, Kind};
use super::tree::{Entry, Node, Text, Value, show};

/// Every key of one connector with its value as text.
pub type FlatConfig = BTreeMap<String, String>;

/// What Connect calls the kind of a connector; there is one.
pub const CLASS_KEY: &str = "connector.class";
pub const CLASS: &str = "SluiceSinkConnector";
/// Values longer than this are a mistake.
const MAX_VALUE_BYTES: usize = 64 << 10;

/// Connect's spelling of keys that we spell in another way.
const ALIASES: [(&str, &str); 2] = [("tasks.max", "tasks_max"), ("topics.regex", "topics_regex")];

/// Our spelling of a key.
pub fn own_key(key: &str) -> &str {
    ALIASES.iter().find(|(theirs, _)| *theirs == key).map_or(key, |(_, ours)| ours)
}

/// The tree that a file with the same settings would give, the class left out. Its place is `file`, which need not exist.
pub fn tree(file: &Path, flat: &FlatConfig, problems: &mut Vec<Problem>) -> Node {
    let place = Place::file(file);
    let mut root = Node { place: place.clone(), value: Value::Map(Vec::new()) };
    for (key, text) in flat {
        if text.len() > MAX_VALUE_BYTES {
            let message = format!("is {} bytes long; a value has at most {MAX_VALUE_BYTES}", text.len());
            problems.push(Problem::new(place.clone(), key, message));
        } else if key == CLASS_KEY {
            if text != CLASS {
                let message = format!("{} is not known; there is {CLASS} alone", show(text));
                problems.push(Problem::new(place.clone(), key, message));
            }
        } else {
            put(&mut root, own_key(key), text, &place);
        }
    }
    root
}

fn put(root: &mut Node, path: &str, text: &str, place: &Place) {
    // An empty value is Connect's way to leave a key out.
    let node = |value| Node { place: place.clone(), value };
    let value = match CONNECTOR.find(path) {
        _ if text.is_empty() || text == "null" => Value::Null,
        Found::Key(key) if matches!(key.kind, Kind::List) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::List(items.map(|item| node(Value::Text(Text::new(item)))).collect())
        }
        _ => Value::Text(Text::new(text)),
    };
    match map_key(path) {
        // A free key may hold dots itself.
        Some((map, name)) => put_in_map(root, map, name, node(value)),
        None => root.put(path, place, node(value)),
    }
}

/// `sink.tags.team.name` is the free key `team.name` of the map `sink.tags`.
fn map_key(path: &str) -> Option<(&'static str, &str)> {
    CONNECTOR.keys.iter().filter(|key| matches!(key.kind, Kind::Map)).find_map(|key| {
        let name = path.strip_prefix(key.path)?.strip_prefix('.')?;
        Some((key.path, name))
    })
}

fn put_in_map(root: &mut Node, map: &str, name: &str, node: Node) {
    let mut entries = match root.at(map) {
        Some(Node { value: Value::Map(entries), .. }) => entries.clone(),
        _ => Vec::new(),
    };
    let place = node.place.clone();
    entries.push(Entry { key: name.to_owned(), key_place: place.clone(), node });
    root.put(map, &place, Node { place: place.clone(), value: Value::Map(entries) });
}

/// What a file says, as a flat map: as written, variables not put in, passwords of URLs left out.
pub fn flatten(root: &Node) -> FlatConfig {
    let mut flat = FlatConfig::from([(CLASS_KEY.to_owned(), CLASS.to_owned())]);
    add(root, "", &mut flat);
    flat
}

fn add(node: &Node, path: &str, flat: &mut FlatConfig) {
    match &node.value {
        Value::Null => {}
        Value::Text(text) => {
            flat.insert(path.to_owned(), without_password(text.written.as_ref().unwrap_or(&text.text)));
        }
        Value::List(items) => {
            let items: Vec<String> = items
                .iter()
                .filter_map(|item| match &item.value {
                    Value::Text(text) => Some(without_password(text.written.as_ref().unwrap_or(&text.text))),
                    Value::Null | Value::List(_) | Value::Map(_) => None,
                })
                .collect();
            flat.insert(path.to_owned(), items.join(","));
        }
        Value::Map(entries) => {
            for entry in entries {
                let below = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                add(&entry.node, &below, flat);
            }
        }
    }
}

/// The value for an answer.
pub fn without_password(text: &str) -> String {
    match text.split_once("://") {
        Some((_, rest)) if rest.contains('@') => super::SecretUrl::new(text.to_owned()).to_string(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(pairs: &[(&str, &str)]) -> FlatConfig {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn dots_become_sections_and_commas_lists() {
        let mut problems = Vec::new();
        let given = flat(&[
            ("connector.class", CLASS),
            ("topics", "a, b"),
            ("tasks.max", "2"),
            ("rotate.max_bytes", "1MiB"),
            ("sink.tags.team.name", "x"),
            ("sink.tags.stage", "prod"),
            ("compression.level", ""),
        ]);
        let root = tree(Path::new("c"), &given, &mut problems);
        assert_eq!(problems, []);
        let back = flatten(&root);
        let want = flat(&[
            ("connector.class", CLASS),
            ("topics", "a,b"),
            ("tasks_max", "2"),
            ("rotate.max_bytes", "1MiB"),
            ("sink.tags.team.name", "x"),
            ("sink.tags.stage", "prod"),
        ]);
        assert_eq!(back, want);
    }

    #[test]
    fn another_class_and_endless_values_are_refused() {
        let mut problems = Vec::new();
        let long = "x".repeat(MAX_VALUE_BYTES + 1);
        tree(Path::new("c"), &flat(&[("connector.class", "io.example.S3"), ("name", &long)]), &mut problems);
        assert_eq!(problems.len(), 2);
        assert!(problems[0].to_string().contains(CLASS), "{}", problems[0]);
    }

    #[test]
    fn passwords_of_urls_are_not_echoed() {
        assert_eq!(without_password("http://u:planted@h:9000"), "http://***@h:9000");
        assert_eq!(without_password("a@b"), "a@b");
        assert_eq!(without_password("file:///x"), "file:///x");
    }
}
