use std::collections::BTreeMap;
use std::ops::Range;

use super::*;
use crate::archive::codec::Encoder;
use crate::archive::format::Format;
use crate::archive::frame::FrameBuffer;
use crate::archive::index::{IndexRead, read_index, read_record_table};
use crate::record::{Headers, Record};

fn facts() -> FileFacts {
    FileFacts {
        connector: "c".to_owned(),
        cluster_id: None,
        topic: "t".to_owned(),
        topic_id: None,
        incarnation: 0,
        app: "a".to_owned(),
        bucket_start_secs: None,
        intent_id: "0".repeat(32),
        digests: BTreeMap::new(),
        log_number: 1,
        settings_hash: String::new(),
        lows: BTreeMap::new(),
        format: Format::Raw,
        codec: Codec::None,
        skipped: Vec::new(),
    }
}

/// Values that tell their place; one has two lines, so that lengths matter.
fn value(partition: i32, offset: i64) -> String {
    let line = format!("{partition}/{offset}");
    if offset % 3 == 0 { format!("{line}\n{line}") } else { line }
}

/// One attempt to make a plain file: its data and its sidecar. `frames` are records as (partition, offset).
fn attempt(frames: &[&[(i32, i64)]]) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 1 << 20).unwrap();
    let task = spool.task("c", "t", 0, Begin::new("token", "settings", 0)).unwrap();
    let file = task.file(1);
    let mut encoder = Encoder::new(Codec::None, None).unwrap();
    // The last frame first: they are written in their order.
    for (sequence, records) in frames.iter().enumerate().rev() {
        let mut buffer = FrameBuffer::default();
        for &(partition, offset) in *records {
            let value = value(partition, offset);
            let (value, headers) = (Some(value.as_bytes()), Headers::default());
            let record = Record { partition, offset, timestamp_ms: offset, key: None, value, headers };
            buffer.push(Format::Raw, "t", 1, &record, offset);
        }
        let mut frame = Vec::new();
        let meta = buffer.encode_apart(&mut encoder, &mut frame).unwrap();
        file.write_frame(u32::try_from(sequence).unwrap(), frame, meta, None).unwrap();
    }
    let finished = file.finish(Codec::None, &facts()).unwrap();
    let read = |file: Finished| {
        let bytes = fs::read(file.path).unwrap();
        assert_eq!((bytes.len() as u64, crc32c::crc32c(&bytes)), (file.bytes, file.crc));
        bytes
    };
    (read(finished.data), read(finished.sidecar.unwrap()))
}

#[test]
fn attempts_that_cut_a_plain_file_elsewhere_make_the_same_bytes() {
    let (data, sidecar) = attempt(&[&[(1, 3), (0, 5), (1, 4)], &[(0, 6), (2, 0)], &[(1, 9), (0, 7)]]);
    let (other_data, other_sidecar) = attempt(&[&[(2, 0), (0, 5), (0, 6), (0, 7), (1, 3)], &[(1, 4), (1, 9)]]);
    assert_eq!(String::from_utf8(data).unwrap(), String::from_utf8(other_data.clone()).unwrap());
    assert_ne!(sidecar, other_sidecar);
    for sidecar in [sidecar, other_sidecar] {
        let Ok(IndexRead::Index(index)) = read_index(Codec::None, sidecar.len() as u64, &sidecar) else {
            panic!("no index")
        };
        let (mut text, mut at) = (String::new(), 0);
        for frame in &index.frames {
            let bytes = |range: Range<u64>| {
                sidecar[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
            };
            let table: Vec<u8> = index.table_ranges(frame).into_iter().flat_map(bytes).collect();
            let start = text.len();
            for record in read_record_table(frame, &table).unwrap() {
                text.push_str(&value(record.partition, record.offset));
                text.push('\n');
            }
            let stored = &other_data[start..text.len()];
            assert_eq!((frame.offset, frame.stored_len), (at, stored.len() as u64));
            assert_eq!(frame.crc, crc32c::crc32c(stored));
            at += frame.stored_len;
        }
        assert_eq!(text.as_bytes(), other_data);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "either order ends well, the pause only makes the waiting likely")]
fn a_lock_that_is_let_go_is_waited_for_and_one_that_is_not_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let first = Spool::open(dir.path(), 1 << 20).unwrap();
    let error = Spool::open(dir.path(), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("is used by another process"), "{error}");
    std::thread::scope(|scope| {
        let second = scope.spawn(|| Spool::open(dir.path(), 1 << 20));
        std::thread::sleep(LOCK_PAUSE * 2);
        drop(first);
        second.join().unwrap().unwrap();
    });
}

