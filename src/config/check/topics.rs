//! Checks which topics and partitions a connector reads.
//!
//! Owns: rules between `topics`, `topics_regex` and `partitions`. Does not own: whether topics exist.

use std::collections::BTreeSet;

use super::names::check_topic;
use super::{MAX_REGEX_BYTES, regex_error};
use crate::config::TopicSelection;
use crate::config::problem::{Place, Problem};
use crate::config::reader::{Checked, Reader, parse_integer};
use crate::config::tree::Text;

/// Which topics.
pub fn topics(raw: &mut Reader<'_>) -> Checked<TopicSelection> {
    let list = raw.list("topics");
    let list = list.map(|list| list.map(|list| names(raw, list)));
    let pattern = raw.text("topics_regex");
    let pattern = pattern.map(|pattern| pattern.map(|pattern| regex(raw, &pattern)));
    match (list?, pattern?) {
        (Some(_), Some(_)) => {
            raw.problem("topics_regex", "stands beside topics; write one of them");
            None
        }
        (None, None) => {
            raw.problem("topics", "is missing: write topics: [name, ..] or topics_regex");
            None
        }
        (None, Some(regex)) => regex.map(TopicSelection::Regex),
        (Some(names), None) => names.map(TopicSelection::List),
    }
}

fn regex(raw: &mut Reader<'_>, pattern: &str) -> Checked<regex::Regex> {
    match regex::RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            let shown = raw.shown("topics_regex");
            raw.problem("topics_regex", format!("{shown} is not a regular expression: {}", regex_error(&error)));
            None
        }
    }
}

fn names(raw: &mut Reader<'_>, topics: Vec<(Place, &Text)>) -> Checked<Vec<String>> {
    let mut names = Vec::new();
    let mut legal = !topics.is_empty();
    if topics.is_empty() {
        raw.problem("topics", "is an empty list");
    }
    for (place, text) in topics {
        let message = match check_topic(&text.text) {
            Err(message) => message,
            Ok(()) if names.contains(&text.text) => "stands in the list twice".to_owned(),
            Ok(()) => {
                names.push(text.text.clone());
                continue;
            }
        };
        raw.problems.push(Problem::new(place, "topics", format!("{} {message}", text.shown())));
        legal = false;
    }
    legal.then_some(names)
}

/// Which partitions; `None` inside: all.
pub fn partitions(raw: &mut Reader<'_>) -> Checked<Option<BTreeSet<i32>>> {
    let Some(items) = raw.list("partitions")? else { return Some(None) };
    let mut partitions = BTreeSet::new();
    let mut legal = !items.is_empty();
    if items.is_empty() {
        raw.problem("partitions", "is an empty list; leave the key out for all partitions");
    }
    for (place, text) in items {
        let partition = parse_integer(&text.text).and_then(|number| i32::try_from(number).ok()).filter(|p| *p >= 0);
        let message = match partition {
            Some(partition) if partitions.insert(partition) => continue,
            Some(_) => "stands in the list twice",
            None => "is not a partition's number",
        };
        raw.problems.push(Problem::new(place, "partitions", format!("{} {message}", text.shown())));
        legal = false;
    }
    legal.then_some(Some(partitions))
}

impl TopicSelection {
    /// Whether a topic of this name is selected.
    pub fn holds(&self, topic: &str) -> bool {
        match self {
            Self::List(topics) => topics.iter().any(|name| name == topic),
            Self::Regex(regex) => regex.is_match(topic),
        }
    }
}
