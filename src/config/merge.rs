//! Built-in defaults < file < environment.
//!
//! Owns: the layers and their order (by figment), where each merged value came from.
//! Does not own: the layers' contents.

use std::collections::BTreeMap;

use figment::value::{Dict, Empty, Map, Tag, Value as Merged};
use figment::{Figment, Metadata, Profile, Provider};

use super::problem::{Place, Problem};
use super::schema::Schema;
use super::tree::{Entry, Node, Text, Value};

/// One source of settings.
struct Layer<'a> {
    name: &'static str,
    root: &'a Node,
}

impl Provider for Layer<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(dict(self.root)))
    }
}

fn dict(node: &Node) -> Dict {
    match &node.value {
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), merged(&entry.node))).collect(),
        Value::Null | Value::Text(_) | Value::List(_) => Dict::new(),
    }
}

fn merged(node: &Node) -> Merged {
    match &node.value {
        Value::Null => Merged::Empty(Tag::Default, Empty::None),
        Value::Text(text) => Merged::String(Tag::Default, text.text.clone()),
        Value::List(items) => Merged::Array(Tag::Default, items.iter().map(merged).collect()),
        Value::Map(_) => Merged::Dict(Tag::Default, dict(node)),
    }
}

/// Merges; a later layer wins key by key, lists are replaced whole. Every key of the schema is in the result.
///
/// # Errors
/// figment refused; it has no reason to.
pub fn merge(schema: &Schema, file: &Node, environment: Option<&Node>) -> Result<Node, Problem> {
    let defaults = defaults(schema, &file.place);
    let mut layers = vec![Layer { name: "defaults", root: &defaults }, Layer { name: "file", root: file }];
    layers.extend(environment.map(|root| Layer { name: "environment", root }));
    let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
    let value = figment.find_value("").map_err(|error| Problem::new(file.place.clone(), "", error.to_string()))?;
    let origins: Vec<Origins> = layers.iter().map(|layer| Origins::new(layer.name, layer.root)).collect();
    let rebuild = Rebuild { figment: &figment, origins: &origins, home: &file.place };
    let mut root = rebuild.node(&value, "");
    root.place = file.place.clone();
    Ok(root)
}

/// The built-in values as a tree; their place is the file's, where one would write something else.
fn defaults(schema: &Schema, home: &Place) -> Node {
    let mut root = Node { place: home.clone(), value: Value::Map(Vec::new()) };
    for key in schema.keys {
        root.put(key.path, home, Node { place: home.clone(), value: key.default_value() });
    }
    root
}

/// Where a layer's values stand, by path; figment keeps no positions.
struct Origins {
    name: &'static str,
    by_path: BTreeMap<String, (Place, Option<String>)>,
}

impl Origins {
    fn new(name: &'static str, root: &Node) -> Self {
        let mut origins = Self { name, by_path: BTreeMap::new() };
        origins.add(root, "");
        origins
    }

    fn add(&mut self, node: &Node, path: &str) {
        let mut written = None;
        match &node.value {
            Value::Null => {}
            Value::Text(text) => written.clone_from(&text.written),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.add(item, &item_path(path, index));
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    let below = key_path(path, &entry.key);
                    self.add(&entry.node, &below);
                    if matches!(entry.node.value, Value::Map(_)) {
                        // What is missing in a section is shown at its name.
                        self.by_path.insert(below, (entry.key_place.clone(), None));
                    }
                }
            }
        }
        self.by_path.insert(path.to_owned(), (node.place.clone(), written));
    }
}

fn key_path(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn item_path(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

struct Rebuild<'a> {
    figment: &'a Figment,
    origins: &'a [Origins],
    home: &'a Place,
}

impl Rebuild<'_> {
    fn node(&self, value: &Merged, path: &str) -> Node {
        let (place, written) = self.origin(value, path);
        let value = match value {
            Merged::Dict(_, dict) => Value::Map(
                dict.iter()
                    .map(|(key, value)| {
                        let node = self.node(value, &key_path(path, key));
                        Entry { key: key.clone(), key_place: node.place.clone(), node }
                    })
                    .collect(),
            ),
            Merged::Array(_, items) => Value::List(
                items.iter().enumerate().map(|(index, item)| self.node(item, &item_path(path, index))).collect(),
            ),
            Merged::String(_, text) => Value::Text(Text { text: text.clone(), written }),
            // The layers hold nothing else.
            Merged::Empty(..) | Merged::Bool(..) | Merged::Char(..) | Merged::Num(..) => Value::Null,
        };
        Node { place, value }
    }

    fn origin(&self, value: &Merged, path: &str) -> (Place, Option<String>) {
        let name = self.figment.get_metadata(value.tag()).map(|metadata| metadata.name.as_ref());
        let origin = match value {
            // A section belongs to several layers; a reader looks for it in the file.
            Merged::Dict(..) => self.origins.iter().find(|origins| origins.name == "file"),
            _ => self.origins.iter().find(|origins| Some(origins.name) == name),
        };
        origin.and_then(|origins| origins.by_path.get(path)).cloned().unwrap_or_else(|| (self.home.clone(), None))
    }
}
