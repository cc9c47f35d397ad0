//! `cargo xtask mutants`: builds the mutated machines and measures how many seeds the simulator needs to find each bug.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::workspace::{Workspace, simulator_arguments};

/// Where the table is.
pub(crate) const DOCUMENT: &str = "docs/testing.md";

/// Flags of `mutants`.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// This mutant only
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Seeds that a mutant may survive in each of five streams; 2000 without it
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// One JSON object per mutant
    #[arg(long)]
    json: bool,
    /// Whether the table in docs/testing.md is that of these mutants, and one stream of seeds finds each of them again
    #[arg(long, conflicts_with = "write")]
    check: bool,
    /// Write the table in docs/testing.md
    #[arg(long, conflicts_with = "only")]
    write: bool,
}

impl Options {
    /// What the gate asks for.
    pub(crate) fn of_gate() -> Self {
        Self {
            check: true,
            ..Self::default()
        }
    }
}

/// Measures; true when every mutant was found.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let workspace = Workspace::read()?;
    let mut command = workspace.cargo("run");
    command.args(arguments(options)).stdin(Stdio::null());
    let status = command.status().context("starting cargo")?;
    Ok(status.success())
}

/// What cargo is called with after `run`.
pub(crate) fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = simulator_arguments("ionian-mutants")
        .map(str::to_owned)
        .to_vec();
    let mut with = |flag: &str, value: Option<String>| {
        arguments.push(flag.to_owned());
        arguments.extend(value);
    };
    if let Some(name) = &options.only {
        with("--only", Some(name.clone()));
    }
    if let Some(seeds) = options.seeds {
        with("--seeds", Some(seeds.to_string()));
    }
    if options.json {
        with("--json", None);
    }
    if options.check {
        with("--check", Some(DOCUMENT.to_owned()));
    }
    if options.write {
        with("--write", Some(DOCUMENT.to_owned()));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_reach_the_program() {
        let options = Options {
            only: Some("mutant_x".to_owned()),
            seeds: Some(7),
            check: true,
            ..Options::default()
        };
        let arguments = arguments(&options).join(" ");
        assert!(
            arguments.ends_with("-- --only mutant_x --seeds 7 --check docs/testing.md"),
            "{arguments}"
        );
    }
}
