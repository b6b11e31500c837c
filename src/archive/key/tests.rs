use std::collections::HashSet;

use jiff::civil::date;
use proptest::prelude::*;

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
    KeyTemplate::parse(text).unwrap()
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

/// Every template of the four required fields with these separators, accepted or not.
fn templates() -> Vec<String> {
    const SEPARATORS: [&str; 4] = ["-", "+", "0-", "0"];
    let names = ["app_id", "topic", "partition", "offset"];
    let mut templates = Vec::new();
    for order in 0..256 {
        let order = [order % 4, order / 4 % 4, order / 16 % 4, order / 64];
        if (0..4).any(|field| !order.contains(&field)) {
            continue;
        }
        let fields = order.map(|field| format!("{{{}}}", names[field]));
        for choice in 0..64 {
            let [one, two, three] = [choice % 4, choice / 4 % 4, choice / 16].map(|index| SEPARATORS[index]);
            templates.push(format!("{}{one}{}{two}{}{three}{}", fields[0], fields[1], fields[2], fields[3]));
        }
    }
    templates
}

/// Keys of files that look alike: texts made of the separators and of what numbers look like. Counts the pairs that collide.
fn collisions(template: &KeyTemplate) -> usize {
    const TEXTS: [&str; 11] = [
        "a",
        "-",
        "a-",
        "-a",
        "a-a",
        "a01",
        "a-00000",
        "00000-a",
        "a-00000-a",
        "a-00000000000000000000",
        "00000000000000000000-a",
    ];
    let mut seen: HashSet<String> = HashSet::new();
    let mut collisions = 0;
    for app_segment in TEXTS {
        for topic in TEXTS {
            for partition in [0, 1, 100_000, 1_000_000] {
                let key = template.render(&KeyFields { app_segment, topic, partition, offset: 0, ..fields() });
                collisions += usize::from(!seen.insert(key));
            }
        }
    }
    collisions
}

#[test]
fn files_have_keys_of_their_own() {
    let accepted: Vec<KeyTemplate> = templates().iter().filter_map(|text| KeyTemplate::parse(text).ok()).collect();
    assert!(accepted.len() > 200, "{}", accepted.len());
    for template in accepted {
        assert_eq!(collisions(&template), 0, "{template}");
    }
}

#[test]
fn templates_are_refused_for_a_reason() {
    for text in [
        "{app_id}-{topic}+{partition}+{offset}",
        "{topic}-{partition}-{app_id}+{offset}",
        "{app_id}-{offset}-{topic}+{partition}",
        "{app_id}+{topic}0{partition}+{offset}",
    ] {
        assert!(KeyTemplate::parse(text).is_err(), "{text}");
        let unchecked = KeyTemplate { text: text.to_owned(), parts: split(text).unwrap() };
        assert!(collisions(&unchecked) > 0, "{text}");
    }
}

proptest! {
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
