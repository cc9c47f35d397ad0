//! Who gets in: grants, keys, revocations and rights, with the machines that ship, and people who try what they were not granted.
//!
//! [`GrantWorld`] has the controllers' directory with users and keys, nodes that know what the controllers told them last, callers
//! with grants, and somebody who sends copies, forgeries and what was said before. Datagrams arrive at once or not at all; what the
//! `oracle` says is true must be what the nodes do. The worlds of ordering have no grants, so that neither needs the other's time.

mod desk;
mod message;
mod oracle;
mod server;
mod talk;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ionian_control_core::{
    ClusterSpec, Directory, DirectoryConfig, FIRST_KEY_EPOCH, LogSpec, NodeSpec, RootQuorum,
    TreeSpec,
};
use ionian_core::guard::{ANY_NODE, Granted, Keyring};
use ionian_core::session::Session;
use ionian_types::{
    ClusterId, ConnId, Durability, Knobs, LogId, NodeId, OrderingMode, Shipped, Time,
};
use ionian_wire::frame::Message as Frame;
use ionian_wire::grant::{GrantKey, KEY_BYTES, NodeKeys, Rights};

use crate::invariant::{Invariant, Violation};
use crate::rng::Rng;
use oracle::{Given, Oracle, Origin};
use server::Server;

/// What happens in a world, in steps.
const STEPS: u64 = 400;
/// What nodes share.
const SECRET: [u8; KEY_BYTES] = [7; KEY_BYTES];
/// The epoch of what follows from the secret.
const SHARED_EPOCH: u64 = 1;
const NODES: u32 = 2;
/// A process of the cluster that opens sessions to the nodes.
const PROCESS: NodeId = NodeId::new(9);
const USERS: [&str; 3] = ["ann", "bob", "eve"];
const LOGS: [&str; 2] = ["one", "two"];
/// Datagrams that somebody has kept.
const KEPT_MAX: usize = 64;
/// Open conversations.
const CONVERSATIONS_MAX: usize = 12;

/// What took place in a world.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Sessions that were opened by who may.
    pub opened: u64,
    /// Messages that were taken.
    pub taken: u64,
    /// Messages beyond a grant.
    pub denied: u64,
    /// Packets that show a grant which is no longer good.
    pub void: u64,
    /// Packets of forgers.
    pub forged: u64,
    /// Packets that were sent before.
    pub copies: u64,
    /// Sessions that news of the controllers ended.
    pub ended: u64,
    /// Sessions with a window of their own.
    pub windows: u64,
    /// Requests to the controllers beyond the rights of who asks.
    pub refused: u64,
}

impl core::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.taken += other.taken;
        self.denied += other.denied;
        self.void += other.void;
        self.forged += other.forged;
        self.copies += other.copies;
        self.ended += other.ended;
        self.windows += other.windows;
        self.refused += other.refused;
    }
}

/// Somebody with grants.
struct Caller {
    /// None for a process of the cluster.
    user: Option<&'static str>,
    keyring: Keyring,
    /// What it was given last, by target.
    given: BTreeMap<NodeId, (Given, GrantKey)>,
}

/// A session as its opener has it.
struct Conversation {
    node: usize,
    granted: Granted,
    session: Session,
}

/// A node, and its connection to the controllers.
struct Node<K: Knobs> {
    server: Server<K>,
    conn: Option<ConnId>,
    /// What it was told, now and before.
    past: Vec<NodeKeys>,
}

/// A world of grants.
pub struct GrantWorld<K: Knobs = Shipped> {
    rng: Rng,
    now: Time,
    directory: Directory<K>,
    conns: u32,
    /// The key of each epoch, as whoever makes grants has it.
    keys: BTreeMap<u64, [u8; KEY_BYTES]>,
    nodes: Vec<Node<K>>,
    callers: Vec<Caller>,
    conversations: Vec<Conversation>,
    /// What was sent to a node, and what one has sent.
    kept: Vec<(usize, Vec<u8>, Origin)>,
    numbers: u64,
    oracle: Oracle,
    counts: Counts,
    /// Whether what happens is printed.
    pub trace: bool,
}

impl<K: Knobs> core::fmt::Debug for GrantWorld<K> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("GrantWorld")
            .field("now", &self.now)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

const fn log_of(at: usize) -> LogId {
    LogId::new(at as u32 + 1)
}

