//! A client's port into an embedded cluster: one ring pair per place, opened when the client machine wants it.

use std::sync::Arc;

use ionian_core::client::PeerKind;
use ionian_driver_api::Wake;
use ionian_types::LogId;

use crate::embedded::Embedded;
use crate::link::ShmLink;
use crate::role::Place;

/// Where a client finds a place.
pub(crate) const fn place_of(log: LogId, peer: PeerKind) -> Place {
    match peer {
        PeerKind::Root => Place::Root(log),
        PeerKind::Replica { shard, slot } => Place::Replica(log, shard, slot),
    }
}

impl Embedded {
    /// Opens a connection for a client of `log`.
    #[must_use]
    pub fn connect_peer(
        &self,
        log: LogId,
        peer: PeerKind,
        wake: Arc<dyn Wake + Send + Sync>,
    ) -> ShmLink {
        self.connect(place_of(log, peer), wake)
    }
}
