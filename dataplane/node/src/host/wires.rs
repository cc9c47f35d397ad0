//! The connections that the places of a host open, after the newest map: rings to places of this process, sessions to others.
//!
//! Looked at only when there is news of places or of the map, and when a connection is to be tried again. Rings within the
//! host are pairs; those to another host have ends that wake each other, and their far end goes there by the mailbox. Sessions
//! are the socket's: the host of a place tells the host with the socket which ones the place wants.

use std::sync::Arc;

use ionian_driver_api::NoWake;
use ionian_shm::duplex;
use ionian_types::{ConnId, Time};

use super::{Control, Host};
use crate::dial::{Backoff, Dial, Far};
use crate::link::ShmLink;
use crate::role::Place;
use crate::wants::{View, Want};

/// The host that has the socket.
const SOCKET_HOST: usize = 0;

/// A ring to keep, from a place of this host to one of this process.
#[derive(Debug)]
pub(super) struct Wire {
    from: Place,
    to: Place,
    bytes: usize,
    conn: Option<ConnId>,
    backoff: Backoff,
}

impl Wire {
    /// When it is to be opened.
    pub(super) const fn due_at(&self) -> Time {
        if self.conn.is_none() {
            self.backoff.due_at()
        } else {
            Time::FAR
        }
    }
}

impl Host {
    /// Follows news, and opens what is due. Returns how much was done.
    pub(super) fn poll_wires(&mut self, now: Time) -> usize {
        let mut work = 0;
        let news = self.own.shared.news();
        if news != self.news || self.rewire {
            (self.news, self.rewire) = (news, false);
            self.follow(now);
            work += 1;
        }
        for at in 0..self.wires.len() {
            if self.wires[at].due_at() <= now {
                self.wire_up(now, at);
                work += 1;
            }
        }
        if !self.untold.is_empty() {
            work += self.tell_socket(now);
        }
        work
    }

    /// Whether there is news that was not looked at.
    pub(super) fn has_news(&self) -> bool {
        self.rewire || self.news != self.own.shared.news()
    }

    #[cold]
    fn follow(&mut self, now: Time) {
        let shared = self.own.shared.clone();
        let map = shared.map();
        let view = View {
            map: &map,
            controller: shared.controller,
            addresses: &shared.addresses,
        };
        for at in 0..self.tenants.len() {
            let place = self.tenants[at].place;
            let wants = view.wants(&self.tenants[at].spec);
            let (here, there): (Vec<Want>, Vec<Want>) =
                wants.iter().partition(|want| want.node == shared.node);
            self.keep_wires(now, place, &here);
            let far = there.iter().filter_map(|want| {
                want.address.map(|address| Far {
                    to: want.to,
                    node: want.node,
                    address,
                    inc: want.inc,
                })
            });
            let far: Vec<Far> = far.collect();
            if far != self.tenants[at].dialled {
                self.tenants[at].dialled.clone_from(&far);
                self.untold.insert(place, far);
            }
        }
        for wire in self.wires.iter_mut().filter(|wire| wire.conn.is_none()) {
            wire.backoff.news();
        }
    }

    /// The rings of a place are to be these.
    fn keep_wires(&mut self, now: Time, from: Place, wanted: &[Want]) {
        let is_wanted = |wire: &Wire| wanted.iter().any(|want| want.to == wire.to);
        let over = |wire: &Wire| wire.from == from && !is_wanted(wire);
        while let Some(at) = self.wires.iter().position(over) {
            if let Some(id) = self.wires.swap_remove(at).conn {
                self.detach(now, id);
            }
        }
        for want in wanted {
            let mut own = self.wires.iter();
            if own.all(|wire| (wire.from, wire.to) != (from, want.to)) {
                self.wires.push(Wire {
                    from,
                    to: want.to,
                    bytes: want.bytes,
                    conn: None,
                    backoff: Backoff::new(),
                });
            }
        }
    }

    /// A place leaves: what it has opened is wanted no more.
    pub(super) fn unwire(&mut self, now: Time, place: Place) {
        self.keep_wires(now, place, &[]);
        self.untold.insert(place, Vec::new());
        self.tell_socket(now);
    }

    fn wire_up(&mut self, now: Time, at: usize) {
        let Wire {
            from, to, bytes, ..
        } = self.wires[at];
        self.wires[at].backoff.tried(now);
        let to_controller = matches!(to, Place::Directory);
        let (me, shared) = (self.own.at, self.own.shared.clone());
        let conn = match shared.home(to) {
            // It may come: that is news.
            None => {
                self.wires[at].backoff.wait_for_news();
                return;
            }
            Some(home) if home.host == me => {
                let ids = shared.link_ids();
                let (near, far) = duplex(bytes);
                let wake = Arc::new(NoWake);
                let near = ShmLink::new(near, ids, wake.clone());
                let far = ShmLink::new(far, ids.reversed(), wake);
                self.attach_pair((from, near), (to, far), to_controller)
            }
            Some(_) => shared
                .connect_hosts(me, to, bytes, false)
                .and_then(|link| self.attach(now, from, link, to_controller)),
        };
        self.wires[at].conn = conn;
    }

    /// A connection is over; if it was a ring to keep, it is opened again after a pause.
    pub(super) fn wire_ended(&mut self, now: Time, id: ConnId) {
        if let Some(wire) = self.wires.iter_mut().find(|wire| wire.conn == Some(id)) {
            wire.conn = None;
            wire.backoff.ended(now);
        }
    }

    /// Tells the host with the socket of the sessions that are wanted; what it does not take now is told again.
    fn tell_socket(&mut self, now: Time) -> usize {
        let untold = core::mem::take(&mut self.untold);
        let mut told = 0;
        for (from, wanted) in untold {
            if self.own.at == SOCKET_HOST {
                self.keep_dialled(now, from, &wanted);
                told += 1;
            } else {
                let control = Control::Dials {
                    from,
                    wanted: wanted.clone(),
                };
                if self.own.shared.send(SOCKET_HOST, control) {
                    told += 1;
                } else {
                    self.untold.insert(from, wanted);
                }
            }
        }
        told
    }

    /// The sessions of a place of this process are to be these.
    pub(super) fn keep_dialled(&mut self, now: Time, from: Place, wanted: &[Far]) {
        let over = |dial: &Dial| {
            let same =
                |far: &Far| (far.to, far.node, far.address) == (dial.to, dial.node, dial.address);
            dial.from == from && !wanted.iter().any(same)
        };
        while let Some(at) = self.dials.iter().position(over) {
            if let Some(session) = self.dials.swap_remove(at).session {
                self.hang_up(now, session);
            }
        }
        for far in wanted {
            let mut own = self.dials.iter_mut();
            match own.find(|dial| (dial.from, dial.to) == (from, far.to)) {
                None => self.dials.push(Dial::new(from, *far)),
                Some(dial) => {
                    // Another life: it may be there now.
                    if dial.inc != far.inc && dial.session.is_none() {
                        dial.backoff.news();
                    }
                    dial.inc = far.inc;
                }
            }
        }
    }
}