/// A spool of one process: two files of two frames each, and a floor.
fn filled(dir: &Path) {
    let spool = Spool::open(dir, 1 << 20).unwrap();
    let task = spool.task("c", "t", 0, begin("first")).unwrap();
    for id in [3, 7] {
        let file = task.file(id);
        for sequence in 0..2 {
            write(&file, sequence, &format!("frame {sequence} of {id}"));
        }
        spool.keep();
    }
    task.write_floor(floor(5)).unwrap();
}

fn begin(token: &str) -> Begin {
    Begin::new(token, "settings", 0)
}

fn floor(offset: i64) -> Floor {
    Floor { offsets: BTreeMap::from([(0, offset)]), ..Floor::default() }
}

fn note() -> FileNote {
    let lane = crate::ledger::Lane { app: "a".to_owned(), bucket_start_secs: None };
    let app = crate::pipeline::lane::OwnedAppKey::Id(b"a".as_slice().into());
    let opener = crate::pipeline::lane::Opener { partition: 0, offset: 0, time_ms: 0 };
    FileNote { lane, app, opener, opened_at_ms: 1, held: Vec::new(), after: BTreeMap::new() }
}

fn write(file: &SpoolFile, sequence: u32, text: &str) {
    let meta = FrameMeta {
        raw_len: 10,
        stored_len: text.len() as u64,
        crc: crc32c::crc32c(text.as_bytes()),
        min_time_ms: 0,
        max_time_ms: 0,
        partitions: Vec::new(),
        sum: 0,
        table_raw_len: 0,
        // Longer than what stays in memory.
        table: vec![7; META_IN_MEMORY_BYTES],
    };
    file.write_frame(sequence, text.as_bytes().to_vec(), vec![meta], Some(note())).unwrap();
}

fn adopt(spool: &Spool, files: &[FileId]) -> Result<Adopted, String> {
    let left = spool.left("c", "t", 0, "first").unwrap();
    spool.adopt(&left, files, ("c", "t", 0), begin("second"), floor(6))
}

fn data_of(dir: &Path, token: &str, id: FileId) -> PathBuf {
    data_path(&dir.join("tasks/c/t/0").join(token), id)
}

/// What a process left is the next one's, as if it had written it itself; and again the one's after that.
#[test]
fn a_spool_goes_from_process_to_process() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    {
        let spool = Spool::open(dir.path(), 1 << 20).unwrap();
        let left_bytes = spool.used_bytes();
        let left = spool.left("c", "t", 0, "first").unwrap();
        assert_eq!(left.journal.floor, Some(floor(5)));
        let files: Vec<_> = left.journal.files.iter().map(|(&id, file)| (id, file.frames, file.raw_bytes)).collect();
        assert_eq!(files, [(3, 2, 20), (7, 2, 20)]);
        assert!(spool.left("c", "t", 0, "another").is_none());
        let adopted = adopt(&spool, &[7]).unwrap();
        assert!(!data_of(dir.path(), "second", 3).exists());
        assert!(spool.used_bytes() < left_bytes, "{} of {left_bytes}", spool.used_bytes());
        let file = &adopted.files[&7];
        write(file, 2, "frame 2 of 7");
        adopted.spool.write_floor(floor(6)).unwrap();
        spool.keep();
    }
    let spool = Spool::open(dir.path(), 1 << 20).unwrap();
    let left = spool.left("c", "t", 0, "second").unwrap();
    assert_eq!((left.journal.files[&7].frames, left.journal.floor.clone()), (3, Some(floor(6))));
    let adopted = spool.adopt(&left, &[7], ("c", "t", 0), begin("third"), floor(6)).unwrap();
    let finished = adopted.files[&7].finish(Codec::Lz4, &facts()).unwrap();
    let bytes = fs::read(&finished.data.path).unwrap();
    assert_eq!((bytes.len() as u64, crc32c::crc32c(&bytes)), (finished.data.bytes, finished.data.crc));
    assert!(bytes.starts_with(b"frame 0 of 7frame 1 of 7frame 2 of 7"));
    drop(adopted);
    assert_eq!(spool.used_bytes(), 0);
    assert_eq!(bytes_in(&dir.path().join("tasks")), 0, "what is not kept is deleted");
}

