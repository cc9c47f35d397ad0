//! What each host of a process is to be: its places, the rings between them, its ends of the rings to other hosts, and the
//! sessions to other processes.
//!
//! Rings within a host are made by the host, on its own thread, so that their memory is near it; those between hosts are
//! made here, and each end wakes the other's reactor.

use std::net::SocketAddr;
use std::sync::Arc;

use ionian_control_core::Directory;
use ionian_shm::duplex;
use ionian_types::{NodeId, Slot};
use ionian_wire::directory::ClusterMap;

use super::cores::CoreUse;
use super::shared::{Shared, link_ids};
use super::{RING_BYTES, SMALL_RING_BYTES, ServerOptions, StartError};
use crate::dial::Dial;
use crate::link::{LinkIds, ShmLink};
use crate::role::Place;

/// One host.
#[derive(Debug, Default)]
pub(super) struct HostPlan {
    /// It has the socket.
    pub(super) socket: bool,
    /// Its places.
    pub(super) places: Vec<Place>,
    /// Connections between two of them.
    pub(super) pairs: Vec<Pair>,
    /// Its ends of connections to other hosts of the process.
    pub(super) ends: Vec<End>,
    /// Sessions to keep open, of places of all hosts: those of the host with the socket.
    pub(super) dials: Vec<Dial>,
}

/// A connection within a host.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) from: Place,
    pub(super) to: Place,
    /// The size of each of its rings.
    pub(super) bytes: usize,
    pub(super) ids: LinkIds,
}

/// One end of a connection between two hosts.
#[derive(Debug)]
pub(super) struct End {
    pub(super) place: Place,
    pub(super) link: Box<ShmLink>,
    /// It is the place's own to the controller.
    pub(super) to_controller: bool,
}

/// A place, and who its node is.
#[derive(Clone, Copy)]
struct Seat {
    place: Place,
    node: NodeId,
}

/// The places of a node, in the order in which the specification names them.
pub(super) fn places(options: &ServerOptions, map: &ClusterMap) -> Vec<Place> {
    let here = options.node;
    let mut places = Vec::new();
    if options.controller == here {
        places.push(Place::Directory);
    }
    for (spec, log) in options.spec.logs.iter().zip(&map.logs) {
        if spec.root == here {
            places.push(Place::Root(log.log));
        }
        if spec.leaf == here {
            places.push(Place::Leaf(log.log));
        }
        for (members, shard) in spec.shards.iter().zip(&log.shards) {
            let slots = members.iter().enumerate();
            let slots = slots.filter(|(_, member)| **member == here);
            places.extend(
                slots.map(|(slot, _)| Place::Replica(log.log, shard.shard, Slot::new(slot as u8))),
            );
        }
    }
    places
}

/// The hosts of a process, one per reactor.
///
/// # Errors
/// [`StartError::NoAddress`].
pub(super) fn hosts(
    options: &ServerOptions,
    directory: &Directory,
    cores: &CoreUse,
    shared: &Arc<Shared>,
) -> Result<Vec<HostPlan>, StartError> {
    let plan = |(at, reactor): (usize, &super::cores::ReactorUse)| HostPlan {
        socket: at == 0,
        places: reactor.places.clone(),
        ..HostPlan::default()
    };
    let mut layout = Layout {
        options,
        cores,
        shared,
        hosts: cores.reactors.iter().enumerate().map(plan).collect(),
        next_link: 1,
    };
    layout.connections(&directory.map())?;
    Ok(layout.hosts)
}

struct Layout<'a> {
    options: &'a ServerOptions,
    cores: &'a CoreUse,
    shared: &'a Arc<Shared>,
    hosts: Vec<HostPlan>,
    next_link: u64,
}

impl Layout<'_> {
    /// Connects every place of this node to those it talks to.
    fn connections(&mut self, map: &ClusterMap) -> Result<(), StartError> {
        let options = self.options;
        let controller = Seat {
            place: Place::Directory,
            node: options.controller,
        };
        for (spec, log) in options.spec.logs.iter().zip(&map.logs) {
            let root = Seat {
                place: Place::Root(log.log),
                node: spec.root,
            };
            let leaf = Seat {
                place: Place::Leaf(log.log),
                node: spec.leaf,
            };
            self.connect(root, controller, SMALL_RING_BYTES)?;
            self.connect(leaf, controller, SMALL_RING_BYTES)?;
            self.connect(leaf, root, SMALL_RING_BYTES)?;
            for (members, shard) in spec.shards.iter().zip(&log.shards) {
                let seat = |slot: usize| Seat {
                    place: Place::Replica(log.log, shard.shard, Slot::new(slot as u8)),
                    node: members[slot],
                };
                for slot in 0..members.len() {
                    self.connect(seat(slot), controller, SMALL_RING_BYTES)?;
                    self.connect(seat(slot), leaf, SMALL_RING_BYTES)?;
                    self.connect(seat(slot), root, SMALL_RING_BYTES)?;
                    for peer in 0..slot {
                        self.connect(seat(slot), seat(peer), RING_BYTES)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Connects two places, if the first is here: by rings when both are, else by a session that is kept dialled.
    fn connect(&mut self, from: Seat, to: Seat, bytes: usize) -> Result<(), StartError> {
        let here = self.options.node;
        let Some(near) = self
            .cores
            .reactor_of(from.place)
            .filter(|_| from.node == here)
        else {
            return Ok(());
        };
        let Some(far) = self.cores.reactor_of(to.place).filter(|_| to.node == here) else {
            let address: SocketAddr = *self
                .options
                .addresses
                .get(&to.node)
                .ok_or(StartError::NoAddress { node: to.node })?;
            // The session is the socket's, whichever host the place is on.
            self.hosts[0]
                .dials
                .push(Dial::new(from.place, to.place, address));
            return Ok(());
        };
        let ids = link_ids(self.next_link);
        self.next_link += 1;
        if near == far {
            self.hosts[near].pairs.push(Pair {
                from: from.place,
                to: to.place,
                bytes,
                ids,
            });
            return Ok(());
        }
        let (a, b) = duplex(bytes);
        let end = |place, end, ids, other: usize, to_controller| End {
            place,
            link: Box::new(ShmLink::between_hosts(end, ids, self.shared.wake(other))),
            to_controller,
        };
        let to_controller = matches!(to.place, Place::Directory);
        let near_end = end(from.place, a, ids, far, to_controller);
        let far_end = end(to.place, b, ids.reversed(), near, false);
        self.hosts[near].ends.push(near_end);
        self.hosts[far].ends.push(far_end);
        Ok(())
    }
}
