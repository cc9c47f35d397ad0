//! The controllers as a register: slow to answer, or without a majority for a while.
//!
//! What is not durable on a majority never becomes visible, so that a controller which cannot make anything durable says
//! nothing. A new leader goes on from the last durable state; what was not yet durable is gone, and nobody has seen it.

use ionian_types::{Knobs, Time};

use crate::plan::Fault;
use crate::process::{Machine, Place, ProcId};
use crate::world::{Event, World};

/// The time in which the controllers say nothing.
#[derive(Default, Debug)]
pub(crate) struct Silence {
    /// Until then.
    until: Time,
    /// Which fault it is, until it is counted: somebody waits for an answer.
    fault: Option<Fault>,
    /// The majority is lost, not only slow.
    minority: bool,
}

impl<K: Knobs> World<K> {
    /// The controllers answer late, or not for a while.
    pub(crate) fn silence(&mut self, fault: Fault) {
        if self.is_silent() {
            return;
        }
        if self.live(Place::Controller).is_none() {
            return self.again(fault);
        }
        let spans = [20_000_000, 100_000_000, 500_000_000, 2_000_000_000];
        let span = self.rng_fault.pick(&spans);
        self.silence = Silence {
            until: Time::from_ns(self.now.as_ns() + span),
            fault: Some(fault),
            minority: fault == Fault::MajorityLoss,
        };
        self.history.minority = self.silence.minority;
        self.after(span, Event::Speak);
    }

    /// Whether the controllers are silent now.
    pub(crate) fn is_silent(&self) -> bool {
        self.silence.until > self.now
    }

    /// When the controllers can next make something durable.
    pub(crate) fn silent_until(&self) -> Time {
        self.silence.until
    }

    /// A controller is asked for something.
    pub(crate) fn note_silence(&mut self, place: Place) {
        if place == Place::Controller
            && self.is_silent()
            && let Some(fault) = self.silence.fault.take()
        {
            self.faults[fault] += 1;
        }
    }

    /// The controllers speak again, whoever leads them by now. After a lost majority it may be another one that does, from
    /// the durable state.
    pub(crate) fn speak(&mut self) {
        if self.silence.until > self.now {
            return;
        }
        self.history.minority = false;
        let Some(proc) = self.live(Place::Controller) else {
            return;
        };
        if core::mem::take(&mut self.silence.minority) && self.rng_fault.permille(500) {
            self.kill(proc);
            self.after(100_000, Event::Start(Place::Controller));
        } else {
            self.flush_soon(proc);
        }
    }

    /// The silence is over.
    pub(crate) fn end_silence(&mut self) {
        if self.is_silent() {
            self.silence.until = self.now;
            self.history.minority = false;
            self.after(0, Event::Speak);
        }
    }

    /// A snapshot of the controller is on disk.
    pub(crate) fn persisted(&mut self, proc: ProcId, version: u64, bytes: Vec<u8>) {
        // What another one that has its place since then would not see is not durable, and never will be.
        if !self.procs[proc].alive || self.by_place.get(&Place::Controller) != Some(&proc) {
            return;
        }
        if self.is_silent() {
            let at = self.silent_until();
            return self.at(at, Event::Persisted(proc, version, bytes));
        }
        if let Machine::Directory(directory) = &mut self.procs[proc].machine {
            directory.persisted(version);
            self.controller_disk = Some(bytes);
        }
        self.flush_soon(proc);
    }
}
