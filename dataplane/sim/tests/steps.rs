//! A replica, and the root, that dies before each of its first device operations, after each of them, and before each
//! flush of its machine: one run per step. Nothing acknowledged is lost, and all comes to rest.

use ionian_sim::process::Place;
use ionian_sim::{Fault, Plan, World};
use ionian_types::Durability;

/// Short, with checkpoints, truncations and several views.
fn plan() -> Plan {
    Plan {
        class: Durability::D1,
        shards: 1,
        chunk_bytes: 16 << 10,
        payload_bytes_max: 400,
        trims: true,
        checkpoint_every: 20,
        warm_up_ns: 0,
        fault_ns: 120_000_000,
        think_ns: 1_000_000,
        ..Plan::calm()
    }
}

/// One run for each of the steps 1 to `steps`, nearly all of which must be reached before a run ends.
fn crash_at_each(place: Place, step: Fault, steps: u64) {
    let (mut reached, mut acks) = (0, 0);
    for count in 1..=steps {
        // Some variety in what else happens; the same for the same step.
        let mut world = World::new(count % 5, plan());
        world.crash_at(place, step, count);
        let report = world
            .run()
            .unwrap_or_else(|failure| panic!("{step:?} {count} of {place:?}: {failure}"));
        acks += report.seen.acks;
        reached += report.faults[step];
    }
    assert!(
        reached * 10 >= steps * 9 && acks > steps * 50,
        "{reached} of {steps} reached, {acks} acks"
    );
}

const REPLICA: Place = Place::Replica(0, 1);

#[test]
fn a_replica_dies_before_each_device_operation() {
    crash_at_each(REPLICA, Fault::CrashAtOp, 100);
}

#[test]
fn a_replica_dies_when_each_device_operation_is_done_and_nobody_knows() {
    crash_at_each(REPLICA, Fault::CrashAtDone, 60);
}

#[test]
fn a_replica_dies_when_its_store_knows_and_its_machine_does_not() {
    crash_at_each(REPLICA, Fault::CrashAfterDone, 60);
}

#[test]
fn a_replica_dies_between_the_operations_of_checkpoints() {
    crash_at_each(REPLICA, Fault::CrashInCheckpoint, 8);
}

#[test]
fn a_root_dies_before_each_device_operation() {
    crash_at_each(Place::Root(0), Fault::CrashAtOp, 100);
}

#[test]
fn a_root_dies_when_its_store_knows_and_its_machine_does_not() {
    crash_at_each(Place::Root(0), Fault::CrashAfterDone, 60);
}

#[test]
fn a_root_dies_before_each_flush() {
    crash_at_each(Place::Root(0), Fault::CrashAtFlush, 60);
}

#[test]
fn a_leaf_dies_between_two_messages_of_a_cut() {
    crash_at_each(Place::Leaf(0), Fault::CrashMidSend, 40);
}

#[test]
fn a_replica_dies_before_each_flush_and_between_two_messages() {
    crash_at_each(REPLICA, Fault::CrashAtFlush, 60);
    crash_at_each(REPLICA, Fault::CrashMidSend, 15);
}
