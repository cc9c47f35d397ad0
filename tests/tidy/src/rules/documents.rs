//! Documents stay true to the tree: links and anchors resolve, the list of terms is sorted, the image is built from files that exist.

use std::collections::BTreeSet;

use crate::Finding;
use crate::repo::{File, Repo};

/// The list of terms.
pub const TERMS: &str = "docs/terminology.md";

/// Every relative link of every Markdown file leads to a file, and its anchor to a heading.
#[must_use]
pub fn links(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo.files.iter().filter(|f| f.is_markdown()) {
        for (line, target) in targets(&file.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if let Some(what) = broken(repo, file, &target) {
                let remedy = "mend the link or the heading it names";
                findings.push(Finding {
                    path: file.path.clone(),
                    line,
                    rule: "links",
                    what,
                    remedy,
                });
            }
        }
    }
    findings
}

/// Terms stand in alphabetical order, each once. A term is the bold beginning of a list item: `- **term**: meaning`.
#[must_use]
pub fn terms(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut previous = String::new();
    let mut count = 0;
    for (index, line) in text.lines().enumerate() {
        let Some(term) = line
            .strip_prefix("- **")
            .and_then(|rest| rest.split("**").next())
        else {
            continue;
        };
        let term = term.to_lowercase();
        count += 1;
        if term <= previous {
            findings.push(Finding {
                path: TERMS.to_owned(),
                line: index + 1,
                rule: "terms",
                what: format!("{term} comes after {previous}"),
                remedy: "keep the list sorted; one meaning per term, each term once",
            });
        }
        previous = term;
    }
    if count == 0 {
        let what = "no terms found".to_owned();
        findings.push(Finding {
            path: TERMS.to_owned(),
            line: 0,
            rule: "terms",
            what,
            remedy: "write each as `- **term**: meaning`",
        });
    }
    findings
}

/// What the image copies from the repository exists in it.
#[must_use]
pub fn image(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo.files.iter().filter(|f| f.path.ends_with("Dockerfile")) {
        for (index, line) in file.text.lines().enumerate() {
            let Some(arguments) = line.trim().strip_prefix("COPY ") else {
                continue;
            };
            let words: Vec<&str> = arguments.split_whitespace().collect();
            // A copy from an earlier stage is not a copy from the repository; the last word is the destination.
            let (Some((_, sources)), false) = (words.split_last(), arguments.contains("--from="))
            else {
                continue;
            };
            let missing = sources
                .iter()
                .map(|s| s.trim_start_matches("./").trim_end_matches('.'));
            findings.extend(
                missing
                    .filter(|s| !s.starts_with("--") && !repo.exists(s))
                    .map(|source| Finding {
                        path: file.path.clone(),
                        line: index + 1,
                        rule: "image",
                        what: format!("copies {source}, which is not in the repository"),
                        remedy: "name paths from the root of the repository",
                    }),
            );
        }
    }
    findings
}

/// Targets of inline links with their lines, outside code blocks and code spans.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("` `");
            let ends = prose
                .match_indices("](")
                .filter_map(|(at, _)| prose.get(at + 2..)?.split(')').next());
            found.extend(ends.map(|target| (index + 1, target.to_owned())));
        }
    }
    found
}

fn broken(repo: &Repo, file: &File, target: &str) -> Option<String> {
    let (path, anchor) = target
        .split_once('#')
        .map_or((target, None), |(p, a)| (p, Some(a)));
    let full = if path.is_empty() {
        Some(file.path.clone())
    } else {
        resolve(&file.path, path)
    };
    let Some(full) = full else {
        return Some(format!("{target} leads out of the repository"));
    };
    if !repo.exists(&full) {
        return Some(format!("{target} leads nowhere"));
    }
    let (anchor, aimed) = (anchor?, repo.get(&full)?);
    let known = !aimed.is_markdown() || anchors(&aimed.text).contains(anchor);
    (!known).then(|| format!("{full} has no heading for #{anchor}"))
}

/// Joins a relative link to the folder of the file it stands in; `None` when it climbs above the root.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

/// The anchors that headings make: lower case, blanks to hyphens, other punctuation dropped.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text
        .lines()
        .filter(|l| l.starts_with('#'))
        .map(|l| l.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        let lower = heading.to_lowercase().replace(' ', "-");
        lower
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
            .collect()
    };
    headings.map(slug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken_links(text: &str) -> Vec<String> {
        let files = [
            ("docs/a.md", text),
            ("README.md", "# Read me\n## The 2nd: `part`\n"),
            ("src/x.rs", ""),
        ];
        links(&Repo::in_memory(&files))
            .into_iter()
            .map(|f| f.what)
            .collect()
    }

    #[test]
    fn good_links_pass() {
        let text = "# Here\n[a](../README.md) [b](../README.md#the-2nd-part) [c](#here) [d](../src) [e](https://example.org/x)\n`[no](gone)`\n```\n[no](gone)\n```\n";
        assert_eq!(broken_links(text), Vec::<String>::new());
    }

    #[test]
    fn broken_links_are_named() {
        assert!(broken_links("[a](gone.md)")[0].contains("leads nowhere"));
        assert!(broken_links("[a](../../other/x.md)")[0].contains("out of the repository"));
        assert!(broken_links("[a](../README.md#none)")[0].contains("no heading"));
        assert!(broken_links("`code` then [a](#none)")[0].contains("no heading"));
    }

    #[test]
    fn terms_are_sorted_and_single() {
        assert_eq!(terms("- **ack**: a\n- **Cut**: b\n"), vec![]);
        assert_eq!(terms("- **cut**: b\n- **ack**: a\n").len(), 1);
        assert_eq!(terms("- **ack**: b\n- **ack**: a\n").len(), 1);
        assert_eq!(terms("no list").len(), 1);
    }

    #[test]
    fn the_image_copies_what_exists() {
        let with = |text: &str| {
            image(&Repo::in_memory(&[
                ("docker/Dockerfile", text),
                ("cli/src/main.rs", ""),
            ]))
            .len()
        };
        assert_eq!(
            with("COPY . .\nCOPY cli /build/cli\nCOPY --from=build /x/y /y\n"),
            0
        );
        assert_eq!(with("COPY cli gone /build/\n"), 1);
    }
}
