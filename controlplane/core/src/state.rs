//! The durable state: what must survive a restart of the controller, and how a logged view changes it.

use std::collections::BTreeMap;

use ionian_types::{
    ClusterId, Durability, Gsn, Inc, LogId, NodeId, OrderingMode, RootEpoch, ShardId, Slot, ViewId,
};
use ionian_wire::Reader;
use ionian_wire::entry::{Change, Changes};

use crate::spec::LogSpec;

/// Everything that is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct State {
    pub(crate) cluster: ClusterId,
    /// Rises with every change of this state.
    pub(crate) version: u64,
    /// Rises with every change of the cluster map.
    pub(crate) map_version: u64,
    /// The next incarnation to issue.
    pub(crate) next_inc: u64,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) logs: BTreeMap<LogId, Log>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) domain: u32,
    pub(crate) address: String,
}

/// One log. `view`, `tree` and the `member`, `generation`, `epoch`, `opened` fields of its shards say what the cut log says;
/// the `role` fields say who has registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Log {
    pub(crate) name: String,
    pub(crate) mode: OrderingMode,
    pub(crate) class: Durability,
    pub(crate) root: Place,
    pub(crate) root_epoch: RootEpoch,
    pub(crate) leaf: Place,
    /// Positions below may belong to lost cut logs.
    pub(crate) floor: Gsn,
    /// Positions below are reserved.
    pub(crate) ceiling: Gsn,
    /// The last view of the lost cut logs; 0 when none was lost.
    pub(crate) base_view: ViewId,
    /// The last view that is logged, or void with a lost cut log.
    pub(crate) view: ViewId,
    /// The root's child as logged.
    pub(crate) tree: Option<(NodeId, Inc)>,
    pub(crate) pending: Option<Pending>,
    pub(crate) shards: BTreeMap<ShardId, Shard>,
}

/// An intent that may have been seen and is not known to be logged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pending {
    pub(crate) view: ViewId,
    pub(crate) changes: Vec<u8>,
    /// The state's version that made it.
    pub(crate) since: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shard {
    pub(crate) rank: u32,
    /// The last view that changed it.
    pub(crate) epoch: ViewId,
    pub(crate) opened: bool,
    /// Whether it was reported whole since it was last opened: its members have begun to hold records.
    pub(crate) settled: bool,
    /// In slot order.
    pub(crate) members: Vec<Member>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) place: Place,
    /// Whether this member may hold the shard's committed records.
    pub(crate) holds: bool,
    /// The incarnation in the cut log.
    pub(crate) member: Inc,
    /// The open generation in the cut log; 0 when closed.
    pub(crate) generation: ViewId,
}

/// A role of a log, and who fills it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    /// The last incarnation issued; 0 before the first registration.
    pub(crate) inc: Inc,
    /// Whether the process is there, as the map says it.
    pub(crate) up: bool,
    /// The address registered; empty for the node's own.
    pub(crate) address: String,
}

/// Names a [`Place`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum PlaceKey {
    Root(LogId),
    Leaf(LogId),
    Replica(LogId, ShardId, Slot),
}

impl PlaceKey {
    pub(crate) const fn log(self) -> LogId {
        match self {
            Self::Root(log) | Self::Leaf(log) | Self::Replica(log, ..) => log,
        }
    }
}

impl Place {
    pub(crate) const fn new(node: NodeId) -> Self {
        Self {
            node,
            inc: Inc::ZERO,
            up: false,
            address: String::new(),
        }
    }
}

impl State {
    pub(crate) const fn new(cluster: ClusterId, nodes: BTreeMap<NodeId, Node>) -> Self {
        Self {
            cluster,
            version: 1,
            map_version: 1,
            next_inc: 1,
            nodes,
            logs: BTreeMap::new(),
        }
    }

    pub(crate) fn place(&self, key: PlaceKey) -> Option<&Place> {
        let log = self.logs.get(&key.log())?;
        match key {
            PlaceKey::Root(_) => Some(&log.root),
            PlaceKey::Leaf(_) => Some(&log.leaf),
            PlaceKey::Replica(_, shard, slot) => log
                .shards
                .get(&shard)?
                .members
                .get(slot.index())
                .map(|member| &member.place),
        }
    }

    pub(crate) fn place_mut(&mut self, key: PlaceKey) -> Option<&mut Place> {
        let log = self.logs.get_mut(&key.log())?;
        match key {
            PlaceKey::Root(_) => Some(&mut log.root),
            PlaceKey::Leaf(_) => Some(&mut log.leaf),
            PlaceKey::Replica(_, shard, slot) => log
                .shards
                .get_mut(&shard)?
                .members
                .get_mut(slot.index())
                .map(|member| &mut member.place),
        }
    }

