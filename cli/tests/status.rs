//! `ionian status` against real processes: what it says of a cluster that can append, of one that cannot, and of none.

mod common;

use common::{Dev, Nodes, ionian, run_at};
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

#[test]
fn a_tree_is_shown_level_by_level() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let more = "--shards 3 --root-members 3 --fan-in 2 --depth 2";
    let more: Vec<&str> = more.split(' ').collect();
    let dev = Dev::start_with(folder, "data", &more);
    assert!(dev.said.contains("aggregator 0 of default"), "{}", dev.said);
    let input: Vec<u8> = b"record\n".repeat(5_000);
    let (code, _, said) = dev.run(folder, &["append", "--spread"], &input);
    assert_eq!(code, Some(0), "{said}");
    let (code, out, said) = dev.run(folder, &["status", "--out", "status.json"], b"");
    assert_eq!(code, Some(0), "{out}{said}");
    for part in [
        "ordering tree: 2 levels, 1 aggregator, 2 leaves\n",
        "\n    1  aggregators  1 of 1  ",
        "\n    2  leaves       2 of 2  ",
        "\n    3  replicas     6 of 6  ",
        "\naggregator 0     1  up i",
        "\n  leaf 1         1  up i",
    ] {
        assert!(out.contains(part), "{part:?}: {out}");
    }
    let file = std::fs::read(folder.join("status.json")).expect("the file");
    let json: Value = serde_json::from_slice(&file).expect("JSON");
    let tree = &json["logs"][0]["tree"];
    let levels = tree["levels"].as_array().expect("levels");
    assert_eq!(levels.len(), 4, "{tree}");
    // Every level but the last has seen a cut; the last one has reported.
    let ages: Vec<bool> = levels.iter().map(|it| it["cut_age_us"].is_u64()).collect();
    assert_eq!(ages, [true, true, true, false], "{tree}");
    assert!(levels[3]["report_age_us"].is_u64(), "{tree}");
    assert!(levels[0]["backfills"].is_u64() && levels[3]["backfills"].is_u64());
    let vertices = tree["vertices"].as_array().expect("vertices");
    assert!(
        vertices
            .iter()
            .all(|it| it["running"] == true && it["rounds_in_flight"].is_u64()),
        "{tree}"
    );
    let parents: Vec<&Value> = vertices.iter().map(|it| &it["parent"]).collect();
    assert_eq!(parents, [&Value::Null, &0.into(), &0.into()]);
    let shards = json["logs"][0]["shards"].as_array().expect("shards");
    let leaves: Vec<u64> = shards.iter().filter_map(|it| it["leaf"].as_u64()).collect();
    assert_eq!(leaves.len(), 3);
    assert!(leaves.contains(&1) && leaves.contains(&2), "{leaves:?}");
    assert!(shards.iter().all(|it| it["minimum_at"].is_u64()));
}

#[test]
fn what_a_tree_costs_is_measured_beside_one_leaf() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = "bench append --embedded --compare-tree --records 2000 --repeat 1 --quiet --json";
    let line: Vec<&str> = line.split(' ').collect();
    let output = ionian(folder.path(), &line, b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&json["tree_depth"], &json["root_members"]),
        (&2.into(), &3.into())
    );
    let plain = &json["one_leaf_and_root"];
    let ratio = plain["p50_ratio"].as_f64().expect("a ratio");
    let goal = &json["goals"][0];
    assert!(ratio > 0.0 && goal["value"] == ratio && goal["goal"] == 2.0);
    assert_eq!(goal["met"], ratio <= 2.0);
    // A repetition of each way, its warm-up, and both again without the tree.
    let read = json["read_back"]["records"].as_u64().expect("records");
    assert!(read >= 4_000 && plain["read_back"].as_u64() >= Some(4_000));
    for (line, why) in [
        ("bench append --tree-depth 2", "--fan-in <N>"),
        ("bench append --fan-in 2 --tree-depth 9", "1..=8"),
        (
            "bench append --shards 9 --fan-in 2 --tree-depth 1",
            "9 shards with a fan-in of 2 need 3 levels, not 1",
        ),
        ("dev --fan-in 1", "2..=1024"),
        ("dev --depth 2", "--fan-in <N>"),
        ("demo --fan-in 2 --depth 9", "1..=8"),
    ] {
        let line: Vec<&str> = line.split(' ').collect();
        let output = ionian(folder.path(), &line, b"");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {said}");
        assert!(said.contains(why), "{line:?}: {said}");
    }
}
