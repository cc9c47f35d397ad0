//! Checks on the shape of the repository: what may depend on what, what may be said where, and what every file owes.
//!
//! Each rule is a pure function from inputs (the text of the files, the graph that cargo reports) to findings, so that its unit tests
//! can show it failing on a fixture. `tests/repository.rs` runs every rule over the real repository. The tables of permitted things
//! stand at the top of the rule they belong to; the list of permitted exceptions is `tests/tidy/allow.txt`.
#![forbid(unsafe_code)]

pub mod allow;
pub mod code;
pub mod graph;
pub mod repo;
pub mod rules;
pub mod spdx;

use std::fmt;

/// One breach of one rule: where, what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the root of the repository.
    pub path: String,
    /// The line, 1-based; 0 where the finding is about the whole file.
    pub line: usize,
    /// The name of the rule.
    pub rule: &'static str,
    /// What is wrong.
    pub what: String,
    /// What makes it right.
    pub remedy: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            rule,
            what,
            remedy,
        } = self;
        if *line == 0 {
            write!(f, "{path}: [{rule}] {what}\n    remedy: {remedy}")
        } else {
            write!(f, "{path}:{line}: [{rule}] {what}\n    remedy: {remedy}")
        }
    }
}

/// Joins findings into the message of a failing test, one paragraph each.
#[must_use]
pub fn report(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    format!("{} finding(s)\n{}", findings.len(), lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_file_line_rule_and_remedy() {
        let finding = Finding {
            path: "a/b.rs".into(),
            line: 7,
            rule: "size",
            what: "too long".into(),
            remedy: "split it",
        };
        let text = report(std::slice::from_ref(&finding));
        for part in ["1 finding", "a/b.rs:7", "[size]", "too long", "split it"] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        let whole = Finding { line: 0, ..finding };
        assert!(whole.to_string().starts_with("a/b.rs: "), "{whole}");
    }
}
