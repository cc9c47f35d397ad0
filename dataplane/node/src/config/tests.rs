//! The reader against files: good ones whole, bad ones with every error at its place.

use std::path::Path;

use ionian_control_core::TreeSpec;
use ionian_runtime::{CorePlan, NicProfile};
use ionian_types::{Durability, Nanos, NodeId, OrderingMode};

use super::*;

const EXAMPLE: &str = include_str!("../../../../docs/examples/cluster.toml");

/// A file that is right, for tests to put one thing wrong.
const GOOD: &str = r#"cluster = "demo"

[[nodes]]
name = "n1"
id = 1
address = "127.0.0.1:7401"
roles = ["controller", "root", "leaf", "replica"]

[[nodes]]
name = "n2"
id = 2
address = "127.0.0.1:7402"

[[logs]]
name = "default"
"#;

fn parse(text: &str) -> Result<ClusterConfig, ConfigErrors> {
    ClusterConfig::parse(Path::new("dir/cluster.toml"), text)
}

/// The only error of a text.
fn error(text: &str) -> String {
    let errors = parse(text).unwrap_err();
    assert_eq!(errors.problems.len(), 1, "{errors}");
    errors.to_string()
}

fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

#[test]
fn a_small_file_is_complete() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.name, "demo");
    assert_eq!(config.secret_file, Path::new("dir/cluster.secret"));
    assert_eq!(config.controller, Some(NodeId::new(1)));
    assert_eq!(config.controllers, []);
    let [one, two] = &config.nodes[..] else {
        panic!("two nodes")
    };
    assert_eq!(one.data_dir, Path::new("dir/data/n1"));
    assert_eq!(two.domain, 2);
    assert!(one.roles.controller && one.roles.root && !two.roles.leaf && two.roles.replica);
    let log = &config.logs[0];
    assert_eq!(
        (log.mode, log.class),
        (OrderingMode::Scalog, Durability::D1)
    );
    assert_eq!(log.shards, [[NodeId::new(1), NodeId::new(2)]]);
    assert_eq!(
        (&log.roots[..], &log.tree, log.retention_bytes_max),
        (&[NodeId::new(1)][..], &TreeSpec::leaf(NodeId::new(1)), None)
    );
    assert_eq!(config.limits.memory_bytes_max, 1 << 30);
    assert_eq!(config.cores.plan, PlanChoice::Auto);
    assert_eq!(config.network.mtu, None);
    assert_eq!(config.timing, Timing::default());
    assert_eq!(config.timing.dead_after_ms, 3000);
    assert_eq!(config.node("n2").unwrap().node, NodeId::new(2));
    let spec = config.cluster_spec();
    assert_eq!((spec.nodes.len(), spec.logs[0].shards.len()), (2, 1));
}

#[test]
fn the_example_is_right_and_names_every_section() {
    let config = ClusterConfig::parse(Path::new("cluster.toml"), EXAMPLE).unwrap();
    assert_eq!(config.logs.len(), 2);
    assert_eq!(config.logs[0].shards.len(), 2);
    for section in schema::SECTIONS {
        assert!(
            EXAMPLE.contains(section.name),
            "{} is not in the example",
            section.name
        );
        for key in section.keys {
            assert!(
                EXAMPLE.contains(key.name),
                "{} is not in the example",
                key.name
            );
        }
    }
}

#[test]
fn the_page_of_the_documentation_is_the_table_of_keys() {
    let page = include_str!("../../../../docs/configuration.md");
    let fresh = configuration_markdown();
    if let Ok(path) = std::env::var("IONIAN_WRITE_DOCS") {
        std::fs::write(path, &fresh).unwrap();
    }
    assert!(
        page == fresh,
        "docs/configuration.md is not up to date: run this test with IONIAN_WRITE_DOCS set to its path"
    );
}

