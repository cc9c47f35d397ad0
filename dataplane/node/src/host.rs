//! A host: the places that share one reactor, their connections, and the loop that moves messages between them.
//!
//! Each pass takes every place in turn: its messages first (each only while the connection has room for the largest
//! answer), then its flush, then its outbox is carried. Places are polled in the order in which work flows through them
//! (replicas, leaf, root), so that one pass carries an append from its primary to the root.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use ionian_core::Outbox;
use ionian_core::outbox::REPLY_BYTES_MAX;
use ionian_types::{ConnId, Time};
use ionian_wire::frame::Message;

use crate::link::ShmLink;
use crate::role::{Machine, Place, outbox};

/// Messages taken from one connection in one pass.
const MESSAGES_PER_PASS: usize = 64;
/// Connections of one host.
pub(crate) const CONNECTIONS_MAX: usize = 4096;

/// A place and its machine.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) place: Place,
    pub(crate) machine: Machine,
    pub(crate) conns: Vec<ConnId>,
    /// The connection to the controller, for places that register.
    pub(crate) controller: Option<ConnId>,
}

/// A connection of one tenant.
#[derive(Debug)]
struct Conn {
    tenant: usize,
    link: ShmLink,
}

/// What is asked of a host from outside its reactor.
#[derive(Debug)]
pub(crate) enum Control {
    /// A connection to a place opened; `to_controller` marks it as the place's own connection to the controller.
    Attach {
        place: Place,
        link: Box<ShmLink>,
        to_controller: bool,
    },
}

/// The host.
#[derive(Debug)]
pub(crate) struct Host {
    tenants: Vec<Tenant>,
    conns: Vec<Option<Conn>>,
    free: Vec<ConnId>,
    out: Outbox,
    mailbox: Arc<ArrayQueue<Control>>,
    /// Messages that did not parse or came at a wrong time.
    pub(crate) bad_messages: u64,
    passes: u64,
}

impl Host {
    pub(crate) fn new(mailbox: Arc<ArrayQueue<Control>>) -> Self {
        Self {
            tenants: Vec::new(),
            conns: Vec::with_capacity(256),
            free: Vec::new(),
            out: outbox(CONNECTIONS_MAX),
            mailbox,
            bad_messages: 0,
            passes: 0,
        }
    }

    pub(crate) fn add(&mut self, place: Place, machine: Machine) {
        self.tenants.push(Tenant {
            place,
            machine,
            conns: Vec::with_capacity(64),
            controller: None,
        });
        self.tenants.sort_by_key(|tenant| rank(tenant.place));
    }

