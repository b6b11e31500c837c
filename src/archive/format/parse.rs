//! Reading json lines back.
//!
//! Owns: what a line may look like. Does not own: where lines end in a file.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::base64;

/// A record as a line of a json file tells it, without the topic, which is the file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the Unix epoch, as Kafka gave it; may be -1.
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Name and value in Kafka's order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// The line was not written by [`super::write_record`]: the file is damaged, or of another origin.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("not a record's line: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the record's {0} is missing, given twice, or neither text, base64 nor null")]
    Field(&'static str),
    #[error("header {0} is not of the form [name, value], [name, null, base64] or [null, value, base64, base64]")]
    Header(usize),
}

#[derive(Deserialize)]
struct Line<'a> {
    partition: i32,
    offset: i64,
    timestamp: i64,
    #[serde(borrow, default, deserialize_with = "present")]
    key: Option<&'a RawValue>,
    key_base64: Option<String>,
    headers: Vec<Vec<Option<String>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    value_base64: Option<String>,
}

/// Tells a null from a field that is absent.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads one line of a json file back to the byte, with or without the newline at its end.
///
/// # Errors
/// The line is not one that [`super::write_record`] gives.
pub fn parse_json_line(line: &[u8]) -> Result<OwnedRecord, ParseError> {
    let line: Line<'_> = serde_json::from_slice(line)?;
    let headers =
        line.headers.iter().enumerate().map(|(index, header)| parse_header(header).ok_or(ParseError::Header(index)));
    Ok(OwnedRecord {
        partition: line.partition,
        offset: line.offset,
        timestamp_ms: line.timestamp,
        key: field("key", line.key, line.key_base64.as_deref(), false)?,
        value: field("value", line.value, line.value_base64.as_deref(), true)?,
        headers: headers.collect::<Result<_, _>>()?,
    })
}

fn field(
    name: &'static str,
    plain: Option<&RawValue>,
    encoded: Option<&str>,
    embedded: bool,
) -> Result<Option<Vec<u8>>, ParseError> {
    match (plain.map(RawValue::get), encoded) {
        (None, Some(encoded)) => base64::decode(encoded).map(Some).ok_or(ParseError::Field(name)),
        (Some("null"), None) => Ok(None),
        (Some(text), None) if text.starts_with('"') => Ok(Some(serde_json::from_str::<String>(text)?.into_bytes())),
        (Some(text), None) if embedded && text.starts_with(['{', '[']) => Ok(Some(text.as_bytes().to_vec())),
        _ => Err(ParseError::Field(name)),
    }
}

fn parse_header(header: &[Option<String>]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    Some(match header {
        [Some(name), value] => (text(name), value.as_deref().map(text)),
        [Some(name), None, Some(value)] => (text(name), Some(base64::decode(value)?)),
        [None, value, None, Some(name)] => (base64::decode(name)?, value.as_deref().map(text)),
        [None, None, Some(value), Some(name)] => (base64::decode(name)?, Some(base64::decode(value)?)),
        _ => return None,
    })
}
