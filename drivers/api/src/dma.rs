//! Raw memory of buffer arenas, for drivers only: the one place where slices are made from raw parts.
//!
//! # Safety model
//!
//! [`RawBytes`] is one allocation reached only through raw pointers and short-lived slices of parts of it: no reference
//! to the whole of it ever exists. Its users say who owns which part: a shared-memory ring by its two indices, a pool by
//! its handles. An [`Arena`] is such an allocation cut into slots of equal stride. A slot belongs to whoever holds its [`Buf`](crate::Buf). A `Buf` cannot be
//! copied or made outside this crate, and a pool checks its own number and the slot's generation at each use, so at
//! most one holder exists: the program (which may borrow the slot as a slice while it borrows the `Buf`) or a driver
//! (which has taken the `Buf` by value and whose device may write the slot). A driver keeps the `Arc<Arena>` for as
//! long as a device may touch the memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// One zeroed allocation, 4096-aligned, reached only through raw pointers and checked slices.
#[derive(Debug)]
pub struct RawBytes {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory behind a pointer; who may touch which bytes is decided by the owners named in the safety model.
unsafe impl Send for RawBytes {}
// SAFETY: as above: shared access gives out addresses only; contents are reached through the unsafe methods.
unsafe impl Sync for RawBytes {}

impl RawBytes {
    /// Allocates `bytes` zero bytes and touches every page, so that none is faulted in later.
    ///
    /// # Panics
    ///
    /// If `bytes` is zero or larger than half of the address space.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        assert!(bytes > 0, "no allocation is empty");
        let layout = Layout::from_size_align(bytes, 4096)
            .expect("4096 is a power of two and the size is sane");
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
        Self { base, layout }
    }

    /// Address of the first byte.
    #[must_use]
    pub const fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Size in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.layout.size()
    }

    /// Address of the byte at `offset`. Forming it is safe; using it needs the right to those bytes.
    ///
    /// # Panics
    ///
    /// If `offset` is outside.
    #[must_use]
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.bytes(), "offset {offset} of {}", self.bytes());
        // SAFETY: the offset stays inside the allocation, by the assertion above.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Bytes `offset..offset + len` as a slice.
    ///
    /// # Safety
    ///
    /// Nobody, neither a thread nor a device, writes these bytes during `'a`, and `'a` does not outlive `self`.
    ///
    /// # Panics
    ///
    /// If the range is not inside.
    #[must_use]
    pub unsafe fn slice<'a>(&self, offset: usize, len: usize) -> &'a [u8] {
        self.check(offset, len);
        // SAFETY: the range is inside the allocation (checked), zeroed at first (hence initialised), and u8 needs no
        // alignment.
        let start = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: as above; that nobody writes the bytes during `'a` is the caller's promise.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// Bytes `offset..offset + len` as a mutable slice.
    ///
    /// # Safety
    ///
    /// Nobody else, neither a thread nor a device, reads or writes these bytes during `'a`, and `'a` does not outlive
    /// `self`.
    ///
    /// # Panics
    ///
    /// If the range is not inside.
    #[must_use]
    pub unsafe fn slice_mut<'a>(&self, offset: usize, len: usize) -> &'a mut [u8] {
        self.check(offset, len);
        // SAFETY: as in `slice`.
        let start = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: as in `slice`; that nobody else uses the bytes during `'a` is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    fn check(&self, offset: usize, len: usize) {
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.bytes());
        assert!(inside, "{len} bytes at {offset} of {}", self.bytes());
    }
}

