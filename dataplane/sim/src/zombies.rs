//! Processes that stand still and go on as if nothing had happened, alone or after another one has taken their place.

use ionian_types::{Knobs, Time};

use crate::atlas::Harm;
use crate::plan::Fault;
use crate::process::{Machine, Place, ProcId};
use crate::trees::is_vertex;
use crate::world::{Event, World};

impl<K: Knobs> World<K> {
    /// Everybody whose place is taken by a live process.
    pub(crate) fn everyone(&self) -> Vec<Place> {
        let places = self.by_place.keys().copied();
        places.filter(|place| self.live(*place).is_some()).collect()
    }

    /// A process that is there and awake.
    pub(crate) fn any_live(&mut self) -> Option<ProcId> {
        let places = self.everyone();
        if places.is_empty() {
            return None;
        }
        let place = self.rng_fault.pick(&places);
        self.awake(place)
    }

    fn awake(&self, place: Place) -> Option<ProcId> {
        self.live(place)
            .filter(|proc| self.procs[*proc].paused_until <= self.now)
    }

    pub(crate) fn pause(&mut self) -> bool {
        let Some(proc) = self.any_live() else {
            return false;
        };
        let spans = [2_000_000, 30_000_000, 250_000_000, 1_500_000_000];
        let span = self.rng_fault.pick(&spans);
        self.hold(proc, span);
        true
    }

    pub(crate) fn hold(&mut self, proc: ProcId, span: u64) {
        self.procs[proc].paused_until = Time::from_ns(self.now.as_ns() + span);
        self.say(|| format!("{} stands still for {} us", self.who(proc), span / 1000));
        self.after(span, Event::Wake(proc));
    }

    /// A process stands still; another takes its place; connections of the first break one by one, some only after it
    /// has woken. Counted when the first one says something after the other one has.
    pub(crate) fn zombie(&mut self, fault: Fault) {
        let mut places = self.everyone();
        places.retain(|place| match fault {
            Fault::ZombieClient => matches!(place, Place::Client(_)),
            Fault::ZombieController => *place == Place::Controller,
            _ => is_vertex(*place) || matches!(place, Place::Replica(..)),
        });
        places.retain(|place| self.allows(*place, Harm::Replace) && self.awake(*place).is_some());
        if places.is_empty() {
            return self.again(fault);
        }
        let place = self.rng_fault.pick(&places);
        let Some(proc) = self.awake(place) else {
            return;
        };
        // The other one has just begun, or has long been at work, when the first one goes on.
        let longest = self.rng_fault.pick(&[12_000_000, 120_000_000]);
        let span = self.rng_fault.range(3_000_000, longest);
        self.hold(proc, span);
        let ends: Vec<_> = self.procs[proc].conns.iter().flatten().copied().collect();
        for end in ends {
            let at = self.rng_fault.below(span + 20_000_000);
            self.after(at, Event::Break(end.link));
        }
        // Clients do not come again under their name: the one that takes over is another one.
        let heir = match place {
            Place::Client(_) => self.another_client(),
            place => place,
        };
        self.start(heir);
        self.procs[proc].heir = self.live(heir).map(|heir| (fault, heir));
    }

    /// The name of a client that was never there.
    fn another_client(&mut self) -> Place {
        self.clients += 1;
        Place::Client(self.clients - 1)
    }

    /// A client dies, and does not come again; another one comes.
    pub(crate) fn crash_client(&mut self) -> bool {
        let mut places = self.everyone();
        places.retain(|place| matches!(place, Place::Client(_)));
        let Some(Place::Client(number)) =
            (!places.is_empty()).then(|| self.rng_fault.pick(&places))
        else {
            return false;
        };
        let Some(proc) = self.live(Place::Client(number)) else {
            return false;
        };
        self.kill(proc);
        if let Machine::Client(_, app) = &mut self.procs[proc].machine {
            app.abandon(&mut self.history);
        }
        let next = self.another_client();
        let after = self.rng_fault.range(200_000, 20_000_000);
        self.after(after, Event::Start(next));
        true
    }

    /// A process says something.
    pub(crate) fn note_speech(&mut self, proc: ProcId) {
        self.procs[proc].spoke = true;
        if let Some((fault, heir)) = self.procs[proc].heir
            && self.procs[heir].spoke
        {
            self.procs[proc].heir = None;
            self.faults[fault] += 1;
        }
    }
}
