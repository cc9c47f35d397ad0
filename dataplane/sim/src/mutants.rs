//! Mutation power: machines with one deliberate bug, run seed by seed until a check finds it.
//!
//! [`Mutated`] is one type whose answer is set per thread, so the machines are built twice (as shipped, and mutated) and not
//! once per mutant. What counts as found is a check of the simulator; a panic inside the mutated code is told apart.

pub mod table;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ionian_types::{Knobs, Mutant};

use crate::invariant::Invariant;
use crate::plan::{Fault, Plan};
use crate::world::World;

thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// The machines of a world in which one mutant may be switched on.
#[derive(Clone, Copy, Debug)]
pub struct Mutated;

impl Knobs for Mutated {
    fn mutant(which: Mutant) -> bool {
        ACTIVE.get() == Some(which)
    }
}

/// What became of one seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Nothing was found.
    Nothing,
    /// A check did not hold.
    Caught(Invariant, String),
    /// The mutated code stopped itself.
    Panicked,
}

/// Runs one seed of a mutant; `None` runs the same machines without a bug.
#[must_use]
pub fn run_seed(mutant: Option<Mutant>, seed: u64) -> Seen {
    ACTIVE.set(mutant);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        World::<Mutated>::with_knobs(seed, Plan::draw(seed)).run()
    }));
    ACTIVE.set(None);
    match ran {
        Ok(Ok(_)) => Seen::Nothing,
        Ok(Err(failure)) => Seen::Caught(failure.violation.invariant, failure.violation.what),
        Err(_) => Seen::Panicked,
    }
}

/// Whether the worlds of a plan can show a mutant at all: seeds of others are passed over, to save time.
#[must_use]
pub fn concerns(mutant: Mutant, plan: &Plan) -> bool {
    use Mutant as M;
    let flushed = plan.class.is_flushed();
    let has = |wanted: &[Fault]| plan.faults.iter().any(|(fault, _)| wanted.contains(fault));
    let root_restarts = || has(&[Fault::CrashRoot, Fault::CrashAll]);
    let replica_restarts = || has(&[Fault::CrashReplica, Fault::LoseDisk]);
    let drops = || plan.cut_log_chunk_entries <= 32;
    match mutant {
        M::AckBeforePersist | M::TailFromLogEnd | M::ServeUncommitted | M::EdgeStartUncommitted => {
            flushed
        }
        M::CutBeforeDurable | M::ForgetLastEntry => flushed && root_restarts(),
        M::AnswerBeforeOwnEpoch => flushed && root_restarts() && has(&[Fault::SlowDisk]),
        M::DedupNotRebuilt => flushed && replica_restarts(),
        M::AcceptOldWriter => !flushed && has(&[Fault::Zombie]),
        M::AmnesiacRoot | M::UndeclaredLoss | M::FloorForgotten => !flushed && root_restarts(),
        M::AppliedBeforeDurable => flushed && drops() && has(&[Fault::CrashShard, Fault::CrashAll]),
        M::DropAtFastest => {
            flushed && drops() && has(&[Fault::LoseDisk]) && has(&[Fault::CrashReplica])
        }
        M::SameLifeAfterRestart => flushed && has(&[Fault::CrashReplica]),
        M::GiveUpTooEarly => !flushed && has(&[Fault::CrashReplica]),
        M::KeepIndexAfterLoss => !flushed && has(&[Fault::CrashShard]),
        M::SendBeforePersisted => has(&[Fault::CrashController, Fault::CrashAll]),
        M::RoundWithoutEdge => has(&[Fault::Zombie]),
        M::IgnorePreviousRound | M::TakeLaterRounds | M::IgnoreChainGap => {
            has(&[Fault::Reset, Fault::PartitionFull, Fault::PartitionPair])
        }
        M::KeepSlotsOverView
        | M::AcceptOldEpoch
        | M::KeepVoidTail
        | M::ReportNeverFalls
        | M::NeverFromLaggingCopy => replica_restarts(),
        M::TrimBeyondTail | M::TrimOneTooMany | M::TrimOfOneShard => plan.trims,
        _ => true,
    }
}

/// How the hunt for a mutant from one base seed ended.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Seeds run, the one that found it included.
    pub seeds: u64,
    /// What found it, and at which seed.
    pub caught: Option<(Invariant, u64)>,
    /// Seeds in which the mutated code stopped itself.
    pub panics: u64,
}

/// Seeds of different bases do not meet.
const BASE: u64 = 1_000_000;

/// Runs the seeds of one base that concern a mutant until it is found, `seeds_max` at most.
#[must_use]
pub fn hunt(mutant: Mutant, base: u64, seeds_max: u64) -> Hunt {
    let (mut panics, mut step) = (0, 0);
    let seeds = (base * BASE + 1..).filter(|seed| concerns(mutant, &Plan::draw(*seed)));
    for seed in seeds.take(usize::try_from(seeds_max).unwrap_or(usize::MAX)) {
        step += 1;
        match run_seed(Some(mutant), seed) {
            Seen::Nothing => {}
            Seen::Panicked => panics += 1,
            Seen::Caught(invariant, _) => {
                return Hunt {
                    seeds: step,
                    caught: Some((invariant, seed)),
                    panics,
                };
            }
        }
    }
    Hunt {
        seeds: seeds_max,
        caught: None,
        panics,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the mutants are measured against must not fail itself.
    #[test]
    fn without_a_mutant_the_machines_are_those_that_ship() {
        for seed in 1..=3 {
            let shipped = World::new(seed, Plan::draw(seed)).run();
            let mutated = World::<Mutated>::with_knobs(seed, Plan::draw(seed)).run();
            assert_eq!(shipped.unwrap().trace, mutated.unwrap().trace);
        }
    }

    #[test]
    fn a_mutant_is_found_by_the_invariant_that_it_breaks() {
        // Whatever faults a seed has, it is found; in some by what came of it rather than by what it breaks.
        let hunts = [1, 2, 3].map(|base| hunt(Mutant::ConfirmBeforeQuorum, base, 50));
        let found = hunts
            .each_ref()
            .map(|hunt| hunt.caught.map(|found| found.0));
        assert!(found.iter().all(Option::is_some), "{hunts:?}");
        assert!(found.contains(&Some(Invariant::O3)), "{hunts:?}");
    }
}
