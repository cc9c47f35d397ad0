//! How long the whole test command may take, and which share of it each stage has.
//!
//! The figures are for two cores and an empty target directory. Being over budget is reported and does not fail a stage: a timing says
//! as much about the machine as about the change. A stage that runs for twice its budget hangs, as far as anyone can tell, and is ended.

use std::time::Duration;

/// The whole: `cargo xtask test` from an empty target directory on two cores.
pub(crate) const TOTAL: Duration = Duration::from_secs(40 * 60);

/// Seconds per stage; they add up to [`TOTAL`]. Builds count for the stage that needs them first.
pub(crate) const STAGES: &[(&str, u64)] = &[
    ("fmt", 10),
    ("tidy", 40),
    ("clippy", 130),
    ("tests", 880),
    ("loom", 60),
    ("docs", 60),
    ("features", 60),
    ("conformance", 30),
    ("fuzz", 170),
    ("seeds", 200),
    ("mutants", 120),
    ("vm", 90),
    ("system", 550),
];

/// No stage is ended before this, however small its budget: on a busy machine a compiler may just be slow to start.
const ENDED_AFTER_MIN: Duration = Duration::from_secs(300);

/// The budget of a stage; a stage without a row has none.
pub(crate) fn of(stage: &str) -> Duration {
    let row = STAGES.iter().find(|(name, _)| *name == stage);
    row.map_or(Duration::ZERO, |(_, seconds)| Duration::from_secs(*seconds))
}

/// When a command of the stage is taken to hang.
pub(crate) fn ended_after(stage: &str) -> Duration {
    (of(stage) * 2).max(ENDED_AFTER_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages;

    #[test]
    fn the_shares_add_up_to_the_whole() {
        assert_eq!(STAGES.iter().map(|(_, s)| s).sum::<u64>(), TOTAL.as_secs());
    }

    #[test]
    fn the_document_says_the_same() {
        let document = include_str!("../../docs/testing.md");
        for (stage, seconds) in STAGES {
            let row = document
                .lines()
                .find(|l| l.starts_with(&format!("| `{stage}` |")));
            assert!(
                row.is_some_and(|l| l.ends_with(&format!("| {seconds} s |"))),
                "{stage} in docs/testing.md: {row:?}"
            );
        }
    }

    #[test]
    fn every_stage_has_a_budget() {
        for stage in stages::GATE.iter().chain([&stages::SYSTEM]) {
            assert!(of(stage.name) > Duration::ZERO, "{} has none", stage.name);
        }
        assert_eq!(of("no such stage"), Duration::ZERO);
        assert_eq!(ended_after("fmt"), ENDED_AFTER_MIN);
    }
}
