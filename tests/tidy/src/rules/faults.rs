//! The fault menu: 29 rows, and what each row names as its test exists. The lists of bugs found: so do their tests.
//!
//! A reference is in backticks: `crate::test` a test of a crate of ours, `sim:Kind` a kind of fault of the simulator,
//! `chaos:scenario` one of the real processes, `fuzz:target` a fuzz target. A row without any says *later*, and why.

use crate::Finding;
use crate::repo::Repo;

const DOCUMENT: &str = "docs/testing.md";
const HEADING: &str = "## The fault menu";
/// What stands before the lists of bugs that were found.
const FOUND: [&str; 2] = ["### What the simulator found", "What chaos found:"];
/// Rows of the menu.
const ROWS: usize = 29;
/// Where the simulator names its faults, and chaos its own.
const SIM: &str = "dataplane/sim/src/plan/kinds.rs";
const CHAOS: &str = "tests/system/src/chaos/plan.rs";
/// Crates by the name that a row gives them.
const CRATES: &[(&str, &str)] = &[
    ("api", "drivers/api/"),
    ("cli", "cli/"),
    ("client", "dataplane/client/"),
    ("control", "controlplane/core/"),
    ("core", "dataplane/core/"),
    ("dpdk", "drivers/dpdk/"),
    ("ether", "drivers/ether/"),
    ("node", "dataplane/node/"),
    ("sim", "dataplane/sim/"),
    ("store", "dataplane/store/"),
    ("system", "tests/system/"),
    ("tap", "drivers/tap/"),
    ("udp", "drivers/udp/"),
    ("uring", "drivers/uring/"),
    ("verbs", "drivers/verbs/"),
    ("wire", "dataplane/wire/"),
    ("xdp", "drivers/xdp/"),
];

/// Every row is there, in order, and names tests that exist or says why there is none yet.
#[must_use]
pub fn check(repo: &Repo) -> Vec<Finding> {
    let text = repo.get(DOCUMENT).map_or("", |file| file.text.as_str());
    let mut findings = Vec::new();
    let mut find = |line: usize, what: String, remedy| {
        findings.push(Finding {
            path: DOCUMENT.to_owned(),
            line,
            rule: "faults",
            what,
            remedy,
        });
    };
    let lines = text.lines().enumerate();
    let section = lines
        .skip_while(|(_, line)| *line != HEADING)
        .skip(1)
        .take_while(|(_, line)| !line.starts_with("## "));
    let mut count = 0;
    for (at, line) in section {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(number) = cells.first().and_then(|cell| cell.parse::<usize>().ok()) else {
            continue;
        };
        count += 1;
        let tests = cells.get(3).copied().unwrap_or_default();
        if number != count || cells.len() != 4 {
            let what = format!("row {number} is the {count}th, with {} cells", cells.len());
            find(
                at + 1,
                what,
                "number the rows from 1 to 29, four cells each",
            );
        }
        let mut named = 0;
        for name in tests.split('`').skip(1).step_by(2) {
            named += 1;
            if !exists(repo, name) {
                let what = format!("row {number} names `{name}`, which does not exist");
                find(
                    at + 1,
                    what,
                    "name a test as crate::test, sim:Kind, chaos:scenario or fuzz:target",
                );
            }
        }
        let reason = tests.split_once("*later*").map(|(_, reason)| reason);
        if reason.is_some_and(|reason| reason.trim_matches([':', ' ']).len() < 10) {
            let what = format!("row {number} says *later* and not why");
            find(at + 1, what, "write *later*: and the reason");
        }
        if named == 0 && reason.is_none() {
            let what = format!("row {number} names no test");
            find(
                at + 1,
                what,
                "name a test, or write *later*: and the reason",
            );
        }
    }
    if count != ROWS {
        let what = format!("the fault menu has {count} rows, not {ROWS}");
        find(
            0,
            what,
            "keep one row per fault; a fault of a new kind belongs to one of them",
        );
    }
    findings.extend(found(repo, text));
    findings
}

