//! What an operator is shown of a cluster: nodes, logs, where copies lie, and what is under way. Taken from the replicated
//! state, so that every controller shows the same; nothing in it is secret.

use ionian_types::{
    ClusterId, Durability, Gsn, Inc, LogId, NodeId, OrderingMode, RootEpoch, ShardId, Slot,
    VertexId, ViewId,
};
use ionian_wire::grant::Rights;
use ionian_wire::tree::OrderKey;

use crate::group::{Phase, RootQuorum};
use crate::shape::VertexShape;
use crate::state::{Log, Place, Shard, State};
use crate::transaction::{Progress, Transaction};
use crate::tree::Branch;

pub(crate) mod codec;

/// A cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterPicture {
    /// Its identity.
    pub cluster: ClusterId,
    /// The version of the state that is shown.
    pub version: u64,
    /// By rising number.
    pub nodes: Vec<NodePicture>,
    /// By rising id.
    pub logs: Vec<LogPicture>,
    /// The transactions that run, by rising number.
    pub under_way: Vec<TransactionPicture>,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodePicture {
    /// Its number.
    pub node: NodeId,
    /// Its failure domain.
    pub domain: u32,
    /// Where it is; may be empty.
    pub address: String,
    /// Whether it takes no new places.
    pub drained: bool,
    /// The places that it fills.
    pub places: u32,
    /// Those of them whose process is there.
    pub up: u32,
}

/// A log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogPicture {
    /// Its id.
    pub log: LogId,
    /// Its name.
    pub name: String,
    /// The protocol that orders it.
    pub mode: OrderingMode,
    /// What an ack means.
    pub class: Durability,
    /// How many replicas of a shard must hold a record; all of them if none is said.
    pub quorum: Option<u8>,
    /// The last view that is logged.
    pub view: ViewId,
    /// The view that is on its way.
    pub pending: Option<ViewId>,
    /// Positions below may be lost with earlier cut logs.
    pub floor: Gsn,
    /// Positions below are reserved.
    pub ceiling: Gsn,
    /// The root group.
    pub root: RootPicture,
    /// The ordering tree, depth-first, parents first.
    pub tree: Vec<VertexPicture>,
    /// The tree that is to be in its place; empty when it stays as it is.
    pub tree_next: Vec<VertexPicture>,
    /// By rising id.
    pub shards: Vec<ShardPicture>,
}

/// A role, and who fills it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacePicture {
    /// The node.
    pub node: NodeId,
    /// The last incarnation issued; 0 before the first registration.
    pub inc: Inc,
    /// Whether its process is there.
    pub up: bool,
}

/// A vertex of an ordering tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VertexPicture {
    /// Its number.
    pub vertex: VertexId,
    /// Its shape.
    pub shape: VertexShape,
    /// Who fills it.
    pub place: PlacePicture,
    /// The node to which it is on its way.
    pub next: Option<NodeId>,
    /// The shards below a leaf that are open, or are to be.
    pub shards: u32,
}

/// A root group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootPicture {
    /// The last root epoch issued.
    pub epoch: RootEpoch,
    /// How far the change to it is.
    pub phase: RootPhase,
    /// How many members hold an entry before it is committed, as configured.
    pub quorum: RootQuorum,
    /// The same as a number, of the last configuration named; 0 before the first.
    pub write_quorum: u8,
    /// The member that leads, or led last.
    pub leader: Option<Slot>,
    /// The member that is to lead.
    pub preferred: Option<Slot>,
    /// In slot order.
    pub members: Vec<PlacePicture>,
}

/// How far a root group is with its last epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RootPhase {
    /// It has not begun.
    Idle,
    /// Members are asked to promise the epoch.
    Sealing,
    /// A leader is named.
    Named,
    /// The leader has committed the epoch's entry.
    Recorded,
}

/// A shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardPicture {
    /// Its id.
    pub shard: ShardId,
    /// The last view that changed it.
    pub epoch: ViewId,
    /// How far its life is.
    pub stage: ShardStage,
    /// Whether every replica holds every record that is committed.
    pub whole: bool,
    /// In slot order.
    pub replicas: Vec<ReplicaPicture>,
}

/// How far a shard's life is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ShardStage {
    /// The view that opens it is not logged.
    Opening,
    /// It takes appends.
    Open,
    /// It is to end.
    Finalizing,
    /// It has ended; its records stay readable.
    Finalized,
}

/// A replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaPicture {
    /// Who fills the place.
    pub place: PlacePicture,
    /// The incarnation that the cut log names; another one has registered while they differ.
    pub listed: Inc,
    /// The generation of its segment that is open; 0 for none.
    pub generation: ViewId,
    /// Whether it holds every committed record, as far as is known.
    pub holds: bool,
    /// The node that takes its place.
    pub next: Option<NodeId>,
}

/// A transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionPicture {
    /// Its number.
    pub id: u64,
    /// When it began, in microseconds since 1970; 0 where there is no clock.
    pub at_us: u64,
    /// How it stands.
    pub progress: Progress,
    /// How many of its steps are done.
    pub done: u32,
    /// Why it failed; empty unless it did.
    pub why: String,
    /// A line per step.
    pub steps: Vec<String>,
}

