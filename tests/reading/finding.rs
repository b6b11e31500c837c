//! Which files are found, and how they are opened.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use sluice::archive::codec::Codec;
use sluice::archive::format::Format;
use sluice::archive::index::sidecar_key;
use sluice::archive::key::KeyTemplate;
use sluice::clock::Environment;
use sluice::config::Bucket;
use sluice::reading::catalog::{Entry, apps, files};
use sluice::reading::counted::Counters;
use sluice::reading::file::{open, open_all};
use sluice::reading::place::Place;
use sluice::reading::times::Times;
use sluice::reading::{ReadError, catalog};
use sluice::store::memory::MemoryStore;
use sluice::store::{ByteRange, Store};

use crate::support::archive::{Made, Writer, put};

const CODECS: [Codec; 4] = [Codec::Lz4, Codec::Zstd, Codec::Gzip, Codec::None];
/// 2026-11-22 00:00 UTC.
const DAY: i64 = 1_795_305_600_000;
const HOUR_MS: i64 = 3_600_000;

fn records(first_offset: i64, count: i64, from_ms: i64) -> Vec<Made> {
    (first_offset..first_offset + count)
        .map(|offset| Made::line(0, offset, from_ms + offset, &format!("line {offset}")))
        .collect()
}

async fn keys(place: &Place, app: Option<&str>, times: Times) -> Vec<String> {
    let found: Vec<Entry> = files(place, app, &times).try_collect().await.unwrap();
    found.into_iter().map(|entry| entry.key).collect()
}

fn place(store: &Arc<MemoryStore>, bucket: Option<Bucket>) -> Place {
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    Place { bucket, ..Place::of_store(store, &Environment::system()) }
}

#[tokio::test]
async fn an_apps_files_are_found_and_nothing_else_is_listed() {
    let store = Arc::new(MemoryStore::new());
    let mut writer = Writer::new(Arc::clone(&store) as Arc<dyn Store>, Format::Raw, Codec::None);
    for app in ["a", "a.b", "ab", "_unknown"] {
        for hour in [1, 30, 50] {
            writer.put(app, &records(0, 3, DAY + hour * HOUR_MS)).await;
        }
    }
    for number in 0..3000 {
        put(store.as_ref(), &format!("_sluice/c/applogs/0/0/{number:020}"), vec![1]).await;
    }
    put(store.as_ref(), "zz/notes.txt", vec![1]).await;
    let place = place(&store, Some(Bucket::Day));
    let times = |since: i64, until: i64| Times {
        since_ms: Some(DAY + since * HOUR_MS),
        until_ms: (until > 0).then_some(DAY + until * HOUR_MS),
    };
    assert_eq!(keys(&place, None, Times::default()).await.len(), 13);
    let all = keys(&place, Some("a"), Times::default()).await;
    assert!(all.len() == 3 && all.iter().all(|key| key.starts_with("a/2026-11-2")), "{all:?}");
    assert_eq!(keys(&place, Some("a"), times(24, 0)).await, all[1..]);
    assert_eq!(keys(&place, Some("a"), times(26, 47)).await, all[1..2]);
    assert_eq!(keys(&place, Some("a"), times(0, 24)).await, all[..1]);
    let unknown = Place { bucket: None, ..place.clone() };
    assert_eq!(keys(&unknown, Some("a"), times(24, 0)).await, all);
    let found: Vec<String> = apps(&place).unwrap().try_collect().await.unwrap();
    assert_eq!(found, ["_unknown", "a.b", "a", "ab", "zz"]);
    assert_eq!(Counters::get(&place.counters.gets), 0);
    assert!(Counters::get(&place.counters.lists) < 12, "{:?}", place.counters);
}

