//! Counts what ran, from what test programs print.
//!
//! A test that cannot run here prints `SKIP name: reason` and returns; libtest then calls it passed, so the line moves it from passed to
//! skipped. A reason that ends in `(install PACKAGE)` says that a package of the distribution would let it run.

use std::fmt;
use std::ops::AddAssign;

/// How many tests and stages passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Something that did not run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Skip {
    /// Parses `SKIP name: reason`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (name, reason) = line.trim().strip_prefix("SKIP ")?.split_once(": ")?;
        let known = !name.is_empty() && !name.contains(char::is_whitespace);
        known.then(|| Self {
            name: name.to_owned(),
            reason: reason.trim().to_owned(),
        })
    }

    /// The package that would let it run, if one would.
    pub(crate) fn installable(&self) -> Option<&str> {
        let (_, rest) = self.reason.rsplit_once("(install ")?;
        rest.strip_suffix(')')
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SKIP {}: {}", self.name, self.reason)
    }
}

/// Reads the output of libtest, line by line.
#[derive(Debug, Default)]
pub(crate) struct TestOutput {
    counts: Counts,
    pub(crate) skips: Vec<Skip>,
    /// Inside the output of tests that passed, which `--show-output` prints: kept in the log, not shown.
    in_successes: bool,
}

impl TestOutput {
    /// Takes a line and says whether it is worth showing.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if let Some(skip) = Skip::parse(line) {
            self.skips.push(skip);
            return false;
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ => {}
        }
        if let Some(counts) = summary(line) {
            self.counts += counts;
            self.in_successes = false;
            return counts.passed + counts.failed + counts.skipped > 0;
        }
        let passed = line.starts_with("test ") && line.ends_with(" ... ok");
        !(self.in_successes || passed || line.is_empty() || line.starts_with("running "))
    }

    /// The counts, with skipped tests moved out of the passed ones.
    pub(crate) fn counts(&self) -> Counts {
        let skipped = u64::try_from(self.skips.len()).unwrap_or(u64::MAX);
        Counts {
            passed: self.counts.passed.saturating_sub(skipped),
            failed: self.counts.failed,
            skipped: self.counts.skipped + skipped,
        }
    }
}

/// Reads the output of a command of ours that prints `PASS name`, `FAIL name: reason` or `SKIP name: reason` for each of its checks.
#[derive(Debug, Default)]
pub(crate) struct CheckOutput {
    pub(crate) counts: Counts,
    pub(crate) skips: Vec<Skip>,
}

impl CheckOutput {
    /// Takes a line and says whether it is worth showing. Skips are not among the counts.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if let Some(skip) = Skip::parse(line) {
            self.skips.push(skip);
            return false;
        }
        let passed = line.starts_with("PASS ");
        self.counts.passed += u64::from(passed);
        self.counts.failed += u64::from(line.starts_with("FAIL "));
        !passed
    }
}

/// `test result: ok. 42 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn summary(line: &str) -> Option<Counts> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in rest.split("; ") {
        let Some((number, what)) = part.split_once(' ') else {
            continue;
        };
        let field = match what {
            "passed" => &mut counts.passed,
            "failed" => &mut counts.failed,
            "ignored" => &mut counts.skipped,
            _ => continue,
        };
        *field = number.parse().ok()?;
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "     Running unittests src/lib.rs (x)\nrunning 3 tests\ntest a ... ok\ntest b ... ok\ntest c ... FAILED\n\nsuccesses:\n\n---- b stdout ----\nSKIP b: no libhwloc (install libhwloc-dev)\nnoise\n\nfailures:\n\n---- c stdout ----\nboom\n\ntest result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\ntest result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";

    #[test]
    fn counts_are_summed_and_a_skip_is_not_a_pass() {
        let mut output = TestOutput::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|l| output.line(l)).collect();
        assert_eq!(
            output.counts(),
            Counts {
                passed: 5,
                failed: 1,
                skipped: 2
            }
        );
        assert_eq!(output.skips.len(), 1);
        assert!(
            shown.contains(&"boom") && shown.contains(&"test c ... FAILED"),
            "{shown:?}"
        );
        assert!(
            !shown.contains(&"noise") && !shown.contains(&"test a ... ok"),
            "{shown:?}"
        );
    }

    #[test]
    fn a_skip_says_whether_a_package_would_help() {
        let skip = Skip::parse("SKIP fuzz: no C++ compiler (install g++)").expect("a skip");
        assert_eq!(skip.installable(), Some("g++"));
        assert_eq!(skip.to_string(), "SKIP fuzz: no C++ compiler (install g++)");
        assert_eq!(
            Skip::parse("SKIP seeds: no binary")
                .expect("a skip")
                .installable(),
            None
        );
        assert_eq!(
            Skip::parse("SKIP this: and that").map(|s| s.name),
            Some("this".to_owned())
        );
        assert_eq!(Skip::parse("SKIP two words: reason"), None);
        assert_eq!(Skip::parse("skipping"), None);
    }

    #[test]
    fn the_last_line_has_its_exact_form() {
        assert_eq!(
            Counts {
                passed: 1,
                failed: 2,
                skipped: 3
            }
            .to_string(),
            "1 passed, 2 failed, 3 skipped"
        );
    }

    #[test]
    fn checks_are_counted_by_their_lines() {
        let mut output = CheckOutput::default();
        let lines = [
            "PASS a",
            "FAIL b: why",
            "SKIP c: no kernel",
            "PASSED",
            "note",
        ];
        let shown: Vec<&str> = lines.into_iter().filter(|l| output.line(l)).collect();
        assert_eq!(shown, ["FAIL b: why", "PASSED", "note"]);
        assert_eq!((output.counts.passed, output.counts.failed), (1, 1));
        assert_eq!(output.skips.len(), 1);
    }

    #[test]
    fn what_is_no_summary_is_not_counted() {
        assert_eq!(summary("test result: odd"), None);
        assert_eq!(summary("the test result: ok. 1 passed"), None);
        assert_eq!(summary("test result: ok. x passed; 0 failed"), None);
    }
}
