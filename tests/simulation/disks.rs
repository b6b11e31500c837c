//! The disks of a history's machines: each holds a spool, is used by one process at a time and found again by a later one.
//!
//! Owns: which process gets which disk, damage to it. Does not own: what processes write to it (the product's).

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use sluice::pipeline::spool::Spool;

use crate::mutation::Mutation;
use crate::process::Process;
use crate::workers::{LOG_PATH, worker_id};
use crate::world::{Rng, World};

/// The disks of one history; gone with it.
#[derive(Debug)]
pub struct Disks {
    disks: Vec<Disk>,
    /// Each process comes back on the disk of the last owner, undamaged.
    pub always_again: bool,
    /// Of their own: the rest of a history does not depend on them.
    pub rng: Rng,
}

#[derive(Debug)]
struct Disk {
    dir: PathBuf,
    spool: Weak<Spool>,
    /// The process that uses or used it.
    process: u32,
}

impl Disks {
    pub fn new(seed: u64) -> Self {
        Self { disks: Vec::new(), always_again: false, rng: Rng::new(seed ^ 0xd15c_0000_0000) }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in &self.disks {
            let _ = fs::remove_dir_all(&disk.dir);
        }
    }
}

/// A folder that no other history uses.
fn new_folder() -> PathBuf {
    thread_local! {
        static FOLDERS: RefCell<(Option<tempfile::TempDir>, u64)> = const { RefCell::new((None, 0)) };
    }
    FOLDERS.with_borrow_mut(|(dir, count)| {
        let dir = dir.get_or_insert_with(|| {
            // Memory, where there is such a folder: a history writes thousands of files.
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
        });
        *count += 1;
        dir.path().join(count.to_string())
    })
}

/// The spool of a process that starts: often that of a process which is gone.
pub fn spool(process: &Process, mutation: Mutation, max_bytes: u64) -> Arc<Spool> {
    let world = &process.world;
    let mut disks = world.disks();
    let owner = world.oracle().log(LOG_PATH).and_then(|state| state.owner.clone());
    let free: Vec<usize> = (0..disks.disks.len()).filter(|&at| disks.disks[at].spool.strong_count() == 0).collect();
    let again = !free.is_empty() && (disks.always_again || disks.rng.chance(80));
    let at = if again {
        // Mostly that of the last owner.
        let is_owners =
            |at: usize| owner.as_ref().is_some_and(|owner| owner.worker == worker_id(disks.disks[at].process));
        let owners = free.iter().copied().find(|&at| is_owners(at));
        let another = free.iter().copied().rev().find(|&at| !is_owners(at));
        let any = free[disks.rng.below(free.len() as u64) as usize];
        match mutation {
            Mutation::SpoolOfAnotherOwner => another.unwrap_or(any),
            _ if disks.always_again || disks.rng.chance(70) => owners.unwrap_or(any),
            _ => any,
        }
    } else {
        disks.disks.push(Disk { dir: new_folder(), spool: Weak::new(), process: 0 });
        disks.disks.len() - 1
    };
    let dir = disks.disks[at].dir.clone();
    if again {
        world.count("disk found again");
        if mutation == Mutation::SpoolOfAnotherOwner {
            pass_off(world, &dir);
        } else if !disks.always_again && disks.rng.chance(8) {
            damage(world, &dir, &mut disks.rng);
        }
    }
    let spool = Arc::new(Spool::open(&dir, max_bytes).unwrap());
    disks.disks[at].spool = Arc::downgrade(&spool);
    disks.disks[at].process = process.id;
    process.uses(&spool);
    spool
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    // The same history has the same order.
    entries.sort();
    for path in entries {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// A file is cut short, has other bytes, or is gone, as after a crash of the machine.
fn damage(world: &World, dir: &Path, rng: &mut Rng) {
    let files = files(&dir.join("tasks"));
    if files.is_empty() {
        return;
    }
    let path = &files[rng.below(files.len() as u64) as usize];
    let mut bytes = fs::read(path).unwrap();
    let at = rng.below(bytes.len() as u64) as usize;
    match rng.below(3) {
        0 => fs::remove_file(path).unwrap(),
        1 => fs::write(path, &bytes[..at]).unwrap(),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x20;
            }
            fs::write(path, bytes).unwrap();
        }
    }
    world.count("spool damaged");
    world.trace(format_args!("the spool is damaged"));
}

/// What some owner left is taken for what the last one left.
fn pass_off(world: &World, dir: &Path) {
    let Some(owner) = world.oracle().log(LOG_PATH).and_then(|state| state.owner.clone()) else { return };
    for journal in files(&dir.join("tasks")).iter().filter(|path| path.ends_with("journal")) {
        let mut bytes = fs::read(journal).unwrap();
        let folder = journal.parent().unwrap();
        let token = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let head = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize + 12;
        let Some(at) = bytes[..head].windows(token.len()).position(|found| found == token.as_bytes()) else { continue };
        bytes[at..at + token.len()].copy_from_slice(owner.token.0.as_bytes());
        let crc = crc32c::crc32c(&bytes[12..head]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        fs::write(journal, bytes).unwrap();
        let passed_off = folder.with_file_name(&owner.token.0);
        if !passed_off.exists() {
            fs::rename(folder, passed_off).unwrap();
        }
    }
}
