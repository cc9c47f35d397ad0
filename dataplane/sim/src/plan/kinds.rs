//! The kinds of faults, and of changes that operators ask for.

use ionian_types::Durability;

use super::Network;

/// The kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// One replica dies and starts again, only while its shard can bear it.
    CrashReplica,
    /// The leaf dies and starts again.
    CrashLeaf,
    /// The controller dies and starts again from its last durable snapshot.
    CrashController,
    /// The root dies and starts again. At D0 the cut log dies with it: everything is declared lost.
    CrashRoot,
    /// Both replicas of a shard die. At D0 the shard's records are declared lost.
    CrashShard,
    /// Every process but the clients dies. At D0 everything is declared lost.
    CrashAll,
    /// A process stands still for a while and goes on as if nothing had happened.
    Pause,
    /// A leaf or replica stands still, another one takes its place, and the first one goes on: a zombie.
    Zombie,
    /// The same of a client; the one that takes over has another name.
    ZombieClient,
    /// The same of the controller; what the first one writes after it was replaced is refused.
    ZombieController,
    /// A client dies, and another one comes.
    CrashClient,
    /// The controllers answer late, by up to seconds.
    ControllerSlow,
    /// The controllers lose their majority: for a while they answer nothing and keep nothing. Then they go on, or a new
    /// leader does from the last durable state.
    MajorityLoss,
    /// A connection breaks; what it carried is lost in part.
    Reset,
    /// The places fall into two groups that cannot reach each other for a while.
    PartitionFull,
    /// Two places cannot reach each other for a while; both reach all the others.
    PartitionPair,
    /// What goes one way is lost for a while, what comes the other way arrives: between two places, or all that a place
    /// says or hears.
    PartitionOneWay,
    /// Messages between two places, or all of one place, are slow for a while.
    Delay,
    /// Messages between two places are held for a while and then all arrive.
    Clog,
    /// The links of a place stop one by one and go on in another order.
    Swizzle,
    /// A connection breaks for its sender, which opens another one; what it had sent arrives long after. Fabric only.
    Late,
    /// Datagrams of sessions that have ended arrive in a later session of the same two places. Datagram network only.
    Replay,
    /// Datagrams are lost. Datagram network only.
    Loss,
    /// Datagrams arrive twice. Datagram network only.
    Duplicate,
    /// Datagrams overtake each other by milliseconds. Datagram network only.
    Reorder,
    /// A bit of a datagram flips. Datagram network only.
    Garble,
    /// The clock of a process jumps forward, by up to hours.
    ClockJump,
    /// The clock of a process goes up to a tenth too fast or too slow from now on.
    ClockDrift,
    /// A device is slow for a while. Flushed classes only.
    SlowDisk,
    /// A replica's device is lost with all that it held; the process starts again with an empty one. One replica per shard,
    /// the one that [`Self::Corrupt`] hits. Flushed classes only.
    LoseDisk,
    /// A device flips bits in records that it had flushed, of one replica per shard. Flushed classes only.
    Corrupt,
    /// At a crash, some sectors of a write that was not flushed are there and some are not. Comes with crashes.
    TornWrite,
    /// At a crash, a write that was not flushed is not there. Comes with crashes.
    LostUnflushed,
    /// A write that was flushed is not there, on the one replica of a shard that [`Self::Corrupt`] hits. Flushed classes only,
    /// as all that follow.
    LostWrite,
    /// A write that was flushed is in another place of the same kind of file. The same replica.
    MisdirectedWrite,
    /// A read answers what is in another place. The same replica.
    MisdirectedRead,
    /// A bit flips in what was flushed to the journal. The same replica.
    RotJournal,
    /// A bit flips in copies of the superblock, as many as the layout bears, of any store.
    RotSuperblock,
    /// A bit flips in one copy of a checkpoint, of any store.
    RotCheckpoint,
    /// A flush fails: the process ends, and another one starts from what is there.
    FlushFails,
    /// A read fails, once or many times in a row.
    ReadFails,
    /// A device takes no more files for a while: something else has filled it.
    FullDisk,
    /// A replica has a device so small that it was full. Drawn with the plan.
    SmallDisk,
    /// A device is set back to what it held some time ago. The same replica.
    OldImage,
    /// A process dies before it flushes its machine for the n-th time.
    CrashAtFlush,
    /// A process dies when some messages of a flush are sent and others are not: in the middle of a cut, for example.
    CrashMidSend,
    /// A process dies before its n-th device operation. Flushed classes only, as those that follow.
    CrashAtOp,
    /// A process dies when its device has done an operation and its store was not told: before persistence is known.
    CrashAtDone,
    /// A process dies when its store was told and its machine has not acted on it: after persistence.
    CrashAfterDone,
    /// A process dies between the operations of a checkpoint.
    CrashInCheckpoint,
    /// A replica reaches its peers and clients, and neither the root nor the leaf: it learns nothing of the order for a while.
    CutOff,
    /// The root group's leader and some clients reach each other and nobody else for a while, or everybody but its group.
    Strand,
    /// An operator adds a shard.
    AddShard,
    /// An operator finalizes a shard, with a successor or without.
    FinalizeShard,
    /// An operator has another node take a replica's place, where a part of the replicas is enough.
    ReplaceReplica,
    /// An operator has a vertex of the ordering tree run on another node.
    MoveVertex,
    /// An operator has another member of the root group lead.
    MoveLeader,
    /// An operator has another node take the place of a member of the root group.
    SetRoot,
    /// An operator drains a node.
    DrainNode,
    /// An operator gives a change up that is under way.
    CancelChange,
    /// An operator gives the log an ordering tree of another fan-in or depth.
    SetTree,
    /// An aggregator of the ordering tree dies and starts again.
    CrashAggregator,
    /// A vertex of the tree stands still for a while and goes on as if nothing had happened.
    PauseVertex,
    /// A vertex of the tree and those above it cannot reach each other for a while.
    CutParent,
    /// A vertex of the tree and those below it cannot reach each other for a while.
    CutChildren,
    /// A vertex of the tree dies, and the next life has its address before others have learned of that.
    RestartVertex,
    /// A round that goes up the tree, or a base that goes down, is lost with its connection.
    LoseRounds,
    /// A cut of a shard is lost on its way to all of its replicas, and the shard is silent then.
    LoseLastCut,
    /// Reports of replicas are overwritten by the next ones before a leaf has read them, for a while.
    OverwriteReports,
    /// Reports of replicas arrive twice, for a while.
    RepeatReports,
    /// Reports of replicas arrive after later ones, for a while.
    ReorderReports,
    /// A replica reports less than it has reported before, and ends. Flushed classes only.
    RegressReport,
    /// A child of a vertex, or a vertex, has no room for what the other end of an edge has to say, for a while.
    FullRing,
}

