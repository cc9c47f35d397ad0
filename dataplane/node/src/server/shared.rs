//! What the hosts of a process and the clients in it know of each other: who runs where, and how to reach it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ionian_driver_api::{Clock, Wake};
use ionian_runtime::{MailboxSender, MonotonicClock, WakeHandle};
use ionian_shm::duplex;
use ionian_types::{ClusterId, GuardEpoch, SessionId, Time, Token};

use super::{RING_BYTES, SMALL_RING_BYTES};
use crate::device::DeviceFailure;
use crate::host::Control;
use crate::link::{LinkIds, ShmLink};
use crate::role::Place;

/// How to reach a host.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) controls: MailboxSender<Control>,
    pub(super) wake: WakeHandle,
}

/// What the hosts of a process and the clients in it share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// By the host's number.
    doors: Vec<Door>,
    /// The host of each place.
    homes: BTreeMap<Place, usize>,
    clock: MonotonicClock,
    pub(super) cluster: ClusterId,
    sessions: AtomicU64,
    /// The device that ended the process.
    failure: OnceLock<DeviceFailure>,
}

impl Shared {
    pub(super) fn new(
        doors: Vec<Door>,
        homes: BTreeMap<Place, usize>,
        clock: MonotonicClock,
        cluster: ClusterId,
    ) -> Self {
        Self {
            doors,
            homes,
            clock,
            cluster,
            sessions: AtomicU64::new(1 << 32),
            failure: OnceLock::new(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Ends the work of every host: a device has failed. The first failure is the one that is told.
    #[cold]
    pub(crate) fn fail(&self, failure: DeviceFailure) {
        let _ = self.failure.set(failure);
        for door in &self.doors {
            door.wake.wake();
        }
    }

    /// The device that ended the process, if one did.
    #[inline]
    pub(crate) fn failure(&self) -> Option<&DeviceFailure> {
        self.failure.get()
    }

    /// Number of hosts.
    pub(crate) fn hosts(&self) -> usize {
        self.doors.len()
    }

    /// Ends the sleep of a host's reactor.
    pub(crate) fn wake(&self, host: usize) -> Arc<dyn Wake + Send + Sync> {
        Arc::new(self.doors[host].wake.clone())
    }

    /// Asks something of a host. `false` when its mailbox is full: backpressure, effect none.
    pub(crate) fn send(&self, host: usize, control: Control) -> bool {
        self.doors
            .get(host)
            .is_some_and(|door| door.controls.send(control).is_ok())
    }

    /// Asks something of every host. `false` when a mailbox is full; the others were asked.
    pub(super) fn send_all(&self, mut control: impl FnMut() -> Control) -> bool {
        let refused = (0..self.hosts()).filter(|host| !self.send(*host, control()));
        refused.count() == 0
    }

    /// Opens a connection of a client to a place. The caller polls its end; `wake` is called when something comes while it
    /// sleeps.
    pub(crate) fn connect(
        &self,
        place: Place,
        wake: Arc<dyn Wake + Send + Sync>,
    ) -> Option<ShmLink> {
        // A place that is not here is refused by the first host, which closes the connection.
        let home = self.homes.get(&place).copied().unwrap_or(0);
        let ids = link_ids(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (client, server) = duplex(RING_BYTES);
        let attach = Control::Attach {
            place,
            link: Box::new(ShmLink::new(server, ids.reversed(), wake)),
            to_controller: false,
        };
        self.send(home, attach)
            .then(|| ShmLink::new(client, ids, self.wake(home)))
    }

    /// Opens a connection from host `me` to a place of another host, for a session of its socket. `None` when the place is
    /// on no other host, or its host takes nothing now.
    pub(crate) fn relay(&self, me: usize, place: Place, to_controller: bool) -> Option<ShmLink> {
        let home = *self.homes.get(&place).filter(|home| **home != me)?;
        let ids = link_ids(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (near, far) = duplex(SMALL_RING_BYTES);
        let attach = Control::Attach {
            place,
            link: Box::new(ShmLink::between_hosts(far, ids.reversed(), self.wake(me))),
            to_controller,
        };
        self.send(home, attach)
            .then(|| ShmLink::between_hosts(near, ids, self.wake(home)))
    }
}

/// The identity of a connection within one process.
pub(super) const fn link_ids(session: u64) -> LinkIds {
    // Both ends live in this process: the token guards against a link used by mistake, not against an adversary.
    LinkIds {
        session: SessionId::new(session),
        epoch: GuardEpoch::new(1),
        send: Token::new(session.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        receive: Token::new(session.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) | 1),
    }
}
