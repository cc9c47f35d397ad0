//! Connections that a place keeps open to places in other processes, and the first message of each.

use std::net::SocketAddr;

use ionian_types::{ClusterId, LogId, Nanos, ShardId, Slot, Time};
use ionian_wire::frame::{Connect, Role, encode};

use crate::role::Place;

/// The pause before a connection is tried again.
const RETRY: Nanos = Nanos::from_ms(100);

/// One connection to keep.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) to_controller: bool,
    pub(crate) address: SocketAddr,
    /// The session, while there is one.
    pub(crate) session: Option<u32>,
    retry_at: Time,
}

impl Dial {
    pub(crate) const fn new(from: Place, to: Place, address: SocketAddr) -> Self {
        let to_controller = matches!(to, Place::Directory);
        Self {
            from,
            to,
            to_controller,
            address,
            session: None,
            retry_at: Time::ZERO,
        }
    }

    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.session.is_none() && now >= self.retry_at
    }

    pub(crate) const fn due_at(&self) -> Time {
        if self.session.is_none() {
            self.retry_at
        } else {
            Time::FAR
        }
    }

    pub(crate) fn tried(&mut self, now: Time) {
        self.retry_at = now.after(RETRY);
    }
}

/// Encodes the message that names the place wanted.
pub(crate) fn connect_message(to: Place, out: &mut [u8]) -> usize {
    let (role, log, shard, slot) = match to {
        Place::Directory => (Role::Controller, LogId::ZERO, ShardId::ZERO, Slot::ZERO),
        Place::Root(log) => (Role::Root, log, ShardId::ZERO, Slot::ZERO),
        Place::Leaf(log) => (Role::Leaf, log, ShardId::ZERO, Slot::ZERO),
        Place::Replica(log, shard, slot) => (Role::Replica, log, shard, slot),
    };
    let connect = Connect {
        cluster: ClusterId::default(),
        role,
        log,
        shard,
        slot,
    };
    encode(out, &connect, &[]).expect("the message has a fixed length below 64 bytes")
}

/// The place that a first message names.
pub(crate) const fn place_of(connect: &Connect) -> Option<Place> {
    match connect.role {
        Role::Controller => Some(Place::Directory),
        Role::Root => Some(Place::Root(connect.log)),
        Role::Leaf => Some(Place::Leaf(connect.log)),
        Role::Replica => Some(Place::Replica(connect.log, connect.shard, connect.slot)),
        Role::Client => None,
    }
}
