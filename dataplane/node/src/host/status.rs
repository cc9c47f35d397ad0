//! What a host says of its places, and the host that was asked over the wire of the whole process.
//!
//! A question by a session is about the process. The host that gets it asks the others by their mailboxes, goes on with its
//! work, and answers when the last part has come.

use ionian_types::{ConnId, Nanos, Time};
use ionian_wire::frame::{StatusAnswer, encode};

use super::conns::show;
use super::{Control, Host};
use crate::role::Machine;
use crate::status::{EdgeStatus, PlaceState, PlaceStatus, Status, StoreStatus};
use crate::udp::UdpPort;

/// After this long without all answers a question is given up; whoever asked asks again.
const PATIENCE: Nanos = Nanos::from_ms(1_000);

/// Who asked over the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    /// A connection of a place of this host.
    Conn(ConnId),
    /// A session with a place of another host.
    Session(u32),
}

/// Questions that wait for an answer.
const WANTED_MAX: usize = 64;

/// Notes who asked for the state of the process; one question too many is dropped, and asked again.
pub(super) fn ask(wanted: &mut Vec<(Asker, u64)>, asker: Asker, request: u64) {
    if wanted.len() < WANTED_MAX {
        wanted.push((asker, request));
    }
}

/// A question to the other hosts.
#[derive(Debug)]
pub(super) struct Gathering {
    number: u64,
    begun: Time,
    parts: Vec<Status>,
    askers: Vec<(Asker, u64)>,
}

impl Host {
    /// Asks the other hosts for their state on behalf of those who asked over the wire. Off the hot path: it allocates.
    #[cold]
    pub(super) fn ask_status(&mut self, now: Time) {
        let under_way = self.gathering.as_ref();
        if under_way.is_some_and(|gathering| now < gathering.begun.after(PATIENCE)) {
            return;
        }
        self.gatherings += 1;
        let (to, number) = (self.own.at, self.gatherings);
        self.gathering = Some(Gathering {
            number,
            begun: now,
            parts: Vec::with_capacity(self.own.shared.hosts()),
            askers: core::mem::take(&mut self.status_wanted),
        });
        for host in (0..self.own.shared.hosts()).filter(|host| *host != to) {
            // A host that takes nothing now does not answer: then this question is given up.
            self.own
                .shared
                .send(host, Control::StatusPart { to, number });
        }
        let part = self.status(now);
        self.gather(now, number, part);
    }

    /// Takes a host's part, and answers when it was the last.
    pub(super) fn gather(&mut self, now: Time, number: u64, part: Status) {
        let hosts = self.own.shared.hosts();
        let Some(gathering) = &mut self.gathering else {
            return;
        };
        if gathering.number != number {
            return;
        }
        gathering.parts.push(part);
        if gathering.parts.len() < hosts {
            return;
        }
        let Some(gathering) = self.gathering.take() else {
            return;
        };
        let Some(mut status) = Status::merged(gathering.parts) else {
            return;
        };
        status.at = now;
        let text = status.to_message();
        let mut message = vec![0; text.len() + 64];
        for (asker, request) in gathering.askers {
            let answer = StatusAnswer { request };
            if let Ok(len) = encode(&mut message, &answer, &[text.as_bytes()]) {
                // Without room the answer is lost; whoever asked asks again.
                self.tell(asker, &message[..len]);
            }
        }
    }

    fn tell(&mut self, asker: Asker, message: &[u8]) {
        match asker {
            Asker::Session(session) => {
                if let Some(udp) = &mut self.udp {
                    udp.send(session, message, &[]);
                }
            }
            Asker::Conn(id) => {
                if let Some(conn) = &mut self.conns[id.index()] {
                    conn.link.send(self.udp.as_mut(), message, &[]);
                    show(&mut self.conns, &mut self.tenants, id);
                }
            }
        }
    }

    /// Whoever asked is gone, and another may get its number.
    pub(super) fn forget_asker(&mut self, gone: Asker) {
        self.status_wanted.retain(|(asker, _)| *asker != gone);
        if let Some(gathering) = &mut self.gathering {
            gathering.askers.retain(|(asker, _)| *asker != gone);
        }
    }

    pub(super) fn status(&self, now: Time) -> Status {
        let state = |machine: &Machine| match machine {
            Machine::Waiting(_) => PlaceState::Starting,
            Machine::Refused(reason) => PlaceState::Refused(reason.clone()),
            Machine::Replica(machine) => PlaceState::Replica(Box::new(machine.status(now))),
            Machine::Aggregator(machine) => PlaceState::Aggregator {
                edge: edge_status(
                    machine.is_running(),
                    machine.rounds_in_flight(),
                    machine.last_cut_at(),
                ),
                children: machine.children().collect(),
                counters: *machine.counters(),
            },
            Machine::Leaf(machine) => PlaceState::Leaf {
                edge: edge_status(
                    machine.is_running(),
                    machine.rounds_in_flight(),
                    machine.last_cut_at(),
                ),
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
            connections: self.conns.iter().flatten().count() as u64,
        }
    }
}

/// The edge to what is above, as leaves and aggregators alike say it.
const fn edge_status(
    running: bool,
    rounds_in_flight: u64,
    last_cut_at: Option<Time>,
) -> EdgeStatus {
    EdgeStatus {
        running,
        rounds_in_flight,
        last_cut_at,
    }
}
