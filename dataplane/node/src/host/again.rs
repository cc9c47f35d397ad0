//! Another life of a place in the same process: that of a member of a root group whose life the controller has ended.
//!
//! A cut log that too few members hold is given up, and with it what the others have of it (at D0, where a majority lost its
//! memory); a member may also be taken off its group and put back. The life that is told so ends with its connections and its
//! store. Once the controller's newest map has the place on this node and nobody in it, it is made ready anew, as at the start
//! of the process, and registers. While another life has the place the map says so, and this one stays away.

use std::sync::Arc;

use ionian_types::{Inc, Nanos, Time};
use ionian_wire::frame::DirectoryRequest;

use super::places::{Leaving, Then};
use super::{Host, Newcomer, Remains};
use crate::role::{Machine, Place};
use crate::server::{PlaceSpec, ServerOptions, Shared, StartError, make_ready};

/// How often the controller is asked for the map.
const ASK_EVERY: Nanos = Nanos::from_ms(500);

/// A life that has ended, while its place is still here.
#[derive(Debug)]
pub(crate) struct Ended {
    /// It has its store, which the device may still be at work for.
    machine: Machine,
    ask_at: Time,
    /// The map is as new as the last question.
    pub(crate) told: bool,
}

impl Ended {
    pub(crate) const fn new(now: Time, machine: Machine) -> Self {
        Self {
            machine,
            ask_at: now,
            told: false,
        }
    }

    /// When the controller is to be asked.
    pub(super) const fn ask_at(&self) -> Time {
        self.ask_at
    }

    pub(super) fn into_machine(self) -> Machine {
        self.machine
    }
}

/// Makes places ready that come again.
#[derive(Debug)]
pub(crate) struct Maker {
    pub(crate) options: Arc<ServerOptions>,
    /// The address that its places register.
    pub(crate) address: String,
}

impl Host {
    /// Gives the host what it needs to make a place ready again.
    pub(crate) fn may_make(&mut self, maker: Maker) {
        self.maker = Some(maker);
    }

    /// Looks after places whose life has ended. Returns how much was done.
    pub(super) fn poll_ended(&mut self, now: Time) -> usize {
        let mut work = 0;
        for at in 0..self.tenants.len() {
            let Some(ended) = &mut self.tenants[at].ended else {
                continue;
            };
            let told = ended.told;
            if told && is_free(&self.own.shared, self.tenants[at].place) {
                self.begin_again(now, at);
                return work + 1;
            }
            work += self.ask_for_map(now, at);
        }
        work
    }

    fn ask_for_map(&mut self, now: Time, at: usize) -> usize {
        let tenant = &mut self.tenants[at];
        let Some(ended) = tenant.ended.as_mut().filter(|ended| ended.ask_at <= now) else {
            return 0;
        };
        ended.ask_at = now.after(ASK_EVERY);
        ended.told = false;
        if let Some(conn) = tenant.controller {
            let known = self.own.shared.map_version();
            let request = DirectoryRequest { request: 1, known };
            self.set_room(conn);
            // Without room it is asked again.
            let _ = self.out.send(conn, &request, &[]);
            self.carry();
        }
        1
    }

    /// The place leaves, to come again.
    fn begin_again(&mut self, now: Time, at: usize) {
        let tenant = self.take_out(now, at);
        let machine = tenant.ended.map_or(tenant.machine, Ended::into_machine);
        let io = tenant.io;
        self.leaving.push(Leaving {
            remains: Remains { machine, io },
            then: Then::Again(tenant.spec),
        });
    }

    /// Makes a place ready that has left. Opening its files takes system calls; it is rare.
    #[cold]
    pub(super) fn make_again(&mut self, now: Time, spec: Box<PlaceSpec>) {
        let Some(maker) = &self.maker else { return };
        match make_ready(
            &maker.options,
            &self.own.shared,
            maker.address.clone(),
            &spec,
        ) {
            Ok(newcomer) => self.expect_again(newcomer),
            Err(error) => self.failed_again(now, spec, &error),
        }
    }

    /// A place cannot come again: that shows in its state.
    #[cold]
    pub(super) fn failed_again(&mut self, now: Time, spec: Box<PlaceSpec>, error: &StartError) {
        let reason = format!("its next life cannot begin: {error}");
        self.own.shared.note(&spec.place.to_string(), &reason);
        let machine = Machine::Refused(reason);
        self.admit(
            now,
            Newcomer {
                spec,
                machine,
                opening: None,
            },
        );
    }
}

/// Whether the cluster map has a member of a root group on this node, and nobody in its place.
fn is_free(shared: &Shared, place: Place) -> bool {
    let Place::Root(log, slot) = place else {
        return false;
    };
    let map = shared.map();
    let known = map.logs.iter().find(|known| known.log == log);
    let end = known.and_then(|known| known.roots.get(slot.index()));
    end.is_some_and(|end| end.node == shared.node && end.inc == Inc::ZERO)
}
