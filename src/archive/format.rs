//! How a record becomes bytes of a file.
//!
//! Owns: the two formats, writing a record, reading a json line back.
//! Does not own: compression and frames, the index that tells raw records apart ([`super::frame`]).
//!
//! A json line:
//! `{"topic":"t","partition":0,"offset":42,"timestamp":1795317125000,"key":"k","headers":[["h","v"]],"value":{"a":1}}`
//!
//! - value: a JSON object or array that fits on a line is embedded as it is ([`json::is_embeddable`]); other text is a string.
//! - value and key: null is null; bytes that are not UTF-8 are `value_base64` or `key_base64`, and `value` or `key` is absent.
//! - header: `[name, value]`, `[name, null]` for null, `[name, null, base64]` for a value that is not UTF-8. A name that is
//!   not UTF-8 is null and follows as base64 in the fourth place, after the value's base64 or null: `[null, value, null, name]`.

mod base64;
mod json;
mod parse;

use std::io::Write;

pub use parse::{OwnedRecord, ParseError, parse_json_line};

use crate::record::{Headers, Record};

/// How a record becomes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The value and a newline. Null gives just the newline; keys and headers are lost.
    Raw,
    /// One JSON object a line, reversible to the byte.
    Json,
}

/// Appends a record with the newline that ends it. Allocates nothing but what `out` needs to grow.
pub fn write_record(format: Format, topic: &str, record: &Record<'_>, out: &mut Vec<u8>) {
    match format {
        Format::Raw => out.extend_from_slice(record.value.unwrap_or_default()),
        Format::Json => write_json(topic, record, out),
    }
    out.push(b'\n');
}

fn write_json(topic: &str, record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":");
    json::write_string(topic, out);
    let Record { partition, offset, timestamp_ms, .. } = record;
    // Writing to a vector does not fail.
    let _ = write!(out, ",\"partition\":{partition},\"offset\":{offset},\"timestamp\":{timestamp_ms},");
    match record.key.map(std::str::from_utf8) {
        None => out.extend_from_slice(b"\"key\":null"),
        Some(Ok(text)) => {
            out.extend_from_slice(b"\"key\":");
            json::write_string(text, out);
        }
        Some(Err(_)) => {
            out.extend_from_slice(b"\"key_base64\":");
            write_base64(record.key, out);
        }
    }
    out.extend_from_slice(b",\"headers\":");
    write_headers(record.headers, out);
    match record.value.map(std::str::from_utf8) {
        None => out.extend_from_slice(b",\"value\":null"),
        Some(Ok(text)) => {
            out.extend_from_slice(b",\"value\":");
            if json::is_embeddable(text) {
                out.extend_from_slice(text.as_bytes());
            } else {
                json::write_string(text, out);
            }
        }
        Some(Err(_)) => {
            out.extend_from_slice(b",\"value_base64\":");
            write_base64(record.value, out);
        }
    }
    out.push(b'}');
}

fn write_headers(headers: Headers<'_>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, (name, value)) in headers.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"[" } else { b",[" });
        let name_text = std::str::from_utf8(name).ok();
        let value_text = value.and_then(|value| std::str::from_utf8(value).ok());
        write_text(name_text, out);
        out.push(b',');
        write_text(value_text, out);
        let value_bytes = value.filter(|_| value_text.is_none());
        if value_bytes.is_some() || name_text.is_none() {
            out.push(b',');
            write_base64(value_bytes, out);
        }
        if name_text.is_none() {
            out.push(b',');
            write_base64(Some(name), out);
        }
        out.push(b']');
    }
    out.push(b']');
}

fn write_text(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => json::write_string(text, out),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_base64(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(bytes) = bytes else { return out.extend_from_slice(b"null") };
    out.push(b'"');
    base64::encode(bytes, out);
    out.push(b'"');
}

#[cfg(test)]
mod tests;