fn spec() -> ClusterSpec {
    let node = NodeId::new;
    let nodes = (1..=NODES).map(|at| {
        let spec = NodeSpec {
            domain: at,
            address: format!("n{at}:1"),
        };
        (node(at), spec)
    });
    let log = |name: &&str| LogSpec {
        name: (*name).to_owned(),
        mode: OrderingMode::Scalog,
        class: Durability::D0,
        root: vec![node(1)],
        root_quorum: RootQuorum::Majority,
        tree: TreeSpec::leaf(node(1)),
        quorum: None,
        shards: vec![vec![node(1), node(2)]],
    };
    ClusterSpec {
        nodes: nodes.collect(),
        logs: LOGS.iter().map(log).collect(),
    }
}

impl<K: Knobs> GrantWorld<K> {
    /// The world of a seed.
    ///
    /// # Panics
    /// Never: the cluster that it has is a legal one.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let config = DirectoryConfig {
            replicated: true,
            ..DirectoryConfig::default()
        };
        let cluster = ClusterId::new(u128::from(seed));
        let directory = Directory::new(cluster, &spec(), config, Time::ZERO);
        let caller = |user| Caller {
            user: Some(user),
            keyring: Keyring::of_controllers(ANY_NODE),
            given: BTreeMap::new(),
        };
        let process = Caller {
            user: None,
            keyring: Keyring::of_secret(&SECRET, PROCESS, Rights::ALL),
            given: BTreeMap::new(),
        };
        let node = |at| Node {
            server: Server::new(NodeId::new(at), &SECRET),
            conn: None,
            past: Vec::new(),
        };
        let mut callers: Vec<Caller> = USERS.iter().map(|user| caller(*user)).collect();
        callers.push(process);
        Self {
            rng: Rng::stream(seed, "grants"),
            now: Time::ZERO,
            directory: directory.expect("a legal cluster"),
            conns: 0,
            keys: BTreeMap::new(),
            nodes: (1..=NODES).map(node).collect(),
            callers,
            conversations: Vec::new(),
            kept: Vec::new(),
            numbers: 0,
            oracle: Oracle::new(FIRST_KEY_EPOCH.get() - 1),
            counts: Counts::default(),
            trace: false,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The first thing that must not be.
    pub fn run(mut self) -> Result<Counts, Violation> {
        self.turn_keys()?;
        for _ in 0..STEPS {
            self.now = Time::from_ns(self.now.as_ns() + 1_000_000);
            match self.rng.below(100) {
                0..10 => self.operate()?,
                10..14 => self.overreach()?,
                14..30 => self.ask_for_grants()?,
                30..33 => self.narrow(),
                33..36 => self.turn_keys()?,
                36..40 => self.plug(),
                40..44 => self.repeat_news(),
                44..64 => self.open()?,
                64..84 => self.speak()?,
                84..88 => self.close()?,
                _ => self.send_again()?,
            }
            self.drain()?;
        }
        Ok(self.counts)
    }

    /// The controllers' changes are durable, and those nodes that are connected hear of them.
    fn drain(&mut self) -> Result<(), Violation> {
        self.directory.take_commands();
        let version = self.directory.version();
        self.directory.persisted(version);
        let mut out = Vec::new();
        while let Some(conn) = self.directory.poll(self.now, |_| usize::MAX, &mut out) {
            let Ok((Frame::KeysAnswer(_, keys), _)) = Frame::new_checked(&out) else {
                continue;
            };
            let keys = NodeKeys::read(keys).map_err(|error| {
                let what = format!("what a node is told cannot be read: {error}");
                Violation::new(Invariant::G7, what)
            })?;
            if let Some(node) = self.nodes.iter_mut().find(|node| node.conn == Some(conn)) {
                if self.trace {
                    println!(
                        "{} node {} hears {keys:?}",
                        self.now.as_ns() / 1000,
                        node.server.node
                    );
                }
                let before = node.server.open().count();
                node.server.told(&keys);
                self.counts.ended += (before - node.server.open().count()) as u64;
                node.past.push(keys);
            }
        }
        for node in &self.nodes {
            if node.conn.is_some() {
                self.oracle.tell(node.server.node);
            }
            for session in node.server.open() {
                self.oracle.still_open(session)?;
            }
        }
        self.forget_ended();
        Ok(())
    }
}
