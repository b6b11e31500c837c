//! Counts what the Rust code of a thread allocates.
//!
//! Owns: the allocator of the unit tests, and the peak of a thread's live bytes. Does not own: what C code allocates (zstd).

#![allow(unsafe_code, reason = "an allocator can't be written without; only tests have it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Live bytes and their peak since the last measurement began; other threads' frees of them are not seen.
    static LIVE: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // A thread that is ending has no counter any more.
    let _ = LIVE.try_with(|live| {
        let now = live.get().0 + bytes;
        live.set((now, live.get().1.max(now)));
    });
}

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(place, layout, new_size) }
    }
}

/// Runs something and returns the most bytes that it held at a time, with its result.
pub(super) fn peak<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.with(|live| {
        live.set((live.get().0, live.get().0));
        live.get().0
    });
    let result = run();
    let peak = LIVE.with(|live| live.get().1) - before;
    (result, usize::try_from(peak).unwrap_or(0))
}

#[test]
fn the_peak_is_that_of_the_run() {
    let (kept, bytes) = peak(|| {
        drop(Vec::<u8>::with_capacity(5000));
        Vec::<u8>::with_capacity(3000)
    });
    assert_eq!((kept.capacity(), bytes), (3000, 5000));
}
