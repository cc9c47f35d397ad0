//! Places of the ordering tree, as the cluster map has them.

use ionian_types::{LogId, NodeId};
use ionian_wire::directory::{LogInfo, ShardInfo, VertexInfo};

use crate::role::Place;

/// The place of a vertex.
#[must_use]
pub fn vertex_place(log: LogId, vertex: &VertexInfo) -> Place {
    match vertex.children {
        0 => Place::Leaf(log, vertex.vertex),
        _ => Place::Aggregator(log, vertex.vertex),
    }
}

/// The leaf of a shard with its node, as [`PlaceSpec::above`](crate::PlaceSpec::above).
#[must_use]
pub fn leaf_of(log: &LogInfo, shard: &ShardInfo) -> Option<(Place, NodeId)> {
    let leaf = log.leaves_of(shard).next();
    leaf.map(|leaf| (vertex_place(log.log, leaf), leaf.endpoint.node))
}

/// The aggregator above a vertex with its node, as [`PlaceSpec::above`](crate::PlaceSpec::above).
#[must_use]
pub fn above(log: &LogInfo, vertex: &VertexInfo) -> Option<(Place, NodeId)> {
    let parent = log.parents_of(vertex.vertex).flatten().next();
    parent.map(|parent| (vertex_place(log.log, parent), parent.endpoint.node))
}
