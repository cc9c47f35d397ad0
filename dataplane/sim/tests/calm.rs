//! Without faults everything is appended, ordered, delivered, and nothing is refused for good.

use ionian_sim::{Network, Plan, World};

fn run(seed: u64, plan: Plan) {
    let report = World::new(seed, plan)
        .run()
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(
        report.seen.acks > 100 && report.seen.delivered > 100,
        "{report:?}"
    );
    assert_eq!(report.seen.acks, report.appends, "{report:?}");
    assert_eq!(report.seen.failed, [0, 0], "{report:?}");
}

#[test]
fn a_quiet_fabric() {
    for seed in 1..=10 {
        run(seed, Plan::calm());
    }
}

#[test]
fn quiet_datagrams() {
    for seed in 1..=4 {
        let plan = Plan {
            network: Network::Datagram,
            ..Plan::calm()
        };
        run(seed, plan);
    }
}