    /// Every place of the cluster.
    pub(crate) fn places(&self) -> impl Iterator<Item = (PlaceKey, &Place)> {
        self.logs.iter().flat_map(|(&id, log)| {
            let replicas = log.shards.iter().flat_map(move |(&shard, state)| {
                state.members.iter().enumerate().map(move |(slot, member)| {
                    let slot = Slot::new(slot as u8);
                    (PlaceKey::Replica(id, shard, slot), &member.place)
                })
            });
            [
                (PlaceKey::Root(id), &log.root),
                (PlaceKey::Leaf(id), &log.leaf),
            ]
            .into_iter()
            .chain(replicas)
        })
    }
}

impl Log {
    pub(crate) fn new(spec: &LogSpec) -> Self {
        let shard = |(rank, nodes): (usize, &Vec<NodeId>)| {
            let members = nodes
                .iter()
                .map(|&node| Member {
                    place: Place::new(node),
                    holds: true,
                    member: Inc::ZERO,
                    generation: ViewId::ZERO,
                })
                .collect();
            let shard = Shard {
                rank: rank as u32,
                epoch: ViewId::ZERO,
                opened: false,
                settled: false,
                members,
            };
            (ShardId::new(rank as u32), shard)
        };
        Self {
            name: spec.name.clone(),
            mode: spec.mode,
            class: spec.class,
            root: Place::new(spec.root),
            root_epoch: RootEpoch::ZERO,
            leaf: Place::new(spec.leaf),
            floor: Gsn::ZERO,
            ceiling: Gsn::ZERO,
            base_view: ViewId::ZERO,
            view: ViewId::ZERO,
            tree: None,
            pending: None,
            shards: spec.shards.iter().enumerate().map(shard).collect(),
        }
    }

    /// Says what differs between this log and a spec of the same name.
    pub(crate) fn differs_from(&self, spec: &LogSpec) -> Option<&'static str> {
        let nodes = |shard: &Shard| -> Vec<NodeId> {
            shard
                .members
                .iter()
                .map(|member| member.place.node)
                .collect()
        };
        if self.mode != spec.mode {
            Some("ordering mode")
        } else if self.class != spec.class {
            Some("durability")
        } else if self.root.node != spec.root || self.leaf.node != spec.leaf {
            Some("root or leaf")
        } else if self.shards.len() != spec.shards.len() {
            Some("number of shards")
        } else if !self
            .shards
            .values()
            .map(nodes)
            .eq(spec.shards.iter().cloned())
        {
            Some("placement of replicas")
        } else {
            None
        }
    }

    /// Whether the cut log of this log's root may hold anything: a view is logged, or may be.
    pub(crate) fn may_be_logged(&self) -> bool {
        self.view > self.base_view || self.pending.is_some()
    }

    /// The pending intent is logged: its changes become what the cut log says.
    pub(crate) fn apply_pending(&mut self) -> bool {
        let Some(pending) = self.pending.take() else {
            return false;
        };
        for change in Changes::new(&pending.changes) {
            self.apply(&change, pending.view);
        }
        self.view = pending.view;
        true
    }

    fn apply(&mut self, change: &Change<'_>, view: ViewId) {
        if let Change::Tree { children } = change {
            let mut reader = Reader::new(children);
            self.tree = match (reader.field(), reader.field()) {
                (Ok(node), Ok(inc)) => Some((node, inc)),
                _ => None,
            };
            return;
        }
        let Some(shard) = change.shard().and_then(|id| self.shards.get_mut(&id)) else {
            return;
        };
        shard.epoch = view;
        match change {
            Change::Open { members, .. } => {
                shard.opened = true;
                for (member, logged) in shard.members.iter_mut().zip(members.iter()) {
                    member.member = logged.inc;
                    member.generation = view;
                }
            }
            Change::Close {
                segment, writer, ..
            } => {
                if let Some(member) = shard.members.get_mut(segment.slot.index()) {
                    member.member = writer.unwrap_or(Inc::ZERO);
                    member.generation = if writer.is_some() { view } else { ViewId::ZERO };
                }
            }
            Change::Finalize { .. } => {
                shard.opened = false;
                for member in &mut shard.members {
                    member.member = Inc::ZERO;
                    member.generation = ViewId::ZERO;
                }
            }
            Change::Tree { .. } => {}
        }
    }

    /// The cut log is gone. Numbers that it may have used are never used again; nothing that it said holds any more.
    pub(crate) fn forget_cut_log(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.view = pending.view;
        }
        self.base_view = self.view;
        self.tree = None;
        self.floor = self.ceiling;
        for shard in self.shards.values_mut() {
            shard.opened = false;
            for member in &mut shard.members {
                member.member = Inc::ZERO;
                member.generation = ViewId::ZERO;
            }
        }
    }
}