#[test]
fn every_error_is_reported_in_one_go() {
    let text = r#"clutser = "demo"
cluster = "De mo"

[[nodes]]
name = "n1"
id = 1
address = "127.0.0.1:0"
roles = ["controller", "rooot"]

[[nodes]]
name = "n1"
id = "two"
address = "127.0.0.1:7402"

[[logs]]
name = "default"
shards = 0
durability = "D3"
retention_bytes_max = "64mib"

[limits]
memory_bytes_max = "1kB"
disk_bytes_max = true
"#;
    let errors = parse(text).unwrap_err();
    let expected = "\
dir/cluster.toml:1:1: unknown key clutser; did you mean cluster?
dir/cluster.toml:2:11: cluster is \"De mo\": use 1 to 64 of the characters a-z 0-9 - _ .
dir/cluster.toml:7:11: address is \"127.0.0.1:0\": port 0 is no place where others can find it
dir/cluster.toml:8:24: roles is \"rooot\": use one of controller, root, leaf, replica
dir/cluster.toml:12:6: id is text: give a whole number
dir/cluster.toml:17:10: shards is 0: give 1 to 16384 shards
dir/cluster.toml:18:14: durability is \"D3\": use one of D0, D1, D2
dir/cluster.toml:19:23: retention_bytes_max is wrong: \"mib\" is not a unit of size: use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB
dir/cluster.toml:22:20: memory_bytes_max is 1000B: give at least 64MiB
dir/cluster.toml:23:18: disk_bytes_max is true or false: give a size such as \"64MiB\"";
    assert_eq!(errors.to_string(), expected);
}

#[test]
fn syntax_errors_have_a_place() {
    let errors = parse("cluster = \"demo\nname = [1, 2\n[[nodes\n").unwrap_err();
    assert!(errors.problems.len() >= 2, "{errors}");
    for problem in &errors.problems {
        assert!(
            problem.line > 0 && problem.what.starts_with("not TOML: "),
            "{errors}"
        );
    }
    let twice = error("cluster = \"a\"\ncluster = \"b\"\n");
    assert!(
        twice.starts_with("dir/cluster.toml:2:1: not TOML: duplicate key"),
        "{twice}"
    );
}

#[test]
fn what_is_missing_is_named_where_it_belongs() {
    let missing = error(&with("cluster = \"demo\"\n", ""));
    assert_eq!(
        missing,
        "dir/cluster.toml:1:1: cluster is missing: the name of the cluster, for people"
    );
    let missing = error(&with("address = \"127.0.0.1:7402\"\n", ""));
    assert!(
        missing.starts_with("dir/cluster.toml:9:1: address is missing: where it listens"),
        "{missing}"
    );
    let errors = parse("cluster = \"demo\"").unwrap_err().to_string();
    assert!(
        errors.contains("1:17: there are no nodes") && errors.contains("there are no logs"),
        "{errors}"
    );
}

#[test]
fn nodes_are_told_apart() {
    assert!(error(&with("id = 2", "id = 1")).contains("11:6: id 1 belongs to node n1"));
    assert!(error(&with("name = \"n2\"", "name = \"n1\"")).contains("node n1 is there twice"));
    assert!(error(&with("7402", "7401")).contains("address 127.0.0.1:7401 belongs to node n1"));
    let same_folder = with("id = 2", "id = 2\ndata_dir = \"data/n1\"");
    assert!(error(&same_folder).contains("data_dir belongs to node n1"));
    let two = with("id = 2", "id = 2\nroles = [\"controller\", \"replica\"]");
    assert!(error(&two).contains("node n1 is the controller already"));
    assert!(error(&with("\"controller\", ", "")).contains("no node is the controller"));
    assert!(error(&with("\"root\", ", "")).contains("no node has the role root"));
}

#[test]
fn addresses_have_a_host_and_a_port() {
    let address = |address: &str| parse(&with("127.0.0.1:7402", address));
    for good in ["[::1]:7402", "ten.example:7402", "10.0.0.9:65535"] {
        assert!(address(good).is_ok(), "{good}");
    }
    for bad in [
        "127.0.0.1",
        ":7402",
        "::1:7402",
        "[::x]:7402",
        "a b:7402",
        "http://h:1",
        "h:99999",
        "h:",
    ] {
        assert!(address(bad).is_err(), "{bad}");
    }
}

