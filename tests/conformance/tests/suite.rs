//! The suite is tried on backends that are broken on purpose: each must fail, by the case that is about it, and in its words. That the
//! sound ones pass every case is the business of the gate's stage `conformance`; here they do a short run of many messages.

use std::time::Duration;

use ionian_conformance::backends::{find, required};
use ionian_conformance::ground::Patience;
use ionian_conformance::run::{Plan, Verdict, run};

/// What the named cases say of a backend.
fn verdicts(backend: &str, cases: &[&str]) -> Vec<Verdict> {
    let plan = Plan {
        backends: vec![find(backend).expect("a broken backend")],
        required: Vec::new(),
        cases: cases.iter().map(|case| (*case).to_owned()).collect(),
        patience: Patience {
            rounds: 30_000,
            wall: Duration::from_secs(30),
        },
        messages: None,
    };
    let mut verdicts = Vec::new();
    run(&plan, &mut |line| verdicts.push(line.verdict.clone()));
    assert_eq!(verdicts.len(), cases.len(), "a verdict for each case");
    verdicts
}

fn fails_with(verdict: &Verdict, words: &str) -> bool {
    matches!(verdict, Verdict::Fail(why) if why.contains(words))
}

const FIRST: [&str; 3] = ["delivery", "once", "ordering"];

#[test]
fn what_loses_is_found_by_delivery_alone() {
    for backend in ["broken-shm-loses", "broken-udp-loses"] {
        let said = verdicts(backend, &FIRST);
        assert!(fails_with(&said[0], "messages were lost"), "{said:?}");
        assert!(
            matches!(said[1..], [Verdict::Pass(..), Verdict::Pass(..)]),
            "{said:?}"
        );
    }
}

#[test]
fn what_repeats_is_found_by_once_alone() {
    for backend in ["broken-shm-duplicates", "broken-udp-duplicates"] {
        let said = verdicts(backend, &FIRST);
        assert!(fails_with(&said[1], "messages came twice"), "{said:?}");
        assert!(
            matches!(said[..], [Verdict::Pass(..), _, Verdict::Pass(..)]),
            "{said:?}"
        );
    }
}

#[test]
fn what_leaks_is_found_by_the_account_of_buffers() {
    for backend in ["broken-shm-leaks", "broken-udp-leaks"] {
        let said = verdicts(backend, &["sizes", "buffers"]);
        assert!(
            fails_with(&said[0], "buffers of end 0 are in use"),
            "{said:?}"
        );
        assert!(fails_with(&said[1], "are in use"), "{said:?}");
    }
}

#[test]
fn many_messages_with_faults_lose_no_message_and_no_buffer() {
    let names = required(false);
    let plan = Plan {
        backends: names
            .iter()
            .map(|name| find(name).expect("in the table"))
            .collect(),
        required: names.into_iter().map(str::to_owned).collect(),
        cases: Vec::new(),
        patience: Patience::default(),
        messages: Some(20_000),
    };
    let mut said = Vec::new();
    let summary = run(&plan, &mut |line| said.push(line.to_string()));
    assert_eq!(summary.failed, 0, "{}", said.join("\n"));
    assert!(
        said.iter()
            .all(|line| line.contains("long sent=20000 received=20000 buffers=1024/1024")),
        "{}",
        said.join("\n")
    );
}
