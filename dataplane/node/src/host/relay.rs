//! Sessions of this host's socket with places of other hosts: messages go from the session into a ring to the place's host,
//! and back.
//!
//! A message is taken from the session only when the ring has room for it, and from the ring only when the session has, so
//! that neither end of a relay can make this host keep anything. When one side ends, so does the other.

use ionian_types::{ConnId, Time};

use super::readers::Reader;
use super::{Host, MESSAGES_PER_PASS};
use crate::link::ShmLink;
use crate::udp::UdpPort;

/// Where the messages of a session go.
#[derive(Debug)]
pub(super) enum Route {
    /// To a place of this host.
    Conn(ConnId),
    /// To a place of another host.
    Relay(Box<Relay>),
    /// To nobody: somebody wants the cluster map, which the host has.
    Map(Reader),
}

/// A ring to a place of another host.
#[derive(Debug)]
pub(super) struct Relay {
    link: ShmLink,
    /// A message waits for room in the session.
    blocked: bool,
}

impl Relay {
    pub(super) fn new(link: ShmLink) -> Self {
        Self {
            link,
            blocked: false,
        }
    }

    /// Hands a message of a legal length on. `false` when the ring has no room for it now.
    #[inline]
    pub(super) fn forward(&mut self, message: &[u8]) -> bool {
        self.link.send(message, &[])
    }

    /// Shows what was handed on, and sends what the place has sent, as far as the session takes it.
    #[inline]
    fn pump(&mut self, udp: &mut UdpPort, session: u32) -> usize {
        self.link.publish();
        self.blocked = false;
        let mut count = 0;
        while count < MESSAGES_PER_PASS
            && let Some(message) = self.link.peek()
        {
            if udp.room(session) < message.len() || !udp.send(session, message, &[]) {
                self.blocked = true;
                break;
            }
            self.link.release();
            count += 1;
        }
        if count > 0 {
            self.link.give_back();
        }
        count
    }

    /// Announces a sleep; `false` when there is something to do.
    pub(super) fn arm(&mut self) -> bool {
        // Room in the session comes back by a datagram.
        self.link.arm(!self.blocked)
    }

    /// Takes the announcement back.
    pub(super) fn disarm(&mut self) {
        self.link.disarm();
    }
}

impl Host {
    /// The relays.
    pub(super) fn relays(&mut self) -> impl Iterator<Item = &mut Relay> {
        self.routes.iter_mut().filter_map(|route| match route {
            Some(Route::Relay(relay)) => Some(&mut **relay),
            _ => None,
        })
    }

    /// Carries messages between sessions and rings.
    pub(super) fn poll_relays(&mut self) -> usize {
        let Some(udp) = &mut self.udp else { return 0 };
        let mut count = 0;
        for (session, route) in self.routes.iter_mut().enumerate() {
            if let Some(Route::Relay(relay)) = route {
                count += relay.pump(udp, session as u32);
            }
        }
        count
    }

    /// Ends the sessions whose place has closed its ring, once everything that it had sent is in the session.
    pub(super) fn end_relays(&mut self, now: Time) -> usize {
        let mut count = 0;
        for session in 0..self.routes.len() {
            if let Some(Route::Relay(relay)) = &mut self.routes[session]
                && relay.link.is_finished()
            {
                self.end_session(now, session as u32);
                count += 1;
            }
        }
        count
    }

    /// Closes a session, and the ring that it goes to.
    pub(super) fn end_session(&mut self, now: Time, session: u32) {
        if let Some(udp) = &mut self.udp {
            udp.close(now, session);
        }
        self.forget_session(now, session);
    }

    /// Closes a session, and the connection that it goes to.
    pub(super) fn hang_up(&mut self, now: Time, session: u32) {
        match self.routes.get(session as usize) {
            Some(Some(Route::Conn(id))) => self.detach(now, *id),
            _ => self.end_session(now, session),
        }
    }

    /// Has no more to do with a session; returns the connection that it had, if it was of this host.
    pub(super) fn forget_session(&mut self, now: Time, session: u32) -> Option<ConnId> {
        let dials = self.dials.iter_mut();
        for dial in dials.filter(|dial| dial.session == Some(session)) {
            dial.session = None;
            dial.backoff.ended(now);
        }
        match self.routes.get_mut(session as usize)?.take()? {
            Route::Conn(id) => Some(id),
            Route::Relay(relay) => {
                relay.link.close();
                self.forget_asker(super::Asker::Session(session));
                None
            }
            Route::Map(_) => {
                self.forget_asker(super::Asker::Session(session));
                None
            }
        }
    }
}
