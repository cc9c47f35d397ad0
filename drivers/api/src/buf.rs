//! Linear buffer handles and the fixed pool they come from.
//!
//! A pool allocates everything when it is made; after that `alloc` and `free` are a pop and a push. A [`Buf`] is the
//! only key to its slot. Whoever holds it owns the bytes; giving it to a driver gives the bytes away until the driver
//! hands a `Buf` back. An empty pool is backpressure: `alloc` answers `None`.
//!
//! A pool made with headroom has room in front of each slot's payload, where a driver puts the headers of its network
//! without moving the payload; the methods for that are in [`headroom`].

mod headroom;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;

use crate::dma::Arena;

/// Owner's handle of one slot of a [`BufPool`]: index, generation and the number of valid bytes.
///
/// Linear: it cannot be copied or cloned, and ends in [`BufPool::free`] or in a driver. A dropped handle is a slot lost
/// for the pool's life, which [`BufPool::in_use`] shows.
#[must_use = "a dropped handle loses its slot: give it to a driver or free it"]
#[derive(Debug)]
pub struct Buf {
    index: u32,
    generation: u32,
    len: u32,
    /// Bytes of headers in front of the payload.
    head: u32,
    pool: u32,
}

impl Buf {
    /// Number of valid bytes, from the start of the payload.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no byte is valid.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Index of the slot, in `0..capacity` of its pool.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Life of the slot that this handle belongs to; grows by one with each `free`.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }
}

/// How slots lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PoolLayout {
    /// Slots start at multiples of 64 bytes, each at another offset within its 4 KiB page, so that the headers of
    /// many messages do not fight for one set of the L1 cache.
    #[default]
    Coloured,
    /// Slots start at multiples of 4096 and are a multiple of 4096 long, as O_DIRECT and NVMe want them.
    BlockAligned,
}

/// Size and shape of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolOptions {
    /// Number of slots, 1 to 2^31.
    pub slots: u32,
    /// Least usable bytes of a slot, 1 to 2^30; rounded up to the layout's unit.
    pub slot_bytes: u32,
    /// How slots lie in memory.
    pub layout: PoolLayout,
}

/// Why a pool was not made. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PoolError {
    /// A size is zero or too large.
    #[error("a pool of {slots} slots of {slot_bytes} bytes is out of range")]
    Size {
        /// Slots asked for.
        slots: u32,
        /// Bytes per slot asked for.
        slot_bytes: u32,
    },
    /// The headroom is too large.
    #[error("headroom of {headroom_bytes} bytes is more than {HEADROOM_BYTES_MAX}")]
    Headroom {
        /// Bytes asked for in front of each payload.
        headroom_bytes: u32,
    },
}

/// Counters of a pool since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolStats {
    /// Slots in all.
    pub capacity: usize,
    /// Slots held by somebody now.
    pub in_use: usize,
    /// The most slots ever held at once.
    pub in_use_max: usize,
    /// Successful `alloc`s.
    pub allocs: u64,
    /// `alloc`s that found the pool empty.
    pub refused: u64,
}

/// A fixed arena of equal slots with a free list. Belongs to one thread at a time.
#[derive(Debug)]
pub struct BufPool {
    arena: Arc<Arena>,
    /// Current generation of each slot. A slot in the free list has one that no handle carries.
    generations: Box<[u32]>,
    /// Free slots, last freed first: its lines are the warmest.
    free: Vec<u32>,
    id: u32,
    in_use_max: usize,
    allocs: u64,
    refused: u64,
}

/// Largest slot, in bytes.
const SLOT_BYTES_MAX: u32 = 1 << 30;
/// Most slots of one pool.
const SLOTS_MAX: u32 = 1 << 31;
/// Most room in front of a payload, in bytes: far more than the headers of any network.
const HEADROOM_BYTES_MAX: u32 = 4096;

/// Numbers pools, so that a handle used with a foreign pool is caught.
static NEXT_POOL: AtomicU32 = AtomicU32::new(1);

