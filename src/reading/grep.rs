//! Lines that match a pattern.
//!
//! Owns: the pattern, finding lines in a batch, how a hit is shown; lines around hits, over the borders of batches.
//! Does not own: regular expressions (grep-regex, the engine of ripgrep).
//!
//! A pattern is matched against lines as they are stored: a raw value that holds newlines is several lines, a json record is
//! one. With `--json` the answer is whole records: those of which a line matched.

use std::collections::VecDeque;
use std::ops::Range;

use grep_matcher::{LineMatchKind, Matcher};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};

use super::batch::{Batch, Place};
use super::cat::{is_json, json_lines, json_record};
use super::reader::Work;
use crate::archive::format::Format;

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Pattern {
    matcher: RegexMatcher,
    invert: bool,
}

/// How a pattern is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct PatternOptions {
    pub fixed: bool,
    pub ignore_case: bool,
    pub invert: bool,
}

impl Pattern {
    /// # Errors
    /// In words: no regular expression.
    pub fn new(text: &str, options: PatternOptions) -> Result<Self, String> {
        let mut builder = RegexMatcherBuilder::new();
        builder.multi_line(true).line_terminator(Some(b'\n')).case_insensitive(options.ignore_case);
        let matcher = builder.fixed_strings(options.fixed).build(text).map_err(|error| error.to_string())?;
        Ok(Self { matcher, invert: options.invert })
    }

    /// The lines of a text that count, without their newlines, in order.
    pub fn hits(&self, text: &[u8], mut hit: impl FnMut(Range<usize>)) {
        let mut from = 0;
        self.matching(text, |line| {
            if self.invert {
                lines(text, from..line.start, &mut hit);
                from = line.end + 1;
            } else {
                hit(line);
            }
        });
        if self.invert {
            lines(text, from..text.len(), &mut hit);
        }
    }

    fn matching(&self, text: &[u8], mut matched: impl FnMut(Range<usize>)) {
        let mut from = 0;
        while let Some(rest) = text.get(from..).filter(|rest| !rest.is_empty()) {
            // The engine has no failures.
            let Ok(Some(found)) = self.matcher.find_candidate_line(rest) else { return };
            let (at, is_sure) = match found {
                LineMatchKind::Confirmed(at) => (from + at, true),
                LineMatchKind::Candidate(at) => (from + at, false),
            };
            let line = line_at(text, at);
            if line.start >= text.len() {
                return;
            }
            from = line.end + 1;
            if is_sure || self.is_match(text.get(line.clone()).unwrap_or_default()) {
                matched(line);
            }
        }
    }

    fn is_match(&self, line: &[u8]) -> bool {
        self.matcher.is_match(line).unwrap_or_default()
    }

    /// The records of which a line counts. With `-v` those of which none matches.
    fn records(&self, batch: &Batch) -> Vec<Place> {
        let records = batch.records().unwrap_or_default();
        let mut found = vec![false; records.len()];
        for (place, found) in records.iter().zip(&mut found) {
            let bytes = batch.bytes(place);
            // Looked at as a text of its own, so that an empty value is one empty line.
            *found = if bytes.is_empty() { self.is_match(b"") } else { self.any(bytes) };
        }
        let keep = |found: bool| found != self.invert;
        records.iter().zip(found).filter(|(_, found)| keep(*found)).map(|(place, _)| *place).collect()
    }

    fn any(&self, text: &[u8]) -> bool {
        let mut any = false;
        self.matching(text, |_| any = true);
        any
    }
}

/// The line that holds a place of a text.
fn line_at(text: &[u8], at: usize) -> Range<usize> {
    let at = at.min(text.len());
    let start = memchr::memrchr(b'\n', text.get(..at).unwrap_or_default()).map_or(0, |newline| newline + 1);
    let end = memchr::memchr(b'\n', text.get(at..).unwrap_or_default()).map_or(text.len(), |newline| at + newline);
    start..end
}

/// All lines of a stretch that begins with a line.
fn lines(text: &[u8], stretch: Range<usize>, line: &mut impl FnMut(Range<usize>)) {
    let mut start = stretch.start;
    while start < stretch.end.min(text.len()) {
        let end = memchr::memchr(b'\n', text.get(start..).unwrap_or_default()).map_or(text.len(), |len| start + len);
        line(start..end);
        start = end + 1;
    }
}

/// How hits are shown.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// Before each line, where several apps are searched.
    pub prefix: Option<String>,
    pub colour: bool,
}

impl Style {
    /// Lines are shown as they are.
    fn is_plain(&self) -> bool {
        self.prefix.is_none() && !self.colour
    }

