//! The machines, the connections between them, and what is expected of them.

mod replicas;
mod shape;
mod views;
mod wires;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::collections::btree_map::{BTreeMap, Entry};
use alloc::vec;
use alloc::vec::Vec;

use ionian_slots::{SlotReader, SlotReport, SlotTable, SlotWriter};
use ionian_store::{Store, StoreConfig};
use ionian_types::{
    ClientId, ClusterId, ConnId, Durability, EntryNo, Gsn, Inc, LogId, Lsn, Nanos, NodeId,
    RootEpoch, SessionNo, ShardId, Slot, Time, ViewId,
};
use ionian_wire::codec::Field;
use ionian_wire::entry::{Change, EntryBody, EntryView, encode_members, write_change};
use ionian_wire::frame::{
    Body, DownShard, Hello, Intent, Member, Message, Report, Role, RootGrant, encode,
};
use ionian_wire::tree::{TreeVertex, encode_vertices};
use ionian_wire::{Reader, WIRE_VERSION, Writer};

use crate::aggregator::{Aggregator, AggregatorConfig};
use crate::cutlog::LogState;
use crate::leaf::{Leaf, LeafConfig};
use crate::outbox::{Outbox, OutboxLimits};
use crate::root::{Root, RootConfig};
use shape::rename;

const CLUSTER: ClusterId = ClusterId::new(7);
const LOG: LogId = LogId::new(1);
const ROOT_INC: Inc = Inc::new(1);
const CONTROLLER: ConnId = ConnId::new(0);
/// Replicas of a shard, all of which must hold a record.
const COPIES: u8 = 2;
/// Slots of the table that a leaf's replicas write to: more than there ever are.
const SLOTS: usize = 128;

/// Who is at one end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Who {
    Root,
    /// By its place in the list of processes.
    Vertex(usize),
    Replica(ShardId, Slot),
}

enum Machine {
    Leaf(Box<Leaf>),
    Aggregator(Box<Aggregator>),
}

struct Process {
    inc: Inc,
    machine: Machine,
    out: Outbox,
    slots: Slots,
}

/// The table that replicas write their reports to, and who has which slot.
struct Slots {
    table: SlotTable,
    reader: SlotReader,
    writers: BTreeMap<(ShardId, Slot), SlotWriter>,
}

impl Slots {
    fn new() -> Self {
        let table = SlotTable::new(SLOTS, usize::from(COPIES)).unwrap();
        Self {
            reader: table.reader(),
            table,
            writers: BTreeMap::new(),
        }
    }
}

/// A vertex of the shape: a process and what is below it.
#[derive(Clone)]
struct Node {
    process: usize,
    below: Vec<Self>,
}

#[derive(Default)]
struct Replica {
    lens: [u64; COPIES as usize],
    seq: u64,
    told: EntryNo,
}

/// What the cut log says of a shard at an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Expected {
    prev: EntryNo,
    base: Gsn,
    end: Gsn,
    lens: [u64; COPIES as usize],
}

/// Messages on their way, per direction; a connection that breaks loses them.
struct Wire {
    ends: [(Who, ConnId); 2],
    queues: [VecDeque<Vec<u8>>; 2],
}

pub(super) struct World {
    seed: u64,
    rng: u64,
    now: Time,
    root: Root,
    root_out: Outbox,
    processes: Vec<Process>,
    tree: Vec<Node>,
    /// The leaves of the last tree that was logged, and where each begins.
    begins: Vec<(usize, u32)>,
    /// A process that nobody can reach.
    away: Option<usize>,
    shards: BTreeMap<ShardId, u32>,
    replicas: BTreeMap<(ShardId, Slot), Replica>,
    wires: Vec<Wire>,
    conns: BTreeMap<Who, u32>,
    next_inc: u64,
    view: u64,
    /// The cut log as far as it is committed, and what follows from it.
    seen: LogState,
    expected: BTreeMap<(ShardId, EntryNo), Expected>,
    pub(super) downs: u64,
    /// Messages with more of an edge's start.
    pub(super) parts: u64,
    pub(super) views: u64,
}

fn encoded<B: Body>(body: &B, tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4096 + tail.len()];
    let len = encode(&mut bytes, body, &[tail]).unwrap();
    bytes.truncate(len);
    bytes
}

