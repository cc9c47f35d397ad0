//! The `ionian` command: a cluster in one process, nodes of a cluster, and everything one does with a log.
//!
//! Exit codes: 0 done; 1 it failed, or a check did; 2 the command line or a configuration is wrong; 3 the cluster is up but
//! cannot take appends (`status`), or its controllers have no majority; 4 a device failed, and the process ended as in a crash (`node`, `dev`, `bench`). Results go to standard output, everything said to people to standard error.
#![forbid(unsafe_code)]

mod banner;
mod commands;
mod connect;
mod controllers;
mod exit;
mod history;
mod input;
mod operator;
mod output;
mod progress;
mod signals;
mod table;
mod tree;
mod version;

use clap::{CommandFactory, Parser, Subcommand};

/// Totally ordered, sharded, replicated shared logs.
#[derive(Debug, Parser)]
#[command(
    name = "ionian",
    version = version::SHORT,
    long_version = version::long(),
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start with `ionian demo`. Then `ionian dev` in one terminal, and in another: echo hello | ionian append; ionian tail"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(commands::demo::Args),
    Dev(commands::dev::Args),
    Node(commands::node::Args),
    Ca(commands::ca::Args),
    Controller(commands::controller::Args),
    Log(commands::log::Args),
    Shard(commands::shard::Args),
    #[command(alias = "change")]
    Transaction(commands::transaction::Args),
    Tree(commands::tree::Args),
    View(commands::view::Args),
    User(commands::user::Args),
    Cluster(commands::cluster::Args),
    Append(commands::append::Args),
    Tail(commands::tail::Args),
    Read(commands::read::Args),
    Trim(commands::trim::Args),
    Status(commands::status::Args),
    Config(commands::config::Args),
    Inspect(commands::inspect::Args),
    Doctor(commands::doctor::Args),
    Bench(commands::bench::Args),
    Completions(commands::completions::Args),
}

fn main() -> std::process::ExitCode {
    ionian_runtime::memory::map_large_blocks();
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Demo(args) => commands::demo::run(args),
        Command::Dev(args) => commands::dev::run(args),
        Command::Node(args) => commands::node::run(args),
        Command::Ca(args) => commands::ca::run(args),
        Command::Controller(args) => commands::controller::run(args),
        Command::Log(args) => commands::log::run(args),
        Command::Shard(args) => commands::shard::run(args),
        Command::Transaction(args) => commands::transaction::run(args),
        Command::Tree(args) => commands::tree::run(args),
        Command::View(args) => commands::view::run(args),
        Command::User(args) => commands::user::run(args),
        Command::Cluster(args) => commands::cluster::run(args),
        Command::Append(args) => commands::append::run(args),
        Command::Tail(args) => commands::tail::run(args),
        Command::Read(args) => commands::read::run(args),
        Command::Trim(args) => commands::trim::run(args),
        Command::Status(args) => commands::status::run(args),
        Command::Config(args) => commands::config::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Completions(args) => commands::completions::run(args, &mut Cli::command()),
    };
    result.unwrap_or_else(|error| exit::report(&error)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_says_what_it_does() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no description");
            for argument in command.get_arguments() {
                let id = argument.get_id();
                assert!(argument.get_help().is_some(), "{path}: {id} has no help");
            }
            command.get_subcommands().for_each(|sub| walk(sub, &path));
        }
        walk(&Cli::command(), "");
    }
}
