//! Links of the client library: over shared memory into a server of this process, and over UDP to a cluster. Beside them
//! the probe, which asks processes for their state.

mod local;
mod probe;
mod udp;

pub use local::LocalLink;
pub use probe::{Probe, ProbeAnswer, ProbeTarget};
pub use udp::{ClientPortOptions, UdpLink};

use ionian_core::client::PeerKind;
use ionian_types::LogId;

use crate::role::Place;

/// Where a client of a log finds a peer.
const fn place_of(log: LogId, peer: PeerKind) -> Place {
    match peer {
        PeerKind::Root => Place::Root(log),
        PeerKind::Replica { shard, slot } => Place::Replica(log, shard, slot),
    }
}