fn outbox() -> Outbox {
    Outbox::new(OutboxLimits {
        connections: 4096,
        ..OutboxLimits::default()
    })
}

fn hello(role: Role, node: u32, inc: Inc, shard: ShardId, slot: Slot) -> Hello {
    Hello {
        cluster: CLUSTER,
        wire_version: WIRE_VERSION,
        role,
        node: NodeId::new(node),
        inc,
        log: LOG,
        shard,
        slot,
        epoch: ViewId::ZERO,
        last: EntryNo::ZERO,
        client: ClientId::default(),
        session: SessionNo::ZERO,
    }
}

impl World {
    /// A world of a random shape.
    pub(super) fn new(seed: u64) -> Self {
        let mut world = Self::empty(seed);
        let shards = 1 + world.draw(12) as u32;
        let tree = world.draw_tree(3);
        world.begin(tree, shards);
        world
    }

    /// A world with so many vertices below each, from the root down, and so many shards.
    pub(super) fn shaped(seed: u64, fan: &[usize], shards: u32) -> Self {
        let mut world = Self::empty(seed);
        let tree = world.full(fan);
        world.begin(tree, shards);
        world
    }

    fn empty(seed: u64) -> Self {
        let now = Time::from_ns(1_000_000);
        let node = NodeId::new(1);
        let config = StoreConfig::new(CLUSTER, node, LOG, ShardId::MAX, 0, Durability::D0);
        let store = Store::new(config);
        let mut config = RootConfig::new(CLUSTER, node, ROOT_INC, LOG, Durability::D0);
        config.cut_log_chunk_entries = 1 << 20;
        let root = Root::new(config, store, now);
        let mut world = Self {
            seed,
            rng: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now,
            root,
            root_out: outbox(),
            processes: Vec::new(),
            tree: Vec::new(),
            begins: Vec::new(),
            away: None,
            shards: BTreeMap::new(),
            replicas: BTreeMap::new(),
            wires: Vec::new(),
            conns: BTreeMap::new(),
            next_inc: 100,
            view: 0,
            seen: LogState::default(),
            expected: BTreeMap::new(),
            downs: 0,
            parts: 0,
            views: 0,
        };
        world.root_out.set_room(CONTROLLER, 4 << 20);
        world.root.opened(CONTROLLER, &mut world.root_out);
        let controller = hello(Role::Controller, 0, Inc::ZERO, ShardId::ZERO, Slot::ZERO);
        world.tell_root(CONTROLLER, &encoded(&controller, &[]));
        let grant = RootGrant {
            log: LOG,
            inc: ROOT_INC,
            epoch: RootEpoch::new(1),
            floor: Gsn::ZERO,
            ceiling: Gsn::new(1 << 40),
            view: ViewId::ZERO,
            write_quorum: 1,
            seal_quorum: 1,
            members: 1,
            recorded: false,
        };
        let member = [1u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat();
        world.tell_root(CONTROLLER, &encoded(&grant, &member));
        world
    }

    fn begin(&mut self, tree: Vec<Node>, shards: u32) {
        self.tree = tree;
        for shard in 0..shards {
            self.shards.insert(ShardId::new(shard), shard);
        }
        let opened: Vec<ShardId> = self.shards.keys().copied().collect();
        self.propose(&opened, true, None);
        self.connect_all();
    }

    /// A number below `end`.
    fn draw(&mut self, end: usize) -> usize {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng >> 11) as usize % end.max(1)
    }

    /// Edges to aggregators and leaves that went on over a start of the one above.
    pub(super) fn resumed(&self) -> u64 {
        let counts = self.processes.iter().map(|process| match &process.machine {
            Machine::Aggregator(machine) => machine.counters().resumed,
            Machine::Leaf(_) => 0,
        });
        counts.sum()
    }

    /// How often the edge above each vertex has started.
    pub(super) fn edge_starts(&self) -> Vec<u64> {
        let starts = |process: &Process| match &process.machine {
            Machine::Aggregator(machine) => machine.counters().edge_starts,
            Machine::Leaf(machine) => machine.counters().edge_starts,
        };
        self.processes.iter().map(starts).collect()
    }

