//! Every device of a shard damages records, no record on two of them, and all processes of the shard end: every record still
//! has a good copy, and whoever finds a damaged one asks for it.

use ionian_sim::{Fault, Plan, World};
use ionian_types::Durability;

#[test]
fn records_damaged_on_every_device_at_different_places_are_all_repaired() {
    let mut repaired = 0;
    for seed in 1..=12 {
        let plan = Plan {
            class: Durability::D1,
            damage_both: true,
            clients: 3,
            checkpoint_every: 200,
            chunk_bytes: 16 << 10,
            calls: [300, 600],
            fault_ns: 300_000_000,
            faults: vec![(Fault::Corrupt, 3)],
            ..Plan::calm()
        };
        let report = World::new(seed, plan)
            .run()
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.faults[Fault::Corrupt] > 0, "{report:?}");
        assert!(report.seen.acks > 50 && report.seen.lost == 0, "{report:?}");
        assert_eq!(report.machines.stands_still, 0, "{report:?}");
        repaired += report.machines.repaired;
    }
    assert!(repaired >= 30, "{repaired} records were repaired");
}
