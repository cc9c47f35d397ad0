//! Every scenario of chaos, for some seconds each: faults under load, and the judge's verdict over the whole history.

mod common;

use std::path::Path;
use std::time::Duration;

use common::binary;
use ionian_system_tests::chaos::{self, Kind, Outcome, Plan, Scenario, Verdict};
use ionian_system_tests::{Cut, Durability, Net, SmallDisk};

/// How long there are faults.
const SPAN: Duration = Duration::from_secs(8);

fn run(test: &str, scenario: Scenario, durability: Durability, seed: u64) -> Option<Outcome> {
    let binary = binary(test)?;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plan = Plan {
        scenario,
        durability,
        duration: SPAN,
        writers: 3,
        seed,
    };
    let outcome = chaos::run(
        &binary,
        dir.path(),
        &plan,
        None,
        || false,
        |line| println!("{line}"),
    );
    let outcome = outcome.expect("it runs");
    println!("{}", outcome.report);
    if outcome.verdict != Verdict::Pass {
        let kept = dir.keep();
        panic!(
            "verdict {}, seed {seed}: {:#?}\nfiles: {}",
            outcome.verdict,
            outcome.problems,
            kept.display()
        );
    }
    let installed: u64 = outcome
        .faults
        .values()
        .map(|[installed, ..]| installed)
        .sum();
    assert!(installed > 0, "there was no fault");
    assert!(outcome.acked > 1_000, "there was no load");
    Some(outcome)
}

/// Runs a scenario that needs namespaces or mounts; says why not where there are none.
fn run_as_root(test: &str, kind: Kind, seed: u64) {
    if let Some(why) = Net::missing() {
        println!("SKIP {test}: {why}");
        return;
    }
    run(test, Scenario::One(kind), Durability::D1, seed);
}

#[test]
fn kills_under_load_lose_nothing_on_disk() {
    let test = "kills_under_load_lose_nothing_on_disk";
    run(test, Scenario::One(Kind::Kill9), Durability::D1, 1);
}

#[test]
fn kills_under_load_lose_only_what_is_declared_in_memory() {
    let test = "kills_under_load_lose_only_what_is_declared_in_memory";
    run(test, Scenario::One(Kind::Kill9), Durability::D0, 2);
}

#[test]
fn paused_processes_wake_up_and_lose_nothing() {
    let test = "paused_processes_wake_up_and_lose_nothing";
    run(test, Scenario::One(Kind::Pause), Durability::D1, 3);
}

#[test]
fn flipped_bits_are_repaired_from_the_peer() {
    let test = "flipped_bits_are_repaired_from_the_peer";
    if let Some(outcome) = run(test, Scenario::One(Kind::BitFlip), Durability::D1, 4) {
        assert!(outcome.repaired > 0, "nothing was repaired");
    }
}

#[test]
fn orderly_restarts_under_load_lose_nothing() {
    let test = "orderly_restarts_under_load_lose_nothing";
    run(test, Scenario::One(Kind::Restart), Durability::D1, 5);
}

#[test]
fn partitions_lose_nothing_and_heal() {
    run_as_root("partitions_lose_nothing_and_heal", Kind::Partition, 6);
}

#[test]
fn random_loss_loses_no_record() {
    run_as_root("random_loss_loses_no_record", Kind::Loss, 7);
}

#[test]
fn a_full_disk_refuses_and_goes_on_once_there_is_room() {
    let test = "a_full_disk_refuses_and_goes_on_once_there_is_room";
    if let Some(why) = SmallDisk::missing() {
        println!("SKIP {test}: {why}");
        return;
    }
    run(test, Scenario::One(Kind::DiskFull), Durability::D1, 8);
}

#[test]
fn a_swarm_of_faults_loses_nothing() {
    let test = "a_swarm_of_faults_loses_nothing";
    if let Some(why) = Net::missing() {
        println!("SKIP {test}: {why}");
        return;
    }
    run(test, Scenario::All, Durability::D1, 9);
}

#[test]
fn networks_go_with_their_owner_and_cut_what_they_are_told_to() {
    let test = "networks_go_with_their_owner_and_cut_what_they_are_told_to";
    if let Some(why) = Net::missing() {
        println!("SKIP {test}: {why}");
        return;
    }
    let mut net = Net::make(2).expect("it can be made");
    let file = |net: &Net| Path::new("/run/netns").join(net.namespace(1));
    assert!(file(&net).exists());
    let both = [Cut { from: 0, to: 1 }, Cut { from: 1, to: 0 }];
    net.cut(&both).expect("a rule");
    net.mend(&both[..1]).expect("a rule less");
    net.lose(100).expect("random loss");
    net.set_link(1, false).expect("a link down");
    net.heal().expect("everything undone");
    let (gone, address) = (file(&net), net.address(1));
    assert_eq!(address.to_string(), "10.77.0.2");
    drop(net);
    assert!(!gone.exists(), "{} stays", gone.display());
}
