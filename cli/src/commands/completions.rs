//! `ionian completions`: completion scripts for shells.

use std::io::Write;

use clap_complete::Shell;

use crate::exit::Exit;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For bash: ionian completions bash > ~/.local/share/bash-completion/completions/ionian"
)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, command: &mut clap::Command) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "ionian", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}
