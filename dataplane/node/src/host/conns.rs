//! The connections of a host: what carries each, how they open and end, and how what was sent is shown to the other end.

use ionian_types::{ConnId, Time};

use super::status::Asker;
use super::{CONNECTIONS_MAX, Host, Tenant};
use crate::link::ShmLink;
use crate::role::{Machine, Place};
use crate::udp::UdpPort;

/// A connection of one tenant.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) tenant: usize,
    pub(super) link: Link,
    /// The other end, if it is of this host.
    pub(super) peer: Option<ConnId>,
    /// It is among the fresh ones of its place.
    pub(super) fresh: bool,
}

/// What carries a connection.
#[derive(Debug)]
pub(super) enum Link {
    Shm(Box<ShmLink>),
    /// A session of the host's socket.
    Udp(u32),
}

impl Link {
    #[inline]
    pub(super) fn room(&mut self, udp: Option<&UdpPort>) -> usize {
        match self {
            Self::Shm(link) => link.room(),
            Self::Udp(session) => udp.map_or(0, |udp| udp.room(*session)),
        }
    }

    #[inline]
    pub(super) fn send(&mut self, udp: Option<&mut UdpPort>, head: &[u8], body: &[u8]) -> bool {
        match self {
            Self::Shm(link) => link.send(head, body),
            Self::Udp(session) => udp.is_some_and(|udp| udp.send(*session, head, body)),
        }
    }
}

impl Host {
    /// Connects another thread's link to a place of this host. `to_controller` marks the connection as that place's own to
    /// the controller.
    pub(super) fn attach(
        &mut self,
        now: Time,
        place: Place,
        link: ShmLink,
        to_controller: bool,
    ) -> Option<ConnId> {
        let Some(tenant) = self.tenant_at(place) else {
            link.close();
            return None;
        };
        if self.free.is_empty() && self.conns.len() >= CONNECTIONS_MAX {
            link.close();
            return None;
        }
        // The session before this one is over, even if its end has not been seen here.
        if to_controller && let Some(old) = self.tenants[tenant].controller {
            self.detach(now, old);
        }
        let id = self.open(tenant, Link::Shm(Box::new(link)), None, to_controller);
        self.outside.extend(id);
        self.tenants[tenant].swept = true;
        id
    }

    /// Connects two places of this host, `from` with its end of a pair of rings. `to_controller` marks the connection as
    /// that place's own to the controller.
    pub(super) fn attach_pair(
        &mut self,
        from: (Place, ShmLink),
        to: (Place, ShmLink),
        to_controller: bool,
    ) -> Option<ConnId> {
        let (near, far) = (self.tenant_at(from.0)?, self.tenant_at(to.0)?);
        // Without a number for the near end, the far one finds its other end gone.
        let far = self.open(far, Link::Shm(Box::new(to.1)), None, false)?;
        let near = self.open(near, Link::Shm(Box::new(from.1)), Some(far), to_controller)?;
        if let Some(conn) = &mut self.conns[far.index()] {
            conn.peer = Some(near);
        }
        // What the ends said when they were opened had nobody to mark.
        self.sweep();
        Some(near)
    }

    pub(super) fn open(
        &mut self,
        tenant: usize,
        link: Link,
        peer: Option<ConnId>,
        to_controller: bool,
    ) -> Option<ConnId> {
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.conns.len() < CONNECTIONS_MAX => {
                self.conns.push(None);
                ConnId::new(self.conns.len() as u32 - 1)
            }
            None => return None,
        };
        self.conns[id.index()] = Some(Conn {
            tenant,
            link,
            peer,
            fresh: false,
        });
        let owner = &mut self.tenants[tenant];
        owner.conns.push(id);
        if to_controller {
            owner.controller = Some(id);
            if matches!(owner.machine, Machine::Waiting(_)) {
                return Some(id);
            }
        }
        self.set_room(id);
        self.tenants[tenant].machine.opened(id, &mut self.out);
        self.carry();
        Some(id)
    }

    pub(super) fn set_room(&mut self, id: ConnId) {
        if let Some(conn) = &mut self.conns[id.index()] {
            self.out.set_room(id, conn.link.room(self.udp.as_ref()));
        }
    }

    pub(super) fn detach(&mut self, now: Time, id: ConnId) {
        let Some(conn) = self.conns[id.index()].take() else {
            return;
        };
        let tenant = &mut self.tenants[conn.tenant];
        tenant.conns.retain(|other| *other != id);
        if tenant.controller == Some(id) {
            tenant.controller = None;
            crate::start::forget_request(tenant);
        }
        tenant.machine.closed(now, id);
        self.wire_ended(now, id);
        match conn.link {
            Link::Udp(session) => self.end_session(now, session),
            // The other end may sleep on another reactor.
            Link::Shm(link) if conn.peer.is_none() => link.close(),
            Link::Shm(_) => {}
        }
        self.forget_asker(Asker::Conn(id));
        self.outside.retain(|other| *other != id);
        if let Some(other) = conn.peer.and_then(|peer| self.conns[peer.index()].as_mut()) {
            other.peer = None;
        }
        self.tenants[conn.tenant].fresh.retain(|other| *other != id);
        self.free.push(id);
    }
}

/// Shows what was sent on a connection to its other end; a place of this host has it among the fresh ones from then on.
#[inline]
pub(super) fn show<'a>(
    conns: &'a mut [Option<Conn>],
    tenants: &mut [Tenant],
    id: ConnId,
) -> Option<&'a mut Conn> {
    let conn = conns.get_mut(id.index())?.as_mut()?;
    let peer = conn.peer;
    if let Link::Shm(link) = &mut conn.link {
        match peer {
            Some(_) => link.publish_here(),
            None => link.publish(),
        }
    }
    if let Some(peer) = peer
        && let Some(other) = conns[peer.index()].as_mut()
        && !other.fresh
    {
        other.fresh = true;
        tenants[other.tenant].fresh.push(peer);
    }
    conns[id.index()].as_mut()
}
