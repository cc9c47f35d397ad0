//! What operators do, against a real controller without any process of the data plane: what is asked for is begun, shown,
//! waited for, given up and refused as the controllers say.

use std::path::Path;
use std::sync::Arc;

use ionian_control_client::identity::Role;
use ionian_control_cluster::{ClusterState, Founding};
use ionian_control_core::{ClusterSpec, DirectoryConfig, LogSpec, NodeSpec, RootQuorum, TreeSpec};
use ionian_control_server::ca::Ca;
use ionian_control_server::{Controller, ControllerConfig, GroupTiming, Limits, Start};
use ionian_types::{ClusterId, Durability, NodeId, OrderingMode};
use serde_json::Value;

mod common;

/// A controller, and the folder with certificates of users.
struct Cluster {
    controller: Controller,
    folder: tempfile::TempDir,
}

fn start() -> Cluster {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("sea").expect("a legal name");
    for user in ["admin", "mira"] {
        let issued = ca.issue(Role::User(user.into())).expect("a legal name");
        ca.write(folder.path(), &issued).expect("a folder");
    }
    let issued = ca.issue(Role::Controller(1)).expect("a legal name");
    let node = |id: u32| {
        let spec = NodeSpec {
            domain: id % 2,
            address: format!("127.0.0.1:{id}"),
        };
        (NodeId::new(id), spec)
    };
    let founding = Founding {
        cluster: ClusterId::new(7),
        spec: ClusterSpec {
            nodes: (1..=5).map(node).collect(),
            logs: vec![LogSpec {
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: Durability::D1,
                quorum: None,
                root: [1, 2, 3].map(NodeId::new).to_vec(),
                root_quorum: RootQuorum::Majority,
                tree: TreeSpec::leaf(NodeId::new(1)),
                shards: vec![[1, 2].map(NodeId::new).to_vec()],
            }],
        },
        config: DirectoryConfig::default(),
    };
    let config = ControllerConfig {
        credentials: ca.credentials(&issued).expect("sound"),
        folder: folder.path().join("controller"),
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        start: Start::Init,
        timing: GroupTiming::default(),
        limits: Limits::default(),
        report: Arc::new(|sentence| println!("{sentence}")),
    };
    let controller = Controller::start(config, ClusterState::new(), founding);
    let controller = controller.expect("it starts");
    Cluster { controller, folder }
}

impl Cluster {
    fn run(&self, line: &[&str]) -> (Option<i32>, String, String) {
        let address = self.controller.advertised();
        common::operator(self.folder.path(), address, "60", line)
    }

    fn done(&self, line: &[&str]) -> String {
        let (code, out, error) = self.run(line);
        assert_eq!(code, Some(0), "{line:?}: {out}{error}");
        out
    }

    fn json(&self, line: &[&str]) -> Value {
        let out = self.done(&[line, &["--json"]].concat());
        serde_json::from_str(&out).expect("JSON")
    }

    fn refused(&self, line: &[&str], code: i32, why: &str) {
        let (found, out, error) = self.run(line);
        assert_eq!(found, Some(code), "{line:?}: {out}{error}");
        assert!(error.contains(why), "{line:?}: {error}");
    }
}