#[test]
fn replicas_need_nodes() {
    let log = |keys: &str| with("name = \"default\"", &format!("name = \"default\"\n{keys}"));
    let short = error(&log("replicas = 3"));
    assert!(
        short.contains("16:12: 3 replicas need as many nodes with the role replica; there are 2"),
        "{short}"
    );
    assert!(error(&log("replicas = 8")).contains("replicas is 8: give 1 to 7 replicas"));
    assert!(error(&log("root = \"n3\"")).contains("there is no node \"n3\"; did you mean n1?"));
    assert!(error(&log("root = \"n2\"")).contains("node n2 does not have the role root"));
    assert!(
        error(&log("placement = [[\"n1\", \"n1\"]]"))
            .contains("shard 0 has two replicas on node n1")
    );
    assert!(
        error(&log("placement = [[\"n1\"]]"))
            .contains("shard 0 is placed on 1 nodes, the log has 2 replicas")
    );
    assert!(error(&log("placement = []")).contains("placement lists 0 shards, the log has 1"));
    let placed = parse(&log("placement = [[\"n2\", \"n1\"]]")).unwrap();
    assert_eq!(placed.logs[0].shards, [[NodeId::new(2), NodeId::new(1)]]);
    assert!(error(&log("mode = \"corfu\"")).contains("mode is \"corfu\": use one of scalog"));
}

#[test]
fn a_root_group_has_members_on_nodes_of_their_own() {
    let three = with(
        "[[logs]]\nname = \"default\"",
        "[[nodes]]\nname = \"n3\"\nid = 3\naddress = \"127.0.0.1:7403\"\nroles = [\"root\"]\n\n\
         [[nodes]]\nname = \"n4\"\nid = 4\naddress = \"127.0.0.1:7404\"\nroles = [\"root\"]\n\n\
         [[logs]]\nname = \"default\"\nroot = [\"n1\", \"n3\", \"n4\"]",
    );
    let config = parse(&three).unwrap();
    assert_eq!(config.logs[0].roots, [1, 3, 4].map(NodeId::new));
    assert_eq!(config.logs[0].root_quorum, RootQuorum::Majority);
    let spec = config.cluster_spec();
    assert_eq!(spec.logs[0].root, [1, 3, 4].map(NodeId::new));
    let list = |names: &str| three.replacen("[\"n1\", \"n3\", \"n4\"]", names, 1);
    let all = list("[\"n3\", \"n4\"]\nroot_quorum = \"all\"");
    assert_eq!(
        parse(&all).unwrap().cluster_spec().logs[0].root_quorum,
        RootQuorum::All
    );
    let one = parse(&list("\"n3\"")).unwrap();
    assert_eq!(one.logs[0].roots, [NodeId::new(3)]);
    let bad = |names: &str| error(&list(names));
    let twice = bad("[\"n1\", \"n3\", \"n1\"]");
    assert!(twice.contains("28:21: root names node n1 twice"), "{twice}");
    let unknown = bad("[\"n1\", \"n5\"]");
    assert!(
        unknown.contains("there is no node \"n5\"; did you mean"),
        "{unknown}"
    );
    let other = bad("[\"n1\", \"n2\"]");
    assert!(
        other.contains("node n2 does not have the role root"),
        "{other}"
    );
    assert!(bad("[]").contains("root is empty: name a node"));
    assert!(bad("7").contains("root is a whole number: give the name of a node, or a list"));
    assert!(bad("[7]").contains("root is a whole number: give text in quotes"));
    let quorum = bad("\"n1\"\nroot_quorum = \"most\"");
    assert!(
        quorum.contains("root_quorum is \"most\": use one of majority, all"),
        "{quorum}"
    );
    let many = r#"["n1", "n1", "n1", "n1", "n1", "n1", "n1", "n1"]"#;
    let errors = parse(&list(many)).unwrap_err().to_string();
    assert!(
        errors.contains("root names 8 nodes: a root group has at most 7"),
        "{errors}"
    );
}

