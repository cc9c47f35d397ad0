//! `ionian inspect`: what a data folder holds, read without changing it.

mod files;
mod place;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::OutArgs;

/// Show what a data folder holds: superblocks, segments, the cut log, checksums; nothing is changed
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 1 when something is damaged. A folder that is in use may look torn at its end."
)]
pub(crate) struct Args {
    /// The data folder of a node, or one folder within it
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    out: OutArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let folders = store_folders(&args.folder)?;
    let mut text = String::new();
    let mut places = Vec::new();
    let mut damaged = 0;
    for folder in &folders {
        let found = place::read(folder)?;
        text += &found.text();
        damaged += found.damage();
        places.push(found.json());
    }
    let result: Value = json!({"folder": args.folder, "damaged": damaged, "places": places});
    text += &match damaged {
        0 => String::from("nothing is damaged\n"),
        1 => String::from("1 thing is damaged\n"),
        count => format!("{count} things are damaged\n"),
    };
    args.out.emit(&text, &result)?;
    Ok(if damaged == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// The folders with files of a store: the one given, or those within it.
fn store_folders(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let is_store = |folder: &Path| files::list(folder).map(|files| !files.is_empty());
    if is_store(folder)? {
        return Ok(vec![folder.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() && is_store(&path)? {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("{} holds no files of a store", folder.display());
    }
    found.sort();
    Ok(found)
}
