//! Developer commands: `cargo xtask verify | fix | test | fuzz | demo-cluster | chaos`, one file per command.
//!
//! A command is a module with `Options` (its flags, for `--help`) and `run`, which answers whether all went well. Everything that is
//! built or written goes to cargo's target directory.
#![forbid(unsafe_code)]

mod budget;
mod chaos;
mod counts;
mod demo_cluster;
mod fix;
mod fuzz;
mod process;
mod requirements;
mod stages;
mod test;
mod verify;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Runs a cluster of five processes on loopback, to try it out.
    DemoCluster(demo_cluster::Options),
    /// Kills processes of a cluster under load; the exit status says whether every promise was kept.
    Chaos(chaos::Options),
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
        Task::DemoCluster(options) => demo_cluster::run(options),
        Task::Chaos(options) => chaos::run(options),
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
