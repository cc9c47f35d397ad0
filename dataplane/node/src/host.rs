//! A host: the places that share one reactor, their connections, and the loop that moves messages between them.
//!
//! A pass polls places: each takes its messages (only while the connection has room for the largest answer), flushes, and
//! its outbox is carried. A message between two places of the host marks its connection as fresh, and places with fresh
//! connections are polled until there are none, so that one pass carries an append from its primary to the root and the
//! acknowledgement back. Whatever has no such mark (room that came back, time that passed, the controller's own work) is
//! found by a sweep over all places and connections every few passes; in between, an empty pass looks at the connections of
//! clients and of other hosts, and at devices only. Between two sweeps room is known too small, never too large.
//!
//! A process has a host per reactor. Their places are connected by rings whose ends wake each other's reactor; the host
//! with the socket relays sessions to places of the others.

mod again;
mod conns;
mod control;
mod datagrams;
mod observe;
mod places;
mod readers;
mod relay;
mod sleep;
mod status;
mod wires;

use std::collections::BTreeMap;

use ionian_core::Outbox;
use ionian_core::outbox::REPLY_BYTES_MAX;
use ionian_types::{ConnId, Time};
use ionian_wire::frame::Message;

use crate::device::StoreIo;
use crate::dial::{Dial, Far};
use crate::role::{Machine, Place, outbox};
use crate::server::PlaceSpec;
use crate::udp::UdpPort;
pub(crate) use again::{Ended, Maker};
use conns::{Conn, Link, show};
pub(crate) use control::{Control, Own};
use datagrams::Inbox;
use observe::Watch;
pub use places::Arrived;
use places::{Coming, Leaving};
pub(crate) use places::{Newcomer, Remains};
use relay::Route;
use status::{Asker, Gathering, ask};
use wires::Wire;

/// Messages taken from one connection in one pass.
const MESSAGES_PER_PASS: usize = 64;
/// Connections of one host.
pub(crate) const CONNECTIONS_MAX: usize = 4096;
/// Passes between two sweeps over all places. A power of two.
const SWEEP: u64 = 8;
/// Rounds over places with fresh connections in one pass: an append and its acknowledgement need five; what goes on for longer waits for
/// the next pass, so that clients and the clock are looked at.
const ROUNDS_PER_PASS: usize = 8;
/// Passes between two looks at the mailbox and at links whose other end may be gone. A power of two.
const RARELY: u64 = 64;

/// A place and its machine.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) place: Place,
    /// What it was asked to be.
    spec: Box<PlaceSpec>,
    pub(crate) machine: Machine,
    pub(crate) conns: Vec<ConnId>,
    /// The connection to the controller, for places that register.
    pub(crate) controller: Option<ConnId>,
    /// The device of its store, for flushed classes.
    pub(crate) io: Option<StoreIo>,
    /// The reactor watches the device's descriptor.
    watched: bool,
    /// All its connections are to be looked at, and its room in each.
    swept: bool,
    /// Connections that something came by, each once.
    fresh: Vec<ConnId>,
    /// It left messages in a ring, for the next pass.
    more: bool,
    /// The sessions that it wants, as the host with the socket was told.
    dialled: Vec<Far>,
    /// Its life was ended by the controller, and another may begin.
    pub(crate) ended: Option<Ended>,
}

impl Tenant {
    /// Whether a message by this connection is taken now. Until its life begins a place hears only what the controller
    /// answers to its registration; everything else waits in its connection.
    #[inline]
    pub(super) fn listens(&self, id: ConnId) -> bool {
        match &self.machine {
            Machine::Waiting(waiting) => waiting.admitted.is_none() && self.controller == Some(id),
            _ => true,
        }
    }
}

/// The host.
#[derive(Debug)]
pub(crate) struct Host {
    tenants: Vec<Tenant>,
    conns: Vec<Option<Conn>>,
    free: Vec<ConnId>,
    out: Outbox,
    own: Own,
    udp: Option<UdpPort>,
    /// Who hears the other processes, on the host with the socket.
    watch: Option<Box<Watch>>,
    /// Where the messages of each session of the socket go.
    routes: Vec<Option<Route>>,
    inbox: Inbox,
    /// Somebody waits for the cluster map.
    readers_due: bool,
    /// The version of the map that sessions with readers were last looked at for.
    readers_told: u64,
    /// Sessions to keep, of places of all hosts, on the host with the socket.
    dials: Vec<Dial>,
    /// Rings to keep, of places of this host.
    wires: Vec<Wire>,
    /// Sessions wanted of which the host with the socket is to be told.
    untold: BTreeMap<Place, Vec<Far>>,
    /// News of places and of the map up to this number was followed.
    news: u64,
    /// A place has come since.
    rewire: bool,
    coming: Vec<Coming>,
    leaving: Vec<Leaving>,
    /// Makes places ready that come again.
    maker: Option<Maker>,
    /// Messages that did not parse or came at a wrong time.
    pub(crate) bad_messages: u64,
    passes: u64,
    /// Connections whose other end another thread of the process polls.
    outside: Vec<ConnId>,
    /// Connections that the controller has just sent to.
    shown: Vec<ConnId>,
    /// Connections of this pass to be ended after a message that did not parse.
    broken: Vec<ConnId>,
    /// Who asked for the state of this process, and the number of the request.
    status_wanted: Vec<(Asker, u64)>,
    /// A device here has failed: nothing more is said to anybody.
    failed: bool,
    /// The state of the process as far as the other hosts have told it.
    gathering: Option<Gathering>,
    gatherings: u64,
}

