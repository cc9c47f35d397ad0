//! Faults of devices: which device they hit, so that no more copies of anything are destroyed than the cluster bears.
//!
//! Of each shard one replica has a device that lies and forgets, the same in every fault of a run; its peers' devices lose
//! nothing that was flushed, unless the run goes beyond f. The root is alone, so that its device lies in nothing that its
//! layout does not bear: single copies of superblocks and checkpoints. Every device tears and loses what was not flushed,
//! fails, and is slow or full.

use ionian_store::{StoreFailure, StoreState};
use ionian_types::{Knobs, Nanos, Slot, Time};

use crate::atlas::Harm;
use crate::disk::Lie;
use crate::invariant::Invariant;
use crate::plan::Fault;
use crate::process::{Machine, Place, ProcId, Process};
use crate::world::{Event, World};

/// The cut log waits longer for a silent member than any fault keeps it away.
const GONE_LONG: Nanos = Nanos::from_ms(30_000);

impl<K: Knobs> World<K> {
    /// A fault of a device begins. What is armed counts when it takes effect; what found nothing to damage is tried again.
    pub(crate) fn storage_fault(&mut self, fault: Fault) {
        let shard = self.any_shard();
        let bad = self.hit(shard);
        let places = self.disk_places();
        if places.is_empty() {
            return self.again(fault);
        }
        let any = self.rng_fault.pick(&places);
        let block = self.plan.block_bytes as usize;
        let (place, armed, crash_odds) = match fault {
            Fault::LostWrite => (bad, Some(Lie::LostWrite), 0),
            Fault::MisdirectedWrite => (bad, Some(Lie::MisdirectedWrite), 0),
            Fault::MisdirectedRead => (bad, Some(Lie::MisdirectedRead), 700),
            Fault::FlushFails => (any, Some(Lie::FlushFails), 0),
            Fault::ReadFails => (any, Some(Lie::ReadFails), 700),
            Fault::RotJournal => (bad, None, 700),
            Fault::RotSuperblock | Fault::RotCheckpoint => (any, None, 700),
            Fault::FullDisk => return self.fill_disk(any),
            Fault::OldImage => return self.image(bad),
            _ => return,
        };
        let key = self.disk_key(place);
        let Some(disk) = self.disks.get_mut(&key) else {
            return self.again(fault);
        };
        let done = match (armed, fault) {
            (Some(lie), _) => {
                // Many in a row: what a replica then misses it copies, unless its peer is the one that lies.
                if fault == Fault::ReadFails && (place == bad || matches!(place, Place::Root(_))) {
                    disk.unread = self.rng_fault.pick(&[0, 8, 60]);
                }
                disk.arm(lie);
                false
            }
            (None, Fault::RotJournal) => {
                let done = disk.rot(true, &mut self.rng_disk);
                disk.lied |= done;
                done
            }
            (None, Fault::RotSuperblock) => disk.rot_superblock(&mut self.rng_disk),
            (None, _) => disk.rot_checkpoint(block, &mut self.rng_disk),
        };
        if (done || armed.is_some()) && self.rng_fault.permille(crash_odds) {
            self.crash(place);
        }
        if done {
            self.faults[fault] += 1;
        } else if armed.is_none() {
            self.again(fault);
        }
    }

    /// Counts what a device has done since it was last asked.
    pub(crate) fn count_effects(&mut self, proc: ProcId) {
        let Process { place, node, .. } = self.procs[proc];
        let Some(disk) = self.disks.get_mut(&(place, node)) else {
            return;
        };
        for fault in disk.take_effects() {
            self.say(|| format!("{place}: {fault:?}"));
            self.faults[fault] += 1;
        }
    }

    /// Something else fills a device for a while.
    fn fill_disk(&mut self, place: Place) {
        let key = self.disk_key(place);
        if let Some(disk) = self.disks.get_mut(&key) {
            disk.full = true;
            let span = self.rng_fault.range(5_000_000, 150_000_000);
            self.after(span, Event::Emptied(place));
        }
    }

    pub(crate) fn emptied(&mut self, place: Place) {
        let key = self.disk_key(place);
        if let Some(disk) = self.disks.get_mut(&key) {
            disk.full = false;
        }
    }

    /// What a device holds now comes back after a while.
    fn image(&mut self, place: Place) {
        let key = self.disk_key(place);
        if self
            .disks
            .get_mut(&key)
            .is_some_and(|disk| disk.take_image())
        {
            let after = self.rng_fault.range(5_000_000, 150_000_000);
            self.after(after, Event::PutBack(place));
        }
    }

    pub(crate) fn put_back(&mut self, place: Place) {
        if self.phase != crate::world::Phase::Storm || !self.crash(place) {
            return;
        }
        let key = self.disk_key(place);
        let changed = self
            .disks
            .get_mut(&key)
            .is_some_and(|disk| disk.put_image_back());
        self.faults[Fault::OldImage] += u64::from(changed);
    }

