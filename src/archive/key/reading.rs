//! Keys read back.
//!
//! Owns: what a key says of its file, the stretch of a listing in which an app's files of some days lie.
//! Does not own: listing; what the file's index says (which is the truth: other tools may write keys of this form).

use std::fmt::Write as _;

use jiff::civil::{Date, DateTime};
use regex::Regex;

use super::{Field, KeyTemplate, Part, render_field};
use crate::archive::key::KeyFields;

/// What a key says of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyParts {
    /// The app's segment.
    pub app: String,
    pub topic: String,
    pub incarnation: u32,
    /// Place of the record that opened the file.
    pub partition: i32,
    pub offset: i64,
    /// The bucket's day where records are bucketed, else that of the opening record.
    pub date: Option<Date>,
    /// Hour of the bucket, or of the opening record.
    pub hour: Option<i8>,
}

/// Reads the keys of one template.
#[derive(Clone, Debug)]
pub struct KeyReader {
    /// `None`: no key can be read.
    pattern: Option<Regex>,
}

/// A stretch of a listing in key order: keys above `after` up to those that begin with `last`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpan {
    /// What all keys begin with.
    pub prefix: String,
    pub after: Option<String>,
    pub last: Option<String>,
}

impl KeyReader {
    /// What the key says; `None`: it is not of this template.
    pub fn read(&self, key: &str) -> Option<KeyParts> {
        let found = self.pattern.as_ref()?.captures(key)?;
        let text = |name| found.name(name).map(|group| group.as_str());
        let number = |name| text(name).and_then(|text| text.parse::<i16>().ok());
        let (topic, incarnation) = match text("topic")?.split_once('~') {
            Some((topic, incarnation)) => (topic, incarnation.parse().ok()?),
            None => (text("topic")?, 0),
        };
        let date = match text("date") {
            Some(date) => date.parse().ok(),
            None => number("year").zip(number("month")).zip(number("day")).and_then(|((year, month), day)| {
                Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
            }),
        };
        let hour = number("hour").or_else(|| text("time")?.get(..2)?.parse().ok());
        Some(KeyParts {
            app: text("app_id")?.to_owned(),
            topic: topic.to_owned(),
            incarnation,
            partition: text("partition")?.parse().ok()?,
            offset: text("offset")?.parse().ok()?,
            date,
            hour: hour.and_then(|hour| i8::try_from(hour).ok()),
        })
    }
}

impl KeyTemplate {
    /// A reader for the keys that this template gives.
    pub fn reader(&self) -> KeyReader {
        let mut pattern = "^".to_owned();
        let mut seen = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => pattern.push_str(&regex::escape(text)),
                Part::Field(field) => {
                    let inner = field_pattern(*field);
                    let first = !seen.contains(field);
                    seen.push(*field);
                    // Writing to a string does not fail.
                    let _ = match first {
                        true => write!(pattern, "(?P<{}>{inner})", field.name()),
                        false => write!(pattern, "(?:{inner})"),
                    };
                }
            }
        }
        pattern.push('$');
        KeyReader { pattern: Regex::new(&pattern).ok() }
    }

    /// Where the folders of all apps lie: the text before the app's segment, where nothing but literal text stands before it
    /// and a `/` follows it.
    pub fn app_folder(&self) -> Option<&str> {
        let ends = |part: Option<&Part>| matches!(part, Some(Part::Literal(text)) if text.starts_with('/'));
        match self.parts.as_slice() {
            [Part::Field(Field::AppId), rest @ ..] if ends(rest.first()) => Some(""),
            [Part::Literal(text), Part::Field(Field::AppId), rest @ ..] if ends(rest.first()) => Some(text),
            _ => None,
        }
    }

    /// The stretch of a listing that holds all keys of an app whose date and hour (the bucket's) lie within `days`, both
    /// included. Without `days`, or where the template does not put the date behind the app, all keys of the app.
    pub fn span(&self, app_segment: &str, days: (Option<DateTime>, Option<DateTime>)) -> KeySpan {
        let prefix = self.listing_prefix(app_segment).unwrap_or_default();
        let bound = |at: Option<DateTime>| at.map(|at| prefix.clone() + &self.dated(at)).filter(|text| *text != prefix);
        KeySpan { after: bound(days.0), last: bound(days.1), prefix }
    }

    /// The date parts that follow the listing prefix at once, as far as their order is that of time.
    fn dated(&self, at: DateTime) -> String {
        let fields = KeyFields {
            app_segment: "",
            topic: "",
            incarnation: 0,
            connector: "",
            partition: 0,
            offset: 0,
            opened_at: at,
            bucket_start: None,
            ext: "",
        };
        let is_start = |part: &&Part| matches!(part, Part::Literal(_) | Part::Field(Field::AppId));
        let parts = self.parts.iter().skip_while(is_start);
        let (mut text, mut waiting, mut last_rank) = (String::new(), String::new(), 0);
        for part in parts {
            let rank = match part {
                Part::Literal(literal) => {
                    waiting.push_str(literal);
                    continue;
                }
                Part::Field(Field::Year) => (0, 1),
                Part::Field(Field::Month) => (1, 2),
                Part::Field(Field::Day) => (2, 3),
                Part::Field(Field::Date) => (0, 3),
                Part::Field(Field::Hour) => (3, 4),
                Part::Field(_) => break,
            };
            let Part::Field(field) = part else { break };
            if rank.0 != last_rank {
                break;
            }
            last_rank = rank.1;
            text.push_str(&waiting);
            waiting.clear();
            let _ = render_field(*field, &fields, &mut text);
        }
        text
    }
}

