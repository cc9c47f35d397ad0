//! The stages of the gate: what each runs, and how its output becomes counts.
//!
//! A stage without tests of its own counts as one. A stage that cannot run here says `SKIP` with the reason; it never passes silently.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::counts::{CheckOutput, Counts, Skip, TestOutput};
use crate::requirements::{CXX, DPDK, HWLOC, IBVERBS, LIBCLANG, PKG_CONFIG, Requirement};
use crate::workspace::{Feature, SIMULATOR, SYSTEM_TESTS, TIDY, Workspace, simulator_arguments};
use crate::{budget, conformance, fuzz, mutants, process};

/// One stage.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Context<'_>, &mut Report) -> Result<()>,
}

/// The gate, the quick ones first.
pub(crate) const GATE: &[Stage] = &[
    Stage {
        name: "fmt",
        run: fmt,
    },
    Stage {
        name: "tidy",
        run: tidy,
    },
    Stage {
        name: "clippy",
        run: clippy,
    },
    Stage {
        name: "tests",
        run: tests,
    },
    Stage {
        name: "loom",
        run: loom,
    },
    Stage {
        name: "docs",
        run: docs,
    },
    Stage {
        name: "features",
        run: features,
    },
    Stage {
        name: "conformance",
        run: conform,
    },
    Stage {
        name: "fuzz",
        run: fuzz_targets,
    },
    Stage {
        name: "seeds",
        run: seeds,
    },
    Stage {
        name: "mutants",
        run: find_mutants,
    },
    Stage {
        name: "vm",
        run: virtual_machine,
    },
];

/// The system tests, which `cargo xtask test` runs after the gate.
pub(crate) const SYSTEM: Stage = Stage {
    name: "system",
    run: system,
};

/// What the simulator is asked for in the gate.
const SEED_ARGUMENTS: &[&str] = &["gate"];

/// Features that link a C library, by name or as `package/name`, and what must be there to build them. Other features build everywhere.
const FEATURE_NEEDS: &[(&str, &[Requirement])] = &[
    ("hwloc", &[PKG_CONFIG, HWLOC]),
    ("rdma", NEEDS_OF_RDMA),
    ("ionian-verbs-sys/link", NEEDS_OF_RDMA),
    ("dpdk", NEEDS_OF_DPDK),
    ("ionian-dpdk-sys/link", NEEDS_OF_DPDK),
];
const NEEDS_OF_RDMA: &[Requirement] = &[CXX, PKG_CONFIG, LIBCLANG, IBVERBS];
const NEEDS_OF_DPDK: &[Requirement] = &[CXX, PKG_CONFIG, LIBCLANG, DPDK];

/// What a stage works with.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) stage: &'static str,
    pub(crate) log: PathBuf,
}

/// What came of a stage.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) counts: Counts,
    pub(crate) skips: Vec<Skip>,
}

impl Report {
    fn one(&mut self, passed: bool) {
        self.counts += Counts {
            passed: u64::from(passed),
            failed: u64::from(!passed),
            skipped: 0,
        };
    }

    pub(crate) fn skip(&mut self, name: &str, reason: String) {
        self.counts.skipped += 1;
        self.skips.push(Skip {
            name: name.to_owned(),
            reason,
        });
    }
}

impl Context<'_> {
    /// Runs a command as one check.
    fn check(&self, command: &mut Command, report: &mut Report) -> Result<()> {
        let ended = process::run(command, &self.log, budget::ended_after(self.stage), |_| {
            true
        })?;
        report.one(ended.success());
        Ok(())
    }

    /// Runs a `cargo test` and counts its tests. A failure that no test reported (a build, a crash) counts as one.
    fn count(&self, command: &mut Command, report: &mut Report) -> Result<()> {
        // A failing property test must not write its case into the source tree while the gate runs.
        command
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
            .args(["--", "--show-output"]);
        let mut output = TestOutput::default();
        let ended = process::run(
            command,
            &self.log,
            budget::ended_after(self.stage),
            |line| output.line(line),
        )?;
        let mut counts = output.counts();
        if !ended.success() && counts.failed == 0 {
            counts.failed = 1;
        }
        report.counts += counts;
        report.skips.append(&mut output.skips);
        Ok(())
    }
}

