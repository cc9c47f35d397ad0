//! Whom a place talks to: from its own specification and the newest cluster map.
//!
//! Connections always go the same way. A replica opens them to its leaf, to the member of its log's root group that leads, and
//! to its peers in lower slots; a vertex of the tree to the one above it, or right below the root to the member that leads, and
//! to who is to be above it in a tree that is to come; a member to the others in lower slots, so that whoever
//! leads next is connected already; everyone to the controller, if that is a place of a node. Before there is a map, others
//! are where the place's specification has them. Of a shard that has ended, a replica that the map has on another node is to take
//! over from that one: nobody connects to it yet, so it opens the connections to all of its peers and to that one, and none to
//! the leaf, which knows the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ionian_types::{Inc, NodeId, Slot, VertexId};
use ionian_wire::directory::{ClusterMap, Endpoint, LogInfo, ShardInfo, VertexInfo};

use crate::role::Place;
use crate::server::{ControllerAt, PlaceSpec};
use crate::tree::vertex_place;

/// Bytes of one ring: holds the largest message with room for the largest answer beside it.
pub(crate) const RING_BYTES: usize = 8 << 20;
/// Bytes of a ring that carries no records.
pub(crate) const SMALL_RING_BYTES: usize = 4 << 20;

/// A connection that a place opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Want {
    pub(crate) to: Place,
    pub(crate) node: NodeId,
    /// The life at the other end; 0 where nobody knows, or while it is down.
    pub(crate) inc: Inc,
    /// Where it is found by others than its own process, if anybody knows.
    pub(crate) address: Option<SocketAddr>,
    /// The size of each ring, where a ring carries it.
    pub(crate) bytes: usize,
}

/// What the cluster is known to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) map: &'a ClusterMap,
    pub(crate) controller: ControllerAt,
    /// Where nodes are, as configured.
    pub(crate) addresses: &'a BTreeMap<NodeId, SocketAddr>,
}

impl View<'_> {
    /// The connections that a place opens.
    pub(crate) fn wants(&self, spec: &PlaceSpec) -> Vec<Want> {
        let mut wants = Vec::new();
        let Some(log) = spec.place.log() else {
            return wants;
        };
        if let ControllerAt::Node(node) = self.controller {
            wants.push(Want {
                to: Place::Directory,
                node,
                inc: Inc::ZERO,
                address: self.address(node, ""),
                bytes: SMALL_RING_BYTES,
            });
        }
        let known = self.map.logs.iter().find(|known| known.log == log);
        // Once there is a map, what it does not name is gone, or is still to come: nobody looks for it.
        let first = self.map.version == 0;
        // A member of the root group, as the map or else the specification has it.
        let member = |slot: Slot| {
            let to = Place::Root(log, slot);
            match known {
                Some(known) => {
                    let end = known.roots.get(slot.index());
                    end.map(|end| self.want(to, end, SMALL_RING_BYTES))
                }
                None if first => {
                    let node = spec.roots.get(slot.index());
                    node.map(|node| self.unnamed(to, *node))
                }
                None => None,
            }
        };
        let leader = member(known.and_then(|known| known.leader).unwrap_or_default());
        match spec.place {
            Place::Directory => {}
            Place::Root(_, slot) => {
                wants.extend((0..slot.get()).filter_map(|lower| member(Slot::new(lower))));
            }
            Place::Leaf(_, vertex) | Place::Aggregator(_, vertex) => match known {
                Some(known) => {
                    for above in self.parents(known, vertex) {
                        let above = above.or(leader);
                        wants.extend(above.filter(|above| !wants.contains(above)));
                    }
                }
                None => {
                    let above = spec.above.map(|(to, node)| self.unnamed(to, node));
                    wants.extend(above.or(leader).filter(|_| first));
                }
            },
            Place::Replica(_, shard, slot) => {
                let shards = known.iter().flat_map(|known| &known.shards);
                let mut same = shards.filter(|known| known.shard == shard);
                let ours = same.next();
                let named = ours.map(|ours| &ours.replicas);
                let comes = ours.is_some_and(|ours| ours.finalized && copies(ours, spec, slot));
                match (known, ours) {
                    (Some(known), Some(ours)) if !comes => {
                        for leaf in known.leaves_of(ours) {
                            let leaf = Some(self.vertex(known, leaf));
                            wants.extend(leaf.filter(|leaf| !wants.contains(leaf)));
                        }
                    }
                    (Some(_), _) => {}
                    (None, _) => {
                        let leaf = spec.above.filter(|_| first);
                        wants.extend(leaf.map(|(leaf, node)| self.unnamed(leaf, node)));
                    }
                }
                wants.extend(leader);
                let count = named.map_or(0, |named| named.len() as u8);
                let above = (slot.get()..count).filter(|_| comes);
                for peer in (0..slot.get()).chain(above) {
                    let to = Place::Replica(log, shard, Slot::new(peer));
                    let named = named.and_then(|named| named.get(usize::from(peer)));
                    wants.extend(match (named, spec.members.get(usize::from(peer))) {
                        (Some(named), _) => Some(self.want(to, &named.endpoint, RING_BYTES)),
                        (None, Some(node)) if first => Some(Want {
                            bytes: RING_BYTES,
                            ..self.unnamed(to, *node)
                        }),
                        (None, _) => None,
                    });
                }
            }
        }
        wants
    }

    /// Whether a node has a place that is up, as far as the map says, and that opens a connection to a place of another one.
    pub(crate) fn calls(&self, from: NodeId, to: NodeId) -> bool {
        let logs = self.map.logs.iter();
        let places = logs.flat_map(|log| places(log).map(move |(place, end)| (log, place, end)));
        let mut up = places.filter(|(_, _, end)| end.node == from && end.inc != Inc::ZERO);
        up.any(|(log, place, _)| {
            let wants = self.wants(&PlaceSpec::new(place, &log.name, log.class));
            wants.iter().any(|want| want.node == to)
        })
    }

    /// Who is above a vertex in each tree that has it, the present one first; `None` for the root.
    fn parents(&self, log: &LogInfo, vertex: VertexId) -> impl Iterator<Item = Option<Want>> {
        let parents = log.parents_of(vertex);
        parents.map(|parent| parent.map(|parent| self.vertex(log, parent)))
    }

    fn vertex(&self, log: &LogInfo, vertex: &VertexInfo) -> Want {
        let place = vertex_place(log.log, vertex);
        self.want(place, &vertex.endpoint, SMALL_RING_BYTES)
    }

    fn want(&self, to: Place, end: &Endpoint, bytes: usize) -> Want {
        Want {
            to,
            node: end.node,
            inc: end.inc,
            address: self.address(end.node, &end.address),
            bytes,
        }
    }

    /// A place that the map does not name.
    fn unnamed(&self, to: Place, node: NodeId) -> Want {
        Want {
            to,
            node,
            inc: Inc::ZERO,
            address: self.address(node, ""),
            bytes: SMALL_RING_BYTES,
        }
    }

    /// Where a node is: as it says itself, unless that is no address to send to; else as configured, else as it says
    /// elsewhere in the map.
    fn address(&self, node: NodeId, said: &str) -> Option<SocketAddr> {
        let configured = || self.addresses.get(&node).copied();
        let elsewhere = || {
            let logs = self.map.logs.iter();
            let mut ends = logs.flat_map(ends).filter(|end| end.node == node);
            ends.find_map(|end| usable(&end.address))
        };
        usable(said).or_else(configured).or_else(elsewhere)
    }
}

