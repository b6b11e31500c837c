use std::sync::Arc;

use super::*;
use crate::store::contract;

fn bytes(text: &str) -> Body {
    Body::Bytes(Bytes::from(text.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    contract::run(Arc::new(LocalStore::open(dir.path().join("a/new/root")).unwrap()), scratch.path()).await;
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "a test that does not run says why")]
async fn it_keeps_the_contract_where_the_spool_is_another_file_system() {
    let shm = Path::new("/dev/shm");
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = shm.is_dir() && fs::metadata(shm).unwrap().dev() != fs::metadata(dir.path()).unwrap().dev();
    if !elsewhere {
        println!("not run: /dev/shm is no file system of its own here");
        return;
    }
    let scratch = tempfile::tempdir_in(shm).unwrap();
    contract::run(Arc::new(LocalStore::open(dir.path()).unwrap()), scratch.path()).await;
}

#[tokio::test]
async fn a_spooled_file_is_linked_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let spooled = dir.path().join("spooled");
    fs::write(&spooled, "sealed").unwrap();
    let store = LocalStore::open(dir.path().join("store")).unwrap();
    let file = Body::File { path: spooled.clone(), len: 6, crc: None };
    assert_eq!(store.create("a/b", &file, None).await.unwrap(), Created::New);
    let placed = dir.path().join("store/a/b");
    assert_eq!(fs::metadata(&placed).unwrap().ino(), fs::metadata(&spooled).unwrap().ino());
    fs::remove_file(&spooled).unwrap();
    assert_eq!(fs::read(&placed).unwrap(), b"sealed");
}

#[tokio::test]
async fn leftovers_of_dead_writers_are_hidden_and_swept_those_of_the_living_stay() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a");
    fs::create_dir(&folder).unwrap();
    let (dead, living) = (folder.join(".sluice-tmp-dead-0"), folder.join(".sluice-tmp-living-0"));
    fs::write(&dead, "half").unwrap();
    let held = File::create(&living).unwrap();
    held.lock().unwrap();

    let store = LocalStore::open(dir.path()).unwrap();
    assert_eq!(store.list("", Depth::All, None, 10).await.unwrap(), Page::default());
    assert_eq!(store.list("", Depth::Folder, None, 10).await.unwrap(), Page::default());
    store.create("a/new", &bytes("x"), None).await.unwrap();
    assert!(!dead.exists());
    assert!(living.exists());
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn a_store_that_vanishes_is_not_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = LocalStore::open(&root).unwrap();
    assert!(store.head("a").await.unwrap().is_none());
    assert_eq!(store.list("", Depth::All, None, 10).await.unwrap(), Page::default());
    store.create("a", &bytes("x"), None).await.unwrap();
    fs::rename(&root, dir.path().join("away")).unwrap();
    let faults = [
        store.head("a").await.unwrap_err().fault,
        store.get("a", ByteRange::All, None).await.unwrap_err().fault,
        store.list("", Depth::All, None, 10).await.unwrap_err().fault,
        store.create("b", &bytes("x"), None).await.unwrap_err().fault,
        store.delete("a").await.unwrap_err().fault,
    ];
    assert_eq!(faults, [Fault::NoBucket; 5]);
    assert!(!root.exists());
}

#[tokio::test]
async fn a_removed_folder_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    store.create("a/b/1", &bytes("x"), None).await.unwrap();
    fs::remove_dir_all(dir.path().join("a")).unwrap();
    assert_eq!(store.create("a/b/2", &bytes("y"), None).await.unwrap(), Created::New);
}

#[tokio::test]
async fn a_key_that_is_a_folder_of_others_is_a_wrong_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    store.create("a/b", &bytes("x"), None).await.unwrap();
    assert_eq!(store.create("a", &bytes("y"), None).await.unwrap_err().fault, Fault::Invalid);
    assert_eq!(store.create("a/b/c", &bytes("y"), None).await.unwrap_err().fault, Fault::Invalid);
    assert!(store.head("a").await.unwrap().is_none());
    assert!(store.head("a/b/c").await.unwrap().is_none());
}

#[tokio::test]
async fn a_directory_of_thousands_is_listed_page_by_page_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    for n in 0..300 {
        // Every third is an empty folder, which must not end a page early.
        let path = dir.path().join(format!("{n:04}"));
        if n % 3 == 0 { fs::create_dir(path).unwrap() } else { fs::write(path, "x").unwrap() }
    }
    for depth in [Depth::All, Depth::Folder] {
        let (mut count, mut after) = (0, None);
        loop {
            let page = store.list("", depth, after.as_deref(), 7).await.unwrap();
            count += page.objects.len();
            assert!(page.folders.is_empty());
            if page.next.is_none() {
                break;
            }
            assert_eq!(page.objects.len(), 7);
            after = page.next;
        }
        assert_eq!(count, 200);
    }
}
