//! The machines, the connections between them, and what is expected of them.

mod shape;

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

    /// The first shards of the leaves, spread evenly.
    fn vertices(&self) -> Vec<TreeVertex> {
        let leaves = self.leaves();
        let mut ranks: Vec<u32> = self.shards.values().copied().collect();
        ranks.sort_unstable();
        let mut leaf = 0;
        let vertex = |(process, below): (usize, usize)| {
            let begins = if below > 0 || leaf == 0 {
                0
            } else {
                // Leaves beyond the shards have none, and begin one after the other.
                let at = leaf * ranks.len() / leaves;
                ranks.get(at).copied().unwrap_or(1000) * 100 + leaf as u32
            };
            leaf += usize::from(below == 0);
            TreeVertex {
                node: NodeId::new(10 + process as u32),
                inc: self.processes[process].inc,
                children: below as u16,
                begins: (begins, ShardId::ZERO),
            }
        };
        self.flat().into_iter().map(vertex).collect()
    }

    /// A view: these shards open, the tree is as it is now, this shard's first segment goes to another life or the shard ends.
    fn propose(&mut self, open: &[ShardId], tree: bool, close: Option<(ShardId, bool)>) {
        let mut changes = vec![0; 256 * 1024];
        let mut writer = Writer::new(&mut changes);
        for shard in open {
            let members: Vec<Member> = (0..COPIES).map(|slot| self.member(*shard, slot)).collect();
            let mut bytes = [0; 64];
            let change = Change::Open {
                shard: *shard,
                // Room between the ranks, for leaves to begin at.
                rank: self.shards[shard] * 100 + 99,
                log: LOG,
                class: Durability::D0,
                quorum: COPIES,
                members: encode_members(&mut bytes, &members).unwrap(),
            };
            write_change(&mut writer, &change).unwrap();
            for slot in 0..COPIES {
                self.replicas.entry((*shard, Slot::new(slot))).or_default();
            }
        }
        if let Some((shard, ends)) = close {
            let lens = [0; 8 * COPIES as usize];
            let segment = ionian_types::SegmentId {
                shard,
                slot: Slot::ZERO,
            };
            let member = self.member(shard, 0);
            let change = if ends {
                Change::Finalize {
                    shard,
                    lens: &lens,
                    lost_from: None,
                }
            } else {
                Change::Close {
                    segment,
                    generation: self.generation(shard),
                    len: Lsn::ZERO,
                    writer: Some(member.inc),
                    node: member.node,
                    domain: member.domain,
                }
            };
            write_change(&mut writer, &change).unwrap();
        }
        if tree {
            let vertices = self.vertices();
            let leaves = self.flat().into_iter().zip(&vertices);
            self.begins = leaves
                .filter(|((_, below), _)| *below == 0)
                .map(|((process, _), vertex)| (process, vertex.begins.0))
                .collect();
            let mut bytes = vec![0; vertices.len() * TreeVertex::LEN];
            let vertices = encode_vertices(&mut bytes, vertices.into_iter()).unwrap();
            write_change(&mut writer, &Change::Tree { vertices }).unwrap();
        }
        let len = writer.len();
        self.view += 1;
        self.views += 1;
        let view = ViewId::new(self.view);
        let intent = encoded(&Intent { log: LOG, view }, &changes[..len]);
        self.tell_root(CONTROLLER, &intent);
        assert_eq!(self.root.status().counters.bad_intents, 0);
        self.flush_root();
    }

    fn member(&self, shard: ShardId, slot: u8) -> Member {
        let node = 1000 + shard.get() * 10 + u32::from(slot);
        Member {
            node: NodeId::new(node),
            inc: Inc::new(u64::from(node)),
            domain: u32::from(slot),
        }
    }

    fn generation(&self, shard: ShardId) -> ViewId {
        let state = self.seen.shard(shard).expect("it is open");
        state.generations().next().expect("it has segments")
    }

    /// The next view opens another generation of the first segment of a shard.
    pub(super) fn close_segment(&mut self, shard: ShardId) {
        self.propose(&[], false, Some((shard, false)));
    }

    /// Who should be connected: each vertex with the one above it, each replica with its leaf.
    fn wanted(&self) -> Vec<(Who, Who)> {
        fn walk(above: Who, nodes: &[Node], found: &mut Vec<(Who, Who)>) {
            for node in nodes {
                let here = Who::Vertex(node.process);
                found.push((here, above));
                walk(here, &node.below, found);
            }
        }
        let mut found = Vec::new();
        walk(Who::Root, &self.tree, &mut found);
        for (shard, slot) in self.replicas.keys() {
            let rank = self.shards[shard] * 100 + 99;
            let leaf = self.begins.iter().rfind(|(_, begins)| *begins <= rank);
            let leaf = Who::Vertex(leaf.expect("the first leaf begins at 0").0);
            found.push((Who::Replica(*shard, *slot), leaf));
        }
        if let Some(away) = self.away.map(Who::Vertex) {
            found.retain(|(from, to)| *from != away && *to != away);
        }
        found
    }

    /// The last leaf cannot be reached any more, and the edge of its parent begins anew, of which something is lost.
    pub(super) fn lose_last_leaf(&mut self) {
        self.away = self.leaf_processes().last().copied();
        self.connect_all();
        let top = self.wires.iter().position(|it| it.ends[1].0 == Who::Root);
        self.disconnect(top.expect("the root has a child"));
        self.connect_all();
    }

    /// Whether somebody hears a replica.
    fn is_heard(&self, shard: ShardId, slot: Slot) -> bool {
        let who = Who::Replica(shard, slot);
        self.wires.iter().any(|wire| wire.ends[0].0 == who)
    }

    /// Breaks connections that are not wanted any more, and makes those that are missing.
    fn connect_all(&mut self) {
        let wanted = self.wanted();
        let pair = |wire: &Wire| (wire.ends[0].0, wire.ends[1].0);
        while let Some(at) = self
            .wires
            .iter()
            .position(|wire| !wanted.contains(&pair(wire)))
        {
            self.disconnect(at);
        }
        for (from, to) in wanted {
            if !self.wires.iter().any(|wire| pair(wire) == (from, to)) {
                self.connect(from, to);
            }
        }
    }

    fn connect(&mut self, from: Who, to: Who) {
        let ends = [from, to].map(|who| {
            let last = self.conns.entry(who).or_default();
            *last += 1;
            (who, ConnId::new(*last))
        });
        let queues = Default::default();
        self.wires.push(Wire { ends, queues });
        for (who, conn) in ends {
            match who {
                Who::Root => {
                    self.root_out.set_room(conn, 4 << 20);
                    self.root.opened(conn, &mut self.root_out);
                }
                Who::Vertex(at) => {
                    let Process { machine, out, .. } = &mut self.processes[at];
                    out.set_room(conn, 4 << 20);
                    match machine {
                        Machine::Leaf(leaf) => leaf.opened(conn, out),
                        Machine::Aggregator(aggregator) => aggregator.opened(conn, out),
                    }
                }
                Who::Replica(shard, slot) => {
                    let member = self.member(shard, slot.get());
                    let hello = hello(Role::Replica, member.node.get(), member.inc, shard, slot);
                    self.send((who, conn), encoded(&hello, &[]));
                    if self.writes_slots(shard) {
                        self.seat(to, shard, slot);
                    }
                    self.report(shard, slot);
                }
            }
            self.carry(who);
        }
    }

    /// Whether replicas of a shard write to a slot, instead of sending: in one world none, in others all or some.
    fn writes_slots(&self, shard: ShardId) -> bool {
        match self.seed % 3 {
            0 => false,
            1 => true,
            _ => shard.get().is_multiple_of(2),
        }
    }

    fn seat(&mut self, leaf: Who, shard: ShardId, slot: Slot) {
        let Who::Vertex(at) = leaf else { return };
        let Process { machine, slots, .. } = &mut self.processes[at];
        let Machine::Leaf(leaf) = machine else { return };
        let next = slots.writers.len();
        if let Entry::Vacant(vacant) = slots.writers.entry((shard, slot)) {
            vacant.insert(slots.table.writer(next).expect("a free slot"));
            leaf.seat(next, shard, slot);
        }
    }

    fn disconnect(&mut self, at: usize) {
        let wire = self.wires.swap_remove(at);
        for (who, conn) in wire.ends {
            match who {
                Who::Root => self.root.closed(conn),
                Who::Vertex(at) => match &mut self.processes[at].machine {
                    Machine::Leaf(leaf) => leaf.closed(conn),
                    Machine::Aggregator(aggregator) => aggregator.closed(conn),
                },
                Who::Replica(..) => {}
            }
        }
    }

    /// Puts a message on its way.
    fn send(&mut self, from: (Who, ConnId), bytes: Vec<u8>) {
        for wire in &mut self.wires {
            if let Some(end) = wire.ends.iter().position(|end| *end == from) {
                wire.queues[1 - end].push_back(bytes);
                return;
            }
        }
    }

    /// Takes what somebody says to where it goes, and closes what it wants closed.
    fn carry(&mut self, who: Who) {
        let out = match who {
            Who::Root => &mut self.root_out,
            Who::Vertex(at) => &mut self.processes[at].out,
            Who::Replica(..) => return,
        };
        let said: Vec<(ConnId, Vec<u8>)> = out
            .envelopes()
            .iter()
            .map(|envelope| (envelope.conn, out.head(envelope).to_vec()))
            .collect();
        out.clear();
        for (conn, bytes) in said {
            self.send((who, conn), bytes);
        }
        loop {
            let close = match who {
                Who::Root => self.root.take_close(),
                Who::Vertex(at) => match &mut self.processes[at].machine {
                    Machine::Leaf(leaf) => leaf.take_close(),
                    Machine::Aggregator(aggregator) => aggregator.take_close(),
                },
                Who::Replica(..) => None,
            };
            let Some(conn) = close else { return };
            let found = self
                .wires
                .iter()
                .position(|it| it.ends.contains(&(who, conn)));
            if let Some(at) = found {
                self.disconnect(at);
            }
        }
    }

    fn tell_root(&mut self, conn: ConnId, bytes: &[u8]) {
        let (message, _) = Message::new_checked(bytes).unwrap();
        self.root_out.set_room(conn, 4 << 20);
        self.root
            .handle(self.now, conn, &message, &mut self.root_out);
        self.carry(Who::Root);
    }

    /// The oldest message of a connection in one direction arrives.
    fn deliver(&mut self, wire: usize, end: usize) -> bool {
        let Some(wire) = self.wires.get_mut(wire) else {
            return false;
        };
        let Some(bytes) = wire.queues[end].pop_front() else {
            return false;
        };
        let (who, conn) = wire.ends[end];
        match who {
            Who::Root => self.tell_root(conn, &bytes),
            Who::Vertex(at) => {
                let (message, _) = Message::new_checked(&bytes).unwrap();
                self.parts += u64::from(matches!(message, Message::EdgeShards(..)));
                let Process { machine, out, .. } = &mut self.processes[at];
                out.set_room(conn, 4 << 20);
                match machine {
                    Machine::Leaf(leaf) => leaf.handle(self.now, conn, &message, out),
                    Machine::Aggregator(it) => it.handle(self.now, conn, &message, out),
                }
                self.carry(who);
            }
            Who::Replica(shard, slot) => self.hear(shard, slot, &bytes),
        }
        true
    }

    /// A replica is told something: of a cut it must be what the cut log says.
    fn hear(&mut self, shard: ShardId, slot: Slot, bytes: &[u8]) {
        let Some(replica) = self.replicas.get_mut(&(shard, slot)) else {
            return;
        };
        match Message::new_checked(bytes).unwrap().0 {
            Message::DownShard(down, tail) => {
                let said = said(&down, tail);
                let expected = self.expected.get(&(shard, down.entry));
                assert_eq!(Some(&said), expected, "shard {shard}, entry {}", down.entry);
                replica.told = replica.told.max(down.entry);
                self.downs += 1;
            }
            Message::SyncShard(sync, _) => {
                assert!(
                    sync.last <= self.seen.entry,
                    "an entry that is not committed"
                );
                // A leaf that a shard has left says that there is more to ask for.
                let last = self.seen.shard(shard).map_or(EntryNo::ZERO, |it| it.last());
                if sync.last <= last {
                    replica.told = replica.told.max(sync.last);
                }
            }
            _ => {}
        }
    }

    fn flush_root(&mut self) {
        let mine = self.wires.iter().flat_map(|wire| wire.ends);
        for (_, conn) in mine.filter(|(who, _)| *who == Who::Root) {
            self.root_out.set_room(conn, 4 << 20);
        }
        self.root.flush(self.now, &mut self.root_out);
        // What is said of an entry comes after the entry.
        self.see();
        self.carry(Who::Root);
    }

    fn flush(&mut self, at: usize) {
        let mine: Vec<ConnId> = self
            .wires
            .iter()
            .flat_map(|wire| wire.ends)
            .filter_map(|(who, conn)| (who == Who::Vertex(at)).then_some(conn))
            .collect();
        let Process {
            machine,
            out,
            slots,
            ..
        } = &mut self.processes[at];
        for conn in mine {
            out.set_room(conn, 4 << 20);
        }
        match machine {
            Machine::Leaf(leaf) => {
                leaf.scan(self.now, &mut slots.reader);
                leaf.flush(self.now, out);
            }
            Machine::Aggregator(aggregator) => aggregator.flush(self.now, out),
        }
        self.carry(Who::Vertex(at));
    }

    /// Reads what is newly committed.
    fn see(&mut self) {
        while let Some(next) = self.seen.entry.next()
            && let Some(bytes) = self.root.committed_entry(next)
        {
            let view = EntryView::new_checked(bytes).unwrap();
            let mut touched: Vec<(ShardId, Gsn, EntryNo)> = Vec::new();
            if let EntryBody::Cut(cut) = view.body {
                let mut base = cut.start_gsn.get();
                for item in self.seen.items(&cut) {
                    let shard = item.segment.shard;
                    if touched.last().is_none_or(|(last, ..)| *last != shard) {
                        let prev = self.seen.shard(shard).unwrap().last();
                        touched.push((shard, Gsn::new(base), prev));
                    }
                    base += item.count();
                }
                assert_eq!(base, cut.end_gsn.get());
            }
            self.seen.apply(&view).unwrap();
            for (shard, base, prev) in touched {
                let mut lens = [0; COPIES as usize];
                for (len, now) in lens.iter_mut().zip(self.seen.shard(shard).unwrap().lens()) {
                    *len = now.get();
                }
                let end = self.seen.end_gsn;
                let expected = Expected {
                    prev,
                    base,
                    end,
                    lens,
                };
                self.expected.insert((shard, next), expected);
            }
            if let EntryBody::View(body) = view.body {
                for change in body.changes() {
                    match change {
                        // Whoever has entered the view has dropped what no generation owns any more.
                        Change::Close { segment, len, .. } => {
                            for slot in 0..COPIES {
                                let key = (segment.shard, Slot::new(slot));
                                let replica = self.replicas.get_mut(&key).unwrap();
                                replica.lens[segment.slot.index()] = len.get();
                            }
                        }
                        Change::Finalize { shard, .. } => {
                            self.shards.remove(&shard);
                            self.replicas.retain(|(of, _), _| *of != shard);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// A replica says what it holds.
    fn report(&mut self, shard: ShardId, slot: Slot) {
        let (Some(state), Some(replica)) = (
            self.seen.shard(shard),
            self.replicas.get_mut(&(shard, slot)),
        ) else {
            return;
        };
        let epoch = state.epoch();
        replica.seq += 1;
        let (seq, applied, lens) = (replica.seq, replica.told, replica.lens);
        let report = Report {
            shard,
            epoch,
            inc: self.member(shard, slot.get()).inc,
            seq,
            applied,
            segments: COPIES,
        };
        let who = Who::Replica(shard, slot);
        let ends = self.wires.iter().map(|wire| wire.ends);
        let Some([own, leaf]) = ends.into_iter().find(|ends| ends[0].0 == who) else {
            return;
        };
        if let Who::Vertex(at) = leaf.0
            && let Some(writer) = self.processes[at].slots.writers.get_mut(&(shard, slot))
        {
            let (epoch, inc) = (report.epoch, report.inc);
            let lens = &lens;
            let written = writer.write(&SlotReport {
                epoch,
                inc,
                seq,
                applied,
                lens,
            });
            written.expect("as many lengths as segments");
            return;
        }
        let tail: Vec<u8> = lens.iter().flat_map(|len| len.to_le_bytes()).collect();
        self.send(own, encoded(&report, &tail));
    }

    /// A record is written somewhere, and after a while held by the other replica.
    fn write(&mut self) {
        let keys: Vec<(ShardId, Slot)> = self.replicas.keys().copied().collect();
        if keys.is_empty() {
            return;
        }
        let (shard, slot) = keys[self.draw(keys.len())];
        let more = 1 + self.draw(200) as u64;
        let own = self.replicas.get_mut(&(shard, slot)).unwrap();
        own.lens[slot.index()] += more;
        self.report(shard, slot);
        let (shard, slot) = keys[self.draw(keys.len())];
        self.copy(shard, slot);
    }

    fn copy(&mut self, shard: ShardId, slot: Slot) {
        let len = self.replicas[&(shard, slot)].lens[slot.index()];
        for other in (0..COPIES).map(Slot::new).filter(|other| *other != slot) {
            let copy = self.replicas.get_mut(&(shard, other)).unwrap();
            copy.lens[slot.index()] = len;
            self.report(shard, other);
        }
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

fn said(down: &DownShard, tail: &[u8]) -> Expected {
    let mut reader = Reader::new(tail);
    let lens = [(); COPIES as usize].map(|()| {
        let _generation: ViewId = reader.field().unwrap();
        reader.field::<u64>().unwrap()
    });
    Expected {
        prev: down.prev_entry,
        base: down.base,
        end: down.end_gsn,
        lens,
    }
}