#[tokio::test]
async fn the_hour_in_a_key_narrows_and_other_templates_are_followed() {
    for template in [
        "{app_id}/{date}/{time}_{topic}+{partition}+{offset}.{ext}",
        "{date}/{hour}/{app_id}/{topic}+{partition}+{offset}.{ext}",
    ] {
        let store = Arc::new(MemoryStore::new());
        let template = KeyTemplate::parse(template).unwrap();
        let mut writer = Writer::new(Arc::clone(&store) as Arc<dyn Store>, Format::Raw, Codec::Lz4);
        (writer.template, writer.bucket) = (template.clone(), Bucket::Hour);
        for hour in 0..48 {
            writer.put("a", &records(0, 1, DAY + hour * HOUR_MS)).await;
            writer.put("b", &records(0, 1, DAY + hour * HOUR_MS)).await;
        }
        let place = Place { key: template, ..place(&store, Some(Bucket::Hour)) };
        let times = Times { since_ms: Some(DAY + 25 * HOUR_MS + 1), until_ms: Some(DAY + 27 * HOUR_MS) };
        let found = keys(&place, Some("a"), times).await;
        assert!(
            found.len() == 2 && found[0].contains("2026-11-23/01") && found[1].contains("2026-11-23/02"),
            "{found:?}"
        );
    }
}

#[tokio::test]
async fn a_file_opens_by_its_end_and_pins_what_it_saw() {
    for codec in CODECS {
        let store = Arc::new(MemoryStore::new());
        let mut writer = Writer::new(Arc::clone(&store) as Arc<dyn Store>, Format::Json, codec);
        writer.put("a", &records(0, 10, DAY)).await;
        let mut large = writer.clone();
        large.frame_records = 1;
        large.put("a", &records(100, 2000, DAY)).await;
        let place = place(&store, None);
        let opened: Vec<_> = open_all(&place, catalog::files(&place, Some("a"), &Times::default())).collect().await;
        let opened: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
        assert_eq!(opened.len(), 2);
        for (file, frames) in opened.iter().zip([1, 2000]) {
            let index = file.index.as_ref().unwrap();
            assert_eq!((index.frames.len(), file.codec, index.facts.app.as_str()), (frames, codec, "a"));
            assert_eq!(file.etag.is_some(), codec != Codec::None);
            let head = store.head(&file.entry.key).await.unwrap().unwrap();
            assert!(file.size == head.size && file.etag.as_ref().is_none_or(|etag| *etag == head.etag));
        }
        // One request each, and one more for the large index.
        assert_eq!(Counters::get(&place.counters.gets), 3, "{codec:?}");
    }
}

#[tokio::test]
async fn other_tools_files_and_damage_are_told_apart() {
    for codec in CODECS {
        let store = Arc::new(MemoryStore::new());
        let mut writer = Writer::new(Arc::clone(&store) as Arc<dyn Store>, Format::Raw, codec);
        let key = writer.put("a", &records(0, 500, DAY)).await;
        let ext = key.rsplit_once(".log").unwrap().1.to_owned();
        let place = place(&store, None);
        let entry = |key: &str, size| Entry { key: key.to_owned(), size, parts: place.key.reader().read(key) };
        let whole = store.get(&key, ByteRange::All, None).await.unwrap().unwrap().bytes;
        let len = whole.len() as u64;
        // Cut off: named as ours, without an index.
        store.delete(&key).await.unwrap();
        put(store.as_ref(), &key, whole[..whole.len() - 7].to_vec()).await;
        let cut = open(&place, &entry(&key, len - 7)).await.unwrap_err();
        assert!(matches!(&cut, ReadError::Damaged { .. }) && cut.to_string().contains(&key), "{cut}");
        // One bit of the locator.
        store.delete(&key).await.unwrap();
        let index_key = if codec == Codec::None { sidecar_key(&key) } else { key.clone() };
        let mut bytes = match codec {
            Codec::None => store.get(&index_key, ByteRange::All, None).await.unwrap().unwrap().bytes.to_vec(),
            _ => whole.to_vec(),
        };
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        store.delete(&index_key).await.unwrap();
        put(store.as_ref(), &index_key, bytes).await;
        let flipped = open(&place, &entry(&key, len)).await.unwrap_err();
        assert!(matches!(&flipped, ReadError::Damaged { .. }), "{flipped}");
        // Another name, without an index.
        let other = format!("a/other.log{ext}");
        put(store.as_ref(), &other, b"no frames".to_vec()).await;
        assert_eq!(open(&place, &entry(&other, 9)).await.unwrap().index, None);
        let gone = open(&place, &entry("a/gone.lz4", 9)).await.unwrap_err();
        assert!(matches!(gone, ReadError::Gone { .. }), "{gone}");
    }
}
