//! Copies of a shard that has ended, over real processes: a node is drained and taken away, then the other node that held the
//! records; everything is read from the copy.

mod common;

use common::{LIMIT, binary, seq};
use ionian_system_tests::governed::{Governed, Layout, Who};
use serde_json::Value;

const COUNT: u64 = 3_000;

/// The nodes of the replicas of a shard, by number from 1, and whether all of them hold its records.
fn copies(cluster: &Governed, shard: usize) -> (Vec<u64>, bool) {
    let log = cluster.log("default").expect("described");
    let replicas = log["shards"][shard]["replicas"].as_array().cloned();
    let replicas = replicas.expect("replicas");
    let nodes = replicas.iter().filter_map(|it| it["node"].as_u64());
    let held = replicas.iter().all(|it| it["holds"] == Value::Bool(true));
    (nodes.collect(), held)
}

#[test]
fn a_finalized_shard_is_read_after_every_node_that_had_it_is_gone() {
    let Some(binary) = binary("a_finalized_shard_is_read_after_every_node_that_had_it_is_gone")
    else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let layout = Layout {
        nodes: 6,
        roots: 1,
        shards: &[&[1, 2], &[3, 4]],
        tree: None,
        dead_after_ms: 2_000,
        snapshot_entries: None,
        copies_planned: None,
        data: Vec::new(),
    };
    let mut cluster = Governed::found(&binary, dir.path(), &layout, None).expect("it comes up");
    let file = cluster.config().display().to_string();
    let expected = seq(COUNT);
    let client = |line: &[&str], input: &[u8]| {
        let line = [line, &["--cluster", &file]].concat();
        binary.succeed(&line, input, LIMIT).expect("it succeeds")
    };
    client(&["append", "--shard", "0"], &expected);
    cluster
        .operate(&["shard", "finalize", "default", "0"])
        .expect("finalized");
    client(&["append"], &expected);

    // Its replica goes to the node that has nothing yet; the other replica and the one that leaves serve meanwhile.
    let said = cluster.operate(&["node", "drain", "n2"]).expect("drained");
    assert!(said.contains("replica 0.0 is on node 6"), "{said}");
    assert_eq!(copies(&cluster, 0), (vec![6, 3], true));
    let aside = cluster.data_dir(Who::Node(1)).join("set-aside");
    let set_aside = |_: &Governed| {
        Ok(aside
            .read_dir()
            .is_ok_and(|mut files| files.next().is_some()))
    };
    let what = "the old place is given up";
    cluster
        .until(what, LIMIT, set_aside)
        .expect("the node follows the map");

    // Nobody who had the records when the shard ended is there any more.
    cluster.end(Who::Node(1)).expect("it ends");
    cluster.kill(Who::Node(2)).expect("it dies");
    let read = client(&["tail"], b"");
    assert_eq!(read.len(), 2 * expected.len());
    assert!(read == [&expected[..], &expected[..]].concat(), "in order");

    // The dead one's replica is made again from the copy, and the copy survives that of which it was made.
    let line = ["shard", "replace", "default", "0.1", "n5"];
    let said = cluster.operate(&line).expect("replaced");
    assert!(said.contains("replica 0.1 is on node 5"), "{said}");
    assert_eq!(copies(&cluster, 0), (vec![6, 5], true));
    cluster.kill(Who::Node(5)).expect("it dies");
    let read = client(&["read", "7"], b"");
    assert_eq!(read, b"8\n");
}
