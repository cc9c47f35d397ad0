//! The fault atlas: what each place and shard can bear now without losing what its class promises to keep.
//!
//! Within the plan no fault destroys more than that. Only a plan that says `beyond_f` goes further; a declared loss or a
//! halt is legal then, and wrong data still is not. One that says `damage_both` has every device of a shard damaged, each in
//! records of which a peer has a good copy (`both.rs`): nothing is lost then either.

use ionian_control_core::Directory;
use ionian_types::{Knobs, ShardId};

use crate::process::{Machine, Place};
use crate::world::{LOG, World};

/// What a fault does to a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Harm {
    /// Its process ends, with all that it has in memory.
    Stop,
    /// Another process takes its place while this one is still about.
    Replace,
    /// Its device loses or changes what it had flushed.
    Device,
}

impl<K: Knobs> World<K> {
    /// Whether nothing is lost for good that the class keeps, if this happens to a place now.
    pub(crate) fn bears(&self, place: Place, harm: Harm) -> bool {
        let flushed = self.plan.class.is_flushed();
        match (harm, place) {
            (Harm::Device, Place::Replica(shard, _)) => flushed && self.victim(shard) == place,
            (Harm::Device, _) => false,
            (Harm::Stop, Place::Root(_)) => flushed || self.group_is_whole(),
            (Harm::Stop, Place::Replica(shard, _)) => flushed || self.is_whole(shard),
            // A data directory has one process at a time, and a root at D0 has its order in memory only.
            (Harm::Replace, Place::Replica(shard, _)) => !flushed && self.is_whole(shard),
            (Harm::Replace, Place::Root(_)) => false,
            (_, Place::Controller | Place::Aggregator(_) | Place::Leaf(_) | Place::Client(_)) => {
                true
            }
        }
    }

    /// Whether the plan allows a fault: it is borne, or the run goes beyond what the class survives. No plan lets two
    /// processes have one data directory, or the root's device lie in what its layout does not bear.
    pub(crate) fn allows(&self, place: Place, harm: Harm) -> bool {
        let beyond = match harm {
            Harm::Stop => true,
            Harm::Device => matches!(place, Place::Replica(..)) && self.plan.class.is_flushed(),
            Harm::Replace => false,
        };
        self.bears(place, harm) || self.plan.beyond_f && beyond
    }

    /// The replica of a shard whose device a fault hits: the bad one, but beyond f any of them.
    pub(crate) fn hit(&mut self, shard: u32) -> Place {
        if self.plan.beyond_f && self.rng_fault.permille(600) {
            let slot = self.rng_fault.below(u64::from(self.plan.replicas));
            return Place::Replica(shard, slot as u8);
        }
        self.victim(shard)
    }

    /// The replica of a shard whose device is a bad one; those of its peers lose nothing.
    pub(crate) fn victim(&self, shard: u32) -> Place {
        let slot = (self.seed >> shard) % u64::from(self.plan.replicas);
        Place::Replica(shard, slot as u8)
    }

    pub(crate) fn controller(&self) -> Option<&Directory<K>> {
        let proc = self.live(Place::Controller)?;
        match &self.procs[proc].machine {
            Machine::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Whether every member of a root group of several holds everything, and the controller knows it: one more crash is within
    /// what D0 survives.
    fn group_is_whole(&self) -> bool {
        let settled = self.controller().is_some_and(|it| !it.dirty());
        let leader = self.live(Place::Root(self.leader));
        let Some(Machine::Root(leader)) = leader.map(|proc| &self.procs[proc].machine) else {
            return false;
        };
        let status = leader.status();
        let count = usize::from(self.plan.roots);
        // The leader may not have heard yet that a member is gone.
        let there = (0..self.plan.roots).all(|slot| {
            let member = self.live(Place::Root(slot));
            member.is_some_and(|proc| match &self.procs[proc].machine {
                Machine::Root(member) => member.status().last >= status.commit,
                _ => false,
            })
        });
        count > 1
            && there
            && settled
            && status.answers
            && status.recorded
            && status.members == count
            && status.members_connected == count
            && status.held_by_all >= status.commit
    }

    /// Whether the shard holds everything on every member and the controller knows it: one more crash is within what D0
    /// survives.
    pub(crate) fn is_whole(&self, shard: u32) -> bool {
        let Some(state) = self.history.reference.shards.get(&shard) else {
            return false;
        };
        let holds_all = |slot| {
            self.live(Place::Replica(shard, slot)).is_some_and(|proc| {
                match &self.procs[proc].machine {
                    Machine::Replica(replica) => {
                        let status = replica.status(self.local(proc));
                        let lens = state.segments.iter().zip(&status.lens);
                        status.epoch.get() == state.epoch
                            && lens
                                .clone()
                                .all(|(segment, lens)| lens.0.get() >= segment.len)
                    }
                    _ => false,
                }
            })
        };
        if state.finalized {
            return (0..self.plan.replicas).all(holds_all);
        }
        // What the controllers have not made durable, their next leader does not know.
        let settled = self.controller().filter(|directory| !directory.dirty());
        let reported = settled.and_then(|directory| directory.health(LOG, ShardId::new(shard)));
        // The controller counts a member as a holder once the leaf has said that it is one.
        let all = u8::MAX >> (8 - self.plan.replicas);
        let known = reported.is_some_and(|health| {
            let report = &health.report;
            report.whole && report.held == all && report.epoch.get() == state.epoch
        });
        known
            && (0..self.plan.replicas).all(|slot| {
                self.live(Place::Replica(shard, slot)).is_some_and(|proc| {
                    match &self.procs[proc].machine {
                        Machine::Replica(replica) => {
                            let listed = replica.config().inc.get()
                                == state.segments[usize::from(slot)].writer;
                            let status = replica.status(self.local(proc));
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
}
