//! A host: the places that share one reactor, their connections, and the loop that moves messages between them.
//!
//! A pass polls places: each takes its messages (only while the connection has room for the largest answer), flushes, and
//! its outbox is carried. A message between two places of the host marks its connection as fresh, and places with fresh
//! connections are polled until there are none, so that one pass carries an append from its primary to the root and the
//! acknowledgement back. Whatever has no such mark (room that came back, time that passed, the controller's own work) is
//! found by a sweep over all places and connections every few passes; in between, an empty pass looks at clients'
//! connections and devices only. Between two sweeps room is known too small, never too large.

mod datagrams;

use std::sync::mpsc::SyncSender;

use ionian_core::Outbox;
use ionian_core::outbox::REPLY_BYTES_MAX;
use ionian_runtime::MailboxReceiver;
use ionian_types::{ConnId, Time};
use ionian_wire::frame::{Message, StatusAnswer};

use crate::device::StoreIo;
use crate::dial::Dial;
use crate::link::ShmLink;
use crate::role::{Machine, Place, outbox};
use crate::status::{PlaceState, PlaceStatus, Status, StoreStatus};
use crate::udp::UdpPort;
use datagrams::Inbox;

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
    pub(crate) machine: Machine,
    pub(crate) conns: Vec<ConnId>,
    /// The connection to the controller, for places that register.
    pub(crate) controller: Option<ConnId>,
    /// The device of its store, for flushed classes.
    pub(crate) io: Option<StoreIo>,
    /// All its connections are to be looked at, and its room in each.
    swept: bool,
    /// Connections that something came by, each once.
    fresh: Vec<ConnId>,
    /// It left messages in a ring, for the next pass.
    more: bool,
}

/// A connection of one tenant.
#[derive(Debug)]
struct Conn {
    tenant: usize,
    link: Link,
    /// The other end, if it is of this host.
    peer: Option<ConnId>,
    /// It is among the fresh ones of its place.
    fresh: bool,
}

/// What carries a connection.
#[derive(Debug)]
enum Link {
    Shm(Box<ShmLink>),
    /// A session of the host's socket.
    Udp(u32),
}

impl Link {
    #[inline]
    fn room(&mut self, udp: Option<&UdpPort>) -> usize {
        match self {
            Self::Shm(link) => link.room(),
            Self::Udp(session) => udp.map_or(0, |udp| udp.room(*session)),
        }
    }

    #[inline]
    fn send(&mut self, udp: Option<&mut UdpPort>, head: &[u8], body: &[u8]) -> bool {
        match self {
            Self::Shm(link) => link.send(head, body),
            Self::Udp(session) => udp.is_some_and(|udp| udp.send(*session, head, body)),
        }
    }
}

/// What is asked of a host from outside its reactor.
#[derive(Debug)]
pub(crate) enum Control {
    /// A connection to a place opened.
    Attach {
        /// The place.
        place: Place,
        /// Its end.
        link: Box<ShmLink>,
    },
    /// Somebody wants to know the state of every place.
    Status {
        /// Where to.
        answer: SyncSender<Status>,
    },
    /// The process is about to end: take no more appends.
    Drain,
}

/// The host.
#[derive(Debug)]
pub(crate) struct Host {
    tenants: Vec<Tenant>,
    conns: Vec<Option<Conn>>,
    free: Vec<ConnId>,
    out: Outbox,
    mailbox: MailboxReceiver<Control>,
    udp: Option<UdpPort>,
    /// Connection of each session of the socket.
    udp_conns: Vec<Option<ConnId>>,
    inbox: Inbox,
    dials: Vec<Dial>,
    /// Messages that did not parse or came at a wrong time.
    pub(crate) bad_messages: u64,
    passes: u64,
    /// Connections whose other end another thread of the process polls.
    outside: Vec<ConnId>,
    /// Connections that the controller has just sent to.
    shown: Vec<ConnId>,
    /// Connections of this pass to be ended after a message that did not parse.
    broken: Vec<ConnId>,
    /// Who asked for the state of this process: connection, request.
    status_wanted: Vec<(ConnId, u64)>,
}

