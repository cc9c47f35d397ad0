//! Memory that the kernel or a device reads and writes while we do: mappings, and the words of a ring in one.
//!
//! # Safety model
//!
//! A [`Mapping`] is reached through raw pointers only; no slice of it and no reference into it is ever made, with one
//! exception: the indices and flags of a ring are `AtomicU32`, which may change under a reference by their nature. Who
//! may use which bytes when is said by the owners: rings by their indices ([`crate::ring`]), frames by their state
//! ([`crate::umem`]).
//!
//! The memory is mapped, not allocated: the kernel keeps the pages of frames for a while after a socket was closed, and a
//! device in zero-copy mode may write to them until then. Pages that were unmapped are nobody else's in this process;
//! freed memory of the allocator would be.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ring::RingWords;

/// Mapped memory, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: plain memory behind a pointer; who may touch which bytes is decided by the owners named in the safety model.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Memory of our own, zero, every page there.
    ///
    /// # Errors
    ///
    /// The kernel's: `ENOMEM`. Effect: none.
    pub(crate) fn anonymous(bytes: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        Self::map(bytes, flags, -1, 0)
    }

    /// Memory of a socket, at one of the page offsets `XDP_PGOFF_*`.
    ///
    /// # Errors
    ///
    /// The kernel's: `EINVAL` for an offset where the socket has nothing. Effect: none.
    pub(crate) fn of_socket(
        socket: BorrowedFd<'_>,
        offset: libc::off_t,
        bytes: usize,
    ) -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Self::map(bytes, flags, socket.as_raw_fd(), offset)
    }

    fn map(
        bytes: usize,
        flags: libc::c_int,
        fd: libc::c_int,
        offset: libc::off_t,
    ) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let base = unsafe { libc::mmap(null_mut(), bytes, access, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { base, bytes })
    }

    /// Size in bytes, as asked for.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Address of `len` bytes at `offset`. Forming it is safe; using it needs the right to those bytes.
    ///
    /// # Panics
    ///
    /// If they are not inside: our own bug.
    pub(crate) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.bytes);
        assert!(inside, "{len} bytes at {offset} of {}", self.bytes);
        // SAFETY: the offset stays inside the mapping, by the assertion above.
        unsafe { self.base.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is that of a mapping made by `map`, unmapped once, here; its owner drops it when neither it
        // nor the kernel on its behalf uses an address in it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// The words of one ring in memory of a socket.
pub(crate) struct KernelWords<T> {
    /// Keeps the memory that the addresses below are in.
    _mapping: Mapping,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    count: u32,
}

// SAFETY: the addresses are those of the mapping, which goes where they go; entries are plain integers, and indices and
// flags are atomics.
unsafe impl<T: Send> Send for KernelWords<T> {}

impl<T> std::fmt::Debug for KernelWords<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelWords")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl<T: Copy> KernelWords<T> {
    /// Bytes to map for a ring of `count` entries.
    pub(crate) fn bytes(offsets: &libc::xdp_ring_offset, count: u32) -> usize {
        offsets.desc as usize + count as usize * size_of::<T>()
    }

    /// Finds the words in the memory of a ring of `count` entries, at the offsets that the kernel has told.
    ///
    /// # Panics
    ///
    /// If an offset is outside or not aligned: a kernel with another ABI than that of linux/if_xdp.h.
    pub(crate) fn new(mapping: Mapping, offsets: &libc::xdp_ring_offset, count: u32) -> Self {
        let word = |offset: u64| mapping.at(offset as usize, 4).cast::<AtomicU32>();
        let entries = mapping.at(offsets.desc as usize, count as usize * size_of::<T>());
        let (producer, consumer) = (word(offsets.producer), word(offsets.consumer));
        let flags = word(offsets.flags);
        let entries = entries.cast::<T>();
        assert!(producer.is_aligned() && consumer.is_aligned() && flags.is_aligned());
        assert!(entries.is_aligned() && count.is_power_of_two());
        Self {
            producer,
            consumer,
            flags,
            entries,
            count,
            _mapping: mapping,
        }
    }

    fn entry(&self, slot: u32) -> *mut T {
        assert!(slot < self.count, "entry {slot} of {}", self.count);
        // SAFETY: `count` entries lie inside the mapping from `entries` on (see `new`), and the slot is one of them.
        unsafe { self.entries.add(slot as usize) }.as_ptr()
    }
}

impl<T: Copy> RingWords for KernelWords<T> {
    type Entry = T;

    #[inline]
    fn entries(&self) -> u32 {
        self.count
    }

    #[inline]
    fn load_producer(&self, order: Ordering) -> u32 {
        // SAFETY: the address is that of an aligned word of the mapping that this object keeps, and the word is an atomic.
        unsafe { self.producer.as_ref() }.load(order)
    }

    #[inline]
    fn load_consumer(&self, order: Ordering) -> u32 {
        // SAFETY: as in `load_producer`.
        unsafe { self.consumer.as_ref() }.load(order)
    }

    #[inline]
    fn store_producer(&self, index: u32, order: Ordering) {
        // SAFETY: as in `load_producer`.
        unsafe { self.producer.as_ref() }.store(index, order);
    }

    #[inline]
    fn store_consumer(&self, index: u32, order: Ordering) {
        // SAFETY: as in `load_producer`.
        unsafe { self.consumer.as_ref() }.store(index, order);
    }

    #[inline]
    fn load_asleep(&self, order: Ordering) -> bool {
        // SAFETY: as in `load_producer`.
        let flags = unsafe { self.flags.as_ref() }.load(order);
        flags & libc::XDP_RING_NEED_WAKEUP != 0
    }

    #[inline]
    fn read(&self, slot: u32) -> T {
        // SAFETY: the address is that of an aligned entry inside the mapping; entries are integers, for which any bits are
        // a value; volatile, because the other side of the memory is not bound by the rules of this program.
        unsafe { self.entry(slot).read_volatile() }
    }

    #[inline]
    fn write(&self, slot: u32, entry: T) {
        // SAFETY: as in `read`; the entry is free, so that the kernel does not read it before it is published.
        unsafe { self.entry(slot).write_volatile(entry) };
    }
}