impl BufPool {
    /// Allocates and touches the whole arena. Slots have no headroom.
    ///
    /// # Errors
    ///
    /// [`PoolError::Size`] for a size of zero or beyond the limits. Effect: none.
    pub fn new(options: PoolOptions) -> Result<Self, PoolError> {
        Self::with_headroom(options, 0)
    }

    /// Allocates and touches the whole arena, with at least `headroom_bytes` (0 to 4096) of room in front of each slot's
    /// payload. Payloads lie as the layout says; the headroom is rounded up to the layout's unit for that.
    ///
    /// # Errors
    ///
    /// [`PoolError::Size`] for a size of zero or beyond the limits, [`PoolError::Headroom`] for too much headroom.
    /// Effect: none.
    pub fn with_headroom(options: PoolOptions, headroom_bytes: u32) -> Result<Self, PoolError> {
        let PoolOptions {
            slots,
            slot_bytes,
            layout,
        } = options;
        let size_error = PoolError::Size { slots, slot_bytes };
        if slots == 0 || slots > SLOTS_MAX || slot_bytes == 0 || slot_bytes > SLOT_BYTES_MAX {
            return Err(size_error);
        }
        if headroom_bytes > HEADROOM_BYTES_MAX {
            return Err(PoolError::Headroom { headroom_bytes });
        }
        let unit = match layout {
            PoolLayout::Coloured => 64,
            PoolLayout::BlockAligned => 4096,
        };
        let headroom = (headroom_bytes as usize).next_multiple_of(unit);
        let usable = (slot_bytes as usize).next_multiple_of(unit);
        let whole = headroom + usable;
        let stride = match layout {
            // An odd number of cache lines: consecutive slots walk through all 64 colours of a page.
            PoolLayout::Coloured if (whole / 64).is_multiple_of(2) => whole + 64,
            PoolLayout::Coloured | PoolLayout::BlockAligned => whole,
        };
        let fits = (slots as usize)
            .checked_mul(stride)
            .is_some_and(|bytes| bytes <= isize::MAX as usize / 2);
        if !fits {
            return Err(size_error);
        }
        Ok(Self {
            arena: Arc::new(Arena::new(slots as usize, headroom, usable, stride)),
            generations: vec![0; slots as usize].into_boxed_slice(),
            free: (0..slots).rev().collect(),
            id: NEXT_POOL.fetch_add(1, Ordering::Relaxed),
            in_use_max: 0,
            allocs: 0,
            refused: 0,
        })
    }

    /// Takes a free slot, with length 0 and whatever bytes it had. `None` when all are in use: backpressure.
    pub fn alloc(&mut self) -> Option<Buf> {
        let Some(index) = self.free.pop() else {
            self.refused += 1;
            return None;
        };
        self.allocs += 1;
        self.in_use_max = self.in_use_max.max(self.in_use());
        Some(Buf {
            index,
            generation: self.generations[index as usize],
            len: 0,
            head: 0,
            pool: self.id,
        })
    }

    /// Gives a slot back.
    ///
    /// # Panics
    ///
    /// If the handle is not of this pool: our own bug.
    pub fn free(&mut self, buf: Buf) {
        self.check(&buf);
        let generation = &mut self.generations[buf.index as usize];
        *generation = generation.wrapping_add(1);
        // Never grows: a slot is in the list at most once, and the list was made with room for all.
        self.free.push(buf.index);
    }

    /// The valid bytes of a slot.
    ///
    /// # Panics
    ///
    /// If the handle is not of this pool: our own bug.
    #[must_use]
    pub fn bytes<'a>(&'a self, buf: &'a Buf) -> &'a [u8] {
        self.check(buf);
        // SAFETY: `buf` is the slot's only handle (checked) and is borrowed for `'a`; a driver with the slot in flight
        // would own it; `self` keeps the arena alive for `'a`.
        unsafe { self.arena.slice(buf.index, 0, buf.len()) }
    }

    /// The valid bytes of a slot, for writing.
    ///
    /// # Panics
    ///
    /// If the handle is not of this pool: our own bug.
    #[must_use]
    pub fn bytes_mut<'a>(&'a self, buf: &'a mut Buf) -> &'a mut [u8] {
        self.check(buf);
        // SAFETY: `buf` is the slot's only handle (checked) and is exclusively borrowed for `'a`; a driver with the
        // slot in flight would own it; `self` keeps the arena alive for `'a`.
        unsafe { self.arena.slice_mut(buf.index, 0, buf.len()) }
    }

