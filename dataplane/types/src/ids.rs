//! Who: nodes, incarnations, logs, shards, replicas, clients, sessions.

use crate::num::number;

number! {
    /// A machine or process of the cluster, named by the operator and kept over restarts.
    NodeId(u32)
}
number! {
    /// An incarnation: one life of one process. Issued by the controller, never reused; 0 means none.
    Inc(u64)
}
number! {
    /// A log: one total order.
    LogId(u32)
}
number! {
    /// A shard of one log. Never reused.
    ShardId(u32)
}
number! {
    /// A vertex of a log's ordering tree, an aggregator or a leaf, whichever process fills it. Never reused.
    VertexId(u32)
}
number! {
    /// A replica's slot within its shard, 0-based, below [`SEGMENTS_PER_SHARD_MAX`]. The replica in slot `i` is the only
    /// writer of segment `i`.
    Slot(u8)
}
number! {
    /// A session number within one client life. FIFO is promised per (client, session) on one server.
    SessionNo(u32)
}
number! {
    /// A client's append number within one session, from 0, dense.
    ClientSeq(u64)
}
number! {
    /// A data-plane session between two processes, as named by its grant.
    SessionId(u64)
}
number! {
    /// The secret that each frame of a granted session carries, one per direction.
    Token(u64)
}
number! {
    /// A connection as its own process names it: a small dense index, never on the wire.
    ConnId(u32)
}

/// The largest number of replicas of a shard (a leaf slot of two cache lines holds seven lengths).
pub const SEGMENTS_PER_SHARD_MAX: usize = 7;

/// The largest number of members of a root group.
pub const ROOT_MEMBERS_MAX: usize = 7;

impl Slot {
    /// The slot as an index into per-shard tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self.get() as usize
    }
}

impl ConnId {
    /// The connection as an index into per-connection tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self.get() as usize
    }
}

/// A segment: the part of a shard that one replica writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentId {
    /// The shard it belongs to.
    pub shard: ShardId,
    /// The slot of its writer.
    pub slot: Slot,
}

impl core::fmt::Display for SegmentId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.shard, self.slot)
    }
}

/// A client life: 128 random bits, new for every start of a client that keeps no state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClientId(u128);

impl ClientId {
    /// Makes an identity from 128 random bits.
    #[must_use]
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl core::fmt::Debug for ClientId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ClientId({:032x})", self.0)
    }
}

impl core::fmt::Display for ClientId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A cluster: 128 random bits drawn when the cluster is made, written in every superblock and handshake.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(u128);

impl ClusterId {
    /// Makes an identity from 128 random bits.
    #[must_use]
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl core::fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ClusterId({:032x})", self.0)
    }
}

impl core::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
