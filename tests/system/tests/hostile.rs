//! A hundred thousand datagrams of strangers, and a node that is as it was before.

mod common;

use std::time::Duration;

use common::binary;
use ionian_system_tests::hostile::{self, Plan, Try};

#[test]
fn strangers_change_nothing_and_are_counted() {
    let Some(binary) = binary("strangers_change_nothing_and_are_counted") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plan = Plan {
        tries: 100_000,
        half_open: 6_000,
        silent: 200,
        rate_per_s: 20_000,
        span: Duration::from_secs(1),
        seed: 1,
    };
    let outcome = hostile::run(&binary, dir.path(), &plan).expect("it runs");
    print!("{}", outcome.text());
    assert_eq!(outcome.problems, [""; 0]);
    let kinds = outcome.sent.iter().filter(|(_, count)| *count > 10_000);
    assert_eq!(kinds.count(), Try::ALL.len(), "{:?}", outcome.sent);
    assert!(outcome.dropped > 0 && outcome.goodput_per_s[0] > 0.0);
}
