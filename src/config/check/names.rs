//! Rules for names: connectors, topics, key segments, JSON pointers.
//!
//! Owns: what a legal name is, with the reason in words. Does not own: which keys hold names.

/// A connector's or group's name: it becomes part of object keys, Kafka group names and URLs.
///
/// # Errors
/// In words, without the name.
pub fn check_name(name: &str) -> Result<(), String> {
    const MAX_BYTES: usize = 200;
    if name.is_empty() || name.len() > MAX_BYTES {
        return Err(format!("has {} bytes; a name has 1 to {MAX_BYTES}", name.len()));
    }
    if name.starts_with(['_', '.']) {
        return Err("begins with `_` or `.`; such names are reserved".to_owned());
    }
    if !name.chars().all(is_name_char) {
        return Err("holds other than letters, digits, `.`, `_` and `-`".to_owned());
    }
    Ok(())
}

/// A topic's name as Kafka allows it.
///
/// # Errors
/// In words, without the name.
pub fn check_topic(name: &str) -> Result<(), String> {
    const MAX_BYTES: usize = 249;
    if name.is_empty() || name.len() > MAX_BYTES {
        return Err(format!("has {} bytes; a topic's name has 1 to {MAX_BYTES}", name.len()));
    }
    if matches!(name, "." | "..") || !name.chars().all(is_name_char) {
        return Err("is not a topic's name: letters, digits, `.`, `_` and `-`".to_owned());
    }
    Ok(())
}

/// The folder that stands in for an app id: one segment of a key, as it is.
///
/// # Errors
/// In words, without the name.
pub fn check_segment(name: &str) -> Result<(), String> {
    const MAX_BYTES: usize = 100;
    if name.is_empty() || name.len() > MAX_BYTES {
        return Err(format!("has {} bytes; a folder's name has 1 to {MAX_BYTES}", name.len()));
    }
    if name == "_sluice" {
        return Err("is reserved for the tasks' logs".to_owned());
    }
    if name.starts_with('.') || !name.chars().all(is_name_char) {
        return Err("is not one folder's name: letters, digits, `.`, `_` and `-`, not first `.`".to_owned());
    }
    Ok(())
}

fn is_name_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-')
}

/// A JSON pointer (RFC 6901, section 3).
///
/// # Errors
/// In words, without the pointer.
pub fn check_pointer(pointer: &str) -> Result<(), String> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err("is not a JSON pointer: it begins with `/`, like /app_id".to_owned());
    }
    let mut after_tildes = pointer.split('~').skip(1);
    if after_tildes.any(|after| !after.starts_with(['0', '1'])) {
        return Err("is not a JSON pointer: `~` is written ~0 and `/` inside a name ~1".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(check_name("app-logs.2_x"), Ok(()));
        for name in ["", "_x", ".x", "a/b", "a b", "ä", "..", "a\0", &"x".repeat(201)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert_eq!(check_topic("_internal"), Ok(()));
        for name in ["", ".", "..", "a/b", "a~1", &"x".repeat(250)] {
            assert!(check_topic(name).is_err(), "{name}");
        }
        assert_eq!(check_segment("_unknown"), Ok(()));
        for name in ["", "_sluice", ".", "..", ".x", "a/b", "a\\b"] {
            assert!(check_segment(name).is_err(), "{name}");
        }
    }

    #[test]
    fn pointers() {
        for pointer in ["", "/", "/a", "/a/b~0c~1d/", "/a b/é/0"] {
            assert_eq!(check_pointer(pointer), Ok(()), "{pointer}");
        }
        for pointer in ["a", "a/b", "/a~", "/a~2", "/~~0", "#/a", "$.a"] {
            assert!(check_pointer(pointer).is_err(), "{pointer}");
        }
    }
}