fn field_pattern(field: Field) -> &'static str {
    match field {
        Field::AppId => "[A-Za-z0-9._~%-]+",
        Field::Topic => "[A-Za-z0-9._-]+(?:~[0-9]+)?",
        Field::Partition => "[0-9]{5,10}",
        Field::Offset => "[0-9]{20}",
        Field::Date => "[0-9]{4}-[0-9]{2}-[0-9]{2}",
        Field::Time => "[0-9]{6}",
        Field::Year => "[0-9]{4}",
        Field::Month | Field::Day | Field::Hour => "[0-9]{2}",
        Field::Connector => "[A-Za-z0-9._-]+",
        Field::Ext => "(?:log|jsonl)(?:\\.(?:lz4|zst|gz))?",
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::datetime;

    use super::*;

    fn template(text: &str) -> KeyTemplate {
        KeyTemplate::parse(text).unwrap()
    }

    fn key(template: &KeyTemplate, app: &str, incarnation: u32, at: DateTime) -> String {
        template.render(&KeyFields {
            app_segment: app,
            topic: "app.logs-2026-11-22",
            incarnation,
            connector: "c_1",
            partition: 3,
            offset: 1042,
            opened_at: at,
            bucket_start: None,
            ext: "log.lz4",
        })
    }

    const TEMPLATES: [&str; 6] = [
        "{app_id}/{date}/{time}_{topic}+{partition}+{offset}.{ext}",
        "app_id={app_id}/dt={date}/hour={hour}/{topic}+{partition}+{offset}.{ext}",
        "{app_id}/{year}/{month}/{day}/{topic}+{partition}+{offset}.{ext}",
        "{date}/{app_id}/{topic}+{partition}.{offset}.{ext}",
        "logs/{connector}/{app_id}.{date}/{topic}+{partition}+{offset}",
        "{app_id}+{topic}+{partition}+{offset}/{app_id}.{date}",
    ];

    #[test]
    fn a_key_says_what_it_was_made_of() {
        let at = datetime(2026, 11, 22, 3, 12, 5, 0);
        for text in TEMPLATES {
            let template = template(text);
            for app in ["payments", "a.2026-11-22", "%empty", "x%2Fy_1-2", "_unknown"] {
                for incarnation in [0, 12] {
                    let key = key(&template, app, incarnation, at);
                    let parts = template.reader().read(&key).unwrap();
                    assert_eq!((parts.app.as_str(), parts.topic.as_str()), (app, "app.logs-2026-11-22"), "{key}");
                    assert_eq!((parts.incarnation, parts.partition, parts.offset), (incarnation, 3, 1042));
                    assert_eq!(parts.date, Some(at.date()));
                    assert_eq!(parts.hour.is_some(), text.contains("{hour}") || text.contains("{time}"));
                }
            }
            for other in ["", "payments/notes.txt", "_sluice/c/created", "payments/2026-11-22/x.log"] {
                assert_eq!(template.reader().read(other), None, "{other}");
            }
        }
    }

    #[test]
    fn the_days_of_an_app_are_one_stretch() {
        let day = |day, hour| Some(datetime(2026, 11, day, hour, 0, 0, 0));
        let span = |text: &str, from, to| {
            let span = template(text).span("a", (from, to));
            (span.prefix, span.after.unwrap_or_default(), span.last.unwrap_or_default())
        };
        let expect = |prefix: &str, after: &str, last: &str| (prefix.to_owned(), after.to_owned(), last.to_owned());
        assert_eq!(span(TEMPLATES[0], day(3, 1), day(4, 2)), expect("a/", "a/2026-11-03", "a/2026-11-04"));
        assert_eq!(
            span(TEMPLATES[1], day(3, 1), day(4, 2)),
            expect("app_id=a/dt=", "app_id=a/dt=2026-11-03/hour=01", "app_id=a/dt=2026-11-04/hour=02")
        );
        assert_eq!(span(TEMPLATES[2], day(3, 1), None), expect("a/", "a/2026/11/03", ""));
        assert_eq!(span(TEMPLATES[3], day(3, 1), None), expect("", "2026-11-03", ""));
        assert_eq!(span(TEMPLATES[5], day(3, 1), None), expect("a+", "", ""));
        assert_eq!(template(TEMPLATES[0]).app_folder(), Some(""));
        assert_eq!(template(TEMPLATES[1]).app_folder(), Some("app_id="));
        assert_eq!(template(TEMPLATES[3]).app_folder(), None);
    }
}