    fn line(&self, pattern: &Pattern, line: &[u8], is_hit: bool, out: &mut Vec<u8>) {
        if let Some(prefix) = &self.prefix {
            let separator = if is_hit { ':' } else { '-' };
            let text = if self.colour {
                format!("\x1b[35m{prefix}\x1b[0m{separator}")
            } else {
                format!("{prefix}{separator}")
            };
            out.extend_from_slice(text.as_bytes());
        }
        let mut shown = 0;
        if self.colour && is_hit && !pattern.invert {
            let _ = pattern.matcher.find_iter(line, |found| {
                if !found.is_empty() {
                    out.extend_from_slice(line.get(shown..found.start()).unwrap_or_default());
                    out.extend_from_slice(b"\x1b[1;31m");
                    out.extend_from_slice(line.get(found.start()..found.end()).unwrap_or_default());
                    out.extend_from_slice(b"\x1b[0m");
                    shown = found.end();
                }
                true
            });
        }
        out.extend_from_slice(line.get(shown..).unwrap_or_default());
        out.push(b'\n');
    }
}

/// Lines that count, those that follow one another as one: where nearly all do, they are not copied one by one.
#[derive(Debug, Default)]
struct Runs(Vec<Range<usize>>);

impl Runs {
    /// A line without its newline, behind those before.
    fn push(&mut self, line: Range<usize>) {
        match self.0.last_mut() {
            Some(last) if last.end == line.start => last.end = line.end + 1,
            _ => self.0.push(line.start..line.end + 1),
        }
    }

    /// What is left of the text, each line with its newline.
    fn cut(self, mut text: Vec<u8>) -> Vec<u8> {
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        let mut kept = 0;
        for run in self.0 {
            let len = run.len();
            text.copy_within(run, kept);
            kept += len;
        }
        text.truncate(kept);
        text
    }
}

/// What a hit gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Lines,
    /// The number only.
    Count,
    /// Whole records as lines of the json format.
    Json,
    /// Lines, and those around them: see [`Around`].
    Around,
}

/// `grep`.
#[derive(Clone, Debug)]
pub struct Grep {
    pub pattern: Pattern,
    pub style: Style,
    pub shape: Shape,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub struct Found {
    pub count: u64,
    /// To be written; with [`Shape::Around`] the whole text.
    pub text: Vec<u8>,
    /// The lines that count, with [`Shape::Around`].
    pub hits: Vec<Range<usize>>,
}

impl Work for Grep {
    type Out = Found;

    fn needs_records(&self, format: Format) -> bool {
        self.shape == Shape::Json && format == Format::Raw
    }

    fn select(&self, batch: &mut Batch) {
        if self.shape == Shape::Around {
            return;
        }
        let kept = self.pattern.records(batch);
        let mut kept = kept.into_iter().peekable();
        batch.retain(|place| kept.next_if(|next| next.start == place.start).is_some());
    }

    fn work(&self, batch: Batch) -> Found {
        let mut found = Found::default();
        match (self.shape, batch.records().is_some()) {
            (Shape::Json, true) => {
                for place in self.pattern.records(&batch) {
                    found.count += 1;
                    json_record(&batch, &place, &mut found.text);
                }
            }
            (Shape::Json, false) => {
                let is_json = batch.files.first().is_some_and(|file| is_json(file));
                let (text, _) = batch.into_text();
                self.pattern.hits(&text, |line| {
                    found.count += 1;
                    found.text.extend_from_slice(text.get(line).unwrap_or_default());
                    found.text.push(b'\n');
                });
                if !is_json {
                    found.text = json_lines(&found.text);
                }
            }
            (Shape::Lines, _) if self.style.is_plain() => {
                let (text, _) = batch.into_text();
                let mut runs = Runs::default();
                self.pattern.hits(&text, |line| {
                    found.count += 1;
                    runs.push(line);
                });
                found.text = runs.cut(text);
            }
            (Shape::Lines, _) => {
                let (text, _) = batch.into_text();
                self.pattern.hits(&text, |line| {
                    found.count += 1;
                    self.style.line(&self.pattern, text.get(line).unwrap_or_default(), true, &mut found.text);
                });
            }
            (Shape::Count, _) => self.pattern.hits(&batch.into_text().0, |_| found.count += 1),
            (Shape::Around, _) => {
                (found.text, _) = batch.into_text();
                self.pattern.hits(&found.text, |line| found.hits.push(line));
                found.count = found.hits.len() as u64;
            }
        }
        found
    }
}

/// Lines before and after hits, over the borders of batches.
#[derive(Debug)]
pub struct Around {
    grep: Grep,
    before: usize,
    after: usize,
    /// Lines that would stand before the next hit.
    waiting: VecDeque<Vec<u8>>,
    /// Lines still to show after the last hit.
    owed: usize,
    /// Something was shown; lines were left out since.
    shown: bool,
    gap: bool,
}

impl Around {
    pub fn new(grep: Grep, before: usize, after: usize) -> Self {
        Self { grep, before, after, waiting: VecDeque::new(), owed: 0, shown: false, gap: false }
    }