/// Every bug that was found has a test, and the tests that the lists name exist, in whatever crate.
fn found(repo: &Repo, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut inside = false;
    for (at, line) in text.lines().enumerate() {
        if FOUND.contains(&line) {
            inside = true;
        } else if line.starts_with('#') {
            inside = false;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let heads = line.starts_with("|---") || cells.last() == Some(&"regression test ");
        if !inside || !line.starts_with('|') || heads {
            continue;
        }
        let names = cells.last().copied().unwrap_or_default().split('`');
        let names: Vec<&str> = names.skip(1).step_by(2).collect();
        let missing = names.iter().find(|name| {
            let mut files = repo.files.iter();
            !files.any(|file| file.is_rust() && has_test(&file.text, name))
        });
        let what = match missing {
            Some(name) => {
                format!("`{name}` is the test of a bug that was found, and does not exist")
            }
            None if names.is_empty() => "a bug that was found has no test".to_owned(),
            None => continue,
        };
        findings.push(Finding {
            path: DOCUMENT.to_owned(),
            line: at + 1,
            rule: "faults",
            what,
            remedy: "name the function of a test in the last cell",
        });
    }
    findings
}

fn exists(repo: &Repo, name: &str) -> bool {
    let in_file =
        |path: &str, text: &str| repo.get(path).is_some_and(|file| file.text.contains(text));
    if let Some((of, test)) = name.split_once("::") {
        let folder = CRATES.iter().find(|(known, _)| *known == of);
        return folder.is_some_and(|(_, folder)| {
            let of_crate = |path: &str| path.starts_with(folder);
            let mut files = repo.files.iter().filter(|file| of_crate(&file.path));
            files.any(|file| file.is_rust() && has_test(&file.text, test))
        });
    }
    match name.split_once(':') {
        Some(("sim", kind)) => in_file(SIM, &format!("Fault::{kind},")),
        Some(("chaos", scenario)) => in_file(CHAOS, &format!("\"{scenario}\"")),
        Some(("fuzz", target)) => in_file("tests/fuzz/Cargo.toml", &format!("name = \"{target}\"")),
        _ => false,
    }
}

/// A function of that name, with `#[test]` among the lines before it.
fn has_test(text: &str, name: &str) -> bool {
    let opening = format!("fn {name}(");
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let at = lines.iter().position(|line| line.starts_with(&opening));
    at.is_some_and(|at| {
        let before = lines[..at].iter().rev();
        let mut attributes =
            before.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        attributes.any(|line| *line == "#[test]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "pub const FAULTS: [Fault; 1] = [\n    Fault::Crash,\n];\n";
    const TESTS: &str = "#[test]\n#[should_panic]\nfn it_holds() {}\nfn helper() {}\n";

    fn menu(cells: &str) -> Repo {
        let rows: Vec<String> = (1..=ROWS)
            .map(|row| format!("| {row} | a fault | it holds | {cells} |"))
            .collect();
        let text = format!(
            "# T\n{HEADING}\n\n| # | f | o | t |\n|---|---|---|---|\n{}\n## More\n| 1 |\n",
            rows.join("\n")
        );
        Repo::in_memory(&[
            (DOCUMENT, &text),
            (SIM, PLAN),
            ("cli/tests/a.rs", TESTS),
            ("tests/fuzz/Cargo.toml", "name = \"packet\"\n"),
            (CHAOS, "Self::Kill => \"kill9\","),
        ])
    }

    #[test]
    fn a_bug_that_was_found_has_a_test() {
        let list = |cell: &str| {
            format!(
                "### What the simulator found\n\n| seed | what it was | regression test |\n|---|---|---|\n| 1 | a \
                `b` | {cell} |\n"
            )
        };
        let repo = Repo::in_memory(&[("cli/tests/a.rs", TESTS)]);
        assert_eq!(found(&repo, &list("`it_holds` (cli)")), vec![]);
        for bad in ["`helper`", "`it_holds`, `gone`", "`cargo test`", "it_holds"] {
            assert_eq!(found(&repo, &list(bad)).len(), 1, "{bad}");
        }
    }

    #[test]
    fn rows_name_what_exists_or_say_why_not() {
        let good =
            "`cli::it_holds`, `sim:Crash`, `chaos:kill9`, `fuzz:packet`; *later*: no hardware here";
        assert_eq!(check(&menu(good)), vec![]);
        for bad in [
            "`cli::helper`",
            "`cli::gone`",
            "`store::it_holds`",
            "`sim:Gone`",
            "`chaos:gone`",
            "`fuzz:gone`",
            "`it_holds`",
            "*later*",
            "",
        ] {
            assert_eq!(check(&menu(bad)).len(), ROWS, "{bad}");
        }
    }

    #[test]
    fn a_row_that_is_missing_is_found() {
        let mut repo = menu("`sim:Crash`");
        repo.files[0].text = repo.files[0].text.replace("| 7 |", "| 8 |");
        assert_eq!(check(&repo).len(), 1);
        repo.files[0].text.clear();
        assert_eq!(check(&repo).len(), 1);
    }
}
