//! Faults: what each kind does to processes and devices. Those of the network are in `storms`.

use ionian_types::Knobs;

use crate::atlas::Harm;
use crate::plan::{FAULTS, Fault};
use crate::process::{Place, ProcId, Process};
use crate::tree_faults::TreeFaults;
use crate::world::{Event, Phase, World};

impl<K: Knobs> World<K> {
    /// A fault begins. Counted when it takes effect; one that finds nothing to hit now is tried again soon.
    pub(crate) fn fault(&mut self, fault: Fault) {
        if fault.is_change() {
            return self.change(fault);
        }
        if self.phase > Phase::Storm {
            return;
        }
        let done = match fault {
            Fault::CrashReplica => self.crash_replica(),
            Fault::CrashLeaf => self.crash_vertex(|place| matches!(place, Place::Leaf(_))),
            Fault::CrashController => self.crash(Place::Controller),
            Fault::CrashRoot => self.crash_root(),
            Fault::CrashShard => {
                let shard = self.any_shard();
                (0..self.plan.replicas).fold(false, |done, slot| {
                    self.crash(Place::Replica(shard, slot)) | done
                })
            }
            Fault::CrashAll => self
                .places()
                .into_iter()
                .fold(false, |done, place| self.crash(place) | done),
            Fault::Pause => self.pause(),
            Fault::CrashClient => self.crash_client(),
            Fault::Zombie | Fault::ZombieClient | Fault::ZombieController => {
                return self.zombie(fault);
            }
            Fault::ControllerSlow | Fault::MajorityLoss => return self.silence(fault),
            Fault::Reset => self.reset(),
            Fault::SlowDisk => self.slow_disk(),
            Fault::LoseDisk => self.lose_disk(),
            Fault::Corrupt if self.plan.damage_both => return self.aim(),
            Fault::Corrupt => self.corrupt(),
            fault if fault.is_of_tree() => return self.tree_fault(fault),
            fault if fault.is_step() => return self.arm_somewhere(fault),
            fault if fault.needs_device() => return self.storage_fault(fault),
            Fault::ClockJump | Fault::ClockDrift => self.clock_fault(fault),
            // All the others are the network's, and count when they hit something.
            _ => return self.storm(fault),
        };
        if done {
            self.faults[fault] += 1;
        } else {
            self.again(fault);
        }
    }

    /// Tells the history of the faults that took effect since it was told last.
    pub(crate) fn tell_faults(&mut self) {
        if self.faults == self.told {
            return;
        }
        for fault in FAULTS {
            for _ in self.told[fault]..self.faults[fault] {
                let beyond = self.plan.is_beyond(fault);
                self.history.recorder.fault(&format!("{fault:?}"), beyond);
            }
        }
        self.told = self.faults;
    }

    /// What found nothing to hit is tried again soon.
    pub(crate) fn again(&mut self, fault: Fault) {
        let goes_on = if fault.is_change() {
            self.phase < Phase::Resting
        } else {
            self.phase == Phase::Storm
        };
        if self.retries > 0 && goes_on {
            self.retries -= 1;
            let after = self.rng_fault.range(1_000_000, 10_000_000);
            self.after(after, Event::Fault(fault, self.instance));
        }
    }

    /// A process dies: nothing of it is heard again.
    pub(crate) fn kill(&mut self, proc: ProcId) {
        if !core::mem::replace(&mut self.procs[proc].alive, false) {
            return;
        }
        self.dying.push(proc);
        self.say(|| format!("{} dies", self.who(proc)));
        let (place, node) = (self.procs[proc].place, self.procs[proc].node);
        // One that stood still while another was started in its place has let the device go.
        let mut others = self.procs.iter();
        let taken = others.any(|other| other.alive && (other.place, other.node) == (place, node));
        let disk = self.disks.get_mut(&(place, node));
        if let Some(disk) = disk.filter(|_| !taken) {
            disk.crash(&mut self.rng_disk);
            self.count_effects(proc);
        }
        let ends: Vec<_> = self.procs[proc].conns.iter().flatten().copied().collect();
        for end in ends {
            self.links[end.link].ends[end.side].open = false;
            if self.links[end.link].sessions.is_none() {
                self.break_link(end.link);
            } else {
                self.given_up.push(end.link);
            }
        }
    }

