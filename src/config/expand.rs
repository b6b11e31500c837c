//! `${NAME}` in scalars.
//!
//! Owns: the notation. Does not own: which variables there are (an argument).

use std::collections::BTreeMap;

use super::problem::Problem;
use super::tree::{Node, Value};

/// The environment, as far as it is UTF-8.
pub type Environment = BTreeMap<String, String>;

/// Puts variables into all scalars of a tree. `${NAME}` is the variable, `$$` is `$`; any other `$` stays as it is, regular
/// expressions end in one. What comes in is not looked at again, and never printed. A scalar with a problem is left as
/// `null`.
pub fn expand(node: &mut Node, environment: &Environment, path: &str, problems: &mut Vec<Problem>) {
    match &mut node.value {
        Value::Null => {}
        Value::Text(text) => match expand_text(&text.text, environment) {
            Ok(Expanded { value, has_variable }) => {
                let written = std::mem::replace(&mut text.text, value);
                text.written = has_variable.then_some(written);
            }
            Err(message) => {
                problems.push(Problem::new(node.place.clone(), path, message));
                node.value = Value::Null;
            }
        },
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, environment, &format!("{path}[{index}]"), problems);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let below = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                expand(&mut entry.node, environment, &below, problems);
            }
        }
    }
}

struct Expanded {
    value: String,
    has_variable: bool,
}

fn expand_text(text: &str, environment: &Environment) -> Result<Expanded, String> {
    let mut value = String::with_capacity(text.len());
    let mut has_variable = false;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        value.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            value.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (name, after) = after.split_once('}').ok_or("`${` has no `}`; write `$$` for a plain `$`")?;
            if !is_name(name) {
                let name: String = name.chars().take(40).flat_map(char::escape_debug).collect();
                return Err(format!("`${{{name}}}` is not a variable's name; write `$$` for a plain `$`"));
            }
            let variable = environment
                .get(name)
                .ok_or_else(|| format!("environment variable {name} is not set; write `$$` for a plain `$`"))?;
            value.push_str(variable);
            has_variable = true;
            rest = after;
        } else {
            value.push('$');
            rest = after;
        }
    }
    value.push_str(rest);
    Ok(Expanded { value, has_variable })
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|char| char.is_ascii_alphanumeric() || char == '_')
}
