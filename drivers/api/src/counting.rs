//! An allocator that counts, for the tests that keep the hot path free of allocations.
//!
//! A test program installs it with `#[global_allocator]`; shipped programs do not. It lives here because an allocator is
//! unsafe code, and the crates whose hot paths are tested have none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The system's allocator, counting every call that may allocate.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

static ALL: AtomicU64 = AtomicU64::new(0);

/// Threads told apart in one process.
const THREADS_MAX: usize = 1024;

/// What one thread has allocated.
struct Thread {
    /// The system's number for it; 0 for nobody.
    id: AtomicU64,
    count: AtomicU64,
}

static THREADS: [Thread; THREADS_MAX] = [const {
    Thread {
        id: AtomicU64::new(0),
        count: AtomicU64::new(0),
    }
}; THREADS_MAX];
static THREADS_SEEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN: Cell<u64> = const { Cell::new(0) };
    /// This thread's place in the table.
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

impl CountingAllocator {
    /// Allocations of all threads so far; 0 for ever where the allocator is not installed.
    #[must_use]
    pub fn count() -> u64 {
        ALL.load(Ordering::Relaxed)
    }

    /// Allocations of the calling thread so far; 0 for ever where the allocator is not installed.
    #[must_use]
    pub fn thread_count() -> u64 {
        OWN.with(Cell::get)
    }

    /// Allocations so far of the thread that the system knows by this number. Threads beyond the first 1024 of a process
    /// count together, with every one of them.
    #[must_use]
    pub fn count_of(thread: u32) -> u64 {
        let last = &THREADS[THREADS_MAX - 1];
        let own = |entry: &&Thread| entry.id.load(Ordering::Relaxed) == u64::from(thread);
        let entry = THREADS[..THREADS_MAX - 1].iter().find(own);
        entry.unwrap_or(last).count.load(Ordering::Relaxed)
    }
}

fn note() {
    ALL.fetch_add(1, Ordering::Relaxed);
    // A thread that is ending may allocate after its locals are gone; the total has it.
    let _ = OWN.try_with(|own| own.set(own.get() + 1));
    let place = PLACE.try_with(|place| {
        let at = place.get().unwrap_or_else(enter);
        place.set(Some(at));
        at
    });
    let place = place.unwrap_or(THREADS_MAX - 1);
    THREADS[place].count.fetch_add(1, Ordering::Relaxed);
}

/// Gives the calling thread a place in the table.
#[cold]
fn enter() -> usize {
    let at = THREADS_SEEN
        .fetch_add(1, Ordering::Relaxed)
        .min(THREADS_MAX - 1);
    // SAFETY: the call takes nothing and cannot fail.
    let id = unsafe { libc::gettid() };
    THREADS[at]
        .id
        .store(u64::from(id.unsigned_abs()), Ordering::Relaxed);
    at
}

// SAFETY: every call goes to the system's allocator unchanged, and counting neither allocates nor unwinds: the counters
// are statics and thread locals that are initialised at compile time and have nothing to drop.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are the callee's preconditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are the callee's preconditions.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are the callee's preconditions, and the block came from the system's allocator.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the callee's preconditions, and the block came from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }
}
