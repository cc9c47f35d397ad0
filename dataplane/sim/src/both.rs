//! Damage on every device of a shard, and no record on two of them: whoever asks its peers gets everything back, and whoever
//! throws a record away may throw away the only good copy of another one.
//!
//! A member's device is hit at the positions of a segment that leave its own slot when divided by the number of members. All
//! members then end and start again, so that what they have in memory helps nobody. Only what each of them will know to be
//! committed is hit: a start may cut off what is damaged above.

use ionian_store::Fetch;
use ionian_types::{Knobs, Lsn, Slot};

use crate::plan::Fault;
use crate::process::{Machine, Place, ProcId};
use crate::world::{Event, Phase, World};

/// Good records that stay above what is damaged: a start tells from them that there was a record.
const ABOVE: u64 = 8;
/// Positions below those of which some are damaged: most of them in the chunk that a start reads.
const NEAR: u64 = 40;
/// Looks for the journals, one every two milliseconds.
const LOOKS: u32 = 40;

/// Where a segment is to be damaged once every member's journal says that it is committed so far.
#[derive(Debug)]
pub struct Aim {
    shard: u32,
    segment: Slot,
    /// Positions below are durable and committed at every member.
    below: u64,
    /// The members, and the last entry that their journals had.
    members: Vec<(ProcId, u64)>,
    looks: u32,
}

impl<K: Knobs> World<K> {
    /// Chooses a segment. What has too few records yet, or a member that is away, is tried again.
    pub(crate) fn aim(&mut self) {
        let shard = self.any_shard();
        let replicas = u64::from(self.plan.replicas);
        let segment = Slot::new(self.rng_fault.below(replicas) as u8);
        let mut aim = Aim {
            shard,
            segment,
            below: u64::MAX,
            members: Vec::new(),
            looks: LOOKS,
        };
        for slot in 0..self.plan.replicas {
            let Some(proc) = self.live(Place::Replica(shard, slot)) else {
                return self.again(Fault::Corrupt);
            };
            let Machine::Replica(replica) = &self.procs[proc].machine else {
                return self.again(Fault::Corrupt);
            };
            let (_, durable, committed) = replica.status(self.local(proc)).lens[segment.index()];
            aim.below = aim.below.min(durable.min(committed).get());
            aim.members.push((proc, replica.store().journal_last()));
        }
        if aim.below < ABOVE + NEAR {
            return self.again(Fault::Corrupt);
        }
        self.after(2_000_000, Event::Aimed(Box::new(aim), self.instance));
    }

    /// Damages what was chosen, unless a member has ended since.
    pub(crate) fn aimed(&mut self, mut aim: Box<Aim>, instance: u32) {
        self.instance = instance;
        if self.phase != Phase::Storm {
            return;
        }
        let mut ready = true;
        for (proc, last) in &aim.members {
            let process = &self.procs[*proc];
            match &process.machine {
                Machine::Replica(replica) if process.alive => {
                    ready &= replica.store().journal_durable() >= *last;
                }
                _ => return self.again(Fault::Corrupt),
            }
        }
        if !ready && aim.looks > 0 {
            aim.looks -= 1;
            return self.after(2_000_000, Event::Aimed(aim, instance));
        }
        if !ready || !self.damage_all(&aim) {
            return self.again(Fault::Corrupt);
        }
        self.faults[Fault::Corrupt] += 1;
        for slot in 0..self.plan.replicas {
            self.crash(Place::Replica(aim.shard, slot));
        }
    }

    /// One to three records on each device; whether every device had one that could be hit.
    fn damage_all(&mut self, aim: &Aim) -> bool {
        let replicas = u64::from(self.plan.replicas);
        let (from, to) = (aim.below - ABOVE - NEAR, aim.below - ABOVE);
        let mut all = true;
        for (member, (proc, _)) in (0..).zip(&aim.members) {
            let flips = self.rng_disk.range(1, 3);
            let mut hit = false;
            for _ in 0..flips {
                let drawn = self.rng_disk.range(from, to - replicas);
                let position = drawn.next_multiple_of(replicas) + member;
                hit |= position < to && self.damage_record(*proc, aim.segment, position);
            }
            all &= hit;
        }
        all
    }

    fn damage_record(&mut self, proc: ProcId, segment: Slot, position: u64) -> bool {
        let place = self.procs[proc].place;
        let Machine::Replica(replica) = &mut self.procs[proc].machine else {
            return false;
        };
        let store = replica.store_mut();
        let (from, to) = (Lsn::new(position), Lsn::new(position + 1));
        let Fetch::Ready(run) = store.run(segment, from, to, usize::MAX) else {
            return false;
        };
        let record = store.bytes(&run).to_vec();
        let key = self.disk_key(place);
        let Some(disk) = self.disks.get_mut(&key) else {
            return false;
        };
        let hit = disk.rot_record(&record, &mut self.rng_disk);
        if hit {
            self.say(|| format!("{place}: the record at {position} of {segment} rots"));
        }
        hit
    }
}
