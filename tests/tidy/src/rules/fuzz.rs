//! Every fuzz target has a committed corpus, and every corpus has a target.

use crate::Finding;
use crate::repo::Repo;

const MANIFEST: &str = "tests/fuzz/Cargo.toml";
const CORPUS: &str = "tests/fuzz/corpus/";

/// Compares the targets of the manifest with the folders of the corpus.
#[must_use]
pub fn check(repo: &Repo) -> Vec<Finding> {
    let targets = repo
        .get(MANIFEST)
        .map(|f| targets(&f.text))
        .unwrap_or_default();
    let corpora = |name: &str| {
        repo.paths
            .iter()
            .any(|p| p.starts_with(&format!("{CORPUS}{name}/")))
    };
    let mut findings = Vec::new();
    for name in targets.iter().filter(|name| !corpora(name)) {
        findings.push(Finding {
            path: MANIFEST.to_owned(),
            line: 0,
            rule: "fuzz",
            what: format!("the target {name} has no corpus"),
            remedy: "commit at least one valid input under tests/fuzz/corpus/NAME/",
        });
    }
    for path in repo.paths.iter().filter(|p| p.starts_with(CORPUS)) {
        let folder = path
            .trim_start_matches(CORPUS)
            .split('/')
            .next()
            .unwrap_or_default();
        if !targets.iter().any(|t| t == folder) {
            findings.push(Finding {
                path: path.clone(),
                line: 0,
                rule: "fuzz",
                what: format!("no target is called {folder}"),
                remedy: "delete the corpus, or add its target to tests/fuzz/Cargo.toml",
            });
        }
    }
    findings
}

/// The names of the `[[bin]]` tables.
fn targets(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_bin = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_bin = line == "[[bin]]";
        } else if let Some(name) = line.strip_prefix("name").filter(|_| in_bin) {
            names.push(
                name.trim_matches(|c: char| c == '=' || c == '"' || c.is_whitespace())
                    .to_owned(),
            );
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str =
        "[package]\nname = \"ionian-fuzz\"\n[[bin]]\nname = \"frame\"\npath = \"x.rs\"\n";

    #[test]
    fn a_target_with_its_corpus_passes() {
        assert_eq!(targets(TOML), vec!["frame"]);
        assert_eq!(
            check(&Repo::in_memory(&[
                (MANIFEST, TOML),
                ("tests/fuzz/corpus/frame/one", "a")
            ])),
            vec![]
        );
    }

    #[test]
    fn a_target_without_a_corpus_and_a_corpus_without_a_target_are_found() {
        let findings = check(&Repo::in_memory(&[
            (MANIFEST, TOML),
            ("tests/fuzz/corpus/gone/one", "a"),
        ]));
        assert_eq!(findings.len(), 2, "{findings:?}");
    }
}
