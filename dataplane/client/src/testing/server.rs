//! The server side of a cluster in memory: all shards, all replicas and the root in one table.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use ionian_core::client::PeerKind;
use ionian_types::{
    ClientId, ClientSeq, ConnId, Durability, EntryNo, GapKind, Gsn, GuardEpoch, Inc, Lsn, NodeId,
    NsEpoch, OrderingMode, SegmentId, SessionNo, ShardId, Slot, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::directory::{ClusterMap, Endpoint, LogInfo, ReplicaInfo, ShardInfo};
use ionian_wire::frame::{
    self, Append, AppendAck, AppendRefused, Body, Deliver, DeliverGap, Fate, FateAnswer,
    FateOutcome, Hello, Locate, LocateAnswer, LocateStatus, MESSAGE_HEADER_BYTES, Message, Read,
    ReadAnswer, ReadStatus, RefusalReason, Role, SessionClosed, Subscribe, TailAnswer, TrimAnswer,
    TrimRequest, TrimStatus,
};
use ionian_wire::record::{Placement, Records};

use super::MemoryCluster;

/// The one generation of every segment.
const GENERATION: ViewId = ViewId::new(1);

#[derive(Debug)]
pub(super) enum Inbound {
    Connected(ConnId, PeerKind),
    Disconnected(ConnId),
    Message(ConnId, Vec<u8>),
    Map(ClusterMap),
}

#[derive(Debug, Default)]
struct Port {
    inbound: VecDeque<Inbound>,
    wanted: Vec<PeerKind>,
    connected: BTreeMap<ConnId, PeerKind>,
    woken: bool,
    open: bool,
}

#[derive(Debug)]
enum Cell {
    Record {
        segment: SegmentId,
        position: Lsn,
        sealed: Vec<u8>,
    },
    Gap(GapKind),
}

#[derive(Debug)]
struct Subscriber {
    port: usize,
    conn: ConnId,
    name: u32,
    shard: ShardId,
    next: usize,
    sent: u64,
    credit: u64,
}

#[derive(Debug)]
pub(super) struct Server {
    shards: u32,
    replicas: u8,
    ports: Vec<Port>,
    cells: Vec<Cell>,
    head: usize,
    lens: BTreeMap<SegmentId, u64>,
    /// Where each session's records are: by sequence number.
    taken: BTreeMap<(ClientId, SessionNo), BTreeMap<ClientSeq, usize>>,
    closed: Vec<(ClientId, SessionNo)>,
    subscribers: Vec<Subscriber>,
    pub(super) missing: Option<u32>,
    pub(super) deaf: bool,
}

impl Server {
    pub(super) fn new(shards: u32, replicas: u8) -> Self {
        Self {
            shards,
            replicas,
            ports: Vec::new(),
            cells: Vec::new(),
            head: 0,
            lens: BTreeMap::new(),
            taken: BTreeMap::new(),
            closed: Vec::new(),
            subscribers: Vec::new(),
            missing: None,
            deaf: false,
        }
    }

    pub(super) fn open_link(&mut self) -> usize {
        let map = self.map();
        let mut port = Port {
            open: true,
            ..Port::default()
        };
        port.inbound.push_back(Inbound::Map(map));
        self.ports.push(port);
        self.ports.len() - 1
    }

    pub(super) fn close_link(&mut self, id: usize) {
        self.ports[id] = Port::default();
        self.subscribers.retain(|subscriber| subscriber.port != id);
    }

    pub(super) fn next_inbound(&mut self, id: usize) -> Option<Inbound> {
        self.ports[id].inbound.pop_front()
    }

    pub(super) fn is_connected(&self, id: usize, conn: ConnId) -> bool {
        self.ports[id].connected.contains_key(&conn)
    }

    pub(super) fn wake(&mut self, id: usize) {
        self.ports[id].woken = true;
    }

    pub(super) fn take_wake(&mut self, id: usize) -> bool {
        std::mem::take(&mut self.ports[id].woken) || !self.ports[id].inbound.is_empty()
    }

    pub(super) fn want(&mut self, id: usize, peers: &[PeerKind]) {
        self.ports[id].wanted = peers.to_vec();
        self.connect(id);
    }

    pub(super) fn send_map(&mut self, id: usize) {
        let map = self.map();
        self.ports[id].inbound.push_back(Inbound::Map(map));
    }

    pub(super) fn break_connections(&mut self) {
        self.subscribers.clear();
        for id in 0..self.ports.len() {
            let port = &mut self.ports[id];
            if !port.open {
                continue;
            }
            port.inbound
                .retain(|inbound| !matches!(inbound, Inbound::Message(..)));
            for conn in std::mem::take(&mut port.connected).into_keys() {
                port.inbound.push_back(Inbound::Disconnected(conn));
            }
            self.connect(id);
        }
    }

    fn connect(&mut self, id: usize) {
        for peer in self.ports[id].wanted.clone() {
            let conn = self.conn_of(peer);
            if self.ports[id].connected.insert(conn, peer).is_none() {
                self.ports[id]
                    .inbound
                    .push_back(Inbound::Connected(conn, peer));
                let (role, shard, slot) = match peer {
                    PeerKind::Root => (Role::Root, ShardId::ZERO, Slot::ZERO),
                    PeerKind::Replica { shard, slot } => (Role::Replica, shard, slot),
                };
                let hello = Hello {
                    cluster: MemoryCluster::CLUSTER,
                    wire_version: WIRE_VERSION,
                    role,
                    node: NodeId::new(conn.get()),
                    inc: Inc::new(1),
                    log: MemoryCluster::LOG,
                    shard,
                    slot,
                    epoch: GENERATION,
                    last: self.entry(),
                    client: ClientId::default(),
                    session: SessionNo::ZERO,
                };
                self.send(id, conn, &hello, &[]);
            }
        }
    }

    fn conn_of(&self, peer: PeerKind) -> ConnId {
        ConnId::new(match peer {
            PeerKind::Root => 0,
            PeerKind::Replica { shard, slot } => {
                1 + shard.get() * u32::from(self.replicas) + u32::from(slot.get())
            }
        })
    }

    fn map(&self) -> ClusterMap {
        let endpoint = |node| Endpoint {
            node: NodeId::new(node),
            inc: Inc::new(1),
            address: String::new(),
        };
        let shards = (0..self.shards).map(|shard| ShardInfo {
            shard: ShardId::new(shard),
            rank: shard,
            epoch: GENERATION,
            open: true,
            finalized: false,
            quorum: self.replicas,
            replicas: (0..self.replicas)
                .map(|slot| ReplicaInfo {
                    endpoint: endpoint(1 + shard * u32::from(self.replicas) + u32::from(slot)),
                    generation: GENERATION,
                })
                .collect(),
        });
        ClusterMap {
            version: 1,
            logs: vec![LogInfo {
                log: MemoryCluster::LOG,
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: Durability::D0,
                roots: vec![endpoint(0)],
                leader: None,
                tree: Vec::new(),
                tree_next: Vec::new(),
                coming: Vec::new(),
                shards: shards.collect(),
            }],
        }
    }

    fn send<B: Body>(&mut self, id: usize, conn: ConnId, body: &B, tail: &[u8]) {
        let mut bytes = vec![0; MESSAGE_HEADER_BYTES + B::LEN + tail.len()];
        let len = frame::encode(&mut bytes, body, &[tail]).expect("answers fit into a message");
        debug_assert_eq!(len, bytes.len());
        self.ports[id]
            .inbound
            .push_back(Inbound::Message(conn, bytes));
    }

    /// The number of entries so far: every append and gap is one.
    fn entry(&self) -> EntryNo {
        EntryNo::new(self.cells.len() as u64)
    }

    fn gsn(at: usize) -> Gsn {
        Gsn::new(at as u64)
    }

    pub(super) fn declare_gap(&mut self, count: u64, kind: GapKind) -> Gsn {
        let from = Self::gsn(self.cells.len());
        self.cells.extend((0..count).map(|_| Cell::Gap(kind)));
        self.deliver();
        from
    }

    pub(super) fn handle(&mut self, id: usize, conn: ConnId, message: &Message<'_>) {
        if self.deaf || !self.is_connected(id, conn) {
            return;
        }
        match message {
            Message::Append(append, records) => self.append(id, conn, append, records),
            Message::CloseSession(close, _) => {
                self.closed.push((close.client, close.session));
                let next_seq = self
                    .taken
                    .get(&(close.client, close.session))
                    .and_then(|taken| taken.keys().next_back()?.next())
                    .unwrap_or_default();
                let closed = SessionClosed {
                    segment: close.segment,
                    generation: close.generation,
                    session: close.session,
                    next_seq,
                    known: true,
                };
                self.send(id, conn, &closed, &[]);
            }
            Message::Fate(fate, _) => self.fate(id, conn, fate),
            Message::Tail(tail, _) => {
                let answer = TailAnswer {
                    request: tail.request,
                    tail: Self::gsn(self.cells.len()),
                    head: Self::gsn(self.head),
                    entry: self.entry(),
                };
                self.send(id, conn, &answer, &[]);
            }
            Message::Locate(locate, _) => self.locate(id, conn, locate),
            Message::Read(read, _) => self.read(id, conn, read),
            Message::TrimRequest(trim, _) => self.trim(id, conn, trim),
            Message::Subscribe(subscribe, _) => self.subscribe(id, conn, subscribe),
            Message::SubCredit(credit, _) => {
                for subscriber in &mut self.subscribers {
                    if subscriber.port == id && subscriber.name == credit.subscription {
                        subscriber.credit = subscriber.credit.max(credit.credit_bytes);
                    }
                }
                self.deliver();
            }
            Message::Unsubscribe(end, _) => {
                self.subscribers
                    .retain(|s| s.port != id || s.name != end.subscription);
            }
            _ => {}
        }
    }

    fn append(&mut self, id: usize, conn: ConnId, append: &Append, records: &[u8]) {
        let refused = |reason, node| AppendRefused {
            segment: append.segment,
            generation: append.generation,
            session: append.session,
            first_seq: append.first_seq,
            count: append.count,
            reason,
            node: NodeId::new(node),
        };
        if self.closed.contains(&(append.client, append.session)) {
            return self.send(id, conn, &refused(RefusalReason::SessionClosed, 0), &[]);
        }
        if let Some(node) = self.missing {
            return self.send(id, conn, &refused(RefusalReason::ReplicaMissing, node), &[]);
        }
        let taken = self
            .taken
            .entry((append.client, append.session))
            .or_default();
        let next = taken
            .keys()
            .next_back()
            .and_then(|seq| seq.next())
            .unwrap_or_default();
        if append.first_seq > next {
            return self.send(id, conn, &refused(RefusalReason::Busy, 0), &[]);
        }
        for record in Records::unplaced(records) {
            let view = record.expect("the client encodes its records");
            let seq = view.header().seq;
            if let Entry::Vacant(entry) = taken.entry(seq) {
                let len = self.lens.entry(append.segment).or_default();
                let mut sealed = view.encoded().to_vec();
                Placement {
                    log: append.log,
                    segment: append.segment,
                    ns_epoch: NsEpoch::ZERO,
                    generation: append.generation,
                    position: Lsn::new(*len),
                    guard: GuardEpoch::ZERO,
                }
                .seal(&mut sealed);
                entry.insert(self.cells.len());
                self.cells.push(Cell::Record {
                    segment: append.segment,
                    position: Lsn::new(*len),
                    sealed,
                });
                *len += 1;
            }
        }
        self.acknowledge(id, conn, append);
        self.deliver();
    }

    /// One answer per run of consecutive positions.
    fn acknowledge(&mut self, id: usize, conn: ConnId, append: &Append) {
        let Some(taken) = self.taken.get(&(append.client, append.session)) else {
            return;
        };
        let mut runs: Vec<(ClientSeq, usize, u32)> = Vec::new();
        for (seq, at) in taken.range(append.first_seq..).take(append.count as usize) {
            match runs.last_mut() {
                Some((_, first, count)) if *first + *count as usize == *at => *count += 1,
                _ => runs.push((*seq, *at, 1)),
            }
        }
        for (first_seq, at, count) in runs {
            let Cell::Record {
                segment, position, ..
            } = &self.cells[at]
            else {
                continue;
            };
            let ack = AppendAck {
                log: append.log,
                segment: *segment,
                generation: append.generation,
                session: append.session,
                first_seq,
                count,
                ns_epoch: NsEpoch::ZERO,
                first_gsn: Self::gsn(at),
                entry: EntryNo::new(at as u64 + 1),
                first_position: *position,
                class: Durability::D0,
            };
            self.send(id, conn, &ack, &[]);
        }
    }

    fn fate(&mut self, id: usize, conn: ConnId, fate: &Fate) {
        let key = (fate.client, fate.session);
        let at = self
            .taken
            .get(&key)
            .and_then(|taken| taken.get(&fate.seq))
            .copied();
        let position = match at.map(|at| &self.cells[at]) {
            Some(Cell::Record { position, .. }) => *position,
            _ => Lsn::ZERO,
        };
        let answer = FateAnswer {
            segment: fate.segment,
            generation: fate.generation,
            session: fate.session,
            seq: fate.seq,
            outcome: match at {
                Some(_) => FateOutcome::Ordered,
                None if self.closed.contains(&key) => FateOutcome::Never,
                None => FateOutcome::Unknown,
            },
            gsn: at.map_or(Gsn::ZERO, Self::gsn),
            entry: at.map_or(EntryNo::ZERO, |at| EntryNo::new(at as u64 + 1)),
            position,
        };
        self.send(id, conn, &answer, &[]);
    }

    fn locate(&mut self, id: usize, conn: ConnId, locate: &Locate) {
        let at = locate.gsn.get() as usize;
        let none = SegmentId {
            shard: ShardId::ZERO,
            slot: Slot::ZERO,
        };
        let (status, segment, position) = match self.cells.get(at) {
            _ if at < self.head => (LocateStatus::Trimmed, none, Lsn::ZERO),
            None => (LocateStatus::Unwritten, none, Lsn::ZERO),
            Some(Cell::Gap(_)) => (LocateStatus::Lost, none, Lsn::ZERO),
            Some(Cell::Record {
                segment, position, ..
            }) => (LocateStatus::Found, *segment, *position),
        };
        let answer = LocateAnswer {
            request: locate.request,
            status,
            from: locate.gsn,
            to: locate.gsn.next().unwrap_or(Gsn::MAX),
            segment,
            generation: GENERATION,
            position,
            entry: self.entry(),
        };
        self.send(id, conn, &answer, &[]);
    }

    fn read(&mut self, id: usize, conn: ConnId, read: &Read) {
        let at = read.gsn.get() as usize;
        let mut answer = ReadAnswer {
            request: read.request,
            gsn: read.gsn,
            status: ReadStatus::NotHere,
            gap: GapKind::Loss,
            applied: self.entry(),
        };
        let mut tail = Vec::new();
        match self.cells.get(at) {
            _ if at < self.head => answer.status = ReadStatus::Trimmed,
            Some(Cell::Gap(kind)) => {
                answer.status = ReadStatus::Gap;
                answer.gap = *kind;
            }
            Some(Cell::Record {
                segment, sealed, ..
            }) if segment.shard == read.shard => {
                answer.status = ReadStatus::Record;
                tail.clone_from(sealed);
            }
            _ => {}
        }
        self.send(id, conn, &answer, &tail);
    }

    fn trim(&mut self, id: usize, conn: ConnId, trim: &TrimRequest) {
        let upto = trim.upto.get() as usize;
        let status = if upto > self.cells.len() {
            TrimStatus::BeyondTail
        } else {
            self.head = self.head.max(upto);
            TrimStatus::Done
        };
        let answer = TrimAnswer {
            request: trim.request,
            status,
            head: Self::gsn(self.head),
            tail: Self::gsn(self.cells.len()),
        };
        self.send(id, conn, &answer, &[]);
        self.deliver();
    }

    fn subscribe(&mut self, id: usize, conn: ConnId, subscribe: &Subscribe) {
        self.subscribers.push(Subscriber {
            port: id,
            conn,
            name: subscribe.subscription,
            shard: subscribe.shard,
            next: subscribe.from.get() as usize,
            sent: 0,
            credit: subscribe.credit_bytes,
        });
        self.deliver();
    }

    /// Sends every subscriber what its credit allows, one record or gap at a time.
    fn deliver(&mut self) {
        let mut subscribers = std::mem::take(&mut self.subscribers);
        for subscriber in &mut subscribers {
            let Subscriber {
                port, conn, name, ..
            } = *subscriber;
            let gap = |from: usize, to: usize, kind| DeliverGap {
                subscription: name,
                from: Self::gsn(from),
                to: Self::gsn(to),
                kind,
            };
            if subscriber.next < self.head {
                self.send(
                    port,
                    conn,
                    &gap(subscriber.next, self.head, GapKind::Trim),
                    &[],
                );
                subscriber.next = self.head;
            }
            while let Some(cell) = self.cells.get(subscriber.next) {
                let at = subscriber.next;
                match cell {
                    Cell::Gap(kind) => {
                        let gap = gap(at, at + 1, *kind);
                        self.send(port, conn, &gap, &[]);
                    }
                    Cell::Record {
                        segment, sealed, ..
                    } if segment.shard == subscriber.shard => {
                        if subscriber.sent + sealed.len() as u64 > subscriber.credit {
                            break;
                        }
                        subscriber.sent += sealed.len() as u64;
                        let deliver = Deliver {
                            subscription: name,
                            first_gsn: Self::gsn(at),
                            count: 1,
                            entry: EntryNo::new(at as u64 + 1),
                        };
                        let sealed = sealed.clone();
                        self.send(port, conn, &deliver, &sealed);
                    }
                    Cell::Record { .. } => {}
                }
                subscriber.next += 1;
            }
        }
        self.subscribers = subscribers;
    }
}
