//! An allocator that counts, for the tests that keep the hot path free of allocations.
//!
//! A test program installs it with `#[global_allocator]`; shipped programs do not. It lives here because an allocator is
//! unsafe code, and the crates whose hot paths are tested have none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, counting every call that may allocate.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

static ALL: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static OWN: Cell<u64> = const { Cell::new(0) };
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
}

fn note() {
    ALL.fetch_add(1, Ordering::Relaxed);
    // A thread that is ending may allocate after its locals are gone; the total has it.
    let _ = OWN.try_with(|own| own.set(own.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged, and counting neither allocates nor unwinds: the counters
// are a static and a thread local that is initialised at compile time and has nothing to drop.
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
