//! `cargo xtask chaos`: processes killed under load and restarted; the exit status is the verdict on what was acknowledged.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use ionian_system_tests::{Binary, Durability, chaos};

use crate::process;
use crate::workspace::Workspace;

/// How long the binary may take to build.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// Flags of `chaos`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What happens to the processes
    #[arg(long, value_enum, default_value = "kill9")]
    scenario: Scenario,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 1)]
    minutes: u64,
    /// What an acknowledgement means: D0 memory, D1 flushed to the device
    #[arg(long, value_enum, ignore_case = true, default_value = "D1")]
    durability: Class,
    /// Chooses the victims; printed, so that a run can be repeated
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Writers at a time
    #[arg(long, value_name = "N", default_value_t = 3)]
    writers: u32,
}

/// What happens to the processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Scenario {
    /// kill -9 of one process or of all, again and again
    Kill9,
}

/// A durability class on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Class {
    /// Memory
    #[value(name = "D0")]
    D0,
    /// Flushed
    #[value(name = "D1")]
    D1,
}

impl From<Class> for Durability {
    fn from(class: Class) -> Self {
        match class {
            Class::D0 => Self::D0,
            Class::D1 => Self::D1,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Durability::from(*self).fmt(f)
    }
}

/// Runs the scenario; true when nothing was wrong.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let Scenario::Kill9 = options.scenario;
    let signals = process::signals()?;
    let workspace = Workspace::read()?;
    let binary = release_binary(&workspace)?;
    let mut scratch = Scratch::temporary("chaos")?;
    println!(
        "kill -9 for {} min, durability {}, seed {}; files in {}",
        options.minutes,
        options.durability,
        options.seed,
        scratch.path().display()
    );
    let plan = chaos::Plan {
        durability: options.durability.into(),
        duration: Duration::from_secs(60 * options.minutes),
        writers: options.writers,
        seed: options.seed,
    };
    let asked_to_end = || signals.try_recv().is_ok();
    let verdict = chaos::kill9(&binary, scratch.path(), &plan, asked_to_end, |line| {
        println!("{line}");
    })?;
    println!(
        "{} kills of one process, {} of all of them or of the cut log; the longest recovery took {:.1} s",
        verdict.single_kills,
        verdict.total_kills,
        verdict.recovery_max.as_secs_f64()
    );
    println!(
        "{} records acknowledged, {} in the log at the end, {} positions declared lost",
        verdict.acked, verdict.kept, verdict.lost
    );
    if verdict.problems.is_empty() {
        println!("PASS: every acknowledged record is where it was promised");
        return Ok(true);
    }
    for problem in &verdict.problems {
        println!("{problem}");
    }
    println!(
        "FAIL: {} problems; files in {}",
        verdict.problems.len(),
        scratch.path().display()
    );
    scratch.keep();
    Ok(false)
}

/// Builds the command line as it is shipped.
pub(crate) fn release_binary(workspace: &Workspace) -> Result<Binary> {
    let mut build = workspace.cargo("build");
    let log = workspace.scratch("demo")?.join("build.log");
    let built = process::run(
        build.args(["--release", "-p", "ionian-cli"]),
        &log,
        BUILD_LIMIT,
        |_| true,
    )?;
    if !built.success() {
        bail!("the command line does not build");
    }
    Ok(Binary::new(&workspace.target.join("release/ionian")))
}

/// A folder for a run, removed at its end unless kept.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    temporary: bool,
}

impl Scratch {
    /// A folder of the user's.
    pub(crate) fn kept(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            temporary: false,
        }
    }

    /// A new folder among the system's temporary ones.
    pub(crate) fn temporary(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("ionian-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self {
            path,
            temporary: true,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder where it is.
    pub(crate) const fn keep(&mut self) {
        self.temporary = false;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("{} stays: {error}", self.path.display());
        }
    }
}
