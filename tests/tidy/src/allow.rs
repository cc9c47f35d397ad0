//! The list of permitted exceptions: `tests/tidy/allow.txt`, one per line as `path | pattern | reason`.
//!
//! An exception that no longer excepts anything is itself a finding, so the list cannot rot.

use std::collections::BTreeSet;

use crate::Finding;

/// Where the list stands.
pub const PATH: &str = "tests/tidy/allow.txt";

const RULE: &str = "allow-list";

/// One permitted exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The line in the list, 1-based.
    pub line: usize,
    /// The one file it is for.
    pub path: String,
    /// The pattern it permits there, as the rule names it.
    pub pattern: String,
}

/// The parsed list, and which entries were needed.
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    entries: Vec<Entry>,
    used: BTreeSet<usize>,
}

impl AllowList {
    /// Parses the list. Blank lines and lines that begin with `#` are skipped; a line without a reason is a finding.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<Finding>) {
        let mut list = Self::default();
        let mut findings = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let mut parts = line.splitn(3, " | ").map(str::trim);
            match (parts.next(), parts.next(), parts.next()) {
                (Some(path), Some(pattern), Some(reason)) if reason.split_whitespace().count() >= 3 => {
                    list.entries.push(Entry { line: line_number, path: path.to_owned(), pattern: pattern.to_owned() });
                }
                _ => findings.push(Finding {
                    path: PATH.to_owned(),
                    line: line_number,
                    rule: RULE,
                    what: format!("not `path | pattern | reason`: {line}"),
                    remedy: "give the file, the pattern, and a reason of at least three words, separated by ` | `",
                }),
            }
        }
        (list, findings)
    }

    /// Says whether `pattern` is permitted in `path`, and notes that the entry was needed.
    pub fn permits(&mut self, path: &str, pattern: &str) -> bool {
        let hit = self
            .entries
            .iter()
            .find(|e| e.path == path && e.pattern == pattern);
        if let Some(entry) = hit {
            self.used.insert(entry.line);
        }
        hit.is_some()
    }

    /// Says whether `pattern` is permitted in any file below `folder`.
    #[must_use]
    pub fn permits_below(&self, folder: &str, pattern: &str) -> bool {
        let below = |path: &str| {
            path.strip_prefix(folder)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        self.entries
            .iter()
            .any(|e| below(&e.path) && e.pattern == pattern)
    }

    /// Entries that nothing needed. Ask after every rule has run.
    #[must_use]
    pub fn unused(&self) -> Vec<Finding> {
        let stale = self.entries.iter().filter(|e| !self.used.contains(&e.line));
        stale
            .map(|e| Finding {
                path: PATH.to_owned(),
                line: e.line,
                rule: RULE,
                what: format!(
                    "nothing in {} needs the exception for {}",
                    e.path, e.pattern
                ),
                remedy: "delete the line",
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_entry_permits_and_an_unused_one_is_reported() {
        let (mut list, findings) = AllowList::parse(
            "# head\n\na.rs | unsafe | counts the allocations of a test\nb.rs | unsafe | no longer needed here\n",
        );
        assert!(findings.is_empty(), "{findings:?}");
        assert!(list.permits("a.rs", "unsafe"));
        assert!(!list.permits("a.rs", "todo!") && !list.permits("c.rs", "unsafe"));
        let unused = list.unused();
        assert_eq!(unused.len(), 1);
        assert_eq!(unused[0].line, 4);
    }

    #[test]
    fn a_line_without_a_reason_is_refused() {
        let (mut list, findings) = AllowList::parse("a.rs | unsafe\nb.rs | unsafe | because\n");
        assert_eq!(findings.len(), 2);
        assert!(!list.permits("a.rs", "unsafe") && !list.permits("b.rs", "unsafe"));
    }
}
