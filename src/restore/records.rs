//! Archived records as records of the target topic.
//!
//! Owns: what a record becomes from each format, the headers that name its origin, reading those headers back.
//! Does not own: which records are written ([`super::write`]), where they lie ([`crate::reading`]).
//!
//! A record that is written gets four headers behind its own: `sluice.topic`, `sluice.partition`, `sluice.offset` name where
//! it came from, `sluice.restore` the restore that wrote it.

use std::collections::HashMap;
use std::sync::Arc;

use super::position::PartitionsBy;
use crate::archive::format::{Format, parse_json_line};
use crate::pipeline::produce::{HeaderList, Outgoing};
use crate::reading::ReadError;
use crate::reading::batch::{Batch, Place};
use crate::reading::reader::Work;
use crate::reading::survey::Stream;
use crate::record::{Headers, Record};

const TOPIC: &[u8] = b"sluice.topic";
const PARTITION: &[u8] = b"sluice.partition";
const OFFSET: &[u8] = b"sluice.offset";
const RESTORE: &[u8] = b"sluice.restore";

/// A record that is ready to be written.
#[derive(Clone, Debug)]
pub struct Ready {
    pub stream: Arc<Stream>,
    pub offset: i64,
    pub outgoing: Outgoing,
}

/// What a batch becomes.
#[derive(Debug)]
pub struct Rewrite {
    pub url: String,
    /// The restore's own name.
    pub restore: String,
    pub by: PartitionsBy,
}

impl Work for Rewrite {
    type Out = Result<Vec<Ready>, ReadError>;

    fn needs_records(&self, _format: Format) -> bool {
        true
    }

    fn work(&self, batch: Batch) -> Self::Out {
        let mut streams: HashMap<(u32, i32), Arc<Stream>> = HashMap::new();
        let mut ready = Vec::new();
        for place in batch.records().unwrap_or_default() {
            let Some(file) = batch.file(place) else { continue };
            let Some(index) = file.index.as_deref() else { continue };
            let stream = streams
                .entry((place.source, place.partition))
                .or_insert_with(|| Arc::new(Stream::of(index, place.partition)));
            let outgoing = self.outgoing(index.facts.format, batch.bytes(place), place, stream).map_err(|why| {
                let why = format!("partition {} offset {}: {why}", place.partition, place.offset);
                ReadError::Damaged { url: self.url.clone(), key: file.entry.key.clone(), why }
            })?;
            ready.push(Ready { stream: Arc::clone(stream), offset: place.offset, outgoing });
        }
        Ok(ready)
    }
}

impl Rewrite {
    fn outgoing(&self, format: Format, bytes: &[u8], place: &Place, stream: &Stream) -> Result<Outgoing, String> {
        let partition = match self.by {
            PartitionsBy::Keep => Some(place.partition),
            PartitionsBy::Key => None,
        };
        let mut outgoing = Outgoing { partition, timestamp_ms: place.timestamp_ms, ..Outgoing::default() };
        match format {
            Format::Raw => outgoing.value = (!place.is_null).then(|| bytes.to_vec()),
            Format::Json => {
                let line = parse_json_line(bytes).map_err(|error| error.to_string())?;
                if (line.partition, line.offset) != (place.partition, place.offset) {
                    return Err(format!("its line is partition {} offset {}", line.partition, line.offset));
                }
                (outgoing.key, outgoing.value) = (line.key, line.value);
                for (name, value) in &line.headers {
                    outgoing.headers.push(name, value.as_deref());
                }
            }
        }
        self.name_origin(&mut outgoing.headers, stream, place.offset);
        Ok(outgoing)
    }

    fn name_origin(&self, headers: &mut HeaderList, stream: &Stream, offset: i64) {
        for (name, value) in [
            (TOPIC, topic_name(stream)),
            (PARTITION, stream.partition.to_string()),
            (OFFSET, offset.to_string()),
            (RESTORE, self.restore.clone()),
        ] {
            headers.push(name, Some(value.as_bytes()));
        }
    }
}

/// As keys of objects spell it: `~<n>` follows the name of a topic that was made again. No topic has a `~` in its name.
fn topic_name(stream: &Stream) -> String {
    match stream.incarnation {
        0 => stream.topic.to_string(),
        incarnation => format!("{}~{incarnation}", stream.topic),
    }
}

/// Where a record of the target came from, if this restore wrote it: what its last four headers say. Those of an earlier
/// restore may lie before them.
pub fn origin_of(record: &Record<'_>, restore: &str) -> Option<(Stream, i64)> {
    let [topic, partition, offset, by] = last_four(record.headers)?;
    if (topic.0, partition.0, offset.0, by.0) != (TOPIC, PARTITION, OFFSET, RESTORE) || by.1? != restore.as_bytes() {
        return None;
    }
    let text = |value: Option<&[u8]>| value.and_then(|value| String::from_utf8(value.to_vec()).ok());
    let name = text(topic.1)?;
    let (topic, incarnation) = match name.split_once('~') {
        Some((topic, incarnation)) => (topic, incarnation.parse().ok()?),
        None => (name.as_str(), 0),
    };
    let stream = Stream { topic: topic.into(), incarnation, partition: text(partition.1)?.parse().ok()? };
    Some((stream, text(offset.1)?.parse().ok()?))
}

type Header<'a> = (&'a [u8], Option<&'a [u8]>);

fn last_four(headers: Headers<'_>) -> Option<[Header<'_>; 4]> {
    let mut last = headers.iter().skip(headers.len().checked_sub(4)?);
    Some([last.next()?, last.next()?, last.next()?, last.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(incarnation: u32) -> Stream {
        Stream { topic: "applogs".into(), incarnation, partition: 3 }
    }

    fn named(restore: &str, incarnation: u32, headers: &mut HeaderList) {
        let rewrite = Rewrite { url: String::new(), restore: restore.to_owned(), by: PartitionsBy::Keep };
        rewrite.name_origin(headers, &stream(incarnation), 42);
    }

    fn read(headers: &HeaderList, restore: &str) -> Option<(Stream, i64)> {
        let headers = headers.as_headers();
        origin_of(&Record { partition: 0, offset: 7, timestamp_ms: 0, key: None, value: None, headers }, restore)
    }

    #[test]
    fn an_origin_is_read_back_and_that_of_another_restore_is_not_taken_for_it() {
        for incarnation in [0, 2] {
            let mut headers = HeaderList::default();
            headers.push(b"own", None);
            named("r1", incarnation, &mut headers);
            assert_eq!(read(&headers, "r1"), Some((stream(incarnation), 42)));
            assert_eq!(read(&headers, "r2"), None);
        }
    }

    #[test]
    fn a_record_restored_twice_came_from_where_the_last_one_says() {
        let mut headers = HeaderList::default();
        named("r1", 1, &mut headers);
        assert_eq!(read(&headers, "r1"), Some((stream(1), 42)));
        named("r2", 0, &mut headers);
        assert_eq!((read(&headers, "r1"), read(&headers, "r2")), (None, Some((stream(0), 42))));
        headers.push(b"later", Some(b"x"));
        assert_eq!(read(&headers, "r2"), None);
        assert_eq!(read(&HeaderList::default(), "r2"), None);
    }
}
