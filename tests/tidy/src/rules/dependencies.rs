//! Every package of others that a crate of ours names has one line in `docs/dependencies.md` that says why, and no line is left over.
//! No package is a pre-release.

use std::collections::BTreeMap;

use crate::Finding;
use crate::graph::Graph;

/// The document with the table.
pub const PATH: &str = "docs/dependencies.md";

/// The heading above the table.
pub const HEADING: &str = "## Direct dependencies";

const RULE: &str = "dependencies";

/// Compares the table with what the manifests of `graphs` declare.
#[must_use]
pub fn check(graphs: &[&Graph], document: &str) -> Vec<Finding> {
    let rows = rows(document);
    let mut declared: BTreeMap<&str, &str> = BTreeMap::new();
    for graph in graphs {
        let ours: Vec<&str> = graphs
            .iter()
            .flat_map(|g| g.ours())
            .map(|p| p.name.as_str())
            .collect();
        for package in graph.ours() {
            let others = package
                .dependencies
                .iter()
                .filter(|d| !ours.contains(&d.name.as_str()));
            declared.extend(others.map(|d| (d.name.as_str(), package.name.as_str())));
        }
    }
    let mut findings = Vec::new();
    for (name, user) in &declared {
        if !rows.iter().any(|(_, row, _)| row == name) {
            findings.push(Finding {
                path: PATH.to_owned(),
                line: 0,
                rule: RULE,
                what: format!("{user} depends on {name}, which has no line"),
                remedy: "add a line with its licence, who uses it and why; or do without it",
            });
        }
    }
    for (line, name, why) in &rows {
        let what = if !declared.contains_key(name.as_str()) {
            format!("no crate depends on {name}")
        } else if why.split_whitespace().count() < 3 {
            format!("the line of {name} gives no reason")
        } else {
            continue;
        };
        findings.push(Finding {
            path: PATH.to_owned(),
            line: *line,
            rule: RULE,
            what,
            remedy: "delete the line, or say why the package is used",
        });
    }
    findings
}

/// A package's stable release is used, never an alpha, a beta or a candidate.
#[must_use]
pub fn stable(graph: &Graph) -> Vec<Finding> {
    // Build metadata, which may hold a hyphen too, begins at the first plus.
    let pre = |version: &str| version.split('+').next().unwrap_or_default().contains('-');
    let early = graph.packages.iter().filter(|p| pre(&p.version));
    early
        .map(|p| Finding {
            path: "Cargo.lock".to_owned(),
            line: 0,
            rule: RULE,
            what: format!("{} {} is a pre-release", p.name, p.version),
            remedy: "ask for the stable release, or do without the package that needs this one",
        })
        .collect()
}

/// Rows of the table: line, name, reason. A row is `| name | licence | used by | why |`, the name in backticks.
fn rows(document: &str) -> Vec<(usize, String, String)> {
    let numbered = document
        .lines()
        .enumerate()
        .skip_while(|(_, l)| *l != HEADING)
        .skip(1);
    let section = numbered.take_while(|(_, l)| !l.starts_with("## "));
    let mut rows = Vec::new();
    for (index, line) in section {
        let cells: Vec<&str> = line
            .trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        if let [name, _, _, why] = cells.as_slice()
            && let Some(name) = name.strip_prefix('`').and_then(|n| n.strip_suffix('`'))
        {
            rows.push((index + 1, name.to_owned(), (*why).to_owned()));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Kind, fixture};

    const DOCUMENT: &str = "# D\n\n| `not` | in | the | section here |\n\n## Direct dependencies\n\n| package | licence | used by | why |\n|---|---|---|---|\n| `libc` | MIT | udp | system calls of sockets |\n\n## Next\n| `gone` | MIT | x | not in the section |\n";

    fn graph(dependencies: &[(&str, Kind)]) -> Graph {
        Graph {
            packages: vec![fixture("a", dependencies), fixture("b", &[])],
        }
    }

    #[test]
    fn each_declared_package_has_a_line_and_crates_of_ours_need_none() {
        assert_eq!(
            check(
                &[&graph(&[("libc", Kind::Normal), ("b", Kind::Normal)])],
                DOCUMENT
            ),
            vec![]
        );
    }

    #[test]
    fn a_missing_line_is_found_for_tests_too() {
        let findings = check(
            &[&graph(&[("libc", Kind::Normal), ("tempfile", Kind::Dev)])],
            DOCUMENT,
        );
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].what.contains("a depends on tempfile"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_prerelease_is_found_and_build_metadata_is_none() {
        let with = |version: &str| {
            let mut package = fixture("libc", &[]);
            package.version = version.to_owned();
            stable(&Graph {
                packages: vec![package],
            })
        };
        assert_eq!(with("1.2.1+spec-1.1.0"), vec![]);
        assert!(
            with("1.0.0-alpha.5")[0]
                .what
                .contains("libc 1.0.0-alpha.5 is a pre-release")
        );
    }

    #[test]
    fn a_stale_line_and_one_without_a_reason_are_found() {
        assert!(
            check(&[&graph(&[])], DOCUMENT)[0]
                .what
                .contains("no crate depends on libc")
        );
        let bare = DOCUMENT.replace("system calls of sockets", "used");
        assert!(
            check(&[&graph(&[("libc", Kind::Normal)])], &bare)[0]
                .what
                .contains("gives no reason")
        );
    }
}
