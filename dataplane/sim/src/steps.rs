//! Crashes at steps of a process rather than at times: before a flush, between two messages of it, before an operation of
//! the device, between what the device has done and what becomes of it.

use ionian_types::Knobs;

use crate::atlas::Harm;
use crate::plan::Fault;
use crate::process::{Place, ProcId};
use crate::world::World;

/// The kinds of steps, by the fault that is a crash there.
pub const STEPS: [Fault; 6] = [
    Fault::CrashAtFlush,
    Fault::CrashMidSend,
    Fault::CrashAtOp,
    Fault::CrashAtDone,
    Fault::CrashAfterDone,
    Fault::CrashInCheckpoint,
];

impl Fault {
    /// Whether it is a crash at a step.
    #[must_use]
    pub fn is_step(self) -> bool {
        STEPS.contains(&self)
    }
}

impl<K: Knobs> World<K> {
    /// The process at a place dies at the `count`-th step of a kind from now on, counted from 1; if its shard cannot bear
    /// that at that moment, at the first one at which it can.
    pub fn crash_at(&mut self, place: Place, step: Fault, count: u64) {
        self.armed.insert((place, step), count.max(1));
    }

    pub(crate) fn arm_somewhere(&mut self, step: Fault) {
        let device = step.needs_device();
        let fits = |place: &Place| match place {
            Place::Controller | Place::Aggregator(_) | Place::Leaf(_) => !device,
            Place::Root(_) => self.plan.class.is_flushed() || self.plan.roots > 1,
            Place::Replica(..) => true,
            Place::Client(_) => false,
        };
        let places: Vec<Place> = self.places().into_iter().filter(fits).collect();
        let place = self.rng_fault.pick(&places);
        let most = self.rng_fault.pick(&[4, 40, 400]);
        let count = self.rng_fault.range(1, most);
        self.crash_at(place, step, count);
    }

    /// A process takes a step. Whether it died there.
    pub(crate) fn step(&mut self, proc: ProcId, step: Fault) -> bool {
        if self.armed.is_empty() || !self.procs[proc].alive {
            return false;
        }
        let place = self.procs[proc].place;
        let Some(left) = self.armed.get_mut(&(place, step)) else {
            return false;
        };
        *left = left.saturating_sub(1);
        if *left > 0 || self.live(place) != Some(proc) || !self.bears_crash(place) {
            return false;
        }
        self.armed.remove(&(place, step));
        self.faults[step] += 1;
        self.crash(place)
    }

    fn bears_crash(&self, place: Place) -> bool {
        match place {
            Place::Replica(shard, _) => self.plan.class.is_flushed() || self.is_whole(shard),
            Place::Root(_) => self.bears(place, Harm::Stop),
            _ => true,
        }
    }
}
