//! What a directory shows of itself and of its logs.

use ionian_types::{
    Durability, Gsn, Knobs, LogId, NodeId, RootEpoch, ShardId, Slot, Time, VertexId, ViewId,
};
use ionian_wire::directory::ClusterMap;
use ionian_wire::frame::ShardStatus;

use super::{Counters, Directory};
use crate::decision::Decision;
use crate::history::Event;
use crate::state::{Log, PlaceKey};

/// What the leaf last said about a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardHealth {
    /// When it was said.
    pub at: Time,
    /// The report.
    pub report: ShardStatus,
}

/// A log as the status shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogStatus {
    /// The log.
    pub log: LogId,
    /// Its name.
    pub name: String,
    /// Its durability class.
    pub class: Durability,
    /// The root epoch of the root's current life.
    pub root_epoch: RootEpoch,
    /// The last view logged.
    pub view: ViewId,
    /// The view that is sent to the root and not reported as logged.
    pub pending: Option<ViewId>,
    /// Positions below are lost with earlier cut logs, trimmed, or used.
    pub floor: Gsn,
    /// Positions below are reserved.
    pub ceiling: Gsn,
    /// Places whose process is not there, for people.
    pub missing: Vec<String>,
    /// Where the vertices of its tree are, in depth-first order.
    pub tree: Vec<VertexStatus>,
}

/// Where a vertex of a tree is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VertexStatus {
    /// Its number.
    pub vertex: VertexId,
    /// The number of vertices right below; 0 for a leaf.
    pub children: u16,
    /// Its node.
    pub node: NodeId,
    /// The address that it registered; empty when that is the node's own.
    pub address: String,
}

impl Log {
    fn tree_status(&self) -> Vec<VertexStatus> {
        let vertices = self.tree.shape().iter().filter_map(|branch| {
            let place = &self.tree.vertex(branch.vertex)?.place;
            Some(VertexStatus {
                vertex: branch.vertex,
                children: branch.is.children,
                node: place.node,
                address: place.address.clone(),
            })
        });
        vertices.collect()
    }
}

impl<K: Knobs> Directory<K> {
    /// The cluster map as it is now, whether durable or not. For the process that hosts the directory.
    #[must_use]
    pub fn map(&self) -> ClusterMap {
        self.state.map()
    }

    /// The last decisions, oldest first.
    pub fn decisions(&self) -> impl ExactSizeIterator<Item = &Decision> {
        self.decisions.iter()
    }

    /// The history of a log's views, oldest first; empty for a log that is not there.
    pub fn history(&self, log: LogId) -> impl Iterator<Item = &Event> {
        let log = self.state.logs.get(&log).into_iter();
        log.flat_map(|log| log.history.iter())
    }

    /// Counts of what was set aside.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What the leaf last said of a shard.
    #[must_use]
    pub fn health(&self, log: LogId, shard: ShardId) -> Option<ShardHealth> {
        self.health.get(&(log, shard)).copied()
    }

    /// The logs as the status shows them, by id.
    pub fn logs(&self) -> impl Iterator<Item = LogStatus> {
        self.state.logs.iter().map(|(&id, log)| {
            let missing = self.state.places().filter(|(key, place)| {
                key.log() == id && (!place.up || !self.bindings.contains_key(key))
            });
            let missing = missing.map(|(key, place)| {
                format!("{} (node {})", self.state.place_name(key), place.node)
            });
            LogStatus {
                log: id,
                name: log.name.clone(),
                class: log.class,
                root_epoch: log.root.epoch,
                view: log.view,
                pending: log.pending.as_ref().map(|pending| pending.view),
                floor: log.floor,
                ceiling: log.ceiling,
                missing: missing.collect(),
                tree: log.tree_status(),
            }
        })
    }

    /// The slot's place is connected.
    #[must_use]
    pub fn is_connected(&self, log: LogId, shard: ShardId, slot: Slot) -> bool {
        self.bindings
            .contains_key(&PlaceKey::Replica(log, shard, slot))
    }
}
