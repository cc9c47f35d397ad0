//! `ionian view`: what became of a log's views, when, and why.

use anyhow::bail;
use clap::Subcommand;
use ionian_control_core::{Details, Operation};

use crate::exit::Exit;
use crate::operator::{Controllers, LookArgs, show};

/// Show how a log's views came about
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The decisions that made or logged a log's views and root epochs: what, when, why; the last 1,024
    History {
        /// The name of the log
        log: String,
        #[command(flatten)]
        look: LookArgs,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Command::History { log, look } = &args.command;
    let controllers = Controllers::of(&look.at)?;
    let question = Operation::History { log: log.clone() };
    let Details::History(events) = controllers.ask(false, question)?.details else {
        bail!("the controller shows something else; it is of another version");
    };
    let json = show::history_json(log, &events);
    look.out.emit(&show::history(&events), &json)?;
    Ok(Exit::Done)
}
