//! `cargo xtask test`: what a person runs first and what continuous integration runs always. Provides what is missing, then the gate, then
//! the system tests; the last line is `N passed, N failed, N skipped`.

use anyhow::Result;
use clap::Args;

use crate::requirements::{self, Host};
use crate::stages::{GATE, SYSTEM};
use crate::verify::Gate;
use crate::workspace::Workspace;

/// Flags of `test`.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Never install packages, not even as root; print the command instead.
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// Runs everything and answers whether nothing failed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let host = Host::probe();
    let install = !options.no_install;
    println!("== requirements");
    requirements::provide(host, install)?;
    let workspace = Workspace::read()?;
    let mut gate = Gate::default();
    for stage in GATE.iter().chain([&SYSTEM]) {
        gate.run(&workspace, stage)?;
    }
    Ok(gate.finish(install && host.installs()))
}