    /// A store has given up: its process ends, as the edge sees to. Only a device that failed or lied is a reason.
    pub(crate) fn store_failed(&mut self, proc: ProcId, failure: StoreFailure) {
        let Process { place, node, .. } = self.procs[proc];
        self.say(|| format!("{place}: {failure}"));
        if self.live(place) != Some(proc) {
            // Its place is another one's by now.
            return self.kill(proc);
        }
        let (lied, failed) = self
            .disks
            .get(&(place, node))
            .map_or((false, false), |disk| (disk.lied, disk.failed || disk.full));
        match failure {
            // What cannot be read now is not given up: the next start may read it.
            StoreFailure::Device { .. }
            | StoreFailure::SuperblockUnread { .. }
            | StoreFailure::NoSpace
                if failed =>
            {
                self.crash(place);
            }
            // Declared, not passed over: the operator gives the node an empty device.
            StoreFailure::JournalDamaged { .. }
            | StoreFailure::CheckpointDamaged { .. }
            | StoreFailure::NoValidSuperblock { .. }
            | StoreFailure::NotFormatted
                if lied =>
            {
                self.halts += 1;
                self.crash(place);
                self.disks.remove(&(place, node));
            }
            failure => self.history.fail(Invariant::M1, || {
                format!("the store of {place:?} fails: {failure}")
            }),
        }
    }

    /// A replica is refused since no device of its shard holds the records, or since its device is an old image. It is started
    /// again now and then: another one of the shard may have come back.
    pub(crate) fn turned_away(&mut self, proc: ProcId) {
        let place = self.procs[proc].place;
        self.halts += 1;
        self.kill(proc);
        self.after(100_000_000, Event::Start(place));
    }

    /// What the edge does now and then: space may have come free. Notes which devices are full.
    pub(crate) fn look_at_space(&mut self) {
        for proc in 0..self.procs.len() {
            if !self.procs[proc].alive || !self.plan.class.is_flushed() {
                continue;
            }
            let now = self.now;
            if let Machine::Replica(replica) = &self.procs[proc].machine
                && replica.status(now).full
                && self.plan.is_small()
            {
                self.faults[Fault::SmallDisk] |= 1;
            }
            if let Some(store) = self.procs[proc].store_mut()
                && store.state() == StoreState::Ready
            {
                store.retry_space();
                self.run_disk(proc);
            }
        }
    }

    pub(crate) fn slow_disk(&mut self) -> bool {
        let places = self.disk_places();
        if places.is_empty() {
            return false;
        }
        let place = self.rng_fault.pick(&places);
        let span = self.rng_fault.range(5_000_000, 100_000_000);
        self.slow_disks
            .insert(place, Time::from_ns(self.now.as_ns() + span));
        true
    }

    /// A replica's device is gone. In some of them its peers have died shortly before and come back some time after: what
    /// they need is in the cut log then, and nowhere else.
    pub(crate) fn lose_disk(&mut self) -> bool {
        let shard = self.any_shard();
        let place = self.hit(shard);
        if !self.allows(place, Harm::Device) || self.live(place).is_none() {
            return false;
        }
        if self.plan.gone < GONE_LONG || self.rng_fault.permille(500) {
            return self.lose_disk_of(place);
        }
        for slot in 0..self.plan.replicas {
            let peer = Place::Replica(shard, slot);
            if peer != place {
                let away = self.rng_fault.range(100_000_000, 200_000_000);
                self.crash_for(peer, away);
            }
        }
        let after = self.rng_fault.range(1_000_000, 90_000_000);
        self.after(after, Event::DiskLost(place));
        true
    }

    pub(crate) fn lose_disk_of(&mut self, place: Place) -> bool {
        let key = self.disk_key(place);
        self.crash(place) && self.disks.remove(&key).is_some()
    }

    /// Records of the same replica of a shard are damaged in every such fault: its peer can repair them. They are read
    /// back when memory is short, or at the next start, which often comes soon.
    pub(crate) fn corrupt(&mut self) -> bool {
        let shard = self.any_shard();
        let place = self.hit(shard);
        let key = self.disk_key(place);
        let Some(disk) = self.disks.get_mut(&key) else {
            return false;
        };
        let flips = self.rng_disk.range(1, 6);
        let done = (0..flips).fold(false, |done, _| disk.rot(false, &mut self.rng_disk) | done);
        if done {
            disk.lied = true;
            if self.rng_fault.permille(700) {
                self.crash(place);
            }
        }
        done
    }

    /// Every record that a life of a replica found damaged was repaired, went away, or is still known to be damaged.
    pub(crate) fn damage_adds_up(&mut self) {
        for proc in 0..self.procs.len() {
            self.damage_of_life_adds_up(proc);
        }
    }

    /// The same of one life, at its end.
    pub(crate) fn damage_of_life_adds_up(&mut self, proc: ProcId) {
        let process = &self.procs[proc];
        let Machine::Replica(replica) = &process.machine else {
            return;
        };
        let store = replica.store();
        let stats = store.stats();
        let slots = (0..self.plan.replicas).map(Slot::new);
        let left: u64 = slots
            .flat_map(|slot| store.damaged(slot))
            .map(|range| range.to.get() - range.from.get())
            .sum();
        let settled = process.alive && !self.stands_still;
        let adds_up = stats.damaged == stats.repaired + stats.damaged_gone + left;
        let place = process.place;
        self.history
            .check(Invariant::O4, adds_up && !(settled && left > 0), || {
                format!("{place:?}: {left} records are damaged still: {stats:?}")
            });
    }
}
