//! `--history`: the file of a command parses as `hist/1`, holds every call, every answer and every delivery, and the judge
//! finds nothing wrong with it.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::{Dev, ionian};
use ionian_histcheck::{Id, Judge, Verdict, read_lines};
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
    let last = events.pop().expect("a last line");
    assert_eq!(last["e"], "done");
    let times: Vec<u64> = events.iter().map(|event| number(event, "t")).collect();
    assert!(times.is_sorted(), "events stand in the order of time");
    events
}

/// The judge reads the files as one history, with this verdict.
fn judged(folder: &Path, files: &[&str], verdict: Verdict) {
    let mut judge = Judge::new();
    for file in files {
        let file = std::fs::File::open(folder.join(file)).expect("the history");
        read_lines(&mut judge, file).expect("a history that can be read");
    }
    let report = judge.finish();
    assert_eq!(report.verdict(), verdict, "{}", report.text());
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
    let (mut all, mut of_each) = (BTreeMap::new(), BTreeSet::new());
    for event in events.iter().filter(|event| event["e"] == "dlv") {
        let (sub, gsn) = (number(event, "sub"), number(event, "gsn"));
        assert!(subscriptions.contains(&sub), "{event}");
        assert!(of_each.insert((sub, gsn)), "{event}");
        let hash = event["h"].as_str().expect("a hash").to_owned();
        let before = all.insert(gsn, hash.clone());
        assert!(before.is_none_or(|before| before == hash), "{event}");
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

    let files = ["append.jsonl", "tail.jsonl", "trim.jsonl", "gap.jsonl"];
    judged(folder, &files, Verdict::Unknown);
    let line = ["tail", "--final", "--history", "final.jsonl"];
    let (code, out, said) = dev.run(folder, &line, b"");
    assert_eq!((code, out.lines().count()), (Some(0), 2_990), "{said}");
    judged(
        folder,
        &[&files[..], &["final.jsonl"]].concat(),
        Verdict::Pass,
    );

    // What is there stays.
    let line = ["append", "--history", "append.jsonl"];
    let (code, _, said) = dev.run(folder, &line, b"x\n");
    assert!(
        code == Some(2) && said.contains("append.jsonl exists: name another file"),
        "{said}"
    );
    assert_eq!(events(&folder.join("append.jsonl"), "D1"), calls);

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
    judged(folder, &["demo.jsonl"], Verdict::Pass);
    judged(folder, &["bench.jsonl"], Verdict::Pass);
}

/// Several processes load one log at the same time and a third follows it: their files are one history.
#[test]
fn histories_of_processes_are_judged_together() {
    const RECORDS: usize = 2_000;
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let dev = Dev::start(folder, "data");
    let input = |name: &str| -> String {
        let lines = (0..RECORDS).map(|line| format!("{name} {line}\n"));
        lines.collect()
    };
    let append = |file: &str| {
        let line = ["append", "--spread", "--history", file];
        dev.run(folder, &line, input(file).as_bytes())
    };
    let all = (2 * RECORDS).to_string();
    let follow = ["tail", "--follow", "--count", &all, "--history", "c"];
    let ended = std::thread::scope(|scope| {
        let first = scope.spawn(|| append("a"));
        let following = scope.spawn(|| dev.run(folder, &follow, b""));
        let second = append("b");
        [
            first.join().expect("the first ends"),
            second,
            following.join().expect("the follower ends"),
        ]
    });
    let line = ["tail", "--final", "--history", "d"];
    for (code, _, said) in ended.into_iter().chain([dev.run(folder, &line, b"")]) {
        assert_eq!(code, Some(0), "{said}");
    }
    judged(folder, &["a", "b", "c", "d"], Verdict::Pass);
    judged(folder, &["d", "b", "c", "a"], Verdict::Pass);
    // One that is left out is missed: somebody appended what nobody says to have appended.
    judged(folder, &["a", "c", "d"], Verdict::Fail);
}

/// The demonstration judges its history, whether it is kept in a file or not; one that could not be written has no verdict.
#[test]
fn the_demo_says_what_the_judge_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let input: String = (0..3_000).map(|line| format!("{line}\n")).collect();
    std::fs::write(folder.join("input"), input).expect("a file");
    let demo = |more: &[&str]| {
        let line = [&["demo", "--quiet", "--input", "input"], more].concat();
        let output = ionian(folder, &line, b"");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    for kept in [&[][..], &["--history", "h.jsonl"]] {
        let (code, out, said) = demo(kept);
        assert!(
            code == Some(0) && out.contains("pass, by histcheck over 12,0"),
            "{out}{said}"
        );
    }
    for damage in ["drop", "dup", "swap"] {
        let (code, out, said) = demo(&["--break", damage]);
        assert!(
            code == Some(1) && out.contains("fail, by histcheck") && out.contains("NOT VERIFIED"),
            "{out}{said}"
        );
    }
    if Path::new("/dev/full").exists() {
        let (code, out, said) = demo(&["--history", "/dev/full"]);
        assert!(
            code == Some(1) && out.contains("unknown, by histcheck") && !out.contains("pass"),
            "{out}{said}"
        );
        assert!(
            said.contains("the history /dev/full ends here")
                && said.contains("is not complete, nothing can be said by it"),
            "{said}"
        );
    }
}