    /// The whole slot without its headroom, valid or not, for writing; call [`BufPool::set_len`] afterwards.
    ///
    /// # Panics
    ///
    /// If the handle is not of this pool: our own bug.
    #[must_use]
    pub fn slot_mut<'a>(&'a self, buf: &'a mut Buf) -> &'a mut [u8] {
        self.check(buf);
        // SAFETY: as in `bytes_mut`.
        unsafe { self.arena.slice_mut(buf.index, 0, self.arena.slot_bytes()) }
    }

    /// Sets the number of valid bytes. Bytes between the old and the new length are whatever the slot holds.
    ///
    /// # Panics
    ///
    /// If `len` is larger than a slot, or the handle is not of this pool: our own bug.
    pub fn set_len(&self, buf: &mut Buf, len: usize) {
        self.check(buf);
        assert!(
            len <= self.slot_bytes(),
            "{len} bytes in a slot of {}",
            self.slot_bytes()
        );
        buf.len = u32::try_from(len).expect("a slot is at most 2^30 bytes");
    }

    /// Takes a slot and fills it with a copy of `bytes`. `None` when the pool is empty or the bytes do not fit a slot.
    pub fn alloc_from(&mut self, bytes: &[u8]) -> Option<Buf> {
        if bytes.len() > self.slot_bytes() {
            self.refused += 1;
            return None;
        }
        let mut buf = self.alloc()?;
        self.set_len(&mut buf, bytes.len());
        self.bytes_mut(&mut buf).copy_from_slice(bytes);
        Some(buf)
    }

    /// Drivers only: copies bytes `offset..offset + len` of a slot that a device may be writing into `into`, from its
    /// start, and sets its length. `false`, and nothing copied, if they are not all valid bytes of `source` or do not fit.
    ///
    /// # Panics
    ///
    /// If a handle is not of this pool: our own bug.
    #[must_use]
    pub fn copy_shared(&self, source: &Buf, offset: usize, len: usize, into: &mut Buf) -> bool {
        self.check(source);
        let valid = offset
            .checked_add(len)
            .is_some_and(|end| end <= source.len());
        if !valid || len > self.slot_bytes() {
            return false;
        }
        self.set_len(into, len);
        // SAFETY: `source` is the slot's only handle (checked) and is borrowed: no thread writes its slot. `into` is
        // another handle, hence another slot.
        unsafe {
            self.arena
                .copy_shared(source.index, offset, self.bytes_mut(into));
        }
        true
    }

