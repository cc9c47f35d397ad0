//! A large log is there again soon after its process was killed: recovery is bounded by what was written since the last
//! checkpoint, not by the log.

mod common;

use std::time::{Duration, Instant};

use common::{Dev, LIMIT, binary, seq};

const COUNT: u64 = 10_000_000;
const GOAL: Duration = Duration::from_secs(5);

#[test]
fn ten_million_records_are_read_soon_after_a_kill() {
    let Some(binary) = binary("ten_million_records_are_read_soon_after_a_kill") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dev = Dev::start(&binary, dir.path(), &[]);
    dev.succeed(&["append"], &seq(COUNT));
    drop(dev);

    let began = Instant::now();
    let dev = Dev::start(&binary, dir.path(), &[]);
    let middle = (COUNT / 2).to_string();
    let read = dev.succeed(&["read", &middle], b"");
    let taken = began.elapsed();
    assert_eq!(read, format!("{}\n", COUNT / 2 + 1).into_bytes());
    println!(
        "first read {:.2} s after the start, goal {} s: {}",
        taken.as_secs_f64(),
        GOAL.as_secs(),
        if taken <= GOAL { "met" } else { "NOT met" }
    );
    let last = (COUNT - 1).to_string();
    let tail = dev.succeed(&["tail", "--from", &last, "--count", "1"], b"");
    assert_eq!(tail, format!("{COUNT}\n").into_bytes());
    assert!(taken < LIMIT, "it took {taken:?}");
}
