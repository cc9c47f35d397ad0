//! A whole root group in one place: members on devices that lose what was not flushed, connections that break, a controller
//! that seals and names, and a leaf that says what grows. What must hold is checked as it happens.

mod controller;
mod device;
mod locate;
mod random;
mod scripted;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use ionian_store::{BlockOp, Store, StoreConfig, StoreState};
use ionian_types::{
    ClientId, ClusterId, ConnId, Durability, EdgeEpoch, EntryNo, Gsn, Inc, LogId, Nanos, NodeId,
    RoundNo, SessionNo, ShardId, Slot, Time, ViewId,
};
use ionian_wire::codec::Field as _;
use ionian_wire::entry::{Change, encode_members, write_change};
use ionian_wire::frame::{
    self, Body, Hello, Intent, LocateAnswer, Member, Message, Role, ShardStart, Tail, TrimRequest,
    TrimStatus, Up, WriteOutcome,
};
use ionian_wire::growth::GrowthWriter;
use ionian_wire::tree::{TreeVertex, encode_vertices};
use ionian_wire::{Reader, WIRE_VERSION, Writer};

use super::{Root, RootConfig};
use crate::outbox::{Outbox, OutboxLimits};
use controller::Controller;
use device::Device;

const CLUSTER: ClusterId = ClusterId::new(7);
const LOG: LogId = LogId::new(1);
const LEAF: (NodeId, Inc) = (NodeId::new(50), Inc::new(9));
const SHARD: ShardId = ShardId::ZERO;
const CONTROLLER: ConnId = ConnId::new(0);
const BELOW: ConnId = ConnId::new(1);
const CLIENT: ConnId = ConnId::new(2);

/// Numbers that the seed decides.
#[derive(Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    /// Once in `times`.
    pub(super) fn chance(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// One member, and what stays of it when it is not running.
struct Node {
    root: Option<Root>,
    out: Outbox,
    inc: Inc,
    device: Device,
    ops: VecDeque<BlockOp>,
    /// What is on its way to the controller.
    reports: VecDeque<Vec<u8>>,
    /// The last entry of it that was checked.
    checked: EntryNo,
    cut_off: bool,
}

/// The connection that one member opened to another: what is on its way to each end.
#[derive(Default)]
struct Link {
    to: [VecDeque<Vec<u8>>; 2],
}

/// The leaf: one segment that grows.
#[derive(Default)]
struct Below {
    edge: Option<(usize, EdgeEpoch)>,
    round: u64,
    len: u64,
    chosen: u64,
    lens: BTreeMap<u64, u64>,
}

struct World {
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), Link>,
    controller: Controller,
    below: Below,
    class: Durability,
    config: fn(RootConfig) -> RootConfig,
    now: Time,
    rng: Rng,
    /// Every committed entry that was seen, for ever.
    committed: BTreeMap<u64, Vec<u8>>,
    /// Every position that was announced, and what has it.
    announced: BTreeMap<u64, u64>,
    /// Requests for the tail: what it must be, at least.
    asked: BTreeMap<u64, u64>,
    requests: u64,
    answers: u64,
    /// Where positions stand, as members said it.
    located: Vec<LocateAnswer>,
    /// Members that the controller does not reach.
    deaf: Vec<usize>,
}

fn encoded<B: Body>(body: &B, tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 256 + tail.len()];
    let len = frame::encode(&mut bytes, body, &[tail]).unwrap();
    bytes.truncate(len);
    bytes
}

fn hello(role: Role, node: NodeId, inc: Inc) -> Hello {
    Hello {
        cluster: CLUSTER,
        wire_version: WIRE_VERSION,
        role,
        node,
        inc,
        log: LOG,
        shard: SHARD,
        slot: Slot::ZERO,
        epoch: ViewId::ZERO,
        last: EntryNo::ZERO,
        client: ClientId::default(),
        session: SessionNo::ZERO,
    }
}

const fn node_id(slot: usize) -> NodeId {
    NodeId::new(slot as u32 + 1)
}