#[test]
fn a_tree_has_a_form_and_nodes_by_turns() {
    let tree = |keys: &str| {
        let both = GOOD.replacen("id = 2\n", "id = 2\nroles = [\"leaf\", \"replica\"]\n", 1);
        let keys = format!("name = \"default\"\nshards = 5\n{keys}");
        both.replacen("name = \"default\"", &keys, 1)
    };
    let keys = "leaf = [\"n2\", \"n1\"]\nfan_in = 2\ndepth = 3";
    let config = parse(&tree(keys)).unwrap();
    let spec = &config.logs[0].tree;
    let children: Vec<u16> = spec.shape.iter().map(|vertex| vertex.children).collect();
    assert_eq!(children, [2, 1, 0, 2, 0, 0]);
    let nodes: Vec<u32> = spec.nodes.iter().map(|node| node.get()).collect();
    assert_eq!(nodes, [2, 1, 2, 1, 2, 1]);
    assert_eq!(&config.cluster_spec().logs[0].tree, spec);
    let seats = config.seats().unwrap();
    let leaves = seats
        .iter()
        .filter(|(_, place)| matches!(place, crate::Place::Leaf(..)));
    assert_eq!(leaves.count(), 3);
    // Without a depth as few levels as it takes; without a fan-in one leaf.
    let flat = parse(&tree("fan_in = 5")).unwrap();
    assert_eq!(flat.logs[0].tree, TreeSpec::leaf(NodeId::new(2)));
    let one = parse(&tree("leaf = \"n2\"")).unwrap();
    assert_eq!(one.logs[0].tree, TreeSpec::leaf(NodeId::new(2)));
    // Where no node is named, each vertex goes where the fewest places are: node 1 has the root besides.
    let spread = parse(&tree("fan_in = 2\ndepth = 3")).unwrap();
    let nodes: Vec<u32> = spread.logs[0]
        .tree
        .nodes
        .iter()
        .map(|it| it.get())
        .collect();
    assert_eq!(nodes, [2, 1, 2, 1, 2, 1]);
    let twice = format!(
        "{}\n[[logs]]\nname = \"other\"\nshards = 5\nreplicas = 1\nplacement = [[\"n2\"], [\"n2\"], [\"n2\"], [\"n2\"], [\"n2\"]]\nfan_in = 3\n",
        tree("fan_in = 2\ndepth = 3")
    );
    let twice = parse(&twice).unwrap();
    assert_eq!(twice.logs[0].tree, spread.logs[0].tree);
    let nodes: Vec<u32> = twice.logs[1].tree.nodes.iter().map(|it| it.get()).collect();
    assert_eq!(nodes, [1, 1], "node 2 has all replicas of this log");

    let bad = |keys: &str| error(&tree(keys));
    let says = |keys: &str, what: &str| {
        let said = bad(keys);
        assert!(said.contains(what), "{keys}: {said}");
    };
    says("fan_in = 1", "18:10: fan_in is 1: give 2 to 1024");
    says(
        "fan_in = 2\ndepth = 9",
        "19:9: depth is 9: give 1 to 8 levels",
    );
    says(
        "depth = 2",
        "18:9: depth has no meaning without fan_in: say how many a vertex brings together",
    );
    says(
        "fan_in = 2\ndepth = 1",
        "18:10: 5 shards with a fan-in of 2 need 2 levels, not 1",
    );
    says(
        "leaf = [\"n1\", \"n2\"]",
        "18:8: leaf names 2 nodes, and one leaf has one: say with fan_in",
    );
    says("leaf = []\nfan_in = 2", "18:8: leaf is empty: name a node");
    says(
        "leaf = [\"n1\", \"n3\"]\nfan_in = 2",
        "18:15: there is no node \"n3\"",
    );
    let other = with("name = \"default\"", "name = \"default\"\nleaf = \"n2\"");
    assert!(error(&other).contains("node n2 does not have the role leaf"));
}

#[test]
fn two_failure_domains_make_d2() {
    let log = with(
        "name = \"default\"",
        "name = \"default\"\ndurability = \"D2\"",
    );
    assert!(parse(&log).is_ok());
    let one = log.replacen("id = 2", "id = 2\ndomain = 1", 1);
    assert!(
        error(&one)
            .contains("D2 needs copies in two failure domains; all replicas of shard 0 are in one")
    );
}

