//! The primitives of the ring: those of `std`, or those of `loom` when its model checker runs.

#[cfg(loom)]
pub(crate) use loom::sync::Arc;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
pub(crate) use std::sync::Arc;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Tells loom which bytes of a ring are read and written. The bytes themselves are plain memory that loom cannot see;
/// one cell per 8 of them stands in, and loom reports two unordered uses of a cell as a race. Costs nothing elsewhere.
#[cfg(loom)]
pub(crate) struct Shadow(Vec<loom::cell::UnsafeCell<()>>);

#[cfg(loom)]
impl Shadow {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(
            (0..bytes / 8)
                .map(|_| loom::cell::UnsafeCell::new(()))
                .collect(),
        )
    }

    pub(crate) fn read(&self, offset: usize, len: usize) {
        for cell in &self.0[offset / 8..(offset + len).div_ceil(8)] {
            cell.with(|_| ());
        }
    }

    pub(crate) fn write(&self, offset: usize, len: usize) {
        for cell in &self.0[offset / 8..(offset + len).div_ceil(8)] {
            cell.with_mut(|_| ());
        }
    }
}

#[cfg(not(loom))]
pub(crate) struct Shadow;

#[cfg(not(loom))]
impl Shadow {
    pub(crate) const fn new(_bytes: usize) -> Self {
        Self
    }

    pub(crate) const fn read(&self, _offset: usize, _len: usize) {}

    pub(crate) const fn write(&self, _offset: usize, _len: usize) {}
}