/// Half a frame, or a tail, behind what the journal tells of is cut off; anything else that is not what was written is refused.
#[test]
fn only_what_was_written_is_adopted() {
    let change = |change: &dyn Fn(&Path), files: &[FileId]| {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        change(&data_of(dir.path(), "first", 3));
        let spool = Spool::open(dir.path(), 1 << 20).unwrap();
        adopt(&spool, files).map(|adopted| {
            let bytes = fs::read(data_of(dir.path(), "second", 3)).unwrap();
            drop(adopted);
            String::from_utf8(bytes).unwrap()
        })
    };
    let append = |path: &Path| OpenOptions::new().append(true).open(path).unwrap().write_all(b"half a fr").unwrap();
    assert_eq!(change(&append, &[3]).unwrap(), "frame 0 of 3frame 1 of 3");
    let shorten = |path: &Path| OpenOptions::new().write(true).open(path).unwrap().set_len(20).unwrap();
    assert!(change(&shorten, &[3, 7]).unwrap_err().contains("is not what was written"));
    let flip = |path: &Path| fs::write(path, b"frame 0 of 3frame X of 3").unwrap();
    assert!(change(&flip, &[7, 3]).unwrap_err().contains("is not what was written"));
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    assert!(change(&remove, &[3]).is_err());
    assert!(change(&|_| {}, &[4]).unwrap_err().contains("file 4"));
}

/// An upload that a kill interrupted may have linked the file into an archive, whence it was moved on.
#[test]
fn a_file_that_has_another_name_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (file, object) = (data_of(dir.path(), "first", 3), dir.path().join("object"));
    OpenOptions::new().append(true).open(&file).unwrap().write_all(b" and a tail").unwrap();
    fs::hard_link(&file, &object).unwrap();
    let spool = Spool::open(dir.path(), 1 << 20).unwrap();
    let adopted = adopt(&spool, &[3]).unwrap();
    write(&adopted.files[&3], 2, "more");
    assert_eq!(fs::read(&object).unwrap(), b"frame 0 of 3frame 1 of 3 and a tail");
    assert_eq!(fs::read(data_of(dir.path(), "second", 3)).unwrap(), b"frame 0 of 3frame 1 of 3more");
}

/// Whatever part of a journal can still be read tells of nothing that was not there.
#[test]
fn a_torn_journal_tells_of_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let path = dir.path().join("tasks/c/t/0/first/journal");
    let whole = fs::read(&path).unwrap();
    let mut told = Vec::new();
    for len in (0..whole.len()).step_by(53) {
        fs::write(&path, &whole[..len]).unwrap();
        let found = journal::read(&path).unwrap();
        told.push(found.map_or(0, |found| {
            assert!(found.floor.is_none(), "it comes last");
            found.files.values().map(|file| file.frames).sum::<u32>() + 1
        }));
    }
    assert!(told.is_sorted() && told.first() == Some(&0) && told.last() == Some(&5), "{told:?}");
    // A bit anywhere ends it there.
    for at in [20, 400, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let frames = |found: journal::JournalFound| found.files.values().map(|file| file.frames).sum::<u32>() + 1;
        assert!(journal::read(&path).unwrap().map_or(0, frames) <= told[at / 53].max(1), "{at}");
    }
}