impl Host {
    pub(crate) fn new(own: Own) -> Self {
        Self {
            tenants: Vec::new(),
            conns: Vec::with_capacity(256),
            free: Vec::new(),
            out: outbox(CONNECTIONS_MAX),
            own,
            udp: None,
            watch: None,
            routes: Vec::new(),
            inbox: Inbox::default(),
            readers_due: false,
            readers_told: 0,
            dials: Vec::new(),
            wires: Vec::new(),
            untold: BTreeMap::new(),
            news: 0,
            rewire: true,
            coming: Vec::new(),
            leaving: Vec::new(),
            maker: None,
            bad_messages: 0,
            // The first pass looks at everything.
            passes: RARELY - 1,
            outside: Vec::with_capacity(256),
            shown: Vec::with_capacity(256),
            broken: Vec::new(),
            status_wanted: Vec::new(),
            failed: false,
            gathering: None,
            gatherings: 0,
        }
    }

    fn tenant_at(&self, place: Place) -> Option<usize> {
        self.tenants.iter().position(|tenant| tenant.place == place)
    }

    /// Whether a device of the process has failed: the host is not to be polled again.
    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.failed || self.own.shared.failure().is_some()
    }

    /// One pass. Returns how much was done: 0 when there was nothing to do.
    pub(crate) fn poll(&mut self, now: Time) -> usize {
        self.passes += 1;
        let mut work = 0;
        if !self.status_wanted.is_empty() {
            self.ask_status(now);
        }
        if self.passes.is_multiple_of(RARELY) {
            work += self.poll_rarely(now);
        }
        if self.udp.is_some() {
            work += self.poll_udp(now);
        }
        if !self.coming.is_empty() {
            work += self.poll_coming(now);
        }
        // Room in a session comes back without a mark.
        if self.udp.is_some() || self.passes.is_multiple_of(SWEEP) {
            self.sweep();
        } else {
            self.look_around();
        }
        for _ in 0..ROUNDS_PER_PASS {
            let mut any = false;
            for at in 0..self.tenants.len() {
                if self.tenants[at].swept || !self.tenants[at].fresh.is_empty() {
                    work += self.poll_tenant(at, now);
                    if self.failed {
                        return work;
                    }
                    any = true;
                }
            }
            if !any {
                break;
            }
        }
        if let Some(udp) = &mut self.udp {
            udp.transmit(now);
        }
        work
    }

    /// Has every place looked at, with all its connections.
    fn sweep(&mut self) {
        self.tenants
            .iter_mut()
            .for_each(|tenant| tenant.swept = true);
    }

    /// Finds the places that something came for from outside this thread: by a ring or by a device.
    fn look_around(&mut self) {
        for id in &self.outside {
            if let Some(conn) = &mut self.conns[id.index()]
                && let Link::Shm(link) = &mut conn.link
                && !conn.fresh
                && link.peek().is_some()
            {
                conn.fresh = true;
                self.tenants[conn.tenant].fresh.push(*id);
            }
        }
        for tenant in &mut self.tenants {
            tenant.swept |= core::mem::take(&mut tenant.more);
            if let Some(io) = &tenant.io {
                tenant.swept |= io.is_busy();
            }
        }
    }

    fn poll_tenant(&mut self, at: usize, now: Time) -> usize {
        let mut work = self.take_messages(at, now) + self.complete_io(at);
        if self.failed {
            return work;
        }
        if crate::start::is_due(&self.tenants[at]) {
            self.begin(at, now);
        }
        crate::start::register(&mut self.tenants[at], &mut self.out);
        self.tenants[at].machine.flush(now, &mut self.out);
        self.carry();
        let tenant = &mut self.tenants[at];
        if let (Some(io), Some(store)) = (&mut tenant.io, tenant.machine.store_mut()) {
            work += io.submit(store);
        }
        if let Machine::Directory(_) = &self.tenants[at].machine {
            work += self.poll_directory(at, now);
        }
        while let Some(id) = self.tenants[at].machine.take_close() {
            self.detach(now, id);
        }
        work
    }

    /// The life of a place begins, and what has waited for it is looked at.
    #[cold]
    fn begin(&mut self, at: usize, now: Time) {
        for index in 0..self.tenants[at].conns.len() {
            self.set_room(self.tenants[at].conns[index]);
        }
        crate::start::begin(&mut self.tenants[at], now, &mut self.out);
        self.tenants[at].swept = true;
    }

    fn complete_io(&mut self, at: usize) -> usize {
        let tenant = &mut self.tenants[at];
        match (&mut tenant.io, tenant.machine.store_mut()) {
            (Some(io), Some(store)) => {
                let count = io.complete(store);
                if count > 0
                    && let Some(failure) = io.failure(tenant.place, store)
                {
                    self.failed = true;
                    self.own.shared.fail(failure);
                }
                count
            }
            // A place that was refused has dropped its store.
            (Some(io), None) => io.reap(),
            _ => 0,
        }
    }

    /// Hands over what has come by rings, and looks at the room of connections: all of a place that is swept, else of
    /// those that something came by.
    fn take_messages(&mut self, at: usize, now: Time) -> usize {
        let Self {
            tenants,
            conns,
            out,
            bad_messages,
            udp,
            status_wanted,
            broken,
            own,
            ..
        } = self;
        let tenant = &mut tenants[at];
        let mut work = 0;
        let all = core::mem::take(&mut tenant.swept);
        let mut index = 0;
        loop {
            let from = if all { &tenant.conns } else { &tenant.fresh };
            let Some(id) = from.get(index).copied() else {
                break;
            };
            index += 1;
            let Some(conn) = &mut conns[id.index()] else {
                continue;
            };
            conn.fresh = false;
            let room = conn.link.room(udp.as_ref());
            out.set_room(id, room);
            let Link::Shm(link) = &mut conn.link else {
                continue;
            };
            if room < REPLY_BYTES_MAX || !tenant.listens(id) {
                continue;
            }
            let mut taken = false;
            for count in 1..=MESSAGES_PER_PASS {
                let Some(bytes) = link.peek() else { break };
                match Message::new_checked(bytes) {
                    Ok((Message::StatusRequest(request, _), _)) => {
                        ask(status_wanted, Asker::Conn(id), request.request);
                    }
                    Ok((message, _)) => {
                        crate::start::deliver(tenant, &own.shared, now, id, &message, out);
                    }
                    // What follows would come as if nothing were missing.
                    Err(_) => {
                        *bad_messages += 1;
                        broken.push(id);
                        break;
                    }
                }
                link.release();
                work += 1;
                taken = true;
                if count == MESSAGES_PER_PASS || out.room(id) == 0 || !tenant.listens(id) {
                    tenant.more = true;
                    break;
                }
            }
            if taken {
                link.give_back();
            }
        }
        tenant.fresh.clear();
        while let Some(id) = self.broken.pop() {
            self.detach(now, id);
        }
        work
    }

    /// Carries the outbox to the links.
    fn carry(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let Self {
            tenants,
            conns,
            out,
            udp,
            ..
        } = self;
        for envelope in out.envelopes() {
            let Some(conn) = conns
                .get_mut(envelope.conn.index())
                .and_then(Option::as_mut)
            else {
                continue;
            };
            let machine = &tenants[conn.tenant].machine;
            let body = envelope
                .body
                .as_ref()
                .map_or(&[][..], |run| machine.body(run));
            // Room was reserved when the machine sent; a link that shrank meanwhile is gone.
            let _ = conn.link.send(udp.as_mut(), out.head(envelope), body);
        }
        for at in 0..out.envelopes().len() {
            let id = out.envelopes()[at].conn;
            if let Some(conn) = show(conns, tenants, id) {
                // What a message takes in a link is more than what the outbox counted.
                out.set_room(id, conn.link.room(udp.as_ref()));
            }
        }
        out.clear();
    }

    fn poll_directory(&mut self, at: usize, now: Time) -> usize {
        let Self {
            tenants,
            conns,
            udp,
            own,
            ..
        } = self;
        let Machine::Directory(role) = &mut tenants[at].machine else {
            return 0;
        };
        while let Some(refused) = role.machine.take_refused() {
            own.shared.note("refused", &refused.sentence);
        }
        if now >= role.machine.next_deadline() {
            role.machine.on_deadline(now);
        }
        crate::start::persist(role);
        let mut work = 0;
        let mut message = core::mem::take(&mut role.message);
        loop {
            message.clear();
            let room = |id: ConnId| {
                let conn = conns.get_mut(id.index()).and_then(Option::as_mut);
                conn.map_or(0, |conn| conn.link.room(udp.as_ref()))
            };
            let Some(id) = role.machine.poll(now, room, &mut message) else {
                break;
            };
            if let Some(conn) = conns.get_mut(id.index()).and_then(Option::as_mut) {
                let _ = conn.link.send(udp.as_mut(), &message, &[]);
                self.shown.push(id);
            }
            work += 1;
        }
        role.message = message;
        for id in self.shown.drain(..) {
            let _ = show(&mut self.conns, &mut self.tenants, id);
        }
        work
    }
}
