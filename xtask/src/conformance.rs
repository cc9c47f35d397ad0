//! `cargo xtask conformance`: the same cases over every network backend that opens here; what must run and does not is a failure.

use anyhow::{Context, Result};
use clap::Args;

use crate::counts::{Counts, Skip};
use crate::workspace::Workspace;

/// The package of the suite, and its program.
const SUITE: (&str, &str) = ("ionian-conformance", "conformance");

/// The profile for runs of many messages: as what is shipped, but a panic fails its case and no more.
const LONG_PROFILE: &str = "sim";

/// Flags of `conformance`.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "Each line is PASS, FAIL or SKIP, the backend, the case, and a reason or the counts; a case counts the same on every \
    backend. Which backends there are, and which must run, is the table in tests/conformance/src/backends/mod.rs. The exit code is 1 if \
    a case fails, or a backend that is required does not open."
)]
pub(crate) struct Options {
    /// Only this backend; may be given several times
    #[arg(long = "backend", value_name = "NAME")]
    backends: Vec<String>,
    /// Backends that must not be skipped, by commas; without it, those that the table says for this user
    #[arg(long, value_name = "LIST")]
    require: Option<String>,
    /// Only this case; may be given several times
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// So many messages with faults instead of the cases, built with optimisation
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    messages: Option<u64>,
    /// Rounds of polling in which nothing moves before a case gives up
    #[arg(long, value_name = "ROUNDS")]
    patience: Option<u64>,
}

impl Options {
    /// What cargo is called with after `run`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--quiet".to_owned()];
        if self.messages.is_some() {
            arguments.extend(["--profile".to_owned(), LONG_PROFILE.to_owned()]);
        }
        let (package, program) = SUITE;
        arguments.extend(["-p", package, "--bin", program, "--"].map(str::to_owned));
        let named = |name: &str, values: &[String]| -> Vec<String> {
            let pairs = values.iter().map(|value| [name.to_owned(), value.clone()]);
            pairs.flatten().collect()
        };
        arguments.extend(named("--backend", &self.backends));
        arguments.extend(named("--case", &self.cases));
        let numbers = [("--messages", self.messages), ("--patience", self.patience)];
        for (name, value) in numbers {
            if let Some(value) = value {
                arguments.extend([name.to_owned(), value.to_string()]);
            }
        }
        if let Some(list) = &self.require {
            arguments.extend(["--require".to_owned(), list.clone()]);
        }
        arguments
    }
}

/// Builds the suite and runs it; true when nothing failed.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let workspace = Workspace::read()?;
    let status = workspace
        .cargo("run")
        .args(options.arguments())
        .status()
        .context("starting cargo")?;
    Ok(status.success())
}

/// Counts the lines of the suite.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) counts: Counts,
    pub(crate) skips: Vec<Skip>,
}

impl Lines {
    /// Takes note of a line, and says whether it is worth showing: everything but what passed.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        let mut words = line.splitn(4, ' ');
        let (verdict, backend, case) = (words.next(), words.next(), words.next());
        let reason = words.next().unwrap_or_default();
        match (verdict, backend, case) {
            (Some("PASS"), Some(_), Some(_)) => {
                self.counts.passed += 1;
                return false;
            }
            (Some("FAIL"), Some(_), Some(_)) => self.counts.failed += 1,
            (Some("SKIP"), Some(backend), Some(case)) => {
                self.counts.skipped += 1;
                self.skips.push(Skip {
                    name: format!("{backend}/{case}"),
                    reason: reason.to_owned(),
                });
                return false;
            }
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_suite_is_asked_for_what_the_flags_say() {
        let of = |line: &[&str]| {
            let line = [&["conformance"], line].concat();
            Line::try_parse_from(line).map(|line| line.options.arguments().join(" "))
        };
        assert_eq!(
            of(&[]).ok(),
            Some("--quiet -p ionian-conformance --bin conformance --".to_owned())
        );
        assert_eq!(
            of(&[
                "--backend",
                "udp",
                "--messages",
                "9",
                "--require",
                "udp,shm"
            ])
            .ok(),
            Some(
                "--quiet --profile sim -p ionian-conformance --bin conformance -- --backend udp \
                 --messages 9 --require udp,shm"
                    .to_owned()
            )
        );
        assert!(of(&["--messages", "0"]).is_err());
    }

    #[test]
    fn lines_become_counts_and_skips_with_their_package() {
        let mut lines = Lines::default();
        assert!(!lines.line("PASS shm once sent=1 received=1 buffers=2/2"));
        assert!(lines.line("FAIL udp once 3 messages came twice"));
        assert!(!lines.line("SKIP tap all ip is missing (install iproute2)"));
        assert!(lines.line("1 passed, 1 failed, 1 skipped"));
        assert_eq!(
            lines.counts,
            Counts {
                passed: 1,
                failed: 1,
                skipped: 1
            }
        );
        assert_eq!(lines.skips[0].name, "tap/all");
        assert_eq!(lines.skips[0].installable(), Some("iproute2"));
    }
}
