//! A pool of DPDK's buffers.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ionian_dpdk_sys as sys;

use super::eal::Inner;
use crate::error::OpenError;

/// Buffers that a thread which DPDK knows keeps for itself, at most half as many again: a batch of usual size.
const CACHE: u32 = 128;

/// Numbers pools, whose names must differ.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A pool of mbufs. Outlives every port that takes from it or holds buffers of it.
#[derive(Debug)]
pub(super) struct Mbufs {
    pool: NonNull<sys::rte_mempool>,
    count: u32,
    /// What is missing was lost by a driver that has ended, and nothing will touch it.
    untouched: AtomicBool,
    eal: Arc<Inner>,
}

// SAFETY: the pool hands out and takes back buffers from any thread; what it is made of does not change while it lives.
unsafe impl Send for Mbufs {}
// SAFETY: as above.
unsafe impl Sync for Mbufs {}

impl Mbufs {
    /// Makes `count` buffers of `room_bytes` each, beside the headroom that DPDK wants. The control lock is held.
    pub(super) fn new(eal: &Arc<Inner>, count: u32, room_bytes: u32) -> Result<Self, OpenError> {
        let error = OpenError::Memory {
            mbufs: count,
            bytes_each: room_bytes,
            memory_mib: eal.memory_mib,
        };
        let Ok(room) = u16::try_from(room_bytes + sys::RTE_PKTMBUF_HEADROOM) else {
            return Err(error);
        };
        let name = format!("ionian{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: DPDK is started (`eal`); the name ends in a zero and is copied. -1 is any memory.
        let pool = unsafe { sys::ionian_pool(name.as_ptr(), count, CACHE, room, -1) };
        let pool = NonNull::new(pool).ok_or(error)?;
        Ok(Self {
            pool,
            count,
            untouched: AtomicBool::new(false),
            eal: Arc::clone(eal),
        })
    }

    pub(super) const fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.pool.as_ptr()
    }

    /// Buffers in all.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Says that no device ever got a buffer of this pool that could touch it still, so that it is freed whatever is missing.
    pub(super) fn give_up_missing(&self) {
        self.untouched.store(true, Ordering::Relaxed);
    }

    /// Buffers that nobody holds. Counts the caches of all threads, so it is not for the path of a frame.
    pub(super) fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as `self`.
        unsafe { sys::rte_mempool_avail_count(self.as_ptr()) }
    }
}

impl Drop for Mbufs {
    fn drop(&mut self) {
        // Whoever could use a buffer of this pool holds it by a counted reference: what is missing now is what a driver keeps to its
        // end. AF_XDP does: what it put into the kernel's ring stays there, and DPDK 22.11 does not close its socket, so that the
        // kernel may still write there. Such a pool is kept until the process ends.
        let missing = self.count.saturating_sub(self.available());
        if missing > 0 && !self.untouched.load(Ordering::Relaxed) {
            self.eal
                .mbufs_missing
                .fetch_add(missing.into(), Ordering::Relaxed);
            return;
        }
        // SAFETY: the ports that used it are closed, by the counted references; no device touches a buffer that is not back; DPDK
        // still runs (`eal`).
        unsafe { sys::rte_mempool_free(self.as_ptr()) };
    }
}
