//! `cargo xtask vm`: runs a command in a guest that has the host's own files and programs, but a Debian kernel and its modules.
//!
//! For what this machine's kernel cannot do: soft-RoCE, netem, NVMe controllers. The guest's root is the host's, read-only over 9p with a
//! tmpfs above it, so that any program built on the host runs unmodified, and nothing of the host changes but the job directory. A boot
//! costs some seconds on an idle machine: put many tests into one command.

mod accelerator;
mod check;
mod image;
mod initrd;
mod kernel;
mod machine;
mod modules;
mod needs;
mod outcome;
mod place;
mod plan;
mod session;
mod tail;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process;
use crate::workspace::Workspace;
use kernel::Kernel;
use outcome::End;
use plan::Plan;
use session::Show;

/// The exit code when the machine itself failed: nothing is known of the command. As `timeout` and `env` use it.
pub(crate) const MACHINE_ERROR: u8 = 125;

/// The exit code when the command ran out of time, as that of `timeout`.
const TIMED_OUT: u8 = 124;

/// Flags of `vm`.
#[derive(Debug, Args)]
#[command(
    after_help = "CMD is a line for bash: several words are joined by spaces. It runs as root in the caller's folder, and what it writes is\n\
    gone at the end, except in the job directory, $IONIAN_VM_JOB. Standard output and standard error are the command's, and so is the exit\n\
    status, but for 124: out of time, 125: the machine failed, 128 + N: ended by signal N. docs/testing.md lists the environment."
)]
pub(crate) struct Options {
    /// Check the machine itself: one line PASS or FAIL per property
    #[arg(long, conflicts_with_all = ["command", "job_dir"])]
    check: bool,
    /// Memory of a guest, in MiB
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..=65_536))]
    memory_mib: u32,
    /// Processors of a guest
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Kernel modules to load besides those that other flags need
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    modules: Vec<String>,
    /// Huge pages of 2 MiB each, mounted at /dev/hugepages
    #[arg(long, value_name = "N", default_value_t = 0)]
    huge_pages: u32,
    /// An emulated NVMe device, empty at the start: /dev/nvme0n1, /dev/ng0n1
    #[arg(long)]
    nvme: bool,
    /// A soft-RoCE device over eth0: rxe0
    #[arg(long)]
    rdma: bool,
    /// Guests; two of them run the same command on the two ends of one link
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=2))]
    peers: u32,
    /// Percent of the frames lost that the first of two guests sends
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    loss: Option<f64>,
    /// How long the command may take, in seconds; booting has its own limit
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout_s: u64,
    /// A folder of the host that the guests write to; without it, one that goes at the end
    #[arg(long, value_name = "DIR")]
    job_dir: Option<PathBuf>,
    /// Never install packages, not even as root; print the command instead
    #[arg(long)]
    no_install: bool,
    /// Say on standard error what is done, and print the guests' console at the end
    #[arg(long)]
    verbose: bool,
    /// What to run
    #[arg(last = true, value_name = "CMD", required_unless_present = "check")]
    command: Vec<String>,
}

/// What a guest is made from, prepared once for any number of boots.
#[derive(Debug)]
pub(crate) struct Kit {
    kernel: Kernel,
    accelerator: accelerator::Accelerator,
    /// Where runs have their folders.
    runs: PathBuf,
    verbose: bool,
}

impl Kit {
    /// Finds or fetches the kernel and looks how fast this machine can run it.
    ///
    /// # Errors
    /// Without a kernel: a sentence that says what is missing. Nothing is left of what was begun.
    pub(crate) fn prepare(workspace: &Workspace, verbose: bool) -> Result<Self> {
        let home = workspace.scratch("vm")?;
        let runs = workspace.scratch("vm/runs")?;
        let told = |line: &str| {
            if verbose {
                eprintln!("vm: {line}");
            }
        };
        let kernel = kernel::provide(&home, &told)?;
        let accelerator = accelerator::find(&home, &runs, &kernel, &told)?;
        Ok(Self {
            kernel,
            accelerator,
            runs,
            verbose,
        })
    }
}

