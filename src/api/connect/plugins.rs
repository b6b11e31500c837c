//! The one plugin there is, its keys, and the check of a configuration.
//!
//! Owns: Kafka Connect's shapes of keys and problems. Does not own: the keys ([`crate::config::schema`]), the checks.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use super::body::{self, Body};
use super::{Answer, Failure, Of};
use crate::config::flat::{CLASS, CLASS_KEY, FlatConfig, own_key, without_password};
use crate::config::schema::{CONNECTOR, Key, Kind};
use crate::version::VERSION;

pub(super) async fn list() -> Json<Value> {
    Json(json!([{ "class": CLASS, "type": "sink", "version": VERSION }]))
}

fn known(plugin: &str) -> Result<(), Failure> {
    let name = plugin.rsplit('.').next().unwrap_or_default();
    if name == CLASS || name.eq_ignore_ascii_case("sluice") || name.eq_ignore_ascii_case("SluiceSink") {
        return Ok(());
    }
    Err(Failure(StatusCode::NOT_FOUND, format!("there is no plugin {plugin}; there is {CLASS} alone")))
}

pub(super) async fn keys(Path(plugin): Path<String>) -> Answer {
    known(&plugin)?;
    let keys: Vec<Value> = CONNECTOR.keys.iter().enumerate().map(|(order, key)| definition(key, order)).collect();
    Ok(Json(keys).into_response())
}

pub(super) async fn validate(State(rest): Of, Path(plugin): Path<String>, body: Body) -> Answer {
    known(&plugin)?;
    let connectors = rest.connectors()?;
    let flat = body::flat(body.read()?)?;
    let name = flat.get("name").cloned().unwrap_or_default();
    let errors = match connectors.check(&name, &flat) {
        Ok(()) => BTreeMap::new(),
        Err(problems) => {
            let mut errors: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for problem in problems.0 {
                // A list's item is told by its number.
                let key = problem.key.split('[').next().unwrap_or_default().to_owned();
                errors.entry(if key.is_empty() { "name".to_owned() } else { key }).or_default().push(problem.message);
            }
            errors
        }
    };
    Ok(Json(validated(&flat, &errors)).into_response())
}

fn validated(flat: &FlatConfig, errors: &BTreeMap<String, Vec<String>>) -> Value {
    let given: BTreeMap<&str, &String> = flat.iter().map(|(key, value)| (own_key(key), value)).collect();
    let of = |name: &str, definition: Value, default: Option<&str>| {
        let value = given.get(name).map(|value| without_password(value)).or_else(|| default.map(str::to_owned));
        json!({
            "definition": definition,
            "value": {
                "name": name,
                "value": value,
                "recommended_values": [],
                "errors": errors.get(name).cloned().unwrap_or_default(),
                "visible": true,
            },
        })
    };
    let mut configs: Vec<Value> = CONNECTOR
        .keys
        .iter()
        .enumerate()
        .map(|(order, key)| of(key.path, definition(key, order), key.default.filter(|default| *default != "null")))
        .collect();
    // Keys that are none, and free keys of a map.
    for name in errors.keys().filter(|name| CONNECTOR.key(name).is_none()) {
        configs.push(of(name, unknown(name), None));
    }
    let groups: Vec<&str> = CONNECTOR.below("").collect();
    json!({ "name": CLASS, "error_count": errors.len(), "groups": groups, "configs": configs })
}

fn definition(key: &Key, order: usize) -> Value {
    let documentation = if key.cost.is_empty() {
        key.doc.to_owned()
    } else {
        format!("{}. {}", key.doc.trim_end_matches('.'), key.cost)
    };
    let required = key.default.is_none();
    json!({
        "name": key.path,
        "type": kind(&key.kind),
        "required": required,
        "default_value": key.default.filter(|default| *default != "null"),
        "importance": if required { "HIGH" } else { "MEDIUM" },
        "documentation": documentation,
        "group": key.path.split('.').next(),
        "width": "MEDIUM",
        "display_name": key.path,
        "dependents": [],
        "order": order,
    })
}

fn unknown(name: &str) -> Value {
    let documentation = if name == CLASS_KEY { "the class of the connector" } else { "not a key of this connector" };
    json!({
        "name": name,
        "type": "STRING",
        "required": false,
        "default_value": null,
        "importance": "LOW",
        "documentation": documentation,
        "group": null,
        "width": "NONE",
        "display_name": name,
        "dependents": [],
        "order": -1,
    })
}

/// Connect's types.
fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "BOOLEAN",
        Kind::Integer { .. } => "LONG",
        Kind::List => "LIST",
        Kind::Text
        | Kind::Path
        | Kind::Url
        | Kind::Bytes { .. }
        | Kind::Duration { .. }
        | Kind::Choice(_)
        | Kind::Map
        | Kind::SectionOr(_) => "STRING",
    }
}
