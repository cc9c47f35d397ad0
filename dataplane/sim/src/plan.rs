//! What one run does: its network, its load and which kinds of faults happen. Drawn from the seed (swarm testing: each
//! seed first draws which faults exist, then how often), or made by hand in a test.

use ionian_core::replica::ReplicaTiming;
use ionian_types::{Durability, Nanos};

use crate::rng::Rng;
use crate::trees::VertexPlan;

/// How messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// Reliable and in order per connection, as rings in memory or a reliable fabric are; connections break.
    Fabric,
    /// Datagrams that are lost, repeated, reordered, damaged; the shipped session layer above them.
    Datagram,
}

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
    const fn is_late(self) -> bool {
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

    /// Drawn from a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, "plan");
        let mut plan = Self::calm();
        if rng.permille(250) {
            plan.network = Network::Datagram;
        } else if rng.permille(400) {
            plan.class = Durability::D1;
            plan.checkpoint_every = rng.pick(&[20, 200, 1 << 17]);
            // Long and short beside how long a replica stays away.
            plan.gone = Nanos::from_ms(rng.pick(&[30, 200, 30_000]));
            plan.cut_log_chunk_entries = rng.pick(&[8, 32, 128, 4096]);
        }
        plan.draw_quorum(seed);
        plan.draw_roots(seed);
        plan.clients = rng.range(2, 4) as u32;
        plan.buffer_bytes = rng.pick(&[5 << 10, 12 << 10, 64 << 10, 1 << 20]);
        plan.payload_bytes_max = rng.pick(&[8, 64, 400, 2000]);
        plan.chunk_bytes = rng.pick(&[16 << 10, 64 << 10]);
        plan.think_ns = rng.pick(&[300_000, 600_000, 1_200_000]);
        plan.outstanding_max = rng.pick(&[1, 16, 256]) as u32;
        plan.trims = rng.permille(400);
        plan.clocks = rng.permille(500);
        plan.moves = rng.permille(700);
        plan.cut_interval_us = rng.pick(&[0, 0, 100, 2000]);
        plan.fault_ns = rng.pick(&[100, 100, 200, 200, 400, 400, 400, 2000]) * 1_000_000;
        if plan.network == Network::Datagram {
            plan.think_ns = 1_500_000;
            plan.fault_ns = rng.pick(&[150, 150, 400]) * 1_000_000;
        }
        plan.draw_devices(seed);
        plan.calls = [1000, rng.pick(&[1000, 1200, 2000])];
        // At D0 processes, at flushed classes all devices of a shard.
        let odds = if plan.class.is_flushed() { 120 } else { 250 };
        plan.beyond_f = rng.permille(odds);
        for fault in FAULTS.into_iter().filter(|fault| !fault.is_late()) {
            let odds = match fault {
                _ if plan.is_beyond(fault) => 300 * u64::from(plan.beyond_f),
                Fault::CrashRoot | Fault::CrashShard | Fault::CrashAll => 120,
                Fault::CrashReplica | Fault::Reset | Fault::Corrupt | Fault::LoseDisk => 450,
                Fault::OldImage | Fault::CrashInCheckpoint | Fault::RotCheckpoint => 450,
                _ => 250,
            };
            let fits = fault.fits(plan.network, plan.class) && !fault.is_consequence();
            let fits = fits && !fault.is_change() && !fault.is_of_tree();
            let fits = fits && fault != Fault::Strand;
            if rng.permille(odds) && fits {
                let most = if matches!(fault, Fault::Reset) { 12 } else { 4 };
                let count = rng.range(1, most);
                plan.faults.push((fault, count));
            }
        }
        let mut rng = Rng::stream(seed, "legal core");
        plan.legal_core = !plan.beyond_f && rng.permille(600);
        if plan.faults.is_empty() {
            plan.faults.push((Fault::Reset, 2));
        }
        plan.draw_cut_log(seed);
        plan.draw_changes(seed);
        plan.draw_strand(seed);
        plan.draw_tree(seed);
        plan.draw_tree_faults(seed);
        plan
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

    /// Of some seeds a shard has three replicas of which two must hold a record, from a stream of its own.
    fn draw_quorum(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "quorum");
        if rng.permille(350) {
            (self.replicas, self.quorum) = (3, 2);
            if self.class == Durability::D1 && rng.permille(350) {
                self.class = Durability::D2;
            }
        }
    }

    /// The root groups of some seeds have several members, from a stream of its own.
    fn draw_roots(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "roots");
        if rng.permille(450) {
            (self.roots, self.all_write) =
                rng.pick(&[(2, true), (3, false), (3, false), (3, true)]);
        }
    }

    /// In some seeds with a root group its leader is left alone with clients, from a stream of its own.
    fn draw_strand(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "strand");
        if self.roots > 1 && rng.permille(350) {
            let count = rng.range(1, 4);
            self.faults.push((Fault::Strand, count));
        }
    }

    /// In some seeds operators change the cluster, from a stream of its own: after the faults, which keep their places.
    fn draw_changes(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "changes");
        if !rng.permille(400) {
            return;
        }
        // What a shard of the core waits for may be outside of it.
        self.legal_core = false;
        let changes = FAULTS.into_iter().filter(|fault| fault.is_change());
        for fault in changes.filter(|fault| !fault.is_late()) {
            let fits = match fault {
                // Else it is copies that move, of shards that have ended.
                Fault::ReplaceReplica => {
                    let ends = |(fault, _): &(Fault, u64)| *fault == Fault::FinalizeShard;
                    self.spare() > 0 || self.faults.iter().any(ends)
                }
                Fault::MoveLeader | Fault::SetRoot => self.roots > 1,
                _ => true,
            };
            if rng.permille(450) && fits {
                let count = rng.range(1, 3);
                self.faults.push((fault, count));
            }
        }
        // What the members of a shard that has ended may miss stays in the cut log until it is trimmed.
        let ends =
            |(fault, _): &(Fault, u64)| matches!(fault, Fault::FinalizeShard | Fault::DrainNode);
        if self.faults.iter().any(ends) {
            self.cut_log_bytes_max = Self::calm().cut_log_bytes_max;
        }
    }

    /// What happens to the ordering tree, from a stream of its own: after all others, which keep their places. One leaf has fewer
    /// of these faults.
    fn draw_tree_faults(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "tree faults");
        let inner = self.tree.len() > 1;
        let none = if inner { 250 } else { 700 };
        let (changes, calm) = (self.changes(), rng.permille(none));
        for fault in FAULTS.into_iter().filter(|fault| fault.is_of_tree()) {
            let aggregators = self.tree.iter().any(|(children, _)| *children > 0);
            let fits = fault != Fault::CrashAggregator || aggregators;
            let (drawn, count) = (rng.permille(300), rng.range(1, 4));
            if drawn && !calm && fits && fault.fits(self.network, self.class) {
                self.faults.push((fault, count));
            }
        }
        if changes && rng.permille(450) {
            self.faults.push((Fault::SetTree, rng.range(1, 4)));
        }
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

    /// A cut log that is full now and then, from a stream of its own. Not where a place stays away for long: what its members
    /// have not applied is kept for them, and at last nothing is ordered.
    fn draw_cut_log(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "cut log");
        if !self.class.is_flushed() || self.legal_core || self.beyond_f || !rng.permille(400) {
            return;
        }
        // More than a chunk of the largest entries takes: what is not dropped yet is one chunk, at least.
        self.cut_log_bytes_max = rng.pick(&[4 << 10, 8 << 10]);
        self.cut_log_chunk_entries = 8;
        self.gone = Nanos::from_ms(rng.pick(&[30, 200]));
    }

    /// What the devices are like, from a stream of its own.
    fn draw_devices(&mut self, seed: u64) {
        let mut rng = Rng::stream(seed, "devices");
        if !self.class.is_flushed() {
            return;
        }
        if rng.permille(300) {
            self.block_bytes = 4096;
            self.chunk_bytes = 64 << 10;
            self.sector_bytes = rng.pick(&[512, 4096]);
        }
        if rng.permille(150) {
            // Little more than a store must have, and records that fill it; trims make room.
            self.chunk_bytes = self.block_bytes.max(2048) * 8;
            self.payload_bytes_max = 2000;
            let small = self.small_bytes();
            self.space_bytes = rng.pick(&[
                [small; 3],
                [small, 256 << 20, small],
                [256 << 20, small, small],
            ]);
            self.trims = true;
        }
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