    /// A process is told that another one has its place, and ends. If that was the late word of one that has died since,
    /// whoever looks after the place starts it again.
    pub(crate) fn replaced(&mut self, proc: ProcId) {
        let (place, node) = (self.procs[proc].place, self.procs[proc].node);
        self.kill(proc);
        let lives =
            |process: &Process<K>| process.alive && process.place == place && process.node == node;
        if !self.procs.iter().any(lives) {
            let after = self.rng_fault.range(200_000, 40_000_000);
            self.after(after, Event::Start(place));
        }
    }

    pub(crate) fn crash(&mut self, place: Place) -> bool {
        let after = self.rng_fault.range(200_000, 40_000_000);
        self.crash_for(place, after)
    }

    /// A process dies, and another one starts after so many nanoseconds.
    pub(crate) fn crash_for(&mut self, place: Place, after: u64) -> bool {
        let Some(proc) = self.live(place).filter(|_| self.allows(place, Harm::Stop)) else {
            return false;
        };
        self.kill(proc);
        self.after(after, Event::Start(place));
        true
    }

    /// The leader of the root group, or any member.
    fn crash_root(&mut self) -> bool {
        let slot = if self.plan.roots == 1 || self.rng_fault.permille(600) {
            self.leader
        } else {
            self.rng_fault.below(u64::from(self.plan.roots)) as u8
        };
        self.crash(Place::Root(slot))
    }

    /// One of some vertices of the tree dies and starts again.
    pub(crate) fn crash_vertex(&mut self, which: impl Fn(&Place) -> bool) -> bool {
        let mut places = self.places();
        places.retain(|place| which(place));
        !places.is_empty() && {
            let place = self.rng_fault.pick(&places);
            self.crash(place)
        }
    }

    fn crash_replica(&mut self) -> bool {
        let shard = self.any_shard();
        let slot = self.rng_fault.below(u64::from(self.plan.replicas)) as u8;
        self.crash(Place::Replica(shard, slot))
    }

    fn reset(&mut self) -> bool {
        let open: Vec<usize> = (0..self.links.len())
            .filter(|link| {
                self.links[*link].works && self.links[*link].ends.iter().all(|end| end.open)
            })
            .collect();
        if open.is_empty() {
            return false;
        }
        let link = self.rng_fault.pick(&open);
        self.break_link(link);
        true
    }

    /// Nothing bad happens from now on. A plan of faults none of which has found anything to hit goes on until one has.
    pub(crate) fn heal(&mut self) {
        let whole = !self.plan.faults.is_empty() && self.plan.only.is_none();
        if whole && self.faults.total() == 0 {
            let (network, class) = (self.plan.network, self.plan.class);
            let plan = self.plan.clone();
            let planned = self.plan.faults.iter().map(|(fault, _)| *fault);
            // Its own kinds first.
            let mut kinds: Vec<Fault> = if self.rng_fault.permille(800) {
                planned.collect()
            } else {
                let all = FAULTS.into_iter();
                all.filter(|fault| !fault.is_change()).collect()
            };
            kinds.retain(|fault| fault.fits(network, class) && !plan.is_beyond(*fault));
            if !kinds.is_empty() {
                let fault = self.rng_fault.pick(&kinds);
                self.fault(fault);
            }
            return self.after(10_000_000, Event::Heal);
        }
        if !self.plan.legal_core {
            self.heal_all();
        } else if !self.begin_core() {
            self.after(5_000_000, Event::Heal);
        }
    }

    /// Everything is as it should be from now on.
    pub(crate) fn heal_all(&mut self) {
        self.phase = Phase::Healed;
        self.healed_at = self.now;
        self.weather.clear();
        let (head, tail) = (self.history.reference.trim, self.history.reference.end);
        self.history.recorder.healed(head, tail);
        self.end_silence();
        self.slow_disks.clear();
        self.tree_faults = TreeFaults::default();
        self.armed.clear();
        for disk in self.disks.values_mut() {
            disk.disarm();
        }
        self.wake_all(|_| true);
        self.after(60_000_000, Event::Rest);
    }

    /// Those that stand still go on.
    pub(crate) fn wake_all(&mut self, which: impl Fn(Place) -> bool) {
        for proc in 0..self.procs.len() {
            if self.procs[proc].paused_until > self.now && which(self.procs[proc].place) {
                self.procs[proc].paused_until = self.now;
                self.after(0, Event::Wake(proc));
            }
        }
    }
}