#[test]
fn logs_are_told_apart() {
    let twice = format!("{GOOD}[[logs]]\nname = \"default\"\n");
    assert!(error(&twice).contains("17:8: log default is there twice"));
    assert!(
        error(&with("[[logs]]", "[logs]")).contains("logs is a list of tables: write [[logs]]")
    );
    assert!(error(&format!("{GOOD}[[limits]]\n")).contains("limits is a table: write [limits]"));
}

#[test]
fn cores_are_numbers() {
    let cores = |cores: &str| with("id = 2", &format!("id = 2\ncores = {cores}"));
    assert_eq!(
        parse(&cores("[2, 3]")).unwrap().nodes[1].cores,
        Some(vec![2, 3])
    );
    assert!(error(&cores("[1, 1]")).contains("names core 1 twice"));
    assert!(error(&cores("[]")).contains("leave the key out"));
    assert!(error(&cores("[-1]")).contains("give a whole number from 0"));
    assert!(error(&cores("\"0-3\"")).contains("give a list of core numbers"));
}

#[test]
fn network_profiles_are_found_and_their_errors_have_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.toml");
    let parse = |name: &str| {
        let text = format!("{GOOD}[network]\nnic_profile = \"{name}\"\n");
        ClusterConfig::parse(&file, &text)
    };
    let error = |name: &str| {
        let errors = parse(name).unwrap_err();
        assert_eq!(errors.problems.len(), 1, "{errors}");
        assert_eq!(
            (errors.problems[0].line, errors.problems[0].column),
            (17, 15)
        );
        errors.problems[0].what.clone()
    };
    let config = parse("udp").unwrap();
    assert_eq!(
        (config.network.profile.name.as_str(), config.network.mtu),
        ("udp", None)
    );
    assert_eq!(
        error("tcp"),
        "nic_profile is \"tcp\": there is no such profile (did you mean tap?); use one of af-packet, af-xdp, connectx-dpdk, connectx-rdma, dpdk-memif, dpdk-ring, dpdk-veth, e810-dpdk, ena-dpdk, shm, soft-roce, tap, udp, virtio-dpdk, or the path of a file that ends with .toml"
    );
    let shm = error("shm");
    assert!(
        shm.contains("whose backend shm joins no processes in this build: use udp"),
        "{shm}"
    );
    assert!(error("none.toml").contains("none.toml, which cannot be read: "));

    let udp = include_str!("../../../../nic-profiles/udp.toml");
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("typo.toml", udp.replace("[batch]\nvalue", "[batch]\nvlaue"));
    let line = udp.lines().position(|line| line == "[batch]").unwrap() + 2;
    let typo = error("typo.toml");
    assert!(
        typo.contains(&format!(
            "typo.toml:{line}: unknown key vlaue in [batch]; did you mean value?"
        )),
        "{typo}"
    );
    write(
        "own.toml",
        udp.replace("name = \"udp\"", "name = \"own\"")
            .replace("value = 1500", "value = 9000"),
    );
    let own = parse("own.toml").unwrap();
    let beyond = own.network.port("10.0.0.1:7401".parse().unwrap());
    assert_eq!(
        (beyond.profile.as_str(), beyond.udp.mtu_bytes),
        ("own", 9_000)
    );
    let loopback = own.network.port("127.0.0.1:7401".parse().unwrap());
    assert_eq!(loopback.udp.mtu_bytes, 65_535);
    assert!(error("upd").contains("there is no such profile (did you mean udp?); use"));
    let other =
        include_str!("../../../../nic-profiles/tap.toml").replace("name = \"tap\"", "name = \"x\"");
    write("tap.toml", other.clone());
    assert!(error("tap.toml").contains("is x, whose backend tap joins no processes"));
    for name in NicProfile::builtin_names().filter(|name| *name != "udp") {
        let refused = error(name);
        assert!(
            refused.contains("joins no processes in this build: use udp, or allow it"),
            "{name} never becomes another network unasked: {refused}"
        );
    }
    write(
        "fallback.toml",
        other.replace("fallback = []", "fallback = [\"udp\"]"),
    );
    let fallback = parse("fallback.toml").unwrap();
    let port = fallback.network.port("127.0.0.1:7401".parse().unwrap());
    assert_eq!(port.profile, "udp, the fallback of x");
}

