//! What may stand nowhere without a stated reason: sleeps, stubs, ignored tests, notes of unfinished work.

use crate::Finding;
use crate::allow::AllowList;
use crate::code::{code_only, lines_with_word};
use crate::repo::Repo;

/// Banned in the code of Rust files; comments and literals are not looked at.
pub const IN_CODE: &[(&str, &str)] = &[
    (
        "thread::sleep",
        "wait for the event itself: a channel, a deadline of the machine, a condition with a timeout",
    ),
    ("todo!", "finish it, or leave the path out"),
    (
        "unimplemented!",
        "finish it, or make the case an error value",
    ),
    (
        "#[ignore",
        "make the test run, or let it print `SKIP name: reason`",
    ),
];

/// Banned in any text of code, scripts and configuration, comments included. Spelled in two parts so that this file may say them.
pub const IN_TEXT: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "mend it"),
    (concat!("X", "XX"), "say what is wrong and mend it"),
    (
        concat!("TO", "DO"),
        "do it, or describe the limit as a fact",
    ),
    (
        concat!("```", "ignore"),
        "make the example compile, or show it as text",
    ),
];

/// Extensions and names of the files that [`IN_TEXT`] is looked for in.
const TEXT_FILES: &[&str] = &[
    ".rs",
    ".toml",
    ".sh",
    ".yml",
    ".yaml",
    "Dockerfile",
    ".ci/run",
];

/// Looks through the whole repository.
#[must_use]
pub fn check(repo: &Repo, allow: &mut AllowList) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut look = |path: &str, text: &str, patterns: &[(&'static str, &'static str)]| {
        for &(pattern, remedy) in patterns {
            let lines = lines_with_word(text, pattern);
            if lines.is_empty() || allow.permits(path, pattern) {
                continue;
            }
            let found = lines.into_iter().map(|line| Finding {
                path: path.to_owned(),
                line,
                rule: "banned",
                what: format!("{pattern} is not permitted here"),
                remedy,
            });
            findings.extend(found);
        }
    };
    for file in &repo.files {
        if file.is_rust() {
            look(&file.path, &code_only(&file.text), IN_CODE);
        }
        if TEXT_FILES.iter().any(|end| file.path.ends_with(end)) {
            look(&file.path, &file.text, IN_TEXT);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, list: &str) -> usize {
        let (mut allow, refused) = AllowList::parse(list);
        assert!(refused.is_empty(), "{refused:?}");
        check(&Repo::in_memory(&[("a.rs", text)]), &mut allow).len()
    }

    #[test]
    fn every_pattern_of_code_is_found_in_code_and_not_in_prose() {
        for (pattern, _) in IN_CODE {
            assert_eq!(
                found(&format!("fn f() {{\n    {pattern}\n}}\n"), ""),
                1,
                "{pattern}"
            );
            assert_eq!(
                found(
                    &format!("// {pattern}\nconst A: &str = \"{pattern}\";\n"),
                    ""
                ),
                0,
                "{pattern}"
            );
        }
    }

    #[test]
    fn every_pattern_of_text_is_found_in_comments() {
        for (pattern, _) in IN_TEXT {
            assert_eq!(found(&format!("// {pattern} later\n"), ""), 1, "{pattern}");
        }
        assert_eq!(found(concat!("// TO", "DOS are words too\n"), ""), 0);
    }

    #[test]
    fn an_exception_is_for_one_file_and_one_pattern() {
        let text = "fn f() { std::thread::sleep(d); }\n";
        assert_eq!(
            found(
                text,
                "a.rs | thread::sleep | paces a human's progress line\n"
            ),
            0
        );
        assert_eq!(
            found(
                text,
                "b.rs | thread::sleep | paces a human's progress line\n"
            ),
            1
        );
        assert_eq!(
            found(text, "a.rs | todo! | paces a human's progress line\n"),
            1
        );
    }
}
