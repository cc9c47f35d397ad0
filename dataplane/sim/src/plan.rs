//! What one run does: its network, its load and which kinds of faults happen. Drawn from the seed (swarm testing: each
//! seed first draws which faults exist, then how often), or made by hand in a test.

mod draw;
mod kinds;

use ionian_core::replica::ReplicaTiming;
use ionian_types::{Durability, Nanos};

pub use self::kinds::{FAULTS, Fault, FaultCounts};
use crate::trees::VertexPlan;

/// How messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// Reliable and in order per connection, as rings in memory or a reliable fabric are; connections break.
    Fabric,
    /// Datagrams that are lost, repeated, reordered, damaged; the shipped session layer above them.
    Datagram,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How messages travel.
    pub network: Network,
    /// What an acknowledgement means.
    pub class: Durability,
    /// The number of shards.
    pub shards: u32,
    /// The ordering tree, depth-first: how many vertices are right below each, and where the shards of a leaf begin.
    pub tree: Vec<VertexPlan>,
    /// Replicas per shard.
    pub replicas: u8,
    /// How many of them must hold a record.
    pub quorum: u8,
    /// Members of the root group.
    pub roots: u8,
    /// Whether all of them must hold an entry, rather than most.
    pub all_write: bool,
    /// The number of clients.
    pub clients: u32,
    /// Bytes that a connection takes beyond the reserve for answers.
    pub buffer_bytes: usize,
    /// The largest payload in bytes.
    pub payload_bytes_max: u64,
    /// Records in one chunk of a store are few when this is small: bytes.
    pub chunk_bytes: u32,
    /// Bytes of record files and of record memory of the replica in the first slot, in the second, and in the others.
    pub space_bytes: [u64; 3],
    /// Stores write in units of this many bytes.
    pub block_bytes: u32,
    /// Devices keep or lose so many bytes at a time when they fail: 512 or a block.
    pub sector_bytes: u32,
    /// Nanoseconds between two actions of a client, on average.
    pub think_ns: u64,
    /// The most unresolved appends of one client.
    pub outstanding_max: u32,
    /// When a client gives up an append; what it may have done is then unknown.
    pub append_timeout: Nanos,
    /// Whether clients that keep to one server leave it now and then: the session is closed, another one opened.
    pub moves: bool,
    /// Whether clients trim.
    pub trims: bool,
    /// Entries in a replica's journal between two checkpoints (flushed classes).
    pub checkpoint_every: u64,
    /// How long a silent member keeps entries of the cut log from being dropped.
    pub gone: Nanos,
    /// For how long a replica hears nothing of its leaf before it asks the cut log by itself.
    pub quiet: Nanos,
    /// Entries that the root drops at a time.
    pub cut_log_chunk_entries: usize,
    /// Bytes of entries with which the cut log is full: nothing is ordered until some are dropped.
    pub cut_log_bytes_max: u64,
    /// The least time between two cuts.
    pub cut_interval_us: u64,
    /// The least and the most calls of all clients together while faults may happen and shortly after.
    pub calls: [u64; 2],
    /// Whether more may be destroyed than the class promises to survive: records may then be declared lost, nothing else.
    pub beyond_f: bool,
    /// Whether [`Fault::Corrupt`] hits every device of a shard, each in other records. Never drawn.
    pub damage_both: bool,
    /// Whether only a core is healed at first, within which progress must be possible.
    pub legal_core: bool,
    /// Whether the clocks of processes are off from the start; right and in step otherwise.
    pub clocks: bool,
    /// Nanoseconds before the first fault.
    pub warm_up_ns: u64,
    /// Nanoseconds in which faults happen.
    pub fault_ns: u64,
    /// The kinds of faults, with how many of each.
    pub faults: Vec<(Fault, u64)>,
    /// The only faults that happen, by their places among [`Plan::instances`]; all when there is no list.
    pub only: Option<Vec<u32>>,
    /// Clients begin nothing new after so many calls and subscriptions.
    pub operations_max: u64,
}

