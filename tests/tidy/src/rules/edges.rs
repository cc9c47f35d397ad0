//! Which crate of ours may depend on which: `types <- wire <- store <- core`, `types <- slots <- core`, `runtime -> drivers/api <- drivers/*`, the rest on top.

use crate::Finding;
use crate::graph::{Graph, Kind};

const RULE: &str = "edges";
const REMEDY: &str = "turn the dependency round or move the code; a new edge is a design decision and a line of the table in tests/tidy/src/rules/edges.rs";

/// Permitted edges of shipped and build code. A crate that is not listed may depend on none of ours.
pub const EDGES: &[(&str, &[&str])] = &[
    ("ionian-types", &[]),
    ("ionian-wire", &["ionian-types"]),
    ("ionian-store", &["ionian-types", "ionian-wire"]),
    // Tables of numbers and kernels over them: they know no message.
    ("ionian-slots", &["ionian-types"]),
    (
        "ionian-core",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-store",
            "ionian-slots",
        ],
    ),
    ("ionian-control-core", &["ionian-types", "ionian-wire"]),
    // Knows how to reach controllers, not what they control.
    ("ionian-control-client", &[]),
    // Replicates bytes: what they mean is the state machine's business, which whoever starts a controller brings along.
    ("ionian-control-server", &["ionian-control-client"]),
    // Carries messages between a process and the controllers, gives it the places that they say it has, and asks for a user's
    // grants in the words of the state machine.
    (
        "ionian-control-agent",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-node",
            "ionian-control-client",
            "ionian-control-core",
        ],
    ),
    (
        "ionian-control-cluster",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-control-core",
            "ionian-control-client",
            "ionian-control-server",
        ],
    ),
    ("ionian-driver-api", &["ionian-types"]),
    // Raw bindings know nothing of ours.
    ("ionian-dpdk-sys", &[]),
    (
        "ionian-dpdk",
        &["ionian-driver-api", "ionian-dpdk-sys", "ionian-ether"],
    ),
    ("ionian-ether", &["ionian-types", "ionian-driver-api"]),
    ("ionian-shm", &["ionian-types", "ionian-driver-api"]),
    // Frames through the kernel; what is in them is the business of ether.
    (
        "ionian-tap",
        &["ionian-types", "ionian-driver-api", "ionian-ether"],
    ),
    ("ionian-udp", &["ionian-types", "ionian-driver-api"]),
    ("ionian-uring", &["ionian-types", "ionian-driver-api"]),
    (
        "ionian-verbs",
        &["ionian-types", "ionian-driver-api", "ionian-verbs-sys"],
    ),
    // Raw bindings know nothing of ours.
    ("ionian-verbs-sys", &[]),
    (
        "ionian-xdp",
        &["ionian-types", "ionian-driver-api", "ionian-ether"],
    ),
    ("ionian-runtime", &["ionian-types", "ionian-driver-api"]),
    (
        "ionian-client",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-core",
            "ionian-runtime",
            "ionian-driver-api",
            "ionian-udp",
        ],
    ),
    (
        "ionian-node",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-store",
            "ionian-core",
            "ionian-runtime",
            "ionian-client",
            "ionian-control-core",
            "ionian-driver-api",
            "ionian-shm",
            "ionian-udp",
            "ionian-uring",
        ],
    ),
    // The tree under synthetic reporters, for `ionian bench cuts`: machines, slots, rings, and the devices of a node.
    (
        "ionian-bench-cuts",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-store",
            "ionian-slots",
            "ionian-core",
            "ionian-runtime",
            "ionian-node",
            "ionian-driver-api",
            "ionian-shm",
        ],
    ),
    (
        "ionian-cli",
        &[
            "ionian-bench-cuts",
            "ionian-types",
            "ionian-wire",
            "ionian-store",
            "ionian-runtime",
            "ionian-client",
            "ionian-control-core",
            "ionian-control-client",
            "ionian-control-server",
            "ionian-control-cluster",
            "ionian-control-agent",
            "ionian-node",
            // What `bench` compares with: bare rings and a bare block queue.
            "ionian-driver-api",
            "ionian-shm",
            "ionian-uring",
            // `demo` has its history judged. The judge depends on nothing of ours.
            "ionian-histcheck",
        ],
    ),
    (
        "ionian-sim",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-store",
            "ionian-core",
            "ionian-control-core",
            // Every run is judged. The world is not shipped.
            "ionian-histcheck",
        ],
    ),
    (
        "ionian-benches",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-store",
            "ionian-slots",
            "ionian-core",
            "ionian-runtime",
            "ionian-client",
            "ionian-node",
            "ionian-driver-api",
            "ionian-shm",
            "ionian-udp",
            "ionian-uring",
        ],
    ),
    (
        "ionian-system-tests",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-client",
            "ionian-histcheck",
            // What a dropped datagram costs is compared with receiving alone.
            "ionian-driver-api",
            "ionian-udp",
        ],
    ),
    // It carries sessions over every device, and looks at everything that comes of them.
    (
        "ionian-conformance",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-core",
            "ionian-runtime",
            "ionian-driver-api",
            "ionian-shm",
            "ionian-udp",
            "ionian-ether",
            "ionian-tap",
            "ionian-xdp",
        ],
    ),
    ("ionian-tidy", &[]),
    // The judge shares no code with what it judges.
    ("ionian-histcheck", &[]),
    // It runs clusters of processes and kills them, as the system tests do, and writes the table of NIC profiles.
    ("xtask", &["ionian-system-tests", "ionian-runtime"]),
    (
        "ionian-fuzz",
        &[
            "ionian-types",
            "ionian-wire",
            "ionian-store",
            "ionian-core",
            "ionian-control-core",
            "ionian-driver-api",
            "ionian-ether",
            "ionian-verbs",
            // The parser of histories is fuzzed, too.
            "ionian-histcheck",
        ],
    ),
];

