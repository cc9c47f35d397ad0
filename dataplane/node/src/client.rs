//! Links of the client library: over shared memory into a server of this process, and over UDP to a cluster. Beside them
//! the probe, which asks processes for their state.

mod grants;
mod local;
mod probe;
mod udp;

pub use grants::{HeldGrant, UserGrants, UserRights};
pub use local::LocalLink;
pub use probe::{Probe, ProbeAnswer, ProbeTarget};
pub use udp::{ClientPortOptions, Credential, UdpLink};

use ionian_core::client::PeerKind;
use ionian_types::{LogId, Slot};
use ionian_wire::directory::ClusterMap;

use crate::role::Place;

/// The slot of the member of a log's root group that leads, as far as a map says.
fn leader_of(map: &ClusterMap, log: LogId) -> Slot {
    let known = map.logs.iter().find(|known| known.log == log);
    known.and_then(|known| known.leader).unwrap_or_default()
}

/// Where a client of a log finds a peer, while that member of the root group leads.
const fn place_of(log: LogId, leader: Slot, peer: PeerKind) -> Place {
    match peer {
        PeerKind::Root => Place::Root(log, leader),
        PeerKind::Replica { shard, slot } => Place::Replica(log, shard, slot),
    }
}
