//! Faults: what each kind does, and whether the cluster can bear it now.

use ionian_control_core::Directory;
use ionian_types::{Knobs, ShardId, Time};

use crate::plan::{FAULTS, Fault};
use crate::process::{Machine, Place, ProcId, Process};
use crate::world::{Event, LOG, Phase, World};

impl<K: Knobs> World<K> {
    /// A fault begins. Counted when it takes effect; one that finds nothing to hit now is tried again soon.
    pub(crate) fn fault(&mut self, fault: Fault) {
        let done = match fault {
            Fault::CrashReplica => self.crash_replica(),
            Fault::CrashLeaf => self.crash(Place::Leaf),
            Fault::CrashController => self.crash(Place::Controller),
            Fault::CrashRoot => self.crash(Place::Root),
            Fault::CrashShard => {
                let shard = self.rng_fault.below(u64::from(self.plan.shards)) as u32;
                (0..self.plan.replicas).fold(false, |done, slot| {
                    self.crash(Place::Replica(shard, slot)) | done
                })
            }
            Fault::CrashAll => self
                .places()
                .into_iter()
                .fold(false, |done, place| self.crash(place) | done),
            Fault::Pause => self.pause(),
            Fault::Zombie => self.zombie(),
            Fault::Reset => self.reset(),
            Fault::SlowDisk => self.slow_disk(),
            Fault::LoseDisk => self.lose_disk(),
            Fault::Corrupt => self.corrupt(),
            fault if fault.is_step() => return self.arm_somewhere(fault),
            fault if fault.needs_device() => return self.storage_fault(fault),
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
                let beyond = fault.is_beyond(self.plan.class);
                self.history.recorder.fault(&format!("{fault:?}"), beyond);
            }
        }
        self.told = self.faults;
    }

    /// What found nothing to hit is tried again soon.
    pub(crate) fn again(&mut self, fault: Fault) {
        if self.retries > 0 && self.phase == Phase::Storm {
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
        self.say(|| format!("{} dies", self.who(proc)));
        if let Some(disk) = self.disks.get_mut(&self.procs[proc].place) {
            disk.crash(&mut self.rng_disk);
            self.count_effects(self.procs[proc].place);
        }
        let ends: Vec<_> = self.procs[proc].conns.iter().flatten().copied().collect();
        for end in ends {
            self.links[end.link].ends[end.side].open = false;
            if self.links[end.link].sessions.is_none() {
                self.break_link(end.link);
            }
        }
    }

    /// A process is told that another one has its place, and ends. If that was the late word of one that has died since,
    /// whoever looks after the place starts it again.
    pub(crate) fn replaced(&mut self, proc: ProcId) {
        let place = self.procs[proc].place;
        self.kill(proc);
        let lives = |process: &Process<K>| process.alive && process.place == place;
        if !self.procs.iter().any(lives) {
            let after = self.rng_fault.range(200_000, 40_000_000);
            self.after(after, Event::Start(place));
        }
    }

    pub(crate) fn crash(&mut self, place: Place) -> bool {
        let Some(proc) = self.live(place) else {
            return false;
        };
        self.kill(proc);
        let after = self.rng_fault.range(200_000, 40_000_000);
        self.after(after, Event::Start(place));
        true
    }

    fn controller(&self) -> Option<&Directory<K>> {
        let proc = self.live(Place::Controller)?;
        match &self.procs[proc].machine {
            Machine::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Whether the shard holds everything on every member and the controller knows it: one more crash is within what D0
    /// survives.
    pub(crate) fn is_whole(&self, shard: u32) -> bool {
        let Some(state) = self.history.reference.shards.get(&shard) else {
            return false;
        };
        let reported = self
            .controller()
            .and_then(|directory| directory.health(LOG, ShardId::new(shard)));
        let known = reported
            .is_some_and(|health| health.report.whole && health.report.epoch.get() == state.epoch);
        known
            && (0..self.plan.replicas).all(|slot| {
                self.live(Place::Replica(shard, slot)).is_some_and(|proc| {
                    match &self.procs[proc].machine {
                        Machine::Replica(replica) => {
                            let listed = replica.config().inc.get()
                                == state.segments[usize::from(slot)].writer;
                            let status = replica.status(self.now);
                            let holds = state
                                .segments
                                .iter()
                                .zip(&status.lens)
                                .all(|(segment, lens)| lens.0.get() >= segment.len);
                            listed && status.member && status.epoch.get() == state.epoch && holds
                        }
                        _ => false,
                    }
                })
            })
    }

    fn crash_replica(&mut self) -> bool {
        let shard = self.rng_fault.below(u64::from(self.plan.shards)) as u32;
        let slot = self.rng_fault.below(u64::from(self.plan.replicas)) as u8;
        let bears = self.plan.class.is_flushed() || self.is_whole(shard);
        bears && self.crash(Place::Replica(shard, slot))
    }

    fn any_live(&mut self) -> Option<ProcId> {
        let mut places = self.places();
        places.extend((0..self.plan.clients).map(Place::Client));
        let place = self.rng_fault.pick(&places);
        self.live(place)
            .filter(|proc| self.procs[*proc].paused_until <= self.now)
    }

    fn pause(&mut self) -> bool {
        let Some(proc) = self.any_live() else {
            return false;
        };
        let span = self.rng_fault.pick(&[2_000_000, 30_000_000, 250_000_000]);
        self.hold(proc, span);
        true
    }

    fn hold(&mut self, proc: ProcId, span: u64) {
        self.procs[proc].paused_until = Time::from_ns(self.now.as_ns() + span);
        self.say(|| format!("{} stands still for {} us", self.who(proc), span / 1000));
        self.after(span, Event::Wake(proc));
    }

    /// A process stands still; another takes its place; connections of the first break one by one, some only after it
    /// has woken.
    fn zombie(&mut self) -> bool {
        let Some(proc) = self.any_live() else {
            return false;
        };
        let place = self.procs[proc].place;
        let bears = match place {
            // A data directory has one process at a time.
            Place::Replica(shard, _) => !self.plan.class.is_flushed() && self.is_whole(shard),
            Place::Leaf => true,
            // A second controller, client, or D0 root is another matter.
            _ => false,
        };
        if !bears {
            return false;
        }
        let span = self.rng_fault.range(5_000_000, 120_000_000);
        self.hold(proc, span);
        let ends: Vec<_> = self.procs[proc].conns.iter().flatten().copied().collect();
        for end in ends {
            let at = self.rng_fault.below(span + 20_000_000);
            self.after(at, Event::Break(end.link));
        }
        self.start(place);
        true
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

    /// Nothing bad happens from now on.
    pub(crate) fn heal(&mut self) {
        self.phase = Phase::Healed;
        self.healed_at = self.now;
        self.weather.clear();
        let (head, tail) = (self.history.reference.trim, self.history.reference.end);
        self.history.recorder.healed(head, tail);
        self.slow_disks.clear();
        self.armed.clear();
        for disk in self.disks.values_mut() {
            disk.disarm();
        }
        for proc in 0..self.procs.len() {
            if self.procs[proc].paused_until > self.now {
                self.procs[proc].paused_until = self.now;
                self.after(0, Event::Wake(proc));
            }
        }
        self.after(60_000_000, Event::Rest);
    }
}
