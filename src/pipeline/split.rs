//! Which lane a record belongs to.
//!
//! Owns: finding the app id of a record; what can't be split.
//! Does not own: time buckets ([`super::event_time`]), open lanes, what becomes of a record that can't be split.
//!
//! Invariant: a pure function of the record and the settings: no clock, load or counter decides it. Whoever changes what it
//! answers for any record must raise [`SPLIT_VERSION`].

use std::borrow::Cow;

use sonic_rs::{JsonType, JsonValueTrait, LazyValue};

use crate::config::{AppIdFrom, ConnectorConfig, MissingAppId};
use crate::record::Record;

/// Part of the settings that shape content: a binary that splits otherwise must not go on with a log of this version.
pub const SPLIT_VERSION: u32 = 1;

/// Longest app id; longer ones can't be split. Kept far above any real id: the key's segment is bounded by hashing.
const MAX_APP_ID_BYTES: usize = 64 * 1024;

/// Whose record it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum App<'a> {
    /// An id as found; its path segment is [`crate::archive::app_id`]'s.
    Id(Cow<'a, [u8]>),
    /// The name for records without an id.
    Missing,
}

/// What a record's app id says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    App(App<'a>),
    /// It can't be split: `on_error` decides.
    Bad {
        why: &'static str,
    },
}

/// Splits the records of one topic.
#[derive(Debug)]
pub struct Splitter {
    from: From,
    missing_is_bad: bool,
}

#[derive(Debug)]
enum From {
    Json { tokens: Vec<String> },
    Header { name: Vec<u8> },
    Key,
    Topic { name: Vec<u8> },
    Regex { pattern: regex::bytes::Regex },
}

impl Splitter {
    pub fn new(connector: &ConnectorConfig, topic: &str) -> Self {
        let from = match &connector.app_id.from {
            AppIdFrom::Json { pointer } => From::Json { tokens: pointer_tokens(pointer) },
            AppIdFrom::Header { name } => From::Header { name: name.clone().into_bytes() },
            AppIdFrom::Key => From::Key,
            AppIdFrom::Topic => From::Topic { name: topic.as_bytes().to_vec() },
            AppIdFrom::Regex { pattern } => From::Regex { pattern: pattern.clone() },
        };
        let missing_is_bad = connector.app_id.missing == MissingAppId::DeadLetter;
        Self { from, missing_is_bad }
    }

    pub fn split<'a>(&'a self, record: &Record<'a>) -> Split<'a> {
        match self.from.find(record) {
            Ok(Some(id)) if id.len() > MAX_APP_ID_BYTES => Split::Bad { why: "the app id is longer than 64 KiB" },
            Ok(Some(id)) if !id.is_empty() => Split::App(App::Id(id)),
            Ok(_) if self.missing_is_bad => Split::Bad { why: "no app id" },
            Ok(_) => Split::App(App::Missing),
            Err(why) => Split::Bad { why },
        }
    }
}

impl From {
    /// `Ok(None)`: there is no id. `Err`: the record is not of the kind that could have one.
    fn find<'a>(&'a self, record: &Record<'a>) -> Result<Option<Cow<'a, [u8]>>, &'static str> {
        match self {
            Self::Json { tokens } => match record.value {
                Some(value) => json_id(value, tokens),
                None => Ok(None),
            },
            Self::Header { name } => {
                let found = record.headers.iter().find(|(key, _)| key == name);
                Ok(found.and_then(|(_, value)| value).map(Cow::Borrowed))
            }
            Self::Key => Ok(record.key.map(Cow::Borrowed)),
            Self::Topic { name } => Ok(Some(Cow::Borrowed(name))),
            Self::Regex { pattern } => {
                let captures = record.value.and_then(|value| pattern.captures(value));
                Ok(captures.and_then(|captures| captures.get(1)).map(|group| Cow::Borrowed(group.as_bytes())))
            }
        }
    }
}