/// All kinds, in the order of their counters.
pub const FAULTS: [Fault; 73] = [
    Fault::CrashReplica,
    Fault::CrashLeaf,
    Fault::CrashController,
    Fault::CrashRoot,
    Fault::CrashShard,
    Fault::CrashAll,
    Fault::Pause,
    Fault::Zombie,
    Fault::ZombieClient,
    Fault::ZombieController,
    Fault::CrashClient,
    Fault::ControllerSlow,
    Fault::MajorityLoss,
    Fault::Reset,
    Fault::PartitionFull,
    Fault::PartitionPair,
    Fault::PartitionOneWay,
    Fault::Delay,
    Fault::Clog,
    Fault::Swizzle,
    Fault::Late,
    Fault::Replay,
    Fault::Loss,
    Fault::Duplicate,
    Fault::Reorder,
    Fault::Garble,
    Fault::ClockJump,
    Fault::ClockDrift,
    Fault::SlowDisk,
    Fault::LoseDisk,
    Fault::Corrupt,
    Fault::TornWrite,
    Fault::LostUnflushed,
    Fault::LostWrite,
    Fault::MisdirectedWrite,
    Fault::MisdirectedRead,
    Fault::RotJournal,
    Fault::RotSuperblock,
    Fault::RotCheckpoint,
    Fault::FlushFails,
    Fault::ReadFails,
    Fault::FullDisk,
    Fault::SmallDisk,
    Fault::OldImage,
    Fault::CrashAtFlush,
    Fault::CrashMidSend,
    Fault::CrashAtOp,
    Fault::CrashAtDone,
    Fault::CrashAfterDone,
    Fault::CrashInCheckpoint,
    Fault::CutOff,
    Fault::Strand,
    Fault::AddShard,
    Fault::FinalizeShard,
    Fault::ReplaceReplica,
    Fault::MoveVertex,
    Fault::MoveLeader,
    Fault::SetRoot,
    Fault::DrainNode,
    Fault::CancelChange,
    Fault::SetTree,
    Fault::CrashAggregator,
    Fault::PauseVertex,
    Fault::CutParent,
    Fault::CutChildren,
    Fault::RestartVertex,
    Fault::LoseRounds,
    Fault::LoseLastCut,
    Fault::OverwriteReports,
    Fault::RepeatReports,
    Fault::ReorderReports,
    Fault::RegressReport,
    Fault::FullRing,
];