#[test]
fn what_a_file_says_reaches_the_process() {
    let text = format!(
        "{GOOD}retention_bytes_max = \"2MiB\"\n[limits]\nmemory_bytes_max = \"65MiB\"\ndisk_bytes_max = \"321MiB\"\nconnections_max = 9\n\
         uncommitted_records_max = 65\ncut_log_bytes_max = \"17MiB\"\n[cores]\nplan = \"cooperative\"\npriority = \"fifo\"\nspin_us = 7\n[network]\nmtu = 600\n\
         [timing]\ncut_interval_us = 8\ndead_after_ms = 90\nsuspect_after_ms = 70\nprobe_timeout_ms = 6\nhung_after_ms = 800\ndeaths_per_minute_max = 2\n"
    );
    let text = text.replacen("id = 1\n", "id = 1\ncores = [3, 4]\n", 1);
    let config = parse(&text).unwrap();
    let options = config
        .server_options("n1", Secret::new([1; 32]), false)
        .unwrap();
    assert_eq!(options.retention_bytes_max["default"], 2 << 20);
    assert_eq!(
        (options.memory_bytes_max, options.disk_bytes_max),
        (65 << 20, 321 << 20)
    );
    let listen = options.listen.unwrap();
    assert_eq!((listen.sessions_max, listen.udp.mtu_bytes), (9, 600));
    assert_eq!(options.tuning.uncommitted_records_max, 65);
    assert_eq!(options.tuning.cut_log_bytes_max, 17 << 20);
    assert_eq!(
        (options.tuning.cut_interval_ns, options.tuning.dead_after_ms),
        (8_000, 90)
    );
    assert_eq!(options.tuning.suspect_after_ms, 70);
    let detection = config.timing.detection().expect("deaths are found");
    assert_eq!(
        [
            detection.suspect_after,
            detection.probe_timeout,
            detection.hung_after
        ],
        [70, 6, 800].map(Nanos::from_ms)
    );
    assert_eq!(detection.deaths_per_minute_max, 2);
    let none = parse(&text.replace("_max = 2", "_max = 0")).unwrap();
    assert_eq!(none.timing.detection(), None);
    let silent = none.server_options("n1", Secret::new([1; 32]), false);
    assert_eq!(silent.unwrap().tuning.suspect_after_ms, 0);
    assert_eq!(
        options.priority,
        ionian_runtime::Priority::Fifo { level: 50 }
    );
    assert_eq!(
        (&options.cores[..], options.spin_us, options.shared_core),
        (&[3, 4][..], 7, true)
    );
    let plain = parse(GOOD).unwrap();
    let options = plain
        .server_options("n2", Secret::new([1; 32]), false)
        .unwrap();
    assert_eq!(
        (options.spin_us, options.cores.len()),
        (50, 0),
        "the profile's"
    );
    let port = options.listen.unwrap();
    assert_eq!((port.sessions_max, port.profile.as_str()), (256, "udp"));
}

#[test]
fn a_plan_of_cores_is_what_the_file_says() {
    let options = |plan: &str, cores: &str| {
        let text = GOOD.replacen("id = 1\n", &format!("id = 1\n{cores}\n"), 1);
        let config = parse(&format!("{text}[cores]\nplan = \"{plan}\"\n")).unwrap();
        let options = config.server_options("n1", Secret::new([1; 32]), false);
        let options = options.unwrap();
        (options.plan, options.cores, options.shared_core)
    };
    let given = "cores = [2, 1]";
    assert_eq!(
        options("auto", given),
        (CorePlan::Packed, vec![2, 1], false)
    );
    assert_eq!(options("auto", ""), (CorePlan::Cooperative, vec![], true));
    assert_eq!(
        options("cooperative", given),
        (CorePlan::Cooperative, vec![2, 1], true)
    );
    assert_eq!(options("packed", ""), (CorePlan::Packed, vec![], false));
    assert_eq!(
        options("dedicated", given),
        (CorePlan::Dedicated, vec![2, 1], false)
    );
}