/// The log is about to decide of what lies here: a kill afterwards must find it.
#[test]
fn what_is_written_down_is_there_without_a_floor() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 1 << 20).unwrap();
    let task = spool.task("c", "t", 0, begin("first")).unwrap();
    let file = task.file(1);
    write(&file, 0, "frame 0");
    let frames = || journal::read(task.journal.path()).unwrap().unwrap().files.get(&1).map_or(0, |file| file.frames);
    assert_eq!(frames(), 0, "entries are gathered");
    task.write_journal().unwrap();
    assert_eq!(frames(), 1);
    task.write_journal().unwrap();
    assert_eq!(frames(), 1, "once");
}

/// A worker that runs for months keeps a journal of what is open.
#[test]
fn a_journal_stays_short() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 1 << 30).unwrap();
    let task = spool.task("c", "t", 0, begin("first")).unwrap();
    let open = task.file(1);
    write(&open, 0, "it stays");
    task.write_floor(floor(1)).unwrap();
    for id in 2..6_000 {
        let file = task.file(id);
        write(&file, 0, "it goes");
        task.write_floor(floor(id as i64)).unwrap();
    }
    write(&open, 1, "it stays");
    task.write_floor(floor(6_000)).unwrap();
    spool.keep();
    let bytes = fs::metadata(task.journal.path()).unwrap().len();
    assert!(bytes < 9 << 20, "{bytes}");
    let found = journal::read(task.journal.path()).unwrap().unwrap();
    assert_eq!((found.files[&1].frames, found.floor), (2, Some(floor(6_000))));
    assert!(found.files.len() < 2_000, "{}", found.files.len());
}

/// Nothing that was left stays for ever.
#[test]
fn what_nobody_takes_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let spool = Spool::open(dir.path(), 1 << 20).unwrap();
    assert!(spool.used_bytes() > 0);
    spool.forget_left("c", "another", 0);
    assert!(spool.used_bytes() > 0);
    spool.forget_left("c", "t", 0);
    assert_eq!((spool.used_bytes(), spool.left("c", "t", 0, "first").is_none()), (0, true));
    filled(tempfile::tempdir().unwrap().path());
    drop(spool);
    filled(dir.path());
    let spool = Spool::open(dir.path(), 1 << 20).unwrap();
    spool.forget_all_left();
    assert_eq!((spool.used_bytes(), bytes_in(dir.path())), (0, 0));
}

/// On a full disk, say: what can't be adopted does not stay, counted or not.
#[test]
fn what_can_not_be_made_ones_own_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::create_dir(dir.path().join("tasks/c/t/0/first/journal.old")).unwrap();
    let spool = Spool::open(dir.path(), 1 << 20).unwrap();
    let refused = adopt(&spool, &[3, 7]).unwrap_err();
    assert!(refused.contains("can't be made its own"), "{refused}");
    spool.forget_left("c", "t", 0);
    assert_eq!((spool.used_bytes(), bytes_in(dir.path())), (0, 0));
}

/// Where all that comes is left out no frame is cut, and the journal is shortened all the same.
#[test]
fn floors_alone_do_not_make_a_journal_long() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 1 << 30).unwrap();
    let task = spool.task("c", "t", 0, begin("first")).unwrap();
    for offset in 0..1_000 {
        let epochs = BTreeMap::from([(0, (0..1_000).map(|first| (first, Some(7))).collect())]);
        task.write_floor(Floor { epochs, ..floor(offset) }).unwrap();
    }
    let bytes = fs::metadata(task.journal.path()).unwrap().len();
    assert!(bytes < 9 << 20, "{bytes}");
    let found = journal::read(task.journal.path()).unwrap().unwrap();
    assert_eq!(found.floor.unwrap().offsets[&0], 999);
}

/// A process that ends before any of its tasks begins does not cost the next one the spool.
#[test]
fn what_was_left_outlives_a_process_without_tasks() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    drop(Spool::open(dir.path(), 1 << 20).unwrap());
    let spool = Spool::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(adopt(&spool, &[3, 7]).unwrap().files.len(), 2);
}
