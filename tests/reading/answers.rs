//! What a question about an archive gives: exactly its records, in order, whatever the codec, the format and the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use sluice::archive::codec::Codec;
use sluice::archive::format::{Format, parse_json_line};
use sluice::archive::index::sidecar_key;
use sluice::clock::Environment;
use sluice::config::Bucket;
use sluice::reading::cat::Cat;
use sluice::reading::counted::Counters;
use sluice::reading::place::Place;
use sluice::reading::reader::Reader;
use sluice::reading::report::{Report, Worst};
use sluice::reading::survey::Question;
use sluice::reading::times::Times;
use sluice::reading::units::By;
use sluice::store::memory::MemoryStore;
use sluice::store::{ByteRange, Store};

use crate::support::archive::{Made, Writer, put};

const CODECS: [Codec; 4] = [Codec::Lz4, Codec::Zstd, Codec::Gzip, Codec::None];
/// 2026-11-22 00:00 UTC.
const DAY: i64 = 1_795_305_600_000;
const DAY_MS: i64 = 86_400_000;

/// A store with files, and what was said while it was read.
struct Read {
    text: Vec<u8>,
    said: Vec<String>,
    worst: Worst,
    place: Place,
}

async fn read(store: &Arc<dyn Store>, app: Option<&str>, times: Times, by: By, json: bool) -> Read {
    let place = Place { bucket: Some(Bucket::Day), ..Place::of_store(Arc::clone(store), &Environment::system()) };
    let said = Arc::new(Mutex::new(Vec::new()));
    let saying = Arc::clone(&said);
    let report = Arc::new(Report::new(move |text| saying.lock().unwrap().push(text.to_owned())));
    let reader = Reader::new(place.clone(), Arc::clone(&report));
    let question = Question { app: app.map(str::to_owned), times };
    let mut text = Vec::new();
    let take = |piece: Vec<u8>| {
        text.extend(piece);
        Ok(())
    };
    reader.answer(&question, by, &Arc::new(Cat { json }), take).await.unwrap();
    let said = said.lock().unwrap().clone();
    Read { text, said, worst: report.worst(), place }
}

/// The lines of the json format as records; keys and headers only where files have them.
fn parsed(text: &[u8]) -> Vec<Made> {
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    lines
        .map(|line| {
            let line = parse_json_line(line).unwrap();
            let (partition, offset, timestamp_ms) = (line.partition, line.offset, line.timestamp_ms);
            Made { partition, offset, timestamp_ms, key: line.key, value: line.value, headers: line.headers }
        })
        .collect()
}

