//! Raw settings: a tree in which every key and value knows where it was written.
//!
//! Owns: the tree, how a value is shown in messages. Does not own: what the settings mean; scalars stay text until a key's
//! kind says what they are, so that `topics: [2024]` and `topics: ["2024"]` are the same.

use super::SecretUrl;
use super::problem::Place;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Text(Text),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

/// A scalar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    /// As written, where variables were put in: what messages show, since a variable may hold a secret.
    pub written: Option<String>,
}

impl Text {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), written: None }
    }

    /// The value for a message: quoted, shortened, without control characters, passwords of URLs left out.
    pub fn shown(&self) -> String {
        show(self.written.as_deref().unwrap_or(&self.text))
    }
}

/// See [`Text::shown`].
pub fn show(text: &str) -> String {
    const MAX_CHARS: usize = 100;
    let safe = if text.contains('@') { SecretUrl::new(text.to_owned()).to_string() } else { text.to_owned() };
    let mut shown = String::new();
    for char in safe.chars().take(MAX_CHARS) {
        match char {
            // A pattern is shown as it was written.
            '\\' | '\'' | '"' => shown.push(char),
            _ => shown.extend(char.escape_debug()),
        }
    }
    if safe.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

impl Node {
    /// The value below a path with dots; keys that hold dots themselves can't be reached.
    pub fn at(&self, path: &str) -> Option<&Node> {
        path.split('.').try_fold(self, |node, key| match &node.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            Value::Null | Value::Text(_) | Value::List(_) => None,
        })
    }

    /// Puts a value at a path with dots, making the maps on the way; a value in the way is replaced.
    pub fn put(&mut self, path: &str, place: &Place, node: Node) {
        let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
        let mut entries = match std::mem::replace(&mut self.value, Value::Null) {
            Value::Map(entries) => entries,
            Value::Null | Value::Text(_) | Value::List(_) => Vec::new(),
        };
        let index = entries.iter().position(|entry| entry.key == key).unwrap_or(entries.len());
        if index == entries.len() {
            let node = Node { place: place.clone(), value: Value::Null };
            entries.push(Entry { key: key.to_owned(), key_place: place.clone(), node });
        }
        if let Some(entry) = entries.get_mut(index) {
            match rest {
                Some(rest) => entry.node.put(rest, place, node),
                None => entry.node = node,
            }
        }
        self.value = Value::Map(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_safely() {
        assert_eq!(show(r#"^a\d"'$"#), r#"`^a\d"'$`"#);
        assert_eq!(show("a\u{1b}[31m\n\u{202e}"), r"`a\u{1b}[31m\n\u{202e}`");
        assert_eq!(show("redis://u:secret@h"), "`redis://***@h`");
        assert_eq!(show(&"ä".repeat(200)), format!("`{}…`", "ä".repeat(100)));
    }

    #[test]
    fn put_replaces_what_is_in_the_way() {
        let place = Place::Variable("X".to_owned());
        let node = |value| Node { place: place.clone(), value };
        let mut root = node(Value::Map(Vec::new()));
        root.put("a", &place, node(Value::Text(Text::new("1"))));
        root.put("a.b", &place, node(Value::Null));
        root.put("a.c", &place, node(Value::Text(Text::new("2"))));
        assert_eq!(root.at("a.b").map(|node| &node.value), Some(&Value::Null));
        assert_eq!(root.at("a.c").map(|node| &node.value), Some(&Value::Text(Text::new("2"))));
        assert_eq!(root.at("a.d"), None);
        assert_eq!(root.at("a.c.d"), None);
    }
}
