//! Developer commands: `cargo xtask verify | fix | test | fuzz | profiles | mutants | swarm | conformance | demo-cluster | chaos | hostile |
//! vm`, one file per command.
//!
//! A command is a module with `Options` (its flags, for `--help`) and `run`, which answers whether all went well. Everything that is
//! built or written goes to cargo's target directory.
#![forbid(unsafe_code)]

mod budget;
mod chaos;
mod conformance;
mod counts;
mod demo_cluster;
mod fix;
mod fuzz;
mod hostile;
mod mutants;
mod process;
mod profiles;
mod requirements;
mod stages;
mod swarm;
mod test;
mod verify;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The exit code of a judging command that failed itself.
const HARNESS_ERROR: u8 = 3;

/// Developer commands of this repository.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The gate: every check, nothing written outside the target directory.
    Verify(verify::Options),
    /// Formats and applies clippy's suggestions; the only command that changes sources.
    Fix(fix::Options),
    /// Installs what is missing (root on Debian) or says how, then the gate, then the system tests.
    Test(test::Options),
    /// Runs the fuzz targets for a while each.
    Fuzz(fuzz::Options),
    /// Writes the README's table of NIC profiles anew.
    Profiles(profiles::Options),
    /// Measures how many seeds the simulator needs to find each deliberate protocol bug.
    Mutants(mutants::Options),
    /// Runs a cluster of five processes on loopback, to try it out.
    DemoCluster(demo_cluster::Options),
    /// Runs many seeds of the simulator on all cores and prints how to replay what fails.
    Swarm(swarm::Options),
    /// Runs the same cases over every network backend that opens here, and accounts for every message and buffer.
    Conformance(conformance::Options),
    /// Does faults to a cluster of processes under load; the exit status is the judge's verdict.
    Chaos(chaos::Options),
    /// Sends a node what it never granted: it must stay as it was. Prints what that costs.
    Hostile(hostile::Options),
    /// Runs a command in a guest: this host's files and programs, but a Debian kernel, soft-RoCE, NVMe.
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = process::kill_children_on_signals() {
        eprintln!("xtask: {error:#}");
        return ExitCode::FAILURE;
    }
    let outcome = match &cli.command {
        Task::Verify(options) => verify::run(options),
        Task::Fix(options) => fix::run(options),
        Task::Test(options) => test::run(options),
        Task::Fuzz(options) => fuzz::run(options),
        Task::Profiles(options) => profiles::run(options),
        Task::Mutants(options) => mutants::run(options),
        Task::DemoCluster(options) => demo_cluster::run(options),
        Task::Swarm(options) => swarm::run(options),
        Task::Conformance(options) => conformance::run(options),
        Task::Chaos(options) => return verdict(chaos::run(options), HARNESS_ERROR),
        Task::Hostile(options) => hostile::run(options),
        Task::Vm(options) => return verdict(vm::run(options), vm::MACHINE_ERROR),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code of a command that has one of its own. A run that could not take place has `failed`.
fn verdict(outcome: anyhow::Result<u8>, failed: u8) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_describes_every_command() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            assert!(
                sub.get_about().is_some(),
                "{} has no description",
                sub.get_name()
            );
        }
    }
}
