//! Raw memory of buffer arenas, for drivers only: the one place where slices are made from raw parts.
//!
//! # Safety model
//!
//! An [`Arena`] is one allocation, cut into slots of equal stride. It is reached only through raw pointers: no
//! reference to the whole of it ever exists. A slot belongs to whoever holds its [`Buf`](crate::Buf). A `Buf` cannot be
//! copied or made outside this crate, and a pool checks its own number and the slot's generation at each use, so at
//! most one holder exists: the program (which may borrow the slot as a slice while it borrows the `Buf`) or a driver
//! (which has taken the `Buf` by value and whose device may write the slot). A driver keeps the `Arc<Arena>` for as
//! long as a device may touch the memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// One zeroed allocation cut into equal slots. Freed when the pool and every driver that registered it are gone.
///
/// *Units*: bytes. *Source*: DESIGN, buffer arenas.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    layout: Layout,
    stride_bytes: usize,
    slot_bytes: usize,
    slots: usize,
}

// SAFETY: the arena is plain memory reached through raw pointers; who may touch which slot is decided by the unique
// `Buf` handles, which move between threads by value.
unsafe impl Send for Arena {}
// SAFETY: as above: shared access to the arena gives out addresses only; slot contents are reached through `Buf`s.
unsafe impl Sync for Arena {}

impl Arena {
    /// Allocates `slots` slots of `slot_bytes`, `stride_bytes` apart, starting at a multiple of 4096, and touches every
    /// page so that none is faulted in later.
    ///
    /// # Panics
    ///
    /// If a size is zero, the stride is smaller than a slot, or the product overflows: the pool has checked them.
    pub(crate) fn new(slots: usize, slot_bytes: usize, stride_bytes: usize) -> Self {
        assert!(
            slots > 0 && slot_bytes > 0 && stride_bytes >= slot_bytes,
            "arena of {slots} x {slot_bytes}"
        );
        let bytes = slots
            .checked_mul(stride_bytes)
            .expect("the pool checks the size of its arena");
        let layout = Layout::from_size_align(bytes, 4096)
            .expect("4096 is a power of two and the size was checked");
        // SAFETY: the layout's size is not zero, by the assertion above.
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(raw) else {
            handle_alloc_error(layout)
        };
        for at in (0..bytes).step_by(4096) {
            // SAFETY: `at` is smaller than the size of the allocation.
            let page = unsafe { base.as_ptr().add(at) };
            // SAFETY: `page` lies inside the allocation, which nobody else knows yet; the volatile store keeps the
            // compiler from dropping a store of the value that is already there.
            unsafe { page.write_volatile(0) };
        }
        Self {
            base,
            layout,
            stride_bytes,
            slot_bytes,
            slots,
        }
    }

    /// Address of the first byte, to register the arena with a device.
    #[must_use]
    pub const fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Size of the whole arena in bytes, to register it with a device.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.layout.size()
    }

    /// Usable bytes of each slot.
    #[must_use]
    pub const fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Address of slot `index`. Valid for [`Arena::slot_bytes`] bytes while the arena lives.
    ///
    /// Forming the address is safe; using it is not: only the driver that holds the slot's `Buf` may, and only through
    /// raw pointers while a device can write there.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    #[must_use]
    pub fn slot(&self, index: u32) -> *mut u8 {
        let index = index as usize;
        assert!(index < self.slots, "slot {index} of {}", self.slots);
        // SAFETY: `index < slots`, so the offset stays inside the allocation of `slots * stride_bytes` bytes.
        unsafe { self.base.as_ptr().add(index * self.stride_bytes) }
    }

    /// The first `len` bytes of a slot as a slice.
    ///
    /// # Safety
    ///
    /// The caller holds a shared borrow of the slot's only `Buf` for `'a`; no device has it in flight; `'a` does not
    /// outlive the arena.
    pub(crate) unsafe fn slice<'a>(&self, index: u32, len: usize) -> &'a [u8] {
        assert!(
            len <= self.slot_bytes,
            "slice of {len} bytes in a slot of {}",
            self.slot_bytes
        );
        // SAFETY: the slot is allocated, zeroed (hence initialised), aligned for u8 and at least `len` long; the
        // caller's borrow of the only handle means that nobody writes it during `'a`.
        unsafe { std::slice::from_raw_parts(self.slot(index), len) }
    }

    /// The first `len` bytes of a slot as a mutable slice.
    ///
    /// # Safety
    ///
    /// The caller holds an exclusive borrow of the slot's only `Buf` for `'a`; no device has it in flight; `'a` does
    /// not outlive the arena.
    pub(crate) unsafe fn slice_mut<'a>(&self, index: u32, len: usize) -> &'a mut [u8] {
        assert!(
            len <= self.slot_bytes,
            "slice of {len} bytes in a slot of {}",
            self.slot_bytes
        );
        // SAFETY: as in `slice`; the exclusive borrow of the only handle means that nobody else reads it either.
        unsafe { std::slice::from_raw_parts_mut(self.slot(index), len) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `base` came from `alloc_zeroed` with this very layout and is freed once, here.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}
