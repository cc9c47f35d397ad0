//! `cargo xtask fix`: formats, and applies the suggestions of clippy that it calls certain. The only command that changes sources.

use anyhow::Result;
use clap::Args;

use crate::fuzz;
use crate::workspace::Workspace;

/// Flags of `fix`: none.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {}

/// Runs clippy's fixes first, so that what it wrote is formatted as well.
pub(crate) fn run(_options: &Options) -> Result<bool> {
    let workspace = Workspace::read()?;
    let clippy = [
        "--fix",
        "--workspace",
        "--all-targets",
        "--allow-dirty",
        "--allow-staged",
    ];
    let clean = workspace.cargo("clippy").args(clippy).status()?.success();
    let formatted = workspace.cargo("fmt").arg("--all").status()?.success();
    let fuzz = workspace
        .cargo("fmt")
        .args(["--manifest-path", fuzz::MANIFEST])
        .status()?
        .success();
    Ok(clean && formatted && fuzz)
}
