//! The scenarios of a cluster with three controllers.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use ionian_system_tests::Binary;
use ionian_system_tests::chaos::{Verdict, controllers, reconfigure, tree};

use super::{Options, Scratch};

/// The names of the scenarios.
pub(super) const RECONFIGURE: &str = "reconfigure";
pub(super) const CONTROLLERS: &str = "controllers";
pub(super) const TREE: &str = "tree";

/// Changes the cluster under load; returns the exit code, which is the verdict.
pub(super) fn reconfigure(
    options: &Options,
    seed: u64,
    binary: &Binary,
    scratch: &mut Scratch,
    stop: impl Fn() -> bool,
) -> Result<u8> {
    let load = Duration::from_secs(60 * options.load_minutes);
    let plan = reconfigure::Plan::whole(options.kills, load, seed);
    eprintln!(
        "{RECONFIGURE}, {} kills, {} min of full load, seed {seed}; files in {}",
        options.kills,
        options.load_minutes,
        scratch.path().display()
    );
    let history = options.history.as_deref();
    let say = |line: &str| eprintln!("{line}");
    let outcome = reconfigure::run(binary, scratch.path(), &plan, history, stop, say)
        .inspect_err(|_| scratch.keep())?;
    eprint!("{}", outcome.report);
    if options.json {
        println!("{:#}", outcome.json());
    } else {
        print!("{}", outcome.figures.text());
    }
    let told = Told {
        verdict: outcome.verdict,
        problems: &outcome.problems,
        history: &outcome.history,
    };
    Ok(told.end(options, scratch))
}

/// Does faults to the controllers under load; returns the exit code, which is the verdict.
pub(super) fn controllers(
    options: &Options,
    seed: u64,
    binary: &Binary,
    scratch: &mut Scratch,
    stop: impl Fn() -> bool,
) -> Result<u8> {
    let duration = options.duration();
    let plan = controllers::Plan {
        duration,
        turns: true,
        seed,
    };
    eprintln!(
        "{CONTROLLERS} for {} s, seed {seed}; files in {}",
        duration.as_secs(),
        scratch.path().display()
    );
    let history = options.history.as_deref();
    let say = |line: &str| eprintln!("{line}");
    let outcome = controllers::run(binary, scratch.path(), &plan, history, stop, say)
        .inspect_err(|_| scratch.keep())?;
    eprint!("{}", outcome.report);
    if options.json {
        println!("{:#}", outcome.json());
    } else {
        print!("{}", outcome.text());
    }
    let told = Told {
        verdict: outcome.verdict,
        problems: &outcome.problems,
        history: &outcome.history,
    };
    Ok(told.end(options, scratch))
}

/// Changes the ordering tree under load, and has its processes die and stand still; returns the exit code, which is the verdict.
pub(super) fn tree(
    options: &Options,
    seed: u64,
    binary: &Binary,
    scratch: &mut Scratch,
    stop: impl Fn() -> bool,
) -> Result<u8> {
    let duration = options.duration();
    let plan = tree::Plan {
        duration,
        faults: true,
        seed,
    };
    eprintln!(
        "{TREE} for {} s, seed {seed}; files in {}",
        duration.as_secs(),
        scratch.path().display()
    );
    let history = options.history.as_deref();
    let say = |line: &str| eprintln!("{line}");
    let outcome = tree::run(binary, scratch.path(), &plan, history, stop, say)
        .inspect_err(|_| scratch.keep())?;
    eprint!("{}", outcome.report);
    if options.json {
        println!("{:#}", outcome.json());
    } else {
        print!("{}", outcome.text());
    }
    let told = Told {
        verdict: outcome.verdict,
        problems: &outcome.problems,
        history: &outcome.history,
    };
    Ok(told.end(options, scratch))
}

/// What every scenario ends with.
struct Told<'a> {
    verdict: Verdict,
    problems: &'a [String],
    history: &'a Path,
}

impl Told<'_> {
    /// Says it; returns the exit code. What did not pass is kept.
    fn end(&self, options: &Options, scratch: &mut Scratch) -> u8 {
        for problem in self.problems {
            eprintln!("PROBLEM: {problem}");
        }
        eprintln!("verdict with recovery: {}", self.verdict);
        if options.history.is_some() || self.verdict != Verdict::Pass {
            eprintln!("history: {}", self.history.display());
        }
        if self.verdict != Verdict::Pass {
            eprintln!("files: {}", scratch.path().display());
            scratch.keep();
        }
        self.verdict.exit_code()
    }
}
