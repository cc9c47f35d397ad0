//! The cluster map: the public part of the state; and what should run where.

use ionian_types::{Inc, Knobs, LogId, NodeId, ShardId, Slot, VertexId};
use ionian_wire::directory::{
    COMING_MAX, ClusterMap, Coming, ComingPlace, Endpoint, LogInfo, ReplicaInfo, ShardInfo,
    VertexInfo,
};
use ionian_wire::frame::Role;

use crate::directory::Directory;
use crate::state::{Log, Place, PlaceKey, State};
use crate::tree::{Branch, LogTree};

/// What runs where, and where it is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// The log.
    pub log: LogId,
    /// Root, aggregator, leaf or replica.
    pub role: Role,
    /// The shard, of a replica.
    pub shard: ShardId,
    /// The slot, of a replica or a member of a root group.
    pub slot: Slot,
    /// The vertex, of an aggregator or a leaf.
    pub vertex: VertexId,
    /// The node that has the place.
    pub node: NodeId,
    /// The node that has it once a process there registers.
    pub next: Option<NodeId>,
}

impl<K: Knobs> Directory<K> {
    /// Every place of the cluster with its node, whether durable or not.
    pub fn assignments(&self) -> impl Iterator<Item = Assignment> {
        let state = &self.state;
        state.places().filter_map(|(key, place)| {
            let (role, shard, slot) = match key {
                PlaceKey::Root(_, slot) => (Role::Root, ShardId::ZERO, slot),
                PlaceKey::Vertex(log, vertex) => {
                    let tree = self.state.logs.get(&log).map(|log| &log.tree);
                    let role = match tree.and_then(|tree| tree.is_leaf(vertex)) {
                        Some(false) => Role::Aggregator,
                        _ => Role::Leaf,
                    };
                    (role, ShardId::ZERO, Slot::ZERO)
                }
                PlaceKey::Replica(_, shard, slot) => (Role::Replica, shard, slot),
                // It is where the replica goes next.
                PlaceKey::Copy(..) => return None,
            };
            let vertex = match key {
                PlaceKey::Vertex(_, vertex) => vertex,
                _ => VertexId::ZERO,
            };
            Some(Assignment {
                log: key.log(),
                role,
                shard,
                slot,
                vertex,
                node: place.node,
                next: state.next_node(key),
            })
        })
    }
}

impl State {
    /// The cluster map. Only what the cut log says is shown of shards and generations.
    pub(crate) fn map(&self) -> ClusterMap {
        let logs = self.logs.iter().map(|(&id, log)| LogInfo {
            log: id,
            name: log.name.clone(),
            mode: log.mode,
            class: log.class,
            leader: log.root.leader(),
            tree: self.tree_map(&log.tree, log.tree.shape()),
            tree_next: self.tree_map(&log.tree, log.tree.coming().unwrap_or(&[])),
            coming: log.coming().take(COMING_MAX).collect(),
            roots: log
                .root
                .places
                .iter()
                .map(|place| self.endpoint(place))
                .collect(),
            shards: log
                .shards
                .iter()
                .map(|(&shard, state)| ShardInfo {
                    shard,
                    rank: state.rank,
                    epoch: state.epoch,
                    open: state.opened,
                    finalized: state.finalized,
                    quorum: state.members.len() as u8,
                    replicas: state
                        .members
                        .iter()
                        .map(|member| ReplicaInfo {
                            endpoint: self.endpoint(&member.place),
                            generation: member.generation,
                        })
                        .collect(),
                })
                .collect(),
        });
        ClusterMap {
            version: self.map_version,
            logs: logs.collect(),
        }
    }

    /// The length of the encoded map in bytes.
    pub(crate) fn map_bytes(&self) -> usize {
        let logs = self.logs.values();
        8 + 4 + logs.map(|log| self.log_map_bytes(log)).sum::<usize>()
    }

    /// The length of a log in the encoded map in bytes.
    pub(crate) fn log_map_bytes(&self, log: &Log) -> usize {
        let endpoint = |place: &Place| 13 + self.address(place).len();
        let replicas = log.shards.values().flat_map(|shard| &shard.members);
        let replicas = replicas.map(|member| endpoint(&member.place) + 8);
        // Members that are still to come have room already.
        let here = log.root.places.iter().map(endpoint).sum::<usize>();
        let wanted = log.root.wanted.iter().flatten();
        let to_come = wanted.map(|&node| endpoint(&Place::new(node))).sum();
        let roots = here.max(to_come);
        let coming = 4 + 10 * log.coming().count();
        let tree = |shape: &[Branch]| -> usize {
            let places = shape.iter().filter_map(|it| log.tree.vertex(it.vertex));
            4 + places.map(|it| 14 + endpoint(&it.place)).sum::<usize>()
        };
        let trees = tree(log.tree.shape()) + tree(log.tree.coming().unwrap_or(&[]));
        let fixed = 4 + 1 + log.name.len() + 2 + 5 + roots + trees + 4 + coming;
        fixed + 23 * log.shards.len() + replicas.sum::<usize>()
    }

    fn tree_map(&self, tree: &LogTree, shape: &[Branch]) -> Vec<VertexInfo> {
        let vertices = shape.iter().filter_map(|branch| {
            Some(VertexInfo {
                vertex: branch.vertex,
                children: branch.is.children,
                begins: branch.is.begins,
                endpoint: self.endpoint(&tree.vertex(branch.vertex)?.place),
            })
        });
        vertices.collect()
    }

    fn endpoint(&self, place: &Place) -> Endpoint {
        Endpoint {
            node: place.node,
            inc: if place.up { place.inc } else { Inc::ZERO },
            address: self.address(place).to_owned(),
        }
    }

    /// The address of a place: the one registered, or the node's own.
    pub(crate) fn address<'a>(&'a self, place: &'a Place) -> &'a str {
        if place.address.is_empty() {
            self.nodes
                .get(&place.node)
                .map_or("", |node| node.address.as_str())
        } else {
            &place.address
        }
    }
}

impl Log {
    /// The places that other nodes are to take.
    fn coming(&self) -> impl Iterator<Item = Coming> {
        let tree = self.tree.vertices().filter_map(|(vertex, filled)| {
            let node = filled.next?;
            let place = match self.tree.is_leaf(vertex)? {
                true => ComingPlace::Leaf(vertex),
                false => ComingPlace::Aggregator(vertex),
            };
            Some(Coming { node, place })
        });
        let replicas = self.shards.iter().flat_map(|(&shard, state)| {
            let members = state.members.iter().enumerate();
            members.filter_map(move |(slot, member)| {
                Some(Coming {
                    node: member.next?,
                    place: ComingPlace::Replica(shard, Slot::new(slot as u8)),
                })
            })
        });
        tree.chain(replicas)
    }
}
