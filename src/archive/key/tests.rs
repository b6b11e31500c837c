use std::collections::HashMap;

use jiff::civil::date;
use proptest::prelude::*;

use super::super::app_id::path_segment;
use super::*;

fn fields() -> KeyFields<'static> {
    KeyFields {
        app_segment: "payments",
        topic: "applogs",
        incarnation: 0,
        connector: "app-logs",
        partition: 3,
        offset: 1042,
        opened_at: date(2026, 11, 22).at(3, 12, 5, 999_999_999),
        bucket_start: None,
        ext: "log.lz4",
    }
}

fn parse(text: &str) -> KeyTemplate {
    KeyTemplate::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    KeyTemplate::parse(text).unwrap_err().to_string()
}

#[test]
fn the_default_key() {
    let template = KeyTemplate::default();
    assert_eq!(template, parse(DEFAULT));
    assert_eq!(template.to_string(), DEFAULT);
    assert_eq!(template.render(&fields()), "payments/2026-11-22/031205_applogs+00003+00000000000000001042.log.lz4");
}

#[test]
fn every_field() {
    let template = parse(
        "app={app_id}/{connector}/{year}/{month}/{day}/{hour}/{date}/{time}/{topic}/{partition}/{offset}/{ext}/a{app_id}",
    );
    assert_eq!(
        template.render(&fields()),
        "app=payments/app-logs/2026/11/22/03/2026-11-22/031205/applogs/00003/00000000000000001042/log.lz4/apayments"
    );
}

#[test]
fn the_bucket_gives_the_date_and_the_first_record_the_time() {
    let template = parse("{app_id}/{date}/{year}/{month}/{day}/{hour}/{time}_{topic}+{partition}+{offset}");
    let bucketed = KeyFields { bucket_start: Some(date(2025, 1, 2).at(7, 0, 0, 0)), ..fields() };
    assert_eq!(
        template.render(&bucketed),
        "payments/2025-01-02/2025/01/02/07/031205_applogs+00003+00000000000000001042"
    );
}

#[test]
fn a_topic_made_again_has_keys_of_its_own() {
    let again = KeyFields { incarnation: 2, ..fields() };
    assert_eq!(
        KeyTemplate::default().render(&again),
        "payments/2026-11-22/031205_applogs~2+00003+00000000000000001042.log.lz4"
    );
}

#[test]
fn the_largest_numbers_keep_the_order_of_names() {
    let last = KeyFields { partition: i32::MAX, offset: i64::MAX, ..fields() };
    let template = parse("{app_id}/{topic}+{partition}+{offset}");
    assert_eq!(template.render(&last), "payments/applogs+2147483647+09223372036854775807");
}

