//! Files as a worker writes them, without a worker: the same frames, index and keys, from records that a test makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice::archive::app_id::path_segment;
use sluice::archive::codec::{Codec, Encoder};
use sluice::archive::digest::topic_seed;
use sluice::archive::format::Format;
use sluice::archive::frame::FrameBuffer;
use sluice::archive::index::{FileFacts, append_frame, sidecar_key, write_tail};
use sluice::archive::key::{KeyFields, KeyTemplate, extension};
use sluice::config::Bucket;
use sluice::record::{Headers, Record, write_header};
use sluice::store::{Body, Created, Store};

/// A record that a test makes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Made {
    pub fn line(partition: i32, offset: i64, timestamp_ms: i64, value: &str) -> Self {
        let value = Some(value.as_bytes().to_vec());
        Self { partition, offset, timestamp_ms, key: None, value, headers: Vec::new() }
    }

    pub fn with<T>(&self, use_it: impl FnOnce(&Record<'_>) -> T) -> T {
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            write_header(&mut headers, name, value.as_deref());
        }
        use_it(&Record {
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: Headers::new(u32::try_from(self.headers.len()).unwrap(), &headers),
        })
    }
}

/// How files are written.
#[derive(Clone, Debug)]
pub struct Writer {
    pub store: Arc<dyn Store>,
    pub topic: String,
    pub format: Format,
    pub codec: Codec,
    /// Records of a frame.
    pub frame_records: usize,
    pub template: KeyTemplate,
    pub bucket: Bucket,
    /// Number of the log entry that the next file says it was decided by.
    pub log_number: u64,
}

impl Writer {
    pub fn new(store: Arc<dyn Store>, format: Format, codec: Codec) -> Self {
        Self {
            store,
            topic: "applogs".to_owned(),
            format,
            codec,
            frame_records: 100,
            template: KeyTemplate::default(),
            bucket: Bucket::Day,
            log_number: 1,
        }
    }

    /// Key, data and, for plain files, sidecar. The first record opens the file.
    pub fn file(&self, app: &str, records: &[Made]) -> (String, Vec<u8>, Option<Vec<u8>>) {
        let plain = self.codec == Codec::None;
        let mut encoder = Encoder::new(self.codec, None).unwrap();
        let (mut data, mut entries) = (Vec::new(), Vec::new());
        let mut by_partition: BTreeMap<i32, Vec<&Made>> = BTreeMap::new();
        for record in records {
            by_partition.entry(if plain { record.partition } else { 0 }).or_default().push(record);
        }
        for chunk in by_partition.values().flat_map(|records| records.chunks(self.frame_records)) {
            let mut buffer = FrameBuffer::default();
            for made in chunk {
                let seed = topic_seed(&self.topic);
                made.with(|record| buffer.push(self.format, &self.topic, seed, record, record.timestamp_ms));
            }
            let offset = data.len() as u64;
            let meta = buffer.encode(&mut encoder, &mut data).unwrap();
            append_frame(&mut entries, offset, &meta);
        }
        let opened_at = civil(records[0].timestamp_ms);
        let bucket_start = match self.bucket {
            Bucket::None => None,
            Bucket::Day => Some(opened_at.date().to_datetime(jiff::civil::Time::midnight())),
            Bucket::Hour => Some(opened_at.with().minute(0).second(0).subsec_nanosecond(0).build().unwrap()),
        };
        let segment = if app.starts_with('_') { app.to_owned() } else { path_segment(app.as_bytes()) };
        let facts = FileFacts {
            connector: "app-logs".to_owned(),
            cluster_id: Some("cluster".to_owned()),
            topic: self.topic.clone(),
            topic_id: None,
            incarnation: 0,
            app: segment.clone(),
            bucket_start_secs: bucket_start.map(|start| {
                jiff::tz::TimeZone::UTC.to_ambiguous_zoned_datetime(start).compatible().unwrap().timestamp().as_second()
            }),
            intent_id: format!("{:032x}", self.log_number),
            digests: BTreeMap::new(),
            log_number: self.log_number,
            settings_hash: "1".repeat(32),
            lows: BTreeMap::new(),
            format: self.format,
            codec: self.codec,
            skipped: Vec::new(),
        };
        let key = self.template.render(&KeyFields {
            app_segment: &segment,
            topic: &self.topic,
            incarnation: 0,
            connector: "app-logs",
            partition: records[0].partition,
            offset: records[0].offset,
            opened_at,
            bucket_start,
            ext: extension(self.format, self.codec),
        });
        let mut tail = Vec::new();
        write_tail(self.codec, &facts, &entries, data.len() as u64, &mut tail).unwrap();
        if plain {
            return (key, data, Some(tail));
        }
        data.extend(tail);
        (key, data, None)
    }

    /// Writes a file; the answer is its key.
    pub async fn put(&mut self, app: &str, records: &[Made]) -> String {
        let (key, data, sidecar) = self.file(app, records);
        self.log_number += 1;
        if let Some(sidecar) = sidecar {
            put(self.store.as_ref(), &sidecar_key(&key), sidecar).await;
        }
        put(self.store.as_ref(), &key, data).await;
        key
    }
}

/// Writes one object.
pub async fn put(store: &dyn Store, key: &str, bytes: Vec<u8>) {
    assert_eq!(store.create(key, &Body::Bytes(bytes.into()), None).await.unwrap(), Created::New, "{key}");
}

/// Local time in UTC.
fn civil(ms: i64) -> jiff::civil::DateTime {
    jiff::Timestamp::from_millisecond(ms).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC).datetime()
}
