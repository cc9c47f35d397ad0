//! Every package that is linked, of ours or of others, is under a permissive licence.

use crate::graph::Graph;
use crate::{Finding, spdx};

/// Checks the licence of every package in the graph, on every platform.
#[must_use]
pub fn check(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &graph.packages {
        let what = match package.license.as_deref().map(|l| (l, spdx::permitted(l))) {
            Some((_, Some(true))) => continue,
            Some((licence, Some(false))) => format!("{} is under {licence}", package.name),
            Some((licence, None)) => format!(
                "{} names a licence that is not an SPDX expression: {licence}",
                package.name
            ),
            None => format!("{} names no licence", package.name),
        };
        findings.push(Finding {
            path: "Cargo.lock".to_owned(),
            line: 0,
            rule: "licences",
            what,
            remedy: "use another package; a licence is permitted only by the list in tests/tidy/src/spdx.rs",
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::fixture;

    #[test]
    fn only_permissive_licences_pass() {
        let with = |licence: Option<&str>| {
            let mut package = fixture("other", &[]);
            package.license = licence.map(str::to_owned);
            check(&Graph {
                packages: vec![package],
            })
        };
        assert_eq!(with(Some("MIT OR Apache-2.0")), vec![]);
        assert!(
            with(Some("AGPL-3.0-only"))[0]
                .what
                .contains("other is under AGPL-3.0-only")
        );
        assert!(
            with(Some("see the file"))[0]
                .what
                .contains("not an SPDX expression")
        );
        assert!(with(None)[0].what.contains("names no licence"));
    }
}
