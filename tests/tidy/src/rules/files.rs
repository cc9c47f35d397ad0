//! What every file and every crate owes: a bounded size, a header that says its idea, a description, the shared lints.

use crate::Finding;
use crate::graph::Graph;
use crate::repo::{File, Repo};

/// The most lines a `.rs` file may have, tests included.
pub const LINES_MAX: usize = 1_000;

/// No Rust file is longer than [`LINES_MAX`].
#[must_use]
pub fn size(repo: &Repo) -> Vec<Finding> {
    let long = rust(repo).filter(|f| f.text.lines().count() > LINES_MAX);
    long.map(|f| Finding {
        path: f.path.clone(),
        line: LINES_MAX + 1,
        rule: "size",
        what: format!("{} lines; the limit is {LINES_MAX}", f.text.lines().count()),
        remedy: "split it along its main ideas; question a file at 600 lines",
    })
    .collect()
}

/// Every Rust file opens with `//!`: its idea, and its fault model where it has one.
#[must_use]
pub fn headers(repo: &Repo) -> Vec<Finding> {
    rust(repo)
        .filter(|f| !opens_with_docs(&f.text))
        .map(|f| Finding {
            path: f.path.clone(),
            line: 1,
            rule: "headers",
            what: "does not open with a //! header".to_owned(),
            remedy: "say in one to three sentences what the file is for, before anything else",
        })
        .collect()
}

/// Every crate of ours says what it is and inherits the shared lints and licence.
#[must_use]
pub fn manifests(graph: &Graph, repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in graph.ours() {
        let mut finding = |what: &str, remedy| {
            findings.push(Finding {
                path: package.manifest.clone(),
                line: 0,
                rule: "manifests",
                what: format!("{} {what}", package.name),
                remedy,
            });
        };
        if package
            .description
            .as_deref()
            .unwrap_or_default()
            .trim()
            .is_empty()
        {
            finding(
                "has no description",
                "add `description = \"...\"`: one line that says what the crate is",
            );
        }
        if package.license.as_deref() != Some("Apache-2.0 OR MIT") {
            finding(
                "is not under Apache-2.0 OR MIT",
                "add `license.workspace = true`",
            );
        }
        let text = repo.get(&package.manifest).map_or("", |f| f.text.as_str());
        if !inherits_lints(text) {
            finding(
                "does not inherit the shared lints",
                "add `[lints]` with `workspace = true`",
            );
        }
    }
    findings
}

fn rust(repo: &Repo) -> impl Iterator<Item = &File> {
    repo.files.iter().filter(|f| f.is_rust())
}

fn opens_with_docs(text: &str) -> bool {
    let first = text
        .lines()
        .find(|l| !l.trim().is_empty() && !l.starts_with("#!"));
    first.is_some_and(|l| {
        l.strip_prefix("//!")
            .is_some_and(|rest| !rest.trim().is_empty())
    })
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|l| *l != "[lints]")
        .skip(1);
    lines
        .find(|l| !l.is_empty() && !l.starts_with('#'))
        .is_some_and(|l| l.replace(' ', "") == "workspace=true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::fixture;

    #[test]
    fn a_file_over_the_limit_is_found_and_one_at_the_limit_is_not() {
        let (at, over) = ("x\n".repeat(LINES_MAX), "x\n".repeat(LINES_MAX + 1));
        let repo = Repo::in_memory(&[("at.rs", &at), ("over.rs", &over), ("long.md", &over)]);
        let findings = size(&repo);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].path, "over.rs");
    }

    #[test]
    fn a_header_comes_first_and_says_something() {
        let good = [
            ("a.rs", "//! What it is.\nfn x() {}\n"),
            ("b.rs", "#![no_main]\n\n//! What it is.\n"),
        ];
        assert_eq!(headers(&Repo::in_memory(&good)), vec![]);
        let bad = [
            ("a.rs", "fn x() {}\n//! late\n"),
            ("b.rs", "//!\n"),
            ("c.rs", ""),
            ("d.rs", "// plain\n"),
        ];
        assert_eq!(headers(&Repo::in_memory(&bad)).len(), bad.len());
    }

    #[test]
    fn a_crate_owes_a_description_a_licence_and_the_lints() {
        let graph = Graph {
            packages: vec![fixture("good", &[])],
        };
        let repo = Repo::in_memory(&[(
            "good/Cargo.toml",
            "[package]\n[lints]\n# shared\nworkspace = true\n",
        )]);
        assert_eq!(manifests(&graph, &repo), vec![]);

        let mut package = fixture("bad", &[]);
        package.description = None;
        package.license = Some("MIT".to_owned());
        let findings = manifests(
            &Graph {
                packages: vec![package],
            },
            &Repo::in_memory(&[("bad/Cargo.toml", "[lints.rust]\nx = 1\n")]),
        );
        assert_eq!(findings.len(), 3, "{findings:?}");
    }
}