fn fmt(context: &Context<'_>, report: &mut Report) -> Result<()> {
    if !has_component("fmt") {
        report.skip("fmt", "the component rustfmt is not installed".to_owned());
        return Ok(());
    }
    context.check(
        context
            .workspace
            .cargo("fmt")
            .args(["--all", "--", "--check", "--color", "never"]),
        report,
    )?;
    let manifest = [
        "--manifest-path",
        fuzz::MANIFEST,
        "--",
        "--check",
        "--color",
        "never",
    ];
    context.check(context.workspace.cargo("fmt").args(manifest), report)
}

fn tidy(context: &Context<'_>, report: &mut Report) -> Result<()> {
    context.count(
        context
            .workspace
            .cargo("test")
            .args(["--no-fail-fast", "-p", TIDY]),
        report,
    )
}

fn clippy(context: &Context<'_>, report: &mut Report) -> Result<()> {
    if !has_component("clippy") {
        report.skip("clippy", "the component clippy is not installed".to_owned());
        return Ok(());
    }
    context.check(
        context.workspace.cargo("clippy").args([
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
        report,
    )
}

fn tests(context: &Context<'_>, report: &mut Report) -> Result<()> {
    let others = [
        "--workspace",
        "--no-fail-fast",
        "--exclude",
        TIDY,
        "--exclude",
        SYSTEM_TESTS,
    ];
    context.count(context.workspace.cargo("test").args(others), report)
}

/// Every interleaving of the lock-free structures: the tests called `loom`, built so that atomics are loom's, into a folder of their own.
fn loom(context: &Context<'_>, report: &mut Report) -> Result<()> {
    let target = context.workspace.scratch("loom")?;
    for package in context.workspace.with_test("loom") {
        let mut command = context.workspace.cargo("test");
        command
            .args([
                "--release",
                "--no-fail-fast",
                "-p",
                &package,
                "--test",
                "loom",
                "--target-dir",
            ])
            .arg(&target);
        command
            .env("RUSTFLAGS", "--cfg loom")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        context.count(&mut command, report)?;
    }
    Ok(())
}

fn docs(context: &Context<'_>, report: &mut Report) -> Result<()> {
    let mut command = context.workspace.cargo("doc");
    command
        .args(["--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    context.check(&mut command, report)
}

/// Each feature alone: it must build without warnings, and where it is defined its tests must pass.
fn features(context: &Context<'_>, report: &mut Report) -> Result<()> {
    let features = context.workspace.features();
    if features.is_empty() {
        report.skip("features", "no package of ours has any feature".to_owned());
    }
    for Feature {
        package,
        name,
        forwards,
    } in features
    {
        let needs = FEATURE_NEEDS
            .iter()
            .find(|(feature, _)| *feature == name || *feature == format!("{package}/{name}"))
            .map_or(&[][..], |(_, needs)| needs);
        if let Some(missing) = needs.iter().find(|n| !n.present()) {
            report.skip(&format!("{package}/{name}"), missing.reason());
            continue;
        }
        let alone = ["-p", &package, "--features", &name];
        if has_component("clippy") {
            let mut command = context.workspace.cargo("clippy");
            context.check(
                command
                    .args(alone)
                    .args(["--all-targets", "--", "-D", "warnings"]),
                report,
            )?;
        }
        if !forwards {
            context.count(
                context
                    .workspace
                    .cargo("test")
                    .arg("--no-fail-fast")
                    .args(alone),
                report,
            )?;
        }
    }
    Ok(())
}

/// The same cases over every network backend that this build has and this user may open.
fn conform(context: &Context<'_>, report: &mut Report) -> Result<()> {
    let mut command = context.workspace.cargo("run");
    command.args(conformance::Options::default().arguments());
    let mut lines = conformance::Lines::default();
    let ended = process::run(
        &mut command,
        &context.log,
        budget::ended_after(context.stage),
        |line| lines.line(line),
    )?;
    if !ended.success() && lines.counts.failed == 0 {
        lines.counts.failed = 1;
    }
    report.counts += lines.counts;
    report.skips.append(&mut lines.skips);
    Ok(())
}

fn fuzz_targets(context: &Context<'_>, report: &mut Report) -> Result<()> {
    let session = fuzz::Session {
        workspace: context.workspace,
        log: &context.log,
        limit: budget::ended_after(context.stage),
    };
    session.run(fuzz::GATE_SECONDS, None, report)
}

/// The simulator runs as many seeds as the gate wants of it; it prints the command that replays a seed that fails.
fn seeds(context: &Context<'_>, report: &mut Report) -> Result<()> {
    if !context.workspace.has_binary(SIMULATOR) {
        report.skip("seeds", "the simulator has no binary yet".to_owned());
        return Ok(());
    }
    let mut command = context.workspace.cargo("run");
    command.args(simulator_arguments(SIMULATOR));
    context.check(command.args(SEED_ARGUMENTS), report)
}

/// The table of deliberate bugs is that of the code, and the simulator still finds each of them.
fn find_mutants(context: &Context<'_>, report: &mut Report) -> Result<()> {
    let mut command = context.workspace.cargo("run");
    context.check(
        command.args(mutants::arguments(&mutants::Options::of_gate())),
        report,
    )
}

/// The guests that tests run in are what they are said to be. By a process of its own, so that it is ended with what it started; it installs
/// nothing, because the test command has done so and the gate must not.
fn virtual_machine(context: &Context<'_>, report: &mut Report) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .current_dir(&context.workspace.root)
        .args(["vm", "--check", "--no-install"]);
    let mut checks = CheckOutput::default();
    let ended = process::run(
        &mut command,
        &context.log,
        budget::ended_after(context.stage),
        |line| checks.line(line),
    )?;
    if !ended.success() && checks.counts.failed == 0 {
        checks.counts.failed = 1;
    }
    report.counts += checks.counts;
    for skip in checks.skips {
        report.skip(&skip.name, skip.reason);
    }
    Ok(())
}

/// Builds what is shipped as it is shipped, then drives it.
fn system(context: &Context<'_>, report: &mut Report) -> Result<()> {
    let mut build = context.workspace.cargo("build");
    let built = process::run(
        build.args(["--release", "-p", "ionian-cli"]),
        &context.log,
        budget::ended_after(context.stage),
        |_| true,
    )?;
    if !built.success() {
        bail!("the command line does not build");
    }
    let mut command = context.workspace.cargo("test");
    command.args(["--release", "--no-fail-fast", "-p", SYSTEM_TESTS]);
    context.count(
        command.env(
            "IONIAN_BIN",
            context.workspace.target.join("release/ionian"),
        ),
        report,
    )
}

/// Whether a cargo subcommand that comes as a component of the toolchain is there.
pub(crate) fn has_component(subcommand: &str) -> bool {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args([subcommand, "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_checks_and_skips() {
        let mut report = Report::default();
        report.one(true);
        report.one(false);
        report.skip("x", "because".to_owned());
        assert_eq!(
            report.counts,
            Counts {
                passed: 1,
                failed: 1,
                skipped: 1
            }
        );
        assert_eq!(report.skips[0].to_string(), "SKIP x: because");
    }

    #[test]
    fn stages_have_different_names() {
        let mut names: Vec<&str> = GATE.iter().chain([&SYSTEM]).map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), GATE.len() + 1);
    }

    #[test]
    fn a_component_that_does_not_exist_is_not_there() {
        assert!(!has_component("no-such-subcommand"));
    }
}
