//! More devices of a shard than it can bear lose or change what they had flushed: the shard stands still or a loss is
//! declared, and nobody is ever told anything wrong.

use ionian_sim::{Fault, Plan, World};
use ionian_types::Durability;

/// Faults of one kind on every device of every shard, and processes that end, so that what is there is read again.
fn plan(fault: Fault) -> Plan {
    Plan {
        class: Durability::D1,
        beyond_f: true,
        clients: 3,
        checkpoint_every: 200,
        chunk_bytes: 16 << 10,
        payload_bytes_max: 400,
        calls: [300, 600],
        fault_ns: 300_000_000,
        faults: vec![(fault, 12), (Fault::CrashReplica, 8), (Fault::CrashAll, 1)],
        ..Plan::calm()
    }
}

#[test]
fn damage_on_all_devices_of_a_shard_is_a_halt_or_a_declared_loss_and_never_wrong_data() {
    let (mut still, mut lost) = (0, 0);
    for fault in [
        Fault::Corrupt,
        Fault::LostWrite,
        Fault::MisdirectedWrite,
        Fault::MisdirectedRead,
        Fault::RotJournal,
        Fault::LoseDisk,
        Fault::OldImage,
    ] {
        let mut took = 0;
        for seed in 1..=4 {
            let report = World::new(seed, plan(fault))
                .run()
                .unwrap_or_else(|failure| panic!("{fault:?}: {failure}"));
            assert!(report.seen.acks > 50, "{report:?}");
            took += report.faults[fault];
            still += report.machines.stands_still;
            lost += report.seen.lost;
        }
        assert!(took > 8, "{fault:?} took effect {took} times");
    }
    assert!(
        still > 4,
        "{still} runs stood still, {lost} records were declared lost"
    );
}
