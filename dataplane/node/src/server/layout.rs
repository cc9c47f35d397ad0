//! What each host of a process is to be at its start: whether it has the socket, and its places with their shares of what
//! the process has.

use ionian_types::{NodeId, Slot};
use ionian_wire::directory::ClusterMap;

use super::cores::CoreUse;
use super::ledger::Ledger;
use super::options::ControllerAt;
use super::place::{PlaceSpec, Share};
use super::shared::Shared;
use super::{ServerOptions, StartError};
use crate::role::Place;
use crate::tree::{above, leaf_of, vertex_place};
use crate::wants::View;

/// One host.
#[derive(Debug, Default)]
pub(super) struct HostPlan {
    /// It has the socket.
    pub(super) socket: bool,
    /// It has the controller.
    pub(super) directory: bool,
    /// Its other places.
    pub(super) places: Vec<(PlaceSpec, Share)>,
}

/// The places of a node but for the controller, in the order in which the specification names them, then those asked for
/// besides.
pub(super) fn specs(options: &ServerOptions, map: &ClusterMap) -> Vec<PlaceSpec> {
    let here = options.node;
    let mut specs = Vec::new();
    for (spec, log) in options.spec.logs.iter().zip(&map.logs) {
        let place = |place: Place| PlaceSpec {
            roots: spec.root.clone(),
            retention_bytes_max: options.retention_bytes_max.get(&spec.name).copied(),
            ..PlaceSpec::new(place, &spec.name, spec.class)
        };
        let roots = spec.root.iter().enumerate();
        let roots = roots.filter(|(_, member)| **member == here);
        specs.extend(roots.map(|(slot, _)| place(Place::Root(log.log, Slot::new(slot as u8)))));
        let own = log
            .tree
            .iter()
            .filter(|vertex| vertex.endpoint.node == here);
        specs.extend(own.map(|vertex| PlaceSpec {
            above: above(log, vertex),
            ..place(vertex_place(log.log, vertex))
        }));
        for (members, shard) in spec.shards.iter().zip(&log.shards) {
            let slots = members.iter().enumerate();
            let slots = slots.filter(|(_, member)| **member == here);
            specs.extend(slots.map(|(slot, _)| PlaceSpec {
                replicas: members.len() as u8,
                members: members.clone(),
                above: leaf_of(log, shard),
                ..place(Place::Replica(log.log, shard.shard, Slot::new(slot as u8)))
            }));
        }
    }
    specs.extend(options.places.iter().cloned());
    specs
}

/// The places of a node, the controller first.
pub(super) fn places(options: &ServerOptions, specs: &[PlaceSpec]) -> Vec<Place> {
    let directory = options.controller == ControllerAt::Node(options.node);
    let directory = directory.then_some(Place::Directory);
    let others = specs.iter().map(|spec| spec.place);
    directory.into_iter().chain(others).collect()
}

/// The hosts of a process, one per reactor.
///
/// # Errors
/// [`StartError::NoAddress`], [`StartError::NoRoom`].
pub(super) fn hosts(
    options: &ServerOptions,
    specs: Vec<PlaceSpec>,
    cores: &CoreUse,
    shared: &Shared,
    ledger: &mut Ledger,
) -> Result<Vec<HostPlan>, StartError> {
    let reactors = cores.reactors.iter().enumerate();
    let plan = reactors.map(|(at, reactor)| HostPlan {
        socket: at == 0,
        directory: reactor.places.contains(&Place::Directory),
        places: Vec::new(),
    });
    let mut hosts: Vec<HostPlan> = plan.collect();
    for spec in specs {
        check_addresses(shared, &spec)?;
        let share = ledger.give(options, &spec)?;
        let host = cores.reactor_of(spec.place).unwrap_or(0);
        hosts[host].places.push((spec, share));
    }
    Ok(hosts)
}

/// Whether everybody whom a place talks to can be found.
///
/// # Errors
/// [`StartError::NoAddress`].
pub(super) fn check_addresses(shared: &Shared, spec: &PlaceSpec) -> Result<(), StartError> {
    let map = shared.map();
    let view = View {
        map: &map,
        controller: shared.controller,
        addresses: &shared.addresses,
    };
    let lost = view.wants(spec).into_iter();
    let mut lost = lost.filter(|want| want.node != shared.node && want.address.is_none());
    let node: Option<NodeId> = lost.next().map(|want| want.node);
    node.map_or(Ok(()), |node| Err(StartError::NoAddress { node }))
}