impl Drop for RawBytes {
    fn drop(&mut self) {
        // SAFETY: `base` came from `alloc_zeroed` with this very layout and is freed once, here.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// Copies bytes that a device or a peer may be writing: volatile, so that each is read once, and without any reference to
/// them. What is read can be torn between two values; its reader checks it.
///
/// # Safety
///
/// `source` is valid for reads of `target.len()` bytes, and no thread of this process writes them meanwhile.
unsafe fn copy_volatile(source: *const u8, target: &mut [u8]) {
    let (mut at, len) = (0, target.len());
    while at < len {
        // SAFETY: `at` is smaller than the number of valid bytes.
        let from = unsafe { source.add(at) };
        if len - at >= 8 && from.addr().is_multiple_of(8) {
            // SAFETY: eight bytes are valid here, the address is aligned, and every bit pattern is a number.
            let word = unsafe { from.cast::<u64>().read_volatile() };
            target[at..at + 8].copy_from_slice(&u64::from_le(word).to_le_bytes());
            at += 8;
        } else {
            // SAFETY: one byte is valid here.
            target[at] = unsafe { from.read_volatile() };
            at += 1;
        }
    }
}

/// The memory of a pool, cut into equal slots. Freed when the pool and every driver that registered it are gone.
///
/// *Units*: bytes. *Source*: DESIGN, buffer arenas.
#[derive(Debug)]
pub struct Arena {
    memory: RawBytes,
    stride_bytes: usize,
    headroom_bytes: usize,
    slot_bytes: usize,
    slots: usize,
}

impl Arena {
    /// Allocates `slots` slots of `slot_bytes` behind `headroom_bytes` each, `stride_bytes` apart; the first headroom
    /// starts at a multiple of 4096.
    ///
    /// # Panics
    ///
    /// If a size is zero, the stride is smaller than a slot with its headroom, or the product overflows: the pool has
    /// checked them.
    pub(crate) fn new(
        slots: usize,
        headroom_bytes: usize,
        slot_bytes: usize,
        stride_bytes: usize,
    ) -> Self {
        assert!(
            slots > 0 && slot_bytes > 0 && stride_bytes >= headroom_bytes + slot_bytes,
            "arena of {slots} x ({headroom_bytes} + {slot_bytes})"
        );
        let bytes = slots
            .checked_mul(stride_bytes)
            .expect("the pool checks the size of its arena");
        Self {
            memory: RawBytes::new(bytes),
            stride_bytes,
            headroom_bytes,
            slot_bytes,
            slots,
        }
    }

    /// Address of the first byte, to register the arena with a device.
    #[must_use]
    pub const fn base(&self) -> *mut u8 {
        self.memory.base()
    }

    /// Size of the whole arena in bytes, to register it with a device.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Slots in all.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.slots
    }

    /// From the start of one slot's payload to that of the next, in bytes.
    #[must_use]
    pub const fn stride_bytes(&self) -> usize {
        self.stride_bytes
    }

    /// Room in front of each slot's payload, in bytes.
    #[must_use]
    pub const fn headroom_bytes(&self) -> usize {
        self.headroom_bytes
    }

    /// Usable bytes of each slot, without its headroom.
    #[must_use]
    pub const fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Address of the payload of slot `index`. Valid for [`Arena::slot_bytes`] bytes from there and
    /// [`Arena::headroom_bytes`] before it while the arena lives.
    ///
    /// Forming the address is safe; using it is not: only the driver that holds the slot's `Buf` may, and only through
    /// raw pointers while a device can write there.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    #[must_use]
    pub fn slot(&self, index: u32) -> *mut u8 {
        self.memory.at(self.offset(index, 0))
    }

    /// Address `head` bytes in front of the payload of slot `index`; as [`Arena::slot`] otherwise.
    ///
    /// # Panics
    ///
    /// If there is no such slot, or the headroom is smaller.
    #[must_use]
    pub fn slot_front(&self, index: u32, head: usize) -> *mut u8 {
        self.memory.at(self.offset(index, head))
    }

    /// Where the payload of a slot begins, less `head` bytes of its headroom.
    fn offset(&self, index: u32, head: usize) -> usize {
        let index = index as usize;
        assert!(index < self.slots, "slot {index} of {}", self.slots);
        assert!(
            head <= self.headroom_bytes,
            "{head} bytes in a headroom of {}",
            self.headroom_bytes
        );
        index * self.stride_bytes + self.headroom_bytes - head
    }

    /// Bytes of a slot as a slice: `head` in front of the payload and `len` of it.
    ///
    /// # Safety
    ///
    /// The caller holds a shared borrow of the slot's only `Buf` for `'a`; no device has it in flight; `'a` does not
    /// outlive the arena.
    pub(crate) unsafe fn slice<'a>(&self, index: u32, head: usize, len: usize) -> &'a [u8] {
        assert!(
            len <= self.slot_bytes,
            "slice of {len} bytes in a slot of {}",
            self.slot_bytes
        );
        // SAFETY: the caller's borrow of the slot's only handle means that nobody writes the slot during `'a`.
        unsafe { self.memory.slice(self.offset(index, head), head + len) }
    }

    /// Bytes of a slot as a mutable slice: `head` in front of the payload and `len` of it.
    ///
    /// # Safety
    ///
    /// The caller holds an exclusive borrow of the slot's only `Buf` for `'a`; no device has it in flight; `'a` does
    /// not outlive the arena.
    pub(crate) unsafe fn slice_mut<'a>(&self, index: u32, head: usize, len: usize) -> &'a mut [u8] {
        assert!(
            len <= self.slot_bytes,
            "slice of {len} bytes in a slot of {}",
            self.slot_bytes
        );
        // SAFETY: the caller's exclusive borrow of the slot's only handle means that nobody else uses it during `'a`.
        unsafe { self.memory.slice_mut(self.offset(index, head), head + len) }
    }

    /// Copies `into.len()` bytes of a slot, from `offset`, while a device may be writing them.
    ///
    /// # Safety
    ///
    /// The caller holds a shared borrow of the slot's only `Buf`, so that no thread of this process writes the slot.
    pub(crate) unsafe fn copy_shared(&self, index: u32, offset: usize, into: &mut [u8]) {
        let inside = offset
            .checked_add(into.len())
            .is_some_and(|end| end <= self.slot_bytes);
        assert!(
            inside,
            "{} bytes at {offset} of {}",
            into.len(),
            self.slot_bytes
        );
        if into.is_empty() {
            return;
        }
        // SAFETY: the offset is inside the slot (checked), which is inside the arena.
        let source = unsafe { self.slot(index).add(offset) };
        // SAFETY: the bytes are inside the slot (checked); the rest is the caller's promise.
        unsafe { copy_volatile(source, into) };
    }
}
