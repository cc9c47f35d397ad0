//! `--history`: the file of a command parses as `hist/1`, holds every call, every answer and every delivery, and the judge
//! finds nothing wrong with it.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::{Dev, ionian};
use ionian_histcheck::{Id, Judge, read_lines};
use serde_json::Value;

/// The events of a file after its header, which must name this durability.
fn events(file: &Path, durability: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("the history");
    let mut events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let header = events.remove(0);
    assert_eq!((&header["e"], &header["v"]), (&"hdr".into(), &1.into()));
    assert_eq!(header["durability"], durability, "{header}");
    assert_eq!(
        (&header["shards"], &header["replicas"], &header["f"]),
        (&2.into(), &2.into(), &1.into())
    );
    let times: Vec<u64> = events.iter().map(|event| number(event, "t")).collect();
    assert!(times.is_sorted(), "events stand in the order of time");
    events
}

/// The judge reads the files as one history and finds it well formed and without violation. It may ask for more coverage
/// (V1): the commands write no final read.
fn judged(folder: &Path, files: &[&str]) {
    let mut judge = Judge::new();
    for file in files {
        let file = std::fs::File::open(folder.join(file)).expect("the history");
        read_lines(&mut judge, file).expect("a history that can be read");
    }
    let report = judge.finish();
    let mut violated = report.violated();
    violated.retain(|id| *id != Id::V1);
    assert!(violated.is_empty(), "{}", report.text());
    assert!(report.of(Id::S1).checked > 0 && report.of(Id::S16).checked > 0);
}

fn number(event: &Value, key: &str) -> u64 {
    event[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key}: {event}"))
}

/// Payload hashes of the appends of a history by the position that each was given. Every call has one answer after it.
fn appended(events: &[Value]) -> BTreeMap<u64, String> {
    let mut open: BTreeMap<u64, Option<String>> = BTreeMap::new();
    let mut processes = BTreeSet::new();
    let mut process_of = BTreeMap::new();
    let mut done = BTreeMap::new();
    for event in events {
        match event["e"].as_str() {
            Some("inv") => {
                let (op, process) = (number(event, "op"), number(event, "p"));
                assert!(processes.insert(process), "two calls at once: {event}");
                process_of.insert(op, process);
                let append = event["f"] == "append";
                let hash = append.then(|| event["h"].as_str().expect("a hash").to_owned());
                assert!(open.insert(op, hash).is_none(), "called twice: {event}");
            }
            Some("ok") => {
                let op = number(event, "op");
                let called = open.remove(&op).expect("an answer to a call");
                processes.remove(&process_of[&op]);
                if let Some(hash) = called {
                    let before = done.insert(number(event, "gsn"), hash);
                    assert!(before.is_none(), "two appends at one position: {event}");
                }
            }
            Some("fail" | "info") => panic!("nothing fails here: {event}"),
            _ => {}
        }
    }
    assert!(open.is_empty(), "calls without an answer: {open:?}");
    done
}

/// Payload hashes of the deliveries of a history by position, each once per subscription.
fn delivered(events: &[Value]) -> BTreeMap<u64, String> {
    let subscriptions: BTreeSet<u64> = events
        .iter()
        .filter(|event| event["e"] == "sub")
        .map(|event| number(event, "sub"))
        .collect();
    let mut all = BTreeMap::new();
    for event in events.iter().filter(|event| event["e"] == "dlv") {
        assert!(subscriptions.contains(&number(event, "sub")), "{event}");
        let hash = event["h"].as_str().expect("a hash").to_owned();
        assert!(all.insert(number(event, "gsn"), hash).is_none(), "{event}");
    }
    all
}

#[test]
fn append_and_tail_keep_every_event() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let dev = Dev::start(folder, "data");
    let input: String = (0..3_000).map(|line| format!("line {line}\n")).collect();
    let line = ["append", "--spread", "--history", "append.jsonl"];
    let (code, _, said) = dev.run(folder, &line, input.as_bytes());
    assert_eq!(code, Some(0), "{said}");
    let (code, out, said) = dev.run(folder, &["tail", "--history", "tail.jsonl"], b"");
    assert_eq!((code, out.lines().count()), (Some(0), 3_000), "{said}");
    let calls = events(&folder.join("append.jsonl"), "D1");
    let appended = appended(&calls);
    assert_eq!(appended.len(), 3_000);
    assert!(appended.keys().copied().eq(0..3_000));
    let seen = events(&folder.join("tail.jsonl"), "D1");
    assert_eq!(
        delivered(&seen),
        appended,
        "what was appended was delivered"
    );

    let (code, _, said) = dev.run(
        folder,
        &["trim", "--before", "10", "--history", "trim.jsonl"],
        b"",
    );
    assert_eq!(code, Some(0), "{said}");
    let trim = events(&folder.join("trim.jsonl"), "D1");
    assert!(
        trim.iter().any(|event| event["f"] == "trim")
            && trim.iter().any(|event| event["head"] == 10)
    );
    let (_, out, _) = dev.run(
        folder,
        &[
            "tail",
            "--from",
            "0",
            "--count",
            "1",
            "--history",
            "gap.jsonl",
        ],
        b"",
    );
    assert_eq!(out.lines().count(), 1, "{out}");
    let gap = events(&folder.join("gap.jsonl"), "D1");
    let gap = gap
        .iter()
        .find(|event| event["e"] == "gap")
        .expect("the gap");
    assert_eq!(
        (&gap["lo"], &gap["hi"], &gap["kind"]),
        (&0.into(), &10.into(), &"trim".into())
    );

    judged(
        folder,
        &["append.jsonl", "tail.jsonl", "trim.jsonl", "gap.jsonl"],
    );

    let (code, _, said) = dev.run(folder, &["append", "--history", "no/such/folder"], b"x\n");
    assert!(
        code == Some(1) && said.contains("cannot write the history no/such/folder"),
        "{said}"
    );
}

#[test]
fn demo_and_bench_keep_every_event_of_all_their_clients() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let input: String = (0..2_000).map(|line| format!("{line}\n")).collect();
    std::fs::write(folder.join("input"), input).expect("a file");
    let output = ionian(
        folder,
        &["demo", "--input", "input", "--history", "demo.jsonl"],
        b"",
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let demo = events(&folder.join("demo.jsonl"), "D0");
    let records = appended(&demo);
    assert!(records.len() >= 2_000 && delivered(&demo) == records);

    let line = [
        "bench",
        "append",
        "--clients",
        "2",
        "--depth",
        "64",
        "--seconds",
        "1",
        "--repeat",
        "1",
        "--records",
        "2000",
        "--spread",
        "--retention",
        "1000",
        "--history",
        "bench.jsonl",
    ];
    let output = ionian(folder, &line, b"");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let bench = events(&folder.join("bench.jsonl"), "D0");
    let records = appended(&bench);
    assert!(records.len() >= 2_000);
    assert_eq!(
        delivered(&bench),
        records,
        "what was acknowledged was read back"
    );
    judged(folder, &["demo.jsonl"]);
    judged(folder, &["bench.jsonl"]);
}
