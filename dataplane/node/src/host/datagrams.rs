//! The host's socket: messages in, sessions opened by others, sessions that this host keeps open to others.

#[cfg(test)]
mod tests;

use ionian_core::guard::may_reach;
use ionian_core::outbox::REPLY_BYTES_MAX;
use ionian_core::session::Take;
use ionian_types::{Shipped, Time};
use ionian_wire::frame::{Body, MESSAGE_BYTES_MAX, Message, StatusRequest};

use super::conns::Link;
use super::readers::Reader;
use super::relay::{Relay, Route};
use super::status::{Asker, ask};
use super::{Host, Own};
use crate::dial::{connect_message, place_of};
use crate::role::Place;
use crate::server::ControllerAt;
use crate::udp::UdpPort;
use crate::wants::SMALL_RING_BYTES;

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
        work += self.poll_relays() + self.poll_readers();
        while let Some((session, parting)) = self.udp.as_mut().and_then(UdpPort::take_parted) {
            work += 1;
            if let Some(parting) = parting {
                self.parted(now, parting);
            }
            if let Some(id) = self.forget_session(now, session) {
                self.detach(now, id);
            }
        }
        for at in 0..self.dials.len() {
            if self.dials[at].is_due(now) {
                self.dial(now, at);
                work += 1;
            }
        }
        work + self.poll_observer(now)
    }

    fn take_datagrams(&mut self, now: Time) -> usize {
        let Self {
            udp,
            inbox,
            routes,
            conns,
            tenants,
            ..
        } = self;
        let Some(udp) = udp else { return 0 };
        udp.receive(now, &mut |session, room, message| {
            // A question for the state is answered by the host.
            let is_question = message.first() == Some(&StatusRequest::KIND);
            let route = routes.get_mut(session as usize).and_then(Option::as_mut);
            if let Some(Route::Relay(relay)) = route
                && !is_question
                && message.len() <= MESSAGE_BYTES_MAX
            {
                let forwarded = relay.forward(message);
                return if forwarded { Take::Taken } else { Take::Later };
            }
            let route = routes.get(session as usize).and_then(Option::as_ref);
            let full = inbox.bytes.len() + message.len() > INBOX_BYTES_MAX + REPLY_BYTES_MAX
                || inbox.entries.len() == INBOX_MESSAGES_MAX;
            if room < REPLY_BYTES_MAX || full {
                return Take::Later;
            }
            // What others say to a place whose life has not begun waits in its session.
            let early = match route {
                Some(Route::Conn(id)) => {
                    let tenant = conns[id.index()].as_ref().map(|conn| &tenants[conn.tenant]);
                    tenant.is_some_and(|tenant| !tenant.listens(*id))
                }
                Some(Route::Relay(_) | Route::Map(_)) | None => false,
            };
            // The first message of a session says who is to have the others, and may find that one not started.
            if early && !is_question || route.is_none() && inbox.fresh.contains(&session) {
                return Take::Later;
            }
            if route.is_none() {
                inbox.fresh.push(session);
            }
            inbox.bytes.extend_from_slice(message);
            inbox.entries.push((session, inbox.bytes.len()));
            Take::Taken
        })
    }

    fn take_message(&mut self, now: Time, session: u32, bytes: &[u8]) {
        let Ok((message, _)) = Message::new_checked(bytes) else {
            self.break_session(now, session);
            return;
        };
        let route = self.routes.get(session as usize).and_then(Option::as_ref);
        let (id, asker) = match route {
            None => {
                self.accept(now, session, &message);
                return;
            }
            Some(Route::Relay(_) | Route::Map(_)) => (None, Asker::Session(session)),
            Some(Route::Conn(id)) => (Some(*id), Asker::Conn(*id)),
        };
        if let Message::StatusRequest(request, _) = &message {
            ask(&mut self.status_wanted, asker, request.request);
            return;
        }
        if let Message::DirectoryRequest(request, _) = &message
            && self.wants_map(session, request)
        {
            return;
        }
        let Some(id) = id else {
            // A relay hands on everything else at once, if it is of a legal length.
            self.break_session(now, session);
            return;
        };
        self.set_room(id);
        let Some(tenant) = self.conns[id.index()].as_ref().map(|conn| conn.tenant) else {
            return;
        };
        let Self {
            tenants, own, out, ..
        } = self;
        crate::start::deliver(&mut tenants[tenant], &own.shared, now, id, &message, out);
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
        let allowed = |place: &Place| {
            let grant = self.udp.as_ref().and_then(|udp| udp.grant(session));
            let internal = matches!(place, Place::Leaf(..) | Place::Aggregator(..));
            grant.is_some_and(|grant| may_reach::<Shipped>(grant, place.log(), internal))
        };
        if wanted.as_ref().is_some_and(|place| !allowed(place))
            && let Some(udp) = &mut self.udp
        {
            udp.note_denied();
            self.end_session(now, session);
            return;
        }
        let route = wanted
            .filter(|_| inbound)
            .and_then(|place| self.route(session, place, false));
        match (route, wanted) {
            (Some(route), _) => self.bind(session, route),
            // It has left, or is still to come: whoever wants it asks again.
            (None, Some(_)) if inbound => self.end_session(now, session),
            (None, _) => self.break_session(now, session),
        }
    }

    /// The way from a session to a place of this process, here or on another host.
    fn route(&mut self, session: u32, place: Place, to_controller: bool) -> Option<Route> {
        if place == Place::Directory && self.own.shared.controller == ControllerAt::External {
            return Some(Route::Map(Reader::default()));
        }
        match self.tenant_at(place) {
            Some(tenant) => {
                let id = self.open(tenant, Link::Udp(session), None, to_controller)?;
                Some(Route::Conn(id))
            }
            None => {
                let Own { at, shared, .. } = &self.own;
                let link = shared.connect_hosts(*at, place, SMALL_RING_BYTES, to_controller)?;
                Some(Route::Relay(Box::new(Relay::new(link))))
            }
        }
    }

    /// Ends a session after a message that cannot be taken: what follows it would come as if nothing were missing.
    #[cold]
    fn break_session(&mut self, now: Time, session: u32) {
        self.bad_messages += 1;
        self.hang_up(now, session);
    }

    fn bind(&mut self, session: u32, route: Route) {
        let index = session as usize;
        if self.routes.len() <= index {
            self.routes.resize_with(index + 1, || None);
        }
        self.routes[index] = Some(route);
    }

    fn dial(&mut self, now: Time, at: usize) {
        let dial = &mut self.dials[at];
        dial.backoff.tried(now);
        let (from, to, to_controller) = (dial.from, dial.to, dial.to_controller);
        let (node, address) = (dial.node, dial.address);
        let Some(udp) = &mut self.udp else { return };
        let Some(session) = udp.dial(now, node, address) else {
            return;
        };
        let mut first = [0u8; 64];
        let len = connect_message(to, &mut first);
        let _ = udp.send(session, &first[..len], &[]);
        match self.route(session, from, to_controller) {
            Some(route) => {
                self.bind(session, route);
                self.dials[at].session = Some(session);
            }
            // Its host takes nothing now: the next try is due soon.
            None => self.end_session(now, session),
        }
    }
}
