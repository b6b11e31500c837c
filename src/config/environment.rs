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
    let mut problems = Vec::new();
    for key in schema.keys {
        let name = variable(key.path);
        if let Some(text) = environment.get(&name).filter(|text| !text.is_empty()) {
            let place = Place::Variable(name.clone());
            match word_problem(key, &name, text, environment) {
                Some(message) => problems.push(Problem::new(place, key.path, message)),
                None => {
                    let node = Node { place: place.clone(), value: value(key, text, &place) };
                    root.put(key.path, &place, node);
                }
            }
        }
        names.push(name);
    }
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

/// A section's own variable takes its one word, and not beside variables of the section's keys.
fn word_problem(key: &Key, name: &str, text: &str, environment: &Environment) -> Option<String> {
    let Kind::SectionOr(word) = key.kind else { return None };
    if text == "null" {
        return None;
    }
    let below = format!("{name}__");
    if text != word {
        return Some(format!("is the word `{word}`, or not set; variables of its keys begin with {below}"));
    }
    let beside = environment.iter().find(|(other, text)| other.starts_with(&below) && !text.is_empty());
    beside.map(|(other, _)| format!("stands beside {other}; set one of them"))
}

/// Kubernetes puts variables like SLUICE_SERVICE_HOST into every pod, so that only a known section before `__` tells.
fn is_meant(schema: &Schema, name: &str) -> bool {
    let section = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")).map(|(section, _)| section);
    section.is_some_and(|section| !matches!(schema.find(&section.to_ascii_lowercase()), Found::Nothing))
}

fn value(key: &Key, text: &str, place: &Place) -> Value {
    let one = |text: &str| Value::Text(Text::new(text));
    match key.kind {
        _ if text == "null" => key.default_value(),
        Kind::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::List(items.map(|item| Node { place: place.clone(), value: one(item) }).collect())
        }
        _ => one(text),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a failed step is a failed test")]

    use super::*;
    use crate::config::schema::WORKER;

    fn from(pairs: &[(&str, &str)]) -> FromEnvironment {
        read(&WORKER, &pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn lists_are_split_and_scalars_are_not() {
        let read = from(&[("SLUICE_KAFKA__BOOTSTRAP_SERVERS", "a:1, b:2,"), ("SLUICE_WORKER__ID", "a,b")]);
        assert!(read.problems.is_empty() && read.warnings.is_empty());
        let Value::List(items) = &read.root.at("kafka.bootstrap_servers").unwrap().value else { panic!() };
        assert_eq!(
            items.iter().map(|item| &item.value).collect::<Vec<_>>(),
            [&Value::Text(Text::new("a:1")), &Value::Text(Text::new("b:2"))]
        );
        assert_eq!(read.root.at("worker.id").unwrap().value, Value::Text(Text::new("a,b")));
        assert_eq!(read.root.at("worker.id").unwrap().place.to_string(), "environment variable SLUICE_WORKER__ID");
    }

    #[test]
    fn empty_is_not_set_and_null_is_the_default() {
        let read = from(&[("SLUICE_WORKER__ID", ""), ("SLUICE_STATE__URL", "null"), ("SLUICE_LOG__LEVEL", "null")]);
        assert!(read.root.at("worker.id").is_none());
        assert_eq!(read.root.at("state.url").unwrap().value, Value::Null);
        assert_eq!(read.root.at("log.level").unwrap().value, Value::Text(Text::new("info")));
    }

    #[test]
    fn a_mistyped_key_of_a_section_is_a_problem_and_kubernetes_variables_are_nothing() {
        let read = from(&[
            ("SLUICE_SPOOL__MAX_BYTE", "1"),
            ("SLUICE_KAFKA_BOOTSTRAP_SERVERS", "a:1"),
            ("SLUICE_SERVICE_HOST", "10.0.0.1"),
            ("SLUICE_PORT_8083_TCP_ADDR", "10.0.0.1"),
            ("SLUICE_HTTP_TOKEN_FILE", "/run/token"),
        ]);
        assert_eq!(
            read.problems[0].to_string(),
            "environment variable SLUICE_SPOOL__MAX_BYTE: is not a setting; did you mean SLUICE_SPOOL__MAX_BYTES?"
        );
        assert_eq!(
            read.warnings[0].to_string(),
            "environment variable SLUICE_KAFKA_BOOTSTRAP_SERVERS: is not a setting and is ignored; did you mean \
             SLUICE_KAFKA__BOOTSTRAP_SERVERS?"
        );
        assert_eq!((read.problems.len(), read.warnings.len()), (1, 1));
    }

    #[test]
    fn auth_is_a_word_or_a_section_not_both() {
        let read = from(&[("SLUICE_HTTP__AUTH", "none")]);
        assert_eq!(read.root.at("http.auth").unwrap().value, Value::Text(Text::new("none")));
        assert_eq!(from(&[("SLUICE_HTTP__AUTH", "off")]).problems.len(), 1);
        let both = from(&[("SLUICE_HTTP__AUTH", "none"), ("SLUICE_HTTP__AUTH__BASIC_FILE", "/f")]);
        assert!(both.problems[0].message.contains("SLUICE_HTTP__AUTH__BASIC_FILE"));
    }
}
