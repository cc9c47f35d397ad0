//! `cargo xtask profiles`: writes the README's table of NIC profiles anew from `nic-profiles/`. A test of the crate that reads
//! profiles finds a table that is out of date.

use anyhow::{Context, Result};
use clap::Args;
use ionian_runtime::{TABLE_BEGINS, builtin_profiles, with_profiles_table};

use crate::workspace::Workspace;

/// Flags of `profiles`.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Say whether the table is up to date, and write nothing.
    #[arg(long)]
    check: bool,
}

/// Answers whether the table is as the profiles have it, afterwards or, with `--check`, now.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let path = Workspace::read()?.root.join("README.md");
    let readme = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let profiles = builtin_profiles()?;
    let fresh = with_profiles_table(&readme, &profiles)
        .with_context(|| format!("{} has no line {TABLE_BEGINS:?}", path.display()))?;
    let current = fresh == readme;
    if current {
        println!("the table of {} profiles is up to date", profiles.len());
    } else if options.check {
        println!("README.md is not up to date: run `cargo xtask profiles`");
    } else {
        std::fs::write(&path, fresh).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote the table of {} profiles", profiles.len());
    }
    Ok(current || !options.check)
}
