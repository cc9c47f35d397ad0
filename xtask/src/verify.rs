//! `cargo xtask verify`: the gate. Runs every stage, prints what each took against its budget, and fails at the end naming what failed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::budget;
use crate::counts::{Counts, Skip};
use crate::stages::{Context, GATE, Report, Stage};
use crate::workspace::Workspace;

/// Flags of `verify`.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Stop at the first stage that fails.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Run one stage only: fmt, tidy, clippy, tests, loom, docs, features, fuzz, seeds, mutants, vm.
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,
}

/// A stage that has run.
#[derive(Debug)]
struct Row {
    stage: &'static str,
    took: Duration,
    counts: Counts,
}

/// The stages that have run so far.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    rows: Vec<Row>,
    skips: Vec<Skip>,
}

/// Runs the gate and prints the counts last.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let workspace = Workspace::read()?;
    let stages: Vec<&Stage> = GATE
        .iter()
        .filter(|s| options.stage.as_ref().is_none_or(|name| name == s.name))
        .collect();
    if stages.is_empty() {
        let names: Vec<&str> = GATE.iter().map(|s| s.name).collect();
        bail!("no stage is called that; there are {}", names.join(", "));
    }
    let mut gate = Gate::default();
    for stage in stages {
        if !gate.run(&workspace, stage)? && options.fail_fast {
            break;
        }
    }
    Ok(gate.finish(false))
}

impl Gate {
    /// Runs one stage and says whether nothing in it failed.
    ///
    /// # Errors
    /// When its log cannot be made. A stage that cannot run its commands has failed, and the gate goes on.
    pub(crate) fn run(&mut self, workspace: &Workspace, stage: &Stage) -> Result<bool> {
        println!("== {}", stage.name);
        let log = workspace
            .scratch("xtask")?
            .join(format!("{}.log", stage.name));
        std::fs::write(&log, "")?;
        let started = Instant::now();
        let mut report = Report::default();
        if let Err(error) = (stage.run)(
            &Context {
                workspace,
                stage: stage.name,
                log: log.clone(),
            },
            &mut report,
        ) {
            println!("{}: {error:#}", stage.name);
            report.counts.failed += 1;
        }
        let row = Row {
            stage: stage.name,
            took: started.elapsed(),
            counts: report.counts,
        };
        println!(
            "== {}: {} in {:.1} s",
            row.stage,
            row.counts,
            row.took.as_secs_f64()
        );
        if row.counts.failed > 0 {
            println!("== {}: the whole output is in {}", row.stage, log.display());
        }
        let passed = row.counts.failed == 0;
        self.rows.push(row);
        self.skips.append(&mut report.skips);
        Ok(passed)
    }

    /// Prints the summary, the counts last, and says whether nothing failed. With `must_install`, a skip of something that could have been
    /// installed is a failure.
    pub(crate) fn finish(&self, must_install: bool) -> bool {
        println!("\n{}", self.table());
        self.skips.iter().for_each(|skip| println!("{skip}"));
        let (counts, complaints) = self.verdict(must_install);
        complaints
            .iter()
            .for_each(|complaint| println!("{complaint}"));
        println!("{counts}");
        counts.failed == 0
    }

    /// The counts of all stages, and what there is to complain of.
    fn verdict(&self, must_install: bool) -> (Counts, Vec<String>) {
        let mut counts = Counts::default();
        self.rows.iter().for_each(|r| counts += r.counts);
        let mut complaints = Vec::new();
        for package in self
            .skips
            .iter()
            .filter(|_| must_install)
            .filter_map(Skip::installable)
        {
            complaints.push(format!(
                "FAILED: {package} could have been installed here, so its tests must run"
            ));
            counts.skipped = counts.skipped.saturating_sub(1);
            counts.failed += 1;
        }
        let failed: Vec<&str> = self
            .rows
            .iter()
            .filter(|r| r.counts.failed > 0)
            .map(|r| r.stage)
            .collect();
        if !failed.is_empty() {
            complaints.push(format!("FAILED stages: {}", failed.join(", ")));
        }
        (counts, complaints)
    }

    fn table(&self) -> String {
        let mut text = format!(
            "{:<10}{:>10}{:>10}{:>8}{:>9}  within budget\n",
            "stage", "seconds", "budget", "share", "failed"
        );
        for Row {
            stage,
            took,
            counts,
        } in &self.rows
        {
            text.push_str(&line(stage, *took, budget::of(stage), counts.failed));
        }
        let (total, failed) = (
            self.rows.iter().map(|r| r.took).sum(),
            self.rows.iter().map(|r| r.counts.failed).sum(),
        );
        text.push_str(&line("total", total, budget::TOTAL, failed));
        text
    }
}

fn line(name: &str, took: Duration, budget: Duration, failed: u64) -> String {
    let share = 100.0 * budget.as_secs_f64() / budget::TOTAL.as_secs_f64();
    let within = if took <= budget { "yes" } else { "NO" };
    format!(
        "{name:<10}{:>10.1}{:>10}{share:>7.1}%{failed:>9}  {within}\n",
        took.as_secs_f64(),
        budget.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(failed: u64, skips: &[&str]) -> Gate {
        let skipped = u64::try_from(skips.len()).expect("few");
        Gate {
            rows: vec![Row {
                stage: "fmt",
                took: Duration::from_secs(11),
                counts: Counts {
                    passed: 3,
                    failed,
                    skipped,
                },
            }],
            skips: skips
                .iter()
                .map(|s| Skip::parse(s).expect("a skip"))
                .collect(),
        }
    }

    #[test]
    fn the_table_says_who_was_over_budget() {
        let table = gate(0, &[]).table();
        assert!(
            table
                .lines()
                .nth(1)
                .is_some_and(|l| l.starts_with("fmt") && l.ends_with("NO")),
            "{table}"
        );
        assert!(
            table
                .lines()
                .nth(2)
                .is_some_and(|l| l.starts_with("total") && l.ends_with("yes")),
            "{table}"
        );
    }

    // These look at the verdict and not at what is printed: a line that says SKIP would be counted by a gate around this test.
    #[test]
    fn a_failure_is_counted_and_its_stage_named_and_a_skip_is_no_failure() {
        let (counts, complaints) = gate(0, &["SKIP a: no reason to run"]).verdict(true);
        assert_eq!((counts.failed, counts.skipped, complaints.len()), (0, 1, 0));
        let (counts, complaints) = gate(2, &[]).verdict(false);
        assert_eq!((counts.passed, counts.failed), (3, 2));
        assert_eq!(complaints, ["FAILED stages: fmt"]);
    }

    #[test]
    fn a_skip_of_something_installable_fails_where_it_could_be_installed() {
        let gate = gate(0, &["SKIP fuzz: a C++ compiler is missing (install g++)"]);
        assert_eq!(gate.verdict(false).0.failed, 0);
        let (counts, complaints) = gate.verdict(true);
        assert_eq!((counts.failed, counts.skipped), (1, 0));
        assert!(complaints[0].contains("g++"), "{complaints:?}");
    }

    #[test]
    fn an_unknown_stage_is_refused() {
        let options = Options {
            fail_fast: false,
            stage: Some("nonsense".to_owned()),
        };
        assert!(run(&options).is_err());
    }
}
