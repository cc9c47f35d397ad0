//! `ionian status` against real processes: what it says of a cluster that can append, of one that cannot, and of none.

mod common;

use common::{Dev, Nodes, run_at};
use serde_json::Value;

#[test]
fn a_cluster_that_can_append_tells_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let dev = Dev::start_with(folder, "data", &["--log", "default", "--log", "other"]);
    let input: Vec<u8> = b"record\n".repeat(5_000);
    let (code, _, said) = dev.run(folder, &["append"], &input);
    assert_eq!(code, Some(0), "{said}");
    let (code, out, said) = dev.run(
        folder,
        &["status", "--counters", "--out", "status.json"],
        b"",
    );
    assert_eq!(code, Some(0), "{out}{said}");
    for part in [
        "log default: scalog, D1; positions 0 to 5,000, 5,000 kept\n",
        "log other: scalog, D1; positions 0 to 0, 0 kept\n",
        "cuts/s, ",
        "last cut ",
        "up i",
        "nobody holds a cut back",
        "appended  ",
        "5,000",
        "written_bytes",
        "strangers",
    ] {
        assert!(out.contains(part), "{part:?}: {out}");
    }
    assert!(out.ends_with("\nthe cluster can append\n"), "{out}");
    let file = std::fs::read(folder.join("status.json")).expect("the file");
    let json: Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(
        (&json["able"], &json["faults"]),
        (&true.into(), &Value::Array(vec![]))
    );
    let log = &json["logs"][0];
    assert_eq!((&log["head"], &log["tail"]), (&0.into(), &5_000.into()));
    assert!(
        log["cuts_per_second"].is_f64() && log["last_cut_age_us"].is_u64(),
        "{log}"
    );
    let replicas = log["shards"][0]["replicas"].as_array().expect("replicas");
    let held = |replica: &Value| -> u64 {
        let segments = replica["segments"].as_array().expect("segments");
        segments.iter().filter_map(|one| one["held"].as_u64()).sum()
    };
    assert_eq!(held(&replicas[0]), held(&replicas[1]), "{log}");
    let both: u64 = log["shards"]
        .as_array()
        .expect("shards")
        .iter()
        .map(|shard| held(&shard["replicas"][0]))
        .sum();
    assert_eq!(both, 5_000);
    for replica in replicas {
        assert!(
            replica["disk_bytes"].as_u64() > Some(0) && replica["memory_bytes"].as_u64() > Some(0)
        );
        assert_eq!(
            (&replica["damaged"], &replica["repaired"]),
            (&0.into(), &0.into())
        );
        assert!(
            replica["report_age_us"].is_u64() && replica["up"] == true,
            "{replica}"
        );
    }
    let (code, out, _) = dev.run(folder, &["status", "--log", "other", "--json"], b"");
    let json: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, json["logs"].as_array().map(Vec::len)),
        (Some(0), Some(1))
    );
    assert_eq!(json["logs"][0]["name"], "other");
    let (code, _, said) = dev.run(folder, &["status", "--log", "none"], b"");
    assert!(
        code == Some(1) && said.contains("has no log \"none\"; it has default, other"),
        "{said}"
    );
}

#[test]
fn what_is_missing_is_named_and_the_code_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut nodes = Nodes::start(folder.path(), "");
    nodes.wait_for_status(0, "the cluster can append");
    assert_eq!(nodes.run(&["append", "--gsn"], b"a\nb\n").1, "0\n1\n");

    nodes.kill(3);
    // Before anybody knows that it is gone, and after.
    for line in [&["append", "--spread"][..], &["append"]] {
        let (code, _, said) = nodes.run(line, b"c\nd\n");
        assert!(
            code == Some(1)
                && said.contains("replica 0.1 on node n3 (127.0.0.1:")
                && said.contains(") is missing"),
            "{line:?}: {said}"
        );
    }
    let said = nodes.wait_for_status(
        3,
        "log default: replica 0.1 is missing: node n3 (127.0.0.1:",
    );
    assert!(said.ends_with("\nthe cluster cannot append\n"), "{said}");
    assert!(
        said.contains("no answer") && said.contains("down"),
        "{said}"
    );
    // The one that waits for it is no news.
    assert!(!said.contains("takes no appends"), "{said}");

    nodes.start_node(3, &[]);
    nodes.wait_for_status(0, "the cluster can append");

    nodes.kill(1);
    nodes.wait_for_status(3, "the controller is missing: node n1 (127.0.0.1:");

    nodes.kill(2);
    nodes.kill(3);
    let (code, out, said) = nodes.run(&["status"], b"");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(said.contains("no cluster answers at 127.0.0.1:"), "{said}");
}

#[test]
fn nobody_there_is_an_error_and_not_a_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, out, said) = run_at("127.0.0.1:9", folder.path(), &["status", "--json"], b"");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        said.contains("no cluster of `ionian dev` is known at 127.0.0.1:9"),
        "{said}"
    );
}
