//! `cargo xtask fuzz`: libFuzzer over the targets of `tests/fuzz`, on the stable compiler and without further tools.
//!
//! The compiler's own coverage pass is switched on by flags, and the targets are built for a named triple so that the flags reach neither
//! build scripts nor macros. A run works on a copy of the committed corpus inside the target directory; what it finds stays there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::counts::Counts;
use crate::requirements::CXX;
use crate::stages::Report;
use crate::workspace::{Workspace, describe};
use crate::{process, stages};

/// The manifest of the targets: a workspace of its own, because it is built with flags of its own.
pub(crate) const MANIFEST: &str = "tests/fuzz/Cargo.toml";

/// How long each target runs in the gate, in seconds.
pub(crate) const GATE_SECONDS: u64 = 10;

/// Coverage counters per edge, the table of their places, and the operands of comparisons: what libFuzzer steers by.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Limits of one input: an input that takes longer or a process that grows larger is a finding.
const INPUT_SECONDS_MAX: u32 = 10;
const RSS_MB_MAX: u32 = 2048;

/// Flags of `fuzz`.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Seconds per target.
    #[arg(long, default_value_t = GATE_SECONDS)]
    pub(crate) seconds: u64,
    /// Run this target only.
    #[arg(long, value_name = "NAME")]
    pub(crate) target: Option<String>,
}

/// Runs the targets and prints the counts last.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let workspace = Workspace::read()?;
    let log = workspace.scratch("xtask")?.join("fuzz.log");
    fs::write(&log, "")?;
    let limit = Duration::from_secs(options.seconds.saturating_mul(2).max(900));
    let mut report = Report::default();
    Session {
        workspace: &workspace,
        log: &log,
        limit,
    }
    .run(options.seconds, options.target.as_deref(), &mut report)?;
    report.skips.iter().for_each(|skip| println!("{skip}"));
    println!("{}", report.counts);
    Ok(report.counts.failed == 0)
}

/// One use of the fuzzer.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) log: &'a Path,
    /// How long a command may take before it is ended.
    pub(crate) limit: Duration,
}

impl Session<'_> {
    /// Builds and runs the targets, or the one that is named; each counts as one test.
    ///
    /// # Errors
    /// When the targets do not build, or none has that name.
    pub(crate) fn run(&self, seconds: u64, only: Option<&str>, report: &mut Report) -> Result<()> {
        let names: Vec<String> = self
            .targets()?
            .into_iter()
            .filter(|t| only.is_none_or(|name| name == t))
            .collect();
        if names.is_empty() {
            bail!("no such target in {MANIFEST}");
        }
        if !CXX.present() {
            names
                .iter()
                .for_each(|name| report.skip(&format!("fuzz/{name}"), CXX.reason()));
            return Ok(());
        }
        let programs = self.build()?;
        for name in names {
            let passed = self.target(&programs.join(&name), &name, seconds)?;
            report.counts += Counts {
                passed: u64::from(passed),
                failed: u64::from(!passed),
                skipped: 0,
            };
        }
        Ok(())
    }

    fn targets(&self) -> Result<Vec<String>> {
        let metadata = describe(&self.workspace.root.join(MANIFEST))?;
        let targets = metadata.packages.into_iter().flat_map(|p| p.targets);
        Ok(targets
            .filter(cargo_metadata::Target::is_bin)
            .map(|t| t.name)
            .collect())
    }

    /// Lints and builds all targets; answers the folder of the programs.
    fn build(&self) -> Result<PathBuf> {
        let (dir, triple) = (self.workspace.scratch("fuzz")?, triple()?);
        let place = |command: &mut Command| {
            command
                .args([
                    "--release",
                    "--manifest-path",
                    MANIFEST,
                    "--target",
                    &triple,
                    "--target-dir",
                ])
                .arg(&dir);
            command
                .env("RUSTFLAGS", FLAGS)
                .env_remove("CARGO_ENCODED_RUSTFLAGS");
        };
        if stages::has_component("clippy") {
            let mut clippy = self.workspace.cargo("clippy");
            place(&mut clippy);
            if !process::run(
                clippy.args(["--no-deps", "--", "-D", "warnings"]),
                self.log,
                self.limit,
                |_| true,
            )?
            .success()
            {
                bail!("clippy complains about {MANIFEST}");
            }
        }
        let mut build = self.workspace.cargo("build");
        place(&mut build);
        if !process::run(&mut build, self.log, self.limit, |_| true)?.success() {
            bail!("{MANIFEST} does not build");
        }
        Ok(dir.join(triple).join("release"))
    }

    /// Runs one target; prints what it did, and on a finding where the input is and how to run it again.
    fn target(&self, program: &Path, name: &str, seconds: u64) -> Result<bool> {
        let corpus = self.workspace.scratch(&format!("fuzz/corpus/{name}"))?;
        let found = self.workspace.scratch(&format!("fuzz/found/{name}"))?;
        let seeds = copy_files(
            &self.workspace.root.join("tests/fuzz/corpus").join(name),
            &corpus,
        )?;
        let mut command = Command::new(program);
        command
            .current_dir(&found)
            .arg(format!("-max_total_time={seconds}"))
            .args(["-print_final_stats=1", "-reload=0"]);
        command
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={RSS_MB_MAX}"));
        command
            .arg(format!("-artifact_prefix={}/", found.display()))
            .arg(&corpus);
        let (mut stats, mut tail) = (Stats::default(), Tail::default());
        let ended = process::run(&mut command, self.log, self.limit, |line| {
            stats.line(line);
            tail.line(line);
            false
        })?;
        println!(
            "fuzz {name}: {} executions, {:.0} exec/s, coverage {}, {seeds} seeds",
            stats.executions,
            stats.rate(seconds),
            stats.coverage
        );
        if ended.success() {
            return Ok(true);
        }
        tail.print();
        let input = stats
            .artifact
            .unwrap_or_else(|| found.display().to_string());
        println!(
            "fuzz {name}: FAILED; the input is {input}\n  again: {} {input}",
            program.display()
        );
        Ok(false)
    }
}

