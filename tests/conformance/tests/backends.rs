//! The backends that must run everywhere pass every case, and count the same.

use ionian_conformance::backends::{find, required};
use ionian_conformance::cases::{CASES, PACKET_CASES};
use ionian_conformance::ground::Patience;
use ionian_conformance::run::{Plan, run};

#[test]
fn what_must_run_everywhere_passes() {
    let plan = Plan {
        backends: required(false)
            .into_iter()
            .map(|name| find(name).expect("in the table"))
            .collect(),
        required: required(false).into_iter().map(str::to_owned).collect(),
        cases: Vec::new(),
        patience: Patience::default(),
        messages: None,
    };
    let mut said = Vec::new();
    let summary = run(&plan, &mut |line| said.push(line.to_string()));
    assert_eq!(
        (summary.failed, summary.skipped),
        (0, 0),
        "{}",
        said.join("\n")
    );
    // Every case on both, and those of datagrams on the one that has them.
    let cases = (CASES.len() * plan.backends.len() + PACKET_CASES.len()) as u64;
    assert_eq!(summary.passed, cases);
}

#[test]
fn many_messages_with_faults_lose_no_buffer() {
    let plan = Plan {
        backends: required(false)
            .into_iter()
            .map(|name| find(name).expect("in the table"))
            .collect(),
        required: Vec::new(),
        cases: Vec::new(),
        patience: Patience::default(),
        messages: Some(50_000),
    };
    let mut said = Vec::new();
    let summary = run(&plan, &mut |line| said.push(line.to_string()));
    assert_eq!(summary.failed, 0, "{}", said.join("\n"));
    assert!(
        said.iter()
            .all(|line| line.contains("long sent=50000 received=50000")),
        "{}",
        said.join("\n")
    );
}
