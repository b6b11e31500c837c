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

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a failed step is a failed test")]

    use std::path::Path;

    use super::*;
    use crate::config::problem::Place;
    use crate::config::tree::Text;

    fn expanded(text: &str) -> Result<Text, String> {
        let environment = [("HOME_1", "/home"), ("_", "${HOME_1}"), ("EMPTY", "")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut node = Node { place: Place::file(Path::new("f")), value: Value::Text(Text::new(text)) };
        let mut problems = Vec::new();
        expand(&mut node, &environment, "k", &mut problems);
        match (node.value, problems.pop()) {
            (Value::Text(text), None) => Ok(text),
            (Value::Null, Some(problem)) => Err(problem.to_string()),
            other => panic!("{other:?}"),
        }
    }

    fn text(text: &str) -> String {
        expanded(text).unwrap().text
    }

    #[test]
    fn puts_variables_in_once() {
        assert_eq!(text("${HOME_1}/a"), "/home/a");
        assert_eq!(text("a${HOME_1}${EMPTY}b"), "a/homeb");
        assert_eq!(text("${_}"), "${HOME_1}");
        assert_eq!(text("plain"), "plain");
    }

    #[test]
    fn dollars_of_patterns_stay_and_double_ones_escape() {
        assert_eq!(text("^app-.*$"), "^app-.*$");
        assert_eq!(text("a$b$1"), "a$b$1");
        assert_eq!(text("$${HOME_1}"), "${HOME_1}");
        assert_eq!(text("$$$$"), "$$");
    }

    #[test]
    fn what_is_missing_or_damaged_is_told() {
        assert_eq!(
            expanded("${NO}").unwrap_err(),
            "f: k: environment variable NO is not set; write `$$` for a plain `$`"
        );
        assert!(expanded("${HOME_1").unwrap_err().contains("has no `}`"));
        for text in ["${}", "${a-b}", "${1a}", "${HOME_1:-x}"] {
            assert!(expanded(text).unwrap_err().contains("is not a variable's name"), "{text}");
        }
    }

    #[test]
    fn what_came_from_a_variable_is_shown_as_written() {
        assert_eq!(expanded("x${HOME_1}").unwrap().shown(), "`x${HOME_1}`");
        assert_eq!(expanded("x$$").unwrap().shown(), "`x$`");
    }
}
