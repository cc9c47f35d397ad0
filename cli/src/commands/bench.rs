//! `ionian bench`: figures with everything that is needed to trust them.

mod append;
mod audit;
mod clients;
mod cuts;
mod device;
pub(crate) mod embedded;
mod limits;
mod report;
mod store;
mod usage;

use crate::exit::Exit;

/// Measure appends, the store alone, or the ordering tree alone
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Append(Box<append::Args>),
    Store(store::Args),
    Cuts(Box<cuts::Args>),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Append(args) => append::run(args),
        Command::Store(args) => store::run(args),
        Command::Cuts(args) => cuts::run(args),
    }
}
