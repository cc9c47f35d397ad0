//! The host's socket: messages in, sessions opened by others, sessions that this host keeps open to others.

#[cfg(test)]
mod tests;

use ionian_core::outbox::REPLY_BYTES_MAX;
use ionian_core::session::Take;
use ionian_types::{ConnId, Time};
use ionian_wire::frame::Message;

use super::{Host, Link};
use crate::dial::{Dial, connect_message, place_of};
use crate::role::Machine;
use crate::udp::UdpPort;

/// Bytes of messages taken from datagrams in one pass, but for the last message.
const INBOX_BYTES_MAX: usize = 4 << 20;
/// Messages taken from datagrams in one pass.
const INBOX_MESSAGES_MAX: usize = 4096;

/// Messages that came by datagrams and wait for their turn in this pass.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// Session, and where its message ends.
    entries: Vec<(u32, usize)>,
    /// Sessions without a connection whose first message is among them.
    fresh: Vec<u32>,
}

impl Host {
    /// Gives the host a socket.
    pub(crate) fn listen(&mut self, port: UdpPort) {
        self.inbox.bytes.reserve(INBOX_BYTES_MAX + REPLY_BYTES_MAX);
        self.inbox.entries.reserve(INBOX_MESSAGES_MAX);
        self.udp = Some(port);
    }

    /// Keeps a connection open from a place of this host to one elsewhere.
    pub(crate) fn keep_dialled(&mut self, dial: Dial) {
        self.dials.push(dial);
    }

    /// Takes what came by datagrams, and opens and ends sessions.
    pub(super) fn poll_udp(&mut self, now: Time) -> usize {
        let mut work = self.take_datagrams(now);
        let bytes = core::mem::take(&mut self.inbox.bytes);
        let mut start = 0;
        for at in 0..self.inbox.entries.len() {
            let (session, end) = self.inbox.entries[at];
            self.take_message(now, session, &bytes[start..end]);
            start = end;
        }
        self.inbox.bytes = bytes;
        self.inbox.bytes.clear();
        self.inbox.entries.clear();
        self.inbox.fresh.clear();
        while let Some(session) = self.udp.as_mut().and_then(UdpPort::take_ended) {
            work += 1;
            if let Some(id) = self
                .udp_conns
                .get_mut(session as usize)
                .and_then(Option::take)
            {
                self.detach(now, id);
            }
        }
        for at in 0..self.dials.len() {
            if self.dials[at].is_due(now) {
                self.dial(now, at);
                work += 1;
            }
        }
        work
    }

    fn take_datagrams(&mut self, now: Time) -> usize {
        let Self {
            udp,
            inbox,
            udp_conns,
            conns,
            tenants,
            ..
        } = self;
        let Some(udp) = udp else { return 0 };
        udp.receive(now, &mut |session, room, message| {
            let full = inbox.bytes.len() + message.len() > INBOX_BYTES_MAX + REPLY_BYTES_MAX
                || inbox.entries.len() == INBOX_MESSAGES_MAX;
            if room < REPLY_BYTES_MAX || full {
                return Take::Later;
            }
            // What others say to a machine that has not started waits in its session.
            let conn = udp_conns.get(session as usize).copied().flatten();
            let early = conn.is_some_and(|id| {
                let tenant = conns[id.index()].as_ref().map(|conn| &tenants[conn.tenant]);
                tenant.is_some_and(|tenant| {
                    matches!(tenant.machine, Machine::Waiting(_)) && tenant.controller != Some(id)
                })
            });
            // A question for the state is answered by the host.
            let early = early && !is_status_request(message);
            // The first message of a session says who is to have the others, and may find that one not started.
            if early || conn.is_none() && inbox.fresh.contains(&session) {
                return Take::Later;
            }
            if conn.is_none() {
                inbox.fresh.push(session);
            }
            inbox.bytes.extend_from_slice(message);
            inbox.entries.push((session, inbox.bytes.len()));
            Take::Taken
        })
    }

    fn take_message(&mut self, now: Time, session: u32, bytes: &[u8]) {
        let Ok((message, _)) = Message::new_checked(bytes) else {
            self.end_session(now, session);
            return;
        };
        let Some(id) = self.udp_conns.get(session as usize).copied().flatten() else {
            self.accept(now, session, &message);
            return;
        };
        if let Message::StatusRequest(request, _) = &message {
            self.status_wanted.push((id, request.request));
            return;
        }
        self.set_room(id);
        let Some(tenant) = self.conns[id.index()].as_ref().map(|conn| conn.tenant) else {
            return;
        };
        crate::start::deliver(&mut self.tenants[tenant], now, id, &message, &mut self.out);
        // At once: what an answer borrows from the store may be gone after the next message.
        self.carry();
    }

    /// The first message of a session that somebody else opened names the place that it is for.
    fn accept(&mut self, now: Time, session: u32, message: &Message<'_>) {
        let wanted = match message {
            Message::Connect(connect, _) => place_of(connect),
            _ => None,
        };
        let inbound = self.udp.as_ref().is_some_and(|udp| udp.is_new(session));
        match wanted
            .and_then(|place| self.tenant_at(place))
            .filter(|_| inbound)
        {
            Some(tenant) => {
                let id = self.open(tenant, Link::Udp(session), None, false);
                self.bind(session, id);
            }
            None => self.end_session(now, session),
        }
    }

    /// Ends a session after a message that cannot be taken: what follows it would come as if nothing were missing.
    #[cold]
    fn end_session(&mut self, now: Time, session: u32) {
        self.bad_messages += 1;
        match self.udp_conns.get(session as usize).copied().flatten() {
            Some(id) => self.detach(now, id),
            None => {
                if let Some(udp) = &mut self.udp {
                    udp.close(now, session);
                }
            }
        }
    }

    pub(super) fn bind(&mut self, session: u32, id: Option<ConnId>) {
        let index = session as usize;
        if self.udp_conns.len() <= index {
            self.udp_conns.resize(index + 1, None);
        }
        self.udp_conns[index] = id;
    }

    fn dial(&mut self, now: Time, at: usize) {
        let dial = &mut self.dials[at];
        dial.tried(now);
        let (from, to, to_controller, address) =
            (dial.from, dial.to, dial.to_controller, dial.address);
        let Some(tenant) = self.tenant_at(from) else {
            return;
        };
        let Some(udp) = &mut self.udp else { return };
        let Some(session) = udp.dial(now, address) else {
            return;
        };
        let mut first = [0u8; 64];
        let len = connect_message(to, &mut first);
        let _ = udp.send(session, &first[..len], &[]);
        let id = self.open(tenant, Link::Udp(session), None, to_controller);
        self.bind(session, id);
        self.dials[at].conn = id;
    }
}

/// Whether a message asks for the state of the process. Only looked at while a machine has not started.
fn is_status_request(bytes: &[u8]) -> bool {
    matches!(
        Message::new_checked(bytes),
        Ok((Message::StatusRequest(..), _))
    )
}
