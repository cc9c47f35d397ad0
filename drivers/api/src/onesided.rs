//! One-sided writes: a peer writes into a buffer that was exposed to it, and the owner learns of it by an event.
//!
//! The contract is that of RDMA WRITE WITH IMMEDIATE, the weakest we build on: the bytes are readable once the
//! [`FabricEvent::Delivered`](crate::FabricEvent) is polled, not before, and nobody polls raw memory. A region can be
//! written at any time by a peer that holds its key, so it is read only by copying out.

use ionian_types::ConnId;
use thiserror::Error;

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

/// Why a region was not exposed. The buffer comes back. Effect: none.
#[derive(Debug, Error)]
pub enum ExposeError {
    /// All region numbers are in use.
    #[error("no region number is free")]
    Full(Buf),
}

/// A fabric with one-sided writes.
pub trait OneSided: Fabric {
    /// Exposes the valid bytes of `buf` to the peer of `conn`, for writing. The fabric owns the buffer until `revoke`.
    ///
    /// # Errors
    ///
    /// [`ExposeError::Full`] when no region number is free; the buffer comes back. Effect: none.
    fn expose(&mut self, conn: ConnId, buf: Buf) -> Result<RegionKey, ExposeError>;

    /// Takes a region back. No write lands after this returns. `None` if the key is not valid.
    fn revoke(&mut self, key: RegionKey) -> Option<Buf>;

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
