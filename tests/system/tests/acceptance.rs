//! A million records through a pipe, into a cluster of one process and one of five, and out again the same.

mod common;

use common::{Dev, LIMIT, binary, seq};
use ionian_system_tests::{Binary, Cluster, Durability};

const COUNT: u64 = 1_000_000;

/// Appends a million lines and reads them back, then the same spread over all servers and read by two.
fn a_million_lines(binary: &Binary, cluster: &str) {
    let input = seq(COUNT);
    let run = |arguments: &[&str], input: &[u8]| {
        let arguments = [arguments, &["--cluster", cluster]].concat();
        binary
            .succeed(&arguments, input, LIMIT)
            .expect("it succeeds")
    };
    run(&["append"], &input);
    let count = COUNT.to_string();
    let read = run(&["tail", "--count", &count], b"");
    assert!(read == input, "what comes back is not what went in");

    run(&["append", "--spread"], &input);
    let first = run(&["tail", "--from", &count, "--count", &count], b"");
    let second = run(&["tail", "--from", &count], b"");
    assert!(first == second, "two readers disagree");
    let text = String::from_utf8(first).expect("numbers");
    let mut numbers: Vec<u64> = text
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    numbers.sort_unstable();
    assert!(
        numbers.iter().copied().eq(1..=COUNT),
        "what comes back sorted is not what went in"
    );
}

#[test]
fn a_million_lines_through_dev_come_back_the_same() {
    let Some(binary) = binary("a_million_lines_through_dev_come_back_the_same") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dev = Dev::start(&binary, dir.path(), &[]);
    a_million_lines(&binary, &dev.address);
}

#[test]
fn a_million_lines_through_five_processes_come_back_the_same() {
    let Some(binary) = binary("a_million_lines_through_five_processes_come_back_the_same") else {
        return;
    };
    for durability in [Durability::D0, Durability::D1] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Cluster::start(&binary, dir.path(), durability).expect("it starts");
        cluster.wait_able(LIMIT).expect("it can append");
        a_million_lines(&binary, &cluster.config().display().to_string());
        cluster.stop().expect("it ends in order");
    }
}

#[test]
fn the_demo_compares_what_went_in_with_what_came_out() {
    let Some(binary) = binary("the_demo_compares_what_went_in_with_what_came_out") else {
        return;
    };
    let output = binary
        .run(&["demo", "--quiet"], b"", LIMIT)
        .expect("it ends");
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    for damage in ["drop", "dup", "swap"] {
        let output = binary
            .run(&["demo", "--quiet", "--break", damage], b"", LIMIT)
            .expect("it ends");
        assert_eq!(output.code, Some(1), "--break {damage}: {}", output.stderr);
    }
}