fn by_partition(records: &[Made]) -> BTreeMap<i32, Vec<Made>> {
    let mut found: BTreeMap<i32, Vec<Made>> = BTreeMap::new();
    for record in records {
        found.entry(record.partition).or_default().push(record.clone());
    }
    found
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// Writes records as a task would: one lane for each day, sealed now and then, each file with a format and codec of its own.
async fn archive(store: &Arc<dyn Store>, records: &[Made], seals: &[(u8, bool)], frame_records: usize) {
    let mut lanes: BTreeMap<i64, Vec<Made>> = BTreeMap::new();
    let mut seals = seals.iter().cycle();
    let mut number = 0;
    let mut seal = async |lane: Vec<Made>, (codec, json): (u8, bool)| {
        let format = if json { Format::Json } else { Format::Raw };
        let mut writer = Writer::new(Arc::clone(store), format, CODECS[usize::from(codec) % 4]);
        number += 1;
        (writer.frame_records, writer.log_number) = (frame_records, number);
        writer.put("a", &lane).await;
    };
    for record in records {
        let day = record.timestamp_ms.div_euclid(DAY_MS);
        lanes.entry(day).or_default().push(record.clone());
        let &(codec, json) = seals.next().unwrap();
        if codec >= 128 {
            seal(lanes.remove(&day).unwrap(), (codec, json)).await;
        }
    }
    for lane in lanes.into_values() {
        seal(lane, (0, false)).await;
    }
}

/// Records of three partitions in the order of their arrival, some of them late by a day or two.
fn records() -> impl Strategy<Value = Vec<Made>> {
    let value = prop_oneof![
        Just(None),
        Just(Some(Vec::new())),
        proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'x'), Just(0xff)], 0..12).prop_map(Some),
        "\\{\"a\":[0-9]{1,3}\\}".prop_map(|text| Some(text.into_bytes())),
    ];
    let one = (0..3i32, 1..4i64, prop_oneof![3 => Just(0i64), 1 => -2..2i64], 0..4_000_000i64, value);
    proptest::collection::vec(one, 1..120).prop_map(|all| {
        let mut next = [0i64; 3];
        let mut at = DAY + DAY_MS - 60_000_000;
        all.into_iter()
            .map(|(partition, gap, late, pause, value)| {
                let place = &mut next[usize::try_from(partition).unwrap()];
                let offset = *place + gap - 1;
                *place = offset + 1;
                at += pause;
                let timestamp_ms = at + late * DAY_MS;
                Made { partition, offset, timestamp_ms, key: None, value, headers: Vec::new() }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]
    #[test]
    fn exactly_the_records_in_range_come_back_in_order(
        records in records(),
        seals in proptest::collection::vec((any::<u8>(), any::<bool>()), 1..40),
        frame_records in 1usize..20,
        since in proptest::option::of(0i64..6),
        len in proptest::option::of(1i64..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = memory();
            archive(&store, &records, &seals, frame_records).await;
            let since_ms = since.map(|since| DAY + since * DAY_MS / 3);
            let until_ms = len.map(|len| since_ms.unwrap_or(DAY) + len * DAY_MS / 3);
            let times = Times { since_ms, until_ms };
            let mut expected: Vec<Made> =
                records.iter().filter(|record| times.contains(record.timestamp_ms)).cloned().collect();
            let found = read(&store, Some("a"), times, By::Offset, true).await;
            assert_eq!(found.said, Vec::<String>::new());
            assert_eq!(by_partition(&parsed(&found.text)), by_partition(&expected));
            let sorted = read(&store, Some("a"), times, By::Time, true).await;
            expected.sort_by_key(|record| (record.timestamp_ms, record.partition, record.offset));
            assert_eq!(parsed(&sorted.text), expected);
            let plain = read(&store, Some("a"), times, By::Offset, false).await;
            assert_eq!(plain.text.is_empty(), expected.is_empty());
        });
    }
}

fn lines(first: i64, count: i64, from_ms: i64, step_ms: i64) -> Vec<Made> {
    (first..first + count)
        .map(|offset| {
            let value = format!("{{\"level\":\"info\",\"request\":\"{}\",\"text\":\"some work\"}}", noise(offset, 4));
            Made::line(0, offset, from_ms + (offset - first) * step_ms, &value)
        })
        .collect()
}

/// Text that hardly compresses.
fn noise(seed: i64, words: u32) -> String {
    let mut state = seed.cast_unsigned().wrapping_mul(0x2545_F491_4F6C_DD1D) | 1;
    let mut text = String::new();
    for _ in 0..words {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let _ = write!(text, "{state:016x}");
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_minutes_of_a_small_app_cost_little_and_nothing_of_others() {
    for codec in CODECS {
        let store = memory();
        let mut writer = Writer::new(Arc::clone(&store), Format::Raw, codec);
        writer.frame_records = 50;
        let mut of_app = 0;
        for half_hour in 0..48 {
            let mut records = lines(half_hour * 600, 600, DAY + half_hour * 1_800_000, 3000);
            records.iter_mut().for_each(|record| record.value = Some(noise(record.offset, 30).into_bytes()));
            let key = writer.put("small", &records).await;
            of_app += store.head(&key).await.unwrap().unwrap().size;
            writer.put("small.er", &records[..50]).await;
            writer.put("large", &records[..50]).await;
        }
        let times = Times { since_ms: Some(DAY + DAY_MS - 600_000), until_ms: None };
        let counted = Arc::new(Keys { inner: Arc::clone(&store), keys: Mutex::default() });
        let found = read(&(Arc::clone(&counted) as Arc<dyn Store>), Some("small"), times, By::Offset, false).await;
        assert_eq!(found.text.iter().filter(|&&byte| byte == b'\n').count(), 200);
        let fetched = Counters::get(&found.place.counters.fetched_bytes);
        assert!(fetched * 50 < of_app, "{codec:?}: {fetched} of {of_app} bytes");
        println!("{codec:?}: {fetched} of {of_app} bytes, {:?}", found.place.counters);
        let keys = counted.keys.lock().unwrap().clone();
        assert!(keys.iter().all(|key| key.starts_with("small/")), "{keys:?}");
        assert_eq!(found.worst, Worst::Fine);
    }
}

/// Notes which objects are read.
#[derive(Debug)]
struct Keys {
    inner: Arc<dyn Store>,
    keys: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Store for Keys {
    async fn create(
        &self,
        _: &str,
        _: &sluice::store::Body,
        _: Option<&str>,
    ) -> Result<sluice::store::Created, sluice::store::StoreError> {
        unreachable!("reading writes nothing")
    }

    async fn head(&self, key: &str) -> Result<Option<sluice::store::Head>, sluice::store::StoreError> {
        self.inner.head(key).await
    }

    async fn get(
        &self,
        key: &str,
        range: ByteRange,
        if_match: Option<&str>,
    ) -> Result<Option<sluice::store::Got>, sluice::store::StoreError> {
        self.keys.lock().unwrap().push(key.to_owned());
        self.inner.get(key, range, if_match).await
    }

    async fn list(
        &self,
        prefix: &str,
        depth: sluice::store::Depth,
        after: Option<&str>,
        limit: usize,
    ) -> Result<sluice::store::Page, sluice::store::StoreError> {
        let page = self.inner.list(prefix, depth, after, limit).await?;
        assert!(page.objects.iter().all(|object| object.key.starts_with("small/")), "others are listed: {page:?}");
        Ok(page)
    }

    async fn delete(&self, _: &str) -> Result<(), sluice::store::StoreError> {
        unreachable!("reading deletes nothing")
    }

    fn url(&self) -> &str {
        self.inner.url()
    }
}

#[tokio::test]
async fn a_damaged_file_is_named_and_the_others_are_read() {
    for codec in CODECS {
        let store = memory();
        let mut writer = Writer::new(Arc::clone(&store), Format::Raw, codec);
        let mut keys = Vec::new();
        for file in 0..3 {
            keys.push(writer.put("a", &lines(file * 300, 300, DAY + file * 1000, 1)).await);
        }
        let whole = store.get(&keys[1], ByteRange::All, None).await.unwrap().unwrap().bytes;
        let sidecar = sidecar_key(&keys[1]);
        let index = match codec {
            Codec::None => store.get(&sidecar, ByteRange::All, None).await.unwrap().unwrap().bytes,
            _ => whole.clone(),
        };
        let replace = async |key: &str, bytes: Vec<u8>| {
            store.delete(key).await.unwrap();
            put(store.as_ref(), key, bytes).await;
        };
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 0x10;
            bytes
        };
        // A frame, the record tables, the frame table, the locator; cuts.
        let tail = index.len() - if codec == Codec::Gzip { 100 } else { 70 };
        for (what, count) in [("frame", 800), ("index", 600), ("cut", 600), ("gone", 600)] {
            match what {
                "frame" => replace(&keys[1], flipped(&whole, 20)).await,
                "index" if codec == Codec::None => replace(&sidecar, flipped(&index, tail)).await,
                "index" => replace(&keys[1], flipped(&index, tail)).await,
                "cut" => replace(&keys[1], whole[..whole.len() / 2].to_vec()).await,
                _ if codec == Codec::None => store.delete(&sidecar).await.unwrap(),
                _ => replace(&keys[1], Vec::new()).await,
            }
            let found = read(&store, Some("a"), Times::default(), By::Offset, false).await;
            let lines = found.text.iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!((lines, found.worst), (count, Worst::Damaged), "{codec:?} {what}: {:?}", found.said);
            assert!(found.said.len() == 1 && found.said[0].contains(&keys[1]), "{codec:?} {what}: {:?}", found.said);
            replace(&keys[1], whole.to_vec()).await;
            if codec == Codec::None {
                replace(&sidecar, index.to_vec()).await;
            }
        }
        let found = read(&store, Some("a"), Times::default(), By::Offset, false).await;
        assert_eq!(found.text.iter().filter(|&&byte| byte == b'\n').count(), 900);
    }
}

#[tokio::test]
async fn any_flipped_byte_is_noticed_or_harmless() {
    for codec in CODECS {
        let store = memory();
        let mut writer = Writer::new(Arc::clone(&store), Format::Raw, codec);
        writer.frame_records = 10;
        let key = writer.put("a", &lines(0, 30, DAY, 1)).await;
        let whole = store.get(&key, ByteRange::All, None).await.unwrap().unwrap().bytes;
        let right = parsed(&read(&store, Some("a"), Times::default(), By::Offset, true).await.text);
        assert_eq!(right.len(), 30);
        for at in (0..whole.len()).step_by(19) {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1 << (at % 8);
            store.delete(&key).await.unwrap();
            put(store.as_ref(), &key, bytes).await;
            let found = read(&store, Some("a"), Times::default(), By::Offset, true).await;
            let records = parsed(&found.text);
            assert!(records.iter().all(|record| right.contains(record)), "{codec:?} byte {at}");
            let is_noticed = found.worst == Worst::Damaged || found.worst == Worst::Unread;
            assert!(is_noticed || records == right, "{codec:?} byte {at}: {:?}", found.said);
        }
    }
}

#[tokio::test]
async fn other_tools_files_are_read_whole_and_that_is_said() {
    let store = memory();
    let mut writer = Writer::new(Arc::clone(&store), Format::Raw, Codec::Lz4);
    writer.put("a", &[Made::line(0, 0, DAY, "ours")]).await;
    let text = b"one\ntwo\nno newline".to_vec();
    let lz4 = |text: &[u8]| {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        std::io::Write::write_all(&mut encoder, text).unwrap();
        encoder.finish().unwrap()
    };
    put(store.as_ref(), "a/x.log", text.clone()).await;
    put(store.as_ref(), "a/y.lz4", [lz4(b"lz4 1\n"), lz4(b"lz4 2\n")].concat()).await;
    put(
        store.as_ref(),
        "a/z.zst",
        [zstd::encode_all(&b"zstd\n"[..], 1).unwrap(), zstd::encode_all(&b"2\n"[..], 1).unwrap()].concat(),
    )
    .await;
    put(store.as_ref(), "a/zz.jsonl", b"{\"a\":1}\n".to_vec()).await;
    let found = read(&store, Some("a"), Times::default(), By::Offset, false).await;
    let text = String::from_utf8(found.text).unwrap();
    assert_eq!(text, "one\ntwo\nno newline\nlz4 1\nlz4 2\nzstd\n2\n{\"a\":1}\nours\n");
    assert_eq!((found.said.len(), found.worst), (4, Worst::Fine), "{:?}", found.said);
    assert!(found.said[0].contains("a/x.log has no index"), "{:?}", found.said);
    let json = read(&store, Some("a"), Times::default(), By::Offset, true).await;
    let text = String::from_utf8(json.text).unwrap();
    assert!(
        text.starts_with("{\"value\":\"one\"}\n") && text.contains("\n{\"a\":1}\n{\"topic\":\"applogs\""),
        "{text}"
    );
}

/// Gives another object of the same records after some requests: finished twice, with other frames.
#[derive(Debug)]
struct Twice {
    inner: Arc<dyn Store>,
    key: String,
    other: Vec<u8>,
    gets: Mutex<u32>,
    at: u32,
}

#[async_trait::async_trait]
impl Store for Twice {
    async fn create(
        &self,
        _: &str,
        _: &sluice::store::Body,
        _: Option<&str>,
    ) -> Result<sluice::store::Created, sluice::store::StoreError> {
        unreachable!("reading writes nothing")
    }

    async fn head(&self, key: &str) -> Result<Option<sluice::store::Head>, sluice::store::StoreError> {
        self.inner.head(key).await
    }

    async fn get(
        &self,
        key: &str,
        range: ByteRange,
        if_match: Option<&str>,
    ) -> Result<Option<sluice::store::Got>, sluice::store::StoreError> {
        let number = {
            let mut gets = self.gets.lock().unwrap();
            *gets += 1;
            *gets
        };
        if number == self.at {
            self.inner.delete(&self.key).await.unwrap();
            put(self.inner.as_ref(), &self.key, self.other.clone()).await;
        }
        self.inner.get(key, range, if_match).await
    }

    async fn list(
        &self,
        prefix: &str,
        depth: sluice::store::Depth,
        after: Option<&str>,
        limit: usize,
    ) -> Result<sluice::store::Page, sluice::store::StoreError> {
        self.inner.list(prefix, depth, after, limit).await
    }

    async fn delete(&self, _: &str) -> Result<(), sluice::store::StoreError> {
        unreachable!("reading deletes nothing")
    }

    fn url(&self) -> &str {
        self.inner.url()
    }
}

#[tokio::test]
async fn a_file_that_is_finished_again_while_it_is_read_gives_each_record_once() {
    for at in [2, 3, 5, 7, 9] {
        let store = memory();
        let mut writer = Writer::new(Arc::clone(&store), Format::Raw, Codec::Zstd);
        // Frames of some megabytes each are fetched one by one.
        let mut records = lines(0, 600, DAY, 1);
        records.iter_mut().for_each(|record| record.value = Some(noise(record.offset, 750).into_bytes()));
        let before = writer.put("a", &lines(-100, 100, DAY - 1, 0)).await;
        let key = writer.put("a", &records).await;
        assert!(before < key);
        let other = {
            let mut writer = writer.clone();
            writer.frame_records = 70;
            writer.file("a", &records).1
        };
        let twice = Twice { inner: Arc::clone(&store), key, other, gets: Mutex::default(), at };
        let twice: Arc<dyn Store> = Arc::new(twice);
        let found = read(&twice, Some("a"), Times::default(), By::Offset, true).await;
        let offsets: Vec<i64> = parsed(&found.text).iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (-100..600).collect::<Vec<_>>(), "changed before request {at}");
        assert_eq!(found.worst, Worst::Fine);
    }
}