    /// What the next batch adds.
    pub fn push(&mut self, found: &Found) -> Vec<u8> {
        let mut out = Vec::new();
        let mut hits = found.hits.iter().peekable();
        let mut all = Vec::new();
        lines(&found.text, 0..found.text.len(), &mut |line| all.push(line));
        for line in all {
            let is_hit = hits.next_if(|hit| hit.start == line.start).is_some();
            let bytes = found.text.get(line).unwrap_or_default();
            if is_hit {
                if self.gap && self.shown {
                    out.extend_from_slice(b"--\n");
                }
                for line in self.waiting.drain(..) {
                    self.grep.style.line(&self.grep.pattern, &line, false, &mut out);
                }
                self.grep.style.line(&self.grep.pattern, bytes, true, &mut out);
                (self.owed, self.shown, self.gap) = (self.after, true, false);
            } else if self.owed > 0 {
                self.grep.style.line(&self.grep.pattern, bytes, false, &mut out);
                self.owed -= 1;
            } else {
                self.waiting.push_back(bytes.to_vec());
                if self.waiting.len() > self.before {
                    self.waiting.pop_front();
                    self.gap = true;
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(pattern: &str, options: PatternOptions, text: &str) -> Vec<String> {
        let pattern = Pattern::new(pattern, options).unwrap();
        let mut found = Vec::new();
        pattern.hits(text.as_bytes(), |line| found.push(text[line].to_owned()));
        found
    }

    const TEXT: &str = "one\ntwo\n\nThree one\nlast";

    #[test]
    fn lines_that_match() {
        let plain = PatternOptions::default();
        assert_eq!(hits("one", plain, TEXT), ["one", "Three one"]);
        assert_eq!(hits("^t", plain, TEXT), ["two"]);
        assert_eq!(hits("^t", PatternOptions { ignore_case: true, ..plain }, TEXT), ["two", "Three one"]);
        assert_eq!(hits("^$", plain, TEXT), [""]);
        assert_eq!(hits("x*", plain, TEXT), ["one", "two", "", "Three one", "last"]);
        assert_eq!(hits("t$", plain, TEXT), ["last"]);
        assert_eq!(hits(r"\w+ \w+", plain, TEXT), ["Three one"]);
        assert_eq!(hits("a.t", PatternOptions { fixed: true, ..plain }, TEXT), Vec::<String>::new());
        let invert = PatternOptions { invert: true, ..plain };
        assert_eq!(hits("one", invert, TEXT), ["two", "", "last"]);
        assert_eq!(hits("^$", invert, "a\n\nb\n"), ["a", "b"]);
        assert_eq!(hits("zzz", invert, TEXT).len(), 5);
        assert_eq!(hits("", invert, TEXT).len(), 0);
        assert!(Pattern::new("(", plain).is_err());
    }

    #[test]
    fn plain_lines_are_cut_out_of_their_text() {
        for (pattern, text, expected) in [
            ("one", TEXT, "one\nThree one\n"),
            ("x*", TEXT, "one\ntwo\n\nThree one\nlast\n"),
            ("last", TEXT, "last\n"),
            ("[12]", "1\n2\n3\n1\n", "1\n2\n1\n"),
            ("none", TEXT, ""),
            ("a", "", ""),
        ] {
            let pattern = Pattern::new(pattern, PatternOptions::default()).unwrap();
            let mut runs = Runs::default();
            pattern.hits(text.as_bytes(), |line| runs.push(line));
            assert_eq!(String::from_utf8(runs.cut(text.as_bytes().to_vec())).unwrap(), expected);
        }
    }

    #[test]
    fn lines_around_hits_cross_the_borders_of_batches() {
        let pattern = Pattern::new("hit", PatternOptions::default()).unwrap();
        let grep = Grep { pattern, style: Style::default(), shape: Shape::Around };
        let text = "a\nb\nc\nhit 1\nd\ne\nf\ng\nh\nhit 2\nhit 3\ni\n";
        let whole = "b\nc\nhit 1\nd\n--\ng\nh\nhit 2\nhit 3\ni\n";
        for cut in [2, 4, 6, 12, 14, 22, 28, text.len()] {
            let mut around = Around::new(grep.clone(), 2, 1);
            let mut out = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                let mut found = Found { text: part.as_bytes().to_vec(), ..Found::default() };
                grep.pattern.hits(part.as_bytes(), |line| found.hits.push(line));
                out.extend(around.push(&found));
            }
            assert_eq!(String::from_utf8(out).unwrap(), whole, "{cut}");
        }
    }
}