/// A user, and what it may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserPicture {
    /// The name in its certificate.
    pub name: String,
    /// Its number in grants; no other user ever has it.
    pub number: u32,
    /// The version of the state that last changed its rights: earlier grants are void.
    pub serial: u64,
    /// By the name of the log.
    pub rights: Vec<(String, Rights)>,
}

impl ShardStage {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Finalizing => "finalizing",
            Self::Finalized => "finalized",
        }
    }
}

impl RootPhase {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Sealing => "sealing",
            Self::Named => "leader named",
            Self::Recorded => "leads",
        }
    }
}

impl From<&Transaction> for TransactionPicture {
    fn from(transaction: &Transaction) -> Self {
        Self {
            id: transaction.id,
            at_us: transaction.at_us,
            progress: transaction.progress,
            done: transaction.done as u32,
            why: transaction.why.clone(),
            steps: transaction.lines().collect(),
        }
    }
}

impl State {
    /// The cluster, with the logs for which `shown` says so.
    pub(crate) fn picture(&self, shown: impl Fn(LogId, &Log) -> bool) -> ClusterPicture {
        let mut nodes: Vec<NodePicture> = Vec::with_capacity(self.nodes.len());
        nodes.extend(self.nodes.iter().map(|(&node, known)| NodePicture {
            node,
            domain: known.domain,
            address: known.address.clone(),
            drained: known.drained,
            places: 0,
            up: 0,
        }));
        for (_, place) in self.places() {
            if let Ok(at) = nodes.binary_search_by_key(&place.node, |node| node.node) {
                nodes[at].places += 1;
                nodes[at].up += u32::from(place.up);
            }
        }
        let logs = self.logs.iter().filter(|(id, log)| shown(**id, log));
        let running = self.transactions.iter();
        let running = running.filter(|transaction| transaction.progress == Progress::Running);
        ClusterPicture {
            cluster: self.cluster,
            version: self.version,
            nodes,
            logs: logs.map(|(&id, log)| log.picture(id)).collect(),
            under_way: running.map(TransactionPicture::from).collect(),
        }
    }
}

impl From<&Place> for PlacePicture {
    fn from(place: &Place) -> Self {
        Self {
            node: place.node,
            inc: place.inc,
            up: place.up,
        }
    }
}

impl Log {
    fn picture(&self, id: LogId) -> LogPicture {
        let root = &self.root;
        let phase = match root.phase {
            Phase::Idle => RootPhase::Idle,
            Phase::Sealing => RootPhase::Sealing,
            Phase::Named => RootPhase::Named,
            Phase::Recorded => RootPhase::Recorded,
        };
        LogPicture {
            log: id,
            name: self.name.clone(),
            mode: self.mode,
            class: self.class,
            quorum: self.quorum,
            view: self.view,
            pending: self.pending.as_ref().map(|pending| pending.view),
            floor: self.floor,
            ceiling: self.ceiling,
            root: RootPicture {
                epoch: root.epoch,
                phase,
                quorum: root.quorum,
                write_quorum: root.current().map_or(0, |config| config.write_quorum),
                leader: root.leader(),
                preferred: root.prefer,
                members: root.places.iter().map(PlacePicture::from).collect(),
            },
            tree: self.tree_picture(self.tree.shape()),
            tree_next: self.tree_picture(self.tree.coming().unwrap_or(&[])),
            shards: self.shards.iter().map(Shard::picture).collect(),
        }
    }
}

impl Log {
    fn tree_picture(&self, shape: &[Branch]) -> Vec<VertexPicture> {
        let order = self.order();
        let leaves = shape.iter().filter(|branch| branch.is_leaf());
        let begins: Vec<OrderKey> = leaves.map(|leaf| leaf.is.begins).collect();
        let below = |leaf: &Branch| {
            let from = order.partition_point(|key| *key < leaf.is.begins);
            let next = begins.get(begins.partition_point(|begins| *begins <= leaf.is.begins));
            let to = next.map_or(order.len(), |next| order.partition_point(|key| key < next));
            to.saturating_sub(from) as u32
        };
        let vertices = shape.iter().filter_map(|branch| {
            let filled = self.tree.vertex(branch.vertex)?;
            Some(VertexPicture {
                vertex: branch.vertex,
                shape: branch.is,
                place: (&filled.place).into(),
                next: filled.next,
                shards: if branch.is_leaf() { below(branch) } else { 0 },
            })
        });
        vertices.collect()
    }
}

impl Shard {
    fn picture((&shard, state): (&ShardId, &Self)) -> ShardPicture {
        let stage = match (state.finalized, state.finalizing, state.opened) {
            (true, ..) => ShardStage::Finalized,
            (_, true, _) => ShardStage::Finalizing,
            (_, _, true) => ShardStage::Open,
            _ => ShardStage::Opening,
        };
        let replicas = state.members.iter().map(|member| ReplicaPicture {
            place: (&member.place).into(),
            listed: member.member,
            generation: member.generation,
            holds: member.holds && state.epoch > ViewId::ZERO,
            next: member.next,
        });
        let held = |member: &crate::state::Member| member.holds && !member.is_replaced();
        ShardPicture {
            shard,
            epoch: state.epoch,
            stage,
            whole: state.settled && state.members.iter().all(held),
            replicas: replicas.collect(),
        }
    }
}
