//! `ionian bench`: figures with everything that is needed to trust them.

mod append;
pub(crate) mod embedded;
mod measure;

use crate::exit::Exit;

/// Measure
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Append(append::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Append(args) => append::run(args),
    }
}