/// The connection number of a link at its end 0, which opened it, or 1.
const fn conn(end: usize, other: usize) -> ConnId {
    ConnId::new((10 + 10 * end + other) as u32)
}

impl World {
    /// A group of `count`; an entry is committed when `write` hold it.
    fn new(count: usize, write: usize, class: Durability, seed: u64) -> Self {
        Self::with(count, write, class, seed, |config| config)
    }

    fn with(
        count: usize,
        write: usize,
        class: Durability,
        seed: u64,
        config: fn(RootConfig) -> RootConfig,
    ) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            links: BTreeMap::new(),
            controller: Controller::new(count, write),
            below: Below::default(),
            class,
            config,
            now: Time::from_ns(1_000_000),
            rng: Rng::new(seed),
            committed: BTreeMap::new(),
            announced: BTreeMap::new(),
            asked: BTreeMap::new(),
            requests: 0,
            answers: 0,
            located: Vec::new(),
            deaf: Vec::new(),
        };
        for _ in 0..count {
            world.nodes.push(Node {
                root: None,
                out: Outbox::new(OutboxLimits {
                    connections: 40,
                    messages: 256,
                    ..OutboxLimits::default()
                }),
                inc: Inc::ZERO,
                device: Device::default(),
                ops: VecDeque::new(),
                reports: VecDeque::new(),
                checked: EntryNo::ZERO,
                cut_off: false,
            });
        }
        (0..count).for_each(|slot| world.start(slot));
        world
    }

    fn root(&self, slot: usize) -> &Root {
        self.nodes[slot].root.as_ref().unwrap()
    }

    fn is_up(&self, slot: usize) -> bool {
        self.nodes[slot].root.is_some()
    }

    /// The member that leads, by its own word; the latest epoch's if there are several.
    fn leader(&self) -> Option<usize> {
        let up = (0..self.nodes.len()).filter(|slot| self.is_up(*slot));
        up.filter(|slot| self.root(*slot).granted.is_some())
            .max_by_key(|slot| self.root(*slot).granted)
    }

    /// A member starts, with what its device holds.
    fn start(&mut self, slot: usize) {
        let node = node_id(slot);
        let store = StoreConfig {
            checkpoint_bytes_max: 1 << 20,
            journal_chunk_bytes: 64 << 10,
            journal_extent_bytes: 64 << 10,
            journal_bytes_max: 1 << 20,
            ..StoreConfig::new(CLUSTER, node, LOG, ShardId::MAX, 0, self.class)
        };
        let store = if self.class.is_flushed() {
            self.nodes[slot].device.recover(store)
        } else {
            Store::new(store)
        };
        assert_eq!(store.state(), StoreState::Ready);
        let inc = self.controller.admit(slot, self.class.is_flushed());
        let config = RootConfig {
            slot: Slot::new(slot as u8),
            ..RootConfig::new(CLUSTER, node, inc, LOG, self.class)
        };
        let root = Root::new((self.config)(config), store, self.now);
        let node = &mut self.nodes[slot];
        node.inc = inc;
        node.root = Some(root);
        node.checked = EntryNo::ZERO;
        node.ops.clear();
        node.reports.clear();
        for (conn, role) in [
            (CONTROLLER, Role::Controller),
            (CLIENT, Role::Client),
            (BELOW, Role::Leaf),
        ] {
            self.greet(slot, conn, hello(role, LEAF.0, LEAF.1));
        }
    }

    fn greet(&mut self, slot: usize, conn: ConnId, hello: Hello) {
        self.tell(slot, conn, &encoded(&hello, &[]));
    }

    /// The power of a member goes.
    fn crash(&mut self, slot: usize) {
        self.nodes[slot].root = None;
        self.nodes[slot].device.crash(&mut self.rng);
        for other in 0..self.nodes.len() {
            self.cut_link((slot, other));
            self.cut_link((other, slot));
        }
        if self.below.edge.is_some_and(|(at, _)| at == slot) {
            self.below.edge = None;
        }
    }

    fn cut_link(&mut self, pair: (usize, usize)) {
        if self.links.remove(&pair).is_none() {
            return;
        }
        for (end, slot, other) in [(0, pair.0, pair.1), (1, pair.1, pair.0)] {
            if let Some(root) = &mut self.nodes[slot].root {
                root.closed(conn(end, other));
            }
        }
    }

    /// Cuts a member off from the others, or joins it to them again.
    fn cut_off(&mut self, slot: usize, off: bool) {
        self.nodes[slot].cut_off = off;
        for other in 0..self.nodes.len() {
            if off {
                self.cut_link((slot, other));
                self.cut_link((other, slot));
            }
        }
    }

    /// A message reaches a member.
    fn tell(&mut self, slot: usize, conn: ConnId, bytes: &[u8]) {
        let now = self.now;
        let node = &mut self.nodes[slot];
        let Some(root) = &mut node.root else { return };
        (0..40).for_each(|conn| node.out.set_room(ConnId::new(conn), 4 << 20));
        let (message, _) = Message::new_checked(bytes).unwrap();
        root.handle(now, conn, &message, &mut node.out);
        self.carry(slot);
    }

    /// Everything of a member that is due.
    fn flush(&mut self, slot: usize) {
        let now = self.now;
        let node = &mut self.nodes[slot];
        let Some(root) = &mut node.root else { return };
        (0..40).for_each(|conn| node.out.set_room(ConnId::new(conn), 4 << 20));
        root.flush(now, &mut node.out);
        self.carry(slot);
        self.check(slot);
        self.dial(slot);
    }

    fn dial(&mut self, slot: usize) {
        let wanted: Vec<NodeId> = self.root(slot).wanted_members().collect();
        for node in wanted {
            let other = node.get() as usize - 1;
            let open = !self.nodes[slot].cut_off && !self.nodes[other].cut_off;
            if !open || !self.is_up(other) || self.links.contains_key(&(slot, other)) {
                continue;
            }
            self.links.insert((slot, other), Link::default());
            for (end, at, other) in [(0, slot, other), (1, other, slot)] {
                let node = &mut self.nodes[at];
                node.out.set_room(conn(end, other), 4 << 20);
                if let Some(root) = &mut node.root {
                    root.opened(conn(end, other), &mut node.out);
                }
                self.carry(at);
            }
        }
        while let Some(conn) = self.nodes[slot].root.as_mut().and_then(Root::take_close) {
            let root = self.nodes[slot].root.as_mut().unwrap();
            root.closed(conn);
            let role = match conn {
                BELOW => Role::Leaf,
                CLIENT => Role::Client,
                _ => continue,
            };
            if conn == BELOW && self.below.edge.is_some_and(|(at, _)| at == slot) {
                self.below.edge = None;
            }
            self.greet(slot, conn, hello(role, LEAF.0, LEAF.1));
        }
    }

    /// Takes what a member says to where it goes.
    fn carry(&mut self, slot: usize) {
        let node = &mut self.nodes[slot];
        let heads = node.out.envelopes().iter();
        let said: Vec<(ConnId, Vec<u8>)> = heads
            .map(|envelope| (envelope.conn, node.out.head(envelope).to_vec()))
            .collect();
        node.out.clear();
        for (to, bytes) in said {
            match to {
                CONTROLLER => {
                    self.check_durable(slot, &bytes);
                    self.nodes[slot].reports.push_back(bytes);
                }
                BELOW => self.hear_below(slot, &bytes),
                CLIENT => self.hear_client(&bytes),
                conn => {
                    self.check_durable(slot, &bytes);
                    let end = usize::from(conn.index() >= 20);
                    let other = conn.index() - 10 - 10 * end;
                    let pair = if end == 0 {
                        (slot, other)
                    } else {
                        (other, slot)
                    };
                    if let Some(link) = self.links.get_mut(&pair) {
                        link.to[1 - end].push_back(bytes);
                    }
                }
            }
        }
    }

    /// What a member says that it holds or has promised, it holds after a loss of power.
    fn check_durable(&mut self, slot: usize, bytes: &[u8]) {
        let (promised, last) = match Message::new_checked(bytes).unwrap().0 {
            Message::SealAck(ack, _) => (ack.promised, ack.last),
            Message::RootWritten(body, _) if body.outcome == WriteOutcome::Held => {
                (body.epoch, body.last)
            }
            _ => return,
        };
        if !self.class.is_flushed() || !self.rng.chance(16) {
            return;
        }
        let mut device = self.nodes[slot].device.clone();
        let mut rng = self.rng.clone();
        device.crash(&mut rng);
        let root = self.root(slot);
        let store = device.recover(*root.store.config());
        let again: Root = Root::new(root.config, store, self.now);
        assert!(again.promised >= promised, "a promise was forgotten");
        assert!(again.state.entry >= last, "an entry was forgotten");
        let same = again.crc_of(last).or(Some(0)) == root.crc_of(last).or(Some(0));
        assert!(same || last <= again.base.entry, "another entry came back");
    }

    /// The leaf hears a leader.
    fn hear_below(&mut self, slot: usize, bytes: &[u8]) {
        match Message::new_checked(bytes).unwrap().0 {
            Message::EdgeStart(start, tail) => {
                if start.shards == 0 {
                    return;
                }
                let shard = ShardStart::read(&mut Reader::new(tail)).unwrap();
                let len = shard.segments().next().unwrap().1.get();
                assert!(len <= self.below.len, "lengths that nobody reported");
                self.below.edge = Some((slot, start.edge));
                self.below.round = 0;
                self.below.chosen = 0;
                self.below.lens = BTreeMap::from([(0, len)]);
            }
            Message::Down(down, _) => {
                if self.below.edge != Some((slot, down.edge)) {
                    return;
                }
                let (from, to) = (self.below.chosen, down.round.get());
                assert_eq!(down.prev_round.get(), from);
                let (from, to) = (self.below.lens[&from], self.below.lens[&to]);
                assert_eq!(down.total, to - from);
                self.below.chosen = down.round.get();
                for (gsn, pos) in (down.base.get()..).zip(from..to) {
                    let had = self.announced.insert(gsn, pos);
                    assert!(had.is_none_or(|had| had == pos), "gsn {gsn} has two values");
                }
            }
            _ => {}
        }
    }

    fn hear_client(&mut self, bytes: &[u8]) {
        match Message::new_checked(bytes).unwrap().0 {
            Message::TailAnswer(answer, _) => {
                let least = self.asked.remove(&answer.request).unwrap();
                assert!(answer.tail.get() >= least, "a stale tail");
                self.answers += 1;
            }
            Message::TrimAnswer(answer, _) if answer.status != TrimStatus::Busy => {
                self.answers += 1;
            }
            Message::LocateAnswer(answer, _) => self.located.push(answer),
            _ => {}
        }
    }

    /// Asks a member to trim the log.
    fn ask_trim(&mut self, slot: usize, upto: Gsn) {
        let request = TrimRequest {
            log: LOG,
            request: 1,
            upto,
        };
        self.tell(slot, CLIENT, &encoded(&request, &[]));
    }

    /// Asks a member where the order ends.
    fn ask_tail(&mut self, slot: usize) {
        self.requests += 1;
        let request = self.requests;
        let end = self.announced.keys().next_back().map_or(0, |gsn| gsn + 1);
        self.asked.insert(request, end);
        self.tell(slot, CLIENT, &encoded(&Tail { log: LOG, request }, &[]));
    }

    /// The segment grows, and the leaf says so.
    fn grow(&mut self, by: u64) {
        let Some((slot, edge)) = self.below.edge else {
            return;
        };
        let below = &mut self.below;
        below.len += by;
        let by = below.len - below.lens[&below.round];
        below.round += 1;
        below.lens.insert(below.round, below.len);
        let up = Up {
            log: LOG,
            edge,
            inc: LEAF.1,
            round: RoundNo::new(below.round),
            total: below.len,
            // Every replica has applied what was announced.
            applied: self.root(slot).committed,
            full: false,
            keeps: 0,
        };
        let mut tail = [0; 64];
        let mut writer = Writer::new(&mut tail);
        GrowthWriter::write(&mut writer, 0..1, |_| by).unwrap();
        let len = writer.len();
        self.tell(slot, BELOW, &encoded(&up, &tail[..len]));
    }

    /// The first view: one shard of one segment, below one leaf.
    fn open(&mut self, slot: usize) {
        let mut changes = [0u8; 256];
        let mut writer = Writer::new(&mut changes);
        let mut members = [0u8; 64];
        let member = Member {
            node: NodeId::new(60),
            inc: Inc::new(8),
            domain: 0,
        };
        let open = Change::Open {
            shard: SHARD,
            rank: 0,
            log: LOG,
            class: self.class,
            quorum: 1,
            members: encode_members(&mut members, &[member]).unwrap(),
        };
        write_change(&mut writer, &open).unwrap();
        let mut vertices = [0; TreeVertex::LEN];
        let vertices = encode_vertices(
            &mut vertices,
            [TreeVertex::first_leaf(LEAF.0, LEAF.1)].into_iter(),
        );
        write_change(
            &mut writer,
            &Change::Tree {
                vertices: vertices.unwrap(),
            },
        )
        .unwrap();
        let len = writer.len();
        let intent = Intent {
            log: LOG,
            view: ViewId::new(1),
        };
        self.tell(slot, CONTROLLER, &encoded(&intent, &changes[..len]));
    }

    /// What a member has committed is what every member ever committed.
    fn check(&mut self, slot: usize) {
        let root = self.nodes[slot].root.as_ref().unwrap();
        assert_eq!(root.counters.broken, 0, "member {slot}");
        assert!(root.committed <= root.state.entry);
        let first = self.nodes[slot].checked.max(root.base.entry);
        for number in first.get() + 1..=root.committed.get() {
            let Some(bytes) = root.committed_entry(EntryNo::new(number)) else {
                continue;
            };
            let known = self
                .committed
                .entry(number)
                .or_insert_with(|| bytes.to_vec());
            assert_eq!(&known[..], bytes, "entry {number} of member {slot}");
        }
        let end = self.announced.keys().next_back().map_or(0, |gsn| gsn + 1);
        if root.serves() {
            assert!(
                root.state.end_gsn.get() >= end,
                "an announced entry is lost"
            );
        }
        self.nodes[slot].checked = root.committed;
    }

    /// The device of a member does one thing.
    fn work(&mut self, slot: usize) -> bool {
        let node = &mut self.nodes[slot];
        let Some(root) = &mut node.root else {
            return false;
        };
        node.device.step(root.store_mut(), &mut node.ops)
    }

    /// One message of a link arrives.
    fn deliver(&mut self, pair: (usize, usize), end: usize) -> bool {
        let link = self.links.get_mut(&pair);
        let Some(bytes) = link.and_then(|link| link.to[end].pop_front()) else {
            return false;
        };
        let (slot, other) = if end == 0 { pair } else { (pair.1, pair.0) };
        self.tell(slot, conn(end, other), &bytes);
        true
    }

    /// The controller and a member hear each other.
    fn report(&mut self, slot: usize) -> bool {
        let mut any = false;
        while let Some(bytes) = self.nodes[slot].reports.pop_front() {
            let message = Message::new_checked(&bytes).unwrap().0;
            self.controller.hear(slot, &message);
            any = true;
        }
        let said = self.controller.say(slot, self.nodes[slot].inc);
        for bytes in said {
            self.tell(slot, CONTROLLER, &bytes);
        }
        any
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.after(Nanos::from_ms(ms));
    }

    /// Everything happens that can, several times, and time passes.
    fn settle(&mut self) {
        for _ in 0..60 {
            self.pass(5);
            for slot in 0..self.nodes.len() {
                if !self.is_up(slot) {
                    continue;
                }
                if !self.deaf.contains(&slot) {
                    self.report(slot);
                }
                self.flush(slot);
                while self.work(slot) {}
                self.flush(slot);
            }
            let pairs: Vec<(usize, usize)> = self.links.keys().copied().collect();
            for pair in pairs {
                for end in [0, 1] {
                    while self.deliver(pair, end) {}
                }
            }
        }
    }
}
