//! Newtypes of the Ionian data plane: positions, epochs, identities, and their checked arithmetic.
//!
//! Nothing here does I/O or depends on anything. Each number of the protocol has a type of its own, so that a position
//! in a segment cannot be passed where a position in the total order is meant. There is no `From<u64>`: a value is made
//! by `new` where it enters from the wire, the disk or a user, and by checked arithmetic everywhere else.
#![no_std]
#![forbid(unsafe_code)]

mod class;
mod gap;
mod ids;
mod knobs;
mod num;
mod position;
mod time;

pub use class::{Durability, Effect, OrderingMode};
pub use gap::GapKind;
pub use ids::{
    ClientId, ClientSeq, ClusterId, ConnId, Inc, LogId, NodeId, ROOT_MEMBERS_MAX,
    SEGMENTS_PER_SHARD_MAX, SegmentId, SessionId, SessionNo, ShardId, Slot, Token, VertexId,
};
pub use knobs::{Knobs, Mutant, Shipped};
pub use position::EdgeEpoch;
pub use position::{
    CellKey, EntryNo, Frontiers, Gen, Gsn, GsnRange, GuardEpoch, Lsn, NsEpoch, Position, RootEpoch,
    RoundNo, ViewId,
};
pub use time::{Nanos, Time};

/// The largest payload of one record, in bytes (1 MiB). Larger appends are refused before any effect.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