/// Runs the command in one guest or two, or the checks; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let signals = process::signals()?;
    let workspace = Workspace::read()?;
    let rdma = options.rdma || options.check;
    if let Err(missing) = needs::provide(rdma, !options.no_install) {
        if options.check {
            println!("SKIP vm: {missing}");
            return Ok(0);
        }
        bail!("cargo xtask vm cannot run: {missing}");
    }
    let kit = match Kit::prepare(&workspace, options.verbose) {
        // In the form of a package that could have been installed: as root on Debian such a skip is a failure.
        Err(error) if options.check => {
            println!("SKIP vm: {error:#} (install linux-image-amd64)");
            return Ok(0);
        }
        kit => kit?,
    };
    if options.check {
        return check::run(&kit, &signals);
    }
    let plan = plan(options)?;
    let heard = session::run(&kit, &plan, Show::Stream, &signals)?;
    let mut code = 0;
    for (peer, heard) in heard.iter().enumerate() {
        if options.verbose {
            eprintln!("vm: console of guest {peer}:\n{}", heard.console);
        }
        match &heard.end {
            End::Exited(_) => {}
            End::TimedOut(told) | End::Failed(told) => eprintln!("xtask: guest {peer}: {told}"),
            End::Interrupted(signal) => eprintln!("xtask: guest {peer} ended by signal {signal}"),
        }
        code = worse(code, exit_code(&heard.end));
    }
    Ok(code)
}

fn plan(options: &Options) -> Result<Plan> {
    let directory = std::env::current_dir().context("finding the current folder")?;
    let plan = Plan {
        command: options.command.join(" "),
        directory,
        job: options.job_dir.clone(),
        modules: options.modules.clone(),
        memory_mib: options.memory_mib,
        cpus: options.cpus,
        huge_pages: options.huge_pages,
        nvme: options.nvme,
        rdma: options.rdma,
        peers: options.peers,
        loss_percent: options.loss,
        limit: Duration::from_secs(options.timeout_s),
    };
    plan.validate()?;
    Ok(plan)
}

fn exit_code(end: &End) -> u8 {
    match end {
        End::Exited(code) => *code,
        End::TimedOut(_) => TIMED_OUT,
        End::Failed(_) => MACHINE_ERROR,
        End::Interrupted(signal) => 128_u8.saturating_add(u8::try_from(*signal).unwrap_or(0)),
    }
}

/// Of two exit codes the one to tell: a machine that failed before everything else, because it makes the other one worthless.
fn worse(one: u8, other: u8) -> u8 {
    if one == MACHINE_ERROR || other == MACHINE_ERROR {
        MACHINE_ERROR
    } else {
        one.max(other)
    }
}

/// Whether the host has what the first stage of a guest is made of.
pub(crate) fn has_static_busybox() -> bool {
    initrd::is_static_file(initrd::BUSYBOX)
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 90.0 => Ok(value),
        _ => Err("give a percentage above 0 and up to 90".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_status_is_told_and_a_failed_machine_before_all() {
        assert_eq!(worse(0, 7), 7);
        assert_eq!(worse(137, 1), 137);
        assert_eq!(worse(MACHINE_ERROR, 137), MACHINE_ERROR);
        assert_eq!(worse(0, 0), 0);
    }

    #[test]
    fn every_end_has_its_code() {
        assert_eq!(exit_code(&End::Exited(3)), 3);
        assert_eq!(exit_code(&End::TimedOut(String::new())), TIMED_OUT);
        assert_eq!(exit_code(&End::Failed(String::new())), MACHINE_ERROR);
        assert_eq!(exit_code(&End::Interrupted(15)), 143);
    }

    #[test]
    fn a_loss_is_a_percentage() {
        assert_eq!(percent("1.5"), Ok(1.5));
        assert_eq!(percent("20%"), Ok(20.0));
        for wrong in ["0", "-1", "91", "x", "nan", "inf", ""] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