/// Whether the place is to take over from the one that the map names.
fn copies(known: &ShardInfo, spec: &PlaceSpec, slot: Slot) -> bool {
    let named = known.replicas.get(slot.index());
    let own = spec.members.get(slot.index());
    named
        .zip(own)
        .is_some_and(|(named, own)| named.endpoint.node != *own)
}

/// The places of a log, with who fills them.
fn places(log: &LogInfo) -> impl Iterator<Item = (Place, &Endpoint)> {
    let slots = || (0..).map(Slot::new);
    let roots = slots().zip(&log.roots);
    let roots = roots.map(|(slot, end)| (Place::Root(log.log, slot), end));
    let vertices = log.tree.iter().chain(&log.tree_next);
    let vertices = vertices.map(|vertex| (vertex_place(log.log, vertex), &vertex.endpoint));
    let replicas = log.shards.iter().flat_map(move |shard| {
        let replicas = slots().zip(&shard.replicas);
        replicas.map(|(slot, replica)| {
            let place = Place::Replica(log.log, shard.shard, slot);
            (place, &replica.endpoint)
        })
    });
    roots.chain(vertices).chain(replicas)
}

fn ends(log: &LogInfo) -> impl Iterator<Item = &Endpoint> {
    let replicas = log.shards.iter().flat_map(|shard| &shard.replicas);
    log.roots
        .iter()
        .chain(replicas.map(|replica| &replica.endpoint))
}

