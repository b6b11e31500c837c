use proptest::prelude::*;

use super::*;
use crate::record::write_header;

type Header = (Vec<u8>, Option<Vec<u8>>);

fn encoded(headers: &[Header]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        write_header(&mut bytes, name, value.as_deref());
    }
    bytes
}

fn written(format: Format, topic: &str, record: &OwnedRecord) -> Vec<u8> {
    let headers = encoded(&record.headers);
    let record = Record {
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: Headers::new(record.headers.len() as u32, &headers),
    };
    let mut out = b"before".to_vec();
    write_record(format, topic, &record, &mut out);
    assert!(out.starts_with(b"before"));
    out.split_off(6)
}

fn record(key: Option<&[u8]>, value: Option<&[u8]>) -> OwnedRecord {
    OwnedRecord {
        partition: 3,
        offset: 42,
        timestamp_ms: -1,
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: Vec::new(),
    }
}

fn json_line(record: &OwnedRecord) -> String {
    String::from_utf8(written(Format::Json, "applogs", record)).unwrap()
}

/// Key and value, and what follows [`START`].
type Case = (Option<&'static [u8]>, Option<&'static [u8]>, &'static str);

const START: &str = r#"{"topic":"applogs","partition":3,"offset":42,"timestamp":-1,"#;

#[test]
fn raw_is_the_value_and_a_newline() {
    assert_eq!(written(Format::Raw, "t", &record(Some(b"k"), Some(b"a\nb\xff"))), b"a\nb\xff\n");
    assert_eq!(written(Format::Raw, "t", &record(Some(b"k"), Some(b""))), b"\n");
    assert_eq!(written(Format::Raw, "t", &record(Some(b"k"), None)), b"\n");
}

#[test]
fn json_lines() {
    let cases: [Case; 8] = [
        (None, None, r#""key":null,"headers":[],"value":null}"#),
        (Some(b""), Some(b""), r#""key":"","headers":[],"value":""}"#),
        (Some(b"{}"), Some(b"{\"a\": [1]}"), r#""key":"{}","headers":[],"value":{"a": [1]}}"#),
        (Some(b"k\"\\"), Some(b"null"), r#""key":"k\"\\","headers":[],"value":"null"}"#),
        (Some(b"\xff"), Some(b"{\"a\":\n1}"), r#""key_base64":"/w==","headers":[],"value":"{\"a\":\n1}"}"#),
        (None, Some(b"\x00\xfe\xff"), r#""key":null,"headers":[],"value_base64":"AP7/"}"#),
        (None, Some(b"{\"a\":1} "), r#""key":null,"headers":[],"value":"{\"a\":1} "}"#),
        (
            None,
            Some("\u{1}é\u{2028}\t\r".as_bytes()),
            "\"key\":null,\"headers\":[],\"value\":\"\\u0001é\u{2028}\\t\\r\"}",
        ),
    ];
    for (key, value, rest) in cases {
        let record = record(key, value);
        assert_eq!(json_line(&record), format!("{START}{rest}\n"));
        assert_eq!(parse_json_line(json_line(&record).as_bytes()).unwrap(), record);
    }
}

#[test]
fn headers_of_every_kind() {
    let text = || b"v".to_vec();
    let record = OwnedRecord {
        headers: vec![
            (b"h".to_vec(), Some(text())),
            (b"h".to_vec(), None),
            (b"".to_vec(), Some(b"\xff".to_vec())),
            (b"\xfe".to_vec(), Some(text())),
            (b"\xfe".to_vec(), None),
            (b"\xfe".to_vec(), Some(b"\xff".to_vec())),
        ],
        ..record(None, None)
    };
    let line = json_line(&record);
    let headers = concat!(
        r#""headers":[["h","v"],["h",null],["",null,"/w=="],[null,"v",null,"/g=="],[null,null,null,"/g=="],"#,
        r#"[null,null,"/w==","/g=="]],"#
    );
    assert!(line.contains(headers), "{line}");
    assert_eq!(parse_json_line(line.as_bytes()).unwrap(), record);
}

#[test]
fn topics_are_escaped_too() {
    let line = written(Format::Json, "a\"\n", &record(None, None));
    assert!(line.starts_with(br#"{"topic":"a\"\n","#));
}

#[test]
fn lines_of_another_origin_are_errors() {
    let with = |rest: &str| format!("{START}{rest}}}");
    for line in [
        String::new(),
        "{}".to_owned(),
        "[1]".to_owned(),
        with(r#""key":null,"headers":[]"#),
        with(r#""headers":[],"value":null"#),
        with(r#""key":null,"key_base64":"","headers":[],"value":null"#),
        with(r#""key":null,"headers":[],"value":null,"value_base64":"AA==""#),
        with(r#""key":null,"headers":[],"value_base64":"A""#),
        with(r#""key":null,"headers":[],"value_base64":null"#),
        with(r#""key":{},"headers":[],"value":null"#),
        with(r#""key":null,"headers":[],"value":1"#),
        with(r#""key":null,"headers":[],"value":{"a"}"#),
        with(r#""key":null,"headers":[[]],"value":null"#),
        with(r#""key":null,"headers":[["h"]],"value":null"#),
        with(r#""key":null,"headers":[["h","v","AA=="]],"value":null"#),
        with(r#""key":null,"headers":[["h",null,"A"]],"value":null"#),
        with(r#""key":null,"headers":[[null,"v","AA==","AA=="]],"value":null"#),
        with(r#""key":null,"headers":[],"value":null"#) + "x",
    ] {
        assert!(parse_json_line(line.as_bytes()).is_err(), "{line}");
    }
    assert!(parse_json_line(with(r#""key":null,"headers":[],"value":null"#).as_bytes()).is_ok());
}

#[test]
fn the_deepest_embedded_value_is_read_back() {
    for depth in [127, 128, 129, 100_000] {
        let value = "[".repeat(depth) + &"]".repeat(depth);
        let record = record(None, Some(value.as_bytes()));
        let line = json_line(&record);
        assert_eq!(line.contains("\"value\":[["), depth <= 128);
        assert_eq!(parse_json_line(line.as_bytes()).unwrap(), record);
    }
}

/// Bytes of every kind: text with what needs care, JSON whole and broken, not text at all.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let json = "[\\[{\\]},:\"\\\\ \t\r\na0-]{0,12}";
    let document = "[\\[{][ \t\n]?(\"a\": ?)?(\\{\\}|\\[\\]|\"(\\\\u[d0][89c0]00|\\\\n|é)*\"|-?[0-9.e+]{1,3}|null)[ \n]?[\\]}][ \n]?";
    prop_oneof![
        any::<String>().prop_map(String::into_bytes),
        json.prop_map(String::into_bytes),
        document.prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn any_record() -> impl Strategy<Value = OwnedRecord> {
    let option = || proptest::option::of(bytes());
    let headers = proptest::collection::vec((bytes(), option()), 0..4);
    (any::<i32>(), any::<i64>(), any::<i64>(), option(), option(), headers).prop_map(
        |(partition, offset, timestamp_ms, key, value, headers)| OwnedRecord {
            partition,
            offset,
            timestamp_ms,
            key,
            value,
            headers,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn json_is_reversible_to_the_byte(topic: String, record in any_record()) {
        let line = written(Format::Json, &topic, &record);
        prop_assert!(std::str::from_utf8(&line).is_ok());
        let newlines = line.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
        prop_assert_eq!((newlines, line.last()), (1, Some(&b'\n')));
        prop_assert_eq!(&parse_json_line(&line).unwrap(), &record);
        // Any reader of JSON takes the line, not just ours.
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(value["topic"].as_str(), Some(topic.as_str()));
        prop_assert_eq!(value["offset"].as_i64(), Some(record.offset));
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(line: Vec<u8>) {
        let _ = parse_json_line(&line);
    }
}
