//! `ionian doctor`: what this machine has, which NIC profiles fit it, and how to mend what the others lack.
//!
//! The facts are read below a root directory ([`gather`](gather::gather)), judged without looking anywhere
//! ([`Judgement`]), and shown. Nothing is changed, loaded or linked to find them.

mod facts;
mod gather;
mod judge;
mod probes;
mod root;
mod view;

use std::path::{Path, PathBuf};

use ionian_node::config::find_profile;
use ionian_runtime::{NicProfile, builtin_profiles};

use crate::exit::{Exit, UsageError};
use crate::output::OutArgs;
use judge::Judgement;
use root::Root;

/// Say what this machine has for networks and disks, which NIC profiles fit it, and how to mend what is missing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 0: the recommended profile, or the one asked for, can run here. 1: it cannot. 2: there is no such profile. Nothing is changed."
)]
pub(crate) struct Args {
    /// Judge this profile: the name of one that comes with the program, or the path of a file that ends with .toml
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Read below this directory in place of /, without asking the kernel anything
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
    #[command(flatten)]
    out: OutArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut profiles = builtin_profiles()?;
    let asked = match &args.profile {
        Some(name) => Some(ask(&mut profiles, name)?),
        None => None,
    };
    let facts = gather::gather(&Root::new(&args.root));
    let judgement = Judgement::of(&facts, &profiles, asked.as_deref());
    let text = view::text(&facts, &judgement);
    args.out.emit(&text, &view::json(&facts, &judgement)?)?;
    Ok(if judgement.good() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Adds the profile that was asked for, where it is not there, and says what it is called.
fn ask(profiles: &mut Vec<NicProfile>, name: &str) -> Result<String, UsageError> {
    let found = find_profile(name, Path::new(""));
    let found = found.map_err(|what| UsageError(format!("--profile {what}")))?;
    let name = found.name.clone();
    profiles.retain(|profile| profile.name != name);
    profiles.push(found);
    Ok(name)
}

#[cfg(test)]
mod tests;
