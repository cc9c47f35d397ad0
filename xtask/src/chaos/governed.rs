//! The scenarios of a cluster with three controllers.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Result;
use ionian_system_tests::Binary;
use ionian_system_tests::chaos::{Judged, Verdict, controllers, reconfigure, tree};

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
    let (json, text) = (outcome.json(), outcome.figures.text());
    Ok(end(options, scratch, &outcome.judged, &json, &text))
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
    let (json, text) = (outcome.json(), outcome.text());
    Ok(end(options, scratch, &outcome.judged, &json, &text))
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
    let (json, text) = (outcome.json(), outcome.text());
    Ok(end(options, scratch, &outcome.judged, &json, &text))
}

/// What every scenario ends with: says what was found, for programs or for people, and the verdict; returns the exit code. What
/// did not pass is kept.
fn end(
    options: &Options,
    scratch: &mut Scratch,
    judged: &Judged,
    json: &dyn Display,
    text: &str,
) -> u8 {
    eprint!("{}", judged.report);
    if options.json {
        println!("{json:#}");
    } else {
        print!("{text}");
    }
    for problem in &judged.problems {
        eprintln!("PROBLEM: {problem}");
    }
    eprintln!("verdict with recovery: {}", judged.verdict);
    if options.history.is_some() || judged.verdict != Verdict::Pass {
        eprintln!("history: {}", judged.history.display());
    }
    if judged.verdict != Verdict::Pass {
        eprintln!("files: {}", scratch.path().display());
        scratch.keep();
    }
    judged.verdict.exit_code()
}
