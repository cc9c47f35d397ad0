//! The sans-IO crates know no socket, file, thread, clock, environment, random source or hash seed.
//!
//! This is what makes a run of the simulator a function of its seed. The rule reads everything under `src/`, unit tests included:
//! a test that is not deterministic hides the bugs that the machines no longer can.

use crate::Finding;
use crate::allow::AllowList;
use crate::code::{code_only, imports, lines_with_word};
use crate::graph::{Graph, Kind};
use crate::repo::Repo;

/// The crates that do no input or output, and the packages of others that their shipped code may use.
pub const PURE: &[(&str, &str, &[&str])] = &[
    ("ionian-types", "dataplane/types/src/", &[]),
    (
        "ionian-wire",
        "dataplane/wire/src/",
        &["crc-fast", "hmac", "sha2", "thiserror"],
    ),
    ("ionian-store", "dataplane/store/src/", &["thiserror"]),
    // loom takes the place of the standard atomics where it checks them, and is in no build that ships.
    ("ionian-slots", "dataplane/slots/src/", &["loom"]),
    ("ionian-core", "dataplane/core/src/", &["thiserror"]),
    (
        "ionian-control-core",
        "controlplane/core/src/",
        &["thiserror"],
    ),
];

/// Crates that only have to be free of hash seeds: they own a clock of their own making.
pub const SEEDED: &[&str] = &["dataplane/sim/src/"];

/// Names of the world outside.
const OUTSIDE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::process",
    "std::io",
    "std::os",
    "Instant::now",
    "std::time::Instant",
    "SystemTime",
    "thread::spawn",
    "thread_local!",
    "env::var",
    "rand::",
    "getrandom",
    "UdpSocket",
    "TcpStream",
    "File::open",
];

/// Names of collections whose order depends on a random seed.
const HASHED: &[&str] = &["HashMap", "HashSet", "RandomState", "DefaultHasher"];

/// Looks for names of the outside world in the sources of the pure crates.
#[must_use]
pub fn sources(repo: &Repo, allow: &mut AllowList) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo.files.iter().filter(|f| f.is_rust()) {
        let pure = PURE
            .iter()
            .any(|(_, folder, _)| file.path.starts_with(folder));
        if !pure && !SEEDED.iter().any(|folder| file.path.starts_with(folder)) {
            continue;
        }
        let code = code_only(&file.text);
        let imported = imports(&code);
        let names = HASHED.iter().chain(OUTSIDE.iter().filter(|_| pure));
        for name in names {
            let mut lines = lines_with_word(&code, name);
            let grouped = imported
                .iter()
                .filter(|(_, path)| !lines_with_word(path, name).is_empty());
            lines.extend(grouped.map(|(line, _)| *line));
            lines.sort_unstable();
            lines.dedup();
            if lines.is_empty() || allow.permits(&file.path, name) {
                continue;
            }
            findings.extend(lines.into_iter().map(|line| Finding {
                path: file.path.clone(),
                line,
                rule: "purity",
                what: format!("{name} in a crate that must be deterministic"),
                remedy: "take the fact as an input of the machine (time, bytes, random numbers), or use BTreeMap/BTreeSet or a fixed table",
            }));
        }
    }
    findings
}

/// The shipped code of the pure crates uses no package of others beyond the table.
#[must_use]
pub fn packages(graph: &Graph) -> Vec<Finding> {
    let ours: Vec<&str> = graph.ours().map(|p| p.name.as_str()).collect();
    let mut findings = Vec::new();
    for (package, permitted) in graph.ours().filter_map(|p| {
        PURE.iter()
            .find(|row| row.0 == p.name)
            .map(|row| (p, row.2))
    }) {
        let shipped = package
            .dependencies
            .iter()
            .filter(|d| d.kind == Kind::Normal);
        for name in shipped
            .map(|d| d.name.as_str())
            .filter(|n| !ours.contains(n) && !permitted.contains(n))
        {
            findings.push(Finding {
                path: package.manifest.clone(),
                line: 0,
                rule: "purity",
                what: format!("{} must not depend on {name}", package.name),
                remedy: "do without it; a package that is worth it gets into the table in tests/tidy/src/rules/purity.rs and a line in docs/dependencies.md",
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::fixture;

    fn found(path: &str, text: &str) -> Vec<Finding> {
        sources(&Repo::in_memory(&[(path, text)]), &mut AllowList::default())
    }

    #[test]
    fn every_outside_name_is_found_in_a_pure_crate_and_nowhere_else() {
        for name in OUTSIDE.iter().chain(HASHED) {
            let text = format!("//! Idea.\nuse {name} ;\n");
            assert!(
                !found("dataplane/core/src/a.rs", &text).is_empty(),
                "{name}"
            );
            assert_eq!(found("dataplane/runtime/src/a.rs", &text), vec![], "{name}");
            assert_eq!(
                found("dataplane/wire/tests/golden.rs", &text),
                vec![],
                "{name}"
            );
            assert_eq!(
                found("dataplane/core/src/a.rs", &format!("// {name}\n")),
                vec![],
                "{name}"
            );
        }
    }

    #[test]
    fn a_name_inside_a_group_of_imports_is_found() {
        let text = "use std::{\n    collections::BTreeMap,\n    time::{Duration, Instant},\n};\n";
        let findings = found("dataplane/core/src/a.rs", text);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].line, 1);
    }

    #[test]
    fn the_simulator_may_own_a_clock_and_no_hash_seed() {
        assert_eq!(
            found("dataplane/sim/src/a.rs", "use std::time::Instant;\n"),
            vec![]
        );
        assert_eq!(
            found("dataplane/sim/src/a.rs", "use std::collections::HashMap;\n").len(),
            1
        );
    }

    #[test]
    fn a_package_outside_the_table_is_found_in_shipped_code_only() {
        let graph = |kind| Graph {
            packages: vec![
                fixture(
                    "ionian-core",
                    &[("rand", kind), ("ionian-types", Kind::Normal)],
                ),
                fixture("ionian-types", &[]),
            ],
        };
        assert_eq!(packages(&graph(Kind::Normal)).len(), 1);
        assert_eq!(packages(&graph(Kind::Dev)), vec![]);
    }
}
