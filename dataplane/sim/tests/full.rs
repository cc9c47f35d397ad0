//! Replicas of one shard with unlike room: the smaller one is full first, whether it writes the segment or holds a copy.
//! Every append is ordered or refused without effect, trims make room, and all comes to rest.

use ionian_sim::{Fault, Network, Plan, Report, World};
use ionian_types::Durability;

fn run(seed: u64, plan: Plan) -> Report {
    World::new(seed, plan)
        .run()
        .unwrap_or_else(|failure| panic!("{failure}"))
}

fn plan(class: Durability, space_bytes: [u64; 3]) -> Plan {
    Plan {
        class,
        network: Network::Fabric,
        shards: 1,
        chunk_bytes: 16 << 10,
        space_bytes,
        payload_bytes_max: 2000,
        trims: true,
        fault_ns: 400_000_000,
        ..Plan::calm()
    }
}

const LARGE: u64 = 8 << 20;

/// Little more than a store must have: twelve chunks; five files of four chunks.
const fn small(class: Durability) -> u64 {
    let chunks = if class.is_flushed() { 20 } else { 12 };
    chunks * (16 << 10)
}

#[test]
fn a_peer_with_less_room_refuses_for_both() {
    for class in [Durability::D0, Durability::D1] {
        let small = small(class);
        for space_bytes in [[LARGE, small, LARGE], [small, LARGE, LARGE], [small; 3]] {
            let (mut refused, mut trims) = (0, 0);
            for seed in 1..=12 {
                let report = run(seed, plan(class, space_bytes));
                assert!(report.seen.acks > 10, "{report:?}");
                assert_eq!(report.seen.failed[1], 0, "unknown: {report:?}");
                assert_eq!(report.seen.acks + report.seen.failed[0], report.appends);
                refused += report.seen.failed[0];
                trims += report.seen.trims;
            }
            assert!(
                refused > 0 && trims > 0,
                "{class:?} {space_bytes:?}: {refused} refused, {trims} trims"
            );
        }
    }
}

/// A full disk, and replicas that end and come back.
#[test]
fn a_restart_on_a_full_disk_loses_nothing_and_ends() {
    for seed in 1..=12 {
        let report = run(
            seed,
            Plan {
                faults: vec![(Fault::CrashReplica, 3), (Fault::Reset, 3)],
                ..plan(Durability::D1, [LARGE, small(Durability::D1), LARGE])
            },
        );
        assert!(report.seen.acks > 10, "{report:?}");
    }
}