/// RFC 6901: the tokens of a pointer, unescaped. The empty pointer names the whole value.
pub fn pointer_tokens(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

/// The value at a JSON pointer, without parsing what lies beside the path: bytes that are not JSON may be taken for JSON without
/// such a value. `Ok(None)`: nothing there.
///
/// # Errors
/// The bytes on the way to it are not JSON.
pub fn json_at<'a>(json: &'a [u8], tokens: &[String]) -> Result<Option<LazyValue<'a>>, &'static str> {
    let whole: [&str; 0] = [];
    let Some((first, rest)) = tokens.split_first() else { return found(sonic_rs::get_from_slice(json, whole)) };
    let Some(mut value) = step(json, first)? else { return Ok(None) };
    for token in rest {
        // Ranges of the record's own bytes, so that the answer may borrow from it.
        let Cow::Borrowed(raw) = value.as_raw_cow() else { return Ok(None) };
        match step(raw.as_bytes(), token)? {
            Some(inner) => value = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// One token down: a key of an object, or an index of an array.
fn step<'a>(json: &'a [u8], token: &str) -> Result<Option<LazyValue<'a>>, &'static str> {
    let first = json.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        Some(b'{') => found(sonic_rs::get_from_slice(json, [token])),
        Some(b'[') => match token.parse::<usize>() {
            Ok(index) => found(sonic_rs::get_from_slice(json, [index])),
            Err(_) => Ok(None),
        },
        // A scalar has nothing below it, if it is JSON at all.
        Some(_) => {
            let whole: [&str; 0] = [];
            found(sonic_rs::get_from_slice(json, whole)).map(|_| None)
        }
        None => Err("the value is not JSON"),
    }
}

fn found(result: sonic_rs::Result<LazyValue<'_>>) -> Result<Option<LazyValue<'_>>, &'static str> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() || error.is_unmatched_type() => Ok(None),
        Err(_) => Err("the value is not JSON"),
    }
}

fn json_id<'a>(json: &'a [u8], tokens: &[String]) -> Result<Option<Cow<'a, [u8]>>, &'static str> {
    let Some(value) = json_at(json, tokens)? else { return Ok(None) };
    let Cow::Borrowed(raw) = value.as_raw_cow() else { return Ok(None) };
    match value.get_type() {
        JsonType::Null => Ok(None),
        JsonType::String => match raw.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) if !text.contains('\\') => Ok(Some(Cow::Borrowed(text.as_bytes()))),
            _ => match sonic_rs::from_str::<String>(raw) {
                Ok(text) => Ok(Some(Cow::Owned(text.into_bytes()))),
                Err(_) => Err("the app id is not a JSON string"),
            },
        },
        // As written: 7 and 7.0 are two ids.
        JsonType::Number | JsonType::Boolean => Ok(Some(Cow::Borrowed(raw.as_bytes()))),
        JsonType::Object | JsonType::Array => Err("the app id is an object or an array"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(json: &str, pointer: &str) -> Result<Option<String>, &'static str> {
        let found = json_id(json.as_bytes(), &pointer_tokens(pointer))?;
        Ok(found.map(|id| String::from_utf8(id.into_owned()).unwrap()))
    }

    #[test]
    fn ids_by_json_pointer() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(id(r#"{"app_id":"pay","x":1}"#, "/app_id"), some("pay"));
        assert_eq!(id(r#" { "x" : {"app_id":1} , "app_id" : "pay" } "#, "/app_id"), some("pay"));
        assert_eq!(id(r#"{"k":{"labels":[{"app":"a b"}]}}"#, "/k/labels/0/app"), some("a b"));
        assert_eq!(id(r#"{"k":{"0":"zero"}}"#, "/k/0"), some("zero"));
        assert_eq!(id(r#"{"a/b":{"m~n":"x"}}"#, "/a~1b/m~0n"), some("x"));
        assert_eq!(id(r#"{"app_id":"\u00e9\n"}"#, "/app_id"), some("é\n"));
        assert_eq!(id(r#"{"app_id":42}"#, "/app_id"), some("42"));
        assert_eq!(id(r#""whole""#, ""), some("whole"));
        assert_eq!(id(r#"{"app_id":"first","app_id":"second"}"#, "/app_id"), some("first"));
    }

    #[test]
    fn what_has_no_id_is_told_from_what_can_not_have_one() {
        for json in ["{}", r#"{"app_id":null}"#, r#"{"app":1}"#, "[1]", "17", r#""text""#] {
            assert_eq!(id(json, "/app_id"), Ok(None), "{json}");
        }
        for json in ["", "  ", "plain text", "{\"app_id\":", "{\"app_id\":{}}", "{\"app_id\":[1]}"] {
            assert!(id(json, "/app_id").is_err(), "{json}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_an_error_not_a_panic() {
        assert!(json_id(b"{\"app_id\":\"\xff\"}", &pointer_tokens("/app_id")).is_err());
        assert!(json_id(b"\xff\xfe", &pointer_tokens("/app_id")).is_err());
    }
}