#[test]
fn only_loopback_is_listened_on_unasked() {
    let mut node = parse(GOOD).unwrap().nodes.remove(0);
    assert_eq!(
        node.bind_address(false).unwrap().to_string(),
        "127.0.0.1:7401"
    );
    node.address = String::from("0.0.0.0:7401");
    let refused = node.bind_address(false).unwrap_err().to_string();
    assert!(refused.contains("--insecure-no-auth"), "{refused}");
    assert!(node.bind_address(true).is_ok());
    node.address = String::from("no.such.host.invalid:7401");
    assert!(matches!(
        node.bind_address(true),
        Err(BindError::Unresolved { .. })
    ));
}

#[test]
fn a_missing_file_is_one_error() {
    let errors = ClusterConfig::load(Path::new("no/such/cluster.toml")).unwrap_err();
    assert!(
        errors
            .to_string()
            .starts_with("no/such/cluster.toml: cannot be read: "),
        "{errors}"
    );
}

#[test]
fn half_a_file_is_an_error_and_never_a_panic() {
    for (at, c) in EXAMPLE.char_indices() {
        let half = ClusterConfig::parse(Path::new("cluster.toml"), &EXAMPLE[..at]);
        let holes = ClusterConfig::parse(
            Path::new("cluster.toml"),
            &EXAMPLE.replacen(&EXAMPLE[at..at + c.len_utf8()], "µ", 1),
        );
        for errors in [half, holes].into_iter().filter_map(Result::err) {
            assert!(!errors.problems.is_empty());
        }
    }
}

/// A group of controllers in front of the nodes.
fn with_controllers(controllers: &[(u64, u16)]) -> String {
    let tables = controllers.iter().map(|(id, port)| {
        format!("[[controllers]]\nid = {id}\naddress = \"127.0.0.1:{port}\"\n\n")
    });
    let text = GOOD.replacen("\"controller\", ", "", 1);
    text.replacen("[[nodes]]", &(tables.collect::<String>() + "[[nodes]]"), 1)
}

#[test]
fn controllers_may_be_processes_of_their_own() {
    let config = parse(&with_controllers(&[(1, 7501), (2, 7502), (7, 7503)])).unwrap();
    let last = ControllerConfig {
        id: 7,
        address: String::from("127.0.0.1:7503"),
        data_dir: Path::new("dir/data/controller-7").to_owned(),
    };
    assert_eq!(config.controllers.last(), Some(&last));
    assert_eq!(config.controller, None);
    assert_eq!(config.certificate_dir, Path::new("dir/certificates"));
    let seats = config.seats().unwrap();
    assert!(
        seats
            .iter()
            .all(|(_, place)| *place != crate::role::Place::Directory)
    );
}

#[test]
fn controllers_contradict_nobody() {
    let one = with_controllers(&[(1, 7501)]);
    assert!(parse(&one).is_ok());
    let both = one.replacen("\"root\"", "\"controller\", \"root\"", 1);
    assert!(error(&both).contains("take \"controller\" out of the roles"));
    let two = with_controllers(&[(1, 7501), (2, 7502)]);
    assert!(error(&two).contains("there are 2 controllers: have 1, 3 or 5"));
    let twice = with_controllers(&[(1, 7501), (2, 7502), (3, 7501)]);
    assert!(error(&twice).contains("address 127.0.0.1:7501 belongs to controller 1"));
    let twice = with_controllers(&[(1, 7501), (2, 7502), (2, 7503)]);
    assert!(error(&twice).contains("controller 2 is there twice"));
    let name = one.replacen("\"demo\"", "\"de.mo\"", 1);
    assert!(error(&name).contains("stands in certificates"));
    let folder = one.replacen("id = 2\n", "id = 2\ndata_dir = \"data/controller-1\"\n", 1);
    assert!(error(&folder).contains("data_dir belongs to controller 1"));
}