    /// Something happens.
    pub(super) fn step(&mut self, calm: bool) {
        match self.draw(100) {
            0..15 => self.write(),
            15..65 => {
                let wire = self.draw(self.wires.len());
                let end = self.draw(2);
                for _ in 0..=self.draw(3) {
                    self.deliver(wire, end);
                }
            }
            65..85 => {
                let flat = self.flat();
                let at = flat[self.draw(flat.len())].0;
                self.flush(at);
            }
            85..95 => self.flush_root(),
            _ => self.now = self.now.after(Nanos::from_us(self.draw(2000) as u64)),
        }
        if !calm && self.draw(60) == 0 {
            self.disturb();
        }
    }

    fn disturb(&mut self) {
        match self.draw(8) {
            0..4 => {
                let at = self.draw(self.wires.len());
                self.disconnect(at);
                self.connect_all();
            }
            4 => {
                // A process begins anew: nobody knows its next life before the view that names it.
                let flat = self.flat();
                let (at, below) = flat[self.draw(flat.len())];
                while let Some(wire) = self
                    .wires
                    .iter()
                    .position(|wire| wire.ends.iter().any(|end| end.0 == Who::Vertex(at)))
                {
                    self.disconnect(wire);
                }
                let fresh = self.process(below == 0);
                rename(&mut self.tree, at, fresh);
                self.propose(&[], true, None);
                self.connect_all();
            }
            5 => {
                self.reshape();
                self.propose(&[], true, None);
                self.connect_all();
            }
            6 => {
                let shards: Vec<ShardId> = self.shards.keys().copied().collect();
                let shard = shards[self.draw(shards.len())];
                let ends = shards.len() > 2 && self.draw(3) == 0;
                self.propose(&[], false, Some((shard, ends)));
                self.connect_all();
            }
            _ => {
                let next = self
                    .seen
                    .shards()
                    .map(|it| it.shard().get())
                    .max()
                    .unwrap_or(0)
                    + 1;
                if next < 40 {
                    let shard = ShardId::new(next);
                    let rank = self.draw(next as usize) as u32;
                    self.shards.insert(shard, rank);
                    self.propose(&[shard], false, None);
                    self.connect_all();
                }
            }
        }
    }

    /// Nothing breaks any more: what enough replicas hold is ordered, and all of them hear of it.
    pub(super) fn heal(&mut self) {
        self.connect_all();
        let keys: Vec<(ShardId, Slot)> = self.replicas.keys().copied().collect();
        for (shard, slot) in &keys {
            self.copy(*shard, *slot);
        }
        for _ in 0..600 {
            self.now = self.now.after(Nanos::from_ms(5));
            self.flush_root();
            for (process, _) in self.flat() {
                self.flush(process);
            }
            for wire in 0..self.wires.len() {
                while self.deliver(wire, 0) || self.deliver(wire, 1) {}
            }
            self.connect_all();
            if self.is_done() {
                return;
            }
            for (shard, slot) in self.replicas.keys().copied().collect::<Vec<_>>() {
                self.report(shard, slot);
            }
        }
        let lacks: Vec<_> = self
            .replicas
            .iter()
            .map(|((shard, slot), replica)| {
                let state = self.seen.shard(*shard).unwrap();
                let lens: Vec<u64> = state.lens().map(Lsn::get).collect();
                (
                    *shard,
                    *slot,
                    replica.lens,
                    lens,
                    replica.told,
                    state.last(),
                )
            })
            .collect();
        let edges: Vec<_> = self
            .processes
            .iter()
            .map(|process| match &process.machine {
                Machine::Aggregator(it) => (it.children().collect(), it.rounds_in_flight()),
                Machine::Leaf(_) => (Vec::new(), 0),
            })
            .collect();
        let tree = self.flat();
        panic!(
            "seed {}: it does not end: {lacks:?}, tree {tree:?}, {edges:?}",
            self.seed
        );
    }

    fn is_done(&self) -> bool {
        self.replicas.iter().all(|((shard, slot), replica)| {
            if !self.is_heard(*shard, *slot) {
                return true;
            }
            let state = self.seen.shard(*shard).unwrap();
            let ordered = state
                .lens()
                .zip(replica.lens)
                .all(|(len, held)| len.get() == held);
            ordered && replica.told == state.last()
        })
    }
}
