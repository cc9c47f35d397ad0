//! Each kind of fault of the network, of processes, clocks and controllers alone: it takes effect, the run stays clean, and
//! there was something to see.

use ionian_sim::{Fault, Network, Plan, Report, World};
use ionian_types::Durability;

fn run(seed: u64, plan: Plan) -> Report {
    World::new(seed, plan)
        .run()
        .unwrap_or_else(|failure| panic!("{failure}"))
}

/// A few faults of one kind, and nothing else.
fn only(fault: Fault, network: Network) -> Plan {
    Plan {
        network,
        clients: 3,
        think_ns: 600_000,
        outstanding_max: 16,
        calls: [300, 600],
        faults: vec![(fault, 8)],
        ..Plan::calm()
    }
}

fn takes_effect(fault: Fault, network: Network) {
    let mut installed = 0;
    for seed in 1..=3 {
        let report = run(seed, only(fault, network));
        assert!(
            report.seen.acks > 100 && report.operations >= 300,
            "{report:?}"
        );
        installed += report.faults[fault];
    }
    assert!(installed > 0, "{fault:?} never took effect on {network:?}");
}

#[test]
fn each_fault_of_the_fabric_takes_effect_alone() {
    for fault in [
        Fault::Reset,
        Fault::PartitionFull,
        Fault::PartitionPair,
        Fault::PartitionOneWay,
        Fault::CutOff,
        Fault::Strand,
        Fault::Delay,
        Fault::Clog,
        Fault::Swizzle,
        Fault::Late,
    ] {
        takes_effect(fault, Network::Fabric);
    }
}

#[test]
fn each_fault_of_datagrams_takes_effect_alone() {
    for fault in [
        Fault::PartitionFull,
        Fault::PartitionPair,
        Fault::PartitionOneWay,
        Fault::CutOff,
        Fault::Strand,
        Fault::Delay,
        Fault::Clog,
        Fault::Swizzle,
        Fault::Replay,
        Fault::Loss,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::Garble,
    ] {
        takes_effect(fault, Network::Datagram);
    }
}

#[test]
fn each_fault_of_processes_and_clocks_takes_effect_alone() {
    for fault in [
        Fault::Pause,
        Fault::Zombie,
        Fault::ZombieClient,
        Fault::CrashClient,
        Fault::ClockJump,
        Fault::ClockDrift,
    ] {
        takes_effect(fault, Network::Fabric);
    }
}

/// What goes wrong in a tree of three levels.
#[test]
fn each_fault_of_the_tree_takes_effect_alone() {
    for (fault, class) in [
        (Fault::CrashAggregator, Durability::D0),
        (Fault::PauseVertex, Durability::D0),
        (Fault::CutParent, Durability::D0),
        (Fault::CutChildren, Durability::D0),
        (Fault::RestartVertex, Durability::D0),
        (Fault::LoseRounds, Durability::D0),
        (Fault::LoseLastCut, Durability::D0),
        (Fault::OverwriteReports, Durability::D0),
        (Fault::RepeatReports, Durability::D0),
        (Fault::ReorderReports, Durability::D0),
        (Fault::RegressReport, Durability::D1),
        (Fault::FullRing, Durability::D0),
    ] {
        for network in [Network::Fabric, Network::Datagram] {
            let mut installed = 0;
            for seed in 1..=3 {
                let plan = Plan {
                    class,
                    shards: 3,
                    tree: vec![(2, 0), (1, 0), (0, 0), (0, 2), (0, 4)],
                    ..only(fault, network)
                };
                let report = run(seed, plan);
                assert!(report.seen.acks > 100, "{report:?}");
                installed += report.faults[fault];
            }
            assert!(installed > 0, "{fault:?} never took effect on {network:?}");
        }
    }
}

/// Controllers that are slow or have no majority, while others have something to ask them. The data plane goes on in its
/// epoch.
#[test]
fn appends_are_acked_while_the_controllers_are_silent() {
    let mut acked = 0;
    for fault in [Fault::ControllerSlow, Fault::MajorityLoss] {
        let mut installed = 0;
        for seed in 1..=3 {
            let plan = Plan {
                faults: vec![(fault, 4), (Fault::CrashLeaf, 1), (Fault::Reset, 8)],
                ..only(fault, Network::Fabric)
            };
            let report = run(seed, plan);
            installed += report.faults[fault];
            acked += report.seen.acks_in_minority;
        }
        assert!(installed > 0, "{fault:?}");
    }
    assert!(acked > 20, "{acked}");
}

/// Clocks that are days apart and go at different rates change nothing while all is well.
#[test]
fn clocks_that_disagree_change_nothing() {
    for network in [Network::Fabric, Network::Datagram] {
        for seed in 1..=3 {
            let plan = Plan {
                network,
                clocks: true,
                ..Plan::calm()
            };
            let report = run(seed, plan);
            assert!(report.seen.acks > 100, "{report:?}");
            assert_eq!(report.seen.acks, report.appends, "{report:?}");
        }
    }
}

/// What a run is drawn from never goes beyond what the class survives unless it says so, and never without a fault.
#[test]
fn only_a_plan_that_says_so_goes_beyond_the_class() {
    let mut beyond = 0;
    for seed in 0..2_000 {
        let plan = Plan::draw(seed);
        let kinds = plan.faults.iter().map(|(fault, _)| *fault);
        assert!(!plan.faults.is_empty(), "seed {seed}");
        assert!(
            plan.beyond_f || kinds.into_iter().all(|fault| !plan.is_beyond(fault)),
            "seed {seed}: {plan:?}"
        );
        assert!(plan.calls[0] >= 1000, "seed {seed}");
        beyond += u64::from(plan.beyond_f);
    }
    assert!((100..500).contains(&beyond), "{beyond}");
}

/// A plan whose only fault finds nothing to hit gets another one.
#[test]
fn a_fault_that_finds_nothing_is_replaced_by_one_that_does() {
    let plan = Plan {
        // Nobody at D0 has a device.
        faults: vec![(Fault::SlowDisk, 1)],
        ..only(Fault::SlowDisk, Network::Fabric)
    };
    let report = run(1, plan);
    assert_eq!(report.faults[Fault::SlowDisk], 0);
    assert!(report.faults.total() > 0, "{report:?}");
}

/// Controllers that had heard that a shard was whole, but had not made it durable, were replaced: their heir did not know
/// it, and declared lost what the one crash since then had taken. A crash is within what D0 survives only if the controllers
/// durably know that the shard is whole.
#[test]
fn what_silent_controllers_have_heard_is_not_known() {
    let mut plan = Plan::calm();
    plan.apply(
        "network=Datagram,buffer_bytes=12288,payload_bytes_max=8,think_ns=1500000,outstanding_max=256,\
         cut_interval_us=100,calls=1000+1200,clocks=true,fault_ns=400000000,operations_max=175,\
         faults=CrashReplica:2+CrashLeaf:3+Zombie:1+ZombieClient:2+ZombieController:3+ControllerSlow:3+PartitionFull:3+\
         PartitionPair:2+Swizzle:2+Loss:1+ClockDrift:2+CrashAtFlush:3,only=0+1+8+10+13+14+26",
    )
    .unwrap();
    assert!(!plan.beyond_f, "{plan:?}");
    run(280, plan);
}
