//! Places that come to a host and leave it while it runs.
//!
//! A place comes with its files open. What they hold is read here, a few operations a pass beside the work of the other
//! places: the device's queue belongs to this thread, and a recovery is long, but no piece of it is. When its store is ready
//! the place is a tenant like any other: it connects and registers.
//!
//! A place leaves at once: its connections end, and its machine and store are set aside until the device has finished what it
//! was given. Then they go to whoever asked, to be dropped on a thread that nobody waits for.

use std::sync::mpsc::SyncSender;

use ionian_types::{Inc, Time};

use super::{Ended, Host, Tenant};
use crate::device::{Opening, StoreIo};
use crate::role::{Machine, Place, rank};
use crate::server::{PlaceSpec, StartError};

/// A place on its way to a host.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) spec: Box<PlaceSpec>,
    pub(crate) machine: Machine,
    /// Its store, while its files are being read.
    pub(crate) opening: Option<Box<Opening>>,
}

/// What is to be said of a place that has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// The device of its store, and why it is not the fastest, if it is another; none where there is no store on a device.
    pub device: Option<String>,
    /// Whether an earlier life left its state there.
    pub has_data: bool,
    /// The incarnation of that life.
    pub last_inc: Inc,
}

/// A place that is coming, and who waits for it; nobody where it comes again.
#[derive(Debug)]
pub(super) struct Coming {
    newcomer: Newcomer,
    answer: Option<SyncSender<Result<Arrived, StartError>>>,
}

/// What is left of a place that has gone: nobody polls it any more.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(super) machine: Machine,
    pub(super) io: Option<StoreIo>,
}

/// A place that is leaving.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) remains: Remains,
    pub(super) then: Then,
}

/// What becomes of a place that has left.
#[derive(Debug)]
pub(super) enum Then {
    /// What is left of it goes to whoever waits for it.
    Tell(SyncSender<Option<Box<Remains>>>),
    /// It comes again, for another life.
    Again(Box<PlaceSpec>),
}

impl Newcomer {
    /// Reads what the files of its store hold, until that is done.
    ///
    /// # Errors
    /// [`StartError::Store`]; effect none, but for files made.
    pub(crate) fn finish(mut self) -> Result<Self, StartError> {
        if let Some(opening) = self.opening.take() {
            self.opening = Some(Box::new(opening.finish()?));
        }
        Ok(self)
    }

    fn is_ready(&self) -> bool {
        self.opening
            .as_ref()
            .is_none_or(|opening| opening.is_ready())
    }
}

impl Host {
    /// Takes a place whose store, if it has one, is ready.
    pub(crate) fn admit(&mut self, now: Time, newcomer: Newcomer) -> Arrived {
        let Newcomer {
            spec,
            mut machine,
            opening,
        } = newcomer;
        let mut arrived = Arrived {
            device: None,
            has_data: false,
            last_inc: Inc::ZERO,
        };
        let mut io = None;
        if let (Some(opening), Machine::Waiting(waiting)) = (opening, &mut machine) {
            let Opening {
                mut store,
                io: mut device,
                has_data,
                fallback,
                ..
            } = *opening;
            let note = fallback.map_or(String::new(), |reason| format!(" ({reason})"));
            arrived.device = Some(format!("{}{note}", device.backend()));
            (arrived.has_data, arrived.last_inc) = (has_data, store.inc());
            device.tell_space(now, &mut store);
            (waiting.has_data, waiting.last_inc) = (has_data, store.inc());
            waiting.store = Some(store);
            io = Some(device);
        }
        let place = spec.place;
        self.tenants.push(Tenant {
            place,
            spec,
            machine,
            conns: Vec::with_capacity(64),
            controller: None,
            io,
            watched: false,
            swept: true,
            fresh: Vec::with_capacity(64),
            more: false,
            dialled: Vec::new(),
            ended: None,
        });
        self.tenants.sort_by_key(|tenant| rank(tenant.place));
        self.renumber();
        let devices = self.tenants.iter_mut();
        devices
            .filter_map(|tenant| tenant.io.as_mut())
            .for_each(StoreIo::space_changed);
        // Others may connect to it from now on, and it connects to them.
        self.own.shared.moved_in(place, self.own.at);
        self.rewire = true;
        arrived
    }

