//! One process: a shipped machine, its outbox, its connections, and the edge's part in taking its place.

use std::collections::BTreeMap;

use ionian_control_core::Directory;
use ionian_core::aggregator::Aggregator;
use ionian_core::client::{Client, PeerKind};
use ionian_core::edge::{Join, Target};
use ionian_core::leaf::Leaf;
use ionian_core::outbox::{Outbox, OutboxLimits};
use ionian_core::replica::Replica;
use ionian_core::root::Root;
use ionian_store::Store;
use ionian_types::{ConnId, Knobs, NodeId, ShardId, Shipped, Slot, Time};

use crate::app::App;
use crate::clocks::Clock;
use crate::plan::Fault;

/// Names a process life. Never reused.
pub type ProcId = usize;

/// Where a process belongs. At most one life of a place is reachable at a time; earlier ones may still be about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// The controller.
    Controller,
    /// A member of the root group: its slot.
    Root(u8),
    /// An aggregator of the ordering tree: its number among the vertices.
    Aggregator(u32),
    /// A leaf of the ordering tree: the same.
    Leaf(u32),
    /// A replica: shard, slot.
    Replica(u32, u8),
    /// A client.
    Client(u32),
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Controller => f.write_str("controller"),
            Self::Root(slot) => write!(f, "root{slot}"),
            Self::Aggregator(vertex) => write!(f, "agg{vertex}"),
            Self::Leaf(vertex) => write!(f, "leaf{vertex}"),
            Self::Replica(shard, slot) => write!(f, "s{shard}r{slot}"),
            Self::Client(number) => write!(f, "client{number}"),
        }
    }
}

/// Whom a connection was opened to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Peer {
    /// As [`Target`] says, from a node.
    Node(Target),
    /// The aggregator or leaf above it in the tree, from a vertex or a replica.
    Above(Place),
    /// Another member of the root group, from the one that leads: its slot.
    Member(u8),
    /// The controller, from a client.
    ClientToController,
    /// A peer of a client.
    Client(PeerKind),
}

/// The machine that a process runs.
#[derive(Debug)]
pub enum Machine<K: Knobs = Shipped> {
    /// Not in its place yet.
    None,
    /// The controller.
    Directory(Box<Directory<K>>),
    /// A root.
    Root(Box<Root<K>>),
    /// A leaf.
    Leaf(Box<Leaf<K>>),
    /// An aggregator.
    Aggregator(Box<Aggregator<K>>),
    /// A replica.
    Replica(Box<Replica<K>>),
    /// A client and the application above it.
    Client(Box<Client<K>>, Box<App>),
}

impl<K: Knobs> Machine<K> {
    /// When the machine wants to run even if nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Time {
        match self {
            Self::None => Time::FAR,
            Self::Directory(directory) => directory.next_deadline(),
            Self::Root(root) => root.next_deadline(),
            Self::Leaf(leaf) => leaf.next_deadline(),
            Self::Aggregator(aggregator) => aggregator.next_deadline(),
            Self::Replica(replica) => replica.next_deadline(),
            Self::Client(client, _) => client.next_deadline(),
        }
    }
}

/// Where a connection of a process leads: the link and this process's end of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The link.
    pub link: usize,
    /// 0 for the one that opened it.
    pub side: usize,
}

/// A process.
#[derive(Debug)]
pub struct Process<K: Knobs = Shipped> {
    /// Its place.
    pub place: Place,
    /// The node that it runs on: that of the place, or one that is to take it.
    pub node: NodeId,
    /// Dead processes stay in the table.
    pub alive: bool,
    /// Its clock.
    pub clock: Clock,
    /// It stands still until then.
    pub paused_until: Time,
    /// What it runs.
    pub machine: Machine<K>,
    /// Its store was recovered: an earlier life left its state.
    pub has_data: bool,
    /// The store of a machine that is still to be made.
    pub store: Option<Box<Store>>,
    /// How it takes its place (root, vertex of the tree, replica).
    pub join: Option<Join>,
    /// Its outbox.
    pub out: Outbox,
    /// Its connections by number; numbers are used again at once, as an edge does.
    pub conns: Vec<Option<End>>,
    /// The connections that it opens: `None` while there is none.
    pub dials: BTreeMap<Peer, Option<ConnId>>,
    /// Whom its accepted and opened connections lead to, for clients.
    pub peer_of: BTreeMap<ConnId, Peer>,
    /// A flush is scheduled.
    pub flush_pending: bool,
    /// The timer that counts; others are ignored.
    pub timer_at: Time,
    /// It has said something.
    pub spoke: bool,
    /// It is, or will be, a zombie: by which fault, and who has its place.
    pub heir: Option<(Fault, ProcId)>,
    /// What waited while it stood still.
    pub missed: Vec<crate::world::Event>,
}

impl<K: Knobs> Process<K> {
    /// A process that has just started.
    #[must_use]
    pub fn new(place: Place, node: NodeId, machine: Machine<K>, join: Option<Join>) -> Self {
        let limits = OutboxLimits {
            connections: 64,
            ..OutboxLimits::default()
        };
        Self {
            place,
            node,
            alive: true,
            clock: Clock::default(),
            paused_until: Time::ZERO,
            machine,
            has_data: false,
            store: None,
            join,
            out: Outbox::new(limits),
            conns: Vec::new(),
            dials: BTreeMap::new(),
            peer_of: BTreeMap::new(),
            flush_pending: false,
            timer_at: Time::FAR,
            spoke: false,
            heir: None,
            missed: Vec::new(),
        }
    }

    /// The store of the process, if it has one.
    pub fn store_mut(&mut self) -> Option<&mut Store> {
        match &mut self.machine {
            Machine::Root(root) => Some(root.store_mut()),
            Machine::Replica(replica) => Some(replica.store_mut()),
            _ => self.store.as_deref_mut(),
        }
    }

    /// The lowest free connection number.
    pub fn open_conn(&mut self, end: End) -> ConnId {
        let free = self.conns.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() - 1
        });
        self.conns[at] = Some(end);
        ConnId::new(at as u32)
    }

    /// Where a connection leads.
    #[must_use]
    pub fn end(&self, conn: ConnId) -> Option<End> {
        self.conns.get(conn.index()).copied().flatten()
    }

    /// The connection to the controller, of a node.
    #[must_use]
    pub fn controller_conn(&self) -> Option<ConnId> {
        self.dials
            .get(&Peer::Node(Target::Controller))
            .copied()
            .flatten()
    }
}

/// The place that a connection is opened to, while the member in slot `leader` is known to lead the root group.
#[must_use]
pub fn place_of(from: Place, peer: Peer, leader: u8) -> Place {
    match peer {
        Peer::Node(Target::Controller) | Peer::ClientToController => Place::Controller,
        Peer::Node(Target::Root | Target::Parent) | Peer::Client(PeerKind::Root) => {
            Place::Root(leader)
        }
        Peer::Member(slot) => Place::Root(slot),
        Peer::Above(place) => place,
        Peer::Node(Target::Peer(slot)) => match from {
            Place::Replica(shard, _) => Place::Replica(shard, slot.get()),
            other => other,
        },
        // Which one it is the map says.
        Peer::Node(Target::Leaf) => from,
        Peer::Client(PeerKind::Replica { shard, slot }) => {
            Place::Replica(ShardId::get(shard), Slot::get(slot))
        }
    }
}