/// What libFuzzer said about a run.
#[derive(Debug, Default)]
struct Stats {
    executions: u64,
    coverage: u64,
    artifact: Option<String>,
}

impl Stats {
    fn line(&mut self, line: &str) {
        if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number.trim().parse().unwrap_or(self.executions);
        } else if let Some((_, rest)) = line.split_once(" cov: ") {
            let number = rest.split_whitespace().next().and_then(|n| n.parse().ok());
            self.coverage = number.unwrap_or(self.coverage);
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.artifact = Some(path.trim().to_owned());
        }
    }

    /// Executions per second over the whole run; libFuzzer's own figure is rounded down to whole seconds.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
    fn rate(&self, seconds: u64) -> f64 {
        self.executions as f64 / seconds.max(1) as f64
    }
}

/// The last lines of a run, for when it fails.
#[derive(Debug, Default)]
struct Tail(std::collections::VecDeque<String>);

impl Tail {
    const LINES_MAX: usize = 60;

    fn line(&mut self, line: &str) {
        if self.0.len() == Self::LINES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    fn print(&self) {
        self.0.iter().for_each(|line| println!("    {line}"));
    }
}

/// The triple that this compiler builds for when nobody says otherwise.
fn triple() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("asking rustc for its host")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|l| l.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc does not say its host")
}

/// Copies every file of a folder; answers how many there were.
fn copy_files(from: &Path, to: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(from).with_context(|| format!("no corpus at {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::write(to.join(entry.file_name()), fs::read(entry.path())?)?;
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_read_from_what_libfuzzer_prints() {
        let mut stats = Stats::default();
        for line in [
            "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 30Mb",
            "#4096\tpulse  cov: 90 ft: 120 corp: 8/64b lim: 43 exec/s: 2048 rss: 31Mb",
            "artifact_prefix='x/'; Test unit written to x/crash-1",
            "stat::number_of_executed_units: 363844",
        ] {
            stats.line(line);
        }
        assert_eq!((stats.executions, stats.coverage), (363_844, 90));
        assert_eq!(stats.artifact.as_deref(), Some("x/crash-1"));
        assert!(
            (stats.rate(20) - 18_192.2).abs() < 0.1,
            "{}",
            stats.rate(20)
        );
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut tail = Tail::default();
        (0..100).for_each(|n| tail.line(&n.to_string()));
        assert_eq!(tail.0.len(), Tail::LINES_MAX);
        assert_eq!(tail.0.back().map(String::as_str), Some("99"));
    }

    #[test]
    fn the_compiler_says_its_triple() {
        assert!(triple().expect("rustc runs").contains('-'));
    }
}