    /// Connections name their tenants by number.
    fn renumber(&mut self) {
        for (at, tenant) in self.tenants.iter().enumerate() {
            for id in &tenant.conns {
                if let Some(conn) = &mut self.conns[id.index()] {
                    conn.tenant = at;
                }
            }
        }
    }

    /// A place is to come.
    pub(super) fn expect(
        &mut self,
        newcomer: Newcomer,
        answer: SyncSender<Result<Arrived, StartError>>,
    ) {
        let answer = Some(answer);
        self.coming.push(Coming { newcomer, answer });
    }

    /// A place is to come again.
    pub(super) fn expect_again(&mut self, newcomer: Newcomer) {
        let answer = None;
        self.coming.push(Coming { newcomer, answer });
    }

    /// Goes on with the stores of places that come. Returns how much was done.
    #[cold]
    pub(super) fn poll_coming(&mut self, now: Time) -> usize {
        let mut work = 0;
        for mut coming in core::mem::take(&mut self.coming) {
            let step = coming
                .newcomer
                .opening
                .as_mut()
                .map(|opening| opening.step());
            match step {
                Some(Err(error)) => {
                    work += 1;
                    match coming.answer {
                        // Whoever asked may have given up.
                        Some(answer) => drop(answer.try_send(Err(error))),
                        None => self.failed_again(now, coming.newcomer.spec, &error),
                    }
                }
                // It came in two ways.
                _ if self.tenant_at(coming.newcomer.spec.place).is_some() => work += 1,
                _ if coming.newcomer.is_ready() => {
                    work += 1;
                    let arrived = self.admit(now, coming.newcomer);
                    if let Some(answer) = coming.answer {
                        let _ = answer.try_send(Ok(arrived));
                    }
                }
                step => {
                    work += step.and_then(Result::ok).unwrap_or(0);
                    self.coming.push(coming);
                }
            }
        }
        work
    }

    /// A place leaves: its connections end, and nothing of it is polled any more. `None` is answered where it is not here.
    pub(super) fn dismiss(
        &mut self,
        now: Time,
        place: Place,
        answer: SyncSender<Option<Box<Remains>>>,
    ) {
        let Some(at) = self.tenant_at(place) else {
            let _ = answer.try_send(None);
            return;
        };
        let tenant = self.take_out(now, at);
        self.leaving.push(Leaving {
            remains: Remains {
                machine: tenant.ended.map_or(tenant.machine, Ended::into_machine),
                io: tenant.io,
            },
            then: Then::Tell(answer),
        });
    }

    /// Ends the connections of a place; nothing of it is polled any more.
    pub(super) fn take_out(&mut self, now: Time, at: usize) -> Tenant {
        let place = self.tenants[at].place;
        self.own.shared.moved_out(place);
        self.unwire(now, place);
        while let Some(id) = self.tenants[at].conns.last().copied() {
            self.detach(now, id);
        }
        let tenant = self.tenants.remove(at);
        self.renumber();
        tenant
    }

    /// Lets go of the places whose device has finished.
    #[cold]
    pub(super) fn poll_leaving(&mut self, now: Time) {
        for mut leaving in core::mem::take(&mut self.leaving) {
            let Remains { machine, io } = &mut leaving.remains;
            match (io.as_mut(), machine.store_mut()) {
                (Some(io), Some(store)) => io.complete(store),
                // A life that was refused has dropped its store; the device goes on with what it was given.
                (Some(io), None) => io.reap(),
                _ => 0,
            };
            if io.as_ref().is_none_or(StoreIo::is_idle) {
                match leaving.then {
                    // Whoever asked may have given up: then it is dropped here.
                    Then::Tell(answer) => {
                        let _ = answer.try_send(Some(Box::new(leaving.remains)));
                    }
                    Then::Again(spec) => {
                        // Its files are closed before they are opened again.
                        drop(leaving.remains);
                        self.make_again(now, spec);
                    }
                }
            } else {
                self.leaving.push(leaving);
            }
        }
    }
}