    /// Usable bytes of each slot, without its headroom.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.arena.slot_bytes()
    }

    /// Slots in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.generations.len()
    }

    /// Slots held by somebody now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.generations.len() - self.free.len()
    }

    /// Slots that `alloc` can still hand out.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Counters since the pool was made.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        PoolStats {
            capacity: self.capacity(),
            in_use: self.in_use(),
            in_use_max: self.in_use_max,
            allocs: self.allocs,
            refused: self.refused,
        }
    }

    /// Drivers only: the memory itself, to register it with a device and to keep it alive while one may touch it.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Drivers only: the address of the payload of a slot whose handle the driver owns. See [`crate::dma`] for who may use it.
    ///
    /// # Panics
    ///
    /// If the handle is not of this pool: our own bug.
    #[must_use]
    pub fn dma_address(&self, buf: &Buf) -> *mut u8 {
        self.check(buf);
        self.arena.slot(buf.index)
    }

    fn check(&self, buf: &Buf) {
        assert!(
            buf.pool == self.id && self.generations[buf.index as usize] == buf.generation,
            "stale or foreign buffer handle"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(slots: u32, slot_bytes: u32, layout: PoolLayout) -> BufPool {
        BufPool::new(PoolOptions {
            slots,
            slot_bytes,
            layout,
        })
        .expect("valid size")
    }

    #[test]
    fn slots_are_distinct_aligned_and_coloured() {
        let mut pool = pool(8, 4096, PoolLayout::Coloured);
        let bufs: Vec<Buf> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!(bufs.len(), 8);
        let mut offsets: Vec<usize> = bufs
            .iter()
            .map(|buf| pool.dma_address(buf) as usize % 4096)
            .collect();
        assert!(offsets.iter().all(|offset| offset % 64 == 0));
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), 8, "each slot starts at another colour");
        for buf in bufs {
            pool.free(buf);
        }
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn block_slots_are_page_aligned() {
        let mut pool = pool(3, 5000, PoolLayout::BlockAligned);
        assert_eq!(pool.slot_bytes(), 8192);
        let buf = pool.alloc().expect("free");
        assert_eq!(pool.dma_address(&buf) as usize % 4096, 0);
        pool.free(buf);
    }

    #[test]
    fn an_empty_pool_refuses_and_recovers() {
        let mut pool = pool(1, 64, PoolLayout::Coloured);
        let buf = pool.alloc().expect("free");
        assert!(pool.alloc().is_none());
        assert_eq!(pool.stats().refused, 1);
        let generation = buf.generation();
        pool.free(buf);
        let again = pool.alloc().expect("freed");
        assert_eq!(again.generation(), generation + 1);
        pool.free(again);
        assert_eq!(pool.stats().in_use_max, 1);
    }

    #[test]
    fn bytes_follow_the_length() {
        let mut pool = pool(2, 64, PoolLayout::Coloured);
        let mut a = pool.alloc_from(b"hello").expect("free");
        let b = pool.alloc_from(b"world").expect("free");
        assert_eq!(pool.bytes(&a), b"hello");
        pool.bytes_mut(&mut a)[0] = b'j';
        assert_eq!(
            (pool.bytes(&a), pool.bytes(&b)),
            (&b"jello"[..], &b"world"[..])
        );
        pool.set_len(&mut a, 2);
        assert_eq!(pool.bytes(&a), b"je");
        assert_eq!(pool.slot_mut(&mut a).len(), 64);
        assert!(pool.alloc_from(&[0; 65]).is_none(), "larger than a slot");
        pool.free(a);
        pool.free(b);
    }

    #[test]
    fn bytes_that_a_device_may_write_are_copied_out_at_every_offset() {
        let mut pool = pool(2, 64, PoolLayout::Coloured);
        let bytes: Vec<u8> = (0..40).collect();
        let source = pool.alloc_from(&bytes).expect("free");
        let mut into = pool.alloc().expect("free");
        for offset in 0..=40 {
            for len in 0..=40 {
                let copied = pool.copy_shared(&source, offset, len, &mut into);
                assert_eq!(copied, offset + len <= 40);
                if copied {
                    assert_eq!(pool.bytes(&into), &bytes[offset..offset + len]);
                }
            }
        }
        assert!(!pool.copy_shared(&source, usize::MAX, 2, &mut into));
    }

    #[test]
    #[should_panic(expected = "stale or foreign buffer handle")]
    fn a_foreign_handle_is_caught() {
        let mut one = pool(1, 64, PoolLayout::Coloured);
        let mut two = pool(1, 64, PoolLayout::Coloured);
        let buf = one.alloc().expect("free");
        two.free(buf);
    }

    #[test]
    #[should_panic(expected = "stale or foreign buffer handle")]
    fn a_stale_handle_is_caught() {
        let mut pool = pool(1, 64, PoolLayout::Coloured);
        let buf = pool.alloc().expect("free");
        let forged = Buf {
            index: buf.index,
            generation: buf.generation,
            len: 0,
            head: 0,
            pool: buf.pool,
        };
        pool.free(buf);
        pool.free(forged);
    }

    #[test]
    fn sizes_out_of_range_are_errors() {
        for (slots, slot_bytes) in [
            (0, 64),
            (1, 0),
            (SLOTS_MAX + 1, 64),
            (1, SLOT_BYTES_MAX + 1),
        ] {
            let options = PoolOptions {
                slots,
                slot_bytes,
                layout: PoolLayout::Coloured,
            };
            assert_eq!(
                BufPool::new(options).err(),
                Some(PoolError::Size { slots, slot_bytes })
            );
        }
    }
}
