//! `cargo xtask chaos`: faults under load in a cluster of processes; the exit status is the verdict over the history.

mod governed;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use ionian_system_tests::chaos::{self, Plan, Scenario, Verdict};
use ionian_system_tests::{Binary, Durability};

use crate::process;
use crate::workspace::Workspace;

/// How long the binary may take to build.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// Flags of `chaos`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is the verdict: 0 pass, 1 fail, 2 unknown, 3 the harness itself failed. It is never a timing.\n\
    As root every node gets a network namespace and one a small file system; otherwise the faults that need them are skipped."
)]
pub(crate) struct Options {
    /// Which faults: kill9, pause, partition, loss, disk-full, bit-flip, restart, or all of them; or, with three controllers,
    /// reconfigure: every change of a cluster, with deaths in between; controllers: what can become of these; tree: changes of
    /// the ordering tree, and what can become of its processes
    #[arg(long, value_name = "NAME", default_value = "all", value_parser = Which::named)]
    scenario: Which,
    /// For how long there are faults; `reconfigure` has its own steps
    #[arg(long, value_name = "N", default_value_t = 1)]
    minutes: u64,
    /// For how many seconds instead
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    seconds: Option<u64>,
    /// What an acknowledgement means: D0 memory, D1 flushed to the device
    #[arg(long, value_enum, ignore_case = true, default_value = "D1")]
    durability: Class,
    /// Chooses faults and victims; printed, so that a run can be repeated. Without it, the time of day
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Writers at a time
    #[arg(long, value_name = "N", default_value_t = 3)]
    writers: u32,
    /// Keep the merged history there, as history.jsonl, with those of the clients beside it
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Processes killed by `reconfigure`: replicas and root leaders in turn
    #[arg(long, value_name = "N", default_value_t = 20)]
    kills: u32,
    /// For how long `reconfigure` has full load, during which nobody dies
    #[arg(long, value_name = "M", default_value_t = 10)]
    load_minutes: u64,
    /// What `reconfigure`, `controllers` or `tree` found, as one JSON document on standard output
    #[arg(long)]
    json: bool,
}

impl Options {
    /// For how long there are faults.
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(60 * self.minutes))
    }
}

/// A scenario on the command line.
#[derive(Clone, Copy, Debug)]
enum Which {
    /// Faults of a cluster whose controller is one of its nodes.
    Faults(Scenario),
    /// Changes of a cluster with three controllers.
    Reconfigure,
    /// Faults of these.
    Controllers,
    /// Changes and faults of the ordering tree.
    Tree,
}

impl Which {
    fn named(name: &str) -> Result<Self> {
        match name {
            governed::RECONFIGURE => Ok(Self::Reconfigure),
            governed::CONTROLLERS => Ok(Self::Controllers),
            governed::TREE => Ok(Self::Tree),
            name => Scenario::named(name).map(Self::Faults).with_context(|| {
                let others = [governed::RECONFIGURE, governed::CONTROLLERS, governed::TREE];
                format!("none of {} either", others.join(", "))
            }),
        }
    }
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

/// Runs the scenario; returns the exit code, which is the verdict.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let signals = process::signals()?;
    let workspace = Workspace::read()?;
    let binary = release_binary(&workspace)?;
    let mut scratch = Scratch::temporary("chaos")?;
    let seed = options.seed.unwrap_or_else(time_of_day);
    let asked_to_end = || signals.try_recv().is_ok();
    let scenario = match options.scenario {
        Which::Faults(scenario) => scenario,
        Which::Reconfigure => {
            return governed::reconfigure(options, seed, &binary, &mut scratch, asked_to_end);
        }
        Which::Controllers => {
            return governed::controllers(options, seed, &binary, &mut scratch, asked_to_end);
        }
        Which::Tree => {
            return governed::tree(options, seed, &binary, &mut scratch, asked_to_end);
        }
    };
    let seconds = options.duration().as_secs();
    let plan = Plan {
        scenario,
        durability: options.durability.into(),
        duration: Duration::from_secs(seconds),
        writers: options.writers,
        seed,
    };
    println!(
        "{} for {seconds} s, durability {}, seed {seed}; files in {}",
        scenario.name(),
        options.durability,
        scratch.path().display()
    );
    let outcome = chaos::run(
        &binary,
        scratch.path(),
        &plan,
        options.history.as_deref(),
        asked_to_end,
        |line| println!("{line}"),
    )
    .inspect_err(|_| scratch.keep())?;
    print!("{}", outcome.report);
    println!(
        "{} windows, {} records acknowledged, the longest recovery took {:.1} s",
        outcome.windows,
        outcome.acked,
        outcome.recovery_max.as_secs_f64()
    );
    for kind in plan.scenario.kinds() {
        let [installed, skipped, unknown] = outcome.faults.get(kind.name()).unwrap_or(&[0; 3]);
        println!(
            "{:<10} installed {installed}, skipped {skipped}, unknown {unknown}",
            kind.name()
        );
    }
    if outcome.repaired > 0 {
        println!("{} records repaired from the peer", outcome.repaired);
    }
    for damage in &outcome.unread_damage {
        println!("damage that nobody has read yet: {damage}");
    }
    for problem in &outcome.problems {
        println!("PROBLEM: {problem}");
    }
    let verdict = outcome.verdict;
    println!("verdict with recovery and repair: {verdict}; seed {seed}");
    if options.history.is_some() || verdict != Verdict::Pass {
        println!("history: {}", outcome.history.display());
    }
    if verdict != Verdict::Pass {
        println!("files: {}", scratch.path().display());
        scratch.keep();
    }
    Ok(verdict.exit_code())
}

fn time_of_day() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// Builds the command line as it is shipped; takes the one that `IONIAN_BIN` names, as the system tests do, if it names one.
pub(crate) fn release_binary(workspace: &Workspace) -> Result<Binary> {
    if let Some(binary) = Binary::from_environment() {
        return Ok(binary);
    }
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
