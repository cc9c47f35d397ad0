//! What stands around the world: a swarm gives the same on any number of threads, and a failing plan is made smaller.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ionian_sim::invariant::{Invariant, Violation};
use ionian_sim::minimise::{Attempt, minimise};
use ionian_sim::swarm::Swarm;
use ionian_sim::{Fault, Plan, World};
use ionian_types::Time;

#[test]
fn a_swarm_gives_the_same_on_one_thread_and_on_three() {
    let of = |threads| {
        let swarm = Swarm {
            first: 18,
            seeds_min: 0,
            seeds_max: 6,
            for_at_most: Duration::MAX,
            threads,
            failures_max: usize::MAX,
        };
        let failed = AtomicU64::new(0);
        let outcome = swarm.run(|failure| {
            eprintln!("{failure}");
            failed.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(failed.into_inner(), 0);
        outcome.totals
    };
    let (one, three) = (of(1), of(3));
    assert_eq!(one, three);
    assert_eq!((one.seeds, one.twice), (6, 1));
    assert!(one.operations_least.is_some_and(|least| least > 100));
}

/// A check that is broken on purpose: it takes a leaf that dies while clients trim for a failure of the log.
fn broken(plan: &Plan) -> Attempt {
    let mut world = World::new(7, plan.clone());
    let report = world.run().unwrap_or_else(|failure| panic!("{failure}"));
    let fails = report.faults[Fault::CrashLeaf] > 0 && report.seen.trims > 0;
    Attempt {
        operations: report.operations,
        failure: fails.then(|| ionian_sim::Failure {
            seed: 7,
            at: Time::ZERO,
            violation: Violation::new(Invariant::S14, "on purpose"),
            mutant: None,
            plan: plan.difference(&Plan::draw(7)),
        }),
    }
}

#[test]
fn a_failing_plan_is_made_smaller_and_its_line_replays_it() {
    let plan = Plan {
        clients: 3,
        trims: true,
        faults: vec![(Fault::CrashLeaf, 3), (Fault::Reset, 5), (Fault::Pause, 2)],
        ..Plan::calm()
    };
    let smallest = minimise(&plan, broken, || true).expect("it fails");
    assert!(smallest.whole);
    let small = &smallest.plan;
    let left: Vec<Fault> = small
        .instances()
        .filter(|(instance, _)| small.includes(*instance))
        .map(|(_, fault)| fault)
        .collect();
    assert_eq!(left, [Fault::CrashLeaf], "{small:?}");
    assert!(small.trims, "what it needs stays: {small:?}");
    assert!(small.operations_max < 1000, "{small:?}");
    let places = |plan: &Plan| plan.shards + plan.clients;
    assert!(places(small) < places(&plan), "{small:?}");
    // The line that is printed makes that plan of the one that the seed draws.
    let mut again = Plan::draw(7);
    again.apply(&smallest.failure.plan).unwrap();
    assert_eq!(again.difference(small), "");
    assert!(broken(&again).failure.is_some());
    assert!(smallest.failure.replay().contains("--seed 7 --plan '"));
}

#[test]
fn a_plan_that_passes_is_not_made_smaller_and_time_is_kept() {
    assert!(minimise(&Plan::calm(), broken, || true).is_none());
    let plan = Plan {
        trims: true,
        faults: vec![(Fault::CrashLeaf, 3)],
        ..Plan::calm()
    };
    let mut runs = 0;
    let goes_on = || {
        runs += 1;
        runs <= 3
    };
    let found = minimise(&plan, broken, goes_on).expect("it fails");
    assert!(!found.whole && found.runs == 3);
}