impl Plan {
    /// No faults, a quick network.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            network: Network::Fabric,
            class: Durability::D0,
            shards: 2,
            tree: vec![(0, 0)],
            replicas: 2,
            quorum: 2,
            roots: 1,
            all_write: false,
            clients: 2,
            buffer_bytes: 1 << 20,
            payload_bytes_max: 200,
            chunk_bytes: 64 << 10,
            space_bytes: [256 << 20; 3],
            block_bytes: 512,
            sector_bytes: 512,
            think_ns: 300_000,
            outstanding_max: 64,
            append_timeout: Nanos::from_ms(3_000),
            moves: false,
            trims: false,
            checkpoint_every: 1 << 17,
            gone: Nanos::from_ms(30_000),
            quiet: ReplicaTiming::default().quiet,
            cut_log_chunk_entries: 4096,
            cut_log_bytes_max: 1 << 30,
            cut_interval_us: 0,
            calls: [0, u64::MAX],
            beyond_f: false,
            damage_both: false,
            legal_core: false,
            clocks: false,
            warm_up_ns: 30_000_000,
            fault_ns: 100_000_000,
            faults: Vec::new(),
            only: None,
            operations_max: u64::MAX,
        }
    }

    /// Every single fault, those that are left out too: where one stands in this list does not depend on the others.
    pub fn instances(&self) -> impl Iterator<Item = (u32, Fault)> + '_ {
        let each = self
            .faults
            .iter()
            .flat_map(|(fault, count)| (0..*count).map(|_| *fault));
        (0..).zip(each)
    }

    /// Whether the fault at a place of [`Plan::instances`] happens.
    #[must_use]
    pub fn includes(&self, instance: u32) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.contains(&instance))
    }

    /// Whether operators change the cluster.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.faults.iter().any(|(fault, _)| fault.is_change())
    }

    /// Whether a fault may destroy more than the class promises to survive: a root group of several bears the loss of one of
    /// its members.
    #[must_use]
    pub fn is_beyond(&self, fault: Fault) -> bool {
        let borne = fault == Fault::CrashRoot && self.roots > 1 && !self.beyond_f;
        fault.is_beyond(self.class) && !borne
    }

    /// How many replicas of a shard may be away while it goes on.
    #[must_use]
    pub const fn spare(&self) -> u8 {
        self.replicas.saturating_sub(self.quorum)
    }

    /// The failure domain of a slot of a shard. With a quorum, two slots are in one domain, as an operator may place them.
    #[must_use]
    pub const fn domain(&self, shard: u32, slot: u8) -> u32 {
        let slot = if matches!(self.class, Durability::D2) && self.spare() > 0 {
            slot / 2
        } else {
            slot
        };
        shard * 10 + slot as u32
    }

    /// Whether a replica's space is so small that it is full now and then.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.space_bytes
            .iter()
            .any(|space| *space <= self.small_bytes())
    }

    /// Bytes of space that are little more than a store must have: of a device the least that it starts with, two files of
    /// four chunks for each segment and one more.
    #[must_use]
    pub fn small_bytes(&self) -> u64 {
        let chunks = if self.class.is_flushed() {
            (u64::from(self.replicas) * 2 + 1) * 4
        } else {
            12
        };
        chunks * u64::from(self.chunk_bytes)
    }

    /// Whether a shard may stand still for good: what is damaged on every device is nowhere to be had, nor what was held by a
    /// quorum that is lost, while a member that did not hold it lives; nor what a shard held that had ended.
    #[must_use]
    pub fn may_halt(&self) -> bool {
        self.beyond_f && (self.class.is_flushed() || self.spare() > 0 || self.changes())
    }

    /// Whether records may be declared lost.
    #[must_use]
    pub fn may_lose(&self) -> bool {
        self.beyond_f
    }
}