/// Edges that tests may have beyond those of the code they test.
pub const DEV_EDGES: &[(&str, &[&str])] = &[
    ("ionian-runtime", &["ionian-shm"]),
    // The allocator that counts.
    ("ionian-slots", &["ionian-driver-api"]),
    // Its tests run controllers, and clients of what they control.
    (
        "ionian-control-agent",
        &[
            "ionian-types",
            "ionian-client",
            "ionian-control-core",
            "ionian-control-cluster",
            "ionian-control-server",
        ],
    ),
];

/// Checks every edge between crates of ours.
#[must_use]
pub fn check(graph: &Graph) -> Vec<Finding> {
    check_against(graph, EDGES, DEV_EDGES)
}

fn check_against(
    graph: &Graph,
    edges: &[(&str, &[&str])],
    dev_edges: &[(&str, &[&str])],
) -> Vec<Finding> {
    let listed = |table: &[(&str, &[&str])], from: &str, to: &str| {
        table
            .iter()
            .any(|(name, to_names)| *name == from && to_names.contains(&to))
    };
    let ours: Vec<&str> = graph.ours().map(|p| p.name.as_str()).collect();
    let mut findings = Vec::new();
    let mut finding = |manifest: &str, what: String, remedy: &'static str| {
        findings.push(Finding {
            path: manifest.to_owned(),
            line: 0,
            rule: RULE,
            what,
            remedy,
        });
    };
    for package in graph.ours() {
        if !edges.iter().any(|(name, _)| *name == package.name) {
            let remedy = "give the crate a row, and say in ARCHITECTURE.md where it stands";
            finding(
                &package.manifest,
                format!("{} has no row in the table of edges", package.name),
                remedy,
            );
            continue;
        }
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| ours.contains(&d.name.as_str()))
        {
            let dev = dependency.kind == Kind::Dev;
            if !(listed(edges, &package.name, &dependency.name)
                || dev && listed(dev_edges, &package.name, &dependency.name))
            {
                let what = format!(
                    "{} must not depend on {}{}",
                    package.name,
                    dependency.name,
                    if dev { " (dev)" } else { "" }
                );
                finding(&package.manifest, what, REMEDY);
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::fixture;

    const TABLE: &[(&str, &[&str])] = &[("low", &[]), ("high", &["low"])];

    fn graph(low: &[(&str, Kind)], high: &[(&str, Kind)]) -> Graph {
        Graph {
            packages: vec![fixture("low", low), fixture("high", high)],
        }
    }

    #[test]
    fn listed_edges_pass_and_crates_of_others_are_not_this_rules_business() {
        let graph = graph(
            &[("serde", Kind::Normal)],
            &[("low", Kind::Normal), ("low", Kind::Dev)],
        );
        assert_eq!(check_against(&graph, TABLE, &[]), vec![]);
    }

    #[test]
    fn an_edge_upwards_is_named() {
        let findings = check_against(&graph(&[("high", Kind::Normal)], &[]), TABLE, &[]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].path, "low/Cargo.toml");
        assert!(
            findings[0].what.contains("low must not depend on high"),
            "{findings:?}"
        );
    }

    #[test]
    fn an_edge_of_tests_needs_its_own_row() {
        let graph = graph(&[("high", Kind::Dev)], &[]);
        assert_eq!(check_against(&graph, TABLE, &[]).len(), 1);
        assert_eq!(check_against(&graph, TABLE, &[("low", &["high"])]), vec![]);
        let shipped = Graph {
            packages: vec![
                fixture("low", &[("high", Kind::Normal)]),
                fixture("high", &[]),
            ],
        };
        assert_eq!(
            check_against(&shipped, TABLE, &[("low", &["high"])]).len(),
            1
        );
    }

    #[test]
    fn a_crate_without_a_row_is_named() {
        let graph = Graph {
            packages: vec![fixture("new", &[])],
        };
        assert!(check_against(&graph, TABLE, &[])[0].what.contains("no row"));
    }
}
