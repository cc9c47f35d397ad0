//! Which places a node has, as the cluster map says.

use std::collections::BTreeMap;

use ionian_node::tree::{above, leaf_of, vertex_place};
use ionian_node::{Place, PlaceSpec};
use ionian_types::{NodeId, Slot};
use ionian_wire::directory::{ClusterMap, ComingPlace, LogInfo};

/// The places that the map gives a node: those that it fills, and those that it is to take from another one. `retention` says,
/// by the name of a log, beyond how many bytes a replica trims the oldest records.
#[must_use]
pub fn places_of(
    map: &ClusterMap,
    node: NodeId,
    retention: &BTreeMap<String, u64>,
) -> Vec<PlaceSpec> {
    let logs = map.logs.iter();
    let places = logs.flat_map(|log| of_log(log, node).into_iter().map(move |place| (log, place)));
    let spec = |(log, place): (&LogInfo, Place)| PlaceSpec {
        roots: log.roots.iter().map(|root| root.node).collect(),
        above: over(log, place),
        retention_bytes_max: retention.get(&log.name).copied(),
        replicas: members(log, place, node).len() as u8,
        members: members(log, place, node),
        ..PlaceSpec::new(place, &log.name, log.class)
    };
    places.map(spec).collect()
}

fn of_log(log: &LogInfo, node: NodeId) -> Vec<Place> {
    let mut places = Vec::new();
    let roots = log.roots.iter().enumerate();
    let roots = roots.filter(|(_, root)| root.node == node);
    places.extend(roots.map(|(slot, _)| Place::Root(log.log, Slot::new(slot as u8))));
    let comes = |place| {
        let mut coming = log.coming.iter().filter(|coming| coming.node == node);
        coming.any(|coming| coming.place == place)
    };
    for vertex in log.tree.iter().chain(&log.tree_next) {
        let place = vertex_place(log.log, vertex);
        let coming = match place {
            Place::Aggregator(_, vertex) => ComingPlace::Aggregator(vertex),
            _ => ComingPlace::Leaf(vertex.vertex),
        };
        let here = vertex.endpoint.node == node || comes(coming);
        if here && !places.contains(&place) {
            places.push(place);
        }
    }
    for shard in &log.shards {
        for (slot, replica) in shard.replicas.iter().enumerate() {
            let slot = Slot::new(slot as u8);
            if replica.endpoint.node == node || comes(ComingPlace::Replica(shard.shard, slot)) {
                places.push(Place::Replica(log.log, shard.shard, slot));
            }
        }
    }
    places
}

/// What is above a replica or a vertex, as [`PlaceSpec::above`].
fn over(log: &LogInfo, place: Place) -> Option<(Place, NodeId)> {
    match place {
        Place::Replica(_, shard, _) => {
            let shard = log.shards.iter().find(|known| known.shard == shard);
            leaf_of(log, shard?)
        }
        Place::Leaf(_, vertex) | Place::Aggregator(_, vertex) => {
            let mut vertices = log.tree.iter().chain(&log.tree_next);
            above(log, vertices.find(|known| known.vertex == vertex)?)
        }
        Place::Directory | Place::Root(..) => None,
    }
}

/// The nodes of a shard in slot order, as they will be once `node` has its place; none for any other place.
fn members(log: &LogInfo, place: Place, node: NodeId) -> Vec<NodeId> {
    let Place::Replica(_, shard, slot) = place else {
        return Vec::new();
    };
    let known = log.shards.iter().find(|known| known.shard == shard);
    let replicas = known.iter().flat_map(|known| &known.replicas);
    let mut members: Vec<NodeId> = replicas.map(|replica| replica.endpoint.node).collect();
    if let Some(member) = members.get_mut(slot.index()) {
        *member = node;
    }
    members
}

#[cfg(test)]
mod tests {
    use ionian_types::{Durability, LogId, OrderingMode, ShardId, VertexId, ViewId};
    use ionian_wire::directory::{Coming, Endpoint, ReplicaInfo, ShardInfo, VertexInfo};

    use super::*;

    const LOG: LogId = LogId::new(4);

    fn end(node: u32) -> Endpoint {
        Endpoint {
            node: NodeId::new(node),
            ..Endpoint::default()
        }
    }

    fn map() -> ClusterMap {
        let shard = |shard, nodes: [u32; 2]| ShardInfo {
            shard: ShardId::new(shard),
            rank: shard,
            epoch: ViewId::ZERO,
            open: true,
            finalized: false,
            quorum: 2,
            replicas: Vec::from(nodes.map(|node| ReplicaInfo {
                endpoint: end(node),
                generation: ViewId::ZERO,
            })),
        };
        let coming = |node, place| Coming {
            node: NodeId::new(node),
            place,
        };
        let vertex = |vertex, children, begins, node| VertexInfo {
            vertex: VertexId::new(vertex),
            children,
            begins: (begins, ShardId::new(begins)),
            endpoint: end(node),
        };
        let replica = |shard, slot| ComingPlace::Replica(ShardId::new(shard), Slot::new(slot));
        ClusterMap {
            version: 3,
            logs: vec![LogInfo {
                log: LOG,
                name: String::from("sea"),
                mode: OrderingMode::Scalog,
                class: Durability::D1,
                roots: vec![end(1), end(3)],
                leader: None,
                tree: vec![vertex(0, 0, 0, 2)],
                tree_next: vec![vertex(1, 2, 0, 1), vertex(0, 0, 0, 2), vertex(2, 0, 7, 5)],
                shards: vec![shard(0, [1, 2]), shard(7, [2, 3])],
                coming: vec![
                    coming(4, replica(0, 1)),
                    coming(4, replica(7, 0)),
                    coming(3, ComingPlace::Leaf(VertexId::ZERO)),
                ],
            }],
        }
    }

    #[test]
    fn a_node_has_what_it_fills_and_what_it_is_to_take() {
        let keep = BTreeMap::from([(String::from("sea"), 9)]);
        let places = |node| {
            let places = places_of(&map(), NodeId::new(node), &keep).into_iter();
            places.map(|spec| spec.place).collect::<Vec<_>>()
        };
        let replica = |shard, slot| Place::Replica(LOG, ShardId::new(shard), Slot::new(slot));
        let root = |slot| Place::Root(LOG, Slot::new(slot));
        let leaf = |vertex| Place::Leaf(LOG, VertexId::new(vertex));
        let aggregator = Place::Aggregator(LOG, VertexId::new(1));
        assert_eq!(places(1), [root(0), aggregator, replica(0, 0)]);
        assert_eq!(places(2), [leaf(0), replica(0, 1), replica(7, 0)]);
        assert_eq!(places(3), [root(1), leaf(0), replica(7, 1)]);
        assert_eq!(places(4), [replica(0, 1), replica(7, 0)]);
        assert_eq!(places(5), [leaf(2)]);
        assert_eq!(places(6), []);
        let fifth = places_of(&map(), NodeId::new(5), &keep);
        assert_eq!(fifth[0].above, Some((aggregator, NodeId::new(1))));
        let specs = places_of(&map(), NodeId::new(4), &keep);
        assert_eq!(specs[0].members, [1, 4].map(NodeId::new));
        assert_eq!(specs[0].replicas, 2);
        assert_eq!(specs[0].above, Some((leaf(0), NodeId::new(2))));
        assert_eq!(specs[0].retention_bytes_max, Some(9));
    }
}