/// An address that datagrams can be sent to. A process that listens on every interface does not know which one others see;
/// names are not looked up here, since that may take seconds.
fn usable(address: &str) -> Option<SocketAddr> {
    let address: SocketAddr = address.parse().ok()?;
    (!address.ip().is_unspecified() && address.port() != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use ionian_types::{Durability, LogId, OrderingMode, ShardId, ViewId};
    use ionian_wire::directory::{ReplicaInfo, ShardInfo};

    use super::*;

    const LOG: LogId = LogId::new(1);

    fn end(node: u32, inc: u64, address: &str) -> Endpoint {
        Endpoint {
            node: NodeId::new(node),
            inc: Inc::new(inc),
            address: address.to_owned(),
        }
    }

    fn map() -> ClusterMap {
        let replica = |node, address| ReplicaInfo {
            endpoint: end(node, 9, address),
            generation: ViewId::ZERO,
        };
        ClusterMap {
            version: 1,
            logs: vec![LogInfo {
                log: LOG,
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: Durability::D0,
                roots: vec![end(6, 3, "10.0.0.6:1"), end(7, 4, "10.0.0.7:1")],
                leader: Some(Slot::new(1)),
                tree: vec![VertexInfo {
                    vertex: VertexId::ZERO,
                    children: 0,
                    begins: (0, ShardId::ZERO),
                    endpoint: end(2, 5, ""),
                }],
                tree_next: Vec::new(),
                coming: Vec::new(),
                shards: vec![ShardInfo {
                    shard: ShardId::new(2),
                    rank: 2,
                    epoch: ViewId::ZERO,
                    open: true,
                    finalized: false,
                    quorum: 3,
                    replicas: vec![
                        replica(3, "0.0.0.0:3"),
                        replica(4, "10.0.0.4:1"),
                        replica(5, ""),
                    ],
                }],
            }],
        }
    }

    fn spec(place: Place) -> PlaceSpec {
        PlaceSpec {
            roots: [1, 2].map(NodeId::new).to_vec(),
            above: match place {
                Place::Replica(..) => Some((Place::Leaf(LOG, VertexId::ZERO), NodeId::new(2))),
                _ => None,
            },
            members: [3, 4, 5].map(NodeId::new).to_vec(),
            ..PlaceSpec::new(place, "default", Durability::D0)
        }
    }

    fn replica(shard: u32, slot: u8) -> Place {
        Place::Replica(LOG, ShardId::new(shard), Slot::new(slot))
    }

    fn wants(
        map: &ClusterMap,
        place: Place,
        controller: ControllerAt,
    ) -> Vec<(Place, u32, u64, String)> {
        let configured = (1..=3).map(|node| {
            let address = format!("127.0.0.1:{node}").parse().expect("an address");
            (NodeId::new(node), address)
        });
        let view = View {
            map,
            controller,
            addresses: &configured.collect(),
        };
        let found = view.wants(&spec(place)).into_iter();
        let text = |want: &Want| {
            want.address
                .map_or(String::new(), |found| found.to_string())
        };
        found
            .map(|want| (want.to, want.node.get(), want.inc.get(), text(&want)))
            .collect()
    }

    #[test]
    fn a_place_goes_by_the_newest_map_and_by_its_own_words_before() {
        let node = ControllerAt::Node(NodeId::new(1));
        let one = String::from("127.0.0.1:1");
        let controller = (Place::Directory, 1, 0, one.clone());
        let leaf = (
            Place::Leaf(LOG, VertexId::ZERO),
            2,
            5,
            String::from("127.0.0.1:2"),
        );
        let root = (
            Place::Root(LOG, Slot::new(1)),
            7,
            4,
            String::from("10.0.0.7:1"),
        );
        let far = (replica(2, 1), 4, 9, String::from("10.0.0.4:1"));
        // It listens everywhere: the configuration says where it is found.
        let near = (replica(2, 0), 3, 9, String::from("127.0.0.1:3"));
        assert_eq!(
            wants(&map(), replica(2, 2), node),
            [controller.clone(), leaf.clone(), root.clone(), near, far]
        );
        let all = [controller.clone(), root.clone()];
        assert_eq!(wants(&map(), Place::Leaf(LOG, VertexId::ZERO), node), all);
        let [first, second] = [0, 1].map(|slot| Place::Root(LOG, Slot::new(slot)));
        assert_eq!(wants(&map(), first, node)[..], all[..1]);
        let other = (first, 6, 3, String::from("10.0.0.6:1"));
        assert_eq!(
            wants(&map(), second, node),
            [controller.clone(), other],
            "members are connected, whoever leads"
        );
        assert_eq!(
            wants(
                &map(),
                Place::Leaf(LOG, VertexId::ZERO),
                ControllerAt::External
            ),
            [root]
        );
        let none = ClusterMap::default();
        let unnamed = (Place::Root(LOG, Slot::ZERO), 1, 0, one);
        let peer = (replica(2, 0), 3, 0, String::from("127.0.0.1:3"));
        let leaf = (
            Place::Leaf(LOG, VertexId::ZERO),
            2,
            0,
            String::from("127.0.0.1:2"),
        );
        assert_eq!(
            wants(&none, replica(2, 1), node),
            [controller.clone(), leaf, unnamed.clone(), peer]
        );
        assert_eq!(wants(&none, second, node), [controller, unnamed]);
    }

    /// A leaf becomes two below an aggregator: whoever stays has connections in both trees before the view that changes it.
    #[test]
    fn who_is_above_in_the_coming_tree_is_looked_for_too() {
        let vertex = |vertex, children, begins, node| VertexInfo {
            vertex: VertexId::new(vertex),
            children,
            begins: (begins, ShardId::new(begins)),
            endpoint: end(node, 5, ""),
        };
        let mut map = map();
        map.logs[0].tree_next = vec![vertex(1, 2, 0, 3), vertex(0, 0, 0, 2), vertex(2, 0, 2, 1)];
        let places = |place| -> Vec<Place> {
            let wants = wants(&map, place, ControllerAt::External);
            wants.into_iter().map(|want| want.0).collect()
        };
        let root = Place::Root(LOG, Slot::new(1));
        let leaf = |vertex| Place::Leaf(LOG, VertexId::new(vertex));
        let aggregator = Place::Aggregator(LOG, VertexId::new(1));
        assert_eq!(places(leaf(0)), [root, aggregator]);
        assert_eq!(places(leaf(2)), [aggregator]);
        assert_eq!(places(aggregator), [root]);
        let mut replica = places(replica(2, 0));
        replica.truncate(3);
        assert_eq!(replica, [leaf(0), leaf(2), root]);
    }

    #[test]
    fn what_a_map_does_not_name_is_not_looked_for() {
        let node = ControllerAt::External;
        let root = (
            Place::Root(LOG, Slot::new(1)),
            7,
            4,
            String::from("10.0.0.7:1"),
        );
        assert_eq!(wants(&map(), replica(3, 1), node), [root]);
        let gone = Place::Leaf(LOG, VertexId::new(8));
        assert_eq!(wants(&map(), gone, node), []);
        let none = ClusterMap {
            version: 2,
            ..ClusterMap::default()
        };
        assert_eq!(wants(&none, replica(2, 1), node), []);
    }

    #[test]
    fn one_that_copies_connects_to_all_peers_until_it_is_the_replica() {
        let node = ControllerAt::External;
        let copies = |map: &ClusterMap, own: u32| {
            let view = View {
                map,
                controller: node,
                addresses: &BTreeMap::new(),
            };
            let spec = PlaceSpec {
                members: [3, own, 5].map(NodeId::new).to_vec(),
                ..PlaceSpec::new(replica(2, 1), "default", Durability::D0)
            };
            let wants = view.wants(&spec).into_iter().map(|want| want.to);
            wants
                .filter(|to| matches!(to, Place::Replica(..)))
                .collect::<Vec<_>>()
        };
        let mut ended = map();
        assert_eq!(copies(&ended, 8), [replica(2, 0)], "it is not to copy");
        (
            ended.logs[0].shards[0].open,
            ended.logs[0].shards[0].finalized,
        ) = (false, true);
        let all = [replica(2, 0), replica(2, 1), replica(2, 2)];
        assert_eq!(copies(&ended, 8), all, "that whose place it takes too");
        assert_eq!(copies(&ended, 4), [replica(2, 0)], "it is the replica");
    }

    #[test]
    fn nobody_is_wanted_twice_and_nobody_without_a_log() {
        let node = ControllerAt::Node(NodeId::new(1));
        assert_eq!(wants(&map(), Place::Directory, node), []);
        let all = wants(&map(), replica(2, 2), node);
        let mut places: Vec<Place> = all.iter().map(|want| want.0).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), all.len());
    }

    #[test]
    fn who_calls_whom_follows_from_the_places_that_are_up() {
        let mut map = map();
        let addresses = BTreeMap::new();
        let calls = |map: &ClusterMap, from, to| {
            let view = View {
                map,
                controller: ControllerAt::External,
                addresses: &addresses,
            };
            view.calls(NodeId::new(from), NodeId::new(to))
        };
        // A replica calls its leaf, the leader and the peers below it; the leaf calls the leader; a member those below it.
        for (from, to) in [(5, 2), (5, 7), (5, 3), (5, 4), (4, 3), (2, 7), (7, 6)] {
            assert!(calls(&map, from, to), "{from} to {to}");
            assert!(!calls(&map, to, from), "{to} to {from}");
        }
        assert!(!calls(&map, 5, 6) && !calls(&map, 2, 6) && !calls(&map, 9, 7));
        map.logs[0].leader = Some(Slot::ZERO);
        assert!(calls(&map, 5, 6) && !calls(&map, 5, 7));
        // Who is down calls nobody.
        map.logs[0].shards[0].replicas[2].endpoint.inc = Inc::ZERO;
        assert!(!calls(&map, 5, 6) && !calls(&map, 5, 2));
    }
}
