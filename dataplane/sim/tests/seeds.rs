//! Seeds with faults of every kind; one in twenty runs twice and must give one trace.

use std::sync::atomic::{AtomicU64, Ordering};

use ionian_sim::FAULTS;
use ionian_sim::swarm::{Totals, run_seed};

/// Calibrated: well under a minute at opt-level 1 on two busy cores.
const SEEDS: u64 = 240;
const THREADS: usize = 2;
/// The least that each fault of devices takes effect, all seeds together; most do five to thirty times as often.
const STORAGE_LEAST: u64 = 3;
/// The same of the faults of the ordering tree.
const TREE_LEAST: u64 = 5;

#[test]
fn seeds_with_every_kind_of_fault() {
    let next = AtomicU64::new(1);
    let work = || {
        let mut totals = Totals::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > SEEDS {
                return totals;
            }
            if let Err(failure) = run_seed(seed, &mut totals) {
                panic!("{failure}");
            }
        }
    };
    let totals = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let mut sum = Totals::default();
        for worker in workers {
            match worker.join() {
                Ok(totals) => sum.merge(&totals),
                Err(failure) => std::panic::resume_unwind(failure),
            }
        }
        sum
    });
    println!("{totals:#?}");
    assert_eq!(totals.seeds, SEEDS);
    assert!(totals.twice >= SEEDS / 20);
    let missing: Vec<_> = totals.missing_faults().collect();
    assert!(missing.is_empty(), "never took place: {missing:?}");
    let rare =
        |fault: &ionian_sim::Fault| fault.needs_device() && totals.faults[*fault] < STORAGE_LEAST;
    let of_tree =
        |fault: &ionian_sim::Fault| fault.is_of_tree() && totals.faults[*fault] < TREE_LEAST;
    let rare = |fault: &ionian_sim::Fault| rare(fault) || of_tree(fault);
    let rare: Vec<_> = FAULTS.into_iter().filter(rare).collect();
    assert!(rare.is_empty(), "hardly ever took place: {rare:?}");
    // A run in which nothing happened proves nothing.
    assert!(
        totals.appends[1] > 50_000 && totals.delivered > 100_000,
        "{totals:#?}"
    );
    assert!(
        totals.nevers > 50 && totals.copies > 50 && totals.rebinds > 20,
        "{totals:#?}"
    );
    let [trees, starts, resumed] = totals.trees;
    assert!(
        trees > 60 && starts > 300 && resumed > 60,
        "{trees} seeds with aggregators, {starts} starts, {resumed} went on"
    );
    assert!(totals.cores[0] > 40 && totals.cores[1] > 1, "{totals:#?}");
    // Each run checks by itself that the records it found damaged add up.
    assert!(
        totals.damaged > 40 && totals.repaired > 20 && totals.adoptions > 5,
        "{totals:#?}"
    );
    assert!(totals.halts > 4 && totals.stands_still > 0, "{totals:#?}");
    assert!(
        totals.gaps[0] > 0 && totals.gaps[1] > 0 && totals.lost > 0,
        "{totals:#?}"
    );
}
