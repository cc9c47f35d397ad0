//! A device that fails under `ionian dev`: the process says so and ends with a code of its own, and the next one goes on.

mod common;

use std::fs::{File, read_to_string};
use std::io::Write;
use std::process::Stdio;

use common::{Dev, Running, command, free_address, until};

/// Lines of one run of `append`.
const LINES: usize = 100;

#[test]
fn a_failed_device_ends_the_process_with_its_own_exit_code_and_what_was_acknowledged_stays() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path();
    let address = free_address();
    let said = path.join("said");
    let mut dev = command(path);
    dev.args(["dev", "--listen", &address, "--data-dir", "data"])
        .args(["--memory-bytes-max", "128MiB", "--fail-flush", "60"])
        .stderr(File::create(&said).expect("writable"));
    let mut dev = Running(dev.spawn().expect("it starts"));
    let text = || read_to_string(&said).expect("readable");
    until("it listens", || {
        let text = text();
        text.contains("in another terminal")
            .then_some(())
            .ok_or(text)
    });
    let mut acknowledged = 0;
    let mut ended = None;
    for run in 0..10_000 {
        let mut append = command(path);
        append.args(["append", "--quiet", "--cluster", &address]);
        append.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut append = Running(append.spawn().expect("it starts"));
        let lines: String = (0..LINES)
            .map(|at| format!("run {run} line {at}\n"))
            .collect();
        let mut input = append.0.stdin.take().expect("a pipe");
        // It may have ended with the cluster.
        let _ = input.write_all(lines.as_bytes());
        drop(input);
        let mut done = None;
        until("the records are in, or the process has ended", || {
            ended = dev.0.try_wait().expect("it can be asked");
            done = append.0.try_wait().expect("it can be asked");
            let over = ended.is_some() || done.is_some();
            over.then_some(()).ok_or_else(text)
        });
        if ended.is_some() {
            break;
        }
        if done.is_some_and(|done| done.success()) {
            acknowledged += LINES;
        }
    }
    assert_eq!(ended.and_then(|ended| ended.code()), Some(4), "{}", text());
    let text = text();
    for part in [
        "ionian: ",
        "the device failed in flush (device error 5 in Flush)",
        "start it again: it goes on with what data/",
        "replace the device and ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert_eq!(
        text.matches("device failed").count(),
        1,
        "said once: {text}"
    );
    assert!(acknowledged > 0);

    let dev = Dev::start(path, "data");
    let (code, out, error) = dev.run(path, &["tail", "--from", "0"], b"");
    assert_eq!(code, Some(0), "{error}");
    let there = out.lines().count();
    // The run that the failure met is in doubt, as a whole or a part.
    assert!(
        (acknowledged..=acknowledged + LINES).contains(&there),
        "{there} of {acknowledged}"
    );
}
