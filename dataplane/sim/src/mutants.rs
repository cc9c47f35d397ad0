//! Mutation power: machines with one deliberate bug, run seed by seed until a check finds it.
//!
//! [`Mutated`] is one type whose answer is set per thread, so the machines are built twice (as shipped, and mutated) and not
//! once per mutant. What counts as found is a check of the simulator; a panic inside the mutated code is told apart.

pub mod families;
pub mod table;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ionian_types::{Knobs, Mutant};

use crate::grants::GrantWorld;
use crate::invariant::Invariant;
use crate::plan::Plan;
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

/// The mutant that is switched on in this thread.
#[must_use]
pub fn active() -> Option<Mutant> {
    ACTIVE.get()
}

/// Runs something with a mutant switched on; it is off afterwards, after a panic too.
pub fn with<T>(mutant: Option<Mutant>, run: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            ACTIVE.set(None);
        }
    }
    ACTIVE.set(mutant);
    let _off = Off;
    run()
}

/// Runs one seed of a mutant by its plan.
#[must_use]
pub fn run_seed(mutant: Mutant, seed: u64) -> Seen {
    run_in_world_of(mutant, Some(mutant), seed)
}

/// Runs a seed in the world in which `of` is hunted: with it, or without.
fn run_in_world_of(of: Mutant, mutant: Option<Mutant>, seed: u64) -> Seen {
    if families::guards(of) {
        return run_grants(mutant, seed);
    }
    run_plan(mutant, seed, families::plan(Some(of), seed))
}

/// Runs one seed of a world of grants; without a mutant the same machines have no bug.
#[must_use]
pub fn run_grants(mutant: Option<Mutant>, seed: u64) -> Seen {
    let run = || GrantWorld::<Mutated>::new(seed).run();
    match catch_unwind(AssertUnwindSafe(|| with(mutant, run))) {
        Ok(Ok(_)) => Seen::Nothing,
        Ok(Err(violation)) => Seen::Caught(violation.invariant, violation.what),
        Err(_) => Seen::Panicked,
    }
}

/// Runs one seed by a plan; without a mutant the same machines have no bug.
#[must_use]
pub fn run_plan(mutant: Option<Mutant>, seed: u64, plan: Plan) -> Seen {
    let run = || World::<Mutated>::with_knobs(seed, plan).run();
    match catch_unwind(AssertUnwindSafe(|| with(mutant, run))) {
        Ok(Ok(_)) => Seen::Nothing,
        Ok(Err(failure)) => Seen::Caught(failure.violation.invariant, failure.violation.what),
        Err(_) => Seen::Panicked,
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
    /// A seed that fails without the mutant too: what was found there says nothing about the mutant.
    pub fails_anyway: Option<u64>,
}

/// Seeds of different bases do not meet.
const BASE: u64 = 1_000_000;

/// Runs the seeds of one base that concern a mutant until it is found, `seeds_max` at most. A seed counts as found only if
/// it passes without the mutant.
#[must_use]
pub fn hunt(mutant: Mutant, base: u64, seeds_max: u64) -> Hunt {
    let mut hunt = Hunt {
        seeds: 0,
        caught: None,
        panics: 0,
        fails_anyway: None,
    };
    let concerned = |seed: &u64| families::concerns(mutant, &Plan::draw(*seed));
    for seed in (base * BASE + 1..).filter(concerned) {
        if hunt.seeds == seeds_max {
            break;
        }
        hunt.seeds += 1;
        match run_seed(mutant, seed) {
            Seen::Nothing => {}
            Seen::Panicked => hunt.panics += 1,
            Seen::Caught(invariant, _) => {
                if run_in_world_of(mutant, None, seed) == Seen::Nothing {
                    hunt.caught = Some((invariant, seed));
                    break;
                }
                hunt.fails_anyway = Some(seed);
            }
        }
    }
    hunt
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

    /// Each of those who guard sessions is found at once: their worlds are small.
    #[test]
    fn every_mutant_of_the_guards_is_found() {
        let guards = |mutant: &&Mutant| families::guards(**mutant);
        let hunts = Mutant::ALL.iter().filter(guards).map(|mutant| {
            let found = hunt(*mutant, 6, 100);
            assert_eq!(found.fails_anyway, None, "{}", mutant.name());
            assert!(found.caught.is_some(), "{} survives", mutant.name());
        });
        assert!(hunts.count() > 20);
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
