//! From raw settings to checked ones, a room for each part.
//!
//! Owns: what every check needs to say what is wrong. Does not own: single values (the reader's).

use super::reader::Reader;

pub mod connector;
pub mod cross;
mod http;
mod kafka;
pub mod names;
mod record;
pub mod sink;
mod topics;
pub mod worker;

/// Reports what a rule says of a value; true: it is legal.
fn check(raw: &mut Reader<'_>, path: &str, value: &str, rule: impl FnOnce(&str) -> Result<(), String>) -> bool {
    match rule(value) {
        Ok(()) => true,
        Err(message) => {
            let shown = raw.shown(path);
            raw.problem(path, format!("{shown} {message}"));
            false
        }
    }
}

/// Reports one of two keys that make sense only together.
fn together(raw: &mut Reader<'_>, first: &str, second: &str) {
    for (set, missing) in [(first, second), (second, first)] {
        if raw.is_set(set) && !raw.is_set(missing) {
            raw.problem(set, format!("needs {missing} too"));
        }
    }
}

/// Regular expressions of settings compile to at most this much.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// A regex error draws the pattern over several lines; the last one says what is wrong.
fn regex_error(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next_back().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