#[test]
fn changes_are_planned_begun_waited_for_and_given_up() {
    let cluster = start();
    // A plan has no effect.
    let plan = cluster.done(&["log", "create", "orders", "--plan", "--durability", "d2"]);
    assert!(
        plan.contains("log orders would then be, in view 1 or later:"),
        "{plan}"
    );
    let line = ["log", "create", "orders", "--plan", "--shards", "2"];
    let plan = cluster.json(&line);
    assert_eq!(plan["plan"], true);
    assert_eq!(plan["then"]["logs"][0]["shards"][1]["stage"], "open");
    let logs = |list: Value| -> Vec<String> {
        let logs = list["logs"].as_array().expect("logs").iter();
        logs.map(|log| log["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(logs(cluster.json(&["log", "list"])), ["default"]);

    // What nobody registers for is begun and does not end.
    let line = ["log", "create", "orders", "--no-wait", "--durability", "D2"];
    let begun = cluster.json(&line);
    assert_eq!(
        (&begun["transaction"], &begun["state"]),
        (&1.into(), &"running".into())
    );
    assert_eq!(logs(cluster.json(&["log", "list"])), ["default", "orders"]);
    let line = ["shard", "add", "orders", "--nodes", "4,5", "--timeout", "0"];
    cluster.refused(
        &line,
        1,
        "transaction 2 has not ended within 0 s and goes on",
    );
    let described = cluster.json(&["log", "describe", "orders"]);
    assert_eq!(described["log"]["durability"], "D2");
    assert_eq!(described["log"]["shards"][1]["stage"], "opening");
    assert_eq!(described["under_way"].as_array().expect("a list").len(), 2);
    let text = cluster.done(&["log", "describe", "orders"]);
    assert!(text.contains("transaction 2: 0 of 1 steps done"), "{text}");
    assert!(
        text.contains("every shard that takes appends lies in 2 failure domains or more"),
        "{text}"
    );

    // The view is not on its way: it can be given up, once.
    cluster.done(&["transaction", "cancel", "2", "--plan"]);
    let cancelled = cluster.json(&["transaction", "cancel", "2"]);
    assert_eq!(cancelled["state"], "cancelled");
    cluster.refused(&["transaction", "cancel", "2"], 1, "refused: ");
    cluster.refused(&["transaction", "wait", "2"], 1, "");
    cluster.refused(
        &["transaction", "wait", "9"],
        2,
        "no transaction 9 is known",
    );
    cluster.refused(
        &["transaction", "wait", "1", "--timeout", "0"],
        1,
        "and goes on",
    );

    // A log of which nothing was opened is deleted at once, and what created it ends.
    let (code, out, error) = cluster.run(&["log", "delete", "orders"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(
        out.starts_with("transaction 3: done\n  done  log 2: finalize shards 0\n"),
        "{out}"
    );
    assert!(
        error.contains("of 2 steps done") || out.contains("done  log 2: remove it"),
        "{error}"
    );
    cluster.done(&["transaction", "wait", "1"]);
    let list = cluster.json(&["transaction", "list"]);
    let states = |list: &Value| -> Vec<String> {
        let known = list["transactions"].as_array().expect("a list").iter();
        known
            .map(|one| one["state"].as_str().expect("a word").to_owned())
            .collect()
    };
    assert_eq!(states(&list), ["done", "cancelled", "done"]);
    assert!(list["transactions"][0]["began_us"].as_u64() > Some(1_600_000_000_000_000));

    // Nodes that have nothing are drained at once.
    let drained = cluster.json(&["node", "drain", "5"]);
    assert_eq!(
        (&drained["state"], &drained["done"]),
        (&"done".into(), &1.into())
    );
    let nodes = cluster.json(&["log", "list"])["nodes"].clone();
    assert_eq!(nodes[4]["drained"], true);
    let planned = cluster.json(&["node", "undrain", "5", "--plan"]);
    assert_eq!(planned["steps"][0], "node 5: takes new places again");
    let undrained = cluster.json(&["node", "undrain", "5"]);
    assert_eq!(undrained["state"], "done");
    let nodes = cluster.json(&["log", "list"])["nodes"].clone();
    assert_eq!(nodes[4]["drained"], false);
    // No process of the root group is there, and a plan says so as the change would.
    let line = ["node", "replace", "3", "4", "--plan"];
    cluster.refused(&line, 1, "root member 0 on node 1 is not connected");
}

#[test]
fn a_change_of_the_controllers_is_planned_and_nothing_is_done() {
    let cluster = start();
    cluster.done(&["log", "list"]);
    let join = |id, address| {
        let line = [
            "cluster",
            "join",
            "--id",
            id,
            "--address",
            address,
            "--plan",
        ];
        cluster.json(&line)
    };
    let planned = join("4", "127.0.0.1:9");
    assert_eq!(
        (&planned["plan"], &planned["voters"], &planned["majority"]),
        (&true.into(), &2.into(), &2.into())
    );
    assert_eq!(planned["members"][1]["id"], 4);
    let again = join("1", cluster.controller.advertised());
    let note = again["notes"][0].as_str();
    assert_eq!(
        note,
        Some("nothing is to be done: controller 1 is a member")
    );
    let remove = |id| ["cluster", "remove", "--id", id, "--plan"];
    cluster.refused(&remove("1"), 1, "controller 1 is the whole group");
    cluster.refused(&remove("4"), 1, "controller 4 is not in the group");
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason_and_what_to_do() {
    let cluster = start();
    let refused = |line: &[&str], code, why| cluster.refused(line, code, why);
    refused(
        &["log", "describe", "nothing"],
        1,
        "the cluster has no log \"nothing\"; it has default",
    );
    refused(&["view", "history", "nothing"], 1, "it has default");
    refused(
        &["shard", "finalize", "default", "0"],
        1,
        "refused: shard 0 is the last open one of log default, which would take no appends; add a shard first",
    );
    refused(
        &["shard", "replace", "default", "0.0", "3"],
        1,
        "finalize it with a successor instead",
    );
    refused(
        &["shard", "replace", "default", "0", "3"],
        2,
        "give shard and slot as in 0.1",
    );
    refused(
        &["log", "move-leader", "default", "5"],
        2,
        "node 5 is no member of the root group; those are 1, 2, 3",
    );
    refused(&["log", "root-members", "default", "4"], 1, "refused: ");
    refused(&["tree", "move", "default", "n4"], 2, "no number of a node");
    refused(
        &["log", "create", "Orders"],
        1,
        "use 1 to 64 of the characters",
    );
    refused(
        &["log", "create", "orders", "--replicas", "7"],
        2,
        "7 copies need as many nodes",
    );
    refused(
        &["log", "create", "orders", "--durability", "D3"],
        2,
        "one of D0, D1, D2",
    );
    refused(&["node", "drain", "9"], 1, "the cluster has no node 9");
    refused(
        &["log", "list", "--user", "mira"],
        1,
        "mira is no user of this cluster; the user admin adds it with `ionian user add mira`",
    );
    refused(
        &["log", "list", "--user", "olaf"],
        2,
        "ionian ca issue user:olaf",
    );
    let done = cluster.json(&["tree", "move", "default", "1"]);
    assert_eq!(
        (&done["transaction"], &done["state"]),
        (&0.into(), &"done".into())
    );
    let history = cluster.json(&["view", "history", "default"]);
    assert_eq!(history["log"], "default");
    assert_eq!(history["events"][0]["why"], "the operator asked for it");
    let text = cluster.done(&["view", "history", "default"]);
    assert!(text.contains("create log 1 (default)"), "{text}");
}

#[test]
fn an_ordering_tree_is_shown_planned_set_moved_and_given_up() {
    let cluster = start();
    let show = cluster.done(&["tree", "show", "default"]);
    assert!(show.starts_with("log default: 1 leaf\n"), "{show}");
    assert!(show.contains("\n  leaf 0"), "{show}");
    // Its first leaf stays; others and the vertex above all are new. Nothing has changed.
    let set = |fan_in, depth| {
        [
            "tree", "set", "default", "--fan-in", fan_in, "--depth", depth,
        ]
    };
    let plan = cluster.done(&[&set("2", "2")[..], &["--plan"]].concat());
    let says = [
        "log 1: the tree has a fan-in of 2 and 2 levels",
        "ordering tree: 2 levels, 1 aggregator, 1 leaf on nodes 1, ",
        "1 of 1 vertex would stay:",
    ];
    for part in says {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    let plan = cluster.json(&[&set("2", "2")[..], &["--plan"]].concat());
    let differs = &plan["differs"];
    assert_eq!(
        (&differs["stay"], &differs["come"], &differs["go"]),
        (&[0].into(), &[1].into(), &Value::Array(Vec::new()))
    );
    let now = cluster.json(&["tree", "show", "default"]);
    assert_eq!(now["tree_next"].as_array().map(Vec::len), Some(0));

    // Nobody registers here for what is to come, so the present tree stays, and the change can be given up.
    let line = [&set("2", "2")[..], &["--no-wait"]].concat();
    assert_eq!(cluster.json(&line)["state"], "running");
    let line = [&set("2", "3")[..], &["--timeout", "0"]].concat();
    cluster.refused(&line, 1, "has not ended within 0 s and goes on");
    let now = cluster.json(&["tree", "show", "default"]);
    let next = now["tree_next"].as_array().expect("a list");
    let levels: Vec<u64> = next.iter().filter_map(|it| it["level"].as_u64()).collect();
    assert_eq!(levels, [1, 2, 3]);
    assert_eq!(
        (&next[2]["vertex"], &next[2]["kind"]),
        (&0.into(), &"leaf".into())
    );
    assert_eq!(next[2]["parent"], next[1]["vertex"]);
    let text = cluster.done(&["tree", "show", "default"]);
    assert!(text.contains("to be in its place: 3 levels"), "{text}");
    assert!(text.contains("stays"), "{text}");
    let text = cluster.done(&["log", "describe", "default"]);
    assert!(text.contains("another ordering tree is to come"), "{text}");
    // Which vertex, of several?
    cluster.refused(
        &["tree", "move", "default", "4"],
        2,
        "has several vertices: name one with --vertex; they are leaf 0, aggregator 1, aggregator 2",
    );
    let list = cluster.json(&["transaction", "list"]);
    let running = list["transactions"].as_array().expect("a list").iter();
    let running = running.filter(|one| one["state"] == "running");
    for one in running {
        let id = one["transaction"].to_string();
        assert_eq!(
            cluster.json(&["transaction", "cancel", &id])["state"],
            "cancelled"
        );
    }
    let now = cluster.json(&["tree", "show", "default"]);
    assert_eq!(now["tree_next"].as_array().map(Vec::len), Some(0));

    // A vertex that nobody has filled yet is moved at once.
    let plan = cluster.done(&["tree", "move", "default", "4", "--plan"]);
    assert!(plan.contains("vertex 0 of the tree is on node 4"), "{plan}");
    let plan = cluster.json(&["tree", "move", "default", "4", "--vertex", "0", "--plan"]);
    assert_eq!(plan["then"]["logs"][0]["tree"][0]["node"], 4);
    assert_eq!(
        cluster.json(&["tree", "show", "default"])["tree"][0]["node"],
        1
    );

    // What cannot be is refused with the reason.
    let refused = |line: &[&str], code, why| cluster.refused(line, code, why);
    let vertex = ["tree", "move", "default", "4", "--vertex", "7"];
    refused(&vertex, 2, "has no vertex 7; it has leaf 0");
    refused(&["tree", "move", "default", "9"], 1, "refused: ");
    refused(&["tree", "show", "nothing"], 1, "it has default");
    refused(&["tree", "set", "default"], 2, "--fan-in <N>");
    refused(&set("1", "2"), 2, "1 is not in 2..=1024");
    refused(&set("2", "9"), 2, "9 is not in 1..=8");
    let create = ["log", "create", "wide", "--leaf", "1,2"];
    refused(&create, 2, "one leaf has one node, not 2");
    let create = ["log", "create", "wide", "--depth", "2"];
    refused(&create, 2, "--fan-in <N>");
    let flat = ["--shards", "5", "--fan-in", "2", "--depth", "1"];
    let create = [&["log", "create", "wide"][..], &flat].concat();
    refused(
        &create,
        2,
        "5 shards with a fan-in of 2 need 2 levels, not 1",
    );
    let create = [
        "log", "create", "wide", "--shards", "4", "--fan-in", "2", "--leaf", "1,2,3", "--plan",
    ];
    let plan = cluster.json(&create);
    let tree = plan["then"]["logs"][0]["tree"].as_array().expect("a tree");
    let nodes: Vec<u64> = tree.iter().filter_map(|it| it["node"].as_u64()).collect();
    assert_eq!(nodes, [1, 2]);
}

#[test]
fn a_controller_that_is_away_is_named_and_nothing_is_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("sea").expect("a legal name");
    let issued = ca.issue(Role::User("admin".into())).expect("a legal name");
    ca.write(folder.path(), &issued).expect("a folder");
    let address = common::free_address();
    let line = ["log", "list", "--cert-dir", ".", "--controllers", &address];
    let output = common::ionian(Path::new(folder.path()), &line, b"");
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&address), "{error}");
    assert!(
        error.contains("nothing was changed; name controllers that run"),
        "{error}"
    );
}

#[test]
fn users_are_added_granted_rights_and_revoked() {
    let cluster = start();
    assert_eq!(cluster.done(&["user", "list"]), "no users but admin\n");
    let plan = cluster.done(&["user", "add", "mira", "--plan"]);
    assert!(
        plan.starts_with("would be done: user mira is added"),
        "{plan}"
    );
    assert_eq!(cluster.done(&["user", "list"]), "no users but admin\n");
    let added = cluster.json(&["user", "add", "mira"]);
    assert_eq!(added["users"][0]["user"], "mira");
    assert_eq!(
        cluster.done(&["user", "add", "mira"]),
        "nothing is to be done\n"
    );
    fn as_mira<'a>(line: &[&'a str]) -> Vec<&'a str> {
        [line, &["--user", "mira"]].concat()
    }
    cluster.refused(
        &as_mira(&["log", "describe", "default"]),
        1,
        "user mira has no right to admin log default",
    );
    let granted = cluster.done(&["log", "grant", "default", "mira", "append,read"]);
    assert_eq!(granted, "user mira may append,read log default\n");
    cluster.refused(
        &as_mira(&["log", "grant", "default", "mira", "admin"]),
        1,
        "user mira has no right to admin log default",
    );
    let planned = cluster.json(&["log", "grant", "default", "mira", "admin", "--plan"]);
    assert_eq!(planned["users"][0]["logs"][0]["rights"][0], "admin");
    let listed = cluster.json(&["user", "list"]);
    let rights = &listed["users"][0]["logs"][0];
    assert_eq!(
        (&rights["log"], &rights["rights"][1]),
        (&"default".into(), &"read".into())
    );
    cluster.done(&["log", "grant", "default", "mira", "admin"]);
    cluster.done(&as_mira(&["log", "describe", "default"]));
    cluster.refused(
        &as_mira(&["node", "drain", "1"]),
        1,
        "user mira may not operate the cluster; the user admin may",
    );
    let history = cluster.done(&["view", "history", "default"]);
    assert!(
        history.contains("grant append,read to user mira"),
        "{history}"
    );
    cluster.done(&["user", "revoke", "mira"]);
    cluster.refused(
        &as_mira(&["log", "describe", "default"]),
        1,
        "mira is no user of this cluster",
    );
    cluster.refused(&["user", "revoke", "mira"], 1, "mira is no user");
    cluster.refused(&["user", "revoke", "admin"], 1, "cannot be revoked");
    cluster.refused(&["user", "add", "a b"], 2, "is not a user's name");
    cluster.refused(
        &["log", "grant", "default", "mira", "write"],
        2,
        "append, read, trim",
    );
    cluster.refused(
        &["log", "grant", "none", "mira", "read"],
        1,
        "no log \"none\"",
    );
}
