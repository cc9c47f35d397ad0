//! The life of processes: restarts, rest, orderly ends.

mod common;

use std::time::{Duration, Instant};

use common::{Dev, LIMIT, binary, seq};
use ionian_system_tests::{Cluster, Durability, wait_until};

/// How long a cluster at rest is watched.
const WATCH: Duration = Duration::from_secs(4);

#[test]
fn dev_with_a_data_directory_survives_kills_and_orderly_ends() {
    let Some(binary) = binary("dev_with_a_data_directory_survives_kills_and_orderly_ends") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut expected = Vec::new();
    let mut dev = Dev::start(&binary, dir.path(), &[]);
    for life in 0..4 {
        let input = seq(20_000 + life);
        dev.succeed(&["append"], &input);
        expected.extend_from_slice(&input);
        if life % 2 == 0 {
            dev.process.kill().expect("it can be killed");
        } else {
            dev.process.ask_to_end().expect("it can be asked");
            let status = dev
                .process
                .exit_within(LIMIT)
                .expect("it can be waited for");
            assert_eq!(status.and_then(|status| status.code()), Some(0));
        }
        dev = Dev::start_at(&binary, dir.path(), dev.address.clone(), &[]);
        // The first question to the new life has the right answer.
        assert!(
            dev.succeed(&["tail"], b"") == expected,
            "life {life} lost something"
        );
    }
}

#[test]
fn clusters_at_rest_leave_the_processor_alone() {
    let Some(binary) = binary("clusters_at_rest_leave_the_processor_alone") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dev = Dev::start(&binary, dir.path(), &[]);
    dev.succeed(&["append"], &seq(1_000));
    let mut cluster =
        Cluster::start(&binary, &dir.path().join("five"), Durability::D1).expect("it starts");
    cluster.wait_able(LIMIT).expect("it can append");
    let used = || {
        let nodes = (0..cluster.len()).filter_map(|node| cluster.node(node));
        let five: f64 = nodes
            .map(|process| process.processor_seconds().expect("it runs"))
            .sum();
        (dev.process.processor_seconds().expect("it runs"), five)
    };
    let (before, began) = (used(), Instant::now());
    wait_until(WATCH, || Ok(false)).expect("nothing can fail");
    let (after, seconds) = (used(), began.elapsed().as_secs_f64());
    let share = |before: f64, after: f64| 100.0 * (after - before) / seconds;
    let (dev, five) = (share(before.0, after.0), share(before.1, after.1));
    println!("at rest: dev {dev:.1} % of a core, five processes {five:.1} %");
    assert!(dev < 5.0, "dev at rest takes {dev:.1} % of a core");
    assert!(
        five < 25.0,
        "five processes at rest take {five:.1} % of a core"
    );
}

#[test]
fn an_orderly_end_under_load_loses_nothing() {
    let Some(binary) = binary("an_orderly_end_under_load_loses_nothing") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut dev = Dev::start(&binary, dir.path(), &[]);
    dev.succeed(&["append"], &seq(10));
    let address = dev.address.clone();
    let input = seq(3_000_000);
    let appending = {
        let (binary, address) = (binary.clone(), address.clone());
        std::thread::spawn(move || {
            binary.run(
                &["append", "--gsn", "--quiet", "--cluster", &address],
                &input,
                LIMIT,
            )
        })
    };
    // In the middle of it.
    let under_way = wait_until(LIMIT, || {
        let status = binary.run(&["status", "--json", "--cluster", &address], b"", LIMIT)?;
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        let value: serde_json::Value = serde_json::from_str(&text)?;
        Ok(value["logs"][0]["tail"].as_u64() > Some(10))
    });
    assert!(under_way.expect("it answers"), "nothing was appended");
    dev.process.ask_to_end().expect("it can be asked");
    let status = dev
        .process
        .exit_within(LIMIT)
        .expect("it can be waited for");
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(0),
        "{}",
        dev.process.last_words()
    );
    let dev = Dev::start_at(&binary, dir.path(), address, &[]);
    let output = appending.join().expect("no panic").expect("it ends");
    let tail = String::from_utf8(dev.succeed(&["tail"], b"")).expect("numbers");
    let log: Vec<&str> = tail.lines().collect();
    let positions = String::from_utf8(output.stdout).expect("numbers");
    let mut acked = 0;
    for (record, position) in positions.lines().enumerate() {
        let at: usize = position.parse().expect("a position");
        assert_eq!(log[at], (record + 1).to_string(), "at {at}");
        acked += 1;
    }
    assert!(acked > 0, "nothing was acknowledged: {}", output.stderr);
}
