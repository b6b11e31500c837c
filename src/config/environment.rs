//! The worker's settings in the environment: `SLUICE_KAFKA__BOOTSTRAP_SERVERS=a:9092,b:9092`.
//!
//! Owns: names of variables, how their text becomes lists, which unknown ones are worth a word.
//! Does not own: `${NAME}` in files.

use super::expand::Environment;
use super::problem::{Place, Problem};
use super::schema::{Found, Key, Kind, Schema, variable};
use super::suggest::nearest;
use super::tree::{Node, Text, Value};

const PREFIX: &str = "SLUICE_";

/// Variables with our prefix that are not settings.
const OTHERS: [&str; 1] = ["SLUICE_HTTP_TOKEN_FILE"];

/// What the environment says, and what it seems to say wrongly.
#[derive(Debug)]
pub struct FromEnvironment {
    pub root: Node,
    /// Variables that are certainly meant as settings, and are none.
    pub problems: Vec<Problem>,
    /// Variables that look much like a setting's.
    pub warnings: Vec<Problem>,
}

/// Collects the variables that are keys of a schema. An empty variable counts as not set.
pub fn read(schema: &Schema, environment: &Environment) -> FromEnvironment {
    let place = Place::Variable("SLUICE_*".to_owned());
    let mut root = Node { place, value: Value::Map(Vec::new()) };
    let mut names: Vec<String> = Vec::new();
    for key in schema.keys {
        let name = variable(key.path);
        if let Some(text) = environment.get(&name).filter(|text| !text.is_empty()) {
            let place = Place::Variable(name.clone());
            let node = Node { place: place.clone(), value: value(key, text, &place) };
            // A word in place of a section stands alone; `put` would make it a section again, silently.
            root.put(key.path, &place, node);
        }
        names.push(name);
    }
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    for name in environment.keys().filter(|name| name.starts_with(PREFIX)) {
        if names.contains(name) || OTHERS.contains(&name.as_str()) {
            continue;
        }
        let near = nearest(name, names.iter().map(String::as_str));
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let place = Place::Variable(name.clone());
        if is_meant(schema, name) {
            problems.push(Problem::new(place, "", format!("is not a setting{hint}")));
        } else if near.is_some() {
            warnings.push(Problem::new(place, "", format!("is not a setting and is ignored{hint}")));
        }
    }
    FromEnvironment { root, problems, warnings }
}

/// Kubernetes puts variables like SLUICE_SERVICE_HOST into every pod, so that only a known section before `__` tells.
fn is_meant(schema: &Schema, name: &str) -> bool {
    let section = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")).map(|(section, _)| section);
    section.is_some_and(|section| !matches!(schema.find(&section.to_ascii_lowercase()), Found::Nothing))
}

fn value(key: &Key, text: &str, place: &Place) -> Value {
    let one = |text: &str| Value::Text(Text::new(text));
    match key.kind {
        _ if text == "null" => Value::Null,
        Kind::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::List(items.map(|item| Node { place: place.clone(), value: one(item) }).collect())
        }
        _ => one(text),
    }
}