impl Fault {
    /// Whether there is anything that it could hit.
    #[must_use]
    pub const fn fits(self, network: Network, class: Durability) -> bool {
        match self {
            Self::Replay | Self::Loss | Self::Duplicate | Self::Reorder | Self::Garble => {
                matches!(network, Network::Datagram)
            }
            Self::Late => matches!(network, Network::Fabric),
            Self::RegressReport => class.is_flushed(),
            fault => !fault.needs_device() || class.is_flushed(),
        }
    }

    /// Whether it may destroy more than the class promises to survive: records may then be declared lost, nothing else.
    #[must_use]
    pub const fn is_beyond(self, class: Durability) -> bool {
        matches!(class, Durability::D0)
            && matches!(self, Self::CrashRoot | Self::CrashShard | Self::CrashAll)
    }

    /// Whether it is not scheduled, but comes with others or with the plan.
    #[must_use]
    pub const fn is_consequence(self) -> bool {
        matches!(
            self,
            Self::TornWrite | Self::LostUnflushed | Self::SmallDisk
        )
    }

    /// Whether it is none, but a change of the cluster that an operator asks for. Those happen in every phase in which there
    /// is work, and not in the legal core.
    #[must_use]
    pub const fn is_change(self) -> bool {
        matches!(
            self,
            Self::AddShard
                | Self::FinalizeShard
                | Self::ReplaceReplica
                | Self::MoveVertex
                | Self::MoveLeader
                | Self::SetRoot
                | Self::DrainNode
                | Self::CancelChange
                | Self::SetTree
        )
    }

    /// Whether it came to be after plans had been drawn without it: it is drawn from a stream of its own.
    pub(super) const fn is_late(self) -> bool {
        matches!(self, Self::SetTree) || self.is_of_tree()
    }

    /// Whether it needs a device.
    #[must_use]
    pub const fn needs_device(self) -> bool {
        matches!(
            self,
            Self::SlowDisk
                | Self::LoseDisk
                | Self::Corrupt
                | Self::TornWrite
                | Self::LostUnflushed
                | Self::LostWrite
                | Self::MisdirectedWrite
                | Self::MisdirectedRead
                | Self::RotJournal
                | Self::RotSuperblock
                | Self::RotCheckpoint
                | Self::FlushFails
                | Self::ReadFails
                | Self::FullDisk
                | Self::SmallDisk
                | Self::OldImage
                | Self::CrashAtOp
                | Self::CrashAtDone
                | Self::CrashAfterDone
                | Self::CrashInCheckpoint
        )
    }
}

/// How many of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultCounts([u64; FAULTS.len()]);

impl Default for FaultCounts {
    fn default() -> Self {
        Self([0; FAULTS.len()])
    }
}

impl FaultCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds those of others.
    pub fn add(&mut self, other: &Self) {
        for (total, count) in self.0.iter_mut().zip(other.0) {
            *total += count;
        }
    }
}

impl core::ops::Index<Fault> for FaultCounts {
    type Output = u64;

    fn index(&self, fault: Fault) -> &u64 {
        &self.0[fault as usize]
    }
}

impl core::ops::IndexMut<Fault> for FaultCounts {
    fn index_mut(&mut self, fault: Fault) -> &mut u64 {
        &mut self.0[fault as usize]
    }
}
