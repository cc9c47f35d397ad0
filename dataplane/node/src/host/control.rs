//! What a host is asked from outside its reactor, by its process and by the other hosts, and who it is among them.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use ionian_runtime::MailboxReceiver;
use ionian_types::{ConnId, Time};
use ionian_wire::frame::Probe;

use super::conns::Link;
use super::{Arrived, Host, Newcomer, Remains};
use crate::dial::Far;
use crate::link::ShmLink;
use crate::role::{Machine, Place};
use crate::server::{Shared, StartError};
use crate::status::Status;
use ionian_core::guard::KeyChange;

/// What is asked of a host from outside its reactor.
#[derive(Debug)]
pub(crate) enum Control {
    /// A connection to a place opened.
    Attach {
        /// The place.
        place: Place,
        /// Its end.
        link: Box<ShmLink>,
        /// It is the place's own to the controller.
        to_controller: bool,
    },
    /// A place comes.
    Add {
        /// The place.
        newcomer: Box<Newcomer>,
        /// Who is to know.
        answer: SyncSender<Result<Arrived, StartError>>,
    },
    /// A place leaves.
    Remove {
        /// The place.
        place: Place,
        /// Who gets what is left of it.
        answer: SyncSender<Option<Box<Remains>>>,
    },
    /// The sessions that a place of another host wants are these.
    Dials {
        /// The place.
        from: Place,
        /// All of them.
        wanted: Vec<Far>,
    },
    /// Somebody wants to know the state of every place of the host.
    Status {
        /// Where to.
        answer: SyncSender<Status>,
    },
    /// Another host wants to know it.
    StatusPart {
        /// Which host.
        to: usize,
        /// The number of its question.
        number: u64,
    },
    /// Another host's answer.
    StatusOf {
        /// The number of the question.
        number: u64,
        /// Its part.
        part: Box<Status>,
    },
    /// The controllers ask about a process.
    Probe(Probe),
    /// The controllers say something of keys and grants.
    Keys(KeyChange),
    /// The process is about to end: take no more appends.
    Drain,
}

/// Who a host is among the hosts of its process.
#[derive(Debug)]
pub(crate) struct Own {
    /// Its number.
    pub(crate) at: usize,
    /// What it is asked.
    pub(crate) inbox: MailboxReceiver<Control>,
    /// Who the others are.
    pub(crate) shared: Arc<Shared>,
}

impl Host {
    /// What need not be looked at in every pass: the mailbox, what file systems have left, and links whose other end is gone.
    pub(super) fn poll_rarely(&mut self, now: Time) -> usize {
        let mut work = 0;
        while let Some(control) = self.own.inbox.receive() {
            work += 1;
            match control {
                Control::Attach {
                    place,
                    link,
                    to_controller,
                } => {
                    // A session that this one replaces was closed before: its end is to come first.
                    work += self.end_closed(now);
                    let _ = self.attach(now, place, *link, to_controller);
                }
                Control::Add { newcomer, answer } => self.expect(*newcomer, answer),
                Control::Remove { place, answer } => self.dismiss(now, place, answer),
                Control::Dials { from, wanted } => self.keep_dialled(now, from, &wanted),
                // Whoever asked may have given up.
                Control::Status { answer } => drop(answer.try_send(self.status(now))),
                Control::StatusPart { to, number } => {
                    let part = Box::new(self.status(now));
                    // A host that takes nothing now gives up and asks again.
                    self.own.shared.send(to, Control::StatusOf { number, part });
                }
                Control::StatusOf { number, part } => self.gather(now, number, *part),
                Control::Probe(probe) => self.probe(now, probe),
                Control::Keys(change) => {
                    if let Some(udp) = &mut self.udp {
                        udp.change_keys(now, &change);
                    }
                }
                Control::Drain => {
                    for tenant in &mut self.tenants {
                        if let Machine::Replica(machine) = &mut tenant.machine {
                            machine.drain();
                        }
                    }
                }
            }
        }
        for tenant in &mut self.tenants {
            if let (Some(io), Some(store)) = (&mut tenant.io, tenant.machine.store_mut()) {
                io.tell_space(now, store);
            }
        }
        if !self.leaving.is_empty() {
            self.poll_leaving(now);
        }
        work + self.poll_ended(now)
            + self.end_closed(now)
            + self.end_relays(now)
            + self.poll_wires(now)
    }

    /// Ends the connections whose other end is gone.
    fn end_closed(&mut self, now: Time) -> usize {
        let mut work = 0;
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
}
