//! A cluster with three controllers under load: changed, killed and cut off, and the judge's verdict over the whole history.

mod common;

use std::time::Duration;

use common::binary;
use ionian_system_tests::chaos::{Judged, Verdict, controllers, reconfigure, tree};
use tempfile::TempDir;

/// Says what was found; unless the run passed, its files stay.
fn passed(judged: &Judged, text: &str, dir: TempDir) {
    println!("{}{text}", judged.report);
    if judged.verdict != Verdict::Pass {
        let kept = dir.keep();
        panic!(
            "verdict {}: {:#?}\nfiles: {}",
            judged.verdict,
            judged.problems,
            kept.display()
        );
    }
}

#[test]
fn changes_and_deaths_under_load_lose_nothing() {
    let Some(binary) = binary("changes_and_deaths_under_load_lose_nothing") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plan = reconfigure::Plan::short(1);
    let outcome = reconfigure::run(
        &binary,
        dir.path(),
        &plan,
        None,
        || false,
        |line| println!("{line}"),
    );
    let outcome = outcome.expect("it runs");
    passed(&outcome.judged, &outcome.figures.text(), dir);
    let figures = outcome.figures;
    assert_eq!((figures.changes.len(), figures.deaths.len()), (4, 2));
    assert!(figures.changes.iter().all(|change| change.appends[1] > 0));
    assert!(figures.raft_leader_ms.is_some());
    assert!(outcome.judged.acked > 1_000, "there was no load");
}

#[test]
fn whatever_becomes_of_the_controllers_no_view_is_lost() {
    let Some(binary) = binary("whatever_becomes_of_the_controllers_no_view_is_lost") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plan = controllers::Plan {
        duration: Duration::ZERO,
        turns: false,
        seed: 2,
    };
    let outcome = controllers::run(
        &binary,
        dir.path(),
        &plan,
        None,
        || false,
        |line| println!("{line}"),
    );
    let outcome = outcome.expect("it runs");
    passed(&outcome.judged, &outcome.text(), dir);
    assert!(outcome.faults.len() + outcome.skipped.len() >= 4);
    assert!(outcome.views > 4 && outcome.changes > 2);
    assert!(!outcome.refusals.is_empty(), "nothing was refused");
    assert!(outcome.judged.acked > 1_000, "there was no load");
}

fn with_a_tree(name: &str, faults: bool, seed: u64) {
    let Some(binary) = binary(name) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plan = tree::Plan {
        duration: Duration::ZERO,
        faults,
        seed,
    };
    let say = |line: &str| println!("{line}");
    let outcome = tree::run(&binary, dir.path(), &plan, None, || false, say);
    let outcome = outcome.expect("it runs");
    passed(&outcome.judged, &outcome.text(), dir);
    let times: u64 = outcome.done.iter().map(|done| done.times).sum();
    assert_eq!(times, if faults { 8 } else { 4 });
    assert!(outcome.judged.acked > 1_000, "there was no load");
}

#[test]
fn an_ordering_tree_takes_other_forms_and_moves_under_load() {
    let name = "an_ordering_tree_takes_other_forms_and_moves_under_load";
    with_a_tree(name, false, 3);
}

#[test]
fn whatever_becomes_of_the_processes_of_a_tree_nothing_is_lost() {
    let name = "whatever_becomes_of_the_processes_of_a_tree_nothing_is_lost";
    with_a_tree(name, true, 4);
}
