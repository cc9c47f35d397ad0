//! `ionian bench cuts` as a person uses it: what it prints and writes, and what it says of options that make no sense.

mod common;

use std::path::Path;

use common::ionian;
use serde_json::Value;

/// A run that is over in a moment.
const SHORT: &[&str] = &[
    "bench",
    "cuts",
    "--quiet",
    "--shards",
    "8",
    "--report-rate",
    "200",
    "--duration",
    "0.3",
    "--repeat",
    "1",
];

fn run(folder: &Path, more: &[&str]) -> String {
    let output = ionian(folder, &[SHORT, more].concat(), b"");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{more:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn json_has_every_figure() {
    let folder = tempfile::tempdir().expect("a folder");
    let json: Value = serde_json::from_str(&run(folder.path(), &["--json"])).expect("JSON");
    for key in [
        "reports_merged_per_s",
        "cuts_per_s",
        "root_backups",
        "up_bytes_per_s",
        "down_bytes_per_server_per_cut",
        "cut_log_bytes_per_segment",
        "ordering_capacity_per_s",
        "per_shard_rate",
        "ratio_to_table_scan",
    ] {
        let value = json[key].as_f64();
        assert!(value.is_some_and(|it| it > 0.0), "{key}: {}", json[key]);
    }
    for ages in ["age_root_us", "age_reporter_us"] {
        for quantile in ["p50", "p99", "p999"] {
            let value = json[ages][quantile].as_f64();
            assert!(value.is_some_and(|it| it > 0.0), "{ages}: {}", json[ages]);
        }
    }
    for side in ["tree", "servers"] {
        assert!(json["cpu_ns_per_report"][side].is_f64(), "{side}");
        assert!(json["cpu"][side]["cpu_share"].is_f64(), "{side}");
    }
    assert!(json["goals"].is_array());
    assert_eq!(json["account"]["whole"], true);
    assert_eq!(json["account"]["ordered"], json["account"]["records"]);
    assert_eq!(
        (&json["transport"], &json["durability"]),
        (&"inproc".into(), &"D0".into())
    );
}

#[test]
fn results_are_written_in_every_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
    let text = run(folder.path(), &["--out", "a.json"]);
    for part in [
        "distinct reports merged/s",
        "core plan",
        "durability  D0",
        "account:",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let json: Value = serde_json::from_str(&read("a.json")).expect("JSON");
    assert_eq!(json["shards"], 8);
    run(folder.path(), &["--out", "a.csv"]);
    let csv = read("a.csv");
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(columns.len() == 2 && columns[0] == columns[1], "{csv}");
    run(folder.path(), &["--out", "a.svg"]);
    let svg = read("a.svg");
    assert!(
        svg.starts_with("<svg ") && svg.contains("at the servers"),
        "{svg}"
    );
}

#[test]
fn a_sweep_writes_lines_and_a_plot() {
    let folder = tempfile::tempdir().expect("a folder");
    let sweep = [
        "--sweep",
        "--sweep-shards",
        "4,8",
        "--sweep-fan-in",
        "1,2",
        "--out",
        "s.csv",
    ];
    let text = run(folder.path(), &sweep);
    assert!(text.contains("cost of a report to the tree"), "{text}");
    let csv = std::fs::read_to_string(folder.path().join("s.csv")).expect("CSV");
    assert_eq!(csv.lines().count(), 5, "{csv}");
    let svg = std::fs::read_to_string(folder.path().join("s.svg")).expect("a plot");
    assert!(svg.contains("fan-in 2") && svg.contains("shards"), "{svg}");
}

#[test]
fn servers_are_told_the_same_however_many_shards_there_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = run(folder.path(), &["--check-down-bytes", "10,100,1000"]);
    assert!(text.ends_with("equal\n"), "{text}");
}

#[test]
fn a_trace_shows_the_frames_of_a_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = run(folder.path(), &["--trace", "1"]);
    for part in [
        "Report {",
        "Up {",
        "RootWrite {",
        "Cut of gsn",
        "RootWritten(",
        "Down(",
        "DownShard {",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn options_without_sense_are_refused_with_what_to_give() {
    let folder = tempfile::tempdir().expect("a folder");
    for (line, says) in [
        (["--fan-in", "0"], "--fan-in is 0: give 1 to 4096"),
        (["--depth", "9"], "--depth is 9: give 1 to 8"),
        (["--shards", "40000"], "--shards is 40000: give 1 to 32768"),
        (["--replicas", "8"], "--replicas is 8: give 1 to 7"),
        (["--fan-in", "100"], "more leaves than shards"),
        (["--root-backups", "7"], "--root-backups is 7: give 0 to 6"),
        (["--out", "a.png"], "ends in .json, .csv or .svg"),
        (["--durability", "D2"], "possible values: D0, D1"),
        (
            ["--transport", "pigeon"],
            "possible values: inproc, shm, udp",
        ),
        (
            ["--duration", "0"],
            "--duration is 0: give at least a millisecond",
        ),
    ] {
        let output = ionian(
            folder.path(),
            &[&["bench", "cuts"], &line[..]].concat(),
            b"",
        );
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {error}");
        assert!(
            error.contains(says),
            "{line:?} does not say {says:?}: {error}"
        );
    }
}
