//! One-sided writes: a peer writes into a buffer that was exposed to it, and the owner learns of it by an event.
//!
//! The contract is that of RDMA WRITE WITH IMMEDIATE, the weakest we build on: the bytes are readable once the
//! [`FabricEvent::Delivered`](crate::FabricEvent) is polled, not before, and nobody polls raw memory. A region can be
//! written at any time by a peer that holds its key, so it is read only by copying out.
//!
//! A region is exposed under a [`RegionGrant`]: where the peer may write, and under which epoch. Before an owner
//! acknowledges a new epoch it calls [`OneSided::fence`] with it, and then knows that no older writer reaches its memory.
//!
//! # Late writes
//!
//! A write to a region that was revoked or fenced does not land and closes the connection at its owner, as one with a wrong
//! key does, whether its writer is hostile or was merely slow. They are not told apart, because hardware cannot: a device
//! that refuses a key breaks the connection and does not say whether the key was ever good. So a close with
//! [`CloseReason::Protocol`](crate::CloseReason) is no accusation. A correct writer that is fenced finds its connection
//! closed, asks for a new grant, and connects again under the new epoch; what it had written without an event is of unknown
//! effect, as with every close. An owner that wants to keep a connection through a change of epoch has the peer stop writing
//! first, by a message, and fences after the answer.

use ionian_types::ConnId;
use thiserror::Error;

use crate::bounded::Bounded;
use crate::buf::{Buf, BufPool};
use crate::fabric::{Fabric, SendError};

/// Names an exposed region to the peer. Not a secret: what lands is checked by token and epoch above.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RegionKey {
    /// Index of the region at its owner.
    pub region: u32,
    /// Life of that index; a revoked key never becomes valid again.
    pub generation: u32,
}

/// Bytes `offset..offset + len` of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionRange {
    /// First byte.
    pub offset: u32,
    /// Number of bytes.
    pub len: u32,
}

impl RegionRange {
    /// Whether every byte of `inner` is one of this range's. An empty range is inside where its offset is.
    #[must_use]
    pub const fn contains(self, inner: Self) -> bool {
        let (start, end) = (self.offset as u64, self.offset as u64 + self.len as u64);
        inner.offset as u64 >= start && inner.offset as u64 + inner.len as u64 <= end
    }
}

/// What a peer may do to a region. There is no right to read: protocol code sends what a peer is to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionRights {
    /// Write any of the region's valid bytes.
    Write,
    /// Write these bytes only, e.g. one report slot of a table. Offsets stay those of the region.
    WriteWithin(RegionRange),
}

impl RegionRights {
    /// The bytes that may be written in a region of `len` valid bytes; `None` if the rights reach beyond them.
    #[must_use]
    pub fn range(self, len: usize) -> Option<RegionRange> {
        let whole = RegionRange {
            offset: 0,
            len: u32::try_from(len).ok()?,
        };
        match self {
            Self::Write => Some(whole),
            Self::WriteWithin(range) => whole.contains(range).then_some(range),
        }
    }
}

/// Under what a region is exposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionGrant {
    /// What the peer may do.
    pub rights: RegionRights,
    /// The epoch in which it may. Which kind of epoch is the protocol's business: fabrics only compare it with the fence.
    pub epoch: u64,
}

impl RegionGrant {
    /// Writing anywhere in the region, under `epoch`.
    #[must_use]
    pub const fn write(epoch: u64) -> Self {
        Self {
            rights: RegionRights::Write,
            epoch,
        }
    }
}

/// Why a region was not exposed. The buffer comes back. Effect: none.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExposeError {
    /// All region numbers are in use.
    #[error("no region number is free")]
    Full(Buf),
    /// The rights reach beyond the valid bytes of the buffer: our own bug.
    #[error("the rights reach beyond the region")]
    Rights(Buf),
    /// A fence at a later epoch was drawn already: whoever granted this is deposed.
    #[error("the grant is of an epoch that is fenced off")]
    Fenced(Buf),
    /// There is no such connection, or it is closed.
    #[error("the connection is closed")]
    Closed(Buf),
    /// The device refused the memory.
    #[error("the device refused the region (error {errno})")]
    Device {
        /// The buffer.
        buf: Buf,
        /// The system's error number.
        errno: i32,
    },
}

impl ExposeError {
    /// The buffer that was not exposed.
    pub fn into_buf(self) -> Buf {
        match self {
            Self::Full(buf)
            | Self::Rights(buf)
            | Self::Fenced(buf)
            | Self::Closed(buf)
            | Self::Device { buf, .. } => buf,
        }
    }
}

/// A fabric with one-sided writes.
pub trait OneSided: Fabric {
    /// Exposes the valid bytes of `buf` to the peer of `conn`, as far as `grant` says. The fabric owns the buffer until
    /// `revoke` or `fence` gives it back, also when the connection ends before.
    ///
    /// # Errors
    ///
    /// See [`ExposeError`]; the buffer comes back. Effect: none.
    fn expose(
        &mut self,
        conn: ConnId,
        buf: Buf,
        grant: RegionGrant,
    ) -> Result<RegionKey, ExposeError>;

    /// Takes a region back. No write lands after this returns. `None` if the key is not valid.
    fn revoke(&mut self, key: RegionKey) -> Option<Buf>;

    /// Takes back every region whose grant is of an epoch below `epoch_min`, and refuses such grants from now on. No write
    /// lands in any of them after this returns. Returns the number of buffers appended to `out`; those that found no room
    /// stay with the fabric, fenced all the same, and the next call appends them. A lower fence than the last changes nothing.
    fn fence(&mut self, epoch_min: u64, out: &mut Bounded<Buf>) -> usize;

    /// Copies bytes of an exposed region into `into`, from its start, and sets its length. `false`, and nothing copied,
    /// if the key is not valid, the range is not inside the region, or it does not fit a slot.
    fn copy_out(&self, pool: &BufPool, key: RegionKey, range: RegionRange, into: &mut Buf) -> bool;

    /// Writes the valid bytes of `buf` to the peer's region `key` at `offset`, with a number for its event. FIFO with
    /// the messages and writes of the same connection.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; the buffer comes back. Effect: none. A wrong key or range is the peer's to find: it closes the
    /// connection.
    fn write(
        &mut self,
        pool: &mut BufPool,
        conn: ConnId,
        key: RegionKey,
        offset: u32,
        immediate: u32,
        buf: Buf,
    ) -> Result<(), SendError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_what_lies_wholly_in_it() {
        let range = |offset, len| RegionRange { offset, len };
        assert!(range(4, 4).contains(range(4, 4)) && range(4, 4).contains(range(8, 0)));
        for outside in [
            range(3, 2),
            range(7, 2),
            range(9, 0),
            range(u32::MAX, u32::MAX),
        ] {
            assert!(!range(4, 4).contains(outside), "{outside:?}");
        }
    }

    #[test]
    fn rights_reach_no_further_than_the_region() {
        let within = |offset, len| RegionRights::WriteWithin(RegionRange { offset, len });
        assert_eq!(
            RegionRights::Write.range(9),
            Some(RegionRange { offset: 0, len: 9 })
        );
        assert_eq!(
            within(8, 8).range(16),
            Some(RegionRange { offset: 8, len: 8 })
        );
        assert_eq!(within(8, 9).range(16), None);
        assert_eq!(within(u32::MAX, 2).range(16), None);
    }
}