impl Host {
    pub(crate) fn new(mailbox: MailboxReceiver<Control>) -> Self {
        Self {
            tenants: Vec::new(),
            conns: Vec::with_capacity(256),
            free: Vec::new(),
            out: outbox(CONNECTIONS_MAX),
            mailbox,
            udp: None,
            udp_conns: Vec::new(),
            inbox: Inbox::default(),
            dials: Vec::new(),
            bad_messages: 0,
            passes: 0,
            outside: Vec::with_capacity(256),
            shown: Vec::with_capacity(256),
            broken: Vec::new(),
            status_wanted: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, place: Place, machine: Machine, io: Option<StoreIo>) {
        self.tenants.push(Tenant {
            place,
            machine,
            conns: Vec::with_capacity(64),
            controller: None,
            io,
            swept: true,
            fresh: Vec::with_capacity(64),
            more: false,
        });
        self.tenants.sort_by_key(|tenant| rank(tenant.place));
    }

    fn tenant_at(&self, place: Place) -> Option<usize> {
        self.tenants.iter().position(|tenant| tenant.place == place)
    }

    /// Connects another thread's link to a place of this host.
    pub(crate) fn attach(&mut self, place: Place, link: ShmLink) {
        if let Some(tenant) = self.tenant_at(place) {
            let id = self.open(tenant, Link::Shm(Box::new(link)), None, false);
            self.outside.extend(id);
        }
    }

    /// Connects two places of this host, `from` with its end of a pair of rings. `to_controller` marks the connection as
    /// that place's own to the controller.
    pub(crate) fn attach_pair(
        &mut self,
        from: (Place, ShmLink),
        to: (Place, ShmLink),
        to_controller: bool,
    ) {
        let (Some(near), Some(far)) = (self.tenant_at(from.0), self.tenant_at(to.0)) else {
            return;
        };
        let far = self.open(far, Link::Shm(Box::new(to.1)), None, false);
        let near = self.open(near, Link::Shm(Box::new(from.1)), far, to_controller);
        if let Some(conn) = far.and_then(|far| self.conns[far.index()].as_mut()) {
            conn.peer = near;
        }
        // What the ends said when they were opened had nobody to mark.
        self.sweep();
    }

    fn open(
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

    fn set_room(&mut self, id: ConnId) {
        if let Some(conn) = &mut self.conns[id.index()] {
            self.out.set_room(id, conn.link.room(self.udp.as_ref()));
        }
    }

    /// One pass. Returns how much was done: 0 when there was nothing to do.
    pub(crate) fn poll(&mut self, now: Time) -> usize {
        self.passes += 1;
        let mut work = 0;
        if !self.status_wanted.is_empty() {
            self.answer_status(now);
        }
        if self.passes.is_multiple_of(RARELY) {
            work += self.poll_rarely(now);
        }
        if self.udp.is_some() {
            work += self.poll_udp(now);
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

    /// What need not be looked at in every pass: the mailbox, and links whose other end is gone.
    fn poll_rarely(&mut self, now: Time) -> usize {
        let mut work = 0;
        while let Some(control) = self.mailbox.receive() {
            work += 1;
            match control {
                Control::Attach { place, link } => self.attach(place, *link),
                // Whoever asked may have given up.
                Control::Status { answer } => drop(answer.try_send(self.status(now))),
                Control::Drain => {
                    for tenant in &mut self.tenants {
                        if let Machine::Replica(machine) = &mut tenant.machine {
                            machine.drain();
                        }
                    }
                }
            }
        }
        for at in 0..self.conns.len() {
            let closed = match self.conns[at].as_mut().map(|conn| &mut conn.link) {
                Some(Link::Shm(link)) => link.is_closed(),
                Some(Link::Udp(_)) | None => false,
            };
            if closed {
                self.detach(now, ConnId::new(at as u32));
                work += 1;
            }
        }
        work
    }

    fn detach(&mut self, now: Time, id: ConnId) {
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
        for dial in self.dials.iter_mut().filter(|dial| dial.conn == Some(id)) {
            dial.conn = None;
        }
        if let Link::Udp(session) = conn.link {
            if let Some(udp) = &mut self.udp {
                udp.close(now, session);
            }
            self.bind(session, None);
        }
        self.outside.retain(|other| *other != id);
        self.status_wanted.retain(|(asker, _)| *asker != id);
        if let Some(other) = conn.peer.and_then(|peer| self.conns[peer.index()].as_mut()) {
            other.peer = None;
        }
        self.tenants[conn.tenant].fresh.retain(|other| *other != id);
        self.free.push(id);
    }

    fn poll_tenant(&mut self, at: usize, now: Time) -> usize {
        let mut work = self.take_messages(at, now) + self.complete_io(at);
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

    fn complete_io(&mut self, at: usize) -> usize {
        let tenant = &mut self.tenants[at];
        match (&mut tenant.io, tenant.machine.store_mut()) {
            (Some(io), Some(store)) => io.complete(store),
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
            // What others say to a machine that has not started waits in the link.
            let early =
                matches!(tenant.machine, Machine::Waiting(_)) && tenant.controller != Some(id);
            if room < REPLY_BYTES_MAX || early {
                continue;
            }
            for count in 1..=MESSAGES_PER_PASS {
                let Some(bytes) = link.peek() else { break };
                match Message::new_checked(bytes) {
                    Ok((Message::StatusRequest(request, _), _)) => {
                        status_wanted.push((id, request.request))
                    }
                    Ok((message, _)) => crate::start::deliver(tenant, now, id, &message, out),
                    // What follows would come as if nothing were missing.
                    Err(_) => {
                        *bad_messages += 1;
                        // Rings between places of this host are never opened again.
                        debug_assert!(conn.peer.is_none(), "a place sent what does not parse");
                        if conn.peer.is_none() {
                            broken.push(id);
                            break;
                        }
                    }
                }
                link.release();
                work += 1;
                if count == MESSAGES_PER_PASS || out.room(id) == 0 {
                    tenant.more = true;
                    break;
                }
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
            ..
        } = self;
        let Machine::Directory(role) = &mut tenants[at].machine else {
            return 0;
        };
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

    /// When the host must run again even if nothing comes.
    pub(crate) fn next_deadline(&self) -> Time {
        let machines = self
            .tenants
            .iter()
            .map(|tenant| tenant.machine.next_deadline());
        let sessions = self.udp.iter().map(UdpPort::next_deadline);
        let dials = self.dials.iter().map(Dial::due_at);
        machines
            .chain(sessions)
            .chain(dials)
            .min()
            .unwrap_or(Time::FAR)
    }

    /// Announces a sleep on every link; `false` (and nothing announced) when there is something to do.
    pub(crate) fn arm(&mut self) -> bool {
        for at in 0..self.conns.len() {
            let armed = match self.conns[at].as_mut().map(|conn| &mut conn.link) {
                Some(Link::Shm(link)) => link.arm(),
                Some(Link::Udp(_)) | None => true,
            };
            if !armed {
                self.disarm_first(at);
                return false;
            }
        }
        // The look after this is a sweep.
        self.passes |= SWEEP - 1;
        let idle = self
            .tenants
            .iter_mut()
            .filter_map(|tenant| tenant.io.as_mut())
            .all(StoreIo::arm);
        if !idle || !self.mailbox.is_empty() || self.udp.as_mut().is_some_and(|udp| !udp.arm()) {
            self.disarm();
            return false;
        }
        true
    }

    /// Takes the announcement back.
    pub(crate) fn disarm(&mut self) {
        self.disarm_first(self.conns.len());
        // Whatever woke the host may be in the mailbox: look there in the next pass.
        self.passes |= RARELY - 1;
    }

    /// Names the descriptors that become readable when there is work.
    pub(crate) fn wake_fds(&self, add: &mut dyn FnMut(std::os::fd::RawFd)) {
        let devices = self
            .tenants
            .iter()
            .filter_map(|tenant| tenant.io.as_ref()?.wake_fd());
        for fd in devices.chain(self.udp.as_ref().and_then(UdpPort::wake_fd)) {
            add(fd);
        }
    }

    /// Tells those who asked over the wire. Off the hot path: it allocates.
    #[cold]
    fn answer_status(&mut self, now: Time) {
        let text = self.status(now).to_message();
        for (id, request) in core::mem::take(&mut self.status_wanted) {
            self.set_room(id);
            // Without room the answer is lost; whoever asked asks again.
            let _ = self
                .out
                .send(id, &StatusAnswer { request }, text.as_bytes());
            self.carry();
        }
    }

    fn status(&self, now: Time) -> Status {
        let state = |machine: &Machine| match machine {
            Machine::Waiting(_) => PlaceState::Starting,
            Machine::Refused(reason) => PlaceState::Refused(reason.clone()),
            Machine::Replica(machine) => PlaceState::Replica(Box::new(machine.status(now))),
            Machine::Leaf(machine) => PlaceState::Leaf {
                shards: machine.status(now),
                counters: *machine.counters(),
            },
            Machine::Root(machine) => PlaceState::Root(Box::new(machine.status())),
            Machine::Directory(role) => PlaceState::Controller(role.machine.logs().collect()),
        };
        let places = self.tenants.iter();
        Status {
            at: now,
            places: places
                .map(|tenant| PlaceStatus {
                    place: tenant.place,
                    state: state(&tenant.machine),
                    store: tenant.machine.store().map(ionian_store::Store::stats),
                    store_status: tenant.machine.store().map(StoreStatus::of),
                })
                .collect(),
            port: self.udp.as_ref().map(UdpPort::stats),
            bad_messages: self.bad_messages,
        }
    }

    fn disarm_first(&mut self, count: usize) {
        for conn in self.conns[..count].iter_mut().flatten() {
            if let Link::Shm(link) = &mut conn.link {
                link.disarm();
            }
        }
    }
}

/// Shows what was sent on a connection to its other end; a place of this host has it among the fresh ones from then on.
#[inline]
fn show<'a>(
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

/// The order in which work flows through the places.
const fn rank(place: Place) -> u8 {
    match place {
        Place::Replica(..) => 0,
        Place::Leaf(_) => 1,
        Place::Root(_) => 2,
        Place::Directory => 3,
    }
}
