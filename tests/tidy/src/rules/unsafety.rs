//! Where `unsafe` may stand, where slices may be made from raw parts, and where unsafe code is forbidden by the compiler.

use crate::Finding;
use crate::allow::AllowList;
use crate::code::{code_only, lines_with_word};
use crate::graph::Graph;
use crate::repo::Repo;

/// Folders whose code talks to memory that others share, and may therefore be unsafe.
pub const UNSAFE_UNDER: &[&str] = &["drivers/", "dataplane/runtime/"];

/// Files that may turn a pointer and a length into a slice, each with the reason. Elsewhere the buffer handles of the first are used.
pub const RAW_PARTS_IN: &[(&str, &str)] = &[(
    "drivers/api/src/dma.rs",
    "the registered arenas: every buffer of the data plane is a handle into one",
)];

const RAW_PARTS: &[&str] = &["from_raw_parts", "from_raw_parts_mut"];

/// `unsafe` stands only in the permitted folders.
#[must_use]
pub fn placement(repo: &Repo, allow: &mut AllowList) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo
        .files
        .iter()
        .filter(|f| f.is_rust() && !may_be_unsafe(&f.path))
    {
        let lines = lines_with_word(&code_only(&file.text), "unsafe");
        if !lines.is_empty() && !allow.permits(&file.path, "unsafe") {
            findings.extend(lines.into_iter().map(|line| Finding {
                path: file.path.clone(),
                line,
                rule: "unsafe-placement",
                what: "unsafe outside drivers/* and dataplane/runtime".to_owned(),
                remedy: "put the unsafe operation behind a safe function of a driver or of the runtime",
            }));
        }
    }
    findings
}

/// Slices are made from raw parts only in the named files.
#[must_use]
pub fn raw_parts(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo
        .files
        .iter()
        .filter(|f| f.is_rust() && !RAW_PARTS_IN.iter().any(|(path, _)| *path == f.path))
    {
        let code = code_only(&file.text);
        for line in RAW_PARTS
            .iter()
            .flat_map(|word| lines_with_word(&code, word))
        {
            findings.push(Finding {
                path: file.path.clone(),
                line,
                rule: "raw-parts",
                what: "a slice made from raw parts".to_owned(),
                remedy: "borrow from a buffer handle of drivers/api; a foreign interface that cannot gets a row with its reason in tests/tidy/src/rules/unsafety.rs",
            });
        }
    }
    findings
}

/// Every library and binary outside the permitted folders forbids unsafe code, so that the compiler agrees with this rule. One with a
/// file that the allow list permits `unsafe` in denies it, which that file alone can lift; a file without an exception cannot,
/// since [`placement`] finds it.
#[must_use]
pub fn forbidden_elsewhere(graph: &Graph, repo: &Repo, allow: &AllowList) -> Vec<Finding> {
    let mut findings = Vec::new();
    for root in graph
        .ours()
        .flat_map(|p| &p.roots)
        .filter(|r| !may_be_unsafe(r))
    {
        let text = repo
            .get(root)
            .map(|f| code_only(&f.text).replace(' ', ""))
            .unwrap_or_default();
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);
        let excepted = allow.permits_below(folder, "unsafe");
        if !(text.contains("#![forbid(unsafe_code)]")
            || excepted && text.contains("#![deny(unsafe_code)]"))
        {
            findings.push(Finding {
                path: root.clone(),
                line: 1,
                rule: "forbid-unsafe",
                what: "the crate does not forbid unsafe code".to_owned(),
                remedy: "add #![forbid(unsafe_code)] below the header; #![deny(unsafe_code)] if a file of it is on the allow list for `unsafe`",
            });
        }
    }
    findings
}

fn may_be_unsafe(path: &str) -> bool {
    UNSAFE_UNDER.iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::fixture;

    #[test]
    fn unsafe_is_found_outside_its_folders_only() {
        let text = "fn f() { unsafe { g() } }\n";
        let repo = Repo::in_memory(&[
            ("dataplane/core/src/lib.rs", text),
            ("drivers/udp/src/lib.rs", text),
            ("dataplane/runtime/src/a.rs", text),
        ]);
        let findings = placement(&repo, &mut AllowList::default());
        assert_eq!(findings.len(), 1);
        assert_eq!(
            (findings[0].path.as_str(), findings[0].line),
            ("dataplane/core/src/lib.rs", 1)
        );
    }

    #[test]
    fn the_allow_list_can_permit_one_file() {
        let (mut allow, _) = AllowList::parse(
            "node/tests/alloc.rs | unsafe | a counting global allocator is an unsafe trait\n",
        );
        let repo =
            Repo::in_memory(&[("node/tests/alloc.rs", "unsafe impl GlobalAlloc for C {}\n")]);
        assert_eq!(placement(&repo, &mut allow), vec![]);
    }

    #[test]
    fn raw_parts_are_found_even_in_drivers() {
        let text = "let s = unsafe { std::slice::from_raw_parts(p, n) };\nlet t = slice::from_raw_parts_mut(p, n);\n";
        let repo = Repo::in_memory(&[
            ("drivers/udp/src/lib.rs", text),
            ("drivers/api/src/dma.rs", text),
        ]);
        let findings = raw_parts(&repo);
        assert_eq!(findings.len(), 2);
        assert!(
            findings.iter().all(|f| f.path == "drivers/udp/src/lib.rs"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_crate_that_only_mentions_the_attribute_does_not_forbid() {
        let graph = Graph {
            packages: vec![fixture("dataplane/core", &[]), fixture("drivers/udp", &[])],
        };
        let repo = |text| Repo::in_memory(&[("dataplane/core/src/lib.rs", text)]);
        let with = |text| forbidden_elsewhere(&graph, &repo(text), &AllowList::default()).len();
        assert_eq!(with("//! Idea.\n#![forbid(unsafe_code)]\n"), 0);
        assert_eq!(with("//! Has #![forbid(unsafe_code)] in prose.\n"), 1);
        assert_eq!(with("//! Idea.\n#![deny(unsafe_code)]\n"), 1);
    }

    #[test]
    fn a_crate_with_an_excepted_file_denies() {
        let graph = Graph {
            packages: vec![fixture("dataplane/core", &[])],
        };
        let repo = |text| Repo::in_memory(&[("dataplane/core/src/lib.rs", text)]);
        let with = |text, list| {
            let (allow, _) = AllowList::parse(list);
            forbidden_elsewhere(&graph, &repo(text), &allow).len()
        };
        let deny = "//! Idea.\n#![deny(unsafe_code)]\n";
        let own = "dataplane/core/src/a.rs | unsafe | three good words\n";
        assert_eq!(with(deny, own), 0);
        assert_eq!(with("//! Idea.\n#![forbid(unsafe_code)]\n", own), 0);
        assert_eq!(with("//! Idea.\n", own), 1);
        let others = "dataplane/core/src/a.rs | todo! | three good words\n\
                      dataplane/core-more/src/a.rs | unsafe | three good words\n";
        assert_eq!(with(deny, others), 1);
    }
}