    /// Connects a link to a place of this host.
    pub(crate) fn attach(&mut self, place: Place, link: ShmLink, to_controller: bool) {
        let Some(tenant) = self.tenants.iter().position(|tenant| tenant.place == place) else {
            return;
        };
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.conns.len() < CONNECTIONS_MAX => {
                self.conns.push(None);
                ConnId::new(self.conns.len() as u32 - 1)
            }
            None => return,
        };
        self.conns[id.index()] = Some(Conn { tenant, link });
        let owner = &mut self.tenants[tenant];
        owner.conns.push(id);
        if to_controller {
            owner.controller = Some(id);
            return;
        }
        self.set_room(id);
        self.tenants[tenant].machine.opened(id, &mut self.out);
        self.carry(tenant);
    }

    fn set_room(&mut self, id: ConnId) {
        if let Some(conn) = &mut self.conns[id.index()] {
            self.out.set_room(id, conn.link.room());
        }
    }

    /// One pass. Returns the number of messages moved.
    pub(crate) fn poll(&mut self, now: Time) -> usize {
        self.passes += 1;
        let mut work = 0;
        if self.passes % 64 == 0 {
            work += self.poll_rarely(now);
        }
        for tenant in 0..self.tenants.len() {
            work += self.poll_tenant(tenant, now);
        }
        for conn in self.conns.iter_mut().flatten() {
            conn.link.publish();
        }
        work
    }

    /// What need not be looked at in every pass: the mailbox, and links whose other end is gone.
    fn poll_rarely(&mut self, now: Time) -> usize {
        let mut work = 0;
        while let Some(control) = self.mailbox.pop() {
            work += 1;
            match control {
                Control::Attach {
                    place,
                    link,
                    to_controller,
                } => self.attach(place, *link, to_controller),
            }
        }
        for at in 0..self.conns.len() {
            if self.conns[at]
                .as_mut()
                .is_some_and(|conn| conn.link.is_closed())
            {
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
        }
        tenant.machine.closed(now, id);
        self.free.push(id);
    }

    fn poll_tenant(&mut self, at: usize, now: Time) -> usize {
        let mut work = 0;
        {
            let Self {
                tenants,
                conns,
                out,
                bad_messages,
                ..
            } = self;
            let tenant = &mut tenants[at];
            let mut index = 0;
            while index < tenant.conns.len() {
                let id = tenant.conns[index];
                index += 1;
                // What others say to a machine that has not started waits in the link.
                if matches!(tenant.machine, Machine::Waiting(_)) && tenant.controller != Some(id) {
                    continue;
                }
                let Some(conn) = &mut conns[id.index()] else {
                    continue;
                };
                let room = conn.link.room();
                out.set_room(id, room);
                if room < REPLY_BYTES_MAX {
                    continue;
                }
                for _ in 0..MESSAGES_PER_PASS {
                    let Some(bytes) = conn.link.peek() else { break };
                    match Message::new_checked(bytes) {
                        Ok((message, _)) => {
                            if let Machine::Waiting(_) = &tenant.machine {
                                crate::start::on_waiting(tenant, now, id, &message, out);
                            } else {
                                tenant.machine.handle(now, id, &message, out);
                            }
                        }
                        Err(_) => *bad_messages += 1,
                    }
                    conn.link.release();
                    work += 1;
                    if out.room(id) == 0 {
                        break;
                    }
                }
            }
        }
        crate::start::register(&mut self.tenants[at], &mut self.out);
        self.tenants[at].machine.flush(now, &mut self.out);
        self.carry(at);
        if let Machine::Directory(_) = &self.tenants[at].machine {
            work += self.poll_directory(at, now);
        }
        while let Some(id) = self.tenants[at].machine.take_close() {
            self.detach(now, id);
        }
        work
    }

    /// Carries the outbox of a tenant to its links.
    fn carry(&mut self, at: usize) {
        if self.out.is_empty() {
            return;
        }
        let Self {
            tenants,
            conns,
            out,
            ..
        } = self;
        let machine = &tenants[at].machine;
        for envelope in out.envelopes() {
            let Some(conn) = conns
                .get_mut(envelope.conn.index())
                .and_then(Option::as_mut)
            else {
                continue;
            };
            let body = envelope
                .body
                .as_ref()
                .map_or(&[][..], |run| machine.body(run));
            // Room was reserved when the machine sent; a link that shrank meanwhile is gone.
            let _ = conn.link.send(out.head(envelope), body);
        }
        out.clear();
    }

    fn poll_directory(&mut self, at: usize, now: Time) -> usize {
        let Self { tenants, conns, .. } = self;
        let Machine::Directory(role) = &mut tenants[at].machine else {
            return 0;
        };
        if now >= role.machine.next_deadline() {
            role.machine.on_deadline(now);
        }
        crate::start::persist(role);
        let mut work = 0;
        let mut message = core::mem::take(&mut role.message);
        while let Some(id) = {
            message.clear();
            role.machine.poll(
                now,
                |id| {
                    conns
                        .get_mut(id.index())
                        .and_then(Option::as_mut)
                        .map_or(0, |conn| conn.link.room())
                },
                &mut message,
            )
        } {
            if let Some(conn) = conns.get_mut(id.index()).and_then(Option::as_mut) {
                let _ = conn.link.send(&message, &[]);
            }
            work += 1;
        }
        role.message = message;
        work
    }

    /// When the host must run again even if nothing comes.
    pub(crate) fn next_deadline(&self) -> Time {
        self.tenants
            .iter()
            .map(|tenant| tenant.machine.next_deadline())
            .min()
            .unwrap_or(Time::FAR)
    }

    /// Announces a sleep on every link; `false` (and nothing announced) when there is something to do.
    pub(crate) fn arm(&mut self) -> bool {
        for at in 0..self.conns.len() {
            let armed = self.conns[at].as_mut().is_none_or(|conn| conn.link.arm());
            if !armed {
                self.disarm_first(at);
                return false;
            }
        }
        if !self.mailbox.is_empty() {
            self.disarm_first(self.conns.len());
            return false;
        }
        true
    }

    /// Takes the announcement back.
    pub(crate) fn disarm(&mut self) {
        self.disarm_first(self.conns.len());
        // Whatever woke the host may be in the mailbox.
        self.passes = self.passes / 64 * 64 + 63;
    }

    fn disarm_first(&mut self, count: usize) {
        for conn in self.conns[..count].iter_mut().flatten() {
            conn.link.disarm();
        }
    }

    pub(crate) fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }
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