#[test]
fn what_a_template_may_not_be() {
    const REST: &str = "{topic}+{partition}+{offset}";
    let cases = [
        ("{app_id}/{date}/{topic}+{partition}.{ext}".to_owned(), "must keep {offset}"),
        (REST.to_owned(), "must keep {app_id}"),
        (String::new(), "must keep {app_id}"),
        (format!("{{app_id}}/{{dat}}/{REST}"), "unknown field {dat}; did you mean {date}?"),
        (format!("{{app_id}}/{{zzzzzz}}/{REST}"), "unknown field {zzzzzz}; there are {app_id} {topic}"),
        (format!("{{app_id}}/{{}}/{REST}"), "unknown field {}"),
        (format!("{{app_id}}/{{ date }}/{REST}"), "did you mean {date}?"),
        (format!("{{app_id}}/{REST}{{"), "`{` without"),
        (format!("{{app_id}}/{REST}}}"), "`}` without"),
        (format!("{{{{app_id}}}}/{REST}"), "`{` without"),
        (format!("/{{app_id}}/{REST}"), "begin or end with `/`"),
        (format!("{{app_id}}/{REST}/"), "begin or end with `/`"),
        (format!("{{app_id}}//{REST}"), "empty segment"),
        (format!("../{{app_id}}/{REST}"), "segment `..`"),
        (format!("{{app_id}}/./{REST}"), "segment `.`"),
        (format!("_sluice/{{app_id}}/{REST}"), "`_sluice`"),
        (format!("_sluice{{app_id}}/{REST}"), "`_sluice`"),
        (format!("{{app_id}}\\{REST}"), "'\\\\'"),
        (format!("{{app_id}}/\n{REST}"), "'\\n'"),
        (format!("{{app_id}}/\u{85}{REST}"), "'\\u{85}'"),
        (format!("{}/{{app_id}}/{REST}", "a".repeat(MAX_BYTES)), "bytes long, the limit is 512"),
        ("{app_id}/{topic}+{partition}{offset}".to_owned(), "between {partition} and {offset}"),
        ("{app_id}/{topic}+{partition}x0{offset}".to_owned(), "between {partition} and {offset}"),
        ("{app_id}/{topic}+{partition}é{offset}".to_owned(), "between {partition} and {offset}"),
        ("{app_id}{topic}/{partition}/{offset}".to_owned(), "between {app_id} and {topic}"),
        ("{app_id}-{topic}/{partition}/{offset}".to_owned(), "between {app_id} and {topic} that neither"),
        ("{topic}_{hour}%~.{app_id}/{partition}/{offset}".to_owned(), "between {topic} and {app_id} that neither"),
    ];
    for (text, expected) in cases {
        let error = error(&text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn templates_that_people_write() {
    for text in [
        "app_id={app_id}/dt={date}/{topic}-{partition}-{offset}.{ext}",
        "{topic}/{app_id}/{year}/{month}/{day}/{hour}/{partition}_{offset}.{ext}",
        "logs/{app_id}/{connector}/{topic}/{topic}+{partition}+{offset}.{ext}",
        "{date}/{app_id}+{topic}.{partition}.{offset}",
        "{app_id}/.hidden/..x/_x/_sluice/{topic}.{partition}.{offset}",
    ] {
        assert_eq!(parse(text).to_string(), text);
    }
}

#[test]
fn prefixes_for_listing() {
    let cases = [
        (DEFAULT, Some("payments/")),
        ("app_id={app_id}/dt={date}/{topic}+{partition}+{offset}", Some("app_id=payments/dt=")),
        ("logs/{date}/{app_id}/{topic}+{partition}+{offset}", Some("logs/")),
        ("{app_id}+{topic}/{partition}/{offset}", Some("payments+")),
        ("{date}/{app_id}/{topic}+{partition}+{offset}", None),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).listing_prefix("payments").as_deref(), expected, "{text}");
    }
}

#[test]
fn extensions() {
    assert_eq!(extension(Format::Raw, Codec::Lz4), "log.lz4");
    assert_eq!(extension(Format::Raw, Codec::None), "log");
    assert_eq!(extension(Format::Json, Codec::Zstd), "jsonl.zst");
    assert_eq!(extension(Format::Json, Codec::Gzip), "jsonl.gz");
    assert_eq!(extension(Format::Json, Codec::None), "jsonl");
}

/// The identity of a file within a connector.
type Place = (Vec<u8>, String, u32, i32, i64);

/// Few values, made of the very text that separates fields, so that different places often look alike.
fn place() -> impl Strategy<Value = Place> {
    let id = prop_oneof!["[a0_.+/-]{0,4}", "a-[0-9]{5}", "[a-z]-00000-a"].prop_map(String::into_bytes);
    let topic = prop_oneof!["[a0_.-]{1,4}", "a-[0-9]{5}", "a-00000-a", "[0-9]{5}"];
    let partition = prop_oneof![0..3i32, 99_999..100_002i32, Just(i32::MAX)];
    let offset = prop_oneof![0..3i64, Just(i64::MAX)];
    (id, topic, 0..2u32, partition, offset)
}

fn template() -> impl Strategy<Value = String> {
    let separator = prop_oneof!["[-_.+/=~%]", "[-_.+=0a]{1,3}"];
    let names =
        Just(vec!["app_id", "topic", "partition", "offset", "hour", "ext", "topic", "partition"]).prop_shuffle();
    (names, 4..8usize, proptest::collection::vec(separator, 8)).prop_map(|(names, count, separators)| {
        let fields = names.iter().zip(&separators).take(count);
        fields.map(|(name, separator)| format!("{{{name}}}{separator}")).collect::<String>() + "x"
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 1_000_000, ..ProptestConfig::default() })]

    #[test]
    fn files_have_keys_of_their_own(
        text in template().prop_filter("refused", |text| KeyTemplate::parse(text).is_ok()),
        places in proptest::collection::vec((place(), 0..3i8), 2..60),
    ) {
        let template = parse(&text);
        let mut seen: HashMap<String, &Place> = HashMap::new();
        for (place, hour) in &places {
            let (id, topic, incarnation, partition, offset) = place;
            let key = template.render(&KeyFields {
                app_segment: &path_segment(id),
                topic,
                incarnation: *incarnation,
                partition: *partition,
                offset: *offset,
                opened_at: date(2026, 11, 22).at(*hour, 0, 0, 0),
                ..fields()
            });
            if let Some(other) = seen.insert(key.clone(), place) {
                prop_assert_eq!(other, place, "{} gives {}", text, key);
            }
        }
    }

    #[test]
    fn any_text_is_a_template_or_an_error(text in "([{}/._+a]|\\{(app_id|topic|partition|offset)\\}|\\PC){0,20}") {
        match KeyTemplate::parse(&text) {
            Ok(template) => {
                let key = template.render(&fields());
                prop_assert!(!key.split('/').any(|segment| matches!(segment, "" | "." | "..")), "{}", key);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
